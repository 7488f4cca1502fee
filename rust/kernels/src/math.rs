//! Elementary functions without libm: f32 polynomials for the kernels (the same operations on every level), f64 ones for
//! tables that are computed once.
//!
//! The f64 functions use only exact IEEE operations (`+ - * /`, `mul_add`, conversions), so they are equal on every
//! platform.

mod double;

pub use double::{SIN_COS_LIMIT, exp64, ln64, pow64, sin_cos64};

use crate::isa::floats::Floats;

/// `1.5 * 2^23`: adding it to a value below 2^22 in magnitude rounds the value to an integer, ties to even.
const ROUND: f32 = 12_582_912.0;

/// `e^x` of every lane, within 1 ulp. Overflow gives infinity, underflow denormals and then zero; NaN stays NaN.
#[inline(always)]
pub fn exp<I: Floats>(isa: I, x: I::F) -> I::F {
    // ln 2 in two parts: HIGH has 15 bits, so that n * HIGH is exact.
    const HIGH: f32 = 0.693_145_75;
    const LOW: f32 = 1.428_606_8e-6;
    // (e^r - 1 - r) / r² for |r| <= ln(2)/2: Chebyshev interpolation, relative error of the whole 1.1e-8.
    const P: [f32; 5] = [0.5, 0.166_665_76, 0.041_666_552, 0.008_363_233, 0.001_392_625];

    // Outside of this range the result is zero or infinity. NaN passes: it is the second operand.
    let x = isa.max(isa.splat(-105.0), isa.min(isa.splat(89.0), x));
    // x = n ln 2 + r
    let n = isa.sub(isa.fma(x, isa.splat(std::f32::consts::LOG2_E), isa.splat(ROUND)), isa.splat(ROUND));
    let r = isa.fma(n, isa.splat(-HIGH), x);
    let r = isa.fma(n, isa.splat(-LOW), r);
    let mut p = isa.fma(isa.splat(P[4]), r, isa.splat(P[3]));
    p = isa.fma(p, r, isa.splat(P[2]));
    p = isa.fma(p, r, isa.splat(P[1]));
    p = isa.fma(p, r, isa.splat(P[0]));
    p = isa.fma(p, r, isa.splat(1.0));
    p = isa.fma(p, r, isa.splat(1.0));
    isa.scale2(p, n)
}

/// `tanh x` of every lane, within 2 ulp, also next to zero; NaN stays NaN.
#[inline(always)]
pub fn tanh<I: Floats>(isa: I, x: I::F) -> I::F {
    // (tanh(a) - a) / a³ in a² for a <= 0.625: Chebyshev interpolation, relative error of the whole 4e-9.
    const P: [f32; 6] = [-0.333_333_34, 0.133_333_04, -0.053_959_336, 0.021_769_676, -0.008_346_951, 0.002_296_968];

    let a = isa.abs(x);
    let z = isa.mul(a, a);
    let mut p = isa.fma(isa.splat(P[5]), z, isa.splat(P[4]));
    p = isa.fma(p, z, isa.splat(P[3]));
    p = isa.fma(p, z, isa.splat(P[2]));
    p = isa.fma(p, z, isa.splat(P[1]));
    p = isa.fma(p, z, isa.splat(P[0]));
    let near = isa.fma(isa.mul(p, z), a, a);
    // 1 - 2 / (e^2a + 1): no cancellation that matters from 0.625 on, and e^2a = ∞ gives 1.
    let e = exp(isa, isa.add(a, a));
    let far = isa.sub(isa.splat(1.0), isa.div(isa.splat(2.0), isa.add(e, isa.splat(1.0))));
    isa.with_sign(isa.select_less(a, isa.splat(0.625), near, far), x)
}

/// `x / (1 + e^-x)` of every lane.
#[inline(always)]
pub fn silu<I: Floats>(isa: I, x: I::F) -> I::F {
    isa.div(x, isa.add(isa.splat(1.0), exp(isa, isa.neg(x))))
}

/// `1 / (1 + e^-x)` of every lane.
#[inline(always)]
pub fn sigmoid<I: Floats>(isa: I, x: I::F) -> I::F {
    isa.div(isa.splat(1.0), isa.add(isa.splat(1.0), exp(isa, isa.neg(x))))
}

/// `ln(1 + e^x)` of every lane, computed as `max(x, 0) + ln(1 + y)` with `y = e^-|x|` and `ln(1 + y) = 2 atanh(y / (2 + y))`, so
/// that it keeps its relative accuracy for negative `x`.
#[inline(always)]
pub fn softplus<I: Floats>(isa: I, x: I::F) -> I::F {
    // (atanh(z) - z) / z³ in z² for z <= 1/3: Chebyshev interpolation, relative error of the whole 1e-9.
    const P: [f32; 6] = [0.333_333_34, 0.200_000_05, 0.142_851_53, 0.111_323_56, 0.087_323_51, 0.103_938_09];

    let y = exp(isa, isa.neg(isa.abs(x)));
    let z = isa.div(y, isa.add(isa.splat(2.0), y));
    let square = isa.mul(z, z);
    let mut p = isa.fma(isa.splat(P[5]), square, isa.splat(P[4]));
    p = isa.fma(p, square, isa.splat(P[3]));
    p = isa.fma(p, square, isa.splat(P[2]));
    p = isa.fma(p, square, isa.splat(P[1]));
    p = isa.fma(p, square, isa.splat(P[0]));
    let half = isa.fma(isa.mul(p, square), z, z);
    isa.fma(half, isa.splat(2.0), isa.max(isa.splat(0.0), x))
}

/// GELU in its tanh form, of every lane: `x/2 (1 + tanh u)` with `u = sqrt(2/π) (x + 0.044715 x³)`, computed as the
/// equal `x / (1 + e^-2u)`, which keeps its relative accuracy for negative `x`.
#[inline(always)]
pub fn gelu<I: Floats>(isa: I, x: I::F) -> I::F {
    const A: f32 = 0.044_715;
    /// `-2 sqrt(2/π)`.
    const B: f32 = -1.595_769;
    let inner = isa.fma(isa.mul(isa.mul(x, x), x), isa.splat(A), x);
    isa.div(x, isa.add(isa.splat(1.0), exp(isa, isa.mul(inner, isa.splat(B)))))
}

/// The gate of gpt-oss, of every lane: `g sigmoid(1.702 g) (u + 1)` with `g = min(gate, 7)` and `u = up` clamped to ±7; NaN
/// stays NaN.
#[inline(always)]
pub fn clamped_swiglu<I: Floats>(isa: I, gate: I::F, up: I::F) -> I::F {
    const SLOPE: f32 = 1.702;
    const LIMIT: f32 = 7.0;
    // NaN passes: it is the second operand.
    let gate = isa.min(isa.splat(LIMIT), gate);
    let up = isa.max(isa.splat(-LIMIT), isa.min(isa.splat(LIMIT), up));
    let swish = isa.div(gate, isa.add(isa.splat(1.0), exp(isa, isa.mul(gate, isa.splat(-SLOPE)))));
    isa.fma(swish, up, swish)
}

/// `cap * tanh(x / cap)` of every lane.
#[inline(always)]
pub fn softcap<I: Floats>(isa: I, x: I::F, cap: I::F) -> I::F {
    isa.mul(cap, tanh(isa, isa.div(x, cap)))
}
