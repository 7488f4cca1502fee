"""Logits of tiny models: llama.cpp, the float64 twin and, where it is installed, fastq, each against the others.

    python tests/peers/llama_cpp.py --python PATH_TO_PYTHON_WITH_LLAMA_CPP [NAME ...]

Names are those of tests/shapes.py, or beginnings of them; without any, all are compared, and every architecture in
quantized formats too. Prompts are longer than any window and any original context. Written and checked with
llama-cpp-python 0.3.36. Exit code 1 when an error is above its bound.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)

import tiny  # noqa: E402
from families import FAMILIES  # noqa: E402
from reference.forward import Twin  # noqa: E402
from shapes import SHAPES  # noqa: E402

Array = npt.NDArray[np.floating[Any]]
TOKENS = 300
EXACT = {"llama.cpp - twin": 1e-3, "llama.cpp - fastq": 1e-3, "fastq - f16 twin": 1e-4}
# Activations are rounded to int8 elsewhere, and a token near the border between two experts may meet another one.
ROUNDED = {"llama.cpp - twin": 0.06, "llama.cpp - fastq": 0.06, "fastq - f16 twin": 0.06}
"""The root mean square is compared, not the largest error."""

QUANTIZED: dict[str, dict[str, Any]] = {
    f"{architecture} {form}": {"architecture": architecture, "format": form, "layers": 4,
                               "kv_heads": 4 if architecture == "olmoe" else 2}
    for architecture in FAMILIES
    for form in ("Q8_0", "Q4_K_M")
}  # fmt: skip
QUANTIZED["gpt-oss MXFP4"] = {"architecture": "gpt-oss", "format": "Q8_0", "expert_format": "MXFP4", "layers": 4}


def logits_of_llama_cpp(python: str, folder: Path, prompts: dict[Path, list[int]], context: int) -> dict[Path, Array]:
    outs = {path: folder / f"{path.stem}.npy" for path in prompts}
    jobs = [
        {"model": str(path), "tokens": tokens, "context": context, "out": str(outs[path])}
        for path, tokens in prompts.items()
    ]
    worker = [python, "-I", str(HERE / "llama_cpp_worker.py")]
    subprocess.run(worker, input=json.dumps(jobs), text=True, check=True)
    return {path: np.load(out) for path, out in outs.items()}


def logits_of_fastq(path: Path, tokens: list[int]) -> Array | None:
    """None when it is not installed, or does not know the architecture yet."""
    if importlib.util.find_spec("fastq") is None:
        return None
    import fastq

    try:
        with fastq.Model(path) as model:
            return model.logits(tokens, all=True)
    except fastq.UnsupportedModelError:
        return None
    except fastq.FastqError as error:
        print(f"fastq: {error}")
        return np.full((1, 1), np.nan)


def largest(a: Array, b: Array) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


def typical(a: Array, b: Array) -> float:
    return float(np.sqrt(((a - b) ** 2).mean() / (b**2).mean()))


def selected(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    known = SHAPES | QUANTIZED
    chosen = {k: v for k, v in known.items() if not names or any(k.startswith(name) for name in names)}
    if not chosen:
        raise SystemExit(f"no shape is called {' or '.join(names)}")
    return chosen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="a Python that has llama_cpp")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    shapes = selected(options.names)
    failures = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = {key: tiny.write(folder / f"{i}.gguf", tiny.Tiny(**shape)) for i, (key, shape) in enumerate(shapes.items())}
        prompts = {path: prompt(path) for path in paths.values()}
        theirs = logits_of_llama_cpp(options.python, folder, prompts, tiny.Tiny.context)
        print(f"{'':44}" + "".join(f"{pair:>20}" for pair in EXACT))
        for key, path in paths.items():
            exact = key in SHAPES
            found = {
                "llama.cpp": theirs[path],
                "twin": Twin(path, int8=not exact).logits(prompts[path]),
                "fastq": logits_of_fastq(path, prompts[path]),
                # With keys and values rounded as fastq's cache rounds them.
                "f16 twin": Twin(path, int8=not exact, cache=np.float16).logits(prompts[path]),
            }
            line = f"{key:44}"
            for pair, bound in (EXACT if exact else ROUNDED).items():
                a, b = (found[side] for side in pair.split(" - "))
                if a is None or b is None:
                    line += f"{'-':>20}"
                    continue
                error = (largest if exact else typical)(a.astype(np.float64), b.astype(np.float64))
                failures += not error <= bound
                line += f"{error:>19.1e}{' ' if error <= bound else '!'}"
            print(line)
    print(f"{failures} errors above their bounds")
    return min(failures, 1)


def prompt(path: Path) -> list[int]:
    """Random tokens, others for every file."""
    size = len(Twin(path).file.metadata["tokenizer.ggml.tokens"])
    return [int(t) for t in np.random.default_rng([TOKENS, size]).integers(0, size, TOKENS)]


if __name__ == "__main__":
    sys.exit(main())
