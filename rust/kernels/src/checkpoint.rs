//! Loops over the weights of checkpoints as other libraries write them: integers of a few bits in words of 32, and changes of rows of
//! floats on their way into a file.
//!
//! Words are little-endian, as in safetensors files. A "level" is an integer from 0 to `2^bits - 1`, one per byte once unpacked.

use crate::format::{MXFP4, Q4_0, Q4_1};
use crate::math::exp64;

/// Weights per block of [`Q4_0`], [`Q4_1`] and [`MXFP4`].
const BLOCK: usize = 32;

/// Where the words of a row are: every `stride`-th from word `first` on.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    /// All words of the tensor, four bytes each.
    pub bytes: &'a [u8],
    /// The first word of the row.
    pub first: usize,
    /// How many words further the next one is.
    pub stride: usize,
}

impl Words<'_> {
    fn get(&self, index: usize) -> u32 {
        let at = 4 * (self.first + index * self.stride);
        u32::from_le_bytes([self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]])
    }

    /// Unpacks `out.len()` levels that follow each other in a stream of bits, the lowest bits of the first word first. A level may
    /// begin in one word and end in the next.
    ///
    /// # Panics
    /// When the row has fewer words, or `bits` is not from 1 to 8.
    pub fn levels(&self, bits: u32, out: &mut [u8]) {
        assert!((1..=8).contains(&bits), "levels of {bits} bits");
        let mask = (1u64 << bits) - 1;
        let (mut buffer, mut left, mut next) = (0u64, 0, 0);
        for out in out {
            if left < bits {
                buffer |= u64::from(self.get(next)) << left;
                left += 32;
                next += 1;
            }
            *out = (buffer & mask) as u8;
            buffer >>= bits;
            left -= bits;
        }
    }

    /// The nibble at bit `shift` of each of `out.len()` words.
    ///
    /// # Panics
    /// When the row has fewer words.
    pub fn nibbles(&self, shift: u32, out: &mut [u8]) {
        for (index, out) in out.iter_mut().enumerate() {
            *out = (self.get(index) >> shift & 15) as u8;
        }
    }
}

/// Blocks of [`Q4_0`] of levels around 8, one scale per 32.
///
/// # Panics
/// When the lengths are not those of the same number of blocks.
pub fn q4_0_of_levels(levels: &[u8], scales: &[f32], out: &mut [u8]) {
    let (levels, rest) = levels.as_chunks::<BLOCK>();
    assert!(rest.is_empty() && levels.len() == scales.len(), "one scale for 32 levels");
    assert_eq!(out.len(), levels.len() * 18, "blocks of Q4_0");
    for ((levels, scale), block) in levels.iter().zip(scales).zip(out.chunks_exact_mut(18)) {
        Q4_0::from_levels(levels, *scale, block);
    }
}

/// Blocks of [`Q4_1`] of levels, one scale and one minimum per 32.
///
/// # Panics
/// When the lengths are not those of the same number of blocks.
pub fn q4_1_of_levels(levels: &[u8], scales: &[f32], minima: &[f32], out: &mut [u8]) {
    let (levels, rest) = levels.as_chunks::<BLOCK>();
    assert!(rest.is_empty() && levels.len() == scales.len() && scales.len() == minima.len(), "one scale for 32 levels");
    assert_eq!(out.len(), levels.len() * 20, "blocks of Q4_1");
    for (((levels, scale), minimum), block) in levels.iter().zip(scales).zip(minima).zip(out.chunks_exact_mut(20)) {
        Q4_1::from_levels(levels, *scale, *minimum, block);
    }
}

/// Blocks of [`MXFP4`] of bytes that hold neighbours, the earlier one in the lower half, and one E8M0 scale per 32.
///
/// # Panics
/// When the lengths are not those of the same number of blocks.
pub fn mxfp4_of_pairs(pairs: &[u8], scales: &[u8], out: &mut [u8]) {
    let (pairs, rest) = pairs.as_chunks::<16>();
    assert!(rest.is_empty() && pairs.len() == scales.len(), "one scale for 32 weights");
    assert_eq!(out.len(), pairs.len() * 17, "blocks of MXFP4");
    for ((pairs, scale), block) in pairs.iter().zip(scales).zip(out.chunks_exact_mut(17)) {
        let levels = core::array::from_fn(|i| pairs[i / 2] >> (4 * (i % 2)) & 15);
        MXFP4::from_levels(&levels, *scale, block);
    }
}

/// What the levels of a group stand for: `scale * (level - zero) + bias`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Group {
    /// Distance of two levels.
    pub scale: f32,
    /// The level that stands for `bias`.
    pub zero: f32,
    /// Added.
    pub bias: f32,
}

/// The weights of a row of levels; `group_of` says of each which group it is of.
///
/// # Panics
/// When lengths differ, or a group does not exist.
pub fn dequantize_levels(levels: &[u8], group_of: &[u32], groups: &[Group], out: &mut [f32]) {
    assert!(levels.len() == group_of.len() && levels.len() == out.len(), "one group and one weight per level");
    for ((level, group), out) in levels.iter().zip(group_of).zip(out) {
        let Group { scale, zero, bias } = groups[*group as usize];
        *out = scale * (f32::from(*level) - zero) + bias;
    }
}

/// Copies elements of `size` bytes that lie `stride` elements apart, from element `first` on, to their places in `out`.
///
/// # Panics
/// When one of them is not in `bytes`, or `out` is not a whole number of elements.
pub fn gather(bytes: &[u8], size: usize, first: usize, stride: usize, out: &mut [u8]) {
    assert!(size > 0 && out.len().is_multiple_of(size), "elements of {size} bytes");
    for (index, out) in out.chunks_exact_mut(size).enumerate() {
        let at = (first + index * stride) * size;
        out.copy_from_slice(&bytes[at..at + size]);
    }
}

/// Adds `summand` to every value.
pub fn add(values: &mut [f32], summand: f32) {
    values.iter_mut().for_each(|value| *value += summand);
}

/// `-e^x` of every value, rounded once.
pub fn negative_exp(values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = -exp64(f64::from(*value)) as f32);
}

/// The largest magnitude, 0 of no values; NaN where there is a NaN.
pub fn peak(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |peak: f32, value| {
        let magnitude = value.abs();
        // A NaN is neither smaller nor larger, and stays.
        if magnitude > peak || magnitude.is_nan() { magnitude } else { peak }
    })
}
