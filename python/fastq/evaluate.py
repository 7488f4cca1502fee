"""Calibrate a model, and measure how good one is."""

from __future__ import annotations

import os

from fastq import _fastq

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastq.model import Model
    from fastq.results import Calibration, Divergence, Perplexity

__all__ = ["calibrate", "kl_divergence", "perplexity"]


def _engine(model: Model | str | os.PathLike[str], context: int) -> _fastq.Engine:
    """The engine of a model, loaded for the purpose where a path is given."""
    from fastq.model import Model

    return (model if isinstance(model, Model) else Model(model, context=context))._engine


def _read(path: str | os.PathLike[str]) -> str:
    with open(path, encoding="utf-8", newline="") as file:
        return file.read()


def calibrate(
    model: Model | str | os.PathLike[str],
    texts: str | os.PathLike[str] | Sequence[str],
    out: str | os.PathLike[str],
    *,
    chunks: int | None = None,
    chunk_size: int = 512,
    chat: bool = False,
    process_output: bool = False,
    gram: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Calibration:
    """Learn from texts which weights matter, and write that as an importance matrix.

    The sums are those of ``llama-imatrix`` of llama.cpp: the text is cut into chunks in the same way, and the file, a
    GGUF file of type ``imatrix``, can be used by either program.

    Args:
        model: A model, or the path of one; best in 16 bits.
        texts: The path of a text file, or a list of texts, which are put behind each other. At least two chunks; some
            20,000 tokens of what the model will be used for are enough.
        out: The file to write. It appears when it is complete.
        chunks: The most chunks to compute; by default all.
        chunk_size: Tokens of a chunk.
        chat: The texts are conversations: each line is a JSON list of messages, or an object with a list ``messages``
            and perhaps ``tools``; the chat template of the model writes them.
        process_output: Look at the inputs of the output matrix, too.
        gram: Write the Gram matrices of the inputs instead, sums of products ``(k, k)``, a layer at a time: a GGUF file
            of type ``gram`` that ``fastq.quantize(calibration=)`` takes in place of the text.
        progress: Called with a stage, and how much of how much of it is done. What it raises stops the work.

    Returns:
        What was written.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The system refuses to read or write.
        ValueError: The text is too short, or a line is no conversation.
        TemplateError: The model has no chat template, or it refuses the messages.
        MemoryError: The hidden states of the text do not fit the memory.

    Example:
        >>> import fastq, os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "m.imatrix.gguf")
        >>> texts = ["The quick brown fox. " * 20]
        >>> fastq.calibrate(fastq.default_model(), texts, path, chunk_size=32, chunks=1).tensors
        210
    """
    from fastq.results import Calibration

    if isinstance(texts, (str, os.PathLike)):
        contents, datasets = [_read(texts)], [os.fspath(texts)]
    else:
        contents, datasets = list(texts), []
    engine = _engine(model, chunk_size)
    record = _fastq.calibrate(
        engine, contents, datasets, os.fspath(out), chunks, chunk_size, chat, process_output, gram, progress
    )
    return Calibration(os.fspath(out), *record)


def perplexity(
    model: Model | str | os.PathLike[str],
    text: str | os.PathLike[str],
    *,
    context: int = 512,
    chunks: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Perplexity:
    """How surprised a model is by a text: ``e`` to the mean negative log-probability of its tokens.

    The text is cut and scored as by ``llama-perplexity`` of llama.cpp: of each chunk, the tokens of the second half.

    Args:
        model: A model, or the path of one.
        text: The text, or an ``os.PathLike`` (such as ``pathlib.Path``) that names a text file. At least two chunks.
        context: Tokens of a chunk.
        chunks: The most chunks to compute; by default all.
        progress: Called with a stage, and how much of how much of it is done. What it raises stops the work.

    Returns:
        The perplexity with its standard error, and as it was after each chunk.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The text is too short, a chunk does not fit the context of the model, or the model predicts no
            tokens.

    Example:
        >>> import fastq
        >>> text = "The quick brown fox jumps over the lazy dog. " * 20
        >>> fastq.perplexity(fastq.default_model(), text, context=64, chunks=1).ppl < 3
        True
    """
    import json

    from fastq.results import Perplexity

    engine = _engine(model, context)
    return Perplexity(**json.loads(_fastq.perplexity(engine, _text(text), context, chunks, progress)))


def kl_divergence(
    base: Model | str | os.PathLike[str],
    quant: Model | str | os.PathLike[str],
    text: str | os.PathLike[str],
    *,
    context: int = 512,
    chunks: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Divergence:
    """How far the answers of a quantized model are from those of its base.

    The text is cut and scored as by :func:`perplexity`. Both models compute in turns, and no file of logits is needed.

    Args:
        base: The model that the other one was made of, or its path.
        quant: The quantized model, or its path.
        text: The text, or an ``os.PathLike`` that names a text file. At least two chunks.
        context: Tokens of a chunk.
        chunks: The most chunks to compute; by default all.
        progress: Called with a stage, and how much of how much of it is done. What it raises stops the work.

    Returns:
        The distribution of the divergences, agreement on the likeliest token, and both perplexities.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: As for :func:`perplexity`, and when the two do not have the same tokens.

    Example:
        >>> import fastq
        >>> m = fastq.Model(fastq.default_model(), context=64)
        >>> d = fastq.kl_divergence(m, m, "The quick brown fox. " * 40, context=64, chunks=1)
        >>> abs(d.mean) < 1e-6, d.same_top
        (True, 1.0)
    """
    import json

    from fastq.results import Divergence

    one, other = _engine(base, context), _engine(quant, context)
    return Divergence(**json.loads(_fastq.kl_divergence(one, other, _text(text), context, chunks, progress)))


def _text(text: str | os.PathLike[str]) -> str:
    return text if isinstance(text, str) else _read(text)
