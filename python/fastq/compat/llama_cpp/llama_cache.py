"""Caches of prompts, which fastq does not need.

A model keeps what it computed for earlier texts and reuses the longest beginning that they have in common with the next
one. The classes are here so that programs that call ``set_cache`` run; nothing is stored in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["BaseLlamaCache", "LlamaCache", "LlamaDiskCache", "LlamaRAMCache"]

GIGABYTES_2 = 2 << 30


class BaseLlamaCache:
    """A cache that stays empty.

    Args:
        capacity_bytes: Has no effect.
    """

    def __init__(self, capacity_bytes: int = GIGABYTES_2) -> None:
        self.capacity_bytes = capacity_bytes

    @property
    def cache_size(self) -> int:
        """0."""
        return 0

    def __getitem__(self, key: Sequence[int]) -> Any:
        raise KeyError("Key not found")

    def __contains__(self, key: Sequence[int]) -> bool:
        return False

    def __setitem__(self, key: Sequence[int], value: Any) -> None:
        """The value is not kept."""


class LlamaRAMCache(BaseLlamaCache):
    """Stands for what the model itself keeps in memory."""


LlamaCache = LlamaRAMCache


class LlamaDiskCache(BaseLlamaCache):
    """Stands for what the model itself keeps in memory; nothing is written. ``fastq.Model(prompt_cache=)`` does that.

    Args:
        cache_dir: Has no effect.
        capacity_bytes: Has no effect.
    """

    def __init__(self, cache_dir: str = ".cache/llama_cache", capacity_bytes: int = GIGABYTES_2) -> None:
        super().__init__(capacity_bytes)
        self.cache_dir = cache_dir
