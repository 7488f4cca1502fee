"""Plain NumPy decoders of the block formats. All take blocks `(n, size)` of uint8 and give float32 `(n, block)`.

Layouts as in ggml's `ggml-common.h`. The results are bit-equal to those of the `gguf` package (tests/test_formats.py):
products of an f16 scale with small integers are exact in float32, so only the sum with a minimum rounds.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Codec:
    name: str
    type_id: int
    block: int
    size: int
    decode: Callable[[Bytes], Floats]

    def quantized(self) -> bool:
        return self.block > 1


def half(b: Bytes, at: int) -> Floats:
    """The f16 at byte `at` of every block, `(n, 1)`."""
    return np.ascontiguousarray(b[:, at : at + 2]).view("<f2").astype(np.float32)


def nibbles(b: Bytes) -> Bytes:
    """Low halves, then high halves: `(n, m)` to `(n, 2 m)`."""
    return np.concatenate([b & 15, b >> 4], axis=1)


def bits(b: Bytes) -> Bytes:
    """The bits of every byte, lowest first: `(n, m)` to `(n, 8 m)`."""
    return np.unpackbits(b, axis=1, bitorder="little")


def f32(b: Bytes) -> Floats:
    return np.ascontiguousarray(b).view("<f4").astype(np.float32)


def f16(b: Bytes) -> Floats:
    return np.ascontiguousarray(b).view("<f2").astype(np.float32)


def bf16(b: Bytes) -> Floats:
    return (np.ascontiguousarray(b).view("<u2").astype(np.uint32) << 16).view(np.float32)


def q4_0(b: Bytes) -> Floats:
    return half(b, 0) * (nibbles(b[:, 2:]).astype(np.float32) - 8)


def q4_1(b: Bytes) -> Floats:
    return half(b, 0) * nibbles(b[:, 4:]).astype(np.float32) + half(b, 2)


def q5_0(b: Bytes) -> Floats:
    q = nibbles(b[:, 6:]) | bits(b[:, 2:6]) << 4
    return half(b, 0) * (q.astype(np.float32) - 16)


def q5_1(b: Bytes) -> Floats:
    q = nibbles(b[:, 8:]) | bits(b[:, 4:8]) << 4
    return half(b, 0) * q.astype(np.float32) + half(b, 2)


def q8_0(b: Bytes) -> Floats:
    return half(b, 0) * b[:, 2:].view(np.int8).astype(np.float32)


def crumbs(b: Bytes) -> Bytes:
    """2-bit values of 64 bytes, `(n, 256)`: of each 32 bytes, all lowest pairs of bits, then the next ones, ..."""
    shifts = np.array([0, 2, 4, 6], np.uint8)[None, None, :, None]
    split: Bytes = b.reshape(-1, 2, 1, 32) >> shifts & np.uint8(3)
    return split.reshape(-1, 256)


def spread(x: Floats, times: int) -> Floats:
    """One value per sub-block to one per weight."""
    return np.repeat(x, times, axis=1)


def q2_k(b: Bytes) -> Floats:
    scale = half(b, 80) * (b[:, :16] & 15).astype(np.float32)
    minimum = half(b, 82) * (b[:, :16] >> 4).astype(np.float32)
    return spread(scale, 16) * crumbs(b[:, 16:80]).astype(np.float32) - spread(minimum, 16)


def q3_k(b: Bytes) -> Floats:
    # Sixteen 6-bit scales in twelve bytes: low halves in the nibbles of 8 bytes, high pairs of bits in the last four.
    low, high = nibbles(b[:, 96:104]), b[:, 104:108]
    scales = low | np.concatenate([high >> s & 3 for s in (0, 2, 4, 6)], axis=1) << 4
    # A clear bit of hmask lowers the weight by four; bit j of byte i belongs to weight 32 j + i.
    mask = b[:, :32]
    top = np.concatenate([mask >> j & 1 for j in range(8)], axis=1)
    q = crumbs(b[:, 32:96]).astype(np.float32) - 4 * (1 - top.astype(np.float32))
    return spread(half(b, 108) * (scales.astype(np.float32) - 32), 16) * q


def scales_and_minima(b: Bytes) -> tuple[Floats, Floats]:
    """Eight 6-bit scales and minima in twelve bytes (Q4_K, Q5_K)."""
    a, m, c = b[:, 0:4], b[:, 4:8], b[:, 8:12]
    scale = np.concatenate([a & 63, c & 15 | a >> 6 << 4], axis=1)
    minimum = np.concatenate([m & 63, c >> 4 | m >> 6 << 4], axis=1)
    return scale.astype(np.float32), minimum.astype(np.float32)


def pairs_of_32(b: Bytes) -> Bytes:
    """Nibbles of each 32 bytes: 32 low ones, then 32 high ones."""
    return nibbles(b.reshape(-1, 32)).reshape(len(b), -1)


def q4_k(b: Bytes) -> Floats:
    scale, minimum = scales_and_minima(b[:, 4:16])
    q = pairs_of_32(b[:, 16:]).astype(np.float32)
    return spread(half(b, 0) * scale, 32) * q - spread(half(b, 2) * minimum, 32)


def q5_k(b: Bytes) -> Floats:
    scale, minimum = scales_and_minima(b[:, 4:16])
    top = np.concatenate([b[:, 16:48] >> j & 1 for j in range(8)], axis=1)
    q = (pairs_of_32(b[:, 48:]) | top << 4).astype(np.float32)
    return spread(half(b, 0) * scale, 32) * q - spread(half(b, 2) * minimum, 32)


def q6_k(b: Bytes) -> Floats:
    # Of each 64 bytes ql: low nibbles are weights 0..63 of 128, high nibbles 64..127; qh has the two bits above.
    low = nibbles(b[:, :128].reshape(-1, 64)).reshape(-1, 256)
    q = (low | crumbs(b[:, 128:192]) << 4).astype(np.float32) - 32
    return spread(half(b, 208) * b[:, 192:208].view(np.int8).astype(np.float32), 16) * q


# The I-quants: blocks hold numbers of grid points, signs, and odd scales `2 s + 1`.
EIGHTH, QUARTER = np.float32(1 / 8), np.float32(1 / 4)
IQ2_VALUES = (8, 25, 43)
IQ3_XXS_VALUES = (4, 12, 20, 28, 36, 44, 52, 62)
IQ3_S_VALUES = (1, 3, 5, 7, 9, 11, 13, 15)
GRIDS = Path(__file__).parents[2] / "rust/kernels/src/format/grid"


@functools.cache
def grid(name: str, values: tuple[int, ...]) -> Floats:
    """The points of a grid, `(entries, 8)` or `(entries, 4)`; the codes are read from the sources of the engine.

    Nothing is checked against itself: the results are compared with those of the `gguf` package, which has its own.
    """
    source = (GRIDS / f"{name}.rs").read_text().partition("= [")[2]
    codes = np.array([int(number, 0) for number in re.findall(r"0[xo]\w+", source)])
    width = 8 if len(values) <= 4 else 4
    bits_of_code = 2 if width == 8 else 3
    split = codes[:, None] >> bits_of_code * np.arange(width) & (1 << bits_of_code) - 1
    out: Floats = np.array(values, np.float32)[split]
    return out


def words(b: Bytes, dtype: str) -> npt.NDArray[np.int64]:
    return np.ascontiguousarray(b).view(dtype).astype(np.int64)


def points(table: Floats, numbers: npt.NDArray[np.integer]) -> Floats:
    """Points by their numbers, `(n, m)` to `(n, m * width)`."""
    out: Floats = table[numbers].reshape(len(numbers), -1)
    return out


def signs_of(seven: npt.NDArray[np.integer]) -> Bytes:
    """Sign bytes of which seven bits are known: the number of negative signs is even."""
    eighth = np.unpackbits(seven.astype(np.uint8)[..., None], axis=-1).sum(axis=-1) & 1
    out: Bytes = (seven.astype(np.int64) | eighth.astype(np.int64) << 7).astype(np.uint8)
    return out


def negated(x: Floats, signs: Bytes) -> Floats:
    """`x` `(n, 256)` with the signs of 32 bytes, lowest bit first."""
    return np.where(bits(signs) == 1, -x, x).astype(np.float32)


def odd(s: npt.NDArray[np.integer], times: int) -> Floats:
    """Scales of sub-blocks of `times` weights."""
    return spread((2 * s + 1).astype(np.float32), times)


def nibbles_in_turn(b: Bytes) -> Bytes:
    """Low half, high half of each byte: `(n, m)` to `(n, 2 m)`."""
    return np.stack([b & 15, b >> 4], axis=2).reshape(len(b), -1)


def iq2_xxs(b: Bytes) -> Floats:
    groups = words(b[:, 2:], "<u4").reshape(-1, 8, 2)
    numbers = groups[:, :, :1] >> 8 * np.arange(4) & 255
    signs = signs_of(groups[:, :, 1:] >> 7 * np.arange(4) & 127)
    x = points(grid("iq2_xxs", IQ2_VALUES), numbers.reshape(-1, 32))
    return half(b, 0) * EIGHTH * odd(groups[:, :, 1] >> 28, 32) * negated(x, signs.reshape(-1, 32))


def iq2_xs(b: Bytes) -> Floats:
    qs = words(b[:, 2:66], "<u2")
    x = points(grid("iq2_xs", IQ2_VALUES), qs & 511)
    return half(b, 0) * EIGHTH * odd(nibbles_in_turn(b[:, 66:]), 16) * negated(x, signs_of(qs >> 9))


def iq2_s(b: Bytes) -> Floats:
    high = (b[:, 66:74, None] >> np.arange(0, 8, 2) & 3).reshape(len(b), 32)
    x = points(grid("iq2_s", IQ2_VALUES), b[:, 2:34].astype(np.int64) | high.astype(np.int64) << 8)
    return half(b, 0) * EIGHTH * odd(nibbles_in_turn(b[:, 74:]), 16) * negated(x, b[:, 34:66])


def iq3_xxs(b: Bytes) -> Floats:
    groups = words(b[:, 66:], "<u4")
    signs = signs_of(groups[:, :, None] >> 7 * np.arange(4) & 127).reshape(-1, 32)
    x = points(grid("iq3_xxs", IQ3_XXS_VALUES), b[:, 2:66])
    return half(b, 0) * QUARTER * odd(groups >> 28, 32) * negated(x, signs)


def iq3_s(b: Bytes) -> Floats:
    numbers = b[:, 2:66].astype(np.int64) | bits(b[:, 66:74]).astype(np.int64) << 8
    x = points(grid("iq3_s", IQ3_S_VALUES), numbers)
    return half(b, 0) * odd(nibbles_in_turn(b[:, 106:]), 32) * negated(x, b[:, 74:106])


def iq1_s(b: Bytes) -> Floats:
    qh = words(b[:, 34:], "<u2")
    high = (qh[:, :, None] >> 3 * np.arange(4) & 7).reshape(-1, 32)
    x = points(grid("iq1_s", (-8, 0, 8)), b[:, 2:34].astype(np.int64) | high << 8)
    shift = spread(np.where(qh >> 15 == 1, np.float32(-1), np.float32(1)), 32)
    return half(b, 0) * EIGHTH * odd(qh >> 12 & 7, 32) * (x + shift)


def iq1_m(b: Bytes) -> Floats:
    high = nibbles_in_turn(b[:, 32:48]).astype(np.int64)
    x = points(grid("iq1_s", (-8, 0, 8)), b[:, :32].astype(np.int64) | (high & 7) << 8)
    shift = spread(np.where(high & 8 != 0, np.float32(-1), np.float32(1)), 8)
    # The upper nibbles of four u16 are an f16; below are four scales of three bits each.
    scales = words(b[:, 48:], "<u2")
    d: Floats = (scales >> 12 << 4 * np.arange(4)).sum(axis=1).astype("<u2").view("<f2").astype(np.float32)[:, None]
    return d * EIGHTH * odd((scales[:, :, None] >> 3 * np.arange(4) & 7).reshape(-1, 16), 16) * (x + shift)


IQ4_LEVELS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
E2M1_LEVELS = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)
"""The four-bit float of MXFP4 and NVFP4, doubled; the scales are halved for it."""


def half_of_e8m0(e: Bytes) -> Floats:
    """2^(e - 128), also for the 255 that the standard calls NaN."""
    out: Floats = np.ldexp(np.float32(1), e.astype(np.int32) - 128).astype(np.float32)
    return out


def half_of_ue4m3(s: Bytes) -> Floats:
    """Half of a float with four bits of exponent, three of fraction. 0x7f is zero; else the top bit does not count."""
    exponent, fraction = (s >> 3 & 15).astype(np.int32), (s & 7).astype(np.float32)
    raw = np.where(exponent == 0, fraction / 512, np.ldexp(1 + fraction / 8, exponent - 7))
    out: Floats = np.where(s == 0x7F, 0, raw / 2).astype(np.float32)
    return out


def iq4_nl(b: Bytes) -> Floats:
    return half(b, 0) * IQ4_LEVELS[nibbles(b[:, 2:])]


def iq4_xs(b: Bytes) -> Floats:
    # Eight 6-bit scales: a nibble each in four bytes, and two bits each in the two bytes before.
    low = np.stack([b[:, 4:8] & 15, b[:, 4:8] >> 4], axis=2).reshape(-1, 8)
    high = np.concatenate([b[:, 2 + i : 3 + i] >> s & 3 for i in (0, 1) for s in (0, 2, 4, 6)], axis=1)
    scales = (low | high << 4).astype(np.float32) - 32
    q = nibbles(b[:, 8:].reshape(-1, 16)).reshape(len(b), -1)
    return spread(half(b, 0) * scales, 32) * IQ4_LEVELS[q]


def mxfp4(b: Bytes) -> Floats:
    return half_of_e8m0(b[:, :1]) * E2M1_LEVELS[nibbles(b[:, 1:])]


def nvfp4(b: Bytes) -> Floats:
    q = nibbles(b[:, 4:].reshape(-1, 8)).reshape(len(b), -1)
    return spread(half_of_ue4m3(b[:, :4]), 16) * E2M1_LEVELS[q]


def trits(b: Bytes, count: int) -> Bytes:
    """`count` base-3 digits of each byte, a 256th of which is a fraction: all first ones, then all second ones, ..."""
    turned = [b * np.uint8(3**n) for n in range(count)]
    return np.concatenate([(t.astype(np.uint16) * 3 >> 8).astype(np.uint8) for t in turned], axis=1)


def tq1_0(b: Bytes) -> Floats:
    q = np.concatenate([trits(b[:, :32], 5), trits(b[:, 32:48], 5), trits(b[:, 48:52], 4)], axis=1)
    return half(b, 52) * (q.astype(np.float32) - 1)


def tq2_0(b: Bytes) -> Floats:
    return half(b, 64) * (crumbs(b[:, :64]).astype(np.float32) - 1)


def q1_0(b: Bytes) -> Floats:
    d = half(b, 0)
    return np.where(bits(b[:, 2:]) == 1, d, -d)


def q2_0(b: Bytes) -> Floats:
    shifts = np.array([0, 2, 4, 6], np.uint8)
    q = (b[:, 2:, None] >> shifts & np.uint8(3)).reshape(len(b), -1)
    return half(b, 0) * (q.astype(np.float32) - 1)


CODECS: dict[str, Codec] = {
    c.name: c
    for c in (
        Codec("F32", 0, 1, 4, f32),
        Codec("F16", 1, 1, 2, f16),
        Codec("BF16", 30, 1, 2, bf16),
        Codec("Q4_0", 2, 32, 18, q4_0),
        Codec("Q4_1", 3, 32, 20, q4_1),
        Codec("Q5_0", 6, 32, 22, q5_0),
        Codec("Q5_1", 7, 32, 24, q5_1),
        Codec("Q8_0", 8, 32, 34, q8_0),
        Codec("Q2_K", 10, 256, 84, q2_k),
        Codec("Q3_K", 11, 256, 110, q3_k),
        Codec("Q4_K", 12, 256, 144, q4_k),
        Codec("Q5_K", 13, 256, 176, q5_k),
        Codec("Q6_K", 14, 256, 210, q6_k),
        Codec("IQ1_S", 19, 256, 50, iq1_s),
        Codec("IQ1_M", 29, 256, 56, iq1_m),
        Codec("IQ2_XXS", 16, 256, 66, iq2_xxs),
        Codec("IQ2_XS", 17, 256, 74, iq2_xs),
        Codec("IQ2_S", 22, 256, 82, iq2_s),
        Codec("IQ3_XXS", 18, 256, 98, iq3_xxs),
        Codec("IQ3_S", 21, 256, 110, iq3_s),
        Codec("IQ4_NL", 20, 32, 18, iq4_nl),
        Codec("IQ4_XS", 23, 256, 136, iq4_xs),
        Codec("TQ1_0", 34, 256, 54, tq1_0),
        Codec("TQ2_0", 35, 256, 66, tq2_0),
        Codec("MXFP4", 39, 32, 17, mxfp4),
        Codec("NVFP4", 40, 64, 36, nvfp4),
        Codec("Q1_0", 41, 128, 18, q1_0),
        Codec("Q2_0", 42, 64, 18, q2_0),
    )
}
BY_ID = {c.type_id: c for c in CODECS.values()}
