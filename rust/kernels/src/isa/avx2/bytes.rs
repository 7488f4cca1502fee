//! The int8 operations of AVX2, with the AVX-VNNI dot product or without: sixteen lanes are two registers.

use std::arch::x86_64::*;

use super::Avx2;
use super::floats::F;
use crate::LANES;
use crate::isa::bytes::Bytes;

/// Lanes 0..8 and 8..16.
#[derive(Clone, Copy, Debug)]
pub struct W(__m256i, __m256i);

// SAFETY of the intrinsics here: an `Avx2` exists only where the CPU has the features of the level, with AVX-VNNI for `VNNI`, and
// what is loaded lies in the array that was given.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<const VNNI: bool> Avx2<VNNI> {
    #[inline(always)]
    fn eight(self, sums: __m256i, w: __m256i, x: __m256i) -> __m256i {
        unsafe {
            if VNNI {
                _mm256_dpbusd_avx_epi32(sums, w, x)
            } else {
                // |w| is unsigned up to 128, and 128 * 127 * 2 fits i16; the sign moves to x, which is never -128.
                let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
                _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            }
        }
    }
}

// SAFETY of the intrinsics: as above.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<const VNNI: bool> Bytes for Avx2<VNNI> {
    type W = W;
    type S = W;

    #[inline(always)]
    fn load_words(self, x: &[u16; 2 * LANES]) -> W {
        unsafe {
            let x: *const __m256i = x.as_ptr().cast();
            let (low, high) = (_mm256_loadu_si256(x), _mm256_loadu_si256(x.add(1)));
            if VNNI {
                // The dot product wants its first factor unsigned: 128 is added.
                let offset = _mm256_set1_epi8(-128);
                W(_mm256_xor_si256(low, offset), _mm256_xor_si256(high, offset))
            } else {
                W(low, high)
            }
        }
    }

    #[inline(always)]
    fn splat_word(self, x: i32) -> W {
        let x = unsafe { _mm256_set1_epi32(x) };
        W(x, x)
    }

    #[inline(always)]
    fn start(self, sum: i32) -> W {
        self.splat_word(if VNNI { -128 * sum } else { 0 })
    }

    #[inline(always)]
    fn dot(self, sums: W, w: W, x: W) -> W {
        W(self.eight(sums.0, w.0, x.0), self.eight(sums.1, w.1, x.1))
    }

    #[inline(always)]
    fn sums(self, sums: W) -> F {
        unsafe { F(_mm256_cvtepi32_ps(sums.0), _mm256_cvtepi32_ps(sums.1)) }
    }

    #[inline(always)]
    fn load_i8(self, x: &[u16; LANES / 2]) -> F {
        unsafe {
            let x: *const u8 = x.as_ptr().cast();
            let low = _mm256_cvtepi8_epi32(_mm_loadl_epi64(x.cast()));
            let high = _mm256_cvtepi8_epi32(_mm_loadl_epi64(x.add(8).cast()));
            F(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }

    #[inline(always)]
    fn prefetch(self, p: *const u16) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) };
    }
}
