"""One answer: the same bits for every SIMD level, number of threads, prefill chunk and batch."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fastq
import tiny
from conftest import SMALL, Make

THREADS, CHUNKS, BATCHES = (1, 2, 3), (1, 17, 512), (1, 2, 7)
LEVELS = fastq.cpu_info().available_levels


def digest(logits: npt.NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(logits).tobytes()).hexdigest()


def test_required_levels_are_here(note: Callable[[str], None]) -> None:
    """FASTQ_REQUIRE_LEVELS=scalar,avx2 makes a level that silently did not run a failure."""
    note(f"levels compared: {', '.join(LEVELS)}")
    required = {name for name in os.environ.get("FASTQ_REQUIRE_LEVELS", "").split(",") if name}
    available = set(fastq.cpu_info().available_levels)
    assert required <= available, f"this machine lacks {sorted(required - available)}"
    assert "scalar" in LEVELS


ANSWERS: dict[str, str] = {}
"""Hashes of the logits of tiny models, as far as they were found to be those of the record."""

SHAPES: dict[str, dict[str, Any]] = {
    **{f"llama {name}": {"format": name} for name in [*tiny.FORMATS, "Q4_K_M"]},
    "gemma3 mixed": {"architecture": "gemma3", "layers": 7, "format": "mixed", "window": 5},
    "gemma3 Q4_K, window 33": {"architecture": "gemma3", "layers": 6, "format": "Q4_K", "window": 33},
    "llama mixed, 9 heads on 3": {"format": "mixed", "heads": 9, "kv_heads": 3, "head_dim": 24, "tied": False},
    **{
        f"{name} mixed": {"architecture": name, "layers": 4, "format": "mixed"}
        for name in (
            "mistral3",
            "qwen2",
            "qwen3",
            "gemma",
            "gemma2",
            "phi2",
            "phi3",
            "smollm3",
            "granite",
            "olmo2",
            "stablelm",
        )
    },
    "lfm2 mixed": {"architecture": "lfm2", "layers": 4, "format": "mixed"},
    "lfm2, convolution of 5, untied": {"architecture": "lfm2", "layers": 3, "mixers": "rar", "taps": 5, "tied": False},
    "qwen35 mixed": {"architecture": "qwen35", "layers": 4, "format": "mixed"},
    "qwen35, 6 heads on 3, state of 64": {
        "architecture": "qwen35",
        "layers": 5,
        "delta_heads": 6,
        "delta_keys": 3,
        "state": 64,
        "tied": False,
    },
    "llama Q5_0, yarn, biases": {"format": "Q5_0", "rope_scaling": "yarn", "biases": "all"},
    "qwen3moe Q4_K, 3 of 9 experts": {"architecture": "qwen3moe", "format": "Q4_K", "experts": 9, "experts_used": 3},
    "olmoe Q8_0": {"architecture": "olmoe", "format": "Q8_0", "kv_heads": 4},
    "granitemoe mixed, shared expert": {"architecture": "granitemoe", "format": "mixed", "shared_ffn": 96},
    "gpt-oss MXFP4": {"architecture": "gpt-oss", "format": "Q8_0", "expert_format": "MXFP4", "layers": 4},
}


# SHA-256 of every tiny file and of its logits. As GOLDEN below, but the files are random: they depend on NumPy's
# generators and on its `exp`, so they are part of the record.
TINY_GOLDEN: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("golden.json").read_text())


def settings(number: int) -> list[tuple[str, int, int]]:
    """Level, threads and chunk of the comparisons of one case, given its number.

    FASTQ_TEST_SHARE=n takes every n-th of the threads and chunks, others from case to case; each level takes part.
    """
    share = int(os.environ.get("FASTQ_TEST_SHARE", "1"))
    shapes = list(itertools.product(THREADS, CHUNKS))
    first = [(number + at) % share % len(shapes) for at in range(len(LEVELS))]
    return [(level, *shape) for level, at in zip(LEVELS, first, strict=True) for shape in shapes[at::share]]


@pytest.mark.parametrize("name", SHAPES)
def test_tiny_models(name: str, make: Make, note: Callable[[str], None]) -> None:
    path = make(**SHAPES[name])
    tokens = [int(t) for t in np.random.default_rng(5).integers(0, 600, 80)]
    found: dict[str, list[str]] = {}
    for level, threads, chunk in settings(list(SHAPES).index(name)):
        with fastq.Model(path, level=level, threads=threads, prefill_chunk=chunk) as m:
            assert m.info.level == level
            found.setdefault(digest(m.logits(tokens, all=True)), []).append(f"{level}/{threads}/{chunk}")
    assert len(found) == 1, {h[:8]: where for h, where in found.items()}
    if hashlib.sha256(path.read_bytes()).hexdigest() == TINY_GOLDEN[name]["file"]:
        assert list(found) == [TINY_GOLDEN[name]["logits"]]
        ANSWERS[name] = next(iter(found))
    else:
        note(f"NOT TESTED: the hash of the logits of {name}; this NumPy makes another file")


def test_every_tiny_model_has_its_hash(note: Callable[[str], None]) -> None:
    """After the test before, for the log: one hash of all the answers, the same on every machine."""
    if set(ANSWERS) == set(SHAPES) == set(TINY_GOLDEN):
        together = hashlib.sha256("".join(ANSWERS[name] for name in sorted(SHAPES)).encode()).hexdigest()
        note(f"one answer of {len(ANSWERS)} tiny models on {', '.join(LEVELS)}: SHA-256 {together}")
    else:
        pytest.skip("not all hashes of tiny models were compared")


@pytest.mark.parametrize("name", ["llama Q4_K_M", "gemma3 Q4_K, window 33", "llama mixed, 9 heads on 3"])
def test_tiny_models_with_a_quantized_cache(name: str, make: Make) -> None:
    path = make(**SHAPES[name])
    tokens = [int(t) for t in np.random.default_rng(5).integers(0, 600, 80)]
    found: dict[str, list[str]] = {}
    for level, threads, chunk in settings(0):
        with fastq.Model(path, level=level, threads=threads, prefill_chunk=chunk, kv="q8_0") as m:
            assert m.info.kv == "q8_0"
            found.setdefault(digest(m.logits(tokens, all=True)), []).append(f"{level}/{threads}/{chunk}")
    assert len(found) == 1, {h[:8]: where for h, where in found.items()}
    with fastq.Model(path) as m:
        assert digest(m.logits(tokens, all=True)) not in found, "the cache is quantized"


def prompts(count: int) -> list[list[int]]:
    """Prompts of unequal length."""
    rng = np.random.default_rng(11)
    return [[int(t) for t in rng.integers(260, 600, 3 + 3 * i)] for i in range(count)]


BATCH_SHAPES: dict[str, dict[str, Any]] = {
    "llama Q4_K_M": {"format": "Q4_K_M"},
    "gemma3 Q4_0, window 5": SMALL | {"architecture": "gemma3", "layers": 6, "format": "Q4_0", "window": 5},
}


@pytest.mark.parametrize("name", BATCH_SHAPES)
def test_batches_of_tiny_models(name: str, make: Make) -> None:
    """A prompt's answer does not depend on its companions. (The bits of batched logits: tests/model_answer.rs.)"""
    path = make(**BATCH_SHAPES[name])
    options: dict[str, Any] = {"max_tokens": 3, "temperature": 1.5, "seed": 3, "ignore_eos": True}
    texts, single = prompts(7), None
    for level, threads, chunk in settings(0):
        with fastq.Model(path, level=level, threads=threads, prefill_chunk=chunk) as m:
            single = single or [m.generate(p, **options).tokens for p in texts]
            for batch in BATCHES:
                parts = [texts[i : i + batch] for i in range(0, len(texts), batch)]
                together = [c.tokens for part in parts for c in m.generate(part, **options)]
                assert together == single, (level, threads, chunk, batch)


