#!/usr/bin/env bash
# Builds libfastq and installs it below a folder: include/fastq.h, lib/libfastq.so and .a, lib/pkgconfig/fastq.pc.
#
#     bash rust/c/install.sh /usr/local
#
# CARGO_BUILD_TARGET=aarch64-unknown-linux-gnu builds for another machine, with cargo-zigbuild, which also understands the glibc
# to link with: aarch64-unknown-linux-gnu.2.17.
#
# CC is the C compiler that links the shared library (cc), LIBRARIES what it does not add by itself (-lunwind for zig).
set -euo pipefail
prefix=$(realpath -m "${1:?usage: install.sh FOLDER}")
cd "$(dirname "$0")/../.."
built=${CARGO_TARGET_DIR:-target}
build=(cargo rustc)
target=${CARGO_BUILD_TARGET:-}
unset CARGO_BUILD_TARGET
if [ -n "$target" ]; then
    if [ "$target" != "$("${RUSTC:-rustc}" -vV | sed -n 's/^host: //p')" ]; then
        command -v cargo-zigbuild >/dev/null || { echo "building for $target needs cargo-zigbuild" >&2; exit 1; }
        build=(cargo-zigbuild rustc)
    fi
    build+=(--target "$target")
    built+=/${target%%.*}
fi
read -ra cc <<<"${CC:-cc}"
read -ra libraries <<<"${LIBRARIES:-}"
command -v "${cc[0]}" >/dev/null || { echo "a C compiler is needed to link: ${cc[0]} is not there; name one with CC=" >&2; exit 1; }
"${build[@]}" --quiet --release --package fastq-c --lib

install -d "$prefix/include" "$prefix/lib/pkgconfig"
install -m 644 rust/c/include/fastq.h "$prefix/include/"
install -m 644 "$built/release/libfastq.a" "$prefix/lib/"

# The shared library is linked here and not by rustc, which would export what libraries inside it declare for C, too. What programs
# look for at run time is the bare name: without a version, because apps carry the library along and Android packs no other names.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
read -ra functions <<<"$(grep -o '\<fastq_[a-z_]*(' rust/c/include/fastq.h | tr -d '(' | sort -u | tr '\n' ' ')"
case ${target:-$(uname -s)} in
    *Darwin* | *apple*)
        printf '_%s\n' "${functions[@]}" >"$scratch/exported"
        "${cc[@]}" -dynamiclib -o "$prefix/lib/libfastq.dylib" "${functions[@]/#/-Wl,-u,_}" "$built/release/libfastq.a" \
            -Wl,-exported_symbols_list,"$scratch/exported" -Wl,-install_name,@rpath/libfastq.dylib -Wl,-dead_strip -liconv "${libraries[@]}"
        ;;
    *)
        { echo '{ global:' && printf '%s;\n' "${functions[@]}" && echo 'local: *; };'; } >"$scratch/exported"
        "${cc[@]}" -shared -o "$prefix/lib/libfastq.so" "${functions[@]/#/-Wl,-u,}" "$built/release/libfastq.a" \
            -Wl,--version-script="$scratch/exported" -Wl,-soname,libfastq.so -Wl,--gc-sections -Wl,-z,defs -s \
            -lpthread -ldl -lm "${libraries[@]}"
        ;;
esac
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
sed -e "s|@PREFIX@|$prefix|" -e "s|@VERSION@|$version|" rust/c/fastq.pc.in >"$prefix/lib/pkgconfig/fastq.pc"
