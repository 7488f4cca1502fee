"""The tiny models exercise what they are made for: with one thing left out, the twin gives other logits."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from conftest import Make
from families import FAMILIES
from reference.forward import RULES, Array, Twin, clamped_gated, gelu_gated, silu_gated
from shapes import ENCODERS, SHAPES

# Shape, and options without which its file has the same tensors.
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("llama, linear scaling", {"rope_scaling": "none"}),
    ("llama, yarn", {"rope_scaling": "linear"}),
    ("qwen2, untied, yarn", {"rope_scaling": "none"}),
    ("phi2, half the rope, equal heads", {"rope_dimensions": None}),
    ("phi3, long factors, partial rope", {"original_context": 512}),
    ("phi3, long factors, partial rope", {"attention_factor": None}),
    ("phi3, short factors", {"original_context": 128}),
    ("gemma2", {"window": 300}),
    ("gemma2", {"score_softcap": 50.0}),
    ("gemma2", {"final_softcap": 30.0}),
    ("gemma2, a window in two of three layers", {"window_pattern": None}),
    ("gemma3, 3 heads on 3, window 5", {"window": 6}),
    ("gemma3, 6 layers", {"window": 0}),
    *(("granite", {scale: 1.0}) for scale in ("embedding_scale", "residual_scale", "attention_scale", "logit_scale")),
    ("granite, untied, all biases, yarn", {"rope_scaling": "none"}),
    ("granite, no rope", {"rope": None}),
    ("granite, long factors", {"original_context": 512}),
    ("olmo2, window 7, yarn", {"window": 0}),
    ("olmo2, window 7, yarn", {"window_pattern": 2}),
    ("olmo2, window 7, yarn", {"attention_factor": None}),
    ("stablelm, biases", {"rope_dimensions": None}),
    ("mistral3, temperature, yarn", {"temperature_scale": None}),
    ("mistral3, temperature, yarn", {"yarn_log_multiplier": None}),
    ("mistral3, half a log multiplier", {"yarn_log_multiplier": 1.0}),
    ("lfm2, window 7", {"window": None}),
    ("llama, 2 of 5 experts", {"experts_used": 1}),
    ("mistral3, 2 of 5 experts, temperature", {"temperature_scale": None}),
    ("granite, 2 of 5 experts", {"residual_scale": 1.0}),
    ("qwen3moe", {"experts_used": 1}),
    ("granitemoe", {"residual_scale": 1.0}),
    ("gpt-oss", {"window": 0}),
    ("gpt-oss, yarn, 4 of 6 experts", {"rope_scaling": "none"}),
    ("qwen35", {"rope_dimensions": 32}),
]
# Shape, and what another architecture does.
OTHERS: list[tuple[str, dict[str, Any]]] = [
    *((name, {"halves": not rules.halves}) for name, rules in RULES.items() if name in SHAPES),
    ("gemma", {"gated": silu_gated}),
    ("gemma", {"width_scales_embedding": False}),
    ("gpt-oss", {"gated": silu_gated}),
    ("qwen3", {"gated": gelu_gated}),
    ("smollm3", {"rope_every": 0}),
    ("gemma2, window 5, linear scaling", {"local_scaled": False}),
    ("olmo2, window 7, yarn", {"local_scaled": True}),
    ("gpt-oss, yarn, 4 of 6 experts", {"local_scaled": False}),
    ("gemma3, 3 heads on 3, window 5", {"local_base": None}),
    ("olmoe", {"all_share": False}),
    ("qwen3moe", {"all_share": True}),
    ("granitemoe, untied, shared expert", {"all_share": True}),
    ("lfm2", {"final_norm": "output_norm"}),
    ("llama, 2 of 5 experts", {"all_share": True}),
    ("granite, untied, shared expert", {"all_share": True}),
]


def changed(a: Twin, b: Twin) -> float:
    size = len(a.file.metadata["tokenizer.ggml.tokens"])
    tokens = [int(t) for t in np.random.default_rng(7).integers(0, size, 48)]
    x, y = a.logits(tokens), b.logits(tokens)
    return float(np.abs(x - y).max() / np.abs(x).max())


@pytest.mark.parametrize(("name", "other"), OPTIONS, ids=str)
def test_options_matter(name: str, other: dict[str, Any], make: Make) -> None:
    assert changed(Twin(make(**SHAPES[name])), Twin(make(**SHAPES[name] | other))) > 0.01


@pytest.mark.parametrize(("name", "other"), OTHERS, ids=str)
def test_rules_matter(name: str, other: dict[str, Any], make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(**SHAPES[name])
    architecture = str(SHAPES[name].get("architecture", "llama"))
    twin = Twin(path)
    monkeypatch.setitem(RULES, architecture, dataclasses.replace(RULES[architecture], **other))
    assert changed(twin, Twin(path)) > 0.01


def test_the_clamps_of_gpt_oss_are_reached(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    gates, ups = [], []

    def watched(gate: Array, up: Array) -> Array:
        gates.append(gate.max())
        ups.append(np.abs(up).max())
        return clamped_gated(gate, up)

    monkeypatch.setitem(RULES, "gpt-oss", dataclasses.replace(RULES["gpt-oss"], gated=watched))
    Twin(make(**SHAPES["gpt-oss"])).logits([1, 2, 3])
    assert max(gates) > 7
    assert max(ups) > 7


def test_every_architecture_has_shapes() -> None:
    shapes = SHAPES | ENCODERS
    assert set(FAMILIES) == set(RULES) == {str(shape.get("architecture", "llama")) for shape in shapes.values()}
