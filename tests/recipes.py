"""Models of which only names and sizes matter: what type does each preset give their tensors?

The files are complete but hold zeros that take no space. `reference/quantize.json` has what llama.cpp says of them
(`peers/quantize.py` makes it).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import tiny
from families import FAMILIES
from tiny import F32, STRING, Pair, Tensor

REFERENCE = Path(__file__).parent / "reference" / "quantize.json"

PRESETS: dict[str, int] = {
    "Q1_0": 40, "IQ1_S": 24, "TQ1_0": 36, "IQ1_M": 31, "IQ2_XXS": 19, "TQ2_0": 37, "Q2_0": 41, "IQ2_XS": 20,
    "IQ2_S": 28, "IQ2_M": 29, "Q2_K_S": 21, "Q2_K": 10, "IQ3_XXS": 23, "IQ3_XS": 22, "IQ3_S": 26, "IQ3_M": 27,
    "Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13, "IQ4_XS": 30, "IQ4_NL": 25, "Q4_0": 2, "MXFP4_MOE": 38, "Q4_K_S": 14,
    "Q4_K_M": 15, "Q4_1": 3, "Q5_0": 8, "Q5_K_S": 16, "Q5_K_M": 17, "Q5_1": 9, "Q6_K": 18, "Q8_0": 7, "F16": 1,
    "BF16": 32, "F32": 0,
}  # fmt: skip
"""Name and number (`llama_ftype`) of every preset of llama-quantize."""

PLAIN: dict[str, Any] = {"layers": 17, "width": 256, "heads": 4, "kv_heads": 2, "ffn": 512, "format": "F16"}
"""Rows that the blocks of every type divide."""
OWN: dict[str, dict[str, Any]] = {
    "qwen35": {"head_dim": 64, "rope_dimensions": 16},
    "gemma3": {"layers": 18},
    "olmoe": {"kv_heads": 4},
}

MODELS: dict[str, dict[str, Any]] = {
    **{name: {"architecture": name, **OWN.get(name, {})} for name in FAMILIES},
    "llama, untied, heads of 4": {"tied": False, "heads": 8, "kv_heads": 2, "layers": 32},
    "llama, fused": {"fused_qkv": True},
    "llama, odd rows": {"width": 288, "ffn": 352, "tied": False},
    "llama, odder rows": {"width": 120, "heads": 3, "kv_heads": 1, "ffn": 136},
    "llama, 70 billion": {"tied": False, "heads": 8, "kv_heads": 1, "layers": 80},
    "llama, 65 billion": {"tied": False, "kv_heads": 4, "layers": 80},
    "qwen2, 80 layers": {"architecture": "qwen2", "layers": 80, "heads": 8, "kv_heads": 1},
    "gemma3, untied": {"architecture": "gemma3", "tied": False, "layers": 26},
    "qwen3moe, 8 experts, odd": {"architecture": "qwen3moe", "experts": 8, "experts_used": 2, "expert_ffn": 96},
    "granitemoe, shared": {"architecture": "granitemoe", "experts": 8, "experts_used": 4, "shared_ffn": 256},
}
"""Options of `tiny.Tiny` that differ from PLAIN."""

LLAMA = {"embedding_length": 256, "feed_forward_length": 512, "context_length": 64,
         "attention.layer_norm_rms_epsilon": 1e-5}  # fmt: skip
EXPERTS = [("attn_q", [256, 256]), ("attn_k", [256, 128]), ("attn_v", [256, 128]), ("attn_output", [256, 256]),
           ("ffn_gate_inp", [256, 8]), ("ffn_gate_exps", [256, 512, 8]), ("ffn_up_exps", [256, 512, 8]),
           ("ffn_down_exps", [512, 256, 8])]  # fmt: skip

OTHERS: dict[str, tuple[dict[str, Any], list[tuple[str, list[int]]]]] = {
    # Mixtures as fastq runs them, and architectures that it does not run: for the rules that are their own.
    "llama, 8 experts": (
        {**LLAMA, "block_count": 32, "attention.head_count": 4, "attention.head_count_kv": 2, "expert_count": 8,
         "expert_used_count": 2},
        EXPERTS,
    ),
    "llama, 4 experts, 80 layers": (
        {**LLAMA, "block_count": 80, "attention.head_count": 4, "attention.head_count_kv": 1, "expert_count": 4,
         "expert_used_count": 2},
        EXPERTS,
    ),
    "falcon": (
        {"block_count": 32, "embedding_length": 256, "feed_forward_length": 1024, "context_length": 64,
         "attention.head_count": 4, "attention.head_count_kv": 1, "attention.layer_norm_epsilon": 1e-5},
        [("attn_qkv", [256, 384]), ("attn_output", [256, 256]), ("ffn_up", [256, 1024]), ("ffn_down", [1024, 256])],
    ),
    "deepseek2": (
        {"block_count": 9, "embedding_length": 256, "feed_forward_length": 512, "context_length": 64, "vocab_size": 520,
         "attention.head_count": 4, "attention.head_count_kv": 4, "attention.layer_norm_rms_epsilon": 1e-5,
         "leading_dense_block_count": 0, "attention.kv_lora_rank": 256, "attention.q_lora_rank": 256,
         "attention.key_length": 96, "attention.value_length": 64, "expert_count": 8, "expert_used_count": 2,
         "expert_feed_forward_length": 256, "expert_shared_count": 1, "expert_weights_scale": 1.0,
         "rope.dimension_count": 32},
        [("attn_q_a", [256, 256]), ("attn_q_b", [256, 384]), ("attn_kv_a_mqa", [256, 288]), ("attn_kv_b", [256, 512]),
         ("attn_output", [256, 256]), ("ffn_gate_inp", [256, 8]), ("ffn_gate_exps", [256, 256, 8]),
         ("ffn_up_exps", [256, 256, 8]), ("ffn_down_exps", [256, 256, 8]), ("ffn_gate_shexp", [256, 256]),
         ("ffn_up_shexp", [256, 256]), ("ffn_down_shexp", [256, 256])],
    ),
    "mamba": (
        {"block_count": 4, "embedding_length": 256, "context_length": 64, "ssm.conv_kernel": 4, "ssm.inner_size": 512,
         "ssm.state_size": 16, "ssm.time_step_rank": 16, "attention.layer_norm_rms_epsilon": 1e-5,
         "feed_forward_length": 0, "attention.head_count": 0},
        [("ssm_in", [256, 1024]), ("ssm_conv1d", [4, 512]), ("ssm_x", [512, 48]), ("ssm_dt", [16, 512]),
         ("ssm_a", [16, 512]), ("ssm_out", [512, 256])],
    ),
    "rwkv7": (
        {"block_count": 3, "embedding_length": 256, "context_length": 64, "feed_forward_length": 1024,
         "attention.head_count": 0, "attention.layer_norm_epsilon": 1e-5, "wkv.head_size": 64,
         "attention.decay_lora_rank": 64, "attention.iclr_lora_rank": 64,
         "attention.value_residual_mix_lora_rank": 32, "attention.gate_lora_rank": 128},
        [("time_mix_w1", [256, 64]), ("time_mix_w2", [64, 256]), ("time_mix_receptance", [256, 256]),
         ("time_mix_key", [256, 256]), ("time_mix_value", [256, 256]), ("time_mix_output", [256, 256]),
         ("channel_mix_key", [256, 1024]), ("channel_mix_value", [1024, 256]), ("one_row", [256, 1])],
    ),
}  # fmt: skip

NAMES = [*MODELS, *OTHERS]


def other(name: str) -> tuple[list[Pair], list[Tensor]]:
    """Metadata and tensors of one of OTHERS."""
    values, layer = OTHERS[name]
    architecture = name.split(",")[0]
    form, plain = tiny.FORMATS["F16"], tiny.FORMATS["F32"]
    pairs = [Pair("general.architecture", STRING, architecture)]
    for key, value in values.items():
        full = f"{architecture}.{key}"
        pairs.append(Pair(full, F32, value) if isinstance(value, float) else tiny.pair(full, value))
    tensors = [Tensor("token_embd.weight", 520, 256, form, "matrix"), Tensor("output.weight", 520, 256, form, "matrix"),
               Tensor("output_norm.weight", None, 256, plain, "norm")]  # fmt: skip
    for i in range(values["block_count"]):
        for part, (k, rows, *experts) in layer:
            tensors.append(Tensor(f"blk.{i}.{part}.weight", rows, k, form, "matrix", experts=(*experts, None)[0]))
        tensors.append(Tensor(f"blk.{i}.attn_norm.weight", None, 256, plain, "norm"))
    return pairs, tensors


def write(path: Path, name: str) -> Path:
    """Writes one of NAMES, with weights of zero."""
    if name in OTHERS:
        pairs, tensors = other(name)
    else:
        pairs, numbered = tiny.contents(tiny.Tiny(**{**PLAIN, **MODELS[name]}))
        tensors = [tensor for _, tensor in numbered]
    with open(path, "wb") as file:
        tiny.write_head(file, pairs, tensors)
        file.truncate(file.tell() + sum(t.bytes() + len(tiny.padding(t.bytes())) for t in tensors))
    return path


def write_imatrix(path: Path) -> Path:
    """Writes an importance matrix for a tensor that no model has: that there is one decides over some types."""
    form = tiny.FORMATS["F32"]
    tensors = [Tensor("none.in_sum2", None, 32, form, "norm"), Tensor("none.counts", None, 1, form, "norm")]
    pairs = [Pair("general.type", STRING, "imatrix"), Pair("imatrix.datasets", tiny.ARRAY, ["none"], STRING),
             tiny.pair("imatrix.chunk_count", 1), tiny.pair("imatrix.chunk_size", 512)]  # fmt: skip
    with open(path, "wb") as file:
        tiny.write_head(file, pairs, tensors)
        for tensor in tensors:
            data = np.ones(tensor.k, "<f4").tobytes()
            file.write(data + tiny.padding(len(data)))
    return path


def digest(types: Mapping[str, str]) -> str:
    """A short hash of the types by tensor."""
    text = "\n".join(f"{name} {types[name].upper()}" for name in sorted(types))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def reference() -> dict[str, dict[str, list[str]]]:
    """By model and preset: the digest without and with an importance matrix."""
    answers: dict[str, dict[str, list[str]]] = json.loads(REFERENCE.read_text())
    return answers
