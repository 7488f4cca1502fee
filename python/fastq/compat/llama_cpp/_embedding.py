"""Vectors for texts in the shape of the original."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastq.compat.llama_cpp import _constants as c
from fastq.compat.llama_cpp._arguments import POOLING

if TYPE_CHECKING:
    from fastq.compat.llama_cpp.llama import Llama
    from fastq.compat.llama_cpp.llama_types import CreateEmbeddingResponse


def pooling_type(llama: Llama) -> int:
    """What was asked for, else what the file says, else the mean."""
    asked: int = llama._arguments["pooling_type"]
    if asked != c.LLAMA_POOLING_TYPE_UNSPECIFIED:
        return asked
    of_file = int(llama._vocabulary.of_architecture("pooling_type", c.LLAMA_POOLING_TYPE_MEAN))
    return of_file if of_file in POOLING else c.LLAMA_POOLING_TYPE_MEAN


def vectors(llama: Llama, texts: str | list[str], normalize: bool, truncate: bool, return_count: bool) -> Any:
    """See :meth:`Llama.embed`."""
    if not llama._arguments["embedding"]:
        raise RuntimeError("Llama model must be created with embedding=True to call this method")
    pooling: Any = POOLING.get(pooling_type(llama))
    if pooling is None:
        raise NotImplementedError("pooling_type: vectors of single tokens are not given; leave it out for their mean")
    inputs = [texts] if isinstance(texts, str) else list(texts)
    counts = [len(llama.fastq_model.tokenize(text)) for text in inputs]
    context = llama.n_ctx()
    if not truncate and (most := max(counts, default=0)) > context:
        raise ValueError(f"Requested tokens ({most}) exceed batch size of {context}")
    rows: list[list[float]] = []
    if inputs:
        embedded = llama.fastq_model.embed(inputs, pooling=pooling, normalize=normalize, truncate=truncate)
        rows = embedded.tolist()
    output = rows[0] if isinstance(texts, str) else rows
    return (output, sum(min(count, context) for count in counts)) if return_count else output


def response(llama: Llama, texts: str | list[str], model: str | None) -> CreateEmbeddingResponse:
    """See :meth:`Llama.create_embedding`."""
    inputs = texts if isinstance(texts, list) else [texts]
    embedded, count = vectors(llama, inputs, normalize=False, truncate=True, return_count=True)
    return {
        "object": "list",
        "data": [{"object": "embedding", "embedding": row, "index": at} for at, row in enumerate(embedded)],
        "model": llama.model_path if model is None else model,
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }
