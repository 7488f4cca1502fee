"""Functions of the user that change logits or end answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LogitsProcessor",
    "LogitsProcessorList",
    "MinTokensLogitsProcessor",
    "StoppingCriteria",
    "StoppingCriteriaList",
]

LogitsProcessor = Callable[[NDArray[np.intc], NDArray[np.single]], NDArray[np.single]]
"""Takes the tokens so far, prompt included, and the logits of the next; returns those to be used."""

StoppingCriteria = Callable[[NDArray[np.intc], NDArray[np.single]], bool]
"""Takes the tokens so far, prompt included, and the logits of the next; whether the answer ends before it."""


class LogitsProcessorList(list[LogitsProcessor]):
    """Processors that are applied one after the other."""

    def __call__(self, input_ids: NDArray[np.intc], scores: NDArray[np.single]) -> NDArray[np.single]:
        """The logits after all processors."""
        for processor in self:
            scores = processor(input_ids, scores)
        return scores


class StoppingCriteriaList(list[StoppingCriteria]):
    """Criteria of which one is enough to end an answer."""

    def __call__(self, input_ids: NDArray[np.intc], logits: NDArray[np.single]) -> bool:
        """Whether any of them says so."""
        return any([criterion(input_ids, logits) for criterion in self])  # noqa: C419 - all are asked: they may count


class MinTokensLogitsProcessor:
    """Forbids the end token until an answer has some length. One object serves one answer.

    Args:
        min_tokens: Tokens before the end may come.
        token_eos: The end token.
    """

    def __init__(self, min_tokens: int, token_eos: int) -> None:
        self.min_tokens = min_tokens
        self.token_eos = token_eos
        self.prompt_tokens: int | None = None

    def __call__(self, input_ids: NDArray[np.intc], scores: NDArray[np.single]) -> NDArray[np.single]:
        """The logits, that of the end token possibly at minus infinity."""
        if self.prompt_tokens is None:
            self.prompt_tokens = len(input_ids)
        if len(input_ids) - self.prompt_tokens < self.min_tokens:
            scores[self.token_eos] = -np.inf
        return scores


def functions(given: Any, name: str) -> list[Callable[..., Any]]:
    """The functions of an argument: a list, one of the list types above, or a single function.

    Raises:
        TypeError: It is something else; the message names the argument.
    """
    if given is None:
        return []
    if isinstance(given, Iterable):
        items = list(given)
        if all(callable(item) for item in items):
            return items
    elif callable(given):
        return [given]
    raise TypeError(f"{name}: expected functions, found {given!r}")


class Hook:
    """Calls functions of the user before each token is chosen, in the form that the engine has for that.

    Args:
        prompt: Number of tokens of the prompt.
        processors: Change the logits.
        criteria: End the answer.

    Attributes:
        stopped: The tokens of the answer when a criterion ended it, else ``None``.
        cancel: What ends the answer.
    """

    def __init__(
        self, prompt: int, processors: Sequence[Callable[..., Any]], criteria: Sequence[Callable[..., Any]]
    ) -> None:
        self.prompt = prompt
        self.processors = processors
        self.criteria = criteria
        self.stopped: list[int] | None = None
        self.cancel: Callable[[], None] = lambda: None

    def __call__(self, ids: Sequence[int], logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """The logits to choose from."""
        if self.stopped is not None:
            return logits
        tokens = np.array(ids, dtype=np.intc)
        # Each is asked: they may count their calls.
        if any([criterion(tokens, logits) for criterion in self.criteria]):  # noqa: C419
            self.stopped = [int(token) for token in ids[self.prompt :]]
            self.cancel()
            return logits
        for processor in self.processors:
            logits = processor(tokens, logits)
        return np.asarray(logits, dtype=np.float32)
