"""Linear quantization of arrays, as textbooks have it: integers on a line, a scale and a zero for each group."""

from __future__ import annotations

from fastq import _fastq

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Affine", "affine"]


class Affine:
    """Integers with the scales and zeros that make weights of them: ``scale * (q - zero)``.

    Attributes:
        q: int8 (uint8 with ``signed=False``), of the shape of the weights.
        scale: float32, the step between two integers: ``()`` per tensor, ``(channels,)`` per channel,
            ``(..., k / group)`` per group. Some texts call its reciprocal the scale, and write
            ``q = round(s * w) + z``: that is ``multiplier``.
        zero: int16 of the same shape, the integer that stands for 0.0.
        bits: Bits of an integer.
        effective_bits: Bits per weight with scales and zeros counted.
    """

    __slots__ = ("_axis", "_group", "bits", "effective_bits", "q", "scale", "zero")

    def __init__(
        self,
        q: NDArray[np.int8] | NDArray[np.uint8],
        scale: NDArray[np.float32],
        zero: NDArray[np.int16],
        bits: int,
        effective_bits: float,
        axis: int | None,
        group: int | None,
    ) -> None:
        self.q, self.scale, self.zero, self.bits, self.effective_bits = q, scale, zero, bits, effective_bits
        self._axis, self._group = axis, group

    def __repr__(self) -> str:
        return f"Affine({self.q.shape}, {self.bits} bits, {self.effective_bits:.3f} effective)"

    @property
    def multiplier(self) -> NDArray[np.float32]:
        """``1 / scale``."""
        import numpy as np

        return np.reciprocal(self.scale)

    def dequantize(self) -> NDArray[np.float32]:
        """The weights that the integers stand for, float32 of the shape of ``q``."""
        import numpy as np

        q, scale, zero = self.q.astype(np.float32), self.scale, self.zero.astype(np.float32)
        if self._group is not None:
            parts = q.reshape(*scale.shape, self._group)
            return ((parts - zero[..., None]) * scale[..., None]).reshape(q.shape)
        if self._axis is not None:
            shape = [1] * q.ndim
            shape[self._axis] = -1
            scale, zero = scale.reshape(shape), zero.reshape(shape)
        weights: NDArray[np.float32] = (q - zero) * scale
        return weights


def affine(
    w: ArrayLike,
    *,
    bits: int = 8,
    symmetric: bool = False,
    axis: int | None = None,
    group: int | None = None,
    signed: bool = True,
    scale_bits: Literal[16, 32] = 32,
    zero_bits: int | None = None,
) -> Affine:
    """Quantize an array linearly.

    Asymmetric, the range from the smallest to the largest weight (with 0.0 inside) is spread over all ``2**bits``
    integers. Symmetric, the largest magnitude becomes ``2**(bits - 1) - 1`` on either side of zero. Integers are
    rounded to nearest, halves to even.

    Args:
        w: Weights of any shape and type of numbers.
        bits: 2 to 8.
        symmetric: Whether zero is in the middle of the integers.
        axis: One scale for every index of this axis (per channel).
        group: One scale for so many neighbours of the last axis. Without ``axis`` and ``group`` there is one scale.
        signed: int8 from ``-2**(bits - 1)``; else uint8 from 0.
        scale_bits: 32, or 16: scales are then rounded to float16 before the integers are computed.
        zero_bits: Bits that a zero takes, for ``effective_bits``: by default as many as a scale, and none for
            symmetric ones.

    Returns:
        Integers, scales and zeros.

    Raises:
        ValueError: ``bits``, ``axis`` or ``group`` does not fit, or a weight is not finite.
        TypeError: ``w`` is not an array of numbers.

    Example:
        >>> import numpy as np
        >>> from fastq.quant import affine
        >>> a = affine(np.array([-24.43, -17.4, 1.2345, 12.654]))
        >>> a.q.tolist(), int(a.zero), round(float(a.multiplier), 4)
        ([-128, -80, 48, 127], 40, 6.8763)
        >>> affine(np.ones((2, 64)), bits=4, group=64).effective_bits  # (4 * 64 + 32 + 32) / 64
        5.0
    """
    import numpy as np

    w = np.asarray(w)
    if not np.issubdtype(w.dtype, np.number) or np.issubdtype(w.dtype, np.complexfloating):
        raise TypeError(f"w must be an array of numbers, found {w.dtype}")
    if w.size == 0:
        raise ValueError("w has no weights")
    if scale_bits not in (16, 32):
        raise ValueError(f"scale_bits must be 16 or 32, found {scale_bits}")
    rows = np.asarray(w, dtype=np.float32, order="C")  # ascontiguousarray makes a row of a single number
    if axis is not None and group is not None:
        raise ValueError("axis and group exclude each other: a scale is for a channel or for a group")
    if axis is not None:
        if not -w.ndim <= axis < w.ndim:
            raise ValueError(f"axis must be one of the {w.ndim} of w, found {axis}")
        axis %= w.ndim
        rows = np.ascontiguousarray(np.moveaxis(rows, axis, 0))
        shape: tuple[int, ...] = (w.shape[axis],)
    elif group is not None:
        if w.ndim == 0 or group < 1 or w.shape[-1] % group:
            raise ValueError(f"group must divide the last axis of w, {w.shape}; found {group}")
        shape = (*w.shape[:-1], w.shape[-1] // group)
    else:
        shape = ()
    count = int(np.prod(shape, dtype=np.int64))
    size = w.size // count
    raw, scale, zero = _fastq.affine(rows.reshape(-1), size, bits, signed, symmetric, scale_bits == 16)
    integers = raw.reshape(rows.shape)
    if axis is not None:
        integers = np.ascontiguousarray(np.moveaxis(integers, 0, axis))
    q = integers.view(np.int8) if signed else integers
    if zero_bits is None:
        zero_bits = 0 if symmetric else scale_bits
    effective = (bits * size + scale_bits + zero_bits) / size
    return Affine(q, scale.reshape(shape), zero.reshape(shape), bits, effective, axis, group)
