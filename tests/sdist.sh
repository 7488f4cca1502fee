#!/usr/bin/env bash
# Builds the source distribution, builds a wheel from it in a clean environment, installs that and uses it.
# A file missing from the sdist (a [[bench]] outside `include`, a license) shows here and nowhere else.
set -euo pipefail
python=$(realpath -s "${1:?usage: sdist.sh PYTHON_WITH_MATURIN}")
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cd "$root"
"$python" -m maturin sdist --out "$work/sdist" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
"$python" -m venv "$work/venv"
# The same target folder, so that dependencies are not compiled a second time.
CARGO_TARGET_DIR="$root/target" MATURIN_PEP517_ARGS="--config $root/tests/sdist.toml" "$work/venv/bin/python" -m pip wheel --quiet --no-deps \
    --wheel-dir "$work/wheel" "$work"/sdist/*.tar.gz
ls -l "$work"/wheel/*.whl
"$work/venv/bin/python" -m pip install --quiet "$work"/wheel/*.whl

cd "$work" # nothing of the checkout is importable from here
"$work/venv/bin/fastq" --version
"$work/venv/bin/fastq" doctor
"$work/venv/bin/python" - <<'PYTHON'
import fastq

with fastq.Model(fastq.default_model(), context=256) as model:
    answer = model.generate("The capital of France is", max_tokens=8, temperature=0)
    assert "Paris" in answer.text, answer
    print("wheel from sdist:", repr(answer.text))
PYTHON
"$work/venv/bin/python" -m pip uninstall --quiet --yes fastq-llm
