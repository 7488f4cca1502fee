//! The f32 operations of AVX2, FMA and F16C: sixteen lanes are two registers.

use super::Avx2;
use crate::LANES;
use crate::isa::floats::Floats;
use std::arch::x86_64::*;

/// Lanes 0..8 and 8..16.
#[derive(Clone, Copy, Debug)]
pub struct F(pub(super) __m256, pub(super) __m256);

/// Runs intrinsics that touch registers only.
macro_rules! registers {
    ($e:expr) => {
        // SAFETY: an `Avx2` exists only where the CPU has avx2, fma and f16c, and no memory is touched.
        unsafe { $e }
    };
}

/// The upper and the lower half of 128 bits joined by `$op`, down to one lane: the end of the reduction tree.
macro_rules! tree {
    ($v:expr, $op256:ident, $op128:ident, $op1:ident) => {
        registers!({
            let v = $op256($v.0, $v.1);
            let v = $op128(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = $op128(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32($op1(v, _mm_movehdup_ps(v)))
        })
    };
}

/// All ones in the lanes `first..end`.
#[inline(always)]
fn lanes(first: usize, end: usize) -> (__m256, __m256) {
    registers!({
        let (below, end) = (_mm256_set1_epi32(first as i32 - 1), _mm256_set1_epi32(end as i32));
        let low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let high = _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15);
        let low = _mm256_and_si256(_mm256_cmpgt_epi32(low, below), _mm256_cmpgt_epi32(end, low));
        let high = _mm256_and_si256(_mm256_cmpgt_epi32(high, below), _mm256_cmpgt_epi32(end, high));
        (_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
    })
}

/// `v * 2^n` of eight lanes, in two halves as in the scalar level.
#[inline(always)]
fn scale2(v: __m256, n: __m256) -> __m256 {
    registers!({
        let n = _mm256_cvtps_epi32(n);
        let half = _mm256_srai_epi32::<1>(n);
        let bias = _mm256_set1_epi32(127);
        let first = _mm256_slli_epi32::<23>(_mm256_add_epi32(half, bias));
        let second = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_sub_epi32(n, half), bias));
        _mm256_mul_ps(_mm256_mul_ps(v, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second))
    })
}

impl<const VNNI: bool> Floats for Avx2<VNNI> {
    type F = F;

