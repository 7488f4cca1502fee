//! Integer operations on 4 rows.

use core::arch::x86_64::*;
use core::mem;

use super::Sse41;
use super::fma::fma;
use crate::isa::integers::Integers;
use crate::isa::shuffles::{BYTE, choices, gather};
use crate::isa::unpacking::Unpacking;
use crate::isa::words::WordDots;
use crate::unpack::SIGNED;

// SAFETY of the intrinsics here: a value of `Sse41` exists only where the CPU has the features of the level. Pointers are readable or
// writable by the contracts of the trait.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl Integers for Sse41 {
    const TILE: usize = 3;
    const SHIFTS_SUMS: bool = false;

    /// Pairs of i16 whose sum is the dot product.
    type Dot = __m128i;
    type Sum = __m128i;

    #[inline(always)]
    fn sub_scale(self, w: __m128i, byte: usize, _peak: u32, signed: bool) -> __m128i {
        // Both i16 of a dot product take the scale.
        if signed {
            unsafe { _mm_srai_epi16::<8>(self.shuffle(w, &const { choices([-1, BYTE, -1, BYTE]) }[byte])) }
        } else {
            self.shuffle(w, &const { choices([BYTE, -1, BYTE, -1]) }[byte])
        }
    }

    #[inline(always)]
    fn scale_pair(self, w: __m128i, pair: usize, signed: bool, factor: i32) -> __m128i {
        unsafe {
            let pairs = if signed {
                _mm_srai_epi16::<8>(
                    self.shuffle(w, &const { [gather([-1, 0, -1, 1], 0), gather([-1, 2, -1, 3], 0)] }[pair]),
                )
            } else {
                self.shuffle(w, &const { [gather([0, -1, 1, -1], 0), gather([2, -1, 3, -1], 0)] }[pair])
            };
            if factor == 1 { pairs } else { _mm_mullo_epi16(pairs, _mm_set1_epi16(factor as i16)) }
        }
    }

    #[inline(always)]
    fn pair_product(self, a: __m128i, b: __m128i) -> __m128i {
        unsafe { _mm_madd_epi16(a, b) }
    }

    #[inline(always)]
    fn pair_dot(self, acc: __m128i, a: __m128i, b: __m128i) -> __m128i {
        unsafe { _mm_add_epi32(acc, _mm_madd_epi16(a, b)) }
    }

    #[inline(always)]
    fn steps(self, peak: u32) -> usize {
        // A step adds at most 2 * 127 * peak to an i16.
        match peak {
            0..=16 => 8,
            17..=32 => 4,
            33..=64 => 2,
            _ => 1,
        }
    }

    #[inline(always)]
    fn whole_peak(self, peak: u32) -> u32 {
        peak
    }

    #[inline(always)]
    fn scaled_steps(self, peak: u32) -> usize {
        self.steps(peak).min(4)
    }

    #[inline(always)]
    fn begin(self, _acc: __m128i) -> __m128i {
        self.begin_scaled()
    }

    #[inline(always)]
    fn begin_scaled(self) -> __m128i {
        unsafe { _mm_setzero_si128() }
    }

    #[inline(always)]
    fn step(self, dot: __m128i, w: __m128i, x: __m128i, peak: u32) -> __m128i {
        unsafe {
            if peak == SIGNED {
                // |w| is unsigned up to 128, and 128 * 127 * 2 fits i16; the sign moves to x, which is never -128.
                _mm_add_epi16(dot, _mm_maddubs_epi16(_mm_abs_epi8(w), _mm_sign_epi8(x, w)))
            } else {
                _mm_add_epi16(dot, _mm_maddubs_epi16(w, x))
            }
        }
    }

    #[inline(always)]
    fn end(self, dot: __m128i, acc: __m128i, _peak: u32) -> __m128i {
        unsafe { _mm_add_epi32(acc, _mm_madd_epi16(dot, _mm_set1_epi16(1))) }
    }

    #[inline(always)]
    fn end_scaled(self, dot: __m128i, acc: __m128i, scale: __m128i, _peak: u32) -> __m128i {
        unsafe { _mm_add_epi32(acc, _mm_madd_epi16(dot, scale)) }
    }

    #[inline(always)]
    fn sum(self) -> __m128i {
        self.splat(0)
    }

    #[inline(always)]
    fn start(self, sum: &mut __m128i, start: __m128i) {
        *sum = start;
    }

    #[inline(always)]
    fn total(self, sum: &mut __m128i) -> __m128i {
        mem::replace(sum, self.splat(0))
    }

    #[inline(always)]
    unsafe fn dot16<const SHIFT: u32>(self, acc: __m128i, w: &[__m128i; 4], x: *const u8, peak: u32) -> __m128i {
        unsafe { self.words_dot::<SHIFT>(acc, w, x, peak) }
    }

    #[inline(always)]
    unsafe fn dot16_scaled<const SHIFT: u32>(
        self,
        acc: __m128i,
        w: &[__m128i; 4],
        x: *const u8,
        scale: __m128i,
        peak: u32,
    ) -> __m128i {
        unsafe { self.words_dot_scaled::<SHIFT>(acc, w, x, scale, peak) }
    }

    #[inline(always)]
    fn to_floats(self, w: __m128i) -> __m128 {
        unsafe { _mm_cvtepi32_ps(w) }
    }

    #[inline(always)]
    fn splat_float(self, x: f32) -> __m128 {
        unsafe { _mm_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn splat_float_at(self, p: *const u8) -> __m128 {
        unsafe { _mm_set1_ps(p.cast::<f32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn load_floats(self, p: *const f32) -> __m128 {
        unsafe { _mm_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn store_floats(self, p: *mut f32, v: __m128) {
        unsafe { _mm_storeu_ps(p, v) }
    }

    #[inline(always)]
    fn mul(self, a: __m128, b: __m128) -> __m128 {
        unsafe { _mm_mul_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: __m128, b: __m128, c: __m128) -> __m128 {
        unsafe { fma(a, b, c) }
    }

    #[inline(always)]
    fn fnma(self, a: __m128, b: __m128, c: __m128) -> __m128 {
        unsafe { fma(a, _mm_xor_ps(b, _mm_set1_ps(-0.0)), c) }
    }

    #[inline(always)]
    fn largest_magnitude(self, x: &[[f32; 16]]) -> u32 {
        unsafe {
            let mut largest = [_mm_setzero_si128(); 4];
            for x in x {
                for (largest, x) in largest.iter_mut().zip(x.as_chunks::<4>().0) {
                    let bits = _mm_and_si128(_mm_loadu_si128(x.as_ptr().cast()), _mm_set1_epi32(i32::MAX));
                    *largest = _mm_max_epi32(*largest, bits);
                }
            }
            let [a, b, c, d] = largest;
            let x = _mm_max_epi32(_mm_max_epi32(a, b), _mm_max_epi32(c, d));
            let x = _mm_max_epi32(x, _mm_shuffle_epi32::<0b01_00_11_10>(x));
            let x = _mm_max_epi32(x, _mm_shuffle_epi32::<0b10_11_00_01>(x));
            _mm_cvtsi128_si32(x) as u32
        }
    }

    #[inline(always)]
    fn quantize(self, x: &[f32; 16], factor: f32, q: &mut [u8; 16]) -> i32 {
        unsafe {
            let factor = _mm_set1_ps(factor);
            // Conversion rounds to nearest even (the default of MXCSR, which Rust code keeps).
            let four = |at: usize| _mm_cvtps_epi32(_mm_mul_ps(_mm_loadu_ps(x.as_ptr().add(at)), factor));
            let (a, b, c, d) = (four(0), four(4), four(8), four(12));
            let bytes = _mm_packs_epi16(_mm_packs_epi32(a, b), _mm_packs_epi32(c, d));
            _mm_storeu_si128(q.as_mut_ptr().cast(), bytes);
            let sum = _mm_add_epi32(_mm_add_epi32(a, b), _mm_add_epi32(c, d));
            let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b01_00_11_10>(sum));
            let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b10_11_00_01>(sum));
            _mm_cvtsi128_si32(sum)
        }
    }
}

// SAFETY of the intrinsics: as above.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl WordDots for Sse41 {
    #[inline(always)]
    fn shift_down<const SHIFT: u32>(self, dot: __m128i) -> __m128i {
        unsafe { _mm_sra_epi32(dot, _mm_cvtsi32_si128(SHIFT as i32)) }
    }

    #[inline(always)]
    fn end_apart(self, dot: __m128i, acc: __m128i) -> __m128i {
        unsafe { _mm_add_epi32(acc, dot) }
    }
}
