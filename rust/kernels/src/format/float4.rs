//! The four-bit floats of MXFP4 and NVFP4 (E2M1), and their scales of eight bits: E8M0 and unsigned E4M3.
//!
//! As in ggml the weights are doubled, so that they are integers, and the scales are halved.

use super::round::truncate;
use crate::half::f16_to_f32;
use crate::math::ln64;

/// What the nibbles stand for: a sign and the doubled values of E2M1.
pub(super) const LEVELS: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The different levels, ascending.
pub(super) const VALUES: [i8; 15] = [-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12];

/// What is added to the levels to make them unsigned; the smallest power of two that does.
pub(super) const ZERO: i8 = 16;

/// The largest level plus [`ZERO`].
pub(super) const PEAK: u32 = 28;

/// The levels plus [`ZERO`].
pub(super) const UNSIGNED: [u8; 16] = {
    let mut table = [0; 16];
    let mut i = 0;
    while i < 16 {
        table[i] = (LEVELS[i] + ZERO) as u8;
        i += 1;
    }
    table
};

/// The weights of nibbles.
#[inline(always)]
pub(super) fn decode<const N: usize>(nibbles: [u8; N]) -> [i8; N] {
    nibbles.map(|nibble| LEVELS[usize::from(nibble)])
}

/// The first nibble whose weight with the scale `d` is nearest to `x`.
pub(super) fn nearest_level(x: f32, d: f32) -> u8 {
    let error = |nibble: usize| (f32::from(LEVELS[nibble]) * d - x).abs();
    let mut best = (0, error(0));
    for nibble in 1..16 {
        let error = error(nibble);
        if error < best.1 {
            best = (nibble, error);
        }
    }
    best.0 as u8
}

/// Half the value of an E8M0: `2^(e - 128)`, exact and always finite, with subnormal results for 0 and 1. The NaN of the
/// standard, 255, is `2^127`, as in ggml and the `gguf` package.
#[inline(always)]
pub fn half_of_e8m0(e: u8) -> f32 {
    let normal = (i32::from(e) - 1) << 23;
    // 2^-128 and 2^-127, which every normal number is above.
    let subnormal = 0x0020_0000 << e.min(1);
    f32::from_bits(normal.max(subnormal) as u32)
}

/// Half the value of an unsigned E4M3, exact and always finite: the NaN of the standard, 0x7f, is 0, and the top bit does not
/// count otherwise, as in ggml and the `gguf` package.
#[inline(always)]
pub fn half_of_ue4m3(bits: u8) -> f32 {
    if bits == 0x7f {
        return 0.0;
    }
    // The same bits are an f16 with the exponent bias 15 instead of 7, and all f16 are f32.
    f16_to_f32(u16::from(bits & 0x7f) << 7) * 128.0
}

/// The unsigned E4M3 that ggml gives a value: nearest, ties up, at most 448; from 256 on it is 448.
pub fn ue4m3_of(x: f32) -> u8 {
    const LARGEST: u8 = 0x7e;
    const BIAS: i32 = 127 - 7;
    if x.is_nan() || x <= 0.0 {
        return 0;
    }
    let bits = x.min(448.0).to_bits() as i32;
    let exponent = (bits >> 23) - BIAS;
    if exponent <= 0 {
        // Subnormal: multiples of 2^-9, without a carry into the normal numbers.
        return ((x * 512.0 + 0.5) as u8).min(7);
    }
    // Three bits of the fraction are left; a carry steps the exponent.
    let rounded = (((bits >> 19) + 1) >> 1) - (BIAS << 3);
    if exponent >= 15 || rounded >= 15 << 3 { LARGEST } else { rounded as u8 }
}

/// The exponent that ggml gives a block of largest magnitude `amax`: with it, values of `2^n` up to the next power of two
/// have weights of 4 to 6 (8 to 12 doubled). For magnitudes below `2^-125` it wraps around.
pub fn e8m0_of(amax: f32) -> u8 {
    if amax > 0.0 {
        // The reference rounds the logarithm to f32 before it takes the integer part.
        let log2 = (ln64(f64::from(amax)) / std::f64::consts::LN_2) as f32;
        truncate(log2.floor() - 2.0 + 127.0) as u8
    } else {
        0
    }
}
