"""What `import fastq` imports, and what it gives."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

import fastq


def fresh(program: str) -> str:
    """What a program prints in an interpreter of its own."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_import_is_light() -> None:
    """Each of these takes longer to import than all of fastq."""
    program = "import sys; before = set(sys.modules); import fastq; print(*set(sys.modules) - before)"
    heavy = {"dataclasses", "inspect", "logging", "numpy", "re", "typing"}
    assert heavy.isdisjoint(fresh(program).split())


def test_names_that_come_late() -> None:
    """The records are there by name, in `dir`, through a star, and as a module, whichever is asked for first."""
    for name in ("Usage", "results.Usage"):
        assert fresh(f"import fastq; print(fastq.{name}(1, 2).total_tokens)") == "3\n"
    assert fresh("from fastq import *; print(Usage(1, 2).total_tokens, callable(formats))") == "3 True\n"
    assert fresh("import fastq.results, fastq.formats; print(callable(fastq.formats))") == "True\n"
    assert set(fastq.__all__) <= set(dir(fastq))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fastq.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_loading_is_logged(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where the program has asked for it."""
    with caplog.at_level(logging.INFO, logger="fastq"):
        fastq.Model(small, context=64).close()
    assert [record.name for record in caplog.records] == ["fastq"]
    assert caplog.records[0].getMessage().startswith(f"loaded {small} (")
