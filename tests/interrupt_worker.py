"""One long computation that the parent interrupts (see test_interrupt.py). Arguments: the phase, and the model."""

from __future__ import annotations

import json
import signal
import sys
import time
from typing import Any

import fastq

GREEDY: dict[str, Any] = {"temperature": 0.0, "ignore_eos": True}
CONTEXT = 16384
SHORT = [300, 301, 302]
LONG = [300 + i % 97 for i in range(CONTEXT - 64)]


def work(phase: str, path: str, model: fastq.Model) -> None:
    """Does not end by itself within seconds."""
    if phase == "load":
        while True:
            fastq.Model(path, mmap=False).close()
    elif phase == "prefill":
        model.generate(LONG, max_tokens=1, **GREEDY)
    elif phase == "logits":
        model.logits(LONG)
    elif phase == "decode":
        model.generate(SHORT, max_tokens=None, **GREEDY)
    elif phase == "batch":
        model.generate([SHORT, SHORT[:1], SHORT[:2]], max_tokens=5000, **GREEDY)
    elif phase == "stream":
        for _ in model.stream(SHORT, max_tokens=None, **GREEDY):
            pass
    else:
        raise SystemExit(f"no phase {phase}")


def main() -> None:
    phase, path = sys.argv[1:]
    # A shell has what it starts in the background ignore Ctrl-C, and so do the children of that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    model = fastq.Model(path, context=CONTEXT, threads=2)
    wanted = model.generate(SHORT, max_tokens=8, **GREEDY).tokens
    interrupted = None
    try:
        print("go", flush=True)
        work(phase, path, model)
    except KeyboardInterrupt:
        interrupted = time.monotonic()
    again = model.generate(SHORT, max_tokens=8, **GREEDY).tokens
    print(json.dumps({"interrupted": interrupted, "equal": again == wanted}), flush=True)


if __name__ == "__main__":
    main()
