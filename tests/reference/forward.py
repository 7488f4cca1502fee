"""The forward pass of the architectures in RULES in float64, written to be read; encoders go on in encoder.py.

    python -m reference.forward MODEL.gguf 1 2 3          # in tests/: the likeliest next tokens after these

Two steps of the engine that round on purpose can be switched on, so that a comparison may be sharp:
`cache=np.float16` rounds keys and values as its cache does, `int8=True` rounds the activations before quantized
matrices as its contract says (per block of 32 or 256: `d = amax / 127`, `q = round(x * 127 / amax)`).
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from reference.reader import File
from reference.recurrent import delta_net, short_convolution, sigmoid

Array = npt.NDArray[np.float64]
K_BLOCK = 256


@dataclass(frozen=True)
class Rope:
    """Rotation of pairs: frequencies per pair, and the factor of both sine and cosine."""

    frequencies: Array
    magnitude: float
    halves: bool
    """Pairs are (i, i + n/2); otherwise (2 i, 2 i + 1)."""

    def __call__(self, x: Array, positions: Array) -> Array:
        """Rotates `(tokens, heads, head)`."""
        angle = positions[:, None, None] * self.frequencies
        cos, sin = np.cos(angle) * self.magnitude, np.sin(angle) * self.magnitude
        out: Array = x.copy()
        n = self.frequencies.size
        first, second = (slice(0, n), slice(n, 2 * n)) if self.halves else (slice(0, 2 * n, 2), slice(1, 2 * n, 2))
        out[..., first] = x[..., first] * cos - x[..., second] * sin
        out[..., second] = x[..., first] * sin + x[..., second] * cos
        return out


def yarn(frequencies: Array, base: float, factor: float, original: int, fast: float, slow: float) -> Array:
    """Frequencies slowed `factor` times, but for the fast ones (arXiv 2309.00071)."""
    pair, n = np.arange(frequencies.size), 2 * frequencies.size

    def pair_that_turns(times: float) -> float:
        """The pair whose wave fits `times` into the original context."""
        return n * math.log(original / (times * 2 * math.pi)) / (2 * math.log(base))

    low, high = max(0, math.floor(pair_that_turns(fast))), min(n - 1, math.ceil(pair_that_turns(slow)))
    keep = 1 - np.clip((pair - low) / max(0.001, high - low), 0, 1)
    out: Array = frequencies / factor * (1 - keep) + frequencies * keep
    return out


def silu(x: Array) -> Array:
    out: Array = x / (1 + np.exp(-x))
    return out


def gelu(x: Array) -> Array:
    """The tanh form of GELU (arXiv 1606.08415)."""
    out: Array = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return out


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    out: Array = e / e.sum(axis=-1, keepdims=True)
    return out


def softcap(x: Array, cap: float | None) -> Array:
    return cap * np.tanh(x / cap) if cap else x


def rounded_to_int8(x: Array, block: int) -> Array:
    """What is left of activations `(tokens, k)` after quantization per block."""
    blocks = x.astype(np.float32).reshape(len(x), -1, block)
    amax = np.abs(blocks).max(axis=-1, keepdims=True)
    inverse = np.divide(np.float32(127), amax, out=np.zeros_like(amax), where=amax > 0)
    q = np.rint(blocks * inverse).astype(np.float64)
    out: Array = q * (amax / np.float32(127)).astype(np.float64)
    return out.reshape(x.shape)


def silu_gated(gate: Array, up: Array) -> Array:
    return silu(gate) * up


def gelu_gated(gate: Array, up: Array) -> Array:
    return gelu(gate) * up


def clamped_gated(gate: Array, up: Array) -> Array:
    """The activation of gpt-oss."""
    gate, up = np.minimum(gate, 7), np.clip(up, -7, 7)
    out: Array = gate / (1 + np.exp(-1.702 * gate)) * (up + 1)
    return out


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What an architecture does that neither keys nor names of tensors say."""

    halves: bool = True
    """Rope turns the pairs (i, i + n/2)."""
    gated: Callable[[Array, Array], Array] = silu_gated
    norms: tuple[str, str, str, str] = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
    """Before and after attention, before and after the feed-forward part. What a file lacks is not done."""
    width_scales_embedding: bool = False
    rope_every: int = 0
    """The last of so many layers is not turned; 0: all are."""
    finetuned_is_rope: bool = False
    """Whether the key `rope.scaling.finetuned` says that there is rope."""
    period: float = 0
    """The last of so many layers sees all, the others a window; 0: no windows, whatever the file says."""
    local_base: float | None = None
    """Base of the rope of local layers, if not that of the others."""
    local_scaled: bool = False
    """Whether the rope of local layers is scaled as that of the others."""
    all_share: bool = False
    """Whether experts are weighted by a softmax over all of them; else over the chosen ones."""
    defaults: Mapping[str, float] = field(default_factory=dict)
    """Values of keys that files leave out."""
    mixer: Callable[[Twin, int, Array], Array] | None = None
    """What stands in place of attention in some layers."""
    mixes_every: int = 0
    """The last of so many layers has attention after all, if the file does not list the layers."""
    query_gate: bool = False
    """Whether what a head has seen passes a gate that comes with its query."""
    final_norm: str = "output_norm"
    largest: int = 0
    """Number of layers of the one model that scales by width per head, which is not the size of its heads."""


