"""Quantization that is killed, interrupted, out of space, or given malformed files."""

from __future__ import annotations

import copy
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fastq
from conftest import Make
from test_hostile import Worker, faults

quantize = partial(fastq.quantize, method="rtn")
"""What is tested here is the same for every method, and this one is quick."""

WORKER = str(Path(__file__).with_name("quantize_worker.py"))
PARTIAL = {".out.gguf.partial-draft", ".out.gguf.partial-journal"}


@pytest.fixture(scope="module")
def source(make: Make) -> Path:
    """A model that takes some tenths of a second."""
    return make(layers=9, width=256, heads=4, kv_heads=2, ffn=1024, format="F16")


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The quantized file, made without interruption."""
    path = tmp_path_factory.mktemp("whole") / "out.gguf"
    quantize(source, path, "Q4_K_M")
    return path.read_bytes()


def names(folder: Path) -> set[str]:
    return set(os.listdir(folder))


def test_a_hundred_kills(source: Path, whole: bytes, tmp_path: Path, note: Callable[[str], None]) -> None:
    rng, out = random.Random(1), tmp_path / "out.gguf"
    begin = time.monotonic()
    quantize(source, out, "Q4_K_M", threads=1)
    longest = time.monotonic() - begin
    out.unlink()
    finished = resumable = 0
    for _ in range(100):
        with subprocess.Popen(
            [sys.executable, WORKER, str(source), str(out), "Q4_K_M"], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"go\n"
            time.sleep(rng.uniform(0, longest))
            child.kill()
        if out.exists():
            assert out.read_bytes() == whole
            finished += 1
            out.unlink()
        assert names(tmp_path) <= PARTIAL
        journal = tmp_path / ".out.gguf.partial-journal"
        resumable += journal.exists() and journal.read_bytes().count(b"\n") > 1
    assert resumable > 0, "no run was killed in the middle"
    result = quantize(source, out, "Q4_K_M")
    note(f"100 kills: {finished} came too late, {resumable} left complete tensors, {result.resumed} in the end")
    assert out.read_bytes() == whole
    assert names(tmp_path) == {"out.gguf"}


class StopError(Exception):
    """Raised by a callback."""


def stop_at(share: float, how: Callable[[], None]) -> Callable[[str, int, int], None]:
    def progress(stage: str, done: int, total: int) -> None:
        # Longer than reports are apart at least, so that none is left out however quick the machine is.
        time.sleep(0.06)
        if stage == "quantizing" and done >= share * total:
            how()

    return progress


def test_interrupted_runs_go_on(source: Path, whole: bytes, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    with pytest.raises(KeyboardInterrupt):
        quantize(source, out, progress=stop_at(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert names(tmp_path) == PARTIAL

    def fail() -> None:
        raise StopError

    with pytest.raises(StopError):
        quantize(source, out, progress=stop_at(0.6, fail))
    stages: list[str] = []
    result = quantize(source, out, progress=lambda stage, done, total: stages.append(stage))
    assert result.resumed > 0
    assert stages[0] == "resuming"
    assert out.read_bytes() == whole
    assert names(tmp_path) == {"out.gguf"}
    # Errors of tensors that were done before are known.
    again = quantize(source, out)
    assert (result.tensors, result.error) == (again.tensors, again.error)


def test_what_the_last_report_raises_is_raised(source: Path, whole: bytes, tmp_path: Path) -> None:
    def fail() -> None:
        raise StopError

    with pytest.raises(StopError):
        quantize(source, tmp_path / "out.gguf", progress=stop_at(1.0, fail))
    assert names(tmp_path) == {"out.gguf"} or names(tmp_path) == PARTIAL
    quantize(source, tmp_path / "out.gguf")
    assert (tmp_path / "out.gguf").read_bytes() == whole


def test_other_options_start_anew(source: Path, whole: bytes, tmp_path: Path) -> None:
    out, copied = tmp_path / "out.gguf", tmp_path / "source.gguf"
    copied.write_bytes(source.read_bytes())

    def begin(preset: str) -> None:
        with pytest.raises(KeyboardInterrupt):
            quantize(copied, out, preset, progress=stop_at(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)))

    begin("Q5_K_M")
    assert quantize(copied, out, "Q4_K_M").resumed == 0
    assert out.read_bytes() == whole
    begin("Q4_K_M")
    os.utime(copied, ns=(1, 1))  # as if it were another file
    assert quantize(copied, out, "Q4_K_M").resumed == 0
    assert out.read_bytes() == whole
    assert names(tmp_path) == {"out.gguf", "source.gguf"}


def test_files_that_may_not_be_so_large(source: Path, whole: bytes, tmp_path: Path) -> None:
    before = source.read_bytes()
    sizes = [0, 1, 100, 4096, 50_000, len(whole) // 3, len(whole) // 2, len(whole) - 4096, len(whole) - 1, len(whole)]
    for size in sizes:
        done = subprocess.run(
            [sys.executable, WORKER, str(source), str(tmp_path / "out.gguf"), "Q4_K_M"],
            preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size)),
            capture_output=True, check=False,
        )  # fmt: skip
        if size == len(whole):
            assert done.returncode == 0, done.stderr
            assert (tmp_path / "out.gguf").read_bytes() == whole
            continue
        assert done.returncode == 1, (size, done)
        assert b"OSError" in done.stderr
        assert b"ulimit -f" in done.stderr
        assert names(tmp_path) == set()
    assert source.read_bytes() == before


def test_the_source_is_never_the_target(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(source.read_bytes())
    (tmp_path / "link.gguf").symlink_to(path)
    os.link(path, tmp_path / "hard.gguf")
    for target in ("model.gguf", "link.gguf", "hard.gguf"):
        with pytest.raises(ValueError, match="is being read; name another file"):
            quantize(path, tmp_path / target, "Q4_0")
    assert path.read_bytes() == source.read_bytes()
    read_only = tmp_path / "read-only.gguf"
    read_only.write_bytes(b"keep")
    read_only.chmod(0o444)
    with pytest.raises(OSError, match="read-only"):
        quantize(path, read_only, "Q4_0")
    assert read_only.read_bytes() == b"keep"
    with pytest.raises(FileNotFoundError):
        quantize(path, tmp_path / "nowhere" / "out.gguf", "Q4_0")
    with pytest.raises(ValueError, match="expected a file to write, found a folder"):
        quantize(path, tmp_path, "Q4_0")
    assert names(tmp_path) == {"model.gguf", "link.gguf", "hard.gguf", "read-only.gguf"}


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    worker = Worker(tmp_path_factory.mktemp("hostile"), "quantize_worker.py")
    yield worker
    if worker.process is not None and worker.process.stdin is not None:
        worker.process.stdin.close()
    worker.stop()


@pytest.mark.parametrize("base", ["spm", "bpe"])
def test_hostile_files(base: str, mutate: ModuleType, worker: Worker, note: Callable[[str], None]) -> None:
    original = mutate.parse(mutate.craft(base))
    path, wrong, written, refused = worker.folder / "case.gguf", [], 0, 0

    def judge(name: str, data: bytes) -> None:
        nonlocal written, refused
        path.write_bytes(data)
        answer: dict[str, Any] = worker.ask(path)
        fault = faults(answer, len(data)) or answer.get("broken")
        written += answer.get("stage") is None
        refused += answer.get("stage") is not None
        if fault:
            wrong.append(f"{name}: {fault}")

    for case in mutate.CASES:
        try:
            judge(case["name"], case["fn"](copy.deepcopy(original)))
        except mutate.Skip:
            continue
    data = mutate.build(original)
    for number in range(100):
        mutant, log = mutate.random_mutant(
            data, original.fields, original.data_start, random.Random(f"quantize/{number}")
        )
        judge(f"mutant {number} ({log[:80]})", mutant)
    note(f"hostile files through quantize, {base}: {written} written, {refused} refused, {worker.deaths} deaths")
    assert written > 10
    assert refused > 100
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong)
