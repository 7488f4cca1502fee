"""Tiny models whose logits are compared with others': by test_twin.py, and by peers/llama_cpp.py."""

from __future__ import annotations

from typing import Any

from families import FAMILIES

ODD: dict[str, Any] = {"width": 96, "heads": 3, "kv_heads": 1, "head_dim": 40, "ffn": 136}
"""Sizes that nothing divides; heads are wider than the model."""
ODD_FILLING: dict[str, Any] = {"width": 120, "heads": 3, "kv_heads": 1, "ffn": 136}
"""The same where heads must fill the width."""

SHAPES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama, 3 heads on 1": {"heads": 3, "kv_heads": 1, "head_dim": 32},
    "llama, 9 heads on 3, width 288, untied": {"heads": 9, "kv_heads": 3, "width": 288, "tied": False},
    "llama, heads of 80, wider than the model": {"heads": 4, "kv_heads": 4, "head_dim": 80},
    "llama, spm vocabulary, ffn 352": {"vocabulary": "spm", "ffn": 352},
    "llama, one layer, one head": {"layers": 1, "heads": 1, "kv_heads": 1, "head_dim": 64, "width": 96},
    "llama, biases of attention": {"biases": "attention"},
    "llama, all biases, untied": {"biases": "all", "tied": False},
    "llama, one matrix for q, k and v": {"fused_qkv": True, "biases": "qkv"},
    "llama, rope factors": {"rope_factors": True, "rope_base": 500000.0},
    "llama, linear scaling": {"rope_scaling": "linear"},
    "llama, yarn": {"rope_scaling": "yarn", "original_context": 32, "context": 128},
    "llama, 2 of 5 experts": {**ODD, "experts": 5, "experts_used": 2},
    "llama, 3 of 8 experts, untied, biases": {"experts": 8, "experts_used": 3, "tied": False, "biases": "attention"},
    "gemma3, 6 layers": {"architecture": "gemma3", "layers": 6},
    "gemma3, 7 layers, width 96": {"architecture": "gemma3", "layers": 7, "width": 96, "head_dim": 32, "ffn": 160},
    "gemma3, 3 heads on 3, window 5": {"architecture": "gemma3", "layers": 7, "heads": 3, "kv_heads": 3, "head_dim": 64,
                                       "window": 5, "rope_base": 1e6},
    "gemma3, window 32, untied": {"architecture": "gemma3", "layers": 6, "window": 32, "tied": False},
    "gemma3, linear scaling": {"architecture": "gemma3", "layers": 7, "rope_scaling": "linear", "rope_factor": 8.0},
    "gemma3, final soft cap": {"architecture": "gemma3", "layers": 6, "final_softcap": 5.0},
    "gemma3, one layer, bpe": {"architecture": "gemma3", "layers": 1, "vocabulary": "bpe", "heads": 1, "kv_heads": 1},
    "gemma3, no windows": {"architecture": "gemma3", "window": 0},
    "qwen2": {"architecture": "qwen2", **ODD_FILLING},
    "qwen2, untied, yarn": {"architecture": "qwen2", "tied": False, "rope_scaling": "yarn", "original_context": 32,
                            "rope_base": 1e6},
    "qwen3": {"architecture": "qwen3", **ODD},
    "qwen3, untied, 6 heads on 3": {"architecture": "qwen3", "tied": False, "heads": 6, "kv_heads": 3, "head_dim": 32},
    "phi2": {"architecture": "phi2", **ODD_FILLING},
    "phi2, half the rope, equal heads": {"architecture": "phi2", "kv_heads": 4, "rope_dimensions": 32},
    "phi2, three matrices for q, k and v": {"architecture": "phi2", "fused_qkv": False},
    "phi3": {"architecture": "phi3", **ODD_FILLING},
    "phi3, untied, a window that is ignored": {"architecture": "phi3", "tied": False, "window": 8},
    "phi3, long factors, partial rope": {"architecture": "phi3", "rope_factors": True, "original_context": 128,
                                         "rope_dimensions": 48, "attention_factor": 1.19, "vocabulary": "bpe"},
    "phi3, short factors": {"architecture": "phi3", "rope_factors": True, "original_context": 512,
                            "attention_factor": 1.19, "tied": False},
    "gemma": {"architecture": "gemma", **ODD},
    "gemma, one kv head": {"architecture": "gemma", "heads": 8, "kv_heads": 1, "head_dim": 64},
    "gemma2": {"architecture": "gemma2", **ODD, "layers": 3},
    "gemma2, window 5, linear scaling": {"architecture": "gemma2", "layers": 4, "window": 5, "rope_scaling": "linear"},
    "gemma2, a window in two of three layers": {"architecture": "gemma2", "layers": 3, "window_pattern": 3},
    "smollm3": {"architecture": "smollm3", **ODD, "layers": 5},
    "smollm3, untied, biases": {"architecture": "smollm3", "layers": 8, "tied": False, "biases": "qkv"},
    "granite": {"architecture": "granite", **ODD},
    "granite, untied, all biases, yarn": {"architecture": "granite", "tied": False, "biases": "all",
                                          "rope_scaling": "yarn", "original_context": 64},
    "granite, no rope": {"architecture": "granite", "rope": False},
    "granite, long factors": {"architecture": "granite", "rope_scaling": "longrope", "rope_factors": True,
                              "original_context": 128},
    "olmo2": {"architecture": "olmo2", **ODD_FILLING},
    "olmo2, window 7, yarn": {"architecture": "olmo2", "layers": 5, "window": 7, "rope_scaling": "yarn",
                              "original_context": 64, "attention_factor": 1.2},
    "stablelm": {"architecture": "stablelm", **ODD_FILLING, "rope_dimensions": 10},
    "stablelm, biases": {"architecture": "stablelm", "biases": "qkv", "rope_dimensions": 16},
    "stablelm, parallel, head norms": {"architecture": "stablelm", "parallel": True, "head_norms": True,
                                       "rope_dimensions": 16},
    "mistral3": {"architecture": "mistral3", **ODD},
    "mistral3, temperature, yarn": {"architecture": "mistral3", "tied": False, "rope_scaling": "yarn",
                                    "rope_base": 1e6, "original_context": 32, "temperature_scale": 0.3,
                                    "yarn_log_multiplier": 1.0},
    "mistral3, half a log multiplier": {"architecture": "mistral3", "rope_scaling": "yarn", "original_context": 64,
                                        "yarn_log_multiplier": 0.5},
    "mistral3, 2 of 5 experts, temperature": {"architecture": "mistral3", "rope_scaling": "yarn",
                                              "original_context": 32, "temperature_scale": 0.3, "experts": 5,
                                              "experts_used": 2},
    "granite, 2 of 5 experts": {"architecture": "granite", **ODD, "experts": 5, "experts_used": 2},
    "granite, untied, shared expert": {"architecture": "granite", "tied": False, "experts": 7, "experts_used": 3,
                                       "shared_ffn": 72},
    "qwen3moe": {"architecture": "qwen3moe", **ODD},
    "qwen3moe, untied, 3 of 9 experts": {"architecture": "qwen3moe", "tied": False, "experts": 9, "experts_used": 3},
    "olmoe": {"architecture": "olmoe", **ODD_FILLING | {"kv_heads": 3}},
    "olmoe, 4 of 8 experts": {"architecture": "olmoe", "kv_heads": 4, "experts": 8, "experts_used": 4},
    "granitemoe": {"architecture": "granitemoe", **ODD},
    "granitemoe, untied, shared expert": {"architecture": "granitemoe", "tied": False, "shared_ffn": 72,
                                          "experts": 7, "experts_used": 3},
    "gpt-oss": {"architecture": "gpt-oss", **ODD, "layers": 3},
    "gpt-oss, yarn, 4 of 6 experts": {"architecture": "gpt-oss", "layers": 4, "experts": 6, "experts_used": 4,
                                      "rope_scaling": "yarn", "rope_factor": 32.0, "original_context": 64},
    "lfm2": {"architecture": "lfm2", **ODD_FILLING, "layers": 3},
    "lfm2, untied, attention first": {"architecture": "lfm2", "tied": False, "mixers": "arra", "layers": 4},
    "lfm2, convolution of 2": {"architecture": "lfm2", "mixers": "ra", "taps": 2},
    "lfm2, convolution of 5": {"architecture": "lfm2", "mixers": "ra", "taps": 5, "heads": 5, "kv_heads": 5,
                               "width": 160},
    "lfm2, window 7": {"architecture": "lfm2", "mixers": "rara", "layers": 4, "window": 7},
    "qwen35": {"architecture": "qwen35", **ODD, "layers": 4},
    "qwen35, untied, a layer for further tokens": {"architecture": "qwen35", "layers": 5, "tied": False,
                                                   "extra_layers": 1},
    "qwen35, 6 heads on 3, state of 64": {"architecture": "qwen35", "layers": 4, "delta_heads": 6, "delta_keys": 3,
                                          "state": 64, "heads": 3, "kv_heads": 1, "head_dim": 96,
                                          "rope_dimensions": 24},
    "qwen35, equal heads, two layers of attention": {"architecture": "qwen35", "layers": 3, "mixers": "ara",
                                                     "delta_heads": 3, "delta_keys": 3, "taps": 3},
}  # fmt: skip