RULES: dict[str, Rules] = {
    "llama": Rules(halves=False),
    "qwen2": Rules(),
    "qwen3": Rules(),
    "phi2": Rules(),
    "phi3": Rules(),
    "gemma": Rules(gated=gelu_gated, width_scales_embedding=True),
    "gemma2": Rules(gated=gelu_gated, width_scales_embedding=True, period=2, local_scaled=True, largest=46,
                    defaults={"attention.sliding_window": 4096, "attn_logit_softcapping": 50.0,
                              "final_logit_softcapping": 30.0}),
    "gemma3": Rules(gated=gelu_gated, width_scales_embedding=True, period=6, local_base=10000.0, largest=62),
    "smollm3": Rules(halves=False, rope_every=4),
    "granite": Rules(halves=False, finetuned_is_rope=True),
    "olmo2": Rules(period=4),
    "stablelm": Rules(),
    "mistral3": Rules(halves=False),
    "qwen3moe": Rules(),
    "olmoe": Rules(all_share=True),
    "granitemoe": Rules(halves=False),
    "gpt-oss": Rules(gated=clamped_gated, norms=("attn_norm", "", "post_attention_norm", ""), period=2,
                     local_scaled=True),
    "lfm2": Rules(mixer=short_convolution, final_norm="token_embd_norm", period=math.inf),
    "qwen35": Rules(norms=("attn_norm", "", "post_attention_norm", ""), mixer=delta_net, mixes_every=4,
                    query_gate=True),
    "bert": Rules(rope_every=1),
    "nomic-bert": Rules(),
}  # fmt: skip


