"""What a model took is given back."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fastq
from conftest import SMALL, Make

CYCLES = """
import gc, json, os, sys, threading
import fastq

def state():
    gc.collect()
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return {"rss": int(status["VmRSS"].split()[0]) * 1024, "threads": int(status["Threads"]),
            "files": len(os.listdir("/proc/self/fd"))}

def cycle(mmap, close):
    m = fastq.Model(sys.argv[1], threads=2, mmap=mmap, context=512)
    m.generate([300] * 200, max_tokens=20)
    m.logits([300] * 100, all=True)
    stream = m.stream([300], max_tokens=50)
    next(stream)
    if close:
        m.close()

states = []
for i in range(60):
    cycle(mmap=i % 2 == 0, close=i % 3 != 0)
    if i % 10 == 9:
        states.append(state())
print(json.dumps(states))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_sixty_loads_leave_nothing(make: Make, note: Callable[[str], None]) -> None:
    """With and without mmap, closed or dropped, with a stream still open."""
    path = make(format="Q8_0", layers=4, width=512, heads=8, ffn=1024)
    done = subprocess.run([sys.executable, "-c", CYCLES, str(path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    states = json.loads(done.stdout)
    grown = states[-1]["rss"] - states[0]["rss"]
    note(f"resident memory after 60 loads of {path.stat().st_size >> 20} MiB: {grown / 2**20:+.1f} MiB since the tenth")
    assert grown < path.stat().st_size / 2
    assert states[-1]["threads"] == states[0]["threads"]
    assert states[-1]["files"] == states[0]["files"]


class TestClosed:
    def test_twice(self, small: Path) -> None:
        m = fastq.Model(small)
        m.close()
        m.close()

    def test_calls_afterwards(self, small: Path) -> None:
        with fastq.Model(small) as m:
            stream = m.stream([300], max_tokens=100, ignore_eos=True)
            next(stream)
        calls: list[Callable[[], object]] = [
            lambda: m.generate("a"),
            lambda: m.tokenize("a"),
            lambda: m.detokenize([1]),
            lambda: m.logits([1]),
            lambda: m.chat([{"role": "user", "content": "a"}]),
            lambda: next(m.stream("a")),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="closed"):
                call()
        # A stream that was open either goes on to its end or says that the model is closed.
        try:
            assert isinstance("".join(stream), str)
        except ValueError as error:
            assert "closed" in str(error)  # noqa: PT017 - both ends are right

    def test_stream_outlives_its_model(self, small: Path) -> None:
        stream = fastq.Model(small).stream([300], max_tokens=10, temperature=0.0, ignore_eos=True)
        gc.collect()
        with fastq.Model(small) as m:
            assert "".join(stream) == m.generate([300], max_tokens=10, temperature=0.0, ignore_eos=True).text


def test_context_that_cannot_fit(make: Make) -> None:
    """Known before anything is allocated, and the message helps."""
    most = 1 << 30
    path = make(**SMALL | {"context": most, "layers": 24, "kv_heads": 2})
    calls: list[Callable[[], object]] = [
        lambda: fastq.Model(path, context=most),
        lambda: fastq.plan(path, context=most),
    ]
    for call in calls:
        with pytest.raises(MemoryError, match=r"context=\d+ would fit"):
            call()
    plan = fastq.plan(path)
    assert 64 <= plan.context < plan.context_trained == most
    assert plan.available_bytes is None or plan.total_bytes <= plan.available_bytes
    assert plan.weights_bytes < path.stat().st_size
    with fastq.Model(path, context=64) as m:
        assert m.generate([300], max_tokens=2).tokens
    with pytest.raises(ValueError, match="context"):
        fastq.plan(path, context=2 * most)
