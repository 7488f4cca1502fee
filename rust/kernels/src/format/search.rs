//! The searches for scales with which ggml's reference quantizers encode the sub-blocks of K-quants.
//!
//! Results are byte-exact to `ggml-quants.c` compiled without contraction of multiplications and additions: sums run in
//! index order in f32, and every expression keeps the association that C gives it.

use super::layout::{Half, SUPER, pack_scales_and_minima, scales_and_minima};
use super::round::{nearest, peak};

/// Sub-blocks below this magnitude count as zero.
pub(super) const TINY: f32 = 1e-15;

/// Finds `scale` and `q` in `-limit..limit` with a small sum of `x^2 (x - scale q)^2`: 19 trial scales around the one that
/// maps the value of largest magnitude to `-limit`; for each, the best scale for its integers in closed form.
///
/// Returns the scale and `q + limit`; for a sub-block of zeros 0 and 0 (not `limit`).
pub(super) fn fit_signed<const N: usize>(x: &[f32; N], limit: i32) -> (f32, [u8; N]) {
    let peak = peak(x);
    if peak.abs() < TINY {
        return (0.0, [0; N]);
    }
    let round = |inverse: f32| x.map(|x| nearest(inverse * x).clamp(-limit, limit - 1));
    let mut levels = round(-limit as f32 / peak);
    let (xl, ll) = signed_sums(x, &levels);
    let mut scale = if ll != 0.0 { xl / ll } else { 0.0 };
    let mut best = scale * xl;
    for step in (-9..=9).filter(|&step| step != 0) {
        let trial = round(-(limit as f32 + 0.1 * step as f32) / peak);
        let (xl, ll) = signed_sums(x, &trial);
        if ll > 0.0 && xl * xl > best * ll {
            levels = trial;
            scale = xl / ll;
            best = scale * xl;
        }
    }
    (scale, levels.map(|q| (q + limit) as u8))
}

