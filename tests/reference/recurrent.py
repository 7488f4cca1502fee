"""What hybrid models put in place of attention in most layers: the short convolution of LFM2 and the gated delta net of
Qwen 3.5 (arXiv 2412.06464), token by token in float64.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from reference.forward import Twin

Array = npt.NDArray[np.float64]


def sigmoid(x: Array) -> Array:
    out: Array = 1 / (1 + np.exp(-x))
    return out


def causal_convolution(x: Array, taps: Array) -> Array:
    """Filters every channel of `(tokens, channels)` with its own taps `(channels, taps)`, the present token's last."""
    count = taps.shape[1]
    padded = np.concatenate([np.zeros((count - 1, x.shape[1])), x])
    out: Array = sum((padded[i : i + len(x)] * taps[:, i] for i in range(count)), np.zeros_like(x))
    return out


def short_convolution(twin: Twin, layer: int, x: Array) -> Array:
    """A convolution over a few tokens between two gates that the same token opens."""
    name = f"blk.{layer}.shortconv."
    before, after, value = np.split(twin.linear(name + "in_proj", x), 3, axis=1)
    return twin.linear(name + "out_proj", after * causal_convolution(before * value, twin.array(name + "conv.weight")))


def delta_net(twin: Twin, layer: int, x: Array) -> Array:
    """A matrix per head that maps keys to values, decays, and is corrected by what it got wrong for each new key."""
    name, n = f"blk.{layer}.", len(x)
    size, keys, heads = (int(twin.key(f"ssm.{k}")) for k in ("state_size", "group_count", "time_step_rank"))
    mixed = causal_convolution(twin.linear(name + "attn_qkv", x), twin.array(name + "ssm_conv1d.weight"))
    mixed = mixed * sigmoid(mixed)
    q, k, v = (part.reshape(n, -1, size) for part in np.split(mixed, [keys * size, 2 * keys * size], axis=1))
    # The converter orders the value heads so that they go round the key heads: 0, 1, 0, 1 rather than 0, 0, 1, 1.
    q, k = (np.tile(unit(part, twin.epsilon), (1, heads // keys, 1)) for part in (q, k))
    rate = np.logaddexp(0, twin.linear(name + "ssm_alpha", x) + twin.array(name + "ssm_dt.bias"))
    keep = np.exp(twin.array(name + "ssm_a") * rate)
    learn = sigmoid(twin.linear(name + "ssm_beta", x))
    state, out = np.zeros((heads, size, size)), np.empty_like(v)
    for t in range(n):
        state *= keep[t, :, None, None]
        wrong = (v[t] - np.einsum("hvk,hk->hv", state, k[t])) * learn[t, :, None]
        state += wrong[:, :, None] * k[t, :, None, :]
        out[t] = np.einsum("hvk,hk->hv", state, q[t]) / math.sqrt(size)
    gate = twin.linear(name + "attn_gate", x)
    return twin.linear(name + "ssm_out", twin.norm(name + "ssm_norm", out).reshape(n, -1) * gate * sigmoid(gate))


def unit(x: Array, epsilon: float) -> Array:
    """Vectors of length one."""
    out: Array = x / np.sqrt((x * x).sum(axis=-1, keepdims=True) + epsilon)
    return out
