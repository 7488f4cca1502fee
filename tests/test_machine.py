"""What the machine offers, and what happens when it is less than a model asks for."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fastq
import tiny
from conftest import SMALL

linux = pytest.mark.skipif(sys.platform != "linux", reason="limits and sizes are read from Linux")


def test_doctor_is_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    """The same findings in Python and on the command line, apart from what changes by itself."""
    report = fastq.doctor()
    assert capfd.readouterr() == ("", "")
    command = [sys.executable, "-m", "fastq", "doctor", "--json"]
    printed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)
    assert list(report) == list(printed)
    for name in ("processor", "level", "threads", "cgroup", "default model"):
        assert vars(report[name]) == printed[name]
    info = fastq.cpu_info()
    assert report["level"].data["chosen"] == info.level
    assert report["level"].data["available"] == info.available_levels
    assert report["threads"].data["granted"] == info.threads
    assert str(report["memory"]) == report["memory"].text
    assert report["bandwidth"].data["bytes_per_second"] > 0


def test_doctor_finds_a_wrong_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTQ_LEVEL", "turbo")
    level = fastq.doctor()["level"]
    assert level.status == "problem"
    assert "turbo" in level.text


LIMITED = """
import resource, sys
import fastq
path, read = sys.argv[1], open("/proc/self/statm").read().split()
used = int(read[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), resource.RLIM_INFINITY))
try:
    fastq.Model(path, context=1 << 28, threads=1)
except MemoryError as error:
    assert "address space limit" in str(error) and "would fit" in str(error), error
else:
    raise SystemExit("no error")
with fastq.Model(path, context=64, threads=1) as m:
    print(len(m.generate([300], max_tokens=4, temperature=0.0, ignore_eos=True).tokens))
"""


@linux
def test_a_limit_is_an_error_before_anything_is_allocated(small: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, str(small)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "4\n", "")


@pytest.fixture
def larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A model with 1 TiB of weights in a sparse file."""
    pairs, tensors = tiny.contents(tiny.Tiny(format="Q8_0", **SMALL))
    huge = tiny.Tensor("huge.weight", 1 << 19, 1 << 19, tiny.FORMATS["F32"], "matrix")
    data = tiny.tensor_data
    monkeypatch.setattr(tiny, "tensor_data", lambda t, *rest: iter(()) if t is huge else data(t, *rest))
    path = tmp_path / "huge.gguf"
    with open(path, "wb") as file:
        tiny.write_file(file, pairs, [*tensors, (len(tensors), huge)], 0)
        try:
            file.truncate(file.tell() + huge.bytes())
        except OSError:
            pytest.skip("this file system has no files of 1 TiB")
    yield path
    path.unlink()


@linux
def test_weights_that_do_not_fit_the_memory_are_told(
    larger_than_memory: Path, small: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Mapped, such a model runs, slowly; plan, log and command say so. Read into memory it is refused."""
    assert fastq.plan(small, context=64).warning is None
    warning = fastq.plan(larger_than_memory, context=64).warning
    assert warning is not None
    assert warning.startswith("the weights (1.0 TiB)")
    options: dict[str, Any] = {"context": 64, "threads": 1}
    with caplog.at_level(logging.WARNING, "fastq"), fastq.Model(larger_than_memory, **options):
        pass
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{larger_than_memory}: the weights (1.0 TiB)")
    caplog.clear()
    with caplog.at_level(logging.WARNING, "fastq"), fastq.Model(small, **options):
        pass
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    with pytest.raises(MemoryError, match=os.path.basename(larger_than_memory)):
        fastq.Model(larger_than_memory, mmap=False, **options)
    command = [sys.executable, "-m", "fastq", "run", str(larger_than_memory), "a", "-n", "1", "--raw", "-c", "64"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stderr.startswith("warning: the weights (1.0 TiB)")
