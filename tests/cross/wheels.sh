#!/usr/bin/env bash
# Builds everything that a release consists of and that can be built here, into dist/, checks it, and runs what can be run.
#
#     PYTHON=.venv/bin/python wheels.sh [NAME...]     all, or those named: a target, a target with -program,
#                                                     aarch64-unknown-linux-gnu-library, free-threaded, sdist
#
# PYTHON has fastq, whose answer is the one expected; PROFILE=cross builds in half the time what is not to be released.
# Windows, and whatever else needs a machine of its own, is built by .github/workflows/release.yml.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"
python=${PYTHON:?names the interpreter of a venv into which fastq is installed}
profile=${PROFILE:-release}
dist=$root/dist
logs=$CARGO_TARGET_DIR/logs
mkdir -p "$logs" "$dist"

wheels=(
    x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu armv7-unknown-linux-gnueabihf
    x86_64-unknown-linux-musl aarch64-unknown-linux-musl
    aarch64-apple-darwin x86_64-apple-darwin
)
programs=(x86_64-unknown-linux-musl aarch64-unknown-linux-musl armv7-unknown-linux-musleabihf)
# The processor that runs a program here.
declare -A cpu=([x86_64]=Haswell [aarch64]=cortex-a76 [arm]=cortex-a7)
prompt=("The capital of France is" --raw --max-tokens 16 --temperature 0 --quiet)

wheel() {
    local target=$1
    tests/cross/setup.sh rust "$target"
    use_rust_for "$target"
    say "wheel for $target"
    local options=()
    # Debian's compiler lacks the tool that takes the symbols out of a module for macOS.
    [[ $target == *-apple-darwin && -n ${RUSTC-} ]] && options+=(MATURIN_STRIP=false)
    env "${options[@]}" maturin build --quiet --profile "$profile" --target "$target" --zig --out "$dist" "${@:2}" \
        >"$logs/wheel-$target" 2>&1 || { cat "$logs/wheel-$target"; die "no wheel for $target"; }
}

# The stable ABI does not apply to the interpreter without a GIL: pyo3 then compiles for that one version.
free_threaded() {
    wheel x86_64-unknown-linux-gnu --interpreter 3.14t
    wheel aarch64-unknown-linux-gnu --interpreter 3.14t
}

program() {
    local target=$1 name=${1//-/_} out
    tests/cross/setup.sh rust "$target"
    use_rust_for "$target"
    say "static program for $target"
    # zig brings musl, and rustc must not bring its own.
    env "CARGO_TARGET_${name^^}_RUSTFLAGS=-C link-self-contained=no -C target-feature=+crt-static -C strip=symbols" \
        cargo-zigbuild zigbuild --quiet --profile "$profile" --target "$target" -p fastq-cli --bin fastq 2>"$logs/program-$target" ||
        { cat "$logs/program-$target"; die "no program for $target"; }
    out=$dist/fastq-$target
    cp "$CARGO_TARGET_DIR/$target/$profile/fastq" "$out"
    if readelf -d "$out" | grep -q NEEDED; then
        die "$out needs shared libraries"
    fi
    run_program "$target" "$out"
}

# The C interface: built and installed as an app would, its tests run in the emulator. Nothing of it goes to dist.
library() {
    local target=$1
    tests/cross/setup.sh rust "$target"
    tests/cross/setup.sh emulator
    tests/cross/setup.sh python "$target"
    use_rust_for "$target"
    say "libfastq for $target"
    CARGO_BUILD_TARGET=$target.2.17 CC="$cross/venv/bin/python -m ziglang cc -target ${target/-unknown/}.2.17" LIBRARIES=-lunwind \
        RUNNER="$cross/host/usr/bin/qemu-$(qemu_arch "$target")-static -cpu ${cpu[$(qemu_arch "$target")]} -L $cross/root-arm64" \
        TOKENS=16 FASTQ=$(dirname "$python")/fastq PYTHON=$python FASTQ_MODELS=$(dirname "$model") bash tests/c/run.sh
}

run_program() {
    local arch qemu answer
    tests/cross/setup.sh emulator
    arch=$(qemu_arch "$1")
    qemu=("$cross/host/usr/bin/qemu-$arch-static" -cpu "${cpu[$arch]}")
    say "$(basename "$2") on ${cpu[$arch]}: $("${qemu[@]}" "$2" --version)"
    "${qemu[@]}" "$2" doctor
    answer=$("${qemu[@]}" "$2" run "$model" "${prompt[@]}")
    [[ $answer == "$expected" ]] || die "$2 answers $(printf %q "$answer"), not $(printf %q "$expected")"
    say "$(basename "$2"): SmolLM2 answers $(printf %q "$answer")"
}

# The wheel of this machine on every Python that is here.
run_wheel() {
    local version
    for version in 3.10 3.11 3.12 3.13 3.14; do
        if ! "python$version" -c 'import venv' 2>/dev/null; then
            say "python$version: not here, NOT TESTED"
            continue
        fi
        rm -rf "$CARGO_TARGET_DIR/venv"
        "python$version" -m venv "$CARGO_TARGET_DIR/venv"
        retry "$CARGO_TARGET_DIR/venv/bin/pip" install --quiet --disable-pip-version-check "$1"
        answer=$(cd / && "$CARGO_TARGET_DIR/venv/bin/fastq" run "$model" "${prompt[@]}")
        [[ $answer == "$expected" ]] || die "python$version answers $(printf %q "$answer"), not $(printf %q "$expected")"
        say "python$version: SmolLM2 answers $(printf %q "$answer")"
    done
    (cd / && "$CARGO_TARGET_DIR/venv/bin/python" "$root/tests/cross/import_time.py")
}

tests/cross/setup.sh tools
PATH=$cross/venv/bin:$PATH
model=$("$python" -c 'import sys; sys.path.insert(0, "tests"); import models; print(models.path_of("smollm2"))')
expected=$("$python" -m fastq run "$model" "${prompt[@]}")

names=("$@")
[[ ${#names[@]} -gt 0 ]] || names=("${wheels[@]}" "${programs[@]/%/-program}" aarch64-unknown-linux-gnu-library free-threaded sdist)
for name in "${names[@]}"; do
    case $name in
        sdist) maturin sdist --out "$dist" >"$logs/sdist" 2>&1 || { cat "$logs/sdist"; die "no source distribution"; } ;;
        free-threaded) free_threaded ;;
        *-program) program "${name%-program}" ;;
        *-library) library "${name%-library}" ;;
        *) wheel "$name" ;;
    esac
    if [[ $name == x86_64-unknown-linux-gnu ]]; then
        run_wheel "$(ls "$dist"/*-abi3-*manylinux*_x86_64.whl)"
    fi
done
"$python" tests/cross/check_dist.py "$dist"/*
