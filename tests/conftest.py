"""Fixtures: tiny models, the real models, the shared material; and a summary of what was left out."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fastq
import models
import tiny

Make = Callable[..., Path]

NOTES: list[str] = []
"""Figures that tests measured; printed at the end of the run."""


@pytest.fixture(scope="session")
def note() -> Callable[[str], None]:
    """Puts a measured figure into the summary of the run."""
    return NOTES.append


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what needs a real model, so that it can be left out where those take too long."""
    for item in items:
        if {"smollm2", "gemma3", "minilm", "real"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("real_model")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    skipped = Counter(str(r.longrepr[2]) for r in terminalreporter.stats.get("skipped", []))
    for reason, times in skipped.items():
        terminalreporter.write_line(f"NOT TESTED ({times} times): {reason.removeprefix('Skipped: ')}", yellow=True)
    for line in NOTES:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Writes a tiny model with the given options of `tiny.Tiny`; the same options give the same file."""
    folder = tmp_path_factory.mktemp("tiny")
    written: dict[str, Path] = {}

    def write(**options: Any) -> Path:
        key = repr(sorted(options.items()))
        if key not in written:
            written[key] = tiny.write(folder / f"{len(written)}.gguf", tiny.Tiny(**options))
        return written[key]

    return write


SMALL: dict[str, Any] = {"width": 64, "heads": 2, "kv_heads": 1, "ffn": 96, "context": 256}


@pytest.fixture(scope="session")
def small(make: Make) -> Path:
    """A model of well under a megabyte whose answers take no time."""
    return make(format="Q8_0", **SMALL)


@pytest.fixture
def model(small: Path) -> Iterator[fastq.Model]:
    with fastq.Model(small, threads=2) as m:
        yield m


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference data and hostile files: FASTQ_SHARED, or `../shared` beside the repository."""
    named = os.environ.get("FASTQ_SHARED")
    path = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    if not (path / "reference").is_dir():
        pytest.skip(f"no shared material at {path} (set FASTQ_SHARED)")
    return path


def real_model(name: str) -> Path:
    try:
        return models.path_of(name)
    except models.Unavailable as error:
        if os.environ.get("FASTQ_REQUIRE_MODELS"):
            raise
        pytest.skip(f"real models: {error}")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct in Q4_1."""
    return real_model("smollm2")


@pytest.fixture(scope="session")
def gemma3() -> Path:
    """Gemma-3-270M in Q4_K_M."""
    return real_model("gemma3")


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2 in F16."""
    return real_model("minilm")


@pytest.fixture(scope="session", params=["smollm2", "gemma3"])
def real(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """Either real model that writes, with its name."""
    return request.param, real_model(request.param)


@pytest.fixture(scope="session")
def mutate(shared: Path) -> ModuleType:
    """The maker of hostile files."""
    spec = importlib.util.spec_from_file_location("mutate_gguf", shared / "hostile" / "mutate_gguf.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutate_gguf"] = module
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # the shared folder stays as it is
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = writes
    return module
