"""Quantizes in a process of its own, which may be killed (see test_quantize_robust.py).

quantize_worker.py SOURCE TARGET PRESET      one file, with "go" on standard output when it begins
quantize_worker.py                           a path per line of standard input, as hostile_worker.py
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any, Literal

import fastq
from hostile_worker import memory, reset_peak


def through(path: str, method: Literal["search", "rtn"]) -> dict[str, Any]:
    """What becomes of a file: an exception and no output, or an output that can be read."""
    out = Path(path).with_name("quantized.gguf")
    before = Path(path).read_bytes()
    found: dict[str, Any] = {"stage": None}
    try:
        fastq.quantize(path, out, "Q4_K_M", method=method, allow_requantize=True, threads=2)
        fastq.inspect(out)
        if not out.exists():
            found["broken"] = "nothing was written"
    except BaseException as error:
        kind = type(error)
        found = {
            "stage": "quantize",
            "type": f"{kind.__module__}.{kind.__qualname__}",
            "bases": [base.__name__ for base in kind.__mro__],
            "message": str(error),
            "what": getattr(error, "what", None),
        }
        if out.exists():
            found["broken"] = "an error, and a file"
    if Path(path).read_bytes() != before:
        found["broken"] = "the source changed"
    out.unlink(missing_ok=True)
    left = [name for name in os.listdir(out.parent) if name.startswith(".")]
    if left:
        found["broken"] = f"left {left}"
    return found


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if len(sys.argv) == 4:
        source, target, preset = sys.argv[1:]
        print("go", flush=True)
        print(fastq.quantize(source, target, preset, method="rtn", threads=1).resumed, flush=True)
        return
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    answers.write("ready\n")
    for number, line in enumerate(sys.stdin):
        reset_peak()
        before = memory()[0]
        # Reading, where damage shows, is the same for both; a search takes many times as long.
        answer = through(line.rstrip("\n"), "search" if number % 8 == 0 else "rtn")
        answer["growth"] = memory()[1] - before
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
