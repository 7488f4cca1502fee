"""Block formats against independent decoders and encoders: bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fastq
import tiny
from reference.formats import CODECS

BLOCKED = [name for name, codec in CODECS.items() if codec.quantized() and tiny.FORMATS[name].quantizes]


def same_bits(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> bool:
    """Equal bits; of two NaN the payload does not matter."""
    nan = np.isnan(b)
    if a.shape != b.shape or not np.array_equal(np.isnan(a), nan):
        return False
    return np.array_equal(a[~nan].view(np.uint32), b[~nan].view(np.uint32))


def oracle(name: str, rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The `gguf` package's decoder."""
    gguf: Any = pytest.importorskip("gguf", reason="the gguf package is not installed")
    with np.errstate(all="ignore"):
        if name in ("F32", "F16"):
            return rows.view("<f4" if name == "F32" else "<f2").astype(np.float32)
        out: npt.NDArray[np.float32] = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[name])
        return out


def blocks(name: str, kind: str) -> npt.NDArray[np.uint8]:
    """Rows of bytes `(rows, row_bytes)`, two blocks each (F32: 64 weights)."""
    codec, rng = CODECS[name], np.random.default_rng(7)
    if kind == "every half":
        if codec.size == 2:
            return np.arange(65536, dtype="<u2").view(np.uint8).reshape(-1, 128)
        # Every f16 as scale (and minimum) of one block each.
        count = 65536 if codec.quantized() else 64
        data = rng.integers(0, 256, (count, codec.size), dtype=np.uint8)
        form = tiny.FORMATS[name]
        if form.d is not None:
            tiny.set_scale(form, data, np.arange(count, dtype="<u2"))
        return data.reshape(-1, 2 * codec.size if codec.quantized() else 256)
    count = 2048
    if kind == "wild":
        data = rng.integers(0, 256, (count, codec.size), dtype=np.uint8)
    else:
        data = tiny.random_blocks(rng, tiny.FORMATS[name], count, 0.05)
    return data.reshape(-1, codec.size * (2 if codec.quantized() else 64))


@pytest.mark.parametrize("kind", ["sane", "wild", "every half"])
@pytest.mark.parametrize("name", CODECS)
class TestDequantize:
    """Three decoders agree: the engine's, the twin's, and the one of the `gguf` package."""

    def test_twin(self, name: str, kind: str) -> None:
        rows = blocks(name, kind)
        with np.errstate(all="ignore"):
            ours = CODECS[name].decode(rows.reshape(-1, CODECS[name].size)).reshape(len(rows), -1)
        assert same_bits(ours, oracle(name, rows))

    def test_engine(self, name: str, kind: str) -> None:
        rows = blocks(name, kind)
        assert same_bits(fastq.dequantize_array(rows, name), oracle(name, rows))


def weights(kind: str) -> npt.NDArray[np.float32]:
    """Rows `(32, 1024)` of a kind that encoders stumble over."""
    rng = np.random.default_rng(3)
    shape = (32, 1024)
    x = rng.standard_normal(shape)
    if kind == "outliers":
        x *= np.where(rng.random(shape) < 0.01, 50, 1)
    elif kind == "one sign":
        x = np.abs(x)
    elif kind == "zeros":
        x *= np.repeat(rng.random((32, 32)) < 0.5, 32, axis=1)
    elif kind == "constant":
        x = np.repeat(rng.standard_normal((32, 32)), 32, axis=1)
    elif kind == "grid":  # ties of the rounding
        x = np.round(x * 8) / 8
    elif kind == "small":
        x *= 1e-6
    elif kind == "large":
        x *= 1e3
    return x.astype(np.float32)


@pytest.mark.parametrize("kind", ["normal", "outliers", "one sign", "zeros", "constant", "grid", "small", "large"])
@pytest.mark.parametrize("name", [*BLOCKED, "F16", "BF16"])
def test_quantize_is_byte_exact(name: str, kind: str) -> None:
    """The reference quantizers give the bytes of ggml's own, which `libgguf` packages."""
    x = weights(kind)
    ours = fastq.quantize_array(x, name)
    if name in ("F16", "BF16"):
        assert np.array_equal(ours.ravel(), tiny.encode_floats(tiny.FORMATS[name], x.ravel()))
        return
    gguf: Any = pytest.importorskip("gguf", reason="the gguf package is not installed")
    libgguf: Any = pytest.importorskip("libgguf", reason="the libgguf package is not installed")
    wanted = np.asarray(libgguf.quantize_rows(x, gguf.GGMLQuantizationType[name]))
    different = np.flatnonzero((ours != wanted.reshape(ours.shape)).any(axis=1))
    assert ours.dtype == np.uint8
    assert not different.size, f"rows {different[:5]} of {len(x)} differ"


@pytest.mark.parametrize("name", BLOCKED)
def test_round_trip_is_close(name: str) -> None:
    """What comes back differs from the weights by no more than the type's steps allow."""
    x = weights("normal")
    y = fastq.dequantize_array(fastq.quantize_array(x, name), name)
    bits = 8 * CODECS[name].size / CODECS[name].block
    # A uniform quantizer of b bits over +-3 sigma has an error of 6 / (2^b sqrt(12)); scales cost half a bit and more.
    assert np.sqrt(np.mean((x - y) ** 2)) < 6 / 2 ** (bits - 1) / 12**0.5


def test_list_of_formats() -> None:
    """Names, blocks and bytes of the engine's list are those of the twin's."""
    ours = {f.name: f for f in fastq.formats()}
    assert set(CODECS) <= set(ours)
    for name, form in tiny.FORMATS.items():
        found = ours[name]
        assert (found.id, found.block, found.bytes) == (form.type_id, form.block, form.size)
        assert found.quantizes == form.quantizes


@pytest.mark.parametrize("name", [name for name, form in tiny.FORMATS.items() if not form.quantizes])
def test_types_that_cannot_be_made(name: str) -> None:
    """Asking for a type without a quantizer is a `ValueError` that names it, for no rows too."""
    block = CODECS[name].block
    for rows in (np.zeros((2, block), np.float32), np.zeros(block, np.float32)):
        with pytest.raises(ValueError, match=f"no quantizer for {name}"):
            fastq.quantize_array(rows, name)


@pytest.mark.parametrize("name", ["Q4_0", "Q6_K"])
def test_arguments(name: str) -> None:
    """Wrong shapes, types and names are named, not read past."""
    block, size = CODECS[name].block, CODECS[name].size
    with pytest.raises(ValueError, match=r"\S"):
        fastq.quantize_array(np.zeros((2, block + 1), np.float32), name)
    with pytest.raises(ValueError, match=r"\S"):
        fastq.dequantize_array(np.zeros((2, size - 1), np.uint8), name)
    with pytest.raises(ValueError, match="Q9_Z"):
        fastq.quantize_array(np.zeros((2, block), np.float32), "Q9_Z")
    with pytest.raises(TypeError):
        fastq.quantize_array(np.zeros((2, block), np.float64), name)
    strided = np.asfortranarray(weights("normal")[:, : 2 * block])
    contiguous = np.ascontiguousarray(strided)
    assert np.array_equal(fastq.quantize_array(strided, name), fastq.quantize_array(contiguous, name))
    assert fastq.quantize_array(np.zeros((0, block), np.float32), name).shape == (0, size)
