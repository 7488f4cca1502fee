"""Writes the seeds of the fuzz target gguf_parse: the hostile cases, made from a file of a few kilobytes.

    python3 tests/fuzz/seeds.py [folder with mutate_gguf.py] [folder for the seeds]

Needs numpy. The first argument defaults to ../shared/hostile beside the repository.
"""

import copy
import importlib.util
import pathlib
import sys
from typing import Any

LIMIT = 64 << 10  # larger inputs make the fuzzer slow and reach nothing new


def shrink(cases: Any, vocab: str) -> Any:
    """A base file with all kinds of records, but few tokens and small tensors."""
    model = cases.parse(cases.craft(vocab))
    for pair in model.kv:
        if pair.typ == cases.ARR:
            pair.val = pair.val[:3] + pair.val[-9:]
    for tensor in model.t:
        if len(tensor.dims) == 2:
            tensor.dims = [256, 2]
            tensor.data = b"\1" * cases.nbytes(tensor.typ, tensor.dims)
    return model


def main() -> None:
    root = pathlib.Path(__file__).resolve().parents[2]
    hostile = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root.parent / "shared" / "hostile"
    out = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else root / "tests" / "fuzz" / "corpus" / "gguf_parse"
    spec = importlib.util.spec_from_file_location("mutate_gguf", hostile / "mutate_gguf.py")
    assert spec is not None
    assert spec.loader is not None
    cases: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cases)
    out.mkdir(parents=True, exist_ok=True)
    written = 0
    for vocab in ("spm", "bpe"):
        base = shrink(cases, vocab)
        for case in cases.CASES:
            try:
                data = case["fn"](copy.deepcopy(base))
            except (cases.Skip, ValueError):  # ValueError: the case looks for a token that the small vocabulary lacks
                continue
            if len(data) <= LIMIT:
                (out / f"{vocab}-{case['name']}").write_bytes(data)
                written += 1
    print(f"{written} seeds in {out}")


if __name__ == "__main__":
    main()
