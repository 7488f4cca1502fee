//! The sixteen levels of IQ4_NL and IQ4_XS.

use super::round::reciprocal;
use crate::isa::integers::Integers;

/// What the nibbles stand for: steps that grow with the distance from zero.
pub const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The value of each nibble as the signed bytes of the level `I`.
#[inline(always)]
pub(super) const fn signed_table<I: Integers>() -> [u8; 16] {
    let mut table = [0; 16];
    let mut i = 0;
    while i < 16 {
        table[i] = (LEVELS[i] as i32 + I::SIGNED_OFFSET) as u8;
        i += 1;
    }
    table
}

/// Half-way between neighbours.
pub(super) const MIDDLES: [f32; 15] = {
    let mut middles = [0.0; 15];
    let mut i = 0;
    while i < 15 {
        middles[i] = (LEVELS[i] as f32 + LEVELS[i + 1] as f32) / 2.0;
        i += 1;
    }
    middles
};

/// The nibble of the nearest level, the upper one of two; the last one for NaN, as in the reference.
#[inline(always)]
pub fn nearest_level(x: f32) -> u8 {
    15 - MIDDLES.iter().map(|&middle| u8::from(x < middle)).sum::<u8>()
}

/// The nibbles of `x / scale`; those of zero for a scale of 0.
pub(super) fn encode(x: &[f32; 32], scale: f32) -> [u8; 32] {
    let inverse = reciprocal(scale);
    x.map(|x| nearest_level(inverse * x))
}

/// The nibbles of the first 32 levels, which are of [`LEVELS`].
pub(super) fn codes(levels: &[i32]) -> [u8; 32] {
    core::array::from_fn(|i| nearest_level(levels[i] as f32))
}

/// The weights of 32 nibbles.
pub(super) fn decode(nibbles: [u8; 32]) -> [i8; 32] {
    nibbles.map(|nibble| LEVELS[usize::from(nibble)])
}
