"""Nothing is printed: neither to standard output nor to standard error, whatever happens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EVERYTHING = """
import sys, fastq
path, broken = sys.argv[1:]
fastq.cpu_info(); fastq.inspect(path); fastq.plan(path, context=64)
with fastq.Model(path, context=64) as m:
    m.generate("the word", max_tokens=8)
    m.generate(["a", "b"], max_tokens=3)
    list(m.stream("the", max_tokens=5))
    m.chat([{"role": "user", "content": "Hi"}], max_tokens=5)
    m.logits([1, 2], all=True)
    stream = m.stream("the", max_tokens=50)
    next(stream)
    stream.cancel()
    for call in (lambda: m.generate("a" * 2000), lambda: m.generate("a", top_p=7), lambda: m.logits([10**7])):
        try:
            call()
        except (fastq.FastqError, ValueError, OverflowError):
            pass
        else:
            raise SystemExit("no error")
try:
    fastq.Model(broken)
except fastq.ModelFileError:
    pass
left = fastq.Model(path)
kept = left.stream("the", max_tokens=50)
next(kept)
"""


@pytest.mark.parametrize("flags", [[], ["-X", "dev", "-W", "error"]])
def test_both_streams_stay_empty(flags: list[str], small: Path, tmp_path: Path) -> None:
    """Also at exit with a model and a stream left open, and in Python's development mode."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(small.read_bytes()[:5000])
    command = [sys.executable, *flags, "-c", EVERYTHING, str(small), str(broken)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
