//! The f32 operations of AVX-512: sixteen lanes are one register.

use super::Avx512;
use crate::LANES;
use crate::isa::floats::Floats;
use std::arch::x86_64::*;

/// Runs intrinsics that touch registers only.
macro_rules! registers {
    ($e:expr) => {
        // SAFETY: an `Avx512` exists only where the CPU has avx512f and avx512dq, and no memory is touched.
        unsafe { $e }
    };
}

/// The upper and the lower half joined by `$op` again and again, down to one lane: the reduction tree.
macro_rules! tree {
    ($v:expr, $op256:ident, $op128:ident, $op1:ident) => {
        registers!({
            let v = $op256(_mm512_castps512_ps256($v), _mm512_extractf32x8_ps::<1>($v));
            let v = $op128(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = $op128(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32($op1(v, _mm_movehdup_ps(v)))
        })
    };
}

/// The mask of the lanes `first..end`, both at most 16.
#[inline(always)]
fn lanes(first: usize, end: usize) -> __mmask16 {
    (((1u32 << end) - 1) & !((1u32 << first) - 1)) as __mmask16
}

impl Floats for Avx512 {
    type F = __m512;

    const VECTORS: usize = 32;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        registers!(_mm512_set1_ps(x))
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> __m512 {
        // SAFETY: the CPU has avx512f, and the load is of the sixteen values.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, v: __m512, out: &mut [f32; LANES]) {
        // SAFETY: the CPU has avx512f, and the store is of the sixteen values.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn load_f16(self, x: &[u16; LANES]) -> __m512 {
        // SAFETY: the CPU has avx512f, and the unaligned load is of the sixteen values.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
    }

    #[inline(always)]
    fn store_f16(self, v: __m512, out: &mut [u16; LANES]) {
        // SAFETY: the CPU has avx512f, and the unaligned store is of the sixteen values.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)) }
    }

    #[inline(always)]
    fn load_bf16(self, x: &[u16; LANES]) -> __m512 {
        // SAFETY: the CPU has avx512f, and the unaligned load is of the sixteen values.
        unsafe {
            let x = _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(x))
        }
    }

    #[inline(always)]
    fn load_doubled(self, x: &[f32; LANES / 2]) -> __m512 {
        // SAFETY: the CPU has avx512f, and the load is of the eight values.
        unsafe {
            let x = _mm512_castps256_ps512(_mm256_loadu_ps(x.as_ptr()));
            _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7), x)
        }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        registers!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        registers!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        registers!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        registers!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        registers!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        registers!(_mm512_min_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        registers!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        registers!(_mm512_andnot_ps(_mm512_set1_ps(-0.0), a))
    }

    #[inline(always)]
    fn neg(self, a: __m512) -> __m512 {
        registers!(_mm512_xor_ps(_mm512_set1_ps(-0.0), a))
    }

    #[inline(always)]
    fn with_sign(self, x: __m512, sign: __m512) -> __m512 {
        registers!(_mm512_or_ps(x, _mm512_and_ps(_mm512_set1_ps(-0.0), sign)))
    }

    #[inline(always)]
    fn scale2(self, v: __m512, n: __m512) -> __m512 {
        registers!(_mm512_scalef_ps(v, n))
    }

    #[inline(always)]
    fn swap_pairs(self, v: __m512) -> __m512 {
        registers!(_mm512_permute_ps::<0b10_11_00_01>(v))
    }

    #[inline(always)]
    fn select_less(self, a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
        registers!(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x))
    }

    #[inline(always)]
    fn select_lanes(self, first: usize, end: usize, x: __m512, y: __m512) -> __m512 {
        registers!(_mm512_mask_blend_ps(lanes(first, end), y, x))
    }

    #[inline(always)]
    fn equal(self, a: __m512, b: __m512) -> u16 {
        registers!(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b))
    }

    #[inline(always)]
    fn is_nan(self, v: __m512) -> u16 {
        registers!(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v))
    }

    #[inline(always)]
    fn sum(self, v: __m512) -> f32 {
        tree!(v, _mm256_add_ps, _mm_add_ps, _mm_add_ss)
    }

    #[inline(always)]
    fn largest(self, v: __m512) -> f32 {
        tree!(v, _mm256_max_ps, _mm_max_ps, _mm_max_ss)
    }

    #[inline(always)]
    fn load_first(self, x: &[f32], fill: f32) -> __m512 {
        assert!(x.len() <= LANES);
        // SAFETY: the CPU has avx512f, and the mask ends the load with the slice.
        unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(fill), lanes(0, x.len()), x.as_ptr()) }
    }

    #[inline(always)]
    fn store_first(self, v: __m512, out: &mut [f32]) {
        assert!(out.len() <= LANES);
        // SAFETY: the CPU has avx512f, and the mask ends the store with the slice.
        unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), lanes(0, out.len()), v) }
    }
}
