//! The searches for sixteen sub-blocks at once: lane `j` does for sub-block `j` what the plain code does, in its order.
//!
//! Integers are floats here. Adding and subtracting 1.5 * 2^23 rounds as [`nearest`](crate::format::round::nearest) does as long as
//! values are below 2^22 in magnitude; sub-blocks that leave this range, or with values that are not finite, are left to the
//! plain code. A condition that two comparisons make is one comparison with an infinity where the other does not hold.

use super::minimum::{MinimumFit, MinimumSearch};
use super::signed::{self, SignedFit};
use super::{TINY, Weights, nonlinear};
use crate::format::nonlinear::{LEVELS, MIDDLES};
use crate::isa::{Isa, Kernel, dispatch_floats};
use crate::{Cpu, LANES, Level};

/// 1.5 * 2^23: the sum with it has no fraction.
const MAGIC: f32 = 12_582_912.0;
/// Where rounding by [`MAGIC`] ends.
const REACH: f32 = 4_194_304.0;

/// Value `i` of sub-block `j` in lane `j` of vector `i`; zeros in lanes without a sub-block.
fn transposed<const N: usize>(x: &[[f32; N]]) -> [[f32; LANES]; N] {
    assert!(x.len() <= LANES, "a sub-block for each lane");
    let mut lanes = [[0.0; LANES]; N];
    for (j, x) in x.iter().enumerate() {
        for (lanes, &x) in lanes.iter_mut().zip(x) {
            lanes[j] = x;
        }
    }
    lanes
}

/// `v` rounded to an integer, ties to even.
#[inline(always)]
fn rounded<I: Isa>(isa: I, v: I::F) -> I::F {
    isa.sub(isa.add(v, isa.splat(MAGIC)), isa.splat(MAGIC))
}

/// `v` rounded and clamped.
#[inline(always)]
fn clamped<I: Isa>(isa: I, v: I::F, low: f32, high: f32) -> I::F {
    isa.min(isa.max(rounded(isa, v), isa.splat(low)), isa.splat(high))
}

/// The lanes of `v`.
#[inline(always)]
fn lanes_of<I: Isa>(isa: I, v: I::F) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    isa.store(v, &mut lanes);
    lanes
}

/// The value of largest magnitude in each lane, the first one of several; NaN where a value is not finite.
#[inline(always)]
fn peaks<I: Isa, const N: usize>(isa: I, x: &[[f32; LANES]; N]) -> I::F {
    let zero = isa.splat(0.0);
    let (mut peak, mut finite) = (zero, zero);
    for x in x {
        let x = isa.load(x);
        peak = isa.select_less(isa.abs(peak), isa.abs(x), x, peak);
        finite = isa.add(finite, isa.mul(x, zero));
    }
    isa.add(peak, finite)
}

/// `if a < b && also < than { x } else { y }`.
struct Better<F> {
    a: F,
    b: F,
}

impl<F: Copy> Better<F> {
    /// Where `a < b`.
    fn new(a: F, b: F) -> Better<F> {
        Better { a, b }
    }

    /// And where `c < d`.
    #[inline(always)]
    fn and<I: Isa<F = F>>(self, isa: I, c: F, d: F) -> Better<F> {
        Better { b: isa.select_less(c, d, self.b, isa.splat(f32::NEG_INFINITY)), ..self }
    }

    #[inline(always)]
    fn take<I: Isa<F = F>>(&self, isa: I, x: F, y: &mut F) {
        *y = isa.select_less(self.a, self.b, x, *y);
    }
}

/// [`SignedFit::of`] each of `x`.
pub(super) fn fit_signed<const N: usize>(
    cpu: Cpu,
    x: &[[f32; N]],
    weights: &Weights<N>,
    limit: i32,
) -> [SignedFit; LANES] {
    let mut fits = [SignedFit::ZEROS; LANES];
    let plain = if cpu.level() == Level::Scalar {
        u16::MAX
    } else {
        let kernel = Signed { x: &transposed(x), weights: &transposed(weights), limit, fits: &mut fits };
        dispatch_floats(cpu, kernel)
    };
    for (j, x) in x.iter().enumerate().filter(|(j, _)| plain >> j & 1 == 1) {
        fits[j] = SignedFit::of(x, &weights[j], limit);
    }
    fits
}

