"""Odd paths, damaged files, and files that change while they are in use."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastq
import tiny
from conftest import SMALL

PROMPT = [300, 301]
GREEDY: dict[str, Any] = {"max_tokens": 6, "temperature": 0.0, "ignore_eos": True}
OPENERS: list[Callable[[Path], object]] = [fastq.inspect, fastq.plan, fastq.Model]


def child(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs Python code in a process that may hang or die."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=20)


@pytest.mark.parametrize("opener", OPENERS)
class TestPaths:
    def test_missing(self, opener: Callable[[Path], object], tmp_path: Path) -> None:
        for path in (tmp_path / "no.gguf", tmp_path / "no" / "no.gguf"):
            with pytest.raises(FileNotFoundError, match=r"no\.gguf"):
                opener(path)

    def test_directory(self, opener: Callable[[Path], object], tmp_path: Path) -> None:
        with pytest.raises((OSError, fastq.ModelFileError), match=r"\S"):
            opener(tmp_path)

    def test_symbolic_links(self, opener: Callable[[Path], object], small: Path, tmp_path: Path) -> None:
        loop = tmp_path / "loop.gguf"
        loop.symlink_to(loop)
        with pytest.raises(OSError, match=r"loop\.gguf"):
            opener(loop)
        good = tmp_path / "good.gguf"
        good.symlink_to(small)
        opener(good)
        assert fastq.inspect(good).path == str(good)
        assert fastq.Model(good).info.path == str(good)

    def test_unreadable(self, opener: Callable[[Path], object], small: Path, tmp_path: Path) -> None:
        locked = tmp_path / "locked.gguf"
        locked.write_bytes(small.read_bytes())
        locked.chmod(0)
        if os.access(locked, os.R_OK):
            pytest.skip("this user reads every file (root)")
        with pytest.raises(PermissionError, match=r"locked\.gguf"):
            opener(locked)

    def test_empty_and_foreign(self, opener: Callable[[Path], object], tmp_path: Path) -> None:
        path = tmp_path / "x.gguf"
        for data in (
            b"",
            b"G",
            b"GGUF",
            b"PK\3\4" + bytes(100),
            b"lmgg" + bytes(100),
            b"tjgg" + bytes(100),
            bytes(4096),
        ):
            path.write_bytes(data)
            with pytest.raises(fastq.FastqError, match=r"x\.gguf"):
                opener(path)
        path.write_bytes(b"GGUF" + struct.pack("<I", 1) + bytes(100))
        with pytest.raises(fastq.FastqError, match="1"):
            opener(path)

    def test_not_a_path(self, opener: Callable[[Any], object]) -> None:
        for path in (None, 3, 2.5, ["a"]):
            with pytest.raises(TypeError):
                opener(path)
        with pytest.raises((ValueError, OSError)):
            opener("nul\0.gguf")

    def test_name_that_is_not_utf8(self, opener: Callable[[Any], object], small: Path, tmp_path: Path) -> None:
        path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.gguf")
        try:
            os.link(small, path)
        except OSError:
            pytest.skip("this file system wants names in UTF-8")
        opener(path)


@pytest.mark.parametrize("kind", ["fifo", "/dev/zero", "sparse"])
def test_what_never_ends(kind: str, tmp_path: Path) -> None:
    """A FIFO nobody writes to, an endless device, a file of 1 TiB of nothing: an error at once."""
    path = tmp_path / "x.gguf"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "sparse":
        with open(path, "wb") as file:
            file.write(b"GGUF" + struct.pack("<IQQ", 3, 1, 0))
            try:
                file.truncate(1 << 40)
            except OSError:
                pytest.skip("this file system has no files of 1 TiB")
    else:
        path.symlink_to(kind)
    code = """
import fastq, sys
for opener in (fastq.inspect, fastq.plan, fastq.Model):
    try:
        opener(sys.argv[1])
    except (fastq.FastqError, OSError, MemoryError) as error:
        assert str(error)
    else:
        raise SystemExit("no error")
