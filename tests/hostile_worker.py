"""Takes one file after the other through all stages of the engine, in a process of its own (see test_hostile.py).

Reads a path per line from standard input, answers a line of JSON on standard output.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any

import fastq

STAGES = ("parse", "load", "tokenize", "template", "generate")
TEXT = "the end <|end|> </s> é中🙂 \0\n  x"
MESSAGES = [{"role": "user", "content": TEXT}]


def through(path: str) -> dict[str, Any]:
    """How far a file comes, and the exception that stopped it."""
    stage = "parse"
    try:
        fastq.inspect(path)
        stage = "load"
        fastq.plan(path)
        with fastq.Model(path, threads=2, context=64) as m:
            stage = "tokenize"
            ids = m.tokenize(TEXT)
            m.detokenize(ids, special=True)
            stage = "template"
            m.apply_template(MESSAGES)
            stage = "generate"
            m.generate(ids[:8] or [0], max_tokens=4, temperature=0.0, ignore_eos=True)
    except BaseException as error:
        kind = type(error)
        return {
            "stage": stage,
            "type": f"{kind.__module__}.{kind.__qualname__}",
            "bases": [base.__name__ for base in kind.__mro__],
            "message": str(error),
            "path": getattr(error, "path", None),
            "what": getattr(error, "what", None),
        }
    return {"stage": None}


def reset_peak() -> None:
    """Makes the peak of resident memory start anew, where Linux allows it."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


def memory() -> tuple[int, int]:
    """Resident bytes now, and the peak since `reset_peak`."""
    found = {}
    with open("/proc/self/status") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name in ("VmRSS", "VmHWM"):
                found[name] = int(value.split()[0]) * 1024
    return found["VmRSS"], found["VmHWM"]


def main() -> None:
    # A crash shall not leave a core file behind, and no allocation may take the machine down.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the engine might print does not mix with the answers
    answers.write("ready\n")
    for line in sys.stdin:
        path = line.rstrip("\n")
        reset_peak()
        before = memory()[0]
        answer = through(path)
        answer["growth"] = memory()[1] - before
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
