//! The f32 operations of NEON: sixteen lanes are four registers.
//!
//! Every `unsafe` here calls intrinsics: a value of [`Neon`] exists only where the CPU has NEON, and the arrays that are given have what is loaded or stored.

#![allow(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]

use core::arch::aarch64::*;

use super::Neon;
use crate::LANES;
use crate::isa::floats::Floats;

/// Lanes `4 i..4 i + 4` in register `i`.
#[derive(Clone, Copy, Debug)]
pub struct F(pub(super) [float32x4_t; 4]);

/// A register of each of the four made by `$e`, with the registers `$a` of `$x` and so on.
macro_rules! each {
    ($($a:ident = $x:expr),+ => $e:expr) => {{
        let four = |i: usize| {
            $(let $a = $x.0[i];)+
            $e
        };
        F([four(0), four(1), four(2), four(3)])
    }};
}

/// Four lanes of `x` from `at` on.
#[inline(always)]
fn four<const N: usize>(x: &[f32; N], at: usize) -> float32x4_t {
    unsafe { vld1q_f32(x[at..at + 4].as_ptr()) }
}

/// Joins the lanes by the tree of the contract; `$op` takes the lower and the upper lanes.
macro_rules! tree {
    ($v:expr, $op:expr) => {{
        let op = $op;
        let v = op(op($v.0[0], $v.0[2]), op($v.0[1], $v.0[3]));
        let v = op(v, vextq_f32::<2>(v, v));
        vgetq_lane_f32::<0>(op(v, vdupq_laneq_f32::<1>(v)))
    }};
}

/// `v * 2^n` of four lanes, in two halves as in the scalar level.
#[inline(always)]
fn scale2(v: float32x4_t, n: float32x4_t) -> float32x4_t {
    unsafe {
        let n = vcvtnq_s32_f32(n);
        let half = vshrq_n_s32::<1>(n);
        let bias = vdupq_n_s32(127);
        let first = vshlq_n_s32::<23>(vaddq_s32(half, bias));
        let second = vshlq_n_s32::<23>(vaddq_s32(vsubq_s32(n, half), bias));
        vmulq_f32(vmulq_f32(v, vreinterpretq_f32_s32(first)), vreinterpretq_f32_s32(second))
    }
}

/// Bit `l` is set where lane `l` is all ones.
#[inline(always)]
fn mask(lanes: [uint32x4_t; 4]) -> u16 {
    unsafe {
        let low = vcombine_u16(vmovn_u32(lanes[0]), vmovn_u32(lanes[1]));
        let high = vcombine_u16(vmovn_u32(lanes[2]), vmovn_u32(lanes[3]));
        let (low_bits, high_bits): ([u16; 8], [u16; 8]) =
            (core::array::from_fn(|l| 1 << l), core::array::from_fn(|l| 1 << (l + 8)));
        let (low_bits, high_bits) = (vld1q_u16(low_bits.as_ptr()), vld1q_u16(high_bits.as_ptr()));
        vaddvq_u16(vorrq_u16(vandq_u16(low, low_bits), vandq_u16(high, high_bits)))
    }
}

impl<const DOT: bool> Floats for Neon<DOT> {
    type F = F;

    const VECTORS: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        unsafe { F([vdupq_n_f32(x); 4]) }
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> F {
        F([four(x, 0), four(x, 4), four(x, 8), four(x, 12)])
    }

    #[inline(always)]
    fn store(self, v: F, out: &mut [f32; LANES]) {
        unsafe {
            for (v, out) in v.0.into_iter().zip(out.as_chunks_mut::<4>().0) {
                vst1q_f32(out.as_mut_ptr(), v);
            }
        }
    }

    #[inline(always)]
    fn load_f16(self, x: &[u16; LANES]) -> F {
        unsafe {
            let (low, high) = (vld1q_u16(x.as_ptr()), vld1q_u16(x.as_ptr().add(8)));
            let (low, high) = (vreinterpretq_f16_u16(low), vreinterpretq_f16_u16(high));
            F([
                vcvt_f32_f16(vget_low_f16(low)),
                vcvt_high_f32_f16(low),
                vcvt_f32_f16(vget_low_f16(high)),
                vcvt_high_f32_f16(high),
            ])
        }
    }

