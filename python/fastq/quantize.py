"""Make a model smaller."""

from __future__ import annotations

import os

from fastq import _fastq

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Literal

    from fastq.results import QuantizeResult

__all__ = ["quantize"]


def _calibration(calibration: str | os.PathLike[str] | Sequence[str] | None) -> tuple[str, str | None] | None:
    """The path of a file, or what the texts are called, and the texts."""
    if calibration is None:
        return None
    if isinstance(calibration, (str, os.PathLike)):
        return os.fspath(calibration), None
    return "texts", "".join(calibration)


def _size_of(size: int | str | None, bits: float | None, divergence: float | None) -> tuple[str, str] | None:
    """Kind and value of the one size that is asked for."""
    sizes = {"size": size, "bpw": bits, "kld": divergence}
    given = [(kind, str(value)) for kind, value in sizes.items() if value is not None]
    if len(given) > 1:
        raise ValueError("target_size, target_bpw and target_kld exclude each other")
    return given[0] if given else None


def quantize(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str] | None,
    target: str = "Q4_K_M",
    *,
    imatrix: str | os.PathLike[str] | None = None,
    calibration: str | os.PathLike[str] | Sequence[str] | None = None,
    own_text: int | None = None,
    target_size: int | str | None = None,
    target_bpw: float | None = None,
    target_kld: float | None = None,
    method: Literal["auto", "rtn", "search", "feedback", "awq"] = "auto",
    overrides: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
    output_type: str | None = None,
    embedding_type: str | None = None,
    pure: bool = False,
    allow_requantize: bool = False,
    threads: int | None = None,
    dry_run: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
    report: str | os.PathLike[str] | None = None,
) -> QuantizeResult:
    """Quantize a GGUF file into another one.

    The types of the tensors are those that ``llama-quantize`` of llama.cpp chooses for the same name, with the same
    fallbacks. The new file appears under its name when it is complete. Interrupted (Ctrl-C) or killed, it leaves what
    is done beside it, and the same call goes on from there; a call with other options starts anew. Any other error
    leaves nothing.

    Args:
        src: A model in F16, BF16 or F32; of a split model, the first file.
        dst: The file to write; ``None`` with ``dry_run``.
        target: A preset (``"Q4_K_M"``), a type (``"MXFP4"``) or ``"copy"``, in any case, with ``-``, ``_`` or
            nothing between its parts.
        imatrix: An importance matrix (GGUF, or the older binary format), which the types below three bits need.
        calibration: What shows the inputs of the layers: a text file, or texts, of which some 20,000 tokens of the kind
            that the model will meet are used and the first 1024 are needed; or a file that ``fastq.calibrate`` wrote
            with ``gram=True``. With text, inputs are those behind the layers that are quantized already: better.
        own_text: Tokens that the model writes itself (sampled at temperature 1, the same ones on every machine) to be
            calibrated with, beside ``calibration`` or alone; by default 20,480 beside text, else 0. Integers that are
            made for one text alone may be worse than rounding on another (arXiv 2410.17170). While it writes, its
            weights are in memory in 8 bits.
        target_size: Bytes that the file has at most, header and padding included, as a number or as ``"700MB"``. Types
            are chosen for it: what each tensor costs is measured on ``calibration`` (mean KL divergence), and dynamic
            programming finds the best choice. ``overrides`` and the types of output and embedding stay. The preset
            then says nothing but the file type that is written down.
        target_bpw: The same by bits of tensor data per weight.
        target_kld: The smallest file whose mean KL divergence from ``src`` on ``calibration`` is at most this, in nats.
        method: How weights become integers. ``"rtn"`` rounds, and gives the bytes of ggml. ``"search"`` looks for
            better scales. ``"feedback"`` makes good the error of each weight by those behind it (GPTQ, arXiv
            2210.17323), ``"awq"`` scales channels (arXiv 2306.00978); both need ``calibration``. ``"auto"`` scales
            channels where that helps, and takes of each matrix the one of rounding, search and feedback that costs
            least on a part of the calibration text that is kept for that; without ``calibration`` it is ``"search"``.
        overrides: Types of tensors whose name a regular expression (in the syntax of Rust's ``regex``) matches
            anywhere. The first that matches counts.
        output_type: Type of ``output.weight``, and of the embedding where that is the output, too.
        embedding_type: Type of ``token_embd.weight``.
        pure: One type for all matrices, instead of the mix of the preset.
        allow_requantize: Allow what loses most: quantizing weights that are quantized already.
        threads: Threads; by default what the machine grants.
        dry_run: Write nothing: sizes, and from a sample of the rows the expected error, seconds and memory.
        progress: Called with a stage, and how much of how much of it is done. What it raises stops the work.
        report: An HTML file to write the result to.

    Returns:
        Sizes, and the type and the error of every tensor.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The system refuses to read or write: a full disk, a read-only target.
        ModelFileError: The model is malformed, or has weights that are NaN, infinite or too large for the type.
        UnsupportedModelError: A tensor holds no weights.
        ValueError: An unknown type, an expression that matches nothing, a type that needs an importance matrix,
            weights that are quantized already, a target that is the source; a target size that no file has (the
            message names the smallest).
        MemoryError: A single row does not fit the memory.

    Example:
        >>> import fastq
        >>> r = fastq.quantize(fastq.default_model(), None, "q4-k-m", allow_requantize=True, dry_run=True)
        >>> r.target, r.types["Q5_0"], round(r.bits_per_weight, 2)
        ('Q4_K_M', 166, 6.17)
    """
    from collections.abc import Mapping

    from fastq.results import QuantizeResult

    if dst is None:
        if not dry_run:
            raise ValueError("dst is needed unless dry_run is set")
        dst = ""
    pairs = list(overrides.items() if isinstance(overrides, Mapping) else overrides or ())
    result = QuantizeResult.from_json(
        _fastq.quantize_file(
            os.fspath(src),
            os.fspath(dst),
            target,
            None if imatrix is None else os.fspath(imatrix),
            _calibration(calibration),
            own_text,
            _size_of(target_size, target_bpw, target_kld),
            method,
            pairs,
            output_type,
            embedding_type,
            pure,
            allow_requantize,
            threads,
            dry_run,
            progress,
        )
    )
    if report is not None:
        result.write_html(report)
    return result
