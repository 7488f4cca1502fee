#!/usr/bin/env bash
# Kernel and parser tests under AddressSanitizer. The stable toolchain ships its runtime; RUSTC_BOOTSTRAP lets it be used.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(rustc -vV | sed -n 's/^host: //p')
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Zsanitizer=address"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/asan
# Leaks are not what is looked for here, and a guard page has to kill by its signal: tests prove that it does.
export ASAN_OPTIONS=detect_leaks=0:handle_segv=0:handle_sigbus=0
cargo test --release --target "$target" -p fastq-kernels --tests "$@"
cargo test --release --target "$target" -p fastq-core --lib gguf "$@"
cargo test --release --target "$target" -p fastq-core --test 'gguf_*' "$@"
