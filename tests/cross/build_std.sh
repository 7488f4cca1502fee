#!/usr/bin/env bash
# Compiles the standard library of a target from its source, for Debian's compiler (setup.sh rust TARGET): 2 minutes.
#
# Cargo can do that only as an unstable feature (RUSTC_BOOTSTRAP), and with the vendored crates of the library in place
# of the registry. So it is done in an empty package, once, and the result goes to where the compiler looks for it:
# builds of fastq itself use neither.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
target=${1:?usage: build_std.sh TARGET}
source=$cross/host/usr/lib/rustlib/src/rust/library
package=$cross/std

"$root/tests/cross/setup.sh" rust-source
if [[ $target == x86_64-pc-windows-gnu ]]; then
    # Its dlltool makes the libraries through which Windows is called.
    "$root/tests/cross/setup.sh" mingw
    export PATH=$PATH:$cross/host/usr/bin
fi

# From nothing: rlibs of an earlier build would go to the compiler a second time.
rm -rf "$package"
mkdir -p "$package/src" "$package/.cargo"
echo 'pub fn f() {}' >"$package/src/lib.rs"
# Programs that abort at a panic need panic_abort compiled in that way.
cat >"$package/Cargo.toml" <<'MANIFEST'
cargo-features = ["profile-rustflags"]
[package]
name = "empty"
version = "0.0.0"
edition = "2024"
[workspace]
# Thin LTO of a program wants the bitcode of the library.
[profile.release]
lto = "thin"
[profile.release.package.panic_abort]
rustflags = ["-Cpanic=abort"]
MANIFEST
cat >"$package/.cargo/config.toml" <<CONFIG
[source.crates-io]
replace-with = "vendored"
[source.vendored]
directory = "$source/vendor"
[net]
offline = true
CONFIG
say "standard library of $target, from source"
(cd "$package" && CARGO_TARGET_DIR=target RUSTC=$cross/bin/rustc RUSTC_BOOTSTRAP=1 cargo build --quiet --release \
    -Zbuild-std=std,panic_unwind,panic_abort,proc_macro,test --target "$target")
into=$cross/host/usr/lib/rustlib/$target/lib
rm -rf "$into"
mkdir -p "$into"
cp "$package/target/$target"/release/deps/lib*.r{lib,meta} "$into/"
rm -f "$into"/libempty-*
rm -rf "$package"