"""
    done = child(code, path)
    assert done.returncode == 0, done.stderr


def test_truncated_anywhere(small: Path, tmp_path: Path) -> None:
    """Every length below the whole is an error that names the file."""
    data = small.read_bytes()
    # The last tensor ends before the padding of the file does.
    lengths = {*range(64), *np.linspace(64, len(data) - 64, 200, dtype=int).tolist()}
    path = tmp_path / "short.gguf"
    for length in sorted(lengths):
        path.write_bytes(data[:length])
        with pytest.raises(fastq.ModelFileError, match=r"short\.gguf") as caught:
            fastq.Model(path)
        assert caught.value.what


def test_experts_are_counted(tmp_path: Path) -> None:
    dense = tiny.write(tmp_path / "dense.gguf", tiny.Tiny(**SMALL))
    experts = tiny.write(
        tmp_path / "experts.gguf", tiny.Tiny(architecture="qwen3moe", experts=7, experts_used=3, **SMALL)
    )
    for path, expected in [(dense, (0, 0)), (experts, (7, 3))]:
        with fastq.Model(path) as m:
            assert (m.info.experts, m.info.experts_used) == expected
    assert fastq.inspect(experts).metadata["qwen3moe.expert_used_count"] == 3


class TestSplit:
    """A model in several files: NAME-00001-of-00003.gguf and so on."""

    SHAPE = tiny.Tiny(format="Q4_0", **SMALL)

    def test_is_the_same_model(self, tmp_path: Path) -> None:
        shards = tiny.write_split(tmp_path / "m", self.SHAPE, 3)
        assert [p.name for p in shards] == [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
        whole = tiny.write(tmp_path / "whole.gguf", self.SHAPE)
        with fastq.Model(shards[0]) as a, fastq.Model(whole) as b:
            assert np.array_equal(a.logits(PROMPT), b.logits(PROMPT))
            assert a.info.parameters == b.info.parameters

    def test_missing_shard(self, tmp_path: Path) -> None:
        shards = tiny.write_split(tmp_path / "m", self.SHAPE, 3)
        shards[1].unlink()
        with pytest.raises((fastq.ModelFileError, FileNotFoundError), match="m-00002-of-00003"):
            fastq.Model(shards[0])

    def test_wrong_shard(self, tmp_path: Path) -> None:
        shards = tiny.write_split(tmp_path / "m", self.SHAPE, 3)
        shards[1].write_bytes(shards[2].read_bytes())
        with pytest.raises(fastq.ModelFileError, match=r"\S"):
            fastq.Model(shards[0])


CHANGED = """
import os, sys
import fastq
path, how, mmap = sys.argv[1:]
m = fastq.Model(path, mmap=mmap == "True")
options = dict(max_tokens=6, temperature=0.0, ignore_eos=True)
wanted = m.generate([300, 301], **options).tokens
data = open(path, "rb").read()
if how == "truncated":
    os.truncate(path, 4096)
elif how == "rewritten":
    with open(path, "r+b") as file:
        file.write(data[:100] + bytes(len(data) - 100))
elif how == "replaced":
    with open(path + ".new", "wb") as file:
        file.write(bytes(len(data)))
    os.replace(path + ".new", path)
elif how == "deleted":
    os.unlink(path)
try:
    print("equal" if m.generate([300, 301], **options).tokens == wanted else "different")
except fastq.FastqError as error:
    print("error", error)
except OSError as error:
    print("error", error)
"""


@pytest.mark.parametrize("how", ["truncated", "rewritten", "replaced", "deleted"])
@pytest.mark.parametrize("mmap", [True, False])
def test_file_changes_while_in_use(how: str, mmap: bool, small: Path, tmp_path: Path) -> None:
    """Without mmap nothing happens; with it the change is noticed, and never a signal or a wrong answer."""
    path = tmp_path / "model.gguf"
    path.write_bytes(small.read_bytes())
    os.utime(path, (1, 1))  # so that a rewrite within one tick of the clock shows
    done = child(CHANGED, path, how, mmap)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
    if not mmap:
        assert done.stdout == "equal\n"
    elif how in ("truncated", "rewritten"):
        assert done.stdout.startswith("error")
        assert "model.gguf" in done.stdout
    else:  # the mapping still holds the old file
        assert done.stdout.startswith(("equal", "error"))
