//! What TQ1_0 and TQ2_0 share: weights -1, 0 and 1 with one scale for 256.

use super::layout::SUPER;
use super::round::{peak, reciprocal};
use crate::isa::integers::Integers;
use crate::unpack::SuperScales;

/// The scale, which is the largest magnitude, and each weight plus one as the reference rounds it: half away from zero.
pub(super) fn encode(values: &[f32]) -> (f32, [u8; SUPER]) {
    let d = peak(values).abs();
    let inverse = reciprocal(d);
    let digit = |x: f32| {
        let q = (x * inverse).round();
        // What is no integer (the inverse of a subnormal scale is infinite) is zero for the reference on x86-64.
        if (-1.0..=1.0).contains(&q) { (q as i8 + 1) as u8 } else { 1 }
    };
    (d, core::array::from_fn(|i| digit(values[i])))
}

/// The scales of a super-block with `d` alone.
#[inline(always)]
pub(super) fn scales<I: Integers>(isa: I, d: I::Floats) -> SuperScales<I> {
    let ones = [isa.splat(0x0101_0101); 4];
    SuperScales::without_minima(ones, d)
}
