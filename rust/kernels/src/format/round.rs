//! How ggml's reference quantizers turn floats into integers. Files must not depend on who wrote them, so the results outside
//! the sensible range (denormal or infinite scales) are those of the reference compiled for x86-64, too.

/// Nearest integer, ties to even, by adding 1.5 * 2^23 and taking the fraction bits. Right up to 2^22 in magnitude; beyond
/// that the low bits of whatever the sum was.
#[inline(always)]
pub fn nearest(x: f32) -> i32 {
    const MAGIC: f32 = 12_582_912.0;
    ((x + MAGIC).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// C's `(int) x` on x86-64: towards zero, and `i32::MIN` for what does not fit.
#[inline(always)]
pub fn truncate(x: f32) -> i32 {
    const LIMIT: f32 = 2_147_483_648.0;
    if (-LIMIT..LIMIT).contains(&x) { x as i32 } else { i32::MIN }
}

/// `1 / d`, or 0 for a scale of 0.
#[inline(always)]
pub(super) fn reciprocal(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// The first value of the largest magnitude; 0 when there is none above 0.
#[inline(always)]
pub(super) fn peak(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |peak: f32, &x| if peak.abs() < x.abs() { x } else { peak })
}

/// The smallest and the largest value, NaNs left out.
#[inline(always)]
pub(super) fn extremes(x: &[f32]) -> (f32, f32) {
    x.iter().fold((f32::MAX, f32::MIN), |(min, max), &x| (if x < min { x } else { min }, if x > max { x } else { max }))
}
