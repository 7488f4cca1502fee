"""Block formats on NumPy arrays: encode and decode weights as GGUF files store them."""

from __future__ import annotations

from fastq import _fastq

TYPE_CHECKING = False
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fastq.results import FormatInfo

__all__ = ["dequantize_array", "formats", "quantize_array"]


def formats() -> list[FormatInfo]:
    """The block formats that have kernels.

    Example:
        >>> import fastq
        >>> {f.name: f.bits_per_weight for f in fastq.formats()}["Q4_K"]
        4.5
    """
    from fastq.results import FormatInfo

    return [FormatInfo(*entry) for entry in _fastq.formats()]


def quantize_array(
    values: NDArray[np.float32],
    format: str,  # noqa: A002 - the field's word
    importance: NDArray[np.float32] | None = None,
) -> NDArray[np.uint8]:
    """Encode rows of weights, byte for byte as ggml's quantizers do.

    Args:
        values: float32 ``(rows, k)`` or ``(k,)``; ``k`` is a multiple of the format's block.
        format: Name of the format in any case, such as ``"Q4_K"``.
        importance: float32 ``(k,)``, not negative: how much an error of each weight of a row matters, such as the mean
            square of the input that it is multiplied with. Formats for which ggml ignores it ignore it: see
            `FormatInfo.uses_importance` and `FormatInfo.needs_importance`.

    Returns:
        uint8 ``(rows, row_bytes)`` or ``(row_bytes,)``.

    Raises:
        ValueError: The format is unknown, ``k`` is not a multiple of its block, ``importance`` has another
            length, or there is none and the format needs it.
        TypeError: ``values`` is not a float32 array of one or two dimensions, or ``importance`` not one of one
            dimension.

    Example:
        >>> import fastq, numpy as np
        >>> fastq.quantize_array(np.ones((2, 64), np.float32), "Q8_0").shape
        (2, 68)
        >>> fastq.quantize_array(np.ones(256, np.float32), "IQ2_XS", importance=np.ones(256, np.float32)).shape
        (74,)
    """
    return _fastq.quantize_array(values, format, importance)


def dequantize_array(data: NDArray[np.uint8], format: str) -> NDArray[np.float32]:  # noqa: A002 - the field's word
    """Decode rows of blocks, bit for bit as the ``gguf`` package does.

    Args:
        data: uint8 ``(rows, row_bytes)`` or ``(row_bytes,)``.
        format: Name of the format in any case.

    Returns:
        float32 ``(rows, k)`` or ``(k,)``.

    Raises:
        ValueError: The format is unknown, or a row is not a whole number of blocks.
        TypeError: ``data`` is not a uint8 array of one or two dimensions.

    Example:
        >>> import fastq, numpy as np
        >>> x = np.linspace(-1, 1, 32, dtype=np.float32)
        >>> bool(np.abs(fastq.dequantize_array(fastq.quantize_array(x, "Q8_0"), "Q8_0") - x).max() < 0.005)
        True
    """
    return _fastq.dequantize_array(data, format)
