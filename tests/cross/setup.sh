#!/usr/bin/env bash
# Sets up building for other machines and running what was built.
#
#     setup.sh tools             maturin, zig (the linker and libc of every target) and cargo-zigbuild in a venv
#     setup.sh emulator          qemu's user-mode emulators
#     setup.sh rust TARGET       a compiler with the standard library of TARGET, unless rustup brought it already
#     setup.sh python TARGET     CPython for TARGET in $cross/root-ARCH
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

debian() {
    if [[ $(uname -m) != x86_64 ]] || ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        die "this needs an x86-64 machine with Debian's apt-get (12 or later; no root), or its container: $1"
    fi
}

# apt_view ARCH: an apt of our own that knows the packages of ARCH and leaves the system's lists and packages alone.
# A foreign architecture begins with nothing installed. On the machine's own, what the system has is used, except
# that of the packages unpacked here it has none, since its versions may be others.
apt_view() {
    local arch=$1 view=$cross/apt/$1
    mkdir -p "$view"/lists/partial "$view"/cache/archives/partial
    if [[ $arch == amd64 ]]; then
        awk -v RS= -v ORS='\n\n' '!/^Package: (rustc-web|libstd-rust-web|rust-web-src|qemu-user-static)/' \
            /var/lib/dpkg/status >"$view/status"
    else
        : >"$view/status"
    fi
    cat >"$view/apt.conf" <<CONF
APT::Architecture "$arch";
APT::Architectures { "$arch"; };
APT::Install-Recommends "false";
APT::Sandbox::User "$(id -un)";
Acquire::Retries "3";
Debug::NoLocking "true";
Dir::State "$view";
Dir::State::lists "$view/lists";
Dir::State::status "$view/status";
Dir::Cache "$view/cache";
CONF
    # One broken index of several makes apt fail, though all that is needed may be in the others. So what counts is
    # whether the packages are there, which unpack checks.
    APT_CONFIG=$view/apt.conf apt-get update -qq || echo "cross: apt-get update for $arch ended with an error" >&2
}

# download ARCH SUBCOMMAND PACKAGE...: fetches the files, with what they depend on (install) or alone (download).
download() (
    view=$cross/apt/$1
    export APT_CONFIG=$view/apt.conf
    rm -f "$view"/cache/archives/*.deb
    case $2 in
        install) apt-get install --download-only -y -qq "${@:3}" >"$view/log" 2>&1 || { cat "$view/log" >&2; exit 1; } ;;
        download) cd "$view/cache/archives" && apt-get download -qq "${@:3}" ;;
    esac
)

# known ARCH PACKAGE[=VERSION]...: whether the index has them.
known() (
    export APT_CONFIG=$cross/apt/$1/apt.conf
    for package in "${@:2}"; do
        apt-cache show --quiet=1 "$package" >/dev/null 2>&1 || { echo "cross: $1 has no $package" >&2; exit 1; }
    done
)

# unpack FOLDER ARCH SUBCOMMAND PACKAGE...
unpack() {
    local folder=$1 arch=$2 deb
    debian "${*:4}"
    # An index of another day may name files that the archive has replaced.
    if [[ ! -f $cross/apt/$arch/apt.conf || -n $(find "$cross/apt/$arch/apt.conf" -mmin +60) ]]; then
        apt_view "$arch"
    fi
    known "$arch" "${@:4}" || apt_view "$arch"
    known "$arch" "${@:4}" || return 1
    retry download "${@:2}" || return 1
    mkdir -p "$folder"
    for deb in "$cross/apt/$arch/cache/archives"/*.deb; do
        dpkg-deb -x "$deb" "$folder" || return 1
    done
    rm -f "$cross/apt/$arch/cache/archives"/*.deb
}

venv() {
    python3 -m venv "$cross/venv"
    retry "$cross/venv/bin/pip" install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
    (cd "$root" && retry "$cross/venv/bin/pip" install --quiet --disable-pip-version-check --group cross)
    "$cross/venv/bin/maturin" --version
    # The linker of programs and tests, whose libc is the oldest that Python's wheels for manylinux2014 may need. With it
    # named, maturin and cargo compile every crate once for both.
    mkdir -p "$cross/bin"
    local target
    for target in aarch64-unknown-linux-gnu; do
        cat >"$cross/bin/cc-$target" <<WRAPPER
#!/bin/sh
PATH=$cross/venv/bin:\$PATH exec cargo-zigbuild zig cc -- -g -fno-sanitize=all -target ${target/-unknown/}.2.17 "\$@"
WRAPPER
        chmod +x "$cross/bin/cc-$target"
    done
}

# The compiler with which Debian builds its browser, the newest that stable releases of Debian have.
compiler() {
    local tool
    unpack "$cross/host" amd64 install rustc-web
    mkdir -p "$cross/bin"
    for tool in rustc rustdoc; do
        cat >"$cross/bin/$tool" <<WRAPPER
#!/bin/sh
LD_LIBRARY_PATH=$cross/host/usr/lib/x86_64-linux-gnu\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH} exec $cross/host/usr/bin/$tool "\$@"
WRAPPER
        chmod +x "$cross/bin/$tool"
    done
    "$cross/bin/rustc" --version
    local needed found
    needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
    found=$("$cross/bin/rustc" --version | cut -d' ' -f2)
    printf '%s\n' "$needed" "$found" | sort --check=quiet --version-sort ||
        die "Debian's rustc-web is $found and fastq needs $needed; with rustup, \`rustup target add\` does instead"
}

# The standard library of a target: Debian's if it is of exactly the compiler's version, since it fits no other;
# otherwise compiled from its source.
standard_library() {
    local target=$1 arch version scratch=$cross/scratch
    case $target in
        aarch64-unknown-linux-gnu | armv7-unknown-linux-gnueabihf)
            arch=$(debian_arch "$target")
            version=$(APT_CONFIG=$cross/apt/amd64/apt.conf apt-cache policy rustc-web | sed -n 's/ *Candidate: //p')
            rm -rf "$scratch"
            if unpack "$scratch" "$arch" download "libstd-rust-web-dev=$version"; then
                rm -rf "$cross/host/usr/lib/rustlib/$target"
                mv "$scratch/usr/lib/rustlib/$target" "$cross/host/usr/lib/rustlib/"
            else
                echo "cross: Debian has no $arch library of rustc-web $version; it is compiled from source" >&2
            fi
            rm -rf "$scratch"
            ;;
    esac
    use_rust_for "$target"
    RUSTC=$cross/bin/rustc
    compgen -G "$("$RUSTC" --print target-libdir --target "$target")/libstd-*.rlib" >/dev/null ||
        "$root/tests/cross/build_std.sh" "$target"
}

mkdir -p "$cross"
case ${1-} in
    tools) once tools venv "$(sed -n '/^cross = /p' "$root/pyproject.toml")" ;;
    emulator) once emulator unpack "$cross/host" amd64 install qemu-user-static ;;
    rust)
        target=${2:?target}
        if ! has_std "$target"; then
            once compiler compiler
            once "std-$target" standard_library "$target"
        fi
        ;;
    mingw) once mingw unpack "$cross/host" amd64 install binutils-mingw-w64-x86-64 ;;
    rust-source) once rust-source unpack "$cross/host" amd64 install rust-web-src ;;
    python) once "python-$2" unpack "$cross/root-$(debian_arch "$2")" "$(debian_arch "$2")" install python3 libstdc++6 ;;
    *) die "usage: setup.sh tools | emulator | rust TARGET | python TARGET" ;;
esac
