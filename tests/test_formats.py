"""Block formats against independent decoders and encoders: bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fastq
import tiny
from reference.formats import CODECS

BLOCKED = [name for name, codec in CODECS.items() if codec.quantized()]
NEEDS_IMPORTANCE = ["IQ1_S", "IQ2_XXS", "IQ2_XS"]
IGNORES_IMPORTANCE = ["Q8_0", "MXFP4", "NVFP4", "Q1_0", "Q2_0", "TQ1_0", "TQ2_0"]


def same_bits(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> bool:
    """Equal bits; of two NaN the payload does not matter."""
    nan = np.isnan(b)
    if a.shape != b.shape or not np.array_equal(np.isnan(a), nan):
        return False
    return np.array_equal(a[~nan].view(np.uint32), b[~nan].view(np.uint32))


def oracle(name: str, rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The `gguf` package's decoder; for Q1_0, which it lacks, `libgguf`'s; for Q2_0, which both lack, by hand."""
    gguf: Any = pytest.importorskip("gguf", reason="the gguf package is not installed")
    if name == "Q1_0":
        libgguf: Any = pytest.importorskip("libgguf", reason="the libgguf package is not installed")
        decoded: npt.NDArray[np.float32] = np.asarray(libgguf.dequantize_rows(rows, gguf.GGMLQuantizationType(41)))
        return decoded
    if name == "Q2_0":
        d = rows.reshape(-1, 18)[:, :2].copy().view("<f2").astype(np.float32)
        q = [rows.reshape(-1, 18)[:, 2 + i // 4] >> 2 * (i % 4) & 3 for i in range(64)]
        with np.errstate(invalid="ignore"):
            decoded = d * (np.stack(q, axis=1).astype(np.float32) - 1)
        return decoded.reshape(len(rows), -1)
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
            expected = oracle(name, rows)
        assert same_bits(ours, expected)

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
    elif kind == "tiny":
        x *= 1e-17
    elif kind == "nothing":
        x *= 0
    elif kind == "large":
        x *= 1e3
    return x.astype(np.float32)


def reference_quantizer(
    name: str, x: npt.NDArray[np.float32], importance: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.uint8]:
    libgguf: Any = pytest.importorskip("libgguf", reason="the libgguf package is not installed")
    return np.asarray(libgguf.quantize_rows(x, libgguf.GGMLQuantizationType[name], importance))


def q2_0(x: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Q2_0, which `libgguf` does not know: the largest magnitude as scale, the rest rounded half away from zero."""
    blocks = x.reshape(-1, 64)
    d = np.abs(blocks).max(axis=1, keepdims=True)
    scaled = blocks * np.divide(np.float32(1), d, out=np.zeros_like(d), where=d > 0)
    q = (np.trunc(scaled + np.copysign(np.float32(0.5), scaled)) + 1).clip(0, 3).astype(np.uint8).reshape(-1, 16, 4)
    packed = q[:, :, 0] | q[:, :, 1] << 2 | q[:, :, 2] << 4 | q[:, :, 3] << 6
    return np.concatenate([d.astype("<f2").view(np.uint8), packed], axis=1).reshape(len(x), -1)


@pytest.mark.parametrize("exponent", [-120, -64, -31, -8, -1, 0, 1, 2, 3, 7, 8, 32, 64, 100])
def test_mxfp4_exponents_around_powers_of_two(exponent: int) -> None:
    """It comes from a logarithm that is rounded to float32: just below a power of two it may be that power's."""
    bits = np.full(256, np.ldexp(1.0, exponent), np.float32).view(np.uint32) + np.uint32(2)
    x = np.zeros((256, 32), np.float32)
    x[:, 5] = (bits - np.arange(256, dtype=np.uint32)).view(np.float32)
    assert np.array_equal(fastq.quantize_array(x, "MXFP4"), reference_quantizer("MXFP4", x))


@pytest.mark.parametrize("kind", ["normal", "outliers", "one sign", "zeros", "constant", "grid", "small", "large"])
@pytest.mark.parametrize("name", [*(name for name in BLOCKED if name not in NEEDS_IMPORTANCE), "F16", "BF16"])
def test_quantize_is_byte_exact(name: str, kind: str) -> None:
    """The reference quantizers give the bytes of ggml's own, which `libgguf` packages."""
    x = weights(kind)[: 4 if name.startswith(("IQ1", "IQ2", "IQ3")) else 32]
    ours = fastq.quantize_array(x, name)
    if name in ("F16", "BF16"):
        assert np.array_equal(ours.ravel(), tiny.encode_floats(tiny.FORMATS[name], x.ravel()))
        return
    wanted = q2_0(x) if name == "Q2_0" else reference_quantizer(name, x)
    different = np.flatnonzero((ours != wanted.reshape(ours.shape)).any(axis=1))
    assert ours.dtype == np.uint8
    assert not different.size, f"rows {different[:5]} of {len(x)} differ"


def importances(k: int) -> dict[str, npt.NDArray[np.float32]]:
    """Importance `(k,)` of the kinds that real inputs have, and of those that searches stumble over."""
    rng = np.random.default_rng(k)
    squares = rng.standard_normal(k) ** 2
    kinds = {
        "squares": squares,
        "wide": np.exp(4 * rng.standard_normal(k)),
        "large": squares * 1e8,
        "some zero": squares * (rng.random(k) < 0.5),
        "zero blocks": squares * np.repeat(rng.random(k // 32) < 0.5, 32),
        "all zero": np.zeros(k),
    }
    return {kind: values.astype(np.float32) for kind, values in kinds.items()}


@pytest.mark.parametrize(
    "kind", ["normal", "outliers", "one sign", "zeros", "constant", "grid", "small", "tiny", "large", "nothing"]
)
@pytest.mark.parametrize("name", [name for name in BLOCKED if name != "Q2_0"])
def test_quantize_with_importance_is_byte_exact(name: str, kind: str) -> None:
    """As ggml's quantizers with an importance matrix, for rows of one super-block and of several."""
    for k in (96, 1024) if CODECS[name].block == 32 else (256, 768):
        x = np.ascontiguousarray(weights(kind)[:4, :k])
        for importance_kind, importance in importances(k).items():
            ours = fastq.quantize_array(x, name, importance)
            wanted = reference_quantizer(name, x, importance)
            assert np.array_equal(ours, wanted.reshape(ours.shape)), f"{k} weights, importance: {importance_kind}"


@pytest.mark.parametrize("name", BLOCKED)
def test_no_values_and_no_importance_crash(name: str) -> None:
    """NaN, infinities, any bits and negative importance give some blocks."""
    rng = np.random.default_rng(1)
    k = 2 * CODECS[name].block
    bits = rng.integers(0, 2**32, (4, k), dtype=np.uint32).view(np.float32)
    for importance in (np.full(k, np.nan, np.float32), -np.ones(k, np.float32), bits[0]):
        for x in (bits, np.full((1, k), np.inf, np.float32), np.ones((1, k), np.float32)):
            assert fastq.quantize_array(x, name, importance).shape == (len(x), 2 * CODECS[name].size)


@pytest.mark.parametrize("name", BLOCKED)
def test_round_trip_is_close(name: str) -> None:
    """What comes back differs from the weights by no more than the type's steps allow."""
    x = weights("normal")
    ones = np.ones(x.shape[1], np.float32) if name in NEEDS_IMPORTANCE else None
    y = fastq.dequantize_array(fastq.quantize_array(x, name, ones), name)
    bits = 8 * CODECS[name].size / CODECS[name].block
    # A uniform quantizer of b bits over +-3 sigma has an error of 6 / (2^b sqrt(12)); scales cost half a bit and more.
    assert np.sqrt(np.mean((x - y) ** 2)) < 6 / 2 ** (bits - 1) / 12**0.5


def test_a_scale_in_another_tensor_is_refused(tmp_path: Path) -> None:
    """NVFP4 files may hold a factor per matrix. Without it the answers would be wrong."""
    pairs, tensors = tiny.contents(tiny.Tiny(format="NVFP4"))
    scale = tiny.Tensor("blk.0.attn_q.scale", None, 1, tiny.FORMATS["F32"], "norm")
    path = tmp_path / "scaled.gguf"
    with open(path, "wb") as file:
        tiny.write_file(file, pairs, [*tensors, (len(tensors), scale)], 0)
    with pytest.raises(fastq.UnsupportedModelError, match=r"blk\.0\.attn_q\.scale"):
        fastq.Model(path)


def test_list_of_formats() -> None:
    """Names, blocks and bytes of the engine's list are those of the twin's."""
    ours = {f.name: f for f in fastq.formats()}
    assert set(CODECS) <= set(ours)
    for name, form in tiny.FORMATS.items():
        found = ours[name]
        assert (found.id, found.block, found.bytes) == (form.type_id, form.block, form.size)
        assert found.needs_importance == (name in NEEDS_IMPORTANCE)
        assert found.uses_importance == (form.block > 1 and name not in IGNORES_IMPORTANCE)


@pytest.mark.parametrize("name", NEEDS_IMPORTANCE)
def test_types_that_need_importance(name: str) -> None:
    """Without importance they are a `ValueError` that names them."""
    block = CODECS[name].block
    for rows in (np.zeros((2, block), np.float32), np.zeros(block, np.float32)):
        with pytest.raises(ValueError, match=f"{name} needs the importance"):
            fastq.quantize_array(rows, name)
        assert fastq.quantize_array(rows, name, np.ones(block, np.float32)).any() == 0


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
    with pytest.raises(ValueError, match=r"importance has 3 values, the rows have \d+"):
        fastq.quantize_array(np.zeros((2, block), np.float32), name, np.ones(3, np.float32))
    with pytest.raises(TypeError):
        fastq.quantize_array(np.zeros((2, block), np.float32), name, np.ones(block, np.float64))
    strided = np.asfortranarray(weights("normal")[:, : 2 * block])
    contiguous = np.ascontiguousarray(strided)
    assert np.array_equal(fastq.quantize_array(strided, name), fastq.quantize_array(contiguous, name))
    assert fastq.quantize_array(np.zeros((0, block), np.float32), name).shape == (0, size)
