"""One answer: the same bits for every SIMD level, number of threads, prefill chunk and batch."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fastq
import tiny
from conftest import Make

THREADS, CHUNKS, BATCHES = (1, 2, 3), (1, 17, 512), (1, 2, 7)
# SSE4.1 has no fused multiply-add, so the contract leaves it out.
LEVELS = [level for level in fastq.cpu_info().available_levels if level != "sse41"]


def digest(logits: npt.NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(logits).tobytes()).hexdigest()


def test_required_levels_are_here(note: Callable[[str], None]) -> None:
    """FASTQ_REQUIRE_LEVELS=scalar,avx2 makes a level that silently did not run a failure."""
    note(f"levels compared: {', '.join(LEVELS)}")
    required = {name for name in os.environ.get("FASTQ_REQUIRE_LEVELS", "").split(",") if name}
    assert required <= set(LEVELS), f"this machine lacks {sorted(required - set(LEVELS))}"
    assert "scalar" in LEVELS


SHAPES: dict[str, dict[str, Any]] = {
    **{f"llama {name}": {"format": name} for name in [*tiny.FORMATS, "Q4_K_M"]},
    "gemma3 mixed": {"architecture": "gemma3", "layers": 7, "format": "mixed", "window": 5},
    "gemma3 Q4_K, window 33": {"architecture": "gemma3", "layers": 6, "format": "Q4_K", "window": 33},
    "llama mixed, 9 heads on 3": {"format": "mixed", "heads": 9, "kv_heads": 3, "head_dim": 24, "tied": False},
    "llama Q5_0, yarn, biases": {"format": "Q5_0", "rope_scaling": "yarn", "biases": "all"},
}


@pytest.mark.parametrize("name", SHAPES)
def test_tiny_models(name: str, make: Make) -> None:
    path = make(**SHAPES[name])
    tokens = [int(t) for t in np.random.default_rng(5).integers(0, 600, 80)]
    found: dict[str, list[str]] = {}
    for level, threads, chunk in itertools.product(LEVELS, THREADS, CHUNKS):
        with fastq.Model(path, level=level, threads=threads, prefill_chunk=chunk) as m:
            assert m.info.level == level
            found.setdefault(digest(m.logits(tokens, all=True)), []).append(f"{level}/{threads}/{chunk}")
    assert len(found) == 1, {h[:8]: where for h, where in found.items()}


def prompts(count: int) -> list[list[int]]:
    """Prompts of unequal length."""
    rng = np.random.default_rng(11)
    return [[int(t) for t in rng.integers(260, 600, 3 + 7 * i)] for i in range(count)]


@pytest.mark.parametrize("temperature", [0.0, 1.5])
@pytest.mark.parametrize("name", ["llama Q4_K_M", "gemma3 mixed"])
def test_batches_of_tiny_models(name: str, temperature: float, make: Make) -> None:
    """A prompt's answer does not depend on its companions."""
    path = make(**SHAPES[name])
    options: dict[str, Any] = {"max_tokens": 24, "temperature": temperature, "seed": 3, "ignore_eos": True}
    found = set()
    for level, threads, chunk in itertools.product(LEVELS, (1, 3), (1, 512)):
        with fastq.Model(path, level=level, threads=threads, prefill_chunk=chunk) as m:
            single = [m.generate(p, **options).tokens for p in prompts(7)]
            for batch in BATCHES:
                together = [c.tokens for c in m.generate(prompts(batch), **options)]
                assert together == single[:batch], (level, threads, chunk, batch)
            found.add(repr(single))
    assert len(found) == 1


TEXT = "The keeper of the lighthouse wrote down the weather of every single day, for"


def test_real_models(real: tuple[str, Path], note: Callable[[str], None]) -> None:
    """The scalar level is slow here, so it takes part once with all positions and once in small chunks."""
    path = real[1]
    best = LEVELS[-1]
    runs = [(level, t, c) for level, t, c in itertools.product(LEVELS[1:], THREADS, CHUNKS)]
    runs += [("scalar", 2, 512), ("scalar", 1, 17)]
    found: dict[str, list[str]] = {}
    with fastq.Model(path, context=128) as m:
        tokens = m.tokenize(TEXT)[:16]
    for level, threads, chunk in runs:
        with fastq.Model(path, context=128, level=level, threads=threads, prefill_chunk=chunk) as m:
            everything = (threads, chunk) == (2, 512)
            rows = m.logits(tokens, all=True) if everything else m.logits(tokens)[None]
            found.setdefault(digest(rows[-1]), []).append(f"{level}/{threads}/{chunk}")
            if everything:
                found.setdefault("all rows " + digest(rows), []).append(level)
    hashes = next(iter(found))[:16]
    note(f"{real[0]}: logits of {len(tokens)} tokens have SHA-256 {hashes} on {len(runs)} settings, best {best}")
    assert len(found) == 2, {h[:17]: where for h, where in found.items()}


def test_batches_of_real_models(real: tuple[str, Path]) -> None:
    with fastq.Model(real[1], context=256, threads=2) as m:
        texts = [TEXT[:n] for n in (3, 9, 20, 31, 42, 60, len(TEXT))]
        options: dict[str, Any] = {"max_tokens": 8, "temperature": 0.0, "ignore_eos": True}
        single = [m.generate(t, **options).tokens for t in texts]
        for batch in BATCHES:
            assert [c.tokens for c in m.generate(texts[:batch], **options)] == single[:batch]


def test_unknown_level_is_refused(small: Path) -> None:
    with pytest.raises(ValueError, match="mmx"):
        fastq.Model(small, level="mmx")
