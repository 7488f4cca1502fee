//! The int8 operations of SSE4.1: sixteen lanes are four registers.

use std::arch::x86_64::*;

use super::Sse41;
use super::floats::F;
use crate::LANES;
use crate::isa::bytes::Bytes;

/// Lanes `4 i..4 i + 4`.
#[derive(Clone, Copy, Debug)]
pub struct W([__m128i; 4]);

// SAFETY of the intrinsics here: an `Sse41` exists only where the CPU has the features of the level, and what is loaded lies in the
// array that was given.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl Bytes for Sse41 {
    type W = W;
    type S = W;

    #[inline(always)]
    fn load_words(self, x: &[u16; 2 * LANES]) -> W {
        let x: *const __m128i = x.as_ptr().cast();
        unsafe {
            W([_mm_loadu_si128(x), _mm_loadu_si128(x.add(1)), _mm_loadu_si128(x.add(2)), _mm_loadu_si128(x.add(3))])
        }
    }

    #[inline(always)]
    fn splat_word(self, x: i32) -> W {
        W([unsafe { _mm_set1_epi32(x) }; 4])
    }

    #[inline(always)]
    fn start(self, _sum: i32) -> W {
        self.splat_word(0)
    }

    #[inline(always)]
    fn dot(self, sums: W, w: W, x: W) -> W {
        let mut sums = sums;
        for i in 0..4 {
            unsafe {
                // |w| is unsigned up to 128, and 128 * 127 * 2 fits i16; the sign moves to x, which is never -128.
                let pairs = _mm_maddubs_epi16(_mm_abs_epi8(w.0[i]), _mm_sign_epi8(x.0[i], w.0[i]));
                sums.0[i] = _mm_add_epi32(sums.0[i], _mm_madd_epi16(pairs, _mm_set1_epi16(1)));
            }
        }
        sums
    }

    #[inline(always)]
    fn sums(self, sums: W) -> F {
        let [a, b, c, d] = sums.0;
        unsafe { F([_mm_cvtepi32_ps(a), _mm_cvtepi32_ps(b), _mm_cvtepi32_ps(c), _mm_cvtepi32_ps(d)]) }
    }

    #[inline(always)]
    fn load_i8(self, x: &[u16; LANES / 2]) -> F {
        unsafe {
            let x = _mm_loadu_si128(x.as_ptr().cast());
            self.sums(W([
                _mm_cvtepi8_epi32(x),
                _mm_cvtepi8_epi32(_mm_srli_si128::<4>(x)),
                _mm_cvtepi8_epi32(_mm_srli_si128::<8>(x)),
                _mm_cvtepi8_epi32(_mm_srli_si128::<12>(x)),
            ]))
        }
    }

    #[inline(always)]
    fn prefetch(self, p: *const u16) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) };
    }
}