/// As [`fit_signed`] with one trial scale, whose integers are then improved one at a time, in at most five rounds.
pub(super) fn fit_signed_by_descent<const N: usize>(x: &[f32; N], limit: i32) -> (f32, [u8; N]) {
    let peak = peak(x);
    if peak.abs() < TINY {
        return (0.0, [0; N]);
    }
    let inverse = -limit as f32 / peak;
    let mut levels = x.map(|x| nearest(inverse * x).clamp(-limit, limit - 1));
    let (mut xl, mut ll) = signed_sums(x, &levels);
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

/// Sums of `w x q` and `w q^2` with `w = x^2`; their quotient is the best scale for the integers `q`.
fn signed_sums<const N: usize>(x: &[f32; N], levels: &[i32; N]) -> (f32, f32) {
    let (mut xl, mut ll) = (0.0, 0.0);
    for (&x, &q) in x.iter().zip(levels) {
        let (w, q) = (x * x, q as f32);
        xl += w * x * q;
        ll += w * q * q;
    }
    (xl, ll)
}

/// Encodes `x` with `d = scale * (what is stored)`: `round(x / d) + limit`; `levels` stay as they are where `d` is 0.
pub(super) fn round_signed(x: &[f32], d: f32, limit: i32, levels: &mut [u8]) {
    if d != 0.0 {
        for (level, &x) in levels.iter_mut().zip(x) {
            *level = (nearest(x / d).clamp(-limit, limit - 1) + limit) as u8;
        }
    }
}

/// Encodes `x` as `round((x + min) / d)` in `0..=limit`; `levels` stay as they are where `d` is 0.
pub(super) fn round_above_minimum(x: &[f32], d: f32, min: f32, limit: i32, levels: &mut [u8]) {
    if d != 0.0 {
        for (level, &x) in levels.iter_mut().zip(x) {
            *level = nearest((x + min) / d).clamp(0, limit) as u8;
        }
    }
}

/// The search for a scale and a minimum.
pub(super) struct MinimumSearch {
    /// Largest integer.
    pub(super) limit: i32,
    /// Trial scales map the range of the values to `limit + first`, `limit + first + 0.1`, ...
    pub(super) first: f32,
    /// Number of trial scales after the first.
    pub(super) steps: i32,
    /// Whether errors are summed as magnitudes instead of squares.
    pub(super) absolute: bool,
}

/// A sub-block as `scale * levels[i] - min`.
pub(super) struct Fit<const N: usize> {
    pub(super) scale: f32,
    pub(super) min: f32,
    pub(super) levels: [u8; N],
}

impl MinimumSearch {
    /// Finds scale, minimum and integers with a small sum of `weight * error`. For the integers of each trial scale the best
    /// scale and minimum are taken in closed form; the minimum never exceeds 0.
    ///
    /// As in the reference, the trials after an improvement start from the improved minimum.
    pub(super) fn fit<const N: usize>(&self, x: &[f32; N], weights: &[f32; N]) -> Fit<N> {
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
            return Fit { scale: 0.0, min: -min, levels: [0; N] };
        }
        let round = |inverse: f32, min: f32| x.map(|x| nearest(inverse * (x - min)).clamp(0, self.limit) as u8);
        let error = |scale: f32, min: f32, levels: &[u8; N]| {
            let terms = x.iter().zip(weights).zip(levels);
            terms.fold(0.0, |sum, ((&x, &w), &q)| {
                let difference = scale * f32::from(q) + min - x;
                sum + w * if self.absolute { difference.abs() } else { difference * difference }
            })
        };
        let inverse = self.limit as f32 / (max - min);
        let mut scale = 1.0 / inverse;
        let mut levels = round(inverse, min);
        let mut best = error(scale, min, &levels);
        for step in 0..=self.steps {
            let inverse = (self.first + 0.1 * step as f32 + self.limit as f32) / (max - min);
            let trial = round(inverse, min);
            let (mut sum_l, mut sum_ll, mut sum_xl) = (0.0, 0.0, 0.0);
            for ((&x, &w), &q) in x.iter().zip(weights).zip(&trial) {
                let q = f32::from(q);
                sum_l += w * q;
                sum_ll += w * q * q;
                sum_xl += w * q * x;
            }
            let determinant = sum_w * sum_ll - sum_l * sum_l;
            if determinant > 0.0 {
                let mut trial_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
                let mut trial_min = (sum_ll * sum_x - sum_l * sum_xl) / determinant;
                if trial_min > 0.0 {
                    trial_min = 0.0;
                    trial_scale = sum_xl / sum_ll;
                }
                let trial_error = error(trial_scale, trial_min, &trial);
                if trial_error < best {
                    (scale, min, levels, best) = (trial_scale, trial_min, trial, trial_error);
                }
            }
        }
        Fit { scale, min: -min, levels }
    }

    /// Encodes a super-block of eight sub-blocks of 32 with packed six-bit scales and minima, as Q4_K and Q5_K have it.
    ///
    /// Stores the two scales and the packed bytes and returns the integers.
    pub(super) fn super_block(
        &self,
        values: &[f32],
        d: &mut Half,
        dmin: &mut Half,
        packed: &mut [u8; 12],
    ) -> [u8; SUPER] {
        let mut levels = [0; SUPER];
        let (mut scales, mut minima) = ([0.0; 8], [0.0; 8]);
        let sub_blocks = values.as_chunks::<32>().0;
        for (j, x) in sub_blocks.iter().enumerate() {
            let squares = x.iter().fold(0.0, |sum, x| sum + x * x);
            let mean = (squares / 32.0f32).sqrt();
            let fit = self.fit(x, &x.map(|x| mean + x.abs()));
            (scales[j], minima[j]) = (fit.scale, fit.min);
            levels[32 * j..][..32].copy_from_slice(&fit.levels);
        }
        let (top_scale, top_min) = (largest(&scales), largest(&minima));
        // The conversion to a byte comes before the limit, as in the reference.
        let quantize = |top: f32, values: [f32; 8]| {
            let inverse = if top > 0.0 { 63.0 / top } else { 0.0 };
            values.map(|value| (nearest(inverse * value) as u8).min(63))
        };
        *packed = pack_scales_and_minima(&quantize(top_scale, scales), &quantize(top_min, minima));
        d.set(top_scale / 63.0);
        dmin.set(top_min / 63.0);
        let (scales, minima) = scales_and_minima(packed);
        for (j, x) in sub_blocks.iter().enumerate() {
            let (scale, min) = (d.get() * f32::from(scales[j]), dmin.get() * f32::from(minima[j]));
            round_above_minimum(x, scale, min, self.limit, &mut levels[32 * j..][..32]);
        }
        levels
    }
}

/// The largest value, at least 0.
pub(super) fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |top, &value| if value > top { value } else { top })
}
