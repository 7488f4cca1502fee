//! The int8 operations of AVX-512: sixteen lanes are one register.

use std::arch::x86_64::*;

use super::Avx512;
use crate::LANES;
use crate::isa::bytes::Bytes;

// SAFETY of the intrinsics here: an `Avx512` exists only where the CPU has the features of the level, and what is loaded lies in
// the array that was given.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl Bytes for Avx512 {
    type W = __m512i;
    type S = __m512i;

    #[inline(always)]
    fn load_words(self, x: &[u16; 2 * LANES]) -> __m512i {
        // The dot product wants its first factor unsigned: 128 is added.
        unsafe { _mm512_xor_si512(_mm512_loadu_si512(x.as_ptr().cast()), _mm512_set1_epi8(-128)) }
    }

    #[inline(always)]
    fn splat_word(self, x: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(x) }
    }

    #[inline(always)]
    fn start(self, sum: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(-128 * sum) }
    }

    #[inline(always)]
    fn dot(self, sums: __m512i, w: __m512i, x: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sums, w, x) }
    }

    #[inline(always)]
    fn sums(self, sums: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(sums) }
    }

    #[inline(always)]
    fn load_i8(self, x: &[u16; LANES / 2]) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn prefetch(self, p: *const u16) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) };
    }
}
