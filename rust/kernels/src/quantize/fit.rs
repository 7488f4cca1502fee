//! Scales and minima for sixteen rows: of a sub-block as floats, and of a block as stored.
//!
//! The error of a sub-block is `sum w (x - (scale * value - min))^2`. For given values, the best `scale` and `min` follow in closed
//! form (least squares); trial scales choose the values, and both alternate. What is stored are integers times two floats per
//! block: these are fitted to the sub-blocks, integers are tested with their neighbours, and the floats are fitted once more to the
//! final integers.

use super::lanes::{LANES, Lanes, Round, all, map2, nearest, reciprocals, select};
use crate::format::parts::{Grid, Minima, Precision, SUB_BLOCKS};
use crate::half::{f16_to_f32, f32_to_f16};

/// Magnitudes below this count as zero.
const TINY: f32 = 1e-15;

/// Rounds of fitting floats to integers and integers to floats.
const ROUNDS: usize = 2;

/// The scales of a block of sixteen rows.
#[derive(Clone, Copy)]
pub(super) struct Scales {
    pub(super) d: Lanes,
    pub(super) dmin: Lanes,
    /// Integers, as floats.
    pub(super) scales: [Lanes; SUB_BLOCKS],
    pub(super) minima: [Lanes; SUB_BLOCKS],
}

impl Scales {
    /// Scale and minimum of sub-block `j`.
    #[inline(always)]
    pub(super) fn sub(&self, j: usize) -> (Lanes, Lanes) {
        (map2(&self.d, &self.scales[j], |d, s| d * s), map2(&self.dmin, &self.minima[j], |d, m| d * m))
    }
}

/// What fits scales of one format.
#[derive(Clone, Copy)]
pub(super) struct Fitter<R> {
    pub(super) grid: Grid,
    pub(super) round: R,
}

impl<R: Round> Fitter<R> {
    /// The value of each number, given scale and minimum of its sub-block.
    #[inline(always)]
    pub(super) fn values(&self, x: &Lanes, inverse: &Lanes, min: &Lanes) -> Lanes {
        self.round.near(&core::array::from_fn(|l| (x[l] + min[l]) * inverse[l]))
    }

    /// The error of a sub-block.
    #[inline(always)]
    fn error(&self, x: &[Lanes], w: &[Lanes], scale: &Lanes, min: &Lanes) -> Lanes {
        let inverse = reciprocals(scale);
        let mut sum = all(0.0);
        for (x, w) in x.iter().zip(w) {
            let values = self.values(x, &inverse, min);
            for l in 0..LANES {
                let error = (x[l] + min[l]) - scale[l] * values[l];
                sum[l] += w[l] * (error * error);
            }
        }
        sum
    }

    /// A scale without minimum, and the sum of `w value^2`, by which an error of the scale counts.
    #[inline(always)]
    fn fit_scale(&self, x: &[Lanes], w: &[Lanes]) -> (Lanes, Lanes) {
        let mut peak = all(0.0);
        for x in x {
            for l in 0..LANES {
                peak[l] = if x[l].abs() > peak[l].abs() { x[l] } else { peak[l] };
            }
        }
        let zero = peak.map(|peak| peak.abs() < TINY);
        let unit = core::array::from_fn(|l| if zero[l] { 0.0 } else { 1.0 / peak[l] });
        let (mut scale, mut weight, mut best) = (all(0.0), all(0.0), all(0.0));
        let mut attempt = |inverse: &Lanes| {
            let (mut xv, mut vv) = (all(0.0), all(0.0));
            for (x, w) in x.iter().zip(w) {
                let values = self.values(x, inverse, &all(0.0));
                for l in 0..LANES {
                    let wv = w[l] * values[l];
                    xv[l] += wv * x[l];
                    vv[l] += wv * values[l];
                }
            }
            for l in 0..LANES {
                // What the error falls by: (sum w x v)^2 / sum w v^2.
                let better = vv[l] > 0.0 && xv[l] * xv[l] > best[l] * vv[l];
                let fitted = xv[l] / vv[l];
                scale[l] = if better { fitted } else { scale[l] };
                weight[l] = if better { vv[l] } else { weight[l] };
                best[l] = if better { fitted * xv[l] } else { best[l] };
            }
            scale
        };
        let (low, high) = (self.round.low(), self.round.high());
        // The value of largest magnitude becomes the least value of the grid, or the greatest, or lies beyond and is cut off.
        for bound in [low, high] {
            let span = bound.abs();
            let (from, to) = if span > 20.0 { (-0.03, 0.06) } else { (-0.15, 0.35) };
            const STEPS: usize = 14;
            for step in 0..=STEPS {
                let target = bound * (1.0 + from + (to - from) * step as f32 / STEPS as f32);
                attempt(&unit.map(|unit| target * unit));
            }
        }
        let mut last = attempt(&all(0.0));
        for _ in 0..2 {
            last = attempt(&reciprocals(&last));
        }
        (last, weight)
    }

