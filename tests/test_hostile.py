"""Malformed files end in an ordinary exception: no signal, abort, panic, hang, or memory out of proportion.

Every case of `../shared/hostile` on both of its bases, and random mutants: FASTQ_MUTANTS of them (default 500), from
FASTQ_MUTANT_SEED on. One worker process handles many files; it is watched, and replaced when it dies.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hostile_worker import STAGES

SECONDS = 10.0
ALLOWED = ("FastqError", "OSError", "MemoryError", "ValueError", "TypeError", "OverflowError")


class Worker:
    """A worker process that answers one path at a time."""

    def __init__(self, folder: Path, script: str = "hostile_worker.py") -> None:
        self.folder, self.script = folder, script
        self.log = folder / "stderr.txt"
        self.deaths = 0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        with open(self.log, "wb") as log:
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name(self.script))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.folder,
            )
        self.process = process
        assert self.line(process, 60) == b"ready\n", self.log.read_text(errors="replace")
        return process

    def line(self, process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
        """A line of the answer; None when the time is over, empty when the worker is gone."""
        assert process.stdout is not None
        end, text = time.monotonic() + seconds, b""
        while not text.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                return None
            piece = os.read(process.stdout.fileno(), 1 << 16)
            if not piece:
                return b""
            text += piece
        return text

    def ask(self, path: Path) -> dict[str, Any]:
        """What became of the file; key `fatal` when the worker did not survive it."""
        process = self.process or self.start()
        assert process.stdin is not None
        process.stdin.write(os.fsencode(path) + b"\n")
        process.stdin.flush()
        began = time.monotonic()
        answer = self.line(process, SECONDS)
        if answer:
            found: dict[str, Any] = json.loads(answer)
            found["seconds"] = time.monotonic() - began
            return found
        self.stop()
        self.deaths += 1
        if answer is None:
            return {"fatal": f"no answer within {SECONDS:.0f} s"}
        code = process.returncode
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return {"fatal": f"the process ended with {name}: {self.log.read_text(errors='replace')[-300:]}"}

    def stop(self) -> None:
        if self.process is None:
            return
        try:
            self.process.wait(0.5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self.process = None


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    worker = Worker(tmp_path_factory.mktemp("hostile"))
    yield worker
    if worker.process is not None and worker.process.stdin is not None:
        worker.process.stdin.close()
    worker.stop()


def faults(answer: dict[str, Any], size: int) -> str | None:
    """What breaks the rule for every file, whatever it holds."""
    if "fatal" in answer:
        return str(answer["fatal"])
    limit = (64 << 20) + 2 * size
    if answer["growth"] > limit:
        return f"took {answer['growth'] >> 20} MiB for a file of {size} bytes"
    if answer["stage"] is None:
        return None
    if not any(base in ALLOWED for base in answer["bases"]) or "internal error" in answer["message"]:
        return f"raised {answer['type']}: {answer['message'][:200]}"
    if not answer["message"].strip():
        return f"raised {answer['type']} without a message"
    if "ModelFileError" in answer["bases"] and not answer["what"]:
        return f"does not say what is wrong: {answer['message'][:200]}"
    return None


def verdict(answer: dict[str, Any], stage: str, expect: str, strict: bool) -> str | None:
    """What is wrong with the answer for a case of the manifest."""
    failed_at = answer["stage"]
    reached = STAGES.index(failed_at) if failed_at else len(STAGES)
    due = STAGES.index(stage)
    said = f"{answer.get('type')} at {failed_at}: {str(answer.get('message'))[:160]}" if failed_at else "no error"
    if expect == "error" and reached > due and strict:
        return f"must fail no later than {stage}, but: {said}"
    if expect == "ok" and reached <= due and strict:
        return f"must get through {stage}, but: {said}"
    return None


class Tally:
    """Figures of a run, for the summary."""

    def __init__(self) -> None:
        self.stages = dict.fromkeys([*STAGES, "all"], 0)
        self.slowest, self.growth = 0.0, 0

    def add(self, answer: dict[str, Any]) -> None:
        self.stages[answer.get("stage") or "all"] += "fatal" not in answer
        self.slowest = max(self.slowest, answer.get("seconds", 0.0))
        self.growth = max(self.growth, answer.get("growth", 0))

    def __str__(self) -> str:
        errors = {name: n for name, n in self.stages.items() if name != "all"}
        stopped = ", ".join(f"{name} {n}" for name, n in errors.items())
        return (
            f"{sum(errors.values())} errors ({stopped}), {self.stages['all']} ok, slowest {self.slowest:.2f} s,"
            f" memory +{self.growth / 2**20:.1f} MiB at most"
        )


@pytest.mark.parametrize("base", ["spm", "bpe"])
def test_every_case(base: str, mutate: ModuleType, worker: Worker, note: Callable[[str], None]) -> None:
    wrong, ran, tally = [], 0, Tally()
    original = mutate.parse(mutate.craft(base))
    path = worker.folder / "case.gguf"
    for case in mutate.CASES:
        try:
            data = case["fn"](copy.deepcopy(original))
        except mutate.Skip:
            continue
        path.write_bytes(data)
        answer = worker.ask(path)
        ran += 1
        tally.add(answer)
        fault = faults(answer, len(data)) or verdict(answer, case["stage"], case["expect"], case["strict"])
        if fault:
            wrong.append(f"{case['name']} ({case['change'][:60]}): {fault}")
        if (worker.folder / "fastq_pwned").exists():
            wrong.append(f"{case['name']}: the template ran a command")
            (worker.folder / "fastq_pwned").unlink()
    note(f"hostile files, {base}: {ran} cases, {len(wrong)} wrong, {worker.deaths} deaths; {tally}")
    assert ran > 250
    assert not wrong, f"{len(wrong)} of {ran}:\n" + "\n".join(wrong)


def test_random_mutants(mutate: ModuleType, worker: Worker, note: Callable[[str], None]) -> None:
    count, seed = int(os.environ.get("FASTQ_MUTANTS", "500")), int(os.environ.get("FASTQ_MUTANT_SEED", "1"))
    wrong, tally = [], Tally()
    path = worker.folder / "mutant.gguf"
    bases = []
    for vocabulary in ("spm", "bpe"):
        parsed = mutate.parse(mutate.craft(vocabulary))
        bases.append((mutate.build(parsed), parsed.fields, parsed.data_start))
    for number in range(count):
        data, log = mutate.random_mutant(*bases[number % 2], random.Random(f"{seed}/{number}"))
        path.write_bytes(data)
        answer = worker.ask(path)
        tally.add(answer)
        fault = faults(answer, len(data))
        if fault:
            wrong.append(f"mutant {seed}/{number} ({log[:120]}): {fault}")
    note(f"random mutants: {count} from seed {seed}, {len(wrong)} wrong; {tally}")
    assert not wrong, f"{len(wrong)} of {count}:\n" + "\n".join(wrong[:40])
