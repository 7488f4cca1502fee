#!/usr/bin/env bash
# Kernel and parser tests under AddressSanitizer. The stable toolchain ships its runtime; RUSTC_BOOTSTRAP lets it be used.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(rustc -vV | sed -n 's/^host: //p')
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Zsanitizer=address"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/asan
# Allocators that keep freed memory out of reuse longer find more; leaks are not what is looked for here.
export ASAN_OPTIONS=detect_leaks=0
cargo test --release --target "$target" -p fastq-kernels --lib --tests "$@"
cargo test --release --target "$target" -p fastq-core --lib gguf "$@"
cargo test --release --target "$target" -p fastq-core --test 'gguf_*' "$@"