ENCODERS: dict[str, dict[str, Any]] = {
    "bert": {"architecture": "bert", "width": 120, "heads": 3, "kv_heads": 3, "ffn": 136},
    "bert, cls, one matrix for q, k and v": {"architecture": "bert", "kv_heads": 4, "pooling": "cls",
                                             "fused_qkv": True},
    "bert, last, no biases, no types": {"architecture": "bert", "kv_heads": 4, "pooling": "last", "biases": "none",
                                        "token_types": 0},
    "bert, fewer kv heads": {"architecture": "bert", "layers": 3},
    "nomic-bert": {"architecture": "nomic-bert", "width": 120, "heads": 3, "kv_heads": 3, "ffn": 136},
    "nomic-bert, cls, biases, q, k and v apart": {"architecture": "nomic-bert", "kv_heads": 4, "pooling": "cls",
                                                  "biases": "attention", "fused_qkv": False, "rope_base": 1000.0},
}  # fmt: skip
"""Models whose answers are rows, not logits."""

QUANTIZED: dict[str, dict[str, Any]] = {
    f"{architecture} {form}": {"architecture": architecture, "format": form}
    for architecture in FAMILIES
    for form in ("Q8_0", "Q4_K_M")
    if not FAMILIES[architecture].encoder
}
QUANTIZED["gpt-oss MXFP4"] = {"architecture": "gpt-oss", "format": "Q8_0", "expert_format": "MXFP4"}
"""Every architecture in formats that files have. (olmoe has as many kv heads as heads.)"""
for name in ("olmoe Q8_0", "olmoe Q4_K_M"):
    QUANTIZED[name]["kv_heads"] = 4
for name in ("lfm2 Q8_0", "lfm2 Q4_K_M", "qwen35 Q8_0", "qwen35 Q4_K_M"):
    QUANTIZED[name]["layers"] = 4  # less has no attention
QUANTIZED_ENCODERS: dict[str, dict[str, Any]] = {
    f"{architecture} {form}": {"architecture": architecture, "format": form, "kv_heads": 4}
    for architecture in ("bert", "nomic-bert")
    for form in ("Q8_0", "Q4_K_M")
}
