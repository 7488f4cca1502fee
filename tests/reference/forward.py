"""The forward pass of the architectures `llama` and `gemma3` in float64, written to be read.

    python -m reference.forward MODEL.gguf 1 2 3          # in tests/: the likeliest next tokens after these

Two steps of the engine that round on purpose can be switched on, so that a comparison may be sharp:
`cache=np.float16` rounds keys and values as its cache does, `int8=True` rounds the activations before quantized
matrices as its contract says (per block of 32 or 256: `d = amax / 127`, `q = round(x * 127 / amax)`).
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reference.reader import File

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


def rope(n: int, base: float, halves: bool, factors: Array | None, scaling: str, factor: float, original: int,
         attention: float, fast: float, slow: float) -> Rope:  # fmt: skip
    """Frequencies of `n` rotated values, with the file's factors and linear or YaRN scaling (arXiv 2309.00071)."""
    pair = np.arange(n // 2)
    frequencies = base ** (-2 * pair / n)
    if factors is not None:
        frequencies = frequencies / factors
    if scaling == "none" or factor == 1:
        return Rope(frequencies, 1.0, halves)
    if scaling == "linear":
        return Rope(frequencies / factor, attention, halves)

    def pair_that_turns(times: float) -> float:
        """The pair whose wave fits `times` into the original context."""
        return n * math.log(original / (times * 2 * math.pi)) / (2 * math.log(base))

    low, high = max(0, math.floor(pair_that_turns(fast))), min(n - 1, math.ceil(pair_that_turns(slow)))
    keep = 1 - np.clip((pair - low) / max(0.001, high - low), 0, 1)
    mixed = frequencies / factor * (1 - keep) + frequencies * keep
    return Rope(mixed, attention * (1 + 0.1 * math.log(factor)), halves)


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


class Twin:
    """A model in memory as float32 rows, computed in float64."""

    def __init__(
        self, path: str | os.PathLike[str], *, cache: type[np.floating[Any]] | None = None, int8: bool = False
    ) -> None:
        self.file = File(path)
        self.cache, self.int8 = cache, int8
        self.architecture = str(self.file.metadata["general.architecture"])
        if self.architecture not in ("llama", "gemma3"):
            raise ValueError(f"architecture {self.architecture!r} is not written here")
        gemma = self.gemma = self.architecture == "gemma3"
        self.width = int(self.key("embedding_length"))
        self.layers = int(self.key("block_count"))
        self.heads = int(self.key("attention.head_count"))
        self.kv_heads = int(self.key("attention.head_count_kv", self.heads))
        self.key_size = int(self.key("attention.key_length", self.width // self.heads))
        self.value_size = int(self.key("attention.value_length", self.width // self.heads))
        self.epsilon = float(self.key("attention.layer_norm_rms_epsilon"))
        self.window = int(self.key("attention.sliding_window", 0)) if gemma else 0
        self.score_cap = self.key("attn_logit_softcapping", None)
        self.final_cap = self.key("final_logit_softcapping", None)
        self.activation: Callable[[Array], Array] = gelu if gemma else silu
        # The largest Gemma 3 (62 layers) scales by width per head, which is not the size of its heads.
        self.scale = (self.width / self.heads if gemma and self.layers == 62 else self.key_size) ** -0.5
        factors = self.vector("rope_freqs.weight") if "rope_freqs.weight" in self.file.tensors else None
        n = int(self.key("rope.dimension_count", self.key_size))
        scaling = str(self.key("rope.scaling.type", "linear" if "rope.scaling.factor" in self else "none"))
        self.rope = rope(
            n, float(self.key("rope.freq_base", 10000.0)), gemma, factors, scaling,
            float(self.key("rope.scaling.factor", 1.0)),
            int(self.key("rope.scaling.original_context_length", self.key("context_length"))),
            float(self.key("rope.scaling.attn_factor", 1.0)),
            float(self.key("rope.scaling.yarn_beta_fast", 32.0)),
            float(self.key("rope.scaling.yarn_beta_slow", 1.0)),
        )  # fmt: skip
        local_base = float(self.key("rope.freq_base_swa", 10000.0))
        self.local_rope = rope(n, local_base, gemma, None, "none", 1.0, 1, 1.0, 32.0, 1.0)

    def __contains__(self, name: str) -> bool:
        return f"{self.architecture}.{name}" in self.file.metadata

    def key(self, name: str, *default: Any) -> Any:
        full = f"{self.architecture}.{name}"
        return self.file.metadata.get(full, *default) if default else self.file.metadata[full]

    def vector(self, name: str) -> Array:
        out: Array = self.file.tensors[name].rows()[0].astype(np.float64)
        return out

    def linear(self, name: str, x: Array) -> Array:
        """`x (tokens, k)` times the matrix `(rows, k)`, plus its bias where the file has one."""
        weight = self.file.tensors[name + ".weight"]
        if self.int8 and weight.codec.quantized():
            x = rounded_to_int8(x, K_BLOCK if weight.codec.block == K_BLOCK else 32)
        # A few thousand rows at a time: a vocabulary of 262144 in float64 would not fit everywhere.
        step = 16384
        parts = [x @ weight.rows(slice(i, i + step)).astype(np.float64).T for i in range(0, weight.shape[0], step)]
        out = np.concatenate(parts, axis=1)
        return out + self.vector(name + ".bias") if name + ".bias" in self.file.tensors else out

    def norm(self, name: str, x: Array) -> Array:
        """RMS norm over the last axis (arXiv 1910.07467). Gemma's weights are stored with one already added."""
        scale = np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.epsilon)
        out: Array = x / scale * self.vector(name + ".weight")
        return out

    def is_local(self, layer: int) -> bool:
        """Whether the layer sees only the window: five of six."""
        return self.window > 0 and (layer + 1) % 6 != 0

    def stored(self, x: Array) -> Array:
        out: Array = x if self.cache is None else x.astype(self.cache).astype(np.float64)
        return out

    def attention(self, layer: int, x: Array, mask: Array, positions: Array) -> Array:
        name, n = f"blk.{layer}.", len(x)
        q = self.linear(name + "attn_q", x).reshape(n, self.heads, self.key_size)
        k = self.linear(name + "attn_k", x).reshape(n, self.kv_heads, self.key_size)
        v = self.linear(name + "attn_v", x).reshape(n, self.kv_heads, self.value_size)
        if self.gemma:
            q, k = self.norm(name + "attn_q_norm", q), self.norm(name + "attn_k_norm", k)
        turn = self.local_rope if self.is_local(layer) else self.rope
        q, k, v = turn(q, positions), self.stored(turn(k, positions)), self.stored(v)
        group = self.heads // self.kv_heads
        k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
        scores = softcap(np.einsum("qhd,khd->hqk", q, k) * self.scale, self.score_cap) + mask
        mixed = np.einsum("hqk,khd->qhd", softmax(scores), v).reshape(n, -1)
        return self.linear(name + "attn_output", mixed)

    def feed_forward(self, layer: int, x: Array) -> Array:
        name = f"blk.{layer}."
        gate = self.activation(self.linear(name + "ffn_gate", x))
        return self.linear(name + "ffn_down", gate * self.linear(name + "ffn_up", x))

    def hidden(self, tokens: Sequence[int]) -> Array:
        """The last layer's output after the final norm, `(tokens, width)`."""
        positions = np.arange(len(tokens), dtype=np.float64)
        distance = positions[:, None] - positions[None, :]
        whole = np.where(distance >= 0, 0.0, -np.inf)
        near = np.where((distance >= 0) & (distance < self.window), 0.0, -np.inf)
        x = self.file.tensors["token_embd.weight"].rows(np.asarray(tokens, np.int64)).astype(np.float64)
        if self.gemma:
            x = x * math.sqrt(self.width)
        for layer in range(self.layers):
            name = f"blk.{layer}."
            mask = near if self.is_local(layer) else whole
            update = self.attention(layer, self.norm(name + "attn_norm", x), mask, positions)
            x = x + (self.norm(name + "post_attention_norm", update) if self.gemma else update)
            update = self.feed_forward(layer, self.norm(name + "ffn_norm", x))
            x = x + (self.norm(name + "post_ffw_norm", update) if self.gemma else update)
        return self.norm("output_norm", x)

    def logits(self, tokens: Sequence[int]) -> Array:
        """Logits after every token, `(tokens, vocabulary)`."""
        tied = "output.weight" not in self.file.tensors
        return softcap(self.linear("token_embd" if tied else "output", self.hidden(tokens)), self.final_cap)


def main() -> None:
    twin = Twin(sys.argv[1])
    last = twin.logits([int(a) for a in sys.argv[2:]])[-1]
    probabilities = softmax(last)
    for token in np.argsort(-last)[:8]:
        print(f"{token:7d} {probabilities[token]:.6f} {twin.file.metadata['tokenizer.ggml.tokens'][token]!r}")


if __name__ == "__main__":
    main()
