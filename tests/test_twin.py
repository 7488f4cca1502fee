"""Logits of tiny models against the float64 twin.

With F32 weights and a cache in f32 nothing is rounded on purpose, and every position of every sequence is held to a
sharp bound. With the default cache the twin rounds keys and values to f16 as the engine's does, and for quantized
weights the activations to int8 as the contract says. Then float32 against float64 differs by about 1e-7 of the
logits, until a value lies so near the edge between two roundings that the two take different ones: a step of 5e-4 of
that key, or of 1/127 of the largest activation of the block, which later tokens inherit. Long sequences nearly always
hold such values, sequences of three tokens seldom. So the best of a few short sequences is held to a sharp bound, and
all of them and the long ones to what a few such steps can do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest

import fastq
import tiny
from conftest import Make
from reference.forward import Twin
from shapes import QUANTIZED, SHAPES

Array = npt.NDArray[np.float64]

SHARP = 1e-5
"""Largest error of a sequence in which no value was rounded differently."""


def largest(a: Array, b: Array) -> float:
    """Largest difference relative to the largest logit of the same position, at the worst position."""
    return float((np.abs(a - b).max(axis=1) / np.abs(b).max(axis=1)).max())


def typical(a: Array, b: Array) -> float:
    """Root mean square of the difference relative to that of the logits."""
    return float(np.sqrt(((a - b) ** 2).mean() / (b**2).mean()))


def usual(a: Array, b: Array) -> float:
    """The same for the middle one of the tokens. With experts, one rounding can choose another expert for a token."""
    return float(np.median(np.sqrt(((a - b) ** 2).mean(axis=1) / (b**2).mean(axis=1))))


def sequences(path: Path, count: int, length: int) -> list[list[int]]:
    size = len(Twin(path).file.metadata["tokenizer.ggml.tokens"])
    drawn = np.random.default_rng([length, 1]).integers(0, size, (count, length))
    return [[int(token) for token in row] for row in drawn]


def compare(
    path: Path,
    twin: Twin,
    count: int,
    length: int,
    measure: Callable[[Array, Array], float],
    kv: Literal["f32", "f16"] = "f16",
) -> list[float]:
    """Errors of the engine on random sequences, smallest first."""
    errors = []
    with fastq.Model(path, threads=2, prefill_chunk=32, kv=kv) as m:
        for tokens in sequences(path, count, length):
            ours, wanted = m.logits(tokens, all=True).astype(np.float64), twin.logits(tokens)
            assert ours.shape == wanted.shape
            errors.append(measure(ours, wanted))
    return sorted(errors)


@pytest.mark.parametrize("name", SHAPES)
def test_f32_weights(name: str, make: Make, note: Callable[[str], None]) -> None:
    path = make(**SHAPES[name])
    twin = Twin(path)
    short, (long,) = compare(path, twin, 3, 3, largest, "f32"), compare(path, twin, 1, 80, largest, "f32")
    note(f"twin, {name}, f32 cache: {short[-1]:.1e} on 3 tokens, {long:.1e} on 80 tokens")
    assert short[-1] <= SHARP
    # A delta net makes more of the rounding of f32 at some token; llama.cpp is as far from the twin there.
    assert long <= (5e-5 if SHAPES[name].get("architecture") == "qwen35" else SHARP)


@pytest.mark.parametrize("name", SHAPES)
def test_f16_cache(name: str, make: Make, note: Callable[[str], None]) -> None:
    path = make(**SHAPES[name])
    twin = Twin(path, cache=np.float16)
    short, long = compare(path, twin, 12, 3, largest), compare(path, twin, 3, 48, typical)
    note(f"twin, {name}: {short[0]:.1e} to {short[-1]:.1e} on 3 tokens, {long[1]:.1e} on 48 tokens")
    assert short[0] <= SHARP
    assert short[6] <= 1e-4
    assert short[-1] <= 4e-4
    assert long[1] <= 1e-4
    assert long[2] <= 4e-4


@pytest.mark.parametrize("name", ["F16", "BF16"])
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_half_weights(architecture: str, name: str, make: Make) -> None:
    """Activations stay float32, so the bounds are those of F32 weights."""
    path = make(architecture=architecture, format=name)
    twin = Twin(path, cache=np.float16)
    short = compare(path, twin, 12, 3, largest)
    assert short[0] <= SHARP
    assert short[6] <= 1e-4
    assert short[-1] <= 4e-4
    assert compare(path, twin, 3, 40, typical)[1] <= 1e-4


@pytest.mark.parametrize("name", QUANTIZED)
def test_quantized_architectures(name: str, make: Make, note: Callable[[str], None]) -> None:
    path = make(**QUANTIZED[name])
    alike, exact = Twin(path, cache=np.float16, int8=True), Twin(path, cache=np.float16)
    short = compare(path, alike, 7, 3, largest)
    long, rounding = compare(path, alike, 1, 40, usual)[0], compare(path, exact, 1, 40, usual)[0]
    note(f"twin, {name}: {short[3]:.1e} on 3 tokens, {long:.1e} on 40 tokens, {rounding:.1e} unrounded")
    assert short[3] <= 1e-4
    assert long <= 0.03
    # A delta net carries what was rounded from token to token.
    assert rounding <= 0.08


@pytest.mark.parametrize("name", [*(n for n, f in tiny.FORMATS.items() if f.block > 1), "Q4_K_M", "mixed"])
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_quantized_weights(architecture: str, name: str, make: Make, note: Callable[[str], None]) -> None:
    """Against exact activations the int8 rounding shows: 1 to 4 percent of the logits of these random models, as in
    llama.cpp. A wrong scale, minimum or bit costs far more than either bound.
    """
    path = make(architecture=architecture, format=name)
    alike, exact = Twin(path, cache=np.float16, int8=True), Twin(path, cache=np.float16)
    short = compare(path, alike, 7, 3, largest)
    long, rounding = compare(path, alike, 1, 40, typical)[0], compare(path, exact, 1, 40, typical)[0]
    note(f"twin, {architecture} {name}: {short[3]:.1e} on 3 tokens, {long:.1e} on 40 tokens, {rounding:.1e} unrounded")
    assert short[3] <= 1e-4
    assert long <= 0.03
    assert rounding <= 0.06


def test_last_row_is_the_answer_for_one(make: Make) -> None:
    path = make(format="Q4_K")
    (tokens,) = sequences(path, 1, 20)
    with fastq.Model(path) as m:
        rows = m.logits(tokens, all=True)
        for n in (1, 7, 20):
            assert np.array_equal(m.logits(tokens[:n]), rows[n - 1])