class Twin:
    """A model in memory as float32 rows, computed in float64."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        cache: type[np.floating[Any]] | None = None,
        int8: bool = False,
        context: int | None = None,
    ) -> None:
        self.file = File(path)
        self.cache, self.int8 = cache, int8
        self.architecture = str(self.file.metadata["general.architecture"])
        if self.architecture not in RULES:
            raise ValueError(f"architecture {self.architecture!r} is not written here")
        self.rules = RULES[self.architecture]
        self.context = context or int(self.key("context_length"))
        self.width = int(self.key("embedding_length"))
        # Layers that predict further tokens are counted too, but stand behind those that are run.
        self.layers = int(self.key("block_count")) - int(self.key("nextn_predict_layers", 0))
        self.heads = int(self.key("attention.head_count"))
        kv_heads = self.key("attention.head_count_kv", self.heads)
        self.kv_heads = kv_heads if isinstance(kv_heads, list) else [int(kv_heads)] * self.layers
        self.causal = bool(self.key("attention.causal", True))
        self.key_size = int(self.key("attention.key_length", self.width // self.heads))
        self.value_size = int(self.key("attention.value_length", self.width // self.heads))
        self.layer_norm = "attention.layer_norm_epsilon" in self
        self.epsilon = float(self.key(f"attention.layer_norm_{'' if self.layer_norm else 'rms_'}epsilon"))
        self.window = int(self.key("attention.sliding_window", 0)) if self.rules.period else 0
        self.pattern = self.key("attention.sliding_window_pattern", self.rules.period)
        self.score_cap = self.key("attn_logit_softcapping", None)
        self.final_cap = self.key("final_logit_softcapping", None)
        self.embedding_scale = float(self.key("embedding_scale", 0)) or 1.0
        if self.rules.width_scales_embedding:
            self.embedding_scale = math.sqrt(self.width)
        self.residual_scale = float(self.key("residual_scale", 0)) or 1.0
        self.logit_scale = float(self.key("logit_scale", 1))
        size = self.width // self.heads if self.layers == self.rules.largest else self.key_size
        self.score_scale = float(self.key("attention.scale", 0)) or size**-0.5
        self.original = int(self.key("rope.scaling.original_context_length", self.key("context_length")))
        self.temperature_scale = float(self.key("attention.temperature_scale", 0))
        self.experts_used = int(self.key("expert_used_count", 0))
        base = float(self.key("rope.freq_base", 10000.0))
        local_base = float(self.key("rope.freq_base_swa", self.rules.local_base or base))
        self.rope = self.turning(base, scaled=True)
        self.local_rope = self.turning(local_base, scaled=self.rules.local_scaled)

    def __contains__(self, name: str) -> bool:
        return f"{self.architecture}.{name}" in self.file.metadata

    def key(self, name: str, *default: Any) -> Any:
        full = f"{self.architecture}.{name}"
        if full in self.file.metadata or not default:
            return self.file.metadata[full]
        return self.rules.defaults.get(name, *default)

    def turning(self, base: float, *, scaled: bool) -> Rope:
        """Rope with the file's factors and linear or YaRN scaling."""
        n = int(self.key("rope.dimension_count", self.key_size))
        frequencies = base ** (-2 * np.arange(n // 2) / n)
        if not scaled:
            return Rope(frequencies, 1.0, self.rules.halves)
        length = "long" if self.context > self.original else "short"
        for name in ("rope_freqs.weight", f"rope_factors_{length}.weight"):
            if name in self.file.tensors:
                frequencies = frequencies / self.array(name)
        magnitude = float(self.key("rope.scaling.attn_factor", 1.0))
        scaling, factor = self.key("rope.scaling.type", "linear"), float(self.key("rope.scaling.factor", 0)) or 1.0
        if scaling == "yarn":
            fast, slow = self.key("rope.scaling.yarn_beta_fast", 32.0), self.key("rope.scaling.yarn_beta_slow", 1.0)
            frequencies = yarn(frequencies, base, factor, self.original, float(fast), float(slow))
            grown = 0.1 * math.log(max(1, factor))
            magnitude *= (1 + grown) / (1 + grown * float(self.key("rope.scaling.yarn_log_multiplier", 0)))
        elif scaling != "none":
            frequencies = frequencies / factor
        return Rope(frequencies, magnitude, self.rules.halves)

    def array(self, name: str) -> Array:
        """A tensor of one or two dimensions."""
        tensor = self.file.tensors[name]
        out: Array = tensor.rows().astype(np.float64).reshape(tensor.shape)
        return out

    def linear(self, name: str, x: Array, expert: int | None = None) -> Array:
        """`x (tokens, k)` times the matrix `(rows, k)`, plus its bias where the file has one."""
        weight = self.file.tensors[name + ".weight"]
        if self.int8 and weight.codec.quantized():
            x = rounded_to_int8(x, K_BLOCK if weight.codec.block == K_BLOCK else 32)
        # A few thousand rows at a time: a vocabulary of 262144 in float64 would not fit everywhere.
        rows, step = weight.shape[-2], 16384
        first = rows * (expert or 0)
        ranges = (slice(i, min(i + step, first + rows)) for i in range(first, first + rows, step))
        out = np.concatenate([x @ weight.rows(part).astype(np.float64).T for part in ranges], axis=1)
        if name + ".bias" in self.file.tensors:
            bias = self.array(name + ".bias")
            out += bias if expert is None else bias[expert]
        return out

    def norm(self, name: str, x: Array) -> Array:
        """RMS norm (arXiv 1910.07467) or layer norm over the last axis, where the file has its weights.

        Gemma's weights are stored with one already added.
        """
        if name + ".weight" not in self.file.tensors:
            return x
        if self.layer_norm:
            x = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.epsilon)
        out: Array = x / scale * self.array(name + ".weight")
        return out + self.array(name + ".bias") if name + ".bias" in self.file.tensors else out

    def head_norm(self, name: str, x: Array) -> Array:
        """Norm of queries or keys `(tokens, heads, head)`: of each head, or of all together."""
        weight = self.file.tensors.get(name + ".weight")
        together = weight is not None and weight.shape == (x[0].size,)
        return self.norm(name, x.reshape(len(x), -1)).reshape(x.shape) if together else self.norm(name, x)

    def is_local(self, layer: int) -> bool:
        """Whether the layer sees only the window."""
        if self.window == 0:
            return False
        if isinstance(self.pattern, list):
            return bool(self.pattern[layer])
        return bool(self.pattern == 0 or (layer + 1) % self.pattern != 0)

    def is_turned(self, layer: int) -> bool:
        if self.rules.finetuned_is_rope and not self.key("rope.scaling.finetuned", True):
            return False
        return self.rules.rope_every == 0 or (layer + 1) % self.rules.rope_every != 0

    def stored(self, x: Array) -> Array:
        out: Array = x if self.cache is None else x.astype(self.cache).astype(np.float64)
        return out

    def has_attention(self, layer: int) -> bool:
        recurrent = self.key("attention.recurrent_layers", None)
        if recurrent is not None:
            return not recurrent[layer]
        every = int(self.key("full_attention_interval", self.rules.mixes_every))
        return (layer + 1) % every == 0 if every else self.kv_heads[layer] > 0

    def projections(self, layer: int, x: Array) -> tuple[Array, Array, Array]:
        """Queries, keys and values, each `(tokens, heads, head)`; a gate is the second half of its query."""
        name, kv_heads = f"blk.{layer}.", self.kv_heads[layer]
        query_size = self.key_size * (2 if self.rules.query_gate else 1)
        sizes = (self.heads, query_size), (kv_heads, self.key_size), (kv_heads, self.value_size)
        if name + "attn_qkv.weight" in self.file.tensors:
            parts = np.split(self.linear(name + "attn_qkv", x), np.cumsum([h * d for h, d in sizes])[:2], axis=1)
        else:
            parts = [self.linear(name + part, x) for part in ("attn_q", "attn_k", "attn_v")]
        q, k, v = (part.reshape(len(x), *size) for part, size in zip(parts, sizes, strict=True))
        return q, k, v

    def attention(self, layer: int, x: Array) -> Array:
        name, positions = f"blk.{layer}.", np.arange(len(x), dtype=np.float64)
        q, k, v = self.projections(layer, x)
        q, gate = np.split(q, [self.key_size], axis=2)
        q, k = self.head_norm(name + "attn_q_norm", q), self.head_norm(name + "attn_k_norm", k)
        if self.is_turned(layer):
            turn = self.local_rope if self.is_local(layer) else self.rope
            q, k = turn(q, positions), turn(k, positions)
        k, v = self.stored(k), self.stored(v)
        # Llama 4's sharpening of queries far from the start.
        q = q * (1 + self.temperature_scale * np.log1p(positions // self.original))[:, None, None]
        group = self.heads // self.kv_heads[layer]
        k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
        distance = positions[:, None] - positions[None, :]
        seen = ((distance >= 0) | (not self.causal)) & (distance < (self.window if self.is_local(layer) else math.inf))
        scores = softcap(np.einsum("qhd,khd->hqk", q, k) * self.score_scale, self.score_cap)
        scores = np.where(seen, scores, -np.inf)
        if name + "attn_sinks.weight" in self.file.tensors:
            # One more score, of nothing: it takes its share of the softmax and is dropped.
            sinks = np.broadcast_to(self.array(name + "attn_sinks.weight")[:, None, None], (*scores.shape[:2], 1))
            shares = softmax(np.concatenate([scores, sinks], axis=2))[:, :, :-1]
        else:
            shares = softmax(scores)
        mixed = np.einsum("hqk,khd->qhd", shares, v)
        if self.rules.query_gate:
            mixed = mixed * sigmoid(gate)
        return self.linear(name + "attn_output", mixed.reshape(len(x), -1))

    def mixed(self, layer: int, x: Array) -> Array:
        """What a layer takes from other tokens."""
        if self.rules.mixer is None or self.has_attention(layer):
            return self.attention(layer, x)
        return self.rules.mixer(self, layer, x)

    def feed_forward(self, name: str, x: Array, suffix: str = "", expert: int | None = None) -> Array:
        """The gate is a matrix of its own, the first half of `ffn_up`, or absent."""
        up, down = self.linear(f"{name}ffn_up{suffix}", x, expert), f"{name}ffn_down{suffix}"
        if f"{name}ffn_gate{suffix}.weight" in self.file.tensors:
            mixed = self.rules.gated(self.linear(f"{name}ffn_gate{suffix}", x, expert), up)
        elif up.shape[1] == 2 * self.file.tensors[down + ".weight"].shape[-1]:
            mixed = self.rules.gated(*np.split(up, 2, axis=1))
        else:
            mixed = gelu(up)
        return self.linear(down, mixed, expert)

    def mixture(self, name: str, x: Array) -> Array:
        """The experts with the largest logits, weighted, and the one that every token meets."""
        logits = self.linear(name + "ffn_gate_inp", x)
        chosen = np.argsort(-logits, axis=1, kind="stable")[:, : self.experts_used]
        shares = softmax(logits) if self.rules.all_share else logits
        weights = np.take_along_axis(shares, chosen, axis=1)
        if not self.rules.all_share:
            weights = softmax(weights)
        out = np.zeros_like(x)
        for expert in range(logits.shape[1]):
            token, place = np.nonzero(chosen == expert)
            if token.size:
                out[token] += weights[token, place, None] * self.feed_forward(name, x[token], "_exps", expert)
        return out + self.feed_forward(name, x, "_shexp") if name + "ffn_up_shexp.weight" in self.file.tensors else out

    def block(self, layer: int, x: Array) -> Array:
        name = f"blk.{layer}."
        before, after, before_ffn, after_ffn = (name + norm for norm in self.rules.norms)
        n = self.norm(before, x)
        update = self.norm(after, self.mixed(layer, n))
        x = x + self.residual_scale * update
        # A model that norms once has both parts read the same.
        one_norm = before + ".weight" in self.file.tensors and before_ffn + ".weight" not in self.file.tensors
        n = n if one_norm else self.norm(before_ffn, x)
        part = self.mixture if name + "ffn_gate_inp.weight" in self.file.tensors else self.feed_forward
        return x + self.residual_scale * self.norm(after_ffn, part(name, n))

    def embedded(self, tokens: Sequence[int]) -> Array:
        rows = self.file.tensors["token_embd.weight"].rows(np.asarray(tokens, np.int64)).astype(np.float64)
        out: Array = rows * self.embedding_scale
        return out

    def hidden(self, tokens: Sequence[int]) -> Array:
        """The last layer's output after the final norm, `(tokens, width)`."""
        x = self.embedded(tokens)
        for layer in range(self.layers):
            x = self.block(layer, x)
        return self.norm(self.rules.final_norm, x)

    def logits(self, tokens: Sequence[int]) -> Array:
        """Logits after every token, `(tokens, vocabulary)`."""
        tied = "output.weight" not in self.file.tensors
        out = self.linear("token_embd" if tied else "output", self.hidden(tokens))
        return softcap(out / self.logit_scale, self.final_cap)


def main() -> None:
    twin = Twin(sys.argv[1])
    last = twin.logits([int(a) for a in sys.argv[2:]])[-1]
    probabilities = softmax(last)
    for token in np.argsort(-last)[:8]:
        print(f"{token:7d} {probabilities[token]:.6f} {twin.file.metadata['tokenizer.ggml.tokens'][token]!r}")


if __name__ == "__main__":
    main()
