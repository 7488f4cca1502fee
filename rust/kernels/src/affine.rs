//! Linear quantization: integers `q` on a line, `w ≈ scale * (q - zero)`.
//!
//! Which integers there are is a matter of [`Grid`]; how many weights share a scale is the caller's. Quantities are computed in f64 and
//! rounded once, half to even, so that the result is the same everywhere.
//!
//! Texts differ in what they call the scale: here it is the step between two integers. Those that write `q = round(s * w) + z` mean its reciprocal.

use crate::half::{f16_to_f32, f32_to_f16};

/// The integers that weights may become.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grid {
    /// Bits of an integer, 2 to 8.
    pub bits: u32,
    /// Whether they go from `-2^(bits - 1)` or from 0.
    pub signed: bool,
    /// Whether zero is in the middle, and as many integers are on either side of it; else the range of the weights, with zero, fills all of them.
    pub symmetric: bool,
    /// Whether scales are rounded to f16.
    pub half_scales: bool,
}

/// Why there are no integers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum AffineError {
    /// `bits` is not 2 to 8.
    Bits(u32),
    /// A weight is NaN or infinite: where, and what it is.
    NotFinite(usize, f32),
    /// The scale of a group exceeds f16: the group, and the scale.
    ScaleRange(usize, f32),
}

impl core::fmt::Display for AffineError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            AffineError::Bits(bits) => write!(f, "bits must be 2 to 8, found {bits}"),
            AffineError::NotFinite(index, value) => write!(f, "weight {index} is {value}, expected a finite number"),
            AffineError::ScaleRange(group, scale) => {
                write!(f, "the scale of group {group} is {scale}, more than 16 bits can hold (65504); use 32")
            }
        }
    }
}

impl core::error::Error for AffineError {}

/// Quantizes `values` `(groups, size)`: `scales` and `zeros` are `(groups)`, `out` `(groups, size)` has the integers as bytes, those below zero in
/// two's complement. A group of zeros has the scale 1.
///
/// # Errors
/// [`AffineError`]; `scales`, `zeros` and `out` then have no meaning.
///
/// # Panics
/// When the lengths do not fit each other.
pub fn affine(
    values: &[f32],
    size: usize,
    grid: Grid,
    scales: &mut [f32],
    zeros: &mut [i16],
    out: &mut [u8],
) -> Result<(), AffineError> {
    assert!(size > 0 && scales.len() == zeros.len(), "groups");
    assert_eq!((values.len(), values.len()), (out.len(), scales.len() * size), "groups of {size}");
    if !(2..=8).contains(&grid.bits) {
        return Err(AffineError::Bits(grid.bits));
    }
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(AffineError::NotFinite(index, values[index]));
    }
    let all = 1i32 << grid.bits;
    let lowest = if grid.signed { -all / 2 } else { 0 };
    let (low, high) = if grid.symmetric { (lowest + 1, lowest + all - 1) } else { (lowest, lowest + all - 1) };
    let groups = values.chunks_exact(size).zip(out.chunks_exact_mut(size)).zip(scales.iter_mut().zip(zeros));
    for (index, ((values, out), (scale, zero))) in groups.enumerate() {
        // Zero is always a value of the grid: it is what padding and pruning leave.
        let (least, most) =
            values.iter().fold((0f32, 0f32), |(least, most), value| (least.min(*value), most.max(*value)));
        let exact = if grid.symmetric {
            f64::from(most.max(-least)) / f64::from(all / 2 - 1)
        } else {
            (f64::from(most) - f64::from(least)) / f64::from(all - 1)
        };
        let step = stored(exact, grid.half_scales);
        if !step.is_finite() {
            return Err(AffineError::ScaleRange(index, exact as f32));
        }
        let integer = |value: f32| (f64::from(value) / f64::from(step)).round_ties_even();
        let origin = if grid.symmetric { lowest + all / 2 } else { (lowest - integer(least) as i32).clamp(low, high) };
        (*scale, *zero) = (step, origin as i16);
        for (value, out) in values.iter().zip(out) {
            // Within a few units of the range, hence an i32; the last bits of a byte are the byte's own, of either sign.
            *out = (integer(*value) as i32).saturating_add(origin).clamp(low, high) as u8;
        }
    }
    Ok(())
}

/// A scale as it is stored. What is too small becomes the smallest there is: a scale of zero would lose the whole group.
fn stored(exact: f64, half: bool) -> f32 {
    if exact == 0.0 {
        return 1.0;
    }
    let (scale, smallest) =
        if half { (f16_to_f32(f32_to_f16(exact as f32)), f16_to_f32(1)) } else { (exact as f32, f32::from_bits(1)) };
    scale.max(smallest)
}
