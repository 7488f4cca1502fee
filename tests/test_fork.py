"""A process that forks: both sides go on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tiny

PROGRAM = """
import asyncio, os, sys, threading, warnings
warnings.simplefilter("ignore")  # of Python, about threads: that is the point
import fastq

m = fastq.Model(sys.argv[1], threads=2)
options = {"max_tokens": 12, "seed": 1, "ignore_eos": True}
expected = m.generate("a b", **options).tokens
stream = m.stream("a b", **options)
first = next(stream)
busy = None
if sys.argv[2] == "busy":
    busy = threading.Thread(target=m.generate, args=([7] * 20000,), kwargs={"max_tokens": 1})
    busy.start()
    busy.join(0.2)
    assert busy.is_alive(), "the prompt is too short for this machine"
child = os.fork()
if child == 0:
    try:
        found = m.generate("a b", **options).tokens
        found = asyncio.run(m.agenerate("a b", **options)).tokens if found == expected else found
        same = found == expected
    except RuntimeError as error:
        # Another thread was inside of the model: its work is in no state to go on from, and that is said.
        same = busy is not None and "load the model again" in str(error)
        same = same and fastq.Model(sys.argv[1], threads=2).generate("a b", **options).tokens == expected
    os._exit(0 if same else 1)
_, status = os.waitpid(child, 0)
if busy:
    busy.join()
assert m.generate("a b", **options).tokens == expected
assert first + "".join(stream) == m.generate("a b", **options).text
print(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("state", ["idle", "busy"])
def test_both_sides_go_on(state: str, tmp_path: Path) -> None:
    shape = tiny.Tiny(format="Q8_0", width=64, heads=2, kv_heads=1, ffn=96, context=30000)
    path = tiny.write(tmp_path / "a.gguf", shape)
    command = [sys.executable, "-c", PROGRAM, str(path), state]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.stdout.strip() == "0", result.stderr