struct Signed<'a, const N: usize> {
    x: &'a [[f32; LANES]; N],
    weights: &'a [[f32; LANES]; N],
    limit: i32,
    fits: &'a mut [SignedFit; LANES],
}

impl<const N: usize> Signed<'_, N> {
    /// As [`signed::sums`].
    #[inline(always)]
    fn sums<I: Isa>(&self, isa: I, inverse: I::F) -> (I::F, I::F) {
        let (low, high) = (-self.limit as f32, (self.limit - 1) as f32);
        let (mut xl, mut ll) = (isa.splat(0.0), isa.splat(0.0));
        for (x, w) in self.x.iter().zip(self.weights) {
            let (x, w) = (isa.load(x), isa.load(w));
            let q = clamped(isa, isa.mul(inverse, x), low, high);
            xl = isa.add(xl, isa.mul(isa.mul(w, x), q));
            ll = isa.add(ll, isa.mul(isa.mul(w, q), q));
        }
        (xl, ll)
    }
}

impl<const N: usize> Kernel for Signed<'_, N> {
    /// The lanes that are left to the plain code.
    type Output = u16;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> u16 {
        let peak = peaks(isa, self.x);
        let zero = isa.splat(0.0);
        let mut best_inverse = isa.div(isa.splat(-self.limit as f32), peak);
        let (xl, ll) = self.sums(isa, best_inverse);
        let quotient = isa.div(xl, ll);
        // Weights that are not negative give no sum below zero; for others the plain code is asked, below.
        let mut scale = isa.select_less(zero, ll, quotient, zero);
        let mut best = isa.mul(scale, xl);
        let odd = isa.equal(ll, isa.abs(ll));
        for step in (-9..=9).filter(|&step| step != 0) {
            let inverse = isa.div(isa.splat(-signed::span(self.limit, step)), peak);
            let (xl, ll) = self.sums(isa, inverse);
            let better = Better::new(isa.mul(best, ll), isa.mul(xl, xl)).and(isa, zero, ll);
            let trial = isa.div(xl, ll);
            better.take(isa, isa.mul(trial, xl), &mut best);
            better.take(isa, trial, &mut scale);
            better.take(isa, inverse, &mut best_inverse);
        }
        let (peak, scale, inverse) = (lanes_of(isa, peak), lanes_of(isa, scale), lanes_of(isa, best_inverse));
        let mut plain = !odd;
        for (j, fit) in self.fits.iter_mut().enumerate() {
            let zeros = peak[j].abs() < TINY;
            *fit = if zeros { SignedFit::ZEROS } else { SignedFit { scale: scale[j], inverse: inverse[j] } };
            if zeros {
                plain &= !(1 << j);
            } else if !peak[j].is_finite() {
                plain |= 1 << j;
            }
        }
        plain
    }
}

/// The scales of [`fit_signed_by_descent`](signed::fit_signed_by_descent) for each of `x`.
pub(super) fn fit_signed_by_descent<const N: usize>(cpu: Cpu, x: &[[f32; N]], limit: i32) -> [f32; LANES] {
    let mut scales = [0.0; LANES];
    let plain = if cpu.level() == Level::Scalar {
        u16::MAX
    } else {
        dispatch_floats(cpu, Descent { x: &transposed(x), limit, scales: &mut scales })
    };
    for (j, x) in x.iter().enumerate().filter(|(j, _)| plain >> j & 1 == 1) {
        (scales[j], _) = signed::fit_signed_by_descent(x, limit);
    }
    scales
}

struct Descent<'a, const N: usize> {
    x: &'a [[f32; LANES]; N],
    limit: i32,
    scales: &'a mut [f32; LANES],
}

