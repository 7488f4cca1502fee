//! The f32 operations of SSE4.1: sixteen lanes are four registers.

use super::Sse41;
use super::fma::fma4;
use super::halves::{from_halves, to_halves};
use crate::LANES;
use crate::isa::floats::Floats;
use std::arch::x86_64::*;

/// Lanes `4 i..4 i + 4`.
#[derive(Clone, Copy, Debug)]
pub struct F(pub(super) [__m128; 4]);

/// Runs intrinsics.
macro_rules! registers {
    ($e:expr) => {
        // SAFETY: an `Sse41` exists only where the CPU has the features of the level, and what is
        // loaded lies in the array that was given.
        unsafe { $e }
    };
}

/// `$e` for each of the four registers, whose number is `$i`.
macro_rules! each {
    ($i:ident => $e:expr) => {{
        let mut each = registers!([_mm_setzero_ps(); 4]);
        for $i in 0..4 {
            each[$i] = registers!($e);
        }
        F(each)
    }};
}

/// The upper and the lower half of the lanes joined by `$op`, down to one lane: the reduction tree.
macro_rules! tree {
    ($v:expr, $op:ident, $op1:ident) => {
        registers!({
            let [a, b, c, d] = $v.0;
            let v = $op($op(a, c), $op(b, d));
            let v = $op(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32($op1(v, _mm_movehdup_ps(v)))
        })
    };
}

/// One bit for each lane of four masks.
macro_rules! mask {
    ($i:ident => $e:expr) => {{
        let mut bits = 0;
        for $i in 0..4 {
            bits |= registers!(_mm_movemask_ps($e)) << (4 * $i);
        }
        bits as u16
    }};
}

impl Floats for Sse41 {
    type F = F;

    const VECTORS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        F([registers!(_mm_set1_ps(x)); 4])
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> F {
        each!(i => _mm_loadu_ps(x.as_ptr().add(4 * i)))
    }

    #[inline(always)]
    fn store(self, v: F, out: &mut [f32; LANES]) {
        for (v, out) in v.0.into_iter().zip(out.as_chunks_mut::<4>().0) {
            // SAFETY: the CPU has sse, and four values are writable.
            unsafe { _mm_storeu_ps(out.as_mut_ptr(), v) };
        }
    }

    #[inline(always)]
    fn load_f16(self, x: &[u16; LANES]) -> F {
        each!(i => from_halves(_mm_cvtepu16_epi32(_mm_loadl_epi64(x.as_ptr().add(4 * i).cast()))))
    }

    #[inline(always)]
    fn store_f16(self, v: F, out: &mut [u16; LANES]) {
        let out: *mut __m128i = out.as_mut_ptr().cast();
        let [a, b, c, d] = v.0;
        // SAFETY: the CPU has sse4.1, and both unaligned stores of eight lie inside the sixteen values.
        unsafe {
            _mm_storeu_si128(out, _mm_packus_epi32(to_halves(a), to_halves(b)));
            _mm_storeu_si128(out.add(1), _mm_packus_epi32(to_halves(c), to_halves(d)));
        }
    }

    #[inline(always)]
    fn load_bf16(self, x: &[u16; LANES]) -> F {
        each!(i => _mm_castsi128_ps(_mm_slli_epi32::<16>(_mm_cvtepu16_epi32(_mm_loadl_epi64(x.as_ptr().add(4 * i).cast())))))
    }

    #[inline(always)]
    fn load_doubled(self, x: &[f32; LANES / 2]) -> F {
        // SAFETY: the CPU has sse, and both loads of four lie inside the eight values.
        unsafe {
            let (low, high) = (_mm_loadu_ps(x.as_ptr()), _mm_loadu_ps(x.as_ptr().add(4)));
            F([
                _mm_unpacklo_ps(low, low),
                _mm_unpackhi_ps(low, low),
                _mm_unpacklo_ps(high, high),
                _mm_unpackhi_ps(high, high),
            ])
        }
    }

    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        each!(i => _mm_add_ps(a.0[i], b.0[i]))
    }

    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        each!(i => _mm_sub_ps(a.0[i], b.0[i]))
    }

    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        each!(i => _mm_mul_ps(a.0[i], b.0[i]))
    }

    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        each!(i => _mm_div_ps(a.0[i], b.0[i]))
    }

    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        F(registers!(fma4(a.0, b.0, c.0)))
    }

    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        each!(i => _mm_min_ps(a.0[i], b.0[i]))
    }

    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        each!(i => _mm_max_ps(a.0[i], b.0[i]))
    }

    #[inline(always)]
    fn abs(self, a: F) -> F {
        each!(i => _mm_andnot_ps(_mm_set1_ps(-0.0), a.0[i]))
    }

    #[inline(always)]
    fn neg(self, a: F) -> F {
        each!(i => _mm_xor_ps(_mm_set1_ps(-0.0), a.0[i]))
    }

    #[inline(always)]
    fn with_sign(self, x: F, sign: F) -> F {
        each!(i => _mm_or_ps(x.0[i], _mm_and_ps(_mm_set1_ps(-0.0), sign.0[i])))
    }

    #[inline(always)]
    fn scale2(self, v: F, n: F) -> F {
        // In two halves as in the scalar level.
        each!(i => {
            let n = _mm_cvtps_epi32(n.0[i]);
            let half = _mm_srai_epi32::<1>(n);
            let bias = _mm_set1_epi32(127);
            let first = _mm_slli_epi32::<23>(_mm_add_epi32(half, bias));
            let second = _mm_slli_epi32::<23>(_mm_add_epi32(_mm_sub_epi32(n, half), bias));
            _mm_mul_ps(_mm_mul_ps(v.0[i], _mm_castsi128_ps(first)), _mm_castsi128_ps(second))
        })
    }

    #[inline(always)]
    fn swap_pairs(self, v: F) -> F {
        each!(i => _mm_shuffle_ps::<0b10_11_00_01>(v.0[i], v.0[i]))
    }

    #[inline(always)]
    fn select_less(self, a: F, b: F, x: F, y: F) -> F {
        each!(i => _mm_blendv_ps(y.0[i], x.0[i], _mm_cmplt_ps(a.0[i], b.0[i])))
    }

    #[inline(always)]
    fn select_lanes(self, first: usize, end: usize, x: F, y: F) -> F {
        each!(i => {
            let lanes = _mm_add_epi32(_mm_setr_epi32(0, 1, 2, 3), _mm_set1_epi32(4 * i as i32));
            let from = _mm_cmpgt_epi32(lanes, _mm_set1_epi32(first as i32 - 1));
            let chosen = _mm_and_si128(from, _mm_cmplt_epi32(lanes, _mm_set1_epi32(end as i32)));
            _mm_blendv_ps(y.0[i], x.0[i], _mm_castsi128_ps(chosen))
        })
    }

    #[inline(always)]
    fn equal(self, a: F, b: F) -> u16 {
        mask!(i => _mm_cmpeq_ps(a.0[i], b.0[i]))
    }

    #[inline(always)]
    fn is_nan(self, v: F) -> u16 {
        mask!(i => _mm_cmpunord_ps(v.0[i], v.0[i]))
    }

    #[inline(always)]
    fn sum(self, v: F) -> f32 {
        tree!(v, _mm_add_ps, _mm_add_ss)
    }

    #[inline(always)]
    fn largest(self, v: F) -> f32 {
        tree!(v, _mm_max_ps, _mm_max_ss)
    }
}