    #[inline(always)]
    fn store_f16(self, v: F, out: &mut [u16; LANES]) {
        unsafe {
            for (v, out) in v.0.into_iter().zip(out.as_chunks_mut::<4>().0) {
                vst1_u16(out.as_mut_ptr(), vreinterpret_u16_f16(vcvt_f16_f32(v)));
            }
        }
    }

    #[inline(always)]
    fn load_bf16(self, x: &[u16; LANES]) -> F {
        unsafe {
            let (low, high) = (vld1q_u16(x.as_ptr()), vld1q_u16(x.as_ptr().add(8)));
            F([
                vshll_n_u16::<16>(vget_low_u16(low)),
                vshll_high_n_u16::<16>(low),
                vshll_n_u16::<16>(vget_low_u16(high)),
                vshll_high_n_u16::<16>(high),
            ]
            .map(|bits| vreinterpretq_f32_u32(bits)))
        }
    }

    #[inline(always)]
    fn load_doubled(self, x: &[f32; LANES / 2]) -> F {
        unsafe {
            let (low, high) = (four(x, 0), four(x, 4));
            F([vzip1q_f32(low, low), vzip2q_f32(low, low), vzip1q_f32(high, high), vzip2q_f32(high, high)])
        }
    }

    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        unsafe { each!(a = a, b = b => vaddq_f32(a, b)) }
    }

    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        unsafe { each!(a = a, b = b => vsubq_f32(a, b)) }
    }

    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        unsafe { each!(a = a, b = b => vmulq_f32(a, b)) }
    }

    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        unsafe { each!(a = a, b = b => vdivq_f32(a, b)) }
    }

    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        unsafe { each!(a = a, b = b, c = c => vfmaq_f32(c, a, b)) }
    }

    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        unsafe {
            // Not the minimum of NEON, which is NaN where either is.
            each!(a = a, b = b => vbslq_f32(vcltq_f32(a, b), a, b))
        }
    }

    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        unsafe { each!(a = a, b = b => vbslq_f32(vcgtq_f32(a, b), a, b)) }
    }

    #[inline(always)]
    fn abs(self, a: F) -> F {
        unsafe { each!(a = a => vabsq_f32(a)) }
    }

    #[inline(always)]
    fn neg(self, a: F) -> F {
        unsafe { each!(a = a => vnegq_f32(a)) }
    }

    #[inline(always)]
    fn with_sign(self, x: F, sign: F) -> F {
        unsafe { each!(x = x, sign = sign => vbslq_f32(vdupq_n_u32(1 << 31), sign, x)) }
    }

    #[inline(always)]
    fn scale2(self, v: F, n: F) -> F {
        each!(v = v, n = n => scale2(v, n))
    }

    #[inline(always)]
    fn swap_pairs(self, v: F) -> F {
        unsafe { each!(v = v => vrev64q_f32(v)) }
    }

    #[inline(always)]
    fn select_less(self, a: F, b: F, x: F, y: F) -> F {
        unsafe { each!(a = a, b = b, x = x, y = y => vbslq_f32(vcltq_f32(a, b), x, y)) }
    }

    #[inline(always)]
    fn select_lanes(self, first: usize, end: usize, x: F, y: F) -> F {
        unsafe {
            let lanes: [u32; LANES] = core::array::from_fn(|l| l as u32);
            let (first, end) = (vdupq_n_u32(first as u32), vdupq_n_u32(end as u32));
            let four = |i: usize| {
                let lanes = vld1q_u32(lanes[4 * i..4 * i + 4].as_ptr());
                vbslq_f32(vandq_u32(vcgeq_u32(lanes, first), vcltq_u32(lanes, end)), x.0[i], y.0[i])
            };
            F([four(0), four(1), four(2), four(3)])
        }
    }

    #[inline(always)]
    fn equal(self, a: F, b: F) -> u16 {
        unsafe { mask(core::array::from_fn(|i| vceqq_f32(a.0[i], b.0[i]))) }
    }

    #[inline(always)]
    fn is_nan(self, v: F) -> u16 {
        !self.equal(v, v)
    }

    #[inline(always)]
    fn sum(self, v: F) -> f32 {
        unsafe { tree!(v, |a, b| vaddq_f32(a, b)) }
    }

    #[inline(always)]
    fn largest(self, v: F) -> f32 {
        unsafe { tree!(v, |a, b| vbslq_f32(vcgtq_f32(a, b), a, b)) }
    }
}