    const VECTORS: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        let v = registers!(_mm256_set1_ps(x));
        F(v, v)
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> F {
        // SAFETY: the CPU has avx, and both loads of eight lie inside the sixteen values.
        unsafe { F(_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))) }
    }

    #[inline(always)]
    fn store(self, v: F, out: &mut [f32; LANES]) {
        // SAFETY: the CPU has avx, and both stores of eight lie inside the sixteen values.
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), v.0);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), v.1);
        }
    }

    #[inline(always)]
    fn load_f16(self, x: &[u16; LANES]) -> F {
        let x: *const __m128i = x.as_ptr().cast();
        // SAFETY: the CPU has f16c, and both unaligned loads of eight lie inside the sixteen values.
        unsafe { F(_mm256_cvtph_ps(_mm_loadu_si128(x)), _mm256_cvtph_ps(_mm_loadu_si128(x.add(1)))) }
    }

    #[inline(always)]
    fn store_f16(self, v: F, out: &mut [u16; LANES]) {
        let out: *mut __m128i = out.as_mut_ptr().cast();
        // SAFETY: the CPU has f16c, and both unaligned stores of eight lie inside the sixteen values.
        unsafe {
            _mm_storeu_si128(out, _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v.0));
            _mm_storeu_si128(out.add(1), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v.1));
        }
    }

    #[inline(always)]
    fn load_bf16(self, x: &[u16; LANES]) -> F {
        let x: *const __m128i = x.as_ptr().cast();
        // SAFETY: the CPU has avx2, and both unaligned loads of eight lie inside the sixteen values.
        unsafe {
            let low = _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(x)));
            let high = _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(x.add(1))));
            F(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
        }
    }

    #[inline(always)]
    fn load_doubled(self, x: &[f32; LANES / 2]) -> F {
        // SAFETY: the CPU has avx2, and the load is of the eight values.
        unsafe {
            let x = _mm256_loadu_ps(x.as_ptr());
            F(
                _mm256_permutevar8x32_ps(x, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)),
                _mm256_permutevar8x32_ps(x, _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7)),
            )
        }
    }

    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        registers!(F(_mm256_add_ps(a.0, b.0), _mm256_add_ps(a.1, b.1)))
    }

    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        registers!(F(_mm256_sub_ps(a.0, b.0), _mm256_sub_ps(a.1, b.1)))
    }

    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        registers!(F(_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1)))
    }

    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        registers!(F(_mm256_div_ps(a.0, b.0), _mm256_div_ps(a.1, b.1)))
    }

    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        registers!(F(_mm256_fmadd_ps(a.0, b.0, c.0), _mm256_fmadd_ps(a.1, b.1, c.1)))
    }

    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        registers!(F(_mm256_min_ps(a.0, b.0), _mm256_min_ps(a.1, b.1)))
    }

    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        registers!(F(_mm256_max_ps(a.0, b.0), _mm256_max_ps(a.1, b.1)))
    }

    #[inline(always)]
    fn abs(self, a: F) -> F {
        registers!({
            let sign = _mm256_set1_ps(-0.0);
            F(_mm256_andnot_ps(sign, a.0), _mm256_andnot_ps(sign, a.1))
        })
    }

    #[inline(always)]
    fn neg(self, a: F) -> F {
        registers!({
            let sign = _mm256_set1_ps(-0.0);
            F(_mm256_xor_ps(sign, a.0), _mm256_xor_ps(sign, a.1))
        })
    }

    #[inline(always)]
    fn with_sign(self, x: F, sign: F) -> F {
        registers!({
            let bit = _mm256_set1_ps(-0.0);
            F(_mm256_or_ps(x.0, _mm256_and_ps(bit, sign.0)), _mm256_or_ps(x.1, _mm256_and_ps(bit, sign.1)))
        })
    }

    #[inline(always)]
    fn scale2(self, v: F, n: F) -> F {
        F(scale2(v.0, n.0), scale2(v.1, n.1))
    }

    #[inline(always)]
    fn swap_pairs(self, v: F) -> F {
        registers!(F(_mm256_permute_ps::<0b10_11_00_01>(v.0), _mm256_permute_ps::<0b10_11_00_01>(v.1)))
    }

    #[inline(always)]
    fn select_less(self, a: F, b: F, x: F, y: F) -> F {
        registers!(F(
            _mm256_blendv_ps(y.0, x.0, _mm256_cmp_ps::<_CMP_LT_OQ>(a.0, b.0)),
            _mm256_blendv_ps(y.1, x.1, _mm256_cmp_ps::<_CMP_LT_OQ>(a.1, b.1)),
        ))
    }

    #[inline(always)]
    fn select_lanes(self, first: usize, end: usize, x: F, y: F) -> F {
        let (low, high) = lanes(first, end);
        registers!(F(_mm256_blendv_ps(y.0, x.0, low), _mm256_blendv_ps(y.1, x.1, high)))
    }

    #[inline(always)]
    fn equal(self, a: F, b: F) -> u16 {
        registers!({
            let low = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_EQ_OQ>(a.0, b.0));
            let high = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_EQ_OQ>(a.1, b.1));
            (low | high << 8) as u16
        })
    }

    #[inline(always)]
    fn is_nan(self, v: F) -> u16 {
        registers!({
            let low = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_UNORD_Q>(v.0, v.0));
            let high = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_UNORD_Q>(v.1, v.1));
            (low | high << 8) as u16
        })
    }

    #[inline(always)]
    fn sum(self, v: F) -> f32 {
        tree!(v, _mm256_add_ps, _mm_add_ps, _mm_add_ss)
    }

    #[inline(always)]
    fn largest(self, v: F) -> f32 {
        tree!(v, _mm256_max_ps, _mm_max_ps, _mm_max_ss)
    }
}
