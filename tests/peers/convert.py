"""Conversion beside transformers: small random models of its own classes, with tokenizers trained on a text.

    python tests/peers/convert.py --transformers PYTHON --text FILE [--llama-cpp PYTHON] [NAME ...]

Every model is saved by transformers, converted by fastq and computed by both (and by llama.cpp, which must load every
file), in F32; every tokenizer encodes 200 texts. Written and checked with torch 2.15, transformers 5.24 and
llama-cpp-python 0.3.36. Exit code 1 when an error is above its bound or a token differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)

import fastq  # noqa: E402

Array = npt.NDArray[np.floating[Any]]
CONTEXT = 64
"""About the length of a text: of two sets of rope factors transformers takes that for the text, fastq that for the
context.
"""
BOUND = 2e-3
"""Of the largest error: the cache of fastq is rounded to half precision. (A rule left out makes 0.05 and more.)"""
MIXTURES = ("mixtral", "qwen3moe", "granitemoe", "olmoe", "gpt-oss")
"""Where two experts nearly tie, that rounding can choose the other: for these the usual row counts."""
APPROXIMATE = {"bert": 5e-3}
"""GELU of fastq and llama.cpp is the approximation by tanh, that of transformers the function itself."""


def names() -> list[str]:
    """The names in the worker, which only the other Python can import."""
    source = (HERE / "convert_worker.py").read_text()
    table = source[source.index("MODELS: dict") :]
    return [line.split('"')[1] for line in table.splitlines() if line.startswith('    "') and '": (' in line]


def texts_of(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    rng = np.random.default_rng(1)
    found = []
    for start in rng.integers(0, len(text) - 300, 170):
        found.append(text[start : start + int(rng.integers(1, 200))])
    odd = [
        "",
        " ",
        "  two",
        "I'll DON'T we've",
        "12345 6.78",
        "a\n\n\nb",
        "\t tab",
        "日本語です",
        "naïve café",
        "🙂🚀",
        "x" * 70,
    ]
    return [
        *found,
        *odd,
        *(
            word * 3
            for word in [
                "Hello",
                "it's",
                "(a)",
                "test;",
                "3rd",
                "10,000",
                "f(x)=y",
                "<s>",
                "[…]",
                "Ünï",
                "ﬁ",
                "½",
                "²",
                "Ω",
                "№",
                "™",
            ]
        ),
    ][:200]


def largest(a: Array, b: Array) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


def usual(a: Array, b: Array) -> float:
    return float(np.median(np.sqrt(((a - b) ** 2).mean(axis=1) / (b**2).mean(axis=1))))


def encoder_rows(path: Path, tokens: list[int]) -> Array:
    from reference.encoder import Encoder

    return Encoder(path).hidden(tokens)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transformers", required=True, help="a Python that has torch, transformers and tokenizers")
    parser.add_argument("--llama-cpp", help="a Python that has llama_cpp")
    parser.add_argument("--text", required=True, type=Path, help="what the tokenizers are trained on")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    chosen = [name for name in names() if not options.names or any(name.startswith(wanted) for wanted in options.names)]
    texts = texts_of(options.text)
    failures = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        request = {"models": {str(n): name for n, name in enumerate(chosen)}, "texts": texts}
        worker = [options.transformers, "-I", str(HERE / "convert_worker.py"), str(folder), str(options.text)]
        subprocess.run(worker, input=json.dumps(request), text=True, check=True, stderr=subprocess.DEVNULL)
        jobs, paths = [], {}
        for number, name in request["models"].items():  # type: ignore[attr-defined]
            if (folder / number / "failed.txt").exists():
                continue
            paths[name] = folder / f"{number}.gguf"
            try:
                result = fastq.convert(folder / number, paths[name], dtype="f32")
            except fastq.FastqError as error:
                print(f"{name}: {error}")
                failures += 1
                del paths[name]
                continue
            for note in result.notes:
                print(f"  {name}: {note.subject}: {note.text}")
            tokens = np.load(folder / number / "expected.npz")["tokens"].tolist()
            jobs.append({"model": str(paths[name]), "tokens": tokens, "context": CONTEXT, "encoder": name == "bert",
                         "out": str(folder / f"{number}.npy")})  # fmt: skip
        if options.llama_cpp:
            command = [options.llama_cpp, "-I", str(HERE / "llama_cpp_worker.py")]
            subprocess.run(command, input=json.dumps(jobs), text=True, check=True, stderr=subprocess.DEVNULL)
        print(f"{'':28}{'fastq':>10}{'llama.cpp':>11}{'texts with other tokens':>26}")
        for number, name in request["models"].items():  # type: ignore[attr-defined]
            if name not in paths:
                failed = folder / number / "failed.txt"
                print(f"{name:28}{failed.read_text() if failed.exists() else 'not converted'}")
                failures += 1
                continue
            data = np.load(folder / number / "expected.npz")
            expected, tokens = data["expected"], data["tokens"].tolist()
            measure = usual if name in MIXTURES else largest
            with fastq.Model(paths[name], context=CONTEXT, threads=1) as model:
                found = encoder_rows(paths[name], tokens) if name == "bert" else model.logits(tokens, all=True)
                ids = np.split(data["ids"], np.cumsum(data["lengths"])[:-1])
                encoded = [model.tokenize(text, special=True) for text in texts]
                other = [text for text, a, b in zip(texts, encoded, ids, strict=True) if a != b.tolist()]
            bound = APPROXIMATE.get(name, BOUND)
            errors = [measure(found, expected)]
            if options.llama_cpp:
                errors.append(measure(np.load(folder / f"{number}.npy")[: len(expected)], expected))
            bad = any(not error <= bound for error in errors[:1]) or bool(other)
            failures += bad
            columns = "".join(f"{error:>11.1e}" for error in errors)
            print(f"{name:28}{columns}{len(other):>14} {'!' if bad else ' '} {other[:2] if other else ''}")
    print(f"{failures} failures")
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
