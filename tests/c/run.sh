#!/usr/bin/env bash
# Installs libfastq into a scratch folder and uses it as programs in C do, linked with the shared and with the static library.
#
#     FASTQ=.venv/bin/fastq FASTQ_MODELS=FOLDER bash tests/c/run.sh
#
#   FASTQ               the command that the answers are compared with
#   FASTQ_MODELS        folder of the real models; without it only made-up ones are used
#   PYTHON              an interpreter with numpy, which makes those
#   CC                  the C compiler; words behind it are its options
#   LIBRARIES           what CC does not add by itself for the static library: -lunwind for zig
#   CARGO_BUILD_TARGET  another machine, as rust/c/install.sh takes it, and then
#   RUNNER              what runs its programs here
#   TOKENS              how many a real model answers with
#
# For aarch64, with cargo-zigbuild, ziglang and qemu, ROOT holding the libraries of a Debian for it:
#
#     CARGO_BUILD_TARGET=aarch64-unknown-linux-gnu.2.17 CC="python -m ziglang cc -target aarch64-linux-gnu.2.17" \
#         LIBRARIES=-lunwind RUNNER="qemu-aarch64-static -cpu cortex-a76 -L ROOT" bash tests/c/run.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
read -ra cc <<<"${CC:-cc}"
read -ra runner <<<"${RUNNER:-}"
read -ra libraries <<<"${LIBRARIES:-}"
python=${PYTHON:-python3}
fastq=${FASTQ:?the fastq command to compare with, such as .venv/bin/fastq}
command -v "${cc[0]}" >/dev/null || { echo "test-c needs a C compiler: ${cc[0]} is not there; name one with CC=" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

bash rust/c/install.sh "$work/usr"
header=$work/usr/include library=$work/usr/lib
ls -l "$library"/libfastq.*

# Nothing but the interface may be seen from outside.
seen=$(nm --dynamic --defined-only --format=posix "$library/libfastq.so" | sed 's/ .*//' | sort)
declared=$(grep -o '\<fastq_[a-z_]*(' "$header/fastq.h" | tr -d '(' | sort -u)
diff <(echo "$seen") <(echo "$declared") || { echo "libfastq.so exports something else than fastq.h declares" >&2; exit 1; }

# The header in other languages and dialects.
strict=(-Wall -Wextra -Werror -pedantic "-I$header")
printf '#include <fastq.h>\nint main(void) { return (int)fastq_api_version() - FASTQ_API_VERSION; }\n' >"$work/header.c"
for dialect in c99 c11 c17; do "${cc[@]}" -std=$dialect "${strict[@]}" -c "$work/header.c" -o "$work/header.o"; done
for dialect in c++11 c++17; do "${cc[@]}" -x c++ -std=$dialect "${strict[@]}" -c "$work/header.c" -o "$work/header.o"; done

# The test, and the program of the README.
awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' README.md >"$work/answer.c"
for program in test answer; do
    source=tests/c/test.c
    [ $program = test ] || source=$work/$program.c
    "${cc[@]}" -std=c99 -O1 -g "${strict[@]}" "$source" -o "$work/$program-shared" "-L$library" "-Wl,-rpath,$library" -lfastq -lpthread
    "${cc[@]}" -std=c99 -O1 -g "${strict[@]}" "$source" -o "$work/$program-static" \
        "$library/libfastq.a" -lpthread -ldl -lm "${libraries[@]}"
done
run() { "${runner[@]}" "$@"; }

if [ -z "${CARGO_BUILD_TARGET:-}" ] && command -v pkg-config >/dev/null; then
    read -ra flags <<<"$(PKG_CONFIG_PATH=$library/pkgconfig pkg-config --cflags --libs fastq)"
    "${cc[@]}" -std=c99 "$work/answer.c" -o "$work/answer-pkg" "${flags[@]}"
fi

tiny=$work/tiny.gguf gemma=$work/gemma.gguf
"$python" tests/tiny.py "$tiny" --format Q8_0
"$python" tests/tiny.py "$gemma" --architecture gemma3 --format Q4_K --context 256

# What the command answers: one token a line.
expected() { "$fastq" run --json --temperature 0 "$@" | "$python" -c 'import json, sys; print(*json.load(sys.stdin)["tokens"])'; }
text="The capital of France is"
compare() { # MODEL TOKENS
    for linked in shared static; do
        for kind in prompt chat; do
            raw=(); [ $kind = chat ] || raw=(--raw)
            wanted=$(expected "${raw[@]}" -n "$2" "$1" "$text")
            found=$(run "$work/test-$linked" $kind "$1" "$2" "$text")
            [ -n "$wanted" ] && [ "$found" = "$wanted" ] || { echo "$kind, $1, $linked: expected $wanted, found $found" >&2; exit 1; }
        done
    done
}
for linked in shared static; do
    run "$work/test-$linked" checks "$tiny" "$gemma" "$work"
done
compare "$tiny" 24
compare "$gemma" 24
run "$work/answer-shared" "$tiny" "Hello" >"$work/answer.txt"
run "$work/answer-static" "$tiny" "Hello" >"$work/answer.static.txt"
[ -s "$work/answer.txt" ] && [ -s "$work/answer.static.txt" ]

if [ -n "${FASTQ_MODELS:-}" ]; then
    # Under emulation a real model is slow.
    compare "$FASTQ_MODELS/smollm2.gguf" "${TOKENS:-24}"
    if [ -z "${RUNNER:-}" ]; then
        for linked in shared static; do run "$work/test-$linked" checks "$FASTQ_MODELS/smollm2.gguf" "$gemma" "$work"; done
    fi
else
    echo "NOT TESTED: libfastq with a real model (FASTQ_MODELS)"
fi
echo "libfastq: all tests passed"
