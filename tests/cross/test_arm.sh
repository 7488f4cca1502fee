#!/usr/bin/env bash
# Runs the wheel and the kernels on emulated processors: ARM ones, and x86 ones that have less than this machine.
#
#     test_arm.sh PYTHON     the interpreter of a venv into which fastq is installed; its answers are what is expected
#
# An emulated processor has only the instructions of its model and kills a program that uses another one, so dispatch is
# tested as on the board itself. Its speed says nothing. Every processor runs the tests of the kernels (each format on
# each level, with FASTQ_TEST_SHARE), and of Python those of the answers, the files and the cache. Left out are real
# models (but for sixteen tokens), the comparisons with NumPy, which are slow, and what is about processes, signals and
# memory: that depends on the system, and under the emulator that is this one.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"
native=$(realpath -s "${1:?usage: test_arm.sh PYTHON}")

# Processor and the levels it must have: these and no others.
arm=(
    cortex-a53=scalar,neon                       # Raspberry Pi 3, Zero 2 W
    cortex-a76=scalar,neon,neon_dot              # Raspberry Pi 5, Graviton 2
    max=scalar,neon,neon_dot,neon_i8mm           # recent phones, Graviton 3 and later
)
x86=(
    Nehalem=scalar,sse41
    SandyBridge=scalar,sse41
    Haswell=scalar,sse41,avx2
)
# Which of the dot-product instructions a level of aarch64 must execute; it must execute none of the others.
declare -A uses=([scalar]="" [neon]="" [neon_dot]="sdot udot" [neon_i8mm]="sdot udot usdot sudot smmla ummla usmmla")
declare -A needs=([neon_dot]="sdot" [neon_i8mm]="smmla")
python_tests=(tests/test_one_answer.py tests/test_files.py tests/test_kv.py)
prompt=("The capital of France is" --raw --max-tokens 16 --temperature 0 --quiet)

target=aarch64-unknown-linux-gnu
site=$cross/site-arm64
logs=$CARGO_TARGET_DIR/logs
mkdir -p "$logs" "$cross/bin"
"$root/tests/cross/setup.sh" tools
"$root/tests/cross/setup.sh" emulator
"$root/tests/cross/setup.sh" rust $target
"$root/tests/cross/setup.sh" python $target
qemu=$cross/host/usr/bin

# ------------------------------------------------------------------------------------------------------------- build
# compile_tests LOG CARGO_ARGUMENT...: prints the program with the tests of the kernels.
compile_tests() {
    cargo test --release --no-run -p fastq-kernels --test kernels "${@:2}" >"$logs/$1" 2>&1 || { cat "$logs/$1" >&2; return 1; }
    sed -n 's/.*Executable.*(\(.*\))$/\1/p' "$logs/$1"
}

# Tests of x86 take the compiler and the profile of `make test`, and so its programs.
say "compile the kernel tests for this machine"
x86_tests=$(CARGO_TARGET_DIR=$(dirname "$CARGO_TARGET_DIR") compile_tests build-x86)

