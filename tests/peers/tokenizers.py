"""Compares the tokens of every kind of tokenizer with llama.cpp's, and writes what CI compares with.

WordPiece is compared with BERT's own rules as `reference/wordpiece.py` has them: llama.cpp drops marks that it keeps.

    python tests/peers/tokenizers.py --python PATH [--write] [--kind NAME ...]

PATH is a Python that has llama-cpp-python (made with 0.3.36). `--write` stores its answers in
`tests/reference/tokenizers.json`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import tokenizer_kinds as kinds
from fastq import Model
from reference.reader import File
from reference.wordpiece import WordPiece

ORACLE = """
import json, sys
from llama_cpp import Llama
model = Llama(sys.argv[1], vocab_only=True, verbose=False)
texts = json.load(sys.stdin)
print(json.dumps([model.tokenize(text.encode(), add_bos=True, special=True) for text in texts]))
"""


def ask(python: str, path: Path) -> list[list[int]]:
    """What llama.cpp makes of the texts."""
    done = subprocess.run(
        [python, "-c", ORACLE, str(path)], input=json.dumps(kinds.TEXTS), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"llama.cpp ended with {done.returncode}: {done.stderr[-300:]}")
    answers: list[list[int]] = json.loads(done.stdout.splitlines()[-1])
    return answers


def compare(python: str, kind: str, path: Path) -> tuple[str, int]:
    """The hashes of the answers expected, and how many of ours are the same."""
    bert = kind.startswith("bert")
    expected = [WordPiece(File(path)).encode(text) for text in kinds.TEXTS] if bert else ask(python, path)
    equal = 0
    model = Model(path)
    for text, answer in zip(kinds.TEXTS, expected, strict=True):
        found = model.tokenize(text)
        equal += found == answer
        if found != answer:
            print(f"  {text!r}\n    fastq     {found}\n    expected  {answer}")
    print(f"{kind}: {equal} of {len(expected)} equal", flush=True)
    return kinds.hashes(expected), equal


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="a Python that has llama-cpp-python")
    parser.add_argument("--write", action="store_true", help="store the answers")
    parser.add_argument("--kind", nargs="*", default=list(kinds.KINDS), help="only these")
    options = parser.parse_args()
    reference, complete = {}, True
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kind:
            path = kinds.write(Path(folder) / "model.gguf", kind)
            reference[kind], equal = compare(options.python, kind, path)
            complete &= equal == len(kinds.TEXTS)
    if options.write:
        kinds.REFERENCE.write_text(json.dumps(reference, indent=0) + "\n")
    return 0 if complete else 1


if __name__ == "__main__":
    raise SystemExit(main())
