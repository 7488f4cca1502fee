"""What the files of each architecture hold: the data from which tests/tiny.py writes them.

An architecture is one `Family`; what is left out is as in `llama`. A way of writing that no family has yet becomes a
field here and a branch in `tiny.Layout` or `tiny.metadata`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Biases = Literal["none", "qkv", "attention", "all"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """Tensors and keys of one architecture."""

    vocabulary: Literal["spm", "bpe", "wordpiece"] = "bpe"
    pre: str = "llama-bpe"
    """Pre-tokenizer of the BPE vocabulary."""
    add_bos: bool = True
    gemma_tokens: bool = False
    """Whether the SentencePiece vocabulary has gemma's control tokens and puts no space before a text."""
    tied: Literal["either", "always", "never"] = "either"
    output_bias: bool = False
    heads_fill_width: bool = False
    """Whether the heads together must be as wide as the model."""
    encoder: bool = False
    """Whether every token sees all others and there is no output: the norm of the model then follows the embedding."""
    position_rows: bool = False
    """Whether positions are rows to be added, not turns."""
    final_norm: str = "output_norm"
    mixer: Literal["attention", "short convolution", "delta net"] = "attention"
    """What mixes tokens, in most layers."""
    query_gate: bool = False
    """Whether `attn_q` gives a gate after each query."""
    norm: Literal["rms", "layer"] = "rms"
    """Layer norms have biases."""
    norms: tuple[str, str, str, str] = ("attn_norm", "", "ffn_norm", "")
    """Names of the norms before and after attention, before and after the feed-forward part."""
    head_norm: Literal["none", "each", "all", "rows"] = "none"
    """Weights of the norm of queries and keys: of one head for each, of all heads together, or a row for every head."""
    fused_qkv: bool = False
    gate: Literal["apart", "fused", "none"] = "apart"
    """Where the gate is: a matrix, the first half of `ffn_up`, or nowhere."""
    biases: tuple[Biases, ...] = ("none",)
    """Possible ones; the first is the default."""
    factors: Literal["none", "one", "long"] = "none"
    """Whether there may be rope factors: `rope_freqs`, or long and short ones."""
    size_keys: tuple[Literal["head", "rope"], ...] = ()
    """Sizes that are written even where they are the default."""
    expert_gain: float = 1.0
    """How much larger the weights of experts are: enough to reach a clamp."""
    sinks: bool = False
    pattern_array: bool = False
    """Whether the pattern of windows is written layer by layer."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The options of `Tiny` that only some architectures have, with what `None` stands for."""


GEMMA: dict[str, Any] = {"vocabulary": "spm", "gemma_tokens": True, "size_keys": ("head",)}
SANDWICH = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
SCALES = {"embedding_scale": 3.0, "residual_scale": 0.6, "attention_scale": 0.2, "logit_scale": 3.0}
DELTA = {"mixers": None, "taps": 4, "delta_heads": 4, "delta_keys": 2, "state": 32, "extra_layers": None,
         "rope_dimensions": 16}  # fmt: skip
ENCODER: dict[str, Any] = {"vocabulary": "wordpiece", "tied": "always", "heads_fill_width": True, "encoder": True,
                           "norm": "layer", "norms": ("", "attn_output_norm", "", "layer_output_norm"),
                           "options": {"pooling": "mean", "token_types": 2}}  # fmt: skip
EXPERTS = {"experts": 5, "experts_used": 2, "expert_format": None}
NO_EXPERTS = dict.fromkeys(EXPERTS)
"""The options of families that may have experts."""

FAMILIES: dict[str, Family] = {
    "llama": Family(biases=("none", "qkv", "attention", "all"), factors="one", size_keys=("rope",), options=NO_EXPERTS),
    "qwen2": Family(pre="qwen2", add_bos=False, heads_fill_width=True, biases=("qkv", "none")),
    "qwen3": Family(pre="qwen2", add_bos=False, head_norm="each", size_keys=("head",)),
    "phi2": Family(pre="phi-2", add_bos=False, tied="never", output_bias=True, heads_fill_width=True, norm="layer",
                   norms=("attn_norm", "", "", ""), fused_qkv=True, gate="none", biases=("all",), size_keys=("rope",),
                   options={"rope_dimensions": None}),
    "phi3": Family(vocabulary="spm", pre="gpt-4o", heads_fill_width=True, fused_qkv=True, gate="fused", factors="long",
                   size_keys=("rope",), options={"rope_dimensions": None, "window": None}),
    "gemma": Family(**GEMMA, tied="always"),
    "gemma2": Family(**GEMMA, tied="always", norms=SANDWICH,
                     options={"window": 16, "window_pattern": None, "score_softcap": 2.0, "final_softcap": 5.0}),
    "gemma3": Family(**GEMMA, norms=SANDWICH, head_norm="each",
                     options={"window": 16, "window_pattern": None, "final_softcap": None}),
    "smollm3": Family(biases=("none", "qkv"), size_keys=("rope",)),
    "granite": Family(pre="refact", biases=("none", "qkv", "attention", "all"), factors="one", size_keys=("rope",),
                      options={**SCALES, **NO_EXPERTS, "shared_ffn": None, "rope": None}),
    "olmo2": Family(pre="dbrx", add_bos=False, tied="never", heads_fill_width=True, head_norm="all",
                    norms=("", "post_attention_norm", "", "post_ffw_norm"), pattern_array=True,
                    options={"window": None, "window_pattern": 4}),
    "stablelm": Family(pre="stablelm2", add_bos=False, tied="never", heads_fill_width=True, norm="layer",
                       head_norm="rows", biases=("none", "qkv"), size_keys=("rope",),
                       options={"rope_dimensions": None, "parallel": False, "head_norms": False}),
    "mistral3": Family(pre="tekken", biases=("none", "qkv", "attention", "all"), factors="one",
                       size_keys=("head", "rope"),
                       options={**NO_EXPERTS, "temperature_scale": None, "yarn_log_multiplier": None}),
    "qwen3moe": Family(pre="qwen2", add_bos=False, head_norm="each", size_keys=("head",),
                       options={**EXPERTS, "expert_ffn": 96}),
    "olmoe": Family(pre="olmo", add_bos=False, tied="never", heads_fill_width=True, head_norm="all", options=EXPERTS),
    "granitemoe": Family(pre="refact", biases=("none", "qkv", "attention"), factors="one", size_keys=("rope",),
                         options={**SCALES, **EXPERTS, "shared_ffn": None}),
    "gpt-oss": Family(pre="gpt-4o", add_bos=False, tied="never", norms=("attn_norm", "", "post_attention_norm", ""),
                      biases=("all",), size_keys=("head",), sinks=True, expert_gain=4.0,
                      options={**EXPERTS, "expert_ffn": 96, "window": 16, "window_pattern": None}),
    "lfm2": Family(pre="lfm2", heads_fill_width=True, head_norm="each", mixer="short convolution",
                   final_norm="token_embd_norm", options={"mixers": None, "taps": 3, "window": None}),
    "qwen35": Family(pre="qwen35", add_bos=False, norms=("attn_norm", "", "post_attention_norm", ""), head_norm="each",
                     mixer="delta net", query_gate=True, size_keys=("head", "rope"), options=DELTA),
    "bert": Family(**ENCODER, position_rows=True, gate="none", biases=("all", "none")),
    "nomic-bert": Family(**ENCODER, fused_qkv=True, biases=("none", "attention")),
}  # fmt: skip
