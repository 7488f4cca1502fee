//! The search for the scale of the levels of IQ4_NL and IQ4_XS.

use super::{TINY, lanes};
use crate::format::nonlinear::{LEVELS, nearest_level};
use crate::format::round::peak;
use crate::{Cpu, LANES};

/// Sums of `w x q` and `w q^2` for the nearest levels `q` of `inverse * x`.
fn sums(x: &[f32; 32], weights: &[f32; 32], inverse: f32) -> (f32, f32) {
    let levels = x.map(|x| nearest_level(inverse * x));
    let (mut xq, mut qq) = (0.0, 0.0);
    for ((&x, &w), level) in x.iter().zip(weights).zip(levels) {
        let q = f32::from(LEVELS[usize::from(level)]);
        xq += w * q * x;
        qq += w * q * q;
    }
    (xq, qq)
}

/// Finds a scale with a small sum of `weight (x - scale q)^2`: trial scales map the value of largest magnitude to 127 and to
/// -134..=-120; for the levels of each, the best scale comes in closed form. 0 for a block of (nearly) zeros.
pub(super) fn fit_scale(x: &[f32; 32], weights: &[f32; 32]) -> f32 {
    let peak = peak(x);
    if peak.abs() < TINY {
        return 0.0;
    }
    let lowest = f32::from(LEVELS[0]);
    let (xq, qq) = sums(x, weights, 1.0 / (-peak / lowest));
    let mut scale = if qq > 0.0 { xq / qq } else { 0.0 };
    let mut best = scale * xq;
    for step in -7i8..=7 {
        let (xq, qq) = sums(x, weights, (f32::from(step) + lowest) / peak);
        if qq > 0.0 && xq * xq > best * qq {
            scale = xq / qq;
            best = scale * xq;
        }
    }
    scale
}

/// [`fit_scale`] of each of `x`, at most [`LANES`] sub-blocks. `spread` is twice the mean square of a sub-block's super-block (or
/// block), for those with importance; without, the weights are the squares.
pub(in crate::format) fn fit_scales(
    cpu: Cpu,
    x: &[[f32; 32]],
    importance: Option<&[[f32; 32]]>,
    spread: impl Fn(usize) -> f32,
) -> [f32; LANES] {
    let mut weights: super::Weights<32> = [[0.0; 32]; LANES];
    for (j, (weights, x)) in weights.iter_mut().zip(x).enumerate() {
        *weights = match importance {
            Some(importance) => super::weigh(x, &importance[j], spread(j)),
            None => x.map(|x| x * x),
        };
    }
    lanes::fit_nonlinear(cpu, x, &weights)
}
