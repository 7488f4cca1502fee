#!/usr/bin/env bash
# Builds libfastq and installs it below a folder: include/fastq.h, lib/libfastq.so and .a, lib/pkgconfig/fastq.pc.
#
#     bash rust/c/install.sh /usr/local
#
# CARGO_BUILD_TARGET=aarch64-unknown-linux-gnu builds for another machine, with cargo-zigbuild, which also understands the glibc
# to link with: aarch64-unknown-linux-gnu.2.17.
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
# The debug information of the shared library is left out; that of the static one ends with the program.
"${build[@]}" --quiet --release --package fastq-c --lib -- -C strip=symbols

install -d "$prefix/include" "$prefix/lib/pkgconfig"
install -m 644 rust/c/include/fastq.h "$prefix/include/"
for library in libfastq.so libfastq.dylib libfastq.a; do
    if [ -f "$built/release/$library" ]; then install -m 644 "$built/release/$library" "$prefix/lib/"; fi
done
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
sed -e "s|@PREFIX@|$prefix|" -e "s|@VERSION@|$version|" rust/c/fastq.pc.in >"$prefix/lib/pkgconfig/fastq.pc"
