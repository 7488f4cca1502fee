//! The searches for a scale of integers on both sides of zero.

use super::{TINY, lanes};
use crate::format::round::{nearest, peak};
use crate::{Cpu, LANES};

/// A sub-block as `scale * (level - limit)`.
#[derive(Clone, Copy, Debug)]
pub(in crate::format) struct SignedFit {
    pub(in crate::format) scale: f32,
    /// The integers are `round(inverse * x)` in `-limit..limit`; NaN for a sub-block of zeros, whose levels are 0 (not `limit`).
    pub(super) inverse: f32,
}

/// What trial `step` of the 19 maps the value of largest magnitude to, without the sign.
#[inline(always)]
pub(super) fn span(limit: i32, step: i32) -> f32 {
    limit as f32 + 0.1 * step as f32
}

impl SignedFit {
    /// That of zeros.
    pub(super) const ZEROS: SignedFit = SignedFit { scale: 0.0, inverse: f32::NAN };

    /// Finds a scale and integers with a small sum of `weight (x - scale q)^2`: 19 trial scales around the one that maps the value
    /// of largest magnitude to `-limit`; for each, the best scale for its integers in closed form.
    pub(in crate::format) fn of<const N: usize>(x: &[f32; N], weights: &[f32; N], limit: i32) -> SignedFit {
        let peak = peak(x);
        if peak.abs() < TINY {
            return SignedFit::ZEROS;
        }
        let sums_of = |inverse: f32| sums(x, weights, &round(x, inverse, limit));
        let inverse = -limit as f32 / peak;
        let (xl, ll) = sums_of(inverse);
        let mut fit = SignedFit { scale: if ll != 0.0 { xl / ll } else { 0.0 }, inverse };
        let mut best = fit.scale * xl;
        for step in (-9..=9).filter(|&step| step != 0) {
            let inverse = -span(limit, step) / peak;
            let (xl, ll) = sums_of(inverse);
            if ll > 0.0 && xl * xl > best * ll {
                fit = SignedFit { scale: xl / ll, inverse };
                best = fit.scale * xl;
            }
        }
        fit
    }

    /// [`SignedFit::of`] each of `x`, at most [`LANES`] sub-blocks.
    pub(in crate::format) fn of_each<const N: usize>(
        cpu: Cpu,
        x: &[[f32; N]],
        weights: &super::Weights<N>,
        limit: i32,
    ) -> [SignedFit; LANES] {
        lanes::fit_signed(cpu, x, weights, limit)
    }

    /// The integers plus `limit`.
    pub(in crate::format) fn levels<const N: usize>(self, x: &[f32; N], limit: i32) -> [u8; N] {
        if self.inverse.is_nan() { [0; N] } else { round(x, self.inverse, limit).map(|q| (q + limit) as u8) }
    }
}

#[inline(always)]
fn round<const N: usize>(x: &[f32; N], inverse: f32, limit: i32) -> [i32; N] {
    x.map(|x| nearest(inverse * x).clamp(-limit, limit - 1))
}

/// As [`SignedFit::of`] with the squares as weights and one trial scale, whose integers are then improved one at a time, in at most
/// five rounds. Returns the scale and the integers plus `limit`.
pub(in crate::format) fn fit_signed_by_descent<const N: usize>(x: &[f32; N], limit: i32) -> (f32, [u8; N]) {
    let peak = peak(x);
    if peak.abs() < TINY {
        return (0.0, [0; N]);
    }
    let mut levels = round(x, -limit as f32 / peak, limit);
    let (mut xl, mut ll) = sums(x, &x.map(|x| x * x), &levels);
    for _ in 0..5 {
        let mut changed = false;
        for (&x, level) in x.iter().zip(&mut levels) {
            let (w, old) = (x * x, *level as f32);
            // The sums without this weight; their quotient is the inverse of the scale that the others ask for.
            let other_xl = xl - w * x * old;
            if other_xl > 0.0 {
                let other_ll = ll - w * old * old;
                let q = nearest(x * other_ll / other_xl).clamp(-limit, limit - 1);
                if q != *level {
                    let new = q as f32;
                    let new_xl = other_xl + w * x * new;
                    let new_ll = other_ll + w * new * new;
                    if new_ll > 0.0 && new_xl * new_xl * ll > xl * xl * new_ll {
                        (*level, xl, ll) = (q, new_xl, new_ll);
                        changed = true;
                    }
                }
            }
        }
        if !changed {
            break;
        }
    }
    let scale = if ll > 0.0 { xl / ll } else { 0.0 };
    (scale, levels.map(|q| (q + limit) as u8))
}

/// The scales of [`fit_signed_by_descent`] for each of `x`, at most [`LANES`] sub-blocks.
pub(in crate::format) fn scales_by_descent<const N: usize>(cpu: Cpu, x: &[[f32; N]], limit: i32) -> [f32; LANES] {
    lanes::fit_signed_by_descent(cpu, x, limit)
}

/// Sums of `w x q` and `w q^2`; their quotient is the best scale for the integers `q`.
pub(super) fn sums<const N: usize>(x: &[f32; N], weights: &[f32; N], levels: &[i32; N]) -> (f32, f32) {
    let (mut xl, mut ll) = (0.0, 0.0);
    for ((&x, &w), &q) in x.iter().zip(weights).zip(levels) {
        let q = q as f32;
        xl += w * x * q;
        ll += w * q * q;
    }
    (xl, ll)
}

/// Encodes `x` as `round(x / d) + limit`, for a `d` that is not 0.
pub(in crate::format) fn round_signed<const N: usize>(x: &[f32; N], d: f32, limit: i32) -> [u8; N] {
    x.map(|x| (nearest(x / d).clamp(-limit, limit - 1) + limit) as u8)
}