TEXT = "The keeper of the lighthouse wrote down the weather of every single day, for nobody else would remember it."
# By the contract they depend on nothing but the files: not on the CPU, the compiler or the operating system. A change
# here changes the answers of every model, so it needs a reason in the change log.
GOLDEN = {
    "smollm2": (
        "8d296494472d022eef36d747fdd707d280706e56e83d9e8abe161e054a6d1aff",
        "a51302593963bd4770204ff7e289864de598bc354ff6fc944bdc46cc27578c0e",
    ),
    "gemma3": (
        "301d0c6dae4c90ead0cc34e04dcda52a8d21bb7d4ccbf9e6fa0437e275cf2ddd",
        "dd3689df5df52e46936ea09b5268a55be2f9da2ac87a4b25e653736e1482fb4b",
    ),
}


# The same with kv="q8_0", after the last of the tokens.
GOLDEN_Q8_0 = {
    "smollm2": "f1ee3fd891514fb6ee285fbaa3372b8dc188ecdee0f80dc9f52fec90c7962246",
    "gemma3": "3edc7251c0cb8af57f9abb928c9fa617a3208209f191bc274794107a1e17ccf5",
}


def test_real_models_with_a_quantized_cache(real: tuple[str, Path]) -> None:
    name, path = real
    found: dict[str, list[str]] = {}
    for level, threads, chunk in itertools.product(LEVELS, THREADS, CHUNKS):
        if level == "scalar" and (threads, chunk) != (2, 17):
            continue
        with fastq.Model(path, context=128, level=level, threads=threads, prefill_chunk=chunk, kv="q8_0") as m:
            tokens = m.tokenize(TEXT)[:18]
            found.setdefault(digest(m.logits(tokens)), []).append(f"{level}/{threads}/{chunk}")
    assert list(found) == [GOLDEN_Q8_0[name]], found


def test_real_models(real: tuple[str, Path], note: Callable[[str], None]) -> None:
    """SHA-256 of the logits after 18 tokens on every setting, and of all rows on some."""
    name, path = real
    with fastq.Model(path, context=128) as m:
        tokens = m.tokenize(TEXT)[:18]
    last: dict[str, list[str]] = {}
    rows: dict[str, list[str]] = {}
    for level, threads, chunk in itertools.product(LEVELS, THREADS, CHUNKS):
        with fastq.Model(path, context=128, level=level, threads=threads, prefill_chunk=chunk) as m:
            setting = f"{level}/{threads}/{chunk}"
            last.setdefault(digest(m.logits(tokens)), []).append(setting)
            if level != "scalar" and (threads, chunk) in ((1, 17), (3, 512)):
                rows.setdefault(digest(m.logits(tokens, all=True)), []).append(setting)
    note(f"{name}: SHA-256 of logits on {len(LEVELS) * 9} settings: {[h[:16] for h in last]}")
    assert (len(last), len(rows)) == (1, 1), (last, rows)
    assert (*last, *rows) == GOLDEN[name]


def test_chunks_of_many_tokens_of_real_models(real: tuple[str, Path]) -> None:
    """The levels against each other where the products have most tokens; the scalar one is too slow for them."""
    tokens: list[int] = []
    found: dict[str, list[str]] = {}
    for level, chunk in itertools.product([level for level in LEVELS if level != "scalar"], (31, 150, 512)):
        with fastq.Model(real[1], context=512, level=level, prefill_chunk=chunk) as m:
            tokens = tokens or m.tokenize(" ".join([TEXT] * 20))[:300]
            found.setdefault(digest(m.logits(tokens)), []).append(f"{level}/{chunk}")
    assert len(found) == 1, found


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
