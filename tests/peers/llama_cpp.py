"""Answers of tiny models: llama.cpp, the float64 twin and, where it is installed, fastq, each against the others.

    python tests/peers/llama_cpp.py --python PATH_TO_PYTHON_WITH_LLAMA_CPP [NAME ...]

Names are those of tests/shapes.py, or beginnings of them; without any, all are compared, and every architecture in
quantized formats too. Prompts are longer than any window and any original context. The caches of both engines are F32,
so that nothing is rounded on purpose. Written and checked with llama-cpp-python 0.3.36. Exit code 1 when an error is
above its bound.
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
from reference.encoder import Encoder  # noqa: E402
from reference.forward import Twin  # noqa: E402
from shapes import ENCODERS, QUANTIZED, QUANTIZED_ENCODERS, SHAPES  # noqa: E402

Array = npt.NDArray[np.floating[Any]]
TOKENS, CONTEXT = 300, tiny.Tiny.context
EXACT = {"llama.cpp - twin": 1e-3, "llama.cpp - fastq": 1e-3, "fastq - twin": 1e-4}
"""Bounds of the largest error. llama.cpp takes GELU from a table of half precision, which the architectures with GELU
show. (A rule left out makes 0.01 and more: test_shapes.py.)
"""
ROUNDED = dict.fromkeys(EXACT, 0.06)
"""Bounds of the usual error with quantized weights: activations are rounded to int8 in more than one way, and a token
near the border between two experts may meet another one.
"""


def answers_of_llama_cpp(python: str, folder: Path, prompts: dict[Path, list[int]]) -> dict[Path, Array]:
    outs = {path: folder / f"{path.stem}.npy" for path in prompts}
    jobs = [
        {"model": str(path), "tokens": tokens, "context": CONTEXT, "encoder": is_encoder(path), "out": str(outs[path])}
        for path, tokens in prompts.items()
    ]
    worker = [python, "-I", str(HERE / "llama_cpp_worker.py")]
    subprocess.run(worker, input=json.dumps(jobs), text=True, check=True)
    return {path: np.load(out) for path, out in outs.items()}


def logits_of_fastq(path: Path, tokens: list[int]) -> Array | None:
    """None when it is not installed or does not know the architecture; for encoders, which test_embed.py has."""
    if importlib.util.find_spec("fastq") is None or is_encoder(path):
        return None
    import fastq

    try:
        with fastq.Model(path, context=CONTEXT, threads=1, kv="f32") as model:
            return model.logits(tokens, all=True)
    except fastq.UnsupportedModelError:
        return None
    except fastq.FastqError as error:
        print(f"fastq: {error}")
        return np.full((1, 1), np.nan)


def is_encoder(path: Path) -> bool:
    return not Twin(path).causal


def answer_of_twin(path: Path, tokens: list[int], **options: Any) -> Array:
    """Logits; of an encoder the rows of the tokens, and the vector for all of them."""
    if not is_encoder(path):
        return Twin(path, context=CONTEXT, **options).logits(tokens)
    encoder = Encoder(path, **options)
    return np.vstack([encoder.hidden(tokens), encoder.pooled(tokens)])


def largest(a: Array, b: Array) -> float:
    """The largest difference relative to the largest logit of the same position, at the worst position."""
    return float((np.abs(a - b).max(axis=1) / np.abs(b).max(axis=1)).max())


def usual(a: Array, b: Array) -> float:
    """Root mean square of the difference relative to that of the logits, for the middle one of the tokens."""
    return float(np.median(np.sqrt(((a - b) ** 2).mean(axis=1) / (b**2).mean(axis=1))))


def prompt(path: Path) -> list[int]:
    """Random tokens, others for every file."""
    size = len(Twin(path).file.metadata["tokenizer.ggml.tokens"])
    return [int(t) for t in np.random.default_rng([TOKENS, size]).integers(0, size, TOKENS)]


def selected(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    known = SHAPES | ENCODERS | QUANTIZED | QUANTIZED_ENCODERS
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
    results: dict[tuple[bool, str], list[bool]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = {
            key: tiny.write(folder / f"{i}.gguf", tiny.Tiny(**shape)) for i, (key, shape) in enumerate(shapes.items())
        }
        prompts = {path: prompt(path) for path in paths.values()}
        theirs = answers_of_llama_cpp(options.python, folder, prompts)
        print(f"{'':44}" + "".join(f"{pair:>20}" for pair in EXACT))
        for key, path in paths.items():
            exact = key in SHAPES | ENCODERS
            found = {
                "llama.cpp": theirs[path],
                "twin": answer_of_twin(path, prompts[path], int8=not exact),
                "fastq": logits_of_fastq(path, prompts[path]),
            }
            line = f"{key:44}"
            for pair, bound in (EXACT if exact else ROUNDED).items():
                a, b = (found[side] for side in pair.split(" - "))
                if a is None or b is None:
                    line += f"{'-':>20}"
                    continue
                error = (largest if exact else usual)(a.astype(np.float64), b.astype(np.float64))
                results.setdefault((exact, pair), []).append(error <= bound)
                line += f"{error:>19.1e}{' ' if error <= bound else '!'}"
            print(line, flush=True)
    for (exact, pair), within in results.items():
        bound = (EXACT if exact else ROUNDED)[pair]
        print(f"{pair}, {'F32' if exact else 'quantized'} weights: {sum(within)} of {len(within)} within {bound:.0e}")
    return int(not all(all(within) for within in results.values()))


if __name__ == "__main__":
    sys.exit(main())
