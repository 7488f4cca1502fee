"""The sampler's stages on plain arrays of logits `(vocabulary,)`, and the distribution that a chain of them draws from.

A stage gives new logits; a token that is cut gets minus infinity. The order is llama.cpp's, unless there is a `chain`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
ORDER = ("penalties", "dry", "top_n_sigma", "top_k", "typical_p", "top_p", "min_p", "xtc", "temperature")


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


def dry(
    logits: Array, last: Sequence[int], multiplier: float, base: float, allowed: int, breakers: Collection[int]
) -> Array:
    """DRY: what would go on with an earlier stretch of the `last` tokens loses by the length of that stretch.
    `breakers` are the tokens that hold a sequence breaker.
    """
    out: Array = logits.copy()
    unbroken = next((n for n, token in enumerate(reversed(last)) if token in breakers), len(last))
    longest: dict[int, int] = {}
    for end in range(1, len(last)):
        length = 0
        while length < end and last[end - 1 - length] == last[-1 - length]:
            length += 1
        longest[last[end]] = max(longest.get(last[end], 0), min(length, unbroken))
    for token, length in longest.items():
        if length >= allowed and unbroken >= allowed and len(last) > allowed and token not in breakers:
            out[token] -= multiplier * base ** (length - allowed)
    return out


def temperature(logits: Array, t: float, spread: float = 0.0, exponent: float = 1.0) -> Array:
    """Temperature, dynamic with a `spread`: between its ends by the entropy as a share of the largest possible one."""
    if t == 0:
        return only(logits, np.array([int(logits.argmax())]))
    candidates = int(np.isfinite(logits).sum())
    if spread > 0 and candidates > 1:
        p = probabilities(logits)
        entropy = -float((p[p > 0] * np.log(p[p > 0])).sum()) / float(np.log(candidates))
        t = max(0.0, t - spread) + (t + spread - max(0.0, t - spread)) * entropy**exponent
    return logits / t


def top_n_sigma(logits: Array, n: float) -> Array:
    """Top-n-sigma (arXiv 2411.07641)."""
    finite = logits[np.isfinite(logits)]
    return logits if n <= 0 else only(logits, logits >= finite.max() - n * finite.std())


def xtc(logits: Array, threshold: float) -> Array:
    """Exclude top choices, where it takes place: of the tokens that reach the threshold the least likely one stays."""
    order = np.argsort(-logits, kind="stable")
    top = int((probabilities(logits) >= threshold).sum())
    return only(logits, order[max(0, top - 1) :])


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
    """Probabilities of the next token under options named as those of `Model.generate`; what is left out is off.
    `dry_breakers` are the tokens that hold a sequence breaker.
    """
    chance = options.get("xtc_probability", 0.0)
    if 0 < chance < 1:  # a mixture of two chains
        with_xtc, without = ({**options, "xtc_probability": p} for p in (1.0, 0.0))
        mixed: Array = chance * distribution(logits, last, **with_xtc) + (1 - chance) * distribution(
            logits, last, **without
        )
        return mixed
    on: dict[str, Any] = dict.fromkeys(ORDER) | options
    repeat = on.get("repeat_penalty", 1.0), on.get("presence_penalty", 0.0), on.get("frequency_penalty", 0.0)
    recent = on.get("repeat_last_n", 64)
    repetition = on.get("dry_multiplier", 0.0), on.get("dry_base", 1.75), on.get("dry_allowed_length", 2)
    spread = on.get("dynatemp_range", 0.0), on.get("dynatemp_exponent", 1.0)
    stages: dict[str, Callable[[Array], Array]] = {
        "penalties": lambda x: penalties(x, last[max(0, len(last) - recent) :], *repeat),
        "dry": lambda x: dry(x, last, *repetition, on.get("dry_breakers", ())),
        "top_n_sigma": lambda x: top_n_sigma(x, on["top_n_sigma"] or 0.0),
        "top_k": lambda x: top_k(x, on["top_k"] or 0),
        "typical_p": lambda x: typical_p(x, on["typical_p"] or 1.0),
        "top_p": lambda x: top_p(x, on["top_p"] or 1.0),
        "min_p": lambda x: min_p(x, on["min_p"] or 0.0),
        "xtc": lambda x: xtc(x, on.get("xtc_threshold", 0.1)) if chance else x,
        "temperature": lambda x: temperature(x, 1.0 if on["temperature"] is None else on["temperature"], *spread),
    }
    x = logit_bias(np.asarray(logits, dtype=np.float64), on.get("logit_bias") or {})
    for name in ORDER if on.get("chain") is None else on["chain"]:
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
