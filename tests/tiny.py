"""Writes small GGUF models with random weights: any shape of the architectures in families.py, in every block format.

    python tests/tiny.py OUT.gguf --architecture gemma3 --format Q4_K --layers 7 --window 8
    python tests/tiny.py OUT.gguf --architecture qwen3moe --experts 9 --experts-used 3 --no-tied
    python tests/tiny.py OUT.gguf --shape llama-3.2-1b --format Q4_K_M       # 16 layers of width 2048, in seconds

Needs numpy and the standard library only. The same options and seed give the same bytes.

Weights of quantized formats are random block bytes with a sensible scale, not quantized numbers: every bit of a block
is exercised, and writing costs no quantization.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import math
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

import mixers
from families import FAMILIES, Biases, Family
from reference.encoder import POOLINGS
from vocabularies import Vocabulary, bpe_vocabulary, spm_vocabulary, wordpiece_vocabulary

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

# GGUF value types
U8, U16, U32, I32, F32, BOOL, STRING, ARRAY = 0, 2, 4, 5, 6, 7, 8, 9
ALIGNMENT = 32

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


# -------------------------------------------------------------------------------------------------------------- formats
@dataclass(frozen=True)
class Format:
    """A tensor type: its id in the file, weights per block, bytes per block, and where random bytes need a scale."""

    name: str
    type_id: int
    block: int
    size: int
    rms: float = 1.0
    """Root mean square of a weight in a random block whose `d` is 1."""
    d: int | None = None
    """Byte offset of the scale."""
    scale: Literal["f16", "e8m0", "ue4m3"] = "f16"
    """How the scale is stored; UE4M3 stands for four. The types with the last two double weights and halve scales."""
    minimum: tuple[int, float] | None = None
    """Byte offset of the f16 minimum, and the minimum that centres the weights when `d` is 1."""
    signed: bool = False
    """Whether a negative `d` is as good as a positive one."""
    spread: bool = False
    """Whether the nibbles of the scale are the upper halves of every other byte from `d` on, lowest first."""


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("F32", 0, 1, 4),
        Format("F16", 1, 1, 2),
        Format("BF16", 30, 1, 2),
        Format("Q4_0", 2, 32, 18, rms=4.64, d=0, signed=True),
        Format("Q4_1", 3, 32, 20, rms=4.61, d=0, minimum=(2, -7.5)),
        Format("Q5_0", 6, 32, 22, rms=9.25, d=0, signed=True),
        Format("Q5_1", 7, 32, 24, rms=9.23, d=0, minimum=(2, -15.5)),
        Format("Q8_0", 8, 32, 34, rms=73.9, d=0, signed=True),
        Format("Q2_K", 10, 256, 84, rms=13.9, d=80, minimum=(82, 1.5)),
        Format("Q3_K", 11, 256, 110, rms=43.3, d=108, signed=True),
        Format("Q4_K", 12, 256, 144, rms=258.3, d=0, minimum=(2, 7.5)),
        Format("Q5_K", 13, 256, 176, rms=526.9, d=0, minimum=(2, 15.5)),
        Format("Q6_K", 14, 256, 210, rms=1365.7, d=208, signed=True),
        Format("IQ1_S", 19, 256, 50, rms=7.2, d=0, signed=True),
        Format("IQ1_M", 29, 256, 56, rms=7.2, d=49, signed=True, spread=True),
        Format("IQ2_XXS", 16, 256, 66, rms=53.1, d=0, signed=True),
        Format("IQ2_XS", 17, 256, 74, rms=55.7, d=0, signed=True),
        Format("IQ2_S", 22, 256, 82, rms=56.5, d=0, signed=True),
        Format("IQ3_XXS", 18, 256, 98, rms=142.1, d=0, signed=True),
        Format("IQ3_S", 21, 256, 110, rms=140.4, d=0, signed=True),
        Format("IQ4_NL", 20, 32, 18, rms=67.5, d=0, signed=True),
        Format("IQ4_XS", 23, 256, 136, rms=1246.1, d=0, signed=True),
        Format("TQ1_0", 34, 256, 54, rms=0.82, d=52, signed=True),
        Format("TQ2_0", 35, 256, 66, rms=1.22, d=64, signed=True),
        Format("MXFP4", 39, 32, 17, rms=5.85, d=0, scale="e8m0"),
        Format("NVFP4", 40, 64, 36, rms=5.85, d=0, scale="ue4m3"),
        Format("Q1_0", 41, 128, 18, rms=1.0, d=0, signed=True),
        Format("Q2_0", 42, 64, 18, rms=1.22, d=0, signed=True),
    )
}
# What llama-quantize takes when a row is no multiple of 256.
FALLBACK = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL",
            "TQ1_0": "Q4_0", "TQ2_0": "Q4_0"}  # fmt: skip
FALLBACK |= dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"), "Q4_0")
FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K": 12,
              "Q4_K": 15, "Q4_K_M": 15, "Q5_K": 17, "Q6_K": 18, "IQ4_NL": 25, "IQ4_XS": 30, "BF16": 32, "TQ1_0": 36,
              "TQ2_0": 37, "MXFP4": 38, "NVFP4": 39, "Q1_0": 40, "Q2_0": 41, "IQ2_XXS": 19, "IQ2_XS": 20,
              "IQ3_XXS": 23, "IQ1_S": 24, "IQ3_S": 26, "IQ2_S": 28, "IQ1_M": 31}  # fmt: skip


def fitting(name: str, k: int) -> Format:
    """The format, or what takes its place for rows of `k` weights that its blocks do not divide."""
    chosen = FORMATS[name]
    if k % chosen.block and name in FALLBACK:
        chosen = FORMATS[FALLBACK[name]]
    return chosen if k % chosen.block == 0 else FORMATS["F16"]


def random_blocks(rng: np.random.Generator, form: Format, count: int, rms: float) -> Bytes:
    """Random blocks `(count, form.size)` whose weights have about this root mean square."""
    if form.d is None:
        return encode_floats(form, rng.standard_normal(count, dtype=np.float32) * np.float32(rms)).reshape(
            count, form.size
        )
    blocks = rng.integers(0, 256, size=(count, form.size), dtype=np.uint8)
    d = np.exp(rng.uniform(-0.5, 0.5, count)) * (rms / form.rms)
    if form.scale == "e8m0":
        blocks[:, form.d] = np.clip(np.round(np.log2(d)) + 128, 0, 252).astype(np.uint8)
        return blocks
    if form.scale == "ue4m3":
        # Half of every UE4M3 from 1 to 0x7e, which ascend.
        fraction, exponent = np.arange(1, 127) % 8, np.arange(1, 127) // 8
        values = np.where(exponent == 0, fraction / 1024, np.ldexp(1 + fraction / 8, exponent - 8))
        scales = d[:, None] * np.exp(rng.uniform(-0.3, 0.3, (count, 4)))
        blocks[:, form.d : form.d + 4] = np.clip(np.searchsorted(values, scales), 1, 126)
        return blocks
    if form.signed:
        d *= rng.choice((-1.0, 1.0), count)
    set_scale(form, blocks, d.astype("<f2"))
    if form.minimum is not None:
        at, centre = form.minimum
        blocks[:, at : at + 2] = (d * centre).astype("<f2")[:, None].view(np.uint8)
    return blocks


def set_scale(form: Format, blocks: Bytes, d: npt.NDArray[Any]) -> None:
    """Gives each block its `d`; values of two bytes."""
    assert form.d is not None
    if form.spread:
        bits = d.view("<u2")
        for i in range(4):
            at = blocks[:, form.d + 2 * i]
            at[:] = at & 15 | (bits >> 4 * i & 15).astype(np.uint8) << 4
    else:
        blocks[:, form.d : form.d + 2] = d[:, None].view(np.uint8)


def encode_floats(form: Format, x: Floats) -> Bytes:
    """Bytes of `x` in F32, F16 or BF16 (rounded to nearest even)."""
    if form.name == "F32":
        return x.astype("<f4").view(np.uint8)
    if form.name == "F16":
        return x.astype("<f2").view(np.uint8)
    bits = x.astype("<f4").view("<u4").astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").view(np.uint8)


# -------------------------------------------------------------------------------------------------------------- options
@dataclass(frozen=True, kw_only=True)
class Tiny:
    """What to write. `None` leaves a value to the architecture or to the other options."""

    architecture: str = "llama"
    """A name of FAMILIES."""
    format: str = "F32"
    """A name of FORMATS, `Q4_K_M` (llama-quantize's mix) or `mixed` (every format in turn, tensor by tensor)."""
    embedding_format: str | None = None
    layers: int = 2
    width: int = 256
    heads: int = 4
    kv_heads: int = 2
    head_dim: int | None = None
    """Default: `width / heads`."""
    ffn: int = 512
    vocabulary: Literal["spm", "bpe", "wordpiece"] | None = None
    vocab_size: int | None = None
    """Padded with made-up tokens to this size."""
    tied: bool | None = None
    """Default: tied, if the architecture may be."""
    biases: Biases | None = None
    fused_qkv: bool | None = None
    rope_base: float = 10000.0
    rope_dimensions: int | None = None
    """Values of each head that are turned. Default: all."""
    rope_factors: bool = False
    """One set of factors, or a long and a short one."""
    rope_scaling: Literal["none", "linear", "yarn", "longrope"] = "none"
    rope_factor: float = 4.0
    original_context: int | None = None
    attention_factor: float | None = None
    """What sines and cosines are multiplied by."""
    yarn_log_multiplier: float | None = None
    rope: bool | None = None
    """False: granite without positions."""
    context: int = 512
    window: int | None = None
    """Sliding window of the local layers."""
    window_pattern: int | None = None
    """Every so many layers, the last one sees all."""
    score_softcap: float | None = None
    final_softcap: float | None = None
    embedding_scale: float | None = None
    residual_scale: float | None = None
    attention_scale: float | None = None
    logit_scale: float | None = None
    temperature_scale: float | None = None
    parallel: bool | None = None
    """stablelm: attention and feed-forward part read the same norm."""
    head_norms: bool | None = None
    """stablelm: norms of queries and keys."""
    experts: int | None = None
    experts_used: int | None = None
    expert_ffn: int | None = None
    shared_ffn: int | None = None
    """Size of the expert that every token meets."""
    expert_format: str | None = None
    """Format of the matrices of experts, where it is another."""
    mixers: str | None = None
    """A letter per layer: `r` for a state, `a` for attention."""
    taps: int | None = None
    """Tokens that a convolution sees."""
    delta_heads: int | None = None
    delta_keys: int | None = None
    """Heads of queries and keys, on which the `delta_heads` are spread."""
    state: int | None = None
    """Size of the heads of the delta net."""
    extra_layers: int | None = None
    """Layers after the others that predict further tokens; they are not run."""
    pooling: Literal["none", "mean", "cls", "last"] | None = None
    token_types: int | None = None
    """0: without their embedding."""
    epsilon: float = 1e-5
    chat_template: str | None = CHAT_TEMPLATE
    seed: int = 0

    def family(self) -> Family:
        if self.architecture not in FAMILIES:
            raise ValueError(f"unknown architecture {self.architecture!r}")
        return FAMILIES[self.architecture]

    def resolved(self) -> Tiny:
        """With the architecture's own value for every option that is `None`, after a check."""
        family = self.family()
        own = {"tied": family.tied != "never", "biases": family.biases[0], "fused_qkv": family.fused_qkv,
               "vocabulary": family.vocabulary, **family.options}  # fmt: skip
        shape = dataclasses.replace(self, **{k: v for k, v in own.items() if getattr(self, k) is None})
        shape.check()
        return shape

    def size_of_head(self) -> int:
        if self.head_dim is not None:
            return self.head_dim
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by {self.heads} heads: head_dim is needed")
        return self.width // self.heads

    def number(self, option: str) -> int:
        """An option that the architecture has."""
        value: int = getattr(self, option)
        return value

    def check(self) -> None:
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads are not divisible by {self.kv_heads} kv heads")
        if self.size_of_head() % 2:
            raise ValueError(f"rope needs an even head size, not {self.size_of_head()}")
        if self.format not in (*FORMATS, "Q4_K_M", "mixed"):
            raise ValueError(f"unknown format {self.format!r}")
        family, name = self.family(), self.architecture
        for option in SPECIAL - family.options.keys():
            if getattr(self, option) is not None:
                raise ValueError(f"{name} has no {option}")
        if self.biases not in family.biases:
            raise ValueError(f"biases of {name} are {' or '.join(family.biases)}")
        if self.tied != (family.tied == "always") and family.tied != "either":
            raise ValueError(f"the embedding of {name} is {family.tied} the output")
        if self.rope_factors and family.factors == "none":
            raise ValueError(f"{name} has no rope factors")
        if family.heads_fill_width and self.heads * self.size_of_head() != self.width:
            raise ValueError(f"the heads of {name} are as wide as the model")


SPECIAL = frozenset(option for family in FAMILIES.values() for option in family.options)
"""Options that only some architectures have."""


def llama_1b(**changes: Any) -> Tiny:
    """The shape of Llama-3.2-1B; the tied embedding is Q6_K in the 4-bit types, as llama-quantize makes it."""
    shape = Tiny(layers=16, width=2048, heads=32, kv_heads=8, head_dim=64, ffn=8192, vocab_size=128256,
                 rope_base=500000.0, rope_factors=True, context=131072, format="Q4_K_M")  # fmt: skip
    shape = dataclasses.replace(shape, **changes)
    if shape.embedding_format is None and shape.format not in ("Q8_0", "F32", "F16", "BF16"):
        shape = dataclasses.replace(shape, embedding_format="Q6_K")
    return shape


SHAPES: dict[str, Callable[..., Tiny]] = {"tiny": Tiny, "llama-3.2-1b": llama_1b}


# ------------------------------------------------------------------------------------------------------------- metadata
@dataclass(frozen=True)
class Pair:
    key: str
    kind: int
    value: Any
    item: int | None = None
    """Type of the items when `kind` is ARRAY."""


def pair(key: str, value: bool | int | list[bool] | list[int]) -> Pair:
    """A pair of the usual type."""
    if isinstance(value, list):
        return Pair(key, ARRAY, value, BOOL if isinstance(value[0], bool) else I32)
    return Pair(key, BOOL if isinstance(value, bool) else U32, value)


def vocabulary_of(shape: Tiny) -> Vocabulary:
    if shape.vocabulary == "bpe":
        return bpe_vocabulary(shape.vocab_size)
    if shape.vocabulary == "wordpiece":
        return wordpiece_vocabulary(shape.vocab_size)
    return spm_vocabulary(shape.vocab_size, shape.family().gemma_tokens)


KEYS = (
    ("window", "attention.sliding_window", U32),
    ("final_softcap", "final_logit_softcapping", F32),
    ("score_softcap", "attn_logit_softcapping", F32),
    ("embedding_scale", "embedding_scale", F32),
    ("residual_scale", "residual_scale", F32),
    ("attention_scale", "attention.scale", F32),
    ("logit_scale", "logit_scale", F32),
    ("temperature_scale", "attention.temperature_scale", F32),
    ("attention_factor", "rope.scaling.attn_factor", F32),
    ("yarn_log_multiplier", "rope.scaling.yarn_log_multiplier", F32),
    ("rope", "rope.scaling.finetuned", BOOL),
    ("experts", "expert_count", U32),
    ("experts_used", "expert_used_count", U32),
    ("expert_ffn", "expert_feed_forward_length", U32),
    ("shared_ffn", "expert_shared_feed_forward_length", U32),
    ("delta_heads", "ssm.time_step_rank", U32),
    ("delta_keys", "ssm.group_count", U32),
    ("state", "ssm.state_size", U32),
    ("extra_layers", "nextn_predict_layers", U32),
)
"""Options that are written as they are: name, key and type."""


def metadata(shape: Tiny, vocab: Vocabulary) -> list[Pair]:
    a, family = shape.architecture, shape.family()
    head = shape.size_of_head()
    # A name with `phi3` in it tells llama.cpp of tokens that only the real vocabulary has.
    name = "tiny random" if a == "phi3" else f"tiny random {a}"
    epsilon = "layer_norm_epsilon" if family.norm == "layer" else "layer_norm_rms_epsilon"
    pairs = [
        Pair("general.architecture", STRING, a),
        Pair("general.name", STRING, name),
        Pair("general.file_type", U32, FILE_TYPES.get(shape.format, 0)),
        Pair("general.quantization_version", U32, 2),
        Pair(f"{a}.context_length", U32, shape.context),
        Pair(f"{a}.embedding_length", U32, shape.width),
        Pair(f"{a}.block_count", U32, shape.layers + (shape.extra_layers or 0)),
        Pair(f"{a}.feed_forward_length", U32, shape.ffn),
        Pair(f"{a}.attention.head_count", U32, shape.heads),
        *(pair(f"{a}.{key}", value) for key, value in mixers.keys(shape).items()),
        Pair(f"{a}.attention.{epsilon}", F32, shape.epsilon),
        Pair(f"{a}.rope.freq_base", F32, shape.rope_base),
        Pair(f"{a}.vocab_size", U32, len(vocab.tokens)),
    ]
    if "head" in family.size_keys or head * shape.heads != shape.width:
        pairs += [Pair(f"{a}.attention.key_length", U32, head), Pair(f"{a}.attention.value_length", U32, head)]
    if "rope" in family.size_keys or shape.rope_dimensions is not None:
        pairs += [Pair(f"{a}.rope.dimension_count", U32, shape.rope_dimensions or head)]
    for option, key, kind in KEYS:
        if getattr(shape, option) is not None:
            pairs += [Pair(f"{a}.{key}", kind, getattr(shape, option))]
    if shape.window_pattern is not None and family.pattern_array:
        local = [(layer + 1) % shape.window_pattern != 0 for layer in range(shape.layers)]
        pairs += [Pair(f"{a}.attention.sliding_window_pattern", ARRAY, local, BOOL)]
    elif shape.window_pattern is not None:
        pairs += [Pair(f"{a}.attention.sliding_window_pattern", U32, shape.window_pattern)]
    if family.encoder:
        assert shape.pooling is not None
        pairs += [
            Pair(f"{a}.attention.causal", BOOL, False),
            Pair(f"{a}.pooling_type", U32, POOLINGS.index(shape.pooling)),
            Pair("tokenizer.ggml.token_type_count", U32, shape.token_types or 1),
        ]
    if shape.rope_scaling != "none":
        pairs += [Pair(f"{a}.rope.scaling.type", STRING, shape.rope_scaling)]
    original = shape.original_context
    if shape.rope_scaling in ("linear", "yarn"):
        pairs += [Pair(f"{a}.rope.scaling.factor", F32, shape.rope_factor)]
        original = original or max(1, int(shape.context / shape.rope_factor))
    if original is not None:
        pairs += [Pair(f"{a}.rope.scaling.original_context_length", U32, original)]
    pairs += [
        Pair("tokenizer.ggml.model", STRING, vocab.model),
        Pair("tokenizer.ggml.pre", STRING, family.pre if vocab.model == "gpt2" else "default"),
        Pair("tokenizer.ggml.tokens", ARRAY, vocab.tokens, STRING),
        Pair("tokenizer.ggml.token_type", ARRAY, vocab.types, I32),
    ]
    if vocab.scores is not None:
        pairs += [Pair("tokenizer.ggml.scores", ARRAY, vocab.scores, F32)]
    if vocab.merges is not None:
        pairs += [Pair("tokenizer.ggml.merges", ARRAY, vocab.merges, STRING)]
    pairs += [
        Pair("tokenizer.ggml.bos_token_id", U32, vocab.bos),
        Pair("tokenizer.ggml.eos_token_id", U32, vocab.eos),
        Pair("tokenizer.ggml.add_bos_token", BOOL, family.add_bos),
        Pair("tokenizer.ggml.add_space_prefix", BOOL, vocab.model == "llama" and not family.gemma_tokens),
        *(Pair(f"tokenizer.ggml.{key}", U32, token) for key, token in vocab.others.items()),
    ]
    if vocab.unknown is not None:
        pairs += [Pair("tokenizer.ggml.unknown_token_id", U32, vocab.unknown)]
    if shape.chat_template is not None and not family.encoder:
        pairs += [Pair("tokenizer.chat_template", STRING, shape.chat_template)]
    return pairs


# -------------------------------------------------------------------------------------------------------------- tensors
@dataclass(frozen=True)
class Tensor:
    name: str
    rows: int | None
    """None: one dimension."""
    k: int
    form: Format
    kind: Literal["matrix", "norm", "bias", "factors", "decay"]
    rms: float = 1.0
    experts: int | None = None
    """As many matrices, one after the other."""

    def dimensions(self) -> list[int]:
        """As GGUF has them: the contiguous one first."""
        return [n for n in (self.k, self.rows, self.experts) if n is not None]

    def blocks(self) -> int:
        return math.prod(self.dimensions()) // self.form.block

    def bytes(self) -> int:
        return self.blocks() * self.form.size


def more_bits(layer: int, layers: int) -> bool:
    """Whether Q4_K_M gives attn_v and ffn_down of this layer Q6_K."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


class Layout:
    """The tensors of a model in file order. Weights have the root mean square `gain / sqrt(k)`."""

    def __init__(self, shape: Tiny, vocab_size: int) -> None:
        self.shape, self.family, self.vocab_size = shape, shape.family(), vocab_size
        self.tensors: list[Tensor] = []
        self._turn = itertools.cycle(FORMATS)

    def matrix(self, name: str, rows: int, k: int, gain: float = 1.0, form: str | None = None, *, rich: bool = False,
               experts: int | None = None) -> None:  # fmt: skip
        chosen = form or self.shape.format
        if chosen == "mixed":
            chosen = next(self._turn)
        elif chosen == "Q4_K_M":
            chosen = "Q6_K" if rich else "Q4_K"
        self.tensors.append(Tensor(name + ".weight", rows, k, fitting(chosen, k), "matrix", gain / k**0.5, experts))

    def vector(self, name: str, k: int, kind: Literal["norm", "bias", "factors", "decay"], rms: float = 1.0,
               rows: int | None = None) -> None:  # fmt: skip
        self.tensors.append(Tensor(name, rows, k, FORMATS["F32"], kind, rms))

    def bias(self, name: str, k: int, rows: int | None = None) -> None:
        self.vector(name + ".bias", k, "bias", 0.3, rows)

    def norm(self, name: str) -> None:
        self.vector(name + ".weight", self.shape.width, "norm")
        if self.family.norm == "layer":
            self.bias(name, self.shape.width)

    def model(self) -> list[Tensor]:
        shape, width, head = self.shape, self.shape.width, self.shape.size_of_head()
        self.matrix("token_embd", self.vocab_size, width, 2.0, shape.embedding_format, rich=bool(shape.tied))
        if not shape.tied:
            self.matrix("output", self.vocab_size, width, 2.0, shape.embedding_format, rich=True)
        if self.family.output_bias:
            self.bias("output", self.vocab_size)
        if shape.rope_factors:
            long = self.family.factors == "long" or shape.rope_scaling == "longrope"
            for name in ("rope_factors_long", "rope_factors_short") if long else ("rope_freqs",):
                self.vector(name + ".weight", (shape.rope_dimensions or head) // 2, "factors")
        if self.family.encoder:
            self.other_embeddings()
        for i in range(shape.layers + (shape.extra_layers or 0)):
            self.layer(i)
        if not self.family.encoder:
            self.norm(self.family.final_norm)
        return self.tensors

    def other_embeddings(self) -> None:
        if self.shape.token_types:
            self.matrix("token_types", self.shape.token_types, self.shape.width, form="F32")
        if self.family.position_rows:
            self.matrix("position_embd", self.shape.context, self.shape.width, form="F32")
        self.norm("token_embd_norm")

    def layer(self, i: int) -> None:
        before, after, before_ffn, after_ffn = (name and f"blk.{i}.{name}" for name in self.family.norms)
        if self.shape.parallel:
            before_ffn = ""
        if before:
            self.norm(before)
        if not mixers.is_recurrent(self.shape, i):
            self.attention(i)
        elif self.family.mixer == "delta net":
            mixers.delta_net(self, f"blk.{i}.")
        else:
            mixers.short_convolution(self, f"blk.{i}.")
        if after:
            self.norm(after)
        if before_ffn:
            self.norm(before_ffn)
        if self.shape.experts:
            self.mixture(i)
        else:
            self.feed_forward(i)
        if after_ffn:
            self.norm(after_ffn)
        if i >= self.shape.layers:
            mixers.further_tokens(self, f"blk.{i}.")

    def attention(self, i: int) -> None:
        shape, b, head = self.shape, f"blk.{i}.", self.shape.size_of_head()
        queries, keys, rich = shape.heads * head, shape.kv_heads * head, more_bits(i, shape.layers)
        parts = [("attn_q", queries * (1 + self.family.query_gate)), ("attn_k", keys), ("attn_v", keys)]
        if shape.fused_qkv:
            parts = [("attn_qkv", queries + 2 * keys)]
        for name, rows in parts:
            # Scores alike with one matrix or three.
            gain = {"attn_q": 1.5, "attn_qkv": 1.5**0.5}.get(name, 1.0)
            self.matrix(b + name, rows, shape.width, gain, rich=name == "attn_v" and rich)
        self.matrix(b + "attn_output", shape.width, queries)
        biased = {"none": [], "qkv": parts}.get(shape.biases or "none", [*parts, ("attn_output", shape.width)])
        for name, k in biased:
            self.bias(b + name, k)
        if self.family.sinks:
            self.vector(b + "attn_sinks.weight", shape.heads, "bias", 3.0)
        if self.family.head_norm != "none" and shape.head_norms is not False:
            for name, heads in (("attn_q_norm", shape.heads), ("attn_k_norm", shape.kv_heads)):
                k, count = {"each": (head, None), "all": (heads * head, None)}.get(self.family.head_norm, (head, heads))
                self.vector(f"{b}{name}.weight", k, "norm", rows=count)

    def feed_forward(self, i: int, suffix: str = "", size: int | None = None) -> None:
        shape, b, ffn = self.shape, f"blk.{i}.", size or self.shape.ffn
        gate = self.family.gate
        parts = [("ffn_gate", ffn), ("ffn_up", ffn)] if gate == "apart" else [("ffn_up", ffn * (1 + (gate == "fused")))]
        for name, rows in parts:
            self.matrix(b + name + suffix, rows, shape.width)
        self.matrix(b + "ffn_down" + suffix, shape.width, ffn, rich=more_bits(i, shape.layers))
        if shape.biases == "all":
            for name, k in [*parts, ("ffn_down", shape.width)]:
                self.bias(b + name + suffix, k)

    def mixture(self, i: int) -> None:
        shape, b, gain = self.shape, f"blk.{i}.", self.family.expert_gain
        assert shape.experts is not None
        ffn = shape.expert_ffn or shape.ffn
        parts = (("ffn_gate_exps", ffn, shape.width, gain), ("ffn_up_exps", ffn, shape.width, gain),
                 ("ffn_down_exps", shape.width, ffn, 1.0))  # fmt: skip
        self.matrix(b + "ffn_gate_inp", shape.experts, shape.width, form="F32")
        for name, rows, k, larger in parts:
            rich = name == "ffn_down_exps" and more_bits(i, shape.layers)
            self.matrix(b + name, rows, k, larger, shape.expert_format, rich=rich, experts=shape.experts)
        if shape.biases == "all":
            self.bias(b + "ffn_gate_inp", shape.experts)
            for name, rows, _, _ in parts:
                self.bias(b + name, rows, shape.experts)
        if shape.shared_ffn:
            self.feed_forward(i, "_shexp", shape.shared_ffn)


TILE = 65521
"""Blocks of random data that are repeated in a larger tensor; a prime, so that no two rows are alike in phase."""


@functools.lru_cache(maxsize=8)
def _tile(form: Format, rms: float, seed: int) -> bytes:
    return random_blocks(np.random.default_rng([seed, form.type_id]), form, TILE, rms).tobytes()


def tensor_data(tensor: Tensor, rng: np.random.Generator, seed: int) -> Iterator[bytes | memoryview]:
    """The bytes of a tensor in pieces."""
    if tensor.kind == "norm":
        yield (1 + 0.1 * rng.standard_normal(tensor.blocks())).astype("<f4").tobytes()
    elif tensor.kind == "decay":
        yield (-np.exp(rng.uniform(-3, 0.5, tensor.k))).astype("<f4").tobytes()
    elif tensor.kind == "factors":
        # As Llama 3.1: high frequencies stay, low ones are slowed eight times, with a ramp between.
        high = 1.5 if "short" in tensor.name else 8.0
        yield np.interp(np.arange(tensor.k), [tensor.k * 0.4, tensor.k * 0.7], [1.0, high]).astype("<f4").tobytes()
    elif tensor.blocks() <= TILE * (32 if tensor.form.block == 1 else 1):
        yield random_blocks(rng, tensor.form, tensor.blocks(), tensor.rms).tobytes()
    else:
        tile = memoryview(_tile(tensor.form, tensor.rms, seed))
        left, at = tensor.bytes(), int(rng.integers(TILE)) * tensor.form.size
        while left:
            piece = tile[at : at + left]
            yield piece
            left, at = left - len(piece), 0


# --------------------------------------------------------------------------------------------------------------- writer
SCALARS = {U8: "B", U16: "H", U32: "I", I32: "i", F32: "f", BOOL: "?"}


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(kind: int, value: Any, item: int | None = None) -> bytes:
    if kind == STRING:
        return _string(value)
    if kind == ARRAY:
        assert item is not None
        head = struct.pack("<IQ", item, len(value))
        if item == STRING:
            return head + b"".join(map(_string, value))
        return head + struct.pack(f"<{len(value)}{SCALARS[item]}", *value)
    return struct.pack("<" + SCALARS[kind], value)


def padding(n: int) -> bytes:
    """What follows `n` bytes, so that the next tensor is aligned."""
    return bytes(-n % ALIGNMENT)


def write_head(file: BinaryIO, pairs: list[Pair], tensors: list[Tensor]) -> None:
    """Writes what stands before the data of the tensors in a GGUF v3 file."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs))
    head += b"".join(_string(p.key) + struct.pack("<I", p.kind) + _value(p.kind, p.value, p.item) for p in pairs)
    offset = 0
    for t in tensors:
        dims = t.dimensions()
        head += _string(t.name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, t.form.type_id, offset)
        offset += t.bytes() + len(padding(t.bytes()))
    file.write(head + padding(len(head)))


def write_file(file: BinaryIO, pairs: list[Pair], tensors: list[tuple[int, Tensor]], seed: int) -> None:
    """Writes a file with these tensors; a tensor's number decides its random weights."""
    write_head(file, pairs, [t for _, t in tensors])
    for number, t in tensors:
        file.writelines(tensor_data(t, np.random.default_rng([seed, number]), seed))
        file.write(padding(t.bytes()))


def contents(shape: Tiny) -> tuple[list[Pair], list[tuple[int, Tensor]]]:
    """Metadata and numbered tensors of a model."""
    shape = shape.resolved()
    vocab = vocabulary_of(shape)
    return metadata(shape, vocab), list(enumerate(Layout(shape, len(vocab.tokens)).model()))


def _write_whole(path: Path, pairs: list[Pair], tensors: list[tuple[int, Tensor]], seed: int) -> None:
    """Writes a file that appears whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            write_file(file, pairs, tensors, seed)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write(path: str | os.PathLike[str], shape: Tiny | None = None) -> Path:
    """Writes a model to one file."""
    shape = shape or Tiny()
    _write_whole(Path(path), *contents(shape), shape.seed)
    return Path(path)


def write_split(stem: str | os.PathLike[str], shape: Tiny, shards: int) -> list[Path]:
    """Writes the same model to `STEM-00001-of-0000N.gguf` and so on; the first file holds the metadata."""
    pairs, tensors = contents(shape)
    paths = []
    for number in range(shards):
        path = Path(f"{os.fspath(stem)}-{number + 1:05d}-of-{shards:05d}.gguf")
        split = [
            Pair("split.no", U16, number),
            Pair("split.count", U16, shards),
            Pair("split.tensors.count", I32, len(tensors)),
        ]
        part = tensors[number * len(tensors) // shards : (number + 1) * len(tensors) // shards]
        _write_whole(path, (pairs if number == 0 else []) + split, part, shape.seed)
        paths.append(path)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--shape", choices=SHAPES, default="tiny", help="what the other options start from")
    shorter = {"architecture": ["--arch"], "format": ["--type"]}
    kinds: dict[str, Callable[[str], Any]] = {"int": int, "float": float}
    for field in dataclasses.fields(Tiny):
        flags = ["--" + field.name.replace("_", "-"), *shorter.get(field.name, [])]
        kind = str(field.type).split(" ")[0]
        if kind == "bool":
            parser.add_argument(*flags, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS)
        else:
            parser.add_argument(*flags, type=kinds.get(kind, str), default=argparse.SUPPRESS)
    options = vars(parser.parse_args())
    out, shape = options.pop("out"), SHAPES[options.pop("shape")](**options)
    path = write(out, shape)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