    /// A scale and a minimum, and the sums of `w value^2` and `w`, by which their errors count. The minimum is at least 0 unless
    /// it is free.
    #[inline(always)]
    fn fit_minimum(&self, x: &[Lanes], w: &[Lanes]) -> (Lanes, Lanes, Lanes, Lanes) {
        let free = self.grid.minima == Minima::Free;
        let (mut low, mut high) = (all(f32::INFINITY), all(f32::NEG_INFINITY));
        let (mut sum_w, mut sum_x) = (all(0.0), all(0.0));
        for (x, w) in x.iter().zip(w) {
            for l in 0..LANES {
                low[l] = if x[l] < low[l] { x[l] } else { low[l] };
                high[l] = if x[l] > high[l] { x[l] } else { high[l] };
                sum_w[l] += w[l];
                sum_x[l] += w[l] * x[l];
            }
        }
        if !free {
            low = low.map(|low| if low > 0.0 { 0.0 } else { low });
        }
        let range = map2(&high, &low, |high, low| high - low);
        let flat: [bool; LANES] = range.map(|range| range.is_nan() || range <= TINY);
        let top = self.round.high();
        let (mut scale, mut min) = (all(0.0), low.map(|low| -low));
        let (mut weight, mut best) = (all(0.0), all(f32::INFINITY));
        // Values of the trial scale and minimum, then the best scale and minimum for them.
        let mut attempt = |inverse: &Lanes, offset: &Lanes| {
            let (mut sv, mut svv, mut sxv, mut sxx) = (all(0.0), all(0.0), all(0.0), all(0.0));
            for (x, w) in x.iter().zip(w) {
                let values = self.values(x, inverse, offset);
                for l in 0..LANES {
                    let wv = w[l] * values[l];
                    sv[l] += wv;
                    svv[l] += wv * values[l];
                    sxv[l] += wv * x[l];
                    sxx[l] += w[l] * (x[l] * x[l]);
                }
            }
            for l in 0..LANES {
                let determinant = sum_w[l] * svv[l] - sv[l] * sv[l];
                let inverse = 1.0 / determinant;
                let mut s = (sum_w[l] * sxv[l] - sum_x[l] * sv[l]) * inverse;
                let mut m = (sv[l] * sxv[l] - svv[l] * sum_x[l]) * inverse;
                let below = !free && m < 0.0;
                let alone = sxv[l] / svv[l];
                s = if below { alone } else { s };
                m = if below { 0.0 } else { m };
                // sum w (x + m - s v)^2, expanded.
                let error =
                    sxx[l] + m * (2.0 * sum_x[l] + m * sum_w[l]) - s * (2.0 * sxv[l] + 2.0 * m * sv[l] - s * svv[l]);
                let better = determinant > 0.0 && s > 0.0 && error < best[l];
                scale[l] = if better { s } else { scale[l] };
                min[l] = if better { m } else { min[l] };
                weight[l] = if better { svv[l] } else { weight[l] };
                best[l] = if better { error } else { best[l] };
            }
            (scale, min)
        };
        let (from, to, steps) = if top < 4.0 { (-0.35, 0.55, 18) } else { (-0.12, 0.2, 16) };
        let offset = low.map(|low| -low);
        let mut last = (all(0.0), offset);
        for step in 0..=steps {
            let target = top * (1.0 + from + (to - from) * step as f32 / steps as f32);
            last = attempt(&core::array::from_fn(|l| if flat[l] { 0.0 } else { target / range[l] }), &offset);
            // The trial's own neighbourhood: the same scale above the best minimum found so far.
            last = attempt(&core::array::from_fn(|l| if flat[l] { 0.0 } else { target / range[l] }), &last.1);
        }
        for _ in 0..3 {
            last = attempt(&reciprocals(&last.0), &last.1);
        }
        let (scale, min) = last;
        // A constant sub-block is its minimum alone where that may be, else its value times the greatest value.
        let scale = core::array::from_fn(|l| match flat[l] {
            true => 0.0,
            false => scale[l],
        });
        (scale, min, weight, sum_w)
    }

