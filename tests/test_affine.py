"""Linear quantization of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastq.quant import affine


def test_the_example_of_the_textbook() -> None:
    """Its s is the multiplier: q = round(s * w) + z."""
    w = np.array([-24.43, -17.4, 1.2345, 12.654])
    a = affine(w, bits=8)
    assert round(float(a.multiplier), 4) == 6.8763
    assert a.q.dtype == np.int8
    assert (int(a.zero), a.q.tolist()) == (40, [-128, -80, 48, 127])
    assert np.array_equal(np.round(a.multiplier * w) + a.zero, a.q)
    assert np.abs(a.dequantize() - w).max() <= a.scale / 2 + 1e-6


def test_effective_bits() -> None:
    w = np.ones((4, 128), np.float32)
    assert affine(w, bits=4, group=64).effective_bits == (4 * 64 + 64) / 64 == 5.0
    assert affine(w, bits=4, group=32, scale_bits=16, symmetric=True).effective_bits == 4.5
    assert affine(w, bits=4, group=32, scale_bits=16, zero_bits=4).effective_bits == 4 + 20 / 32
    assert affine(w, bits=8, axis=0).effective_bits == 8 + 64 / 128
    assert affine(w, bits=2).effective_bits == 2 + 64 / 512


def definition(w: Any, bits: int, symmetric: bool, signed: bool) -> tuple[Any, Any, int]:
    """One group by the formulas, in float64."""
    low = -(2 ** (bits - 1)) if signed else 0
    high = low + 2**bits - 1
    if symmetric:
        scale, zero = np.abs(w).max() / (2 ** (bits - 1) - 1), low + 2 ** (bits - 1)
        low += 1
    else:
        scale = (max(w.max(), 0.0) - min(w.min(), 0.0)) / (2**bits - 1)
        zero = low - round(min(w.min(), 0.0) / np.float32(scale))
    scale = np.float32(scale)
    return np.clip(np.round(w / np.float64(scale)) + zero, low, high), scale, zero


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("where", [{}, {"axis": 0}, {"axis": -1}, {"axis": 1}, {"group": 8}])
def test_every_grid_is_its_definition(bits: int, signed: bool, symmetric: bool, where: dict[str, Any]) -> None:
    w = np.random.default_rng(bits).standard_normal((3, 5, 16)).astype(np.float32)
    a = affine(w, bits=bits, signed=signed, symmetric=symmetric, **where)
    assert a.q.shape == w.shape
    assert a.q.dtype == (np.int8 if signed else np.uint8)
    if "group" in where:
        groups, q = w.reshape(-1, 8), a.q.reshape(-1, 8)
        assert a.scale.shape == (3, 5, 2)
    elif "axis" in where:
        axis = where["axis"]
        groups, q = (
            np.moveaxis(w, axis, 0).reshape(w.shape[axis], -1),
            np.moveaxis(a.q, axis, 0).reshape(w.shape[axis], -1),
        )
    else:
        groups, q = w.reshape(1, -1), a.q.reshape(1, -1)
    for group, found, scale, zero in zip(groups, q, a.scale.reshape(-1), a.zero.reshape(-1), strict=True):
        expected, its_scale, its_zero = definition(group.astype(np.float64), bits, symmetric, signed)
        assert float(scale) == float(its_scale)
        assert int(zero) == its_zero
        assert np.array_equal(found, expected)
    assert np.abs(a.dequantize() - w).max() <= a.scale.max() * 0.501


def test_other_arrays() -> None:
    strided = np.arange(64, dtype=np.float64).reshape(8, 8)[::2, ::-1]
    assert np.array_equal(affine(strided, axis=1).q, affine(strided.copy(), axis=1).q)
    assert affine(np.zeros(4)).dequantize().tolist() == [0.0] * 4
    assert affine(np.float32(3.0)).q.shape == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 1}, "bits must be 2 to 8"),
        ({"bits": 9}, "bits must be 2 to 8"),
        ({"axis": 2}, "axis must be one of the 2"),
        ({"group": 5}, "group must divide the last axis"),
        ({"group": 0}, "group must divide"),
        ({"axis": 0, "group": 4}, "exclude each other"),
        ({"scale_bits": 8}, "scale_bits must be 16 or 32"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        affine(np.ones((4, 8)), **options)


def test_wrong_arrays() -> None:
    with pytest.raises(ValueError, match="weight 1 is NaN"):
        affine(np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="no weights"):
        affine(np.zeros((0, 4)))
    with pytest.raises(ValueError, match="more than 16 bits can hold"):
        affine(np.array([1e9, 1.0]), scale_bits=16)
    with pytest.raises(TypeError, match="array of numbers"):
        affine(np.array(["a"]))