impl<const N: usize> Kernel for Descent<'_, N> {
    /// The lanes that are left to the plain code.
    type Output = u16;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> u16 {
        let peak = peaks(isa, self.x);
        let (low, high) = (-self.limit as f32, (self.limit - 1) as f32);
        let (zero, half) = (isa.splat(0.0), isa.splat(0.5));
        let inverse = isa.div(isa.splat(low), peak);
        let mut levels = [zero; N];
        let (mut xl, mut ll) = (zero, zero);
        for (x, level) in self.x.iter().zip(&mut levels) {
            let x = isa.load(x);
            let w = isa.mul(x, x);
            let q = clamped(isa, isa.mul(inverse, x), low, high);
            xl = isa.add(xl, isa.mul(isa.mul(w, x), q));
            ll = isa.add(ll, isa.mul(isa.mul(w, q), q));
            *level = q;
        }
        let mut far = zero;
        for _ in 0..5 {
            let mut same = u16::MAX;
            for (x, level) in self.x.iter().zip(&mut levels) {
                let (x, old) = (isa.load(x), *level);
                let w = isa.mul(x, x);
                let wx = isa.mul(w, x);
                let other_xl = isa.sub(xl, isa.mul(wx, old));
                let other_ll = isa.sub(ll, isa.mul(isa.mul(w, old), old));
                let ratio = isa.div(isa.mul(x, other_ll), other_xl);
                let one = isa.select_less(isa.abs(ratio), isa.splat(REACH), zero, isa.splat(1.0));
                far = isa.max(isa.select_less(zero, other_xl, one, zero), far);
                let q = clamped(isa, ratio, low, high);
                let new_xl = isa.add(other_xl, isa.mul(wx, q));
                let new_ll = isa.add(other_ll, isa.mul(isa.mul(w, q), q));
                let (before, after) = (isa.mul(isa.mul(xl, xl), new_ll), isa.mul(isa.mul(new_xl, new_xl), ll));
                let better = Better::new(before, after).and(isa, zero, other_xl).and(isa, zero, new_ll).and(
                    isa,
                    half,
                    isa.abs(isa.sub(q, old)),
                );
                better.take(isa, q, level);
                better.take(isa, new_xl, &mut xl);
                better.take(isa, new_ll, &mut ll);
                same &= isa.equal(old, *level);
            }
            if same == u16::MAX {
                break;
            }
        }
        let scale = isa.select_less(zero, ll, isa.div(xl, ll), zero);
        let (peak, scale, far) = (lanes_of(isa, peak), lanes_of(isa, scale), lanes_of(isa, far));
        let mut plain = 0;
        for (j, out) in self.scales.iter_mut().enumerate() {
            let zeros = peak[j].abs() < TINY;
            *out = if zeros { 0.0 } else { scale[j] };
            plain |= u16::from(!zeros && (!peak[j].is_finite() || far[j] > 0.0)) << j;
        }
        plain
    }
}

/// [`MinimumSearch::fit`] of each of `x`.
pub(super) fn fit_minimum<const N: usize>(
    cpu: Cpu,
    search: &MinimumSearch,
    x: &[[f32; N]],
    weights: &Weights<N>,
    fits: &mut [MinimumFit; LANES],
) {
    let plain = if cpu.level() == Level::Scalar {
        u16::MAX
    } else {
        let (x, weights) = (&transposed(x), &transposed(weights));
        if search.absolute {
            dispatch_floats(cpu, Minimum::<N, true> { search, x, weights, fits })
        } else {
            dispatch_floats(cpu, Minimum::<N, false> { search, x, weights, fits })
        }
    };
    for (j, x) in x.iter().enumerate().filter(|(j, _)| plain >> j & 1 == 1) {
        fits[j] = search.fit(x, &weights[j]);
    }
}

struct Minimum<'a, const N: usize, const ABSOLUTE: bool> {
    search: &'a MinimumSearch,
    x: &'a [[f32; LANES]; N],
    weights: &'a [[f32; LANES]; N],
    fits: &'a mut [MinimumFit; LANES],
}