    /// The factor of integers in `low..=high` that come nearest to `s`, errors of which count as `weight`.
    #[inline(always)]
    fn factor(&self, s: &[Lanes], weight: &[Lanes], low: f32, high: f32) -> Lanes {
        let signed = low < 0.0;
        let mut peak = all(0.0);
        for s in s {
            for l in 0..LANES {
                let larger = if signed { s[l].abs() > peak[l].abs() } else { s[l] > peak[l] };
                peak[l] = if larger { s[l] } else { peak[l] };
            }
        }
        let (mut best, mut factor) = (all(f32::INFINITY), all(0.0));
        let mut attempt = |d: &Lanes| {
            let inverse = reciprocals(d);
            let (mut sq, mut qq, mut ss) = (all(0.0), all(0.0), all(0.0));
            for (s, weight) in s.iter().zip(weight) {
                for l in 0..LANES {
                    let q = clamped(s[l] * inverse[l], low, high);
                    sq[l] += weight[l] * (s[l] * q);
                    qq[l] += weight[l] * (q * q);
                    ss[l] += weight[l] * (s[l] * s[l]);
                }
            }
            for l in 0..LANES {
                let fitted = if qq[l] > 0.0 { sq[l] / qq[l] } else { d[l] };
                let error = ss[l] - fitted * sq[l];
                let better = error < best[l];
                best[l] = if better { error } else { best[l] };
                factor[l] = if better { fitted } else { factor[l] };
            }
            factor
        };
        let span = high - low;
        let trials = if span > 100.0 { 2 } else { 6 };
        let mut last = all(0.0);
        for trial in 0..trials {
            // Fewer steps leave the largest where it is and give the others a coarser grid, which may suit them better.
            let step = trial as f32 * if span > 40.0 { 1.0 } else { 0.5 };
            last = attempt(&peak.map(|peak| peak / (high - step)));
            if signed {
                last = attempt(&peak.map(|peak| peak / (low + step)));
            }
        }
        last
    }

    /// `d` or `dmin` as it will be stored.
    #[inline(always)]
    fn stored(&self, d: &Lanes) -> Lanes {
        match self.grid.precision {
            Precision::Half => d.map(|d| f16_to_f32(f32_to_f16(d.clamp(-65504.0, 65504.0)))),
            // The power of two that is nearest on a scale of logarithms: 2^x with the fraction below the square root of 2.
            Precision::Exponent => d.map(|d| {
                let scaled = (d.abs() * core::f32::consts::SQRT_2).max(f32::MIN_POSITIVE);
                f32::from_bits(scaled.to_bits() & 0x7f80_0000)
            }),
        }
    }

    /// The power of two with the least error near one.
    #[inline(always)]
    fn best_exponent(&self, x: &[Lanes], w: &[Lanes], d: &Lanes) -> Lanes {
        let (mut best, mut chosen) = (all(f32::INFINITY), *d);
        for factor in [0.25, 0.5, 1.0, 2.0] {
            let trial = d.map(|d| d * factor);
            let error = self.error(x, w, &trial, &all(0.0));
            let better = core::array::from_fn(|l| error[l] < best[l]);
            best = select(&better, &error, &best);
            chosen = select(&better, &trial, &chosen);
        }
        chosen
    }