say "compile the wheel and the kernel tests for $target"
use_rust_for $target
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$cross/bin/cc-$target
rm -rf "$CARGO_TARGET_DIR/wheels"
PATH=$cross/venv/bin:$PATH maturin build --quiet --release --target $target --zig --out "$CARGO_TARGET_DIR/wheels"
arm_tests=$(compile_tests build-arm --target $target)
wheel=$(ls "$CARGO_TARGET_DIR"/wheels/*_aarch64.whl)
say "$(basename "$wheel"): $(stat -c %s "$wheel") bytes"
unset RUSTC RUSTDOC

install_arm() {
    retry "$cross/venv/bin/pip" install --quiet --disable-pip-version-check --upgrade --target "$site" \
        --only-binary=:all: --implementation cp --abi "cp$arm_version" --abi abi3 --abi none \
        --python-version "$arm_version" --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 \
        --platform manylinux_2_17_aarch64 "$@" >"$logs/pip" 2>&1 || { cat "$logs/pip"; return 1; }
}
arm_python=$(basename "$(readlink "$cross/root-arm64/usr/bin/python3")")
arm_version=${arm_python#python}
arm_version=${arm_version/./}
# The NumPy of this machine, because the files of the tiny models come from its generators.
numpy=$("$native" -c 'import numpy; print(numpy.__version__)')
once site install_arm "numpy==$numpy" pytest
rm -rf "$site"/fastq "$site"/fastq_llm*
install_arm --no-deps "$wheel"

# The interpreters as programs of their own, which tests may start as sys.executable. OpenBLAS must find out by itself
# which processor it is on.
cat >"$cross/bin/python-aarch64" <<WRAPPER
#!/bin/sh
PYTHONPATH=$site exec env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE \\
    $qemu/qemu-aarch64-static -0 $cross/bin/python-aarch64 -L $cross/root-arm64 \\
    $cross/root-arm64/usr/bin/$arm_python "\$@"
WRAPPER
cat >"$cross/bin/python-x86_64" <<WRAPPER
#!/bin/sh
exec env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $qemu/qemu-x86_64-static -0 $native $native "\$@"
WRAPPER
chmod +x "$cross"/bin/python-*
export PYTHONDONTWRITEBYTECODE=1

# --------------------------------------------------------------------------------------------------------------- run
model=$("$native" -c 'import sys; sys.path.insert(0, "tests"); import models; print(models.path_of("smollm2"))')
expected=$("$native" -m fastq run "$model" "${prompt[@]}")
say "this machine: SmolLM2 answers $(printf %q "$expected")"
golden=$("$native" - <<'PYTHON'
import hashlib, json
answers = json.load(open("tests/golden.json"))
print(hashlib.sha256("".join(answers[name]["logits"] for name in sorted(answers)).encode()).hexdigest())
PYTHON
)

# passed LOG: how many tests passed, by the last line of libtest or pytest.
passed() { grep -oE '[0-9]+ passed' "$1" | tail -1 | cut -d' ' -f1; }

# run_kernels CPU SHARE COMMAND...: the Rust tests of the kernels, of all of them the given share of the cases.
run_kernels() {
    FASTQ_TEST_SHARE=$2 "${@:3}" >"$logs/$1-kernels" 2>&1 || { tail -50 "$logs/$1-kernels"; die "kernel tests fail on $1"; }
}

# run_answer CPU PYTHON: levels, and the answer of a real model.
run_answer() {
    local cpu=$1 python=$2 found answer
    found=$("$python" -c 'import fastq; print(",".join(fastq.cpu_info().available_levels))')
    [[ $found == "$FASTQ_REQUIRE_LEVELS" ]] || die "$cpu must have the levels $FASTQ_REQUIRE_LEVELS and has $found"
    answer=$("$python" -m fastq run "$model" "${prompt[@]}")
    [[ $answer == "$expected" ]] || die "on $cpu SmolLM2 answers $(printf %q "$answer")"
    echo "$cpu: levels $found; $(passed "$logs/$cpu-kernels") kernel tests; SmolLM2's 16 tokens: equal" >"$logs/$cpu"
}

# run_python CPU PYTHON PYTEST_ARGUMENT...: as run_answer, and Python tests and hashes.
run_python() {
    local cpu=$1 python=$2 log=$logs/$1-python scratch=$CARGO_TARGET_DIR/scratch-$1
    # A folder of its own: in the one that pytest takes by default, runs that end together clean up after each other.
    FASTQ_TEST_SHARE=9 "$python" -m pytest -q -p no:cacheprovider --basetemp "$scratch" -m "not real_model" "${@:3}" \
        >"$log" 2>&1 || { cat "$log"; die "Python tests fail on $cpu"; }
    rm -rf "$scratch"
    # Where another NumPy makes another file, a hash that was not compared is but a note.
    grep -q "^one answer of .* SHA-256 $golden$" "$log" || { cat "$log"; die "$cpu lacks hash $golden of the tiny models"; }
    run_answer "$cpu" "$python"
    echo "    $(passed "$log") Python tests; one answer of all tiny models: SHA-256 $golden" >>"$logs/$cpu"
}

# An emulator is one busy thread for the most part, so all of them share the processors of this machine.
running=()
for entry in "${arm[@]}"; do
    (
        export QEMU_CPU=${entry%%=*} FASTQ_REQUIRE_LEVELS=${entry#*=}
        # The levels of the others are among those of max; on these it is about the instructions that a processor lacks.
        [[ $QEMU_CPU == max ]] && share=24 || share=96
        run_kernels "$QEMU_CPU" $share "$qemu/qemu-aarch64-static" -L "$cross/root-arm64" "$arm_tests"
        run_python "$QEMU_CPU" "$cross/bin/python-aarch64" "${python_tests[@]}"
    ) &
    running+=($!)
done
# This machine tests the levels of x86 at full speed. So here it is about dispatch: which levels there are, that each runs, and
# that it uses nothing that the processor lacks. Nehalem runs the tests of its levels, which are Sandy Bridge's as well. AVX2 takes the
# emulator a hundred times as long as the processor, and the one of Debian 12 (qemu 7.2) computes other integers for I-quants than
# processors do. So on these two it is the answer of a real model (Q4_1) that is compared.
for entry in "${x86[@]}"; do
    (
        export QEMU_CPU=${entry%%=*} FASTQ_REQUIRE_LEVELS=${entry#*=}
        if [[ $QEMU_CPU == Nehalem ]]; then
            run_kernels "$QEMU_CPU" 331 "$qemu/qemu-x86_64-static" "$x86_tests" level
            run_python "$QEMU_CPU" "$cross/bin/python-x86_64" tests/test_one_answer.py \
                -k "required or tiny_models or has_its_hash"
        else
            run_kernels "$QEMU_CPU" 331 "$qemu/qemu-x86_64-static" "$x86_tests" required_levels
            run_answer "$QEMU_CPU" "$cross/bin/python-x86_64"
        fi
    ) &
    running+=($!)
done
for job in "${running[@]}"; do
    wait "$job" || failed=1
done
[[ -z ${failed-} ]] || die "tests failed; the logs are in $logs"
for entry in "${arm[@]}" "${x86[@]}"; do
    cat "$logs/${entry%%=*}"
done

# ----------------------------------------------------------------------------------------------------- instructions
# What a level is named after is in the wheel, and the level executes it. The emulator logs each instruction that ran.
counts() { "$native" tests/cross/instructions.py "$@"; }
in_wheel=$(counts "$site/fastq/_fastq.abi3.so")
say "instructions in the wheel: $in_wheel"
"$native" tests/tiny.py "$CARGO_TARGET_DIR/tiny.gguf" --format mixed --layers 7 >/dev/null
for entry in "${arm[@]}"; do
    cpu=${entry%%=*}
    for level in $(tr , ' ' <<<"${entry#*=}"); do
        rm -f "$logs/instructions"
        env QEMU_CPU="$cpu" FASTQ_LEVEL="$level" PYTHONPATH="$site" \
            "$qemu/qemu-aarch64-static" -d in_asm -D "$logs/instructions" -L "$cross/root-arm64" \
            "$cross/root-arm64/usr/bin/$arm_python" -m fastq run "$CARGO_TARGET_DIR/tiny.gguf" \
            "A prompt of more than one token" --raw --max-tokens 3 --ignore-eos --threads 1 --quiet >/dev/null
        ran=$(counts --ran "$logs/instructions")
        echo "$cpu, level $level executes: $ran"
        for count in $ran; do
            name=${count%=*}
            if [[ ${count#*=} == 0 ]]; then
                [[ " ${needs[$level]-} " != *" $name "* ]] || die "level $level never executes $name: $ran"
            else
                [[ " ${uses[$level]} " == *" $name "* ]] || die "level $level executes $name: $ran"
            fi
        done
    done
done
for level in "${!needs[@]}"; do
    if [[ ${arm[*]} == *$level* && $in_wheel =~ (^| )${needs[$level]}=0 ]]; then
        die "the wheel has no ${needs[$level]}, which level $level is made of"
    fi
done
rm -f "$logs/instructions"

say "emulated tests passed"