impl<const N: usize, const ABSOLUTE: bool> Minimum<'_, N, ABSOLUTE> {
    /// Sets `levels` to the integers. Returns 1 where one may have been beyond the reach of the rounding, else 0.
    #[inline(always)]
    fn round<I: Isa>(
        &self,
        isa: I,
        inverse: I::F,
        min: I::F,
        (lowest, highest): (I::F, I::F),
        levels: &mut [I::F; N],
    ) -> I::F {
        let high = self.search.limit as f32;
        for (x, level) in self.x.iter().zip(levels) {
            *level = clamped(isa, isa.mul(inverse, isa.sub(isa.load(x), min)), 0.0, high);
        }
        // The largest magnitudes of what is rounded.
        let top = isa.abs(isa.mul(inverse, isa.sub(highest, min)));
        let bottom = isa.abs(isa.mul(inverse, isa.sub(lowest, min)));
        let (reach, one) = (isa.splat(REACH), isa.splat(1.0));
        isa.select_less(top, reach, isa.select_less(bottom, reach, isa.splat(0.0), one), one)
    }

    /// The sum of the weighted errors.
    #[inline(always)]
    fn error<I: Isa>(&self, isa: I, scale: I::F, min: I::F, levels: &[I::F; N]) -> I::F {
        let mut sum = isa.splat(0.0);
        for ((x, w), &q) in self.x.iter().zip(self.weights).zip(levels) {
            let difference = isa.sub(isa.add(isa.mul(scale, q), min), isa.load(x));
            let error = if ABSOLUTE { isa.abs(difference) } else { isa.mul(difference, difference) };
            sum = isa.add(sum, isa.mul(isa.load(w), error));
        }
        sum
    }
}

impl<const N: usize, const ABSOLUTE: bool> Kernel for Minimum<'_, N, ABSOLUTE> {
    /// The lanes that are left to the plain code.
    type Output = u16;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> u16 {
        let zero = isa.splat(0.0);
        let first = isa.load(&self.x[0]);
        let (mut lowest, mut highest) = (first, first);
        let mut sum_w = isa.load(&self.weights[0]);
        let mut sum_x = isa.mul(sum_w, first);
        let mut finite = isa.mul(first, zero);
        for (x, w) in self.x[1..].iter().zip(&self.weights[1..]) {
            let (x, w) = (isa.load(x), isa.load(w));
            lowest = isa.min(x, lowest);
            highest = isa.max(x, highest);
            sum_w = isa.add(sum_w, w);
            sum_x = isa.add(sum_x, isa.mul(w, x));
            finite = isa.add(finite, isa.mul(x, zero));
        }
        let mut min = isa.select_less(zero, lowest, zero, lowest);
        let flat = isa.equal(highest, min);
        let flat_min = min;
        let mut levels = [zero; N];
        let mut best_inverse = isa.div(isa.splat(self.search.limit as f32), isa.sub(highest, min));
        let mut base = min;
        let mut scale = isa.div(isa.splat(1.0), best_inverse);
        let mut far = self.round(isa, best_inverse, min, (lowest, highest), &mut levels);
        let mut best = self.error(isa, scale, min, &levels);
        for step in 0..=self.search.steps {
            let inverse = isa.div(isa.splat(self.search.span(step)), isa.sub(highest, min));
            far = isa.max(self.round(isa, inverse, min, (lowest, highest), &mut levels), far);
            let (mut sum_l, mut sum_ll, mut sum_xl) = (zero, zero, zero);
            for ((x, w), &q) in self.x.iter().zip(self.weights).zip(&levels) {
                let wq = isa.mul(isa.load(w), q);
                sum_l = isa.add(sum_l, wq);
                sum_ll = isa.add(sum_ll, isa.mul(wq, q));
                sum_xl = isa.add(sum_xl, isa.mul(wq, isa.load(x)));
            }
            let determinant = isa.sub(isa.mul(sum_w, sum_ll), isa.mul(sum_l, sum_l));
            let joint_scale = isa.div(isa.sub(isa.mul(sum_w, sum_xl), isa.mul(sum_x, sum_l)), determinant);
            let joint_min = isa.div(isa.sub(isa.mul(sum_ll, sum_x), isa.mul(sum_l, sum_xl)), determinant);
            let trial_scale = isa.select_less(zero, joint_min, isa.div(sum_xl, sum_ll), joint_scale);
            let trial_min = isa.select_less(zero, joint_min, zero, joint_min);
            let error = self.error(isa, trial_scale, trial_min, &levels);
            let better = Better::new(error, best).and(isa, zero, determinant);
            better.take(isa, trial_scale, &mut scale);
            better.take(isa, inverse, &mut best_inverse);
            better.take(isa, min, &mut base);
            better.take(isa, trial_min, &mut min);
            better.take(isa, error, &mut best);
        }
        let (scale, min, flat_min) = (lanes_of(isa, scale), lanes_of(isa, min), lanes_of(isa, flat_min));
        let (inverse, base) = (lanes_of(isa, best_inverse), lanes_of(isa, base));
        let (far, finite) = (lanes_of(isa, far), lanes_of(isa, finite));
        let mut plain = 0;
        for (j, fit) in self.fits.iter_mut().enumerate() {
            *fit = if flat >> j & 1 == 1 {
                MinimumFit { scale: 0.0, min: -flat_min[j], inverse: 0.0, base: 0.0 }
            } else {
                plain |= u16::from(far[j] > 0.0) << j;
                MinimumFit { scale: scale[j], min: -min[j], inverse: inverse[j], base: base[j] }
            };
            plain |= u16::from(finite[j].is_nan()) << j;
        }
        plain
    }
}