    /// The integers of a sub-block near the ones given: the best of each with its neighbours.
    #[inline(always)]
    fn choose(&self, x: &[Lanes], w: &[Lanes], scales: &Scales, s: &Lanes, m: &Lanes) -> (Lanes, Lanes) {
        let (low, high) = self.grid.scales.map_or((1.0, 1.0), |(low, high)| (low as f32, high as f32));
        let top = match self.grid.minima {
            Minima::Steps(top) => top as f32,
            Minima::None | Minima::Free => 0.0,
        };
        let (mut best, mut best_s, mut best_m) = (all(f32::INFINITY), *s, *m);
        for dm in [0.0, -1.0, 1.0] {
            if dm != 0.0 && top == 0.0 {
                continue;
            }
            for ds in [0.0, -1.0, 1.0] {
                let trial_s = s.map(|s| (s + ds).clamp(low, high));
                let trial_m = if top == 0.0 { *m } else { m.map(|m| (m + dm).clamp(0.0, top)) };
                let scale = map2(&scales.d, &trial_s, |d, s| d * s);
                let min = map2(&scales.dmin, &trial_m, |d, m| d * m);
                let error = self.error(x, w, &scale, &min);
                let better = core::array::from_fn(|l| error[l] < best[l]);
                best = select(&better, &error, &best);
                best_s = select(&better, &trial_s, &best_s);
                best_m = select(&better, &trial_m, &best_m);
            }
        }
        (best_s, best_m)
    }

    /// Scale and minimum of a sub-block as integers, for given `d` and `dmin`.
    #[inline(always)]
    pub(super) fn refit(&self, x: &[Lanes], w: &[Lanes], scales: &mut Scales, j: usize) {
        let Some((low, high)) = self.grid.scales else { return };
        let inverse = reciprocals(&scales.d);
        let (s, m) = match self.grid.minima {
            Minima::Steps(top) => {
                let (s, m, ..) = self.fit_minimum(x, w);
                let inverse = reciprocals(&scales.dmin);
                (s, core::array::from_fn(|l| clamped(m[l] * inverse[l], 0.0, top as f32)))
            }
            Minima::None | Minima::Free => (self.fit_scale(x, w).0, all(0.0)),
        };
        let s = core::array::from_fn(|l| clamped(s[l] * inverse[l], low as f32, high as f32));
        (scales.scales[j], scales.minima[j]) = self.choose(x, w, scales, &s, &m);
    }

    /// The scales of a block: `x` and `w` have its columns.
    #[inline(always)]
    pub(super) fn block(&self, x: &[Lanes], w: &[Lanes]) -> Scales {
        let sub = self.grid.sub;
        let count = x.len() / sub;
        let (mut s, mut m) = ([all(0.0); SUB_BLOCKS], [all(0.0); SUB_BLOCKS]);
        let (mut weight_s, mut weight_m) = ([all(0.0); SUB_BLOCKS], [all(0.0); SUB_BLOCKS]);
        for j in 0..count {
            let (x, w) = (&x[j * sub..(j + 1) * sub], &w[j * sub..(j + 1) * sub]);
            match self.grid.minima {
                Minima::None => (s[j], weight_s[j]) = self.fit_scale(x, w),
                _ => (s[j], m[j], weight_s[j], weight_m[j]) = self.fit_minimum(x, w),
            }
        }
        let mut scales =
            Scales { d: all(0.0), dmin: all(0.0), scales: [all(1.0); SUB_BLOCKS], minima: [all(1.0); SUB_BLOCKS] };
        match self.grid.scales {
            None => {
                (scales.d, scales.dmin) = (self.stored(&s[0]), self.stored(&m[0]));
                if self.grid.precision == Precision::Exponent {
                    scales.d = self.best_exponent(x, w, &scales.d);
                }
            }
            Some((low, high)) => {
                let (low, high) = (low as f32, high as f32);
                scales.d = self.stored(&self.factor(&s[..count], &weight_s[..count], low, high));
                let inverse = reciprocals(&scales.d);
                for (integers, s) in scales.scales.iter_mut().zip(&s[..count]) {
                    *integers = core::array::from_fn(|l| clamped(s[l] * inverse[l], low, high));
                }
                if let Minima::Steps(top) = self.grid.minima {
                    scales.dmin = self.stored(&self.factor(&m[..count], &weight_m[..count], 0.0, top as f32));
                    let inverse = reciprocals(&scales.dmin);
                    for (integers, m) in scales.minima.iter_mut().zip(&m[..count]) {
                        *integers = core::array::from_fn(|l| clamped(m[l] * inverse[l], 0.0, top as f32));
                    }
                }
            }
        }
        for round in 0..=ROUNDS {
            if self.grid.scales.is_some() {
                for j in 0..count {
                    let (x, w) = (&x[j * sub..(j + 1) * sub], &w[j * sub..(j + 1) * sub]);
                    let (s, m) = (scales.scales[j], scales.minima[j]);
                    (scales.scales[j], scales.minima[j]) = self.choose(x, w, &scales, &s, &m);
                }
            }
            if round < ROUNDS && self.grid.precision == Precision::Half {
                self.polish(x, w, &mut scales, count);
            }
        }
        scales
    }

