"""A file of an architecture that fastq does not know, run as a variant of one that it knows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastq
import tiny
from conftest import Make

IDS = [1, 5, 9, 30]
DESCRIPTION = {"base": "qwen2", "head_norms": "each"}
TOML = 'base = "qwen2"\nhead_norms = "each"   # as Qwen 3 has them\n'


@pytest.fixture
def unknown(make: Make, tmp_path: Path) -> Path:
    """A tiny Qwen 3 under a name of its own."""
    pairs, tensors = tiny.contents(tiny.Tiny(architecture="qwen3"))
    for index, pair in enumerate(pairs):
        if pair.key == "general.architecture":
            pairs[index] = tiny.Pair(pair.key, pair.kind, "novel")
        elif pair.key.startswith("qwen3."):
            pairs[index] = tiny.Pair(pair.key.replace("qwen3.", "novel."), pair.kind, pair.value, pair.item)
    path = tmp_path / "novel.gguf"
    with open(path, "wb") as file:
        tiny.write_file(file, pairs, tensors, 0)
    return path


def test_a_variant_runs_by_name_mapping_and_file(unknown: Path, make: Make, tmp_path: Path) -> None:
    with fastq.Model(make(architecture="qwen3")) as m:
        wanted = m.logits(IDS)
    with pytest.raises(fastq.UnsupportedModelError, match=r'architecture "novel" is not supported.*architecture='):
        fastq.Model(unknown)
    file = tmp_path / "novel.toml"
    file.write_text(TOML)
    descriptions: list[Any] = ["qwen3", DESCRIPTION, file, str(file)]
    for description in descriptions:
        assert fastq.plan(unknown, architecture=description).context == 512
        with fastq.Model(unknown, architecture=description) as m:
            assert m.info.architecture == "novel"
            assert np.array_equal(m.logits(IDS), wanted)
    with fastq.Model(unknown, architecture={"base": "qwen3", "rope_style": "pairs"}) as m:
        assert not np.array_equal(m.logits(IDS), wanted)


def test_a_wrong_description_is_refused(unknown: Path) -> None:
    for description, match in (
        ("quen3", r"must be one of llama, .*found \"quen3\""),
        ({"head_norms": "each"}, "base is missing"),
        ({"base": "qwen2", "head_norm": "each"}, r"\"head_norm\" is not known; the keys are base, "),
        ({"base": "qwen2", "rope_base": "high"}, "rope_base: invalid type"),
    ):
        with pytest.raises(ValueError, match=match):
            fastq.Model(unknown, architecture=description)


def test_from_the_command_line(unknown: Path, tmp_path: Path) -> None:
    file = tmp_path / "novel.toml"
    file.write_text(TOML)
    command = [sys.executable, "-m", "fastq", "run", str(unknown), "the day", "--raw", "-n", "3", "--quiet"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "novel" in refused.stderr
    subprocess.run([*command, "--architecture", str(file)], capture_output=True, check=True)