/// [`nonlinear::fit_scale`] of each of `x`.
pub(super) fn fit_nonlinear(cpu: Cpu, x: &[[f32; 32]], weights: &Weights<32>) -> [f32; LANES] {
    let mut scales = [0.0; LANES];
    let plain = if cpu.level() == Level::Scalar {
        u16::MAX
    } else {
        dispatch_floats(cpu, Nonlinear { x: &transposed(x), weights: &transposed(weights), scales: &mut scales })
    };
    for (j, x) in x.iter().enumerate().filter(|(j, _)| plain >> j & 1 == 1) {
        scales[j] = nonlinear::fit_scale(x, &weights[j]);
    }
    scales
}

struct Nonlinear<'a> {
    x: &'a [[f32; LANES]; 32],
    weights: &'a [[f32; LANES]; 32],
    scales: &'a mut [f32; LANES],
}

/// The nearest level of each lane, the upper one of two.
#[inline(always)]
fn nearest_level<I: Isa>(isa: I, v: I::F) -> I::F {
    let mut level = isa.splat(f32::from(LEVELS[0]));
    for (&middle, &upper) in MIDDLES.iter().zip(&LEVELS[1..]) {
        level = isa.select_less(v, isa.splat(middle), level, isa.splat(f32::from(upper)));
    }
    level
}

impl Nonlinear<'_> {
    /// As in [`nonlinear`].
    #[inline(always)]
    fn sums<I: Isa>(&self, isa: I, inverse: I::F) -> (I::F, I::F) {
        let (mut xq, mut qq) = (isa.splat(0.0), isa.splat(0.0));
        for (x, w) in self.x.iter().zip(self.weights) {
            let (x, w) = (isa.load(x), isa.load(w));
            let q = nearest_level(isa, isa.mul(inverse, x));
            let wq = isa.mul(w, q);
            xq = isa.add(xq, isa.mul(wq, x));
            qq = isa.add(qq, isa.mul(wq, q));
        }
        (xq, qq)
    }
}

impl Kernel for Nonlinear<'_> {
    /// The lanes that are left to the plain code.
    type Output = u16;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> u16 {
        let zero = isa.splat(0.0);
        let peak = peaks(isa, self.x);
        let lowest = f32::from(LEVELS[0]);
        let (xq, qq) = self.sums(isa, isa.div(isa.splat(1.0), isa.div(isa.neg(peak), isa.splat(lowest))));
        let mut scale = isa.select_less(zero, qq, isa.div(xq, qq), zero);
        let mut best = isa.mul(scale, xq);
        for step in -7i8..=7 {
            let (xq, qq) = self.sums(isa, isa.div(isa.splat(f32::from(step) + lowest), peak));
            let better = Better::new(isa.mul(best, qq), isa.mul(xq, xq)).and(isa, zero, qq);
            let trial = isa.div(xq, qq);
            better.take(isa, isa.mul(trial, xq), &mut best);
            better.take(isa, trial, &mut scale);
        }
        let (peak, scale) = (lanes_of(isa, peak), lanes_of(isa, scale));
        let mut plain = 0;
        for (j, out) in self.scales.iter_mut().enumerate() {
            let zeros = peak[j].abs() < TINY;
            *out = if zeros { 0.0 } else { scale[j] };
            plain |= u16::from(!peak[j].is_finite()) << j;
        }
        plain
    }
}
