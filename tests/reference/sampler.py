"""The sampler's stages on plain arrays of logits `(vocabulary,)`, and the distribution that a chain of them draws from.

A stage gives new logits; a token that is cut gets minus infinity. The order is llama.cpp's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
ORDER = ("logit_bias", "penalties", "top_k", "typical_p", "top_p", "min_p", "temperature")


def probabilities(logits: Array) -> Array:
    e = np.exp(logits - logits.max())
    out: Array = e / e.sum()
    return out


def only(logits: Array, kept: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Array:
    out = np.full_like(logits, -np.inf)
    out[kept] = logits[kept]
    return out


def fewest_reaching(mass: float, order: npt.NDArray[np.int64], p: Array) -> npt.NDArray[np.int64]:
    """The first tokens of `order` whose probabilities together reach `mass`."""
    reached = int(np.searchsorted(np.cumsum(p[order]), mass)) + 1
    return order[:reached]


def logit_bias(logits: Array, bias: Mapping[int, float]) -> Array:
    out: Array = logits.copy()
    for token, value in bias.items():
        out[token] += value
    return out


def penalties(logits: Array, last: Sequence[int], repeat: float, presence: float, frequency: float) -> Array:
    """Repeat penalty (arXiv 1909.05858), then presence and frequency, over the `last` tokens."""
    out: Array = logits.copy()
    for token in set(last):
        out[token] = out[token] / repeat if out[token] > 0 else out[token] * repeat
        out[token] -= presence + frequency * list(last).count(token)
    return out


def temperature(logits: Array, t: float) -> Array:
    return only(logits, np.array([int(logits.argmax())])) if t == 0 else logits / t


def top_k(logits: Array, k: int) -> Array:
    return logits if k == 0 else only(logits, np.argsort(-logits, kind="stable")[:k])


def top_p(logits: Array, p: float) -> Array:
    """Nucleus sampling (arXiv 1904.09751)."""
    if p >= 1:
        return logits
    return only(logits, fewest_reaching(p, np.argsort(-logits, kind="stable"), probabilities(logits)))


def min_p(logits: Array, p: float) -> Array:
    """Min-p (arXiv 2407.01082)."""
    share = probabilities(logits)
    return only(logits, share >= p * share.max())


def typical_p(logits: Array, mass: float) -> Array:
    """Locally typical sampling (arXiv 2202.00666)."""
    if mass >= 1:
        return logits
    p = probabilities(logits)
    information = -np.log(np.where(p > 0, p, 1.0))
    information[p == 0] = np.inf
    entropy = float((p[p > 0] * information[p > 0]).sum())
    return only(logits, fewest_reaching(mass, np.argsort(np.abs(information - entropy), kind="stable"), p))


def distribution(logits: npt.ArrayLike, last: Sequence[int] = (), **options: Any) -> Array:
    """Probabilities of the next token under options named as those of `Model.generate`; what is left out is off."""
    on: dict[str, Any] = dict.fromkeys(ORDER) | options
    repeat = on.get("repeat_penalty", 1.0), on.get("presence_penalty", 0.0), on.get("frequency_penalty", 0.0)
    recent = on.get("repeat_last_n", 64)
    stages: dict[str, Callable[[Array], Array]] = {
        "logit_bias": lambda x: logit_bias(x, on["logit_bias"] or {}),
        "penalties": lambda x: penalties(x, last[max(0, len(last) - recent) :], *repeat),
        "top_k": lambda x: top_k(x, on["top_k"] or 0),
        "typical_p": lambda x: typical_p(x, on["typical_p"] or 1.0),
        "top_p": lambda x: top_p(x, on["top_p"] or 1.0),
        "min_p": lambda x: min_p(x, on["min_p"] or 0.0),
        "temperature": lambda x: temperature(x, 1.0 if on["temperature"] is None else on["temperature"]),
    }
    x: Array = np.asarray(logits, dtype=np.float64)
    for name in ORDER:
        x = stages[name](x)
    return probabilities(x)


def chi_square(counts: npt.NDArray[np.int64], expected: Array) -> float:
    """How many standard deviations counts are from what `expected` probabilities give: Pearson's statistic with rare
    tokens pooled, in the approximation of Wilson and Hilferty. Infinite when a token of probability 0 occurs.
    """
    if counts[expected == 0].sum():
        return float("inf")
    n = int(counts.sum())
    often = expected * n >= 5
    observed = np.append(counts[often], counts[~often].sum()).astype(np.float64)
    wanted = np.append(expected[often], expected[~often].sum()) * n
    if wanted[-1] < 5:  # too rare even together: into the most frequent cell
        big = int(wanted[:-1].argmax())
        observed[big] += observed[-1]
        wanted[big] += wanted[-1]
        observed, wanted = observed[:-1], wanted[:-1]
    freedom = len(wanted) - 1
    if freedom == 0:
        return 0.0
    statistic = float(((observed - wanted) ** 2 / wanted).sum())
    spread = 2 / (9 * freedom)
    return float(((statistic / freedom) ** (1 / 3) - (1 - spread)) / spread**0.5)
