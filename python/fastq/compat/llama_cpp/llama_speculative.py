"""Guessing tokens ahead. Answers stay the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LlamaDraftModel", "LlamaPromptLookupDecoding"]


class LlamaDraftModel:
    """Something that guesses the tokens that come next.

    Subclasses of the user are accepted by :class:`Llama` but not asked: fastq guesses from the text itself, with the
    same answers.
    """

    def __call__(self, input_ids: NDArray[np.intc], /, **kwargs: Any) -> NDArray[np.intc]:
        """The guess after some tokens."""
        raise NotImplementedError


class LlamaPromptLookupDecoding(LlamaDraftModel):
    """Guesses what followed the last tokens when they were there before. It is ``speculate="ngram"`` of fastq.

    Args:
        max_ngram_size: Longest run of tokens that is looked for; only used where the object is called.
        num_pred_tokens: Most tokens to guess; only used where the object is called.
    """

    def __init__(self, max_ngram_size: int = 2, num_pred_tokens: int = 10) -> None:
        self.max_ngram_size = max_ngram_size
        self.num_pred_tokens = num_pred_tokens

    def __call__(self, input_ids: NDArray[np.intc], /, **kwargs: Any) -> NDArray[np.intc]:
        """What followed the first occurrence of the longest run that the tokens end with; empty without one."""
        ids = np.asarray(input_ids, dtype=np.intc)
        for size in range(min(self.max_ngram_size, len(ids) - 1), 0, -1):
            for end in range(size, len(ids)):
                if np.array_equal(ids[end - size : end], ids[-size:]):
                    return ids[end : end + self.num_pred_tokens]
        return np.empty(0, dtype=np.intc)
