"""The format of the KV cache: names, plan, errors, and how far answers with a quantized cache are from the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import fastq
from conftest import Make

FORMATS: list[Literal["f32", "f16", "q8_0"]] = ["f32", "f16", "q8_0"]
CALLS: list[Callable[..., Any]] = [fastq.Model, fastq.plan]


@pytest.mark.parametrize("name", ["q4_0", "F16", "", "bf16"])
def test_unknown_names_are_refused(small: Path, name: Any) -> None:
    for call in CALLS:
        with pytest.raises(ValueError, match=r'kv must be one of "f32", "f16", "q8_0", found "' + name + '"'):
            call(small, kv=name)


@pytest.mark.parametrize("wrong", [8, None, b"f16"])
def test_other_types_are_refused(small: Path, wrong: Any) -> None:
    for call in CALLS:
        with pytest.raises(TypeError):
            call(small, kv=wrong)


def test_the_plan_counts_it(make: Make) -> None:
    # Head sizes of whole blocks of 32 values need 34 bytes for each, others a little more.
    for head_dim, share in ((32, 34 / 64), (64, 34 / 64), (80, 86 / 160)):
        path = make(format="Q8_0", heads=2, kv_heads=1, head_dim=head_dim, context=256)
        plans = {kv: fastq.plan(path, context=256, kv=kv) for kv in FORMATS}
        assert {kv: plan.kv for kv, plan in plans.items()} == {kv: kv for kv in FORMATS}
        assert plans["f32"].kv_bytes == 2 * plans["f16"].kv_bytes
        assert plans["q8_0"].kv_bytes == round(plans["f16"].kv_bytes * share)
        assert len({plan.scratch_bytes for plan in plans.values()}) == 1
    assert fastq.Model(path).info.kv == "f16"
    for kv in FORMATS:
        with fastq.Model(path, kv=kv) as m:
            assert m.info.kv == kv


def test_the_plan_counts_recurrent_states(make: Make) -> None:
    path = make(architecture="lfm2", layers=4, width=256)
    # Five states (two that take turns, three snapshots) of three convolutions, which keep two f32 inputs per channel.
    assert {fastq.plan(path, context=n).state_bytes for n in (64, 256)} == {5 * 3 * 2 * 256 * 4}
    assert fastq.plan(make(), context=64).state_bytes == 0


def test_real_models_hardly_change(real: tuple[str, Path], note: Callable[[str], None]) -> None:
    """Mean KL divergence from the f32 cache over a text of 400 tokens."""
    name, path = real
    text = Path(__file__).resolve().parents[1] / "DESIGN.md"
    rows = {}
    for kv in FORMATS:
        with fastq.Model(path, context=512, kv=kv) as m:
            x = m.logits(m.tokenize(text.read_text(encoding="utf-8"))[:400], all=True)
        x -= x.max(axis=1, keepdims=True)
        rows[kv] = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    p = rows["f32"]
    # Most of it is not the cache's: it moves activations over the edges between two int8 values.
    for kv in ("f16", "q8_0"):
        q = rows[kv]
        divergence = float((np.exp(p) * (p - q)).sum(axis=1).mean())
        same = float((p.argmax(axis=1) == q.argmax(axis=1)).mean())
        note(f"{name}: {kv} cache, mean KL divergence from the f32 cache {divergence:.6f}, same top token {same:.1%}")
        assert 0 < divergence < 0.02
        assert same > 0.9