    /// Fits `d` and `dmin` to the integers, where that lowers the error.
    #[inline(always)]
    fn polish(&self, x: &[Lanes], w: &[Lanes], scales: &mut Scales, count: usize) {
        let sub = self.grid.sub;
        // x is about d A - dmin B.
        let (mut aa, mut ab, mut bb, mut ax, mut bx) = (all(0.0), all(0.0), all(0.0), all(0.0), all(0.0));
        let mut before = all(0.0);
        for j in 0..count {
            let (scale, min) = scales.sub(j);
            let inverse = reciprocals(&scale);
            for (x, w) in x[j * sub..(j + 1) * sub].iter().zip(&w[j * sub..(j + 1) * sub]) {
                let values = self.values(x, &inverse, &min);
                for l in 0..LANES {
                    let (a, b) = (scales.scales[j][l] * values[l], scales.minima[j][l]);
                    aa[l] += w[l] * (a * a);
                    ab[l] += w[l] * (a * b);
                    bb[l] += w[l] * (b * b);
                    ax[l] += w[l] * (a * x[l]);
                    bx[l] += w[l] * (b * x[l]);
                    let error = (x[l] + min[l]) - scale[l] * values[l];
                    before[l] += w[l] * (error * error);
                }
            }
        }
        let mut trial = *scales;
        for l in 0..LANES {
            let determinant = ab[l] * ab[l] - aa[l] * bb[l];
            let joint = self.grid.minima != Minima::None && determinant.abs() > 1e-6 * aa[l] * bb[l];
            if joint {
                let inverse = 1.0 / determinant;
                trial.d[l] = (ab[l] * bx[l] - ax[l] * bb[l]) * inverse;
                trial.dmin[l] = (aa[l] * bx[l] - ab[l] * ax[l]) * inverse;
            } else if aa[l] > 0.0 {
                trial.d[l] = (ax[l] + scales.dmin[l] * ab[l]) / aa[l];
            }
        }
        (trial.d, trial.dmin) = (self.stored(&trial.d), self.stored(&trial.dmin));
        let mut after = all(0.0);
        for j in 0..count {
            let (scale, min) = trial.sub(j);
            let error = self.error(&x[j * sub..(j + 1) * sub], &w[j * sub..(j + 1) * sub], &scale, &min);
            after = map2(&after, &error, |a, b| a + b);
        }
        let better = core::array::from_fn(|l| after[l] < before[l]);
        scales.d = select(&better, &trial.d, &scales.d);
        scales.dmin = select(&better, &trial.dmin, &scales.dmin);
    }
}

/// The nearest integer in a range.
#[inline(always)]
fn clamped(x: f32, low: f32, high: f32) -> f32 {
    let x = if x > low { x } else { low };
    nearest(if x < high { x } else { high })
}
