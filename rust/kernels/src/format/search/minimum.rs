//! The search for a scale and a minimum.

use super::lanes;
use crate::format::round::nearest;
use crate::{Cpu, LANES};

/// The search for a scale and a minimum.
#[derive(Clone, Copy)]
pub(in crate::format) struct MinimumSearch {
    /// Largest integer.
    pub(in crate::format) limit: i32,
    /// Trial scales map the range of the values to `limit + first`, `limit + first + step`, ...
    pub(in crate::format) first: f32,
    /// What the range grows by.
    pub(in crate::format) step: f32,
    /// Number of trial scales after the first.
    pub(in crate::format) steps: i32,
    /// Whether errors are summed as magnitudes instead of squares.
    pub(in crate::format) absolute: bool,
}

/// A sub-block as `scale * level - min`.
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::format) struct MinimumFit {
    pub(in crate::format) scale: f32,
    pub(in crate::format) min: f32,
    /// The integers are `round(inverse * (x - base))` in `0..=limit`; with an `inverse` of 0 for a constant sub-block.
    pub(super) inverse: f32,
    pub(super) base: f32,
}

impl MinimumSearch {
    /// The search with weights by importance, for integers up to `limit`.
    pub(in crate::format) const fn weighted(limit: i32) -> MinimumSearch {
        MinimumSearch { limit, first: -0.9, step: 0.05, steps: 36, absolute: false }
    }

    /// To what trial `step` maps the range of the values.
    #[inline(always)]
    pub(super) fn span(&self, step: i32) -> f32 {
        self.first + self.step * step as f32 + self.limit as f32
    }

    /// Finds scale, minimum and integers with a small sum of `weight * error`. For the integers of each trial scale the best
    /// scale and minimum are taken in closed form; the minimum never exceeds 0.
    ///
    /// As in the reference, the trials after an improvement start from the improved minimum.
    pub(super) fn fit<const N: usize>(&self, x: &[f32; N], weights: &[f32; N]) -> MinimumFit {
        let (mut min, mut max) = (x[0], x[0]);
        let (mut sum_w, mut sum_x) = (weights[0], weights[0] * x[0]);
        for (&x, &w) in x[1..].iter().zip(&weights[1..]) {
            min = if x < min { x } else { min };
            max = if x > max { x } else { max };
            sum_w += w;
            sum_x += w * x;
        }
        min = if min > 0.0 { 0.0 } else { min };
        if max == min {
            return MinimumFit { scale: 0.0, min: -min, inverse: 0.0, base: 0.0 };
        }
        let error = |scale: f32, min: f32, levels: &[u8; N]| {
            let terms = x.iter().zip(weights).zip(levels);
            terms.fold(0.0, |sum, ((&x, &w), &q)| {
                let difference = scale * f32::from(q) + min - x;
                sum + w * if self.absolute { difference.abs() } else { difference * difference }
            })
        };
        let first = self.limit as f32 / (max - min);
        let mut fit = MinimumFit { scale: 1.0 / first, min, inverse: first, base: min };
        let mut best = error(fit.scale, min, &self.levels(x, first, min));
        for step in 0..=self.steps {
            let inverse = self.span(step) / (max - fit.min);
            let trial = self.levels(x, inverse, fit.min);
            let (mut sum_l, mut sum_ll, mut sum_xl) = (0.0, 0.0, 0.0);
            for ((&x, &w), &q) in x.iter().zip(weights).zip(&trial) {
                let q = f32::from(q);
                sum_l += w * q;
                sum_ll += w * q * q;
                sum_xl += w * q * x;
            }
            let determinant = sum_w * sum_ll - sum_l * sum_l;
            if determinant > 0.0 {
                let mut scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
                let mut min = (sum_ll * sum_x - sum_l * sum_xl) / determinant;
                if min > 0.0 {
                    min = 0.0;
                    scale = sum_xl / sum_ll;
                }
                let error = error(scale, min, &trial);
                if error < best {
                    best = error;
                    fit = MinimumFit { scale, min, inverse, base: fit.min };
                }
            }
        }
        MinimumFit { min: -fit.min, ..fit }
    }

    /// The integers of `x` above `base`.
    #[inline(always)]
    fn levels<const N: usize>(&self, x: &[f32; N], inverse: f32, base: f32) -> [u8; N] {
        x.map(|x| nearest(inverse * (x - base)).clamp(0, self.limit) as u8)
    }

    /// The integers of a fit of `x`.
    pub(in crate::format) fn levels_of<const N: usize>(&self, x: &[f32; N], fit: &MinimumFit) -> [u8; N] {
        self.levels(x, fit.inverse, fit.base)
    }

    /// [`fit`](MinimumSearch::fit) of each of `x`, at most [`LANES`] sub-blocks.
    pub(in crate::format) fn fit_each<const N: usize>(
        &self,
        cpu: Cpu,
        x: &[[f32; N]],
        weights: &super::Weights<N>,
        fits: &mut [MinimumFit; LANES],
    ) {
        lanes::fit_minimum(cpu, self, x, weights, fits);
    }
}

/// Encodes `x` as `round((x + min) / d)`; where `d` is 0, with the integers of `fit`.
pub(in crate::format) fn round_above_minimum<const N: usize>(
    x: &[f32; N],
    d: f32,
    min: f32,
    search: &MinimumSearch,
    fit: &MinimumFit,
) -> [u8; N] {
    if d == 0.0 {
        return search.levels_of(x, fit);
    }
    x.map(|x| nearest((x + min) / d).clamp(0, search.limit) as u8)
}
