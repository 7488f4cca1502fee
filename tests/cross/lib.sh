# What the scripts of this folder share; sourced, with `set -euo pipefail` already on. See CONTRIBUTING.md.
#
# Nothing is installed into the system and nobody needs to be root: Debian packages are unpacked into one folder,
# which holds a Rust compiler, the emulator, Python for ARM and a venv. A second run finds all of it there.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# Everything that is downloaded or unpacked.
cross=${FASTQ_CROSS:-$root/target/cross}
# What cargo builds. It has a folder of its own, because another compiler would throw away what `make test` built.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}/cross-build

die() {
    echo "cross: $*" >&2
    exit 1
}

# One line of the log that matters.
say() { echo "== $*"; }

# Networks fail now and then: three attempts, then the last error counts.
retry() {
    local attempt
    for attempt in 1 2 3; do
        "$@" && return
        echo "cross: attempt $attempt of 3 failed: $*" >&2
        sleep $((attempt * 5))
    done
    return 1
}

# once NAME COMMAND...: runs the command unless it succeeded before. The command line is part of what is remembered.
once() {
    local stamp=$cross/done/$1
    shift
    [[ -f $stamp && $(<"$stamp") == "$*" ]] && return
    "$@" || die "this step of the setup failed: $*"
    mkdir -p "$cross/done"
    echo "$*" >"$stamp"
}

# Debian's name of a target's architecture, qemu's, and the platform of wheels.
debian_arch() { case $1 in aarch64-*) echo arm64 ;; armv7-*) echo armhf ;; x86_64-*) echo amd64 ;; *) die "no Debian for $1" ;; esac; }
qemu_arch() { case $1 in aarch64-*) echo aarch64 ;; armv7-*) echo arm ;; x86_64-*) echo x86_64 ;; *) die "no emulator for $1" ;; esac; }

# Whether the compiler in use has the standard library of a target.
has_std() {
    local folder
    folder=$(rustc --print target-libdir --target "$1" 2>/dev/null) && compgen -G "$folder/libstd-*.rlib" >/dev/null
}

# Makes cargo compile for a target with a compiler that has its standard library: the one in use if rustup brought it
# (`rustup target add`), otherwise Debian's with which setup.sh was run.
use_rust_for() {
    unset RUSTC RUSTDOC
    has_std "$1" && return
    [[ -x $cross/bin/rustc ]] || die "no Rust for $1: run tests/cross/setup.sh rust $1"
    export RUSTC=$cross/bin/rustc RUSTDOC=$cross/bin/rustdoc
}
