"""Checkpoints of transformers as GGUF files."""

from __future__ import annotations

import os

from fastq import _fastq

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from fastq.results import ConvertResult

__all__ = ["convert"]


def convert(
    directory: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    dtype: str = "auto",
    pre: str | None = None,
    name: str | None = None,
    progress: Callable[[str, int, int], object] | None = None,
) -> ConvertResult:
    """Convert a Hugging Face checkpoint to a GGUF file, without PyTorch.

    Checkpoints that GPTQ, AWQ, compressed-tensors or MLX have quantized to four bits keep their integers (as Q4_0 where
    they lie around 8, else as Q4_1); only scales are rounded to f16. What has no such place becomes floats, and is
    noted.

    Args:
        directory: The folder with ``config.json``, safetensors files (F32, F16 or BF16) and a tokenizer.
        out: The file to write; it appears whole or not at all.
        dtype: Type of the matrices: ``"auto"`` (as in the checkpoint), ``"f32"``, ``"f16"``, ``"bf16"`` or ``"q8_0"``.
            Vectors and norms are F32.
        pre: llama.cpp's name for the way in which words are cut, where it does not follow from ``tokenizer.json``.
        name: Name of the model in the file, instead of that of its folder.
        progress: Called as ``progress(stage, done, total)`` from time to time; what it raises ends the conversion.

    Returns:
        What was written. Its notes say what was lost or left out; each is logged as a warning, too.

    Raises:
        FileNotFoundError: The folder or one of its files is missing.
        OSError: The system refuses to read or write.
        ModelFileError: A file is damaged, or files contradict each other.
        UnsupportedModelError: An architecture, setting or kind of quantization that cannot be converted.
        TokenizerError: A tokenizer that GGUF has no words for, or whose ``pre`` is not known.
        ValueError: ``dtype`` or ``pre`` is no such name, or ``out`` is a file of the checkpoint.

    Example:
        >>> import fastq
        >>> fastq.convert("no/such/folder", "model.gguf")
        Traceback (most recent call last):
            ...
        FileNotFoundError: [Errno 2] no such file: 'no/such/folder'
    """
    from fastq.results import ConvertNote, ConvertResult

    record = _fastq.convert(os.fspath(directory), os.fspath(out), dtype, pre, name, progress)
    notes = [ConvertNote(*note) for note in record.pop("notes")]
    if notes:
        import logging

        logger = logging.getLogger("fastq")
        for note in notes:
            logger.warning("%s: %s", note.subject, note.text)
    return ConvertResult(**record, notes=notes)
