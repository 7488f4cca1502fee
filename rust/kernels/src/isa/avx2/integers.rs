//! Integer operations on 8 rows, with the AVX-VNNI dot product or without.

use core::arch::x86_64::*;
use core::mem;

use super::Avx2;
use crate::isa::integers::Integers;
use crate::isa::shuffles::{BYTE, choices, gather};
use crate::isa::unpacking::Unpacking;
use crate::isa::words::WordDots;
use crate::unpack::SIGNED;

/// `acc + a.0 * b.0 + a.1 * b.1` of the i16 pairs of each lane, in one instruction. The compiler takes the intrinsic apart
/// into a multiplication and an addition for their shorter latency.
#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn dpwssd(mut acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: the features are enabled, and the instruction works on registers.
    unsafe {
        core::arch::asm!(
            "{{vex}} vpdpwssd {acc}, {a}, {b}",
            acc = inout(ymm_reg) acc, a = in(ymm_reg) a, b = in(ymm_reg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// Whether sums over at least 8 weights up to `peak` fit i16, so that a pair product can scale them.
#[inline(always)]
const fn narrow(peak: u32) -> bool {
    8 * peak * 127 <= i16::MAX as u32
}

// SAFETY of the intrinsics here: a value of `Avx2` exists only where the CPU has the features of the level, with AVX-VNNI for
// `VNNI`. Pointers are readable or writable by the contracts of the trait.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<const VNNI: bool> Integers for Avx2<VNNI> {
    const TILE: usize = 3;
    const SHIFTS_SUMS: bool = VNNI;

    /// i32 with VNNI, else pairs of i16 whose sum is the dot product.
    type Dot = __m256i;
    type Sum = __m256i;

    #[inline(always)]
    fn sub_scale(self, w: __m256i, byte: usize, peak: u32, signed: bool) -> __m256i {
        unsafe {
            match (VNNI, signed, narrow(peak)) {
                (true, false, _) => self.shuffle(w, &const { choices([BYTE, -1, -1, -1]) }[byte]),
                (true, true, true) => {
                    _mm256_srai_epi16::<8>(self.shuffle(w, &const { choices([-1, BYTE, -1, -1]) }[byte]))
                }
                (true, true, false) => {
                    _mm256_srai_epi32::<24>(self.shuffle(w, &const { choices([-1, -1, -1, BYTE]) }[byte]))
                }
                // Both i16 of a dot product take the scale.
                (false, false, _) => self.shuffle(w, &const { choices([BYTE, -1, BYTE, -1]) }[byte]),
                (false, true, _) => {
                    _mm256_srai_epi16::<8>(self.shuffle(w, &const { choices([-1, BYTE, -1, BYTE]) }[byte]))
                }
            }
        }
    }

    #[inline(always)]
    fn scale_pair(self, w: __m256i, pair: usize, signed: bool, factor: i32) -> __m256i {
        unsafe {
            let pairs = if signed {
                _mm256_srai_epi16::<8>(
                    self.shuffle(w, &const { [gather([-1, 0, -1, 1], 0), gather([-1, 2, -1, 3], 0)] }[pair]),
                )
            } else {
                self.shuffle(w, &const { [gather([0, -1, 1, -1], 0), gather([2, -1, 3, -1], 0)] }[pair])
            };
            if factor == 1 { pairs } else { _mm256_mullo_epi16(pairs, _mm256_set1_epi16(factor as i16)) }
        }
    }

    #[inline(always)]
    fn pair_product(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_madd_epi16(a, b) }
    }

    #[inline(always)]
    fn pair_dot(self, acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
        unsafe { if VNNI { dpwssd(acc, a, b) } else { _mm256_add_epi32(acc, _mm256_madd_epi16(a, b)) } }
    }

    #[inline(always)]
    fn steps(self, peak: u32) -> usize {
        // A step adds at most 2 * 127 * peak to an i16.
        if VNNI {
            64
        } else {
            match peak {
                0..=16 => 8,
                17..=32 => 4,
                33..=64 => 2,
                _ => 1,
            }
        }
    }

    #[inline(always)]
    fn whole_peak(self, peak: u32) -> u32 {
        if VNNI && matches!(peak, 17..=32) { 64 } else { peak }
    }

    #[inline(always)]
    fn scaled_steps(self, peak: u32) -> usize {
        match peak {
            _ if !VNNI => self.steps(peak).min(4),
            17..=32 => 2,
            _ => 4,
        }
    }

    #[inline(always)]
    fn begin(self, acc: __m256i) -> __m256i {
        if VNNI { acc } else { self.begin_scaled() }
    }

    #[inline(always)]
    fn begin_scaled(self) -> __m256i {
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    fn step(self, dot: __m256i, w: __m256i, x: __m256i, peak: u32) -> __m256i {
        unsafe {
            if VNNI {
                _mm256_dpbusd_avx_epi32(dot, w, x)
            } else if peak == SIGNED {
                // |w| is unsigned up to 128, and 128 * 127 * 2 fits i16; the sign moves to x, which is never -128.
                _mm256_add_epi16(dot, _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)))
            } else {
                _mm256_add_epi16(dot, _mm256_maddubs_epi16(w, x))
            }
        }
    }

    #[inline(always)]
    fn end(self, dot: __m256i, acc: __m256i, _peak: u32) -> __m256i {
        if VNNI { dot } else { unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(dot, _mm256_set1_epi16(1))) } }
    }

    #[inline(always)]
    fn end_scaled(self, dot: __m256i, acc: __m256i, scale: __m256i, peak: u32) -> __m256i {
        unsafe {
            if !VNNI {
                _mm256_add_epi32(acc, _mm256_madd_epi16(dot, scale))
            } else if narrow(peak) {
                // The scale has a zero upper half, so the upper half of the sum (its sign) does not count.
                dpwssd(acc, dot, scale)
            } else {
                _mm256_add_epi32(acc, _mm256_mullo_epi32(dot, scale))
            }
        }
    }

    #[inline(always)]
    fn sum(self) -> __m256i {
        self.splat(0)
    }

    #[inline(always)]
    fn start(self, sum: &mut __m256i, start: __m256i) {
        *sum = start;
    }

    #[inline(always)]
    fn total(self, sum: &mut __m256i) -> __m256i {
        mem::replace(sum, self.splat(0))
    }

    #[inline(always)]
    unsafe fn dot16<const SHIFT: u32>(self, acc: __m256i, w: &[__m256i; 4], x: *const u8, peak: u32) -> __m256i {
        unsafe { self.words_dot::<SHIFT>(acc, w, x, peak) }
    }

    #[inline(always)]
    unsafe fn dot16_scaled<const SHIFT: u32>(
        self,
        acc: __m256i,
        w: &[__m256i; 4],
        x: *const u8,
        scale: __m256i,
        peak: u32,
    ) -> __m256i {
        unsafe { self.words_dot_scaled::<SHIFT>(acc, w, x, scale, peak) }
    }

    #[inline(always)]
    fn to_floats(self, w: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(w) }
    }

    #[inline(always)]
    fn splat_float(self, x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn splat_float_at(self, p: *const u8) -> __m256 {
        unsafe { _mm256_set1_ps(p.cast::<f32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn load_floats(self, p: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn store_floats(self, p: *mut f32, v: __m256) {
        unsafe { _mm256_storeu_ps(p, v) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn fnma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fnmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn largest_magnitude(self, x: &[[f32; 16]]) -> u32 {
        unsafe {
            let mut largest = _mm256_setzero_si256();
            for x in x.as_flattened().as_chunks::<8>().0 {
                let bits = _mm256_and_si256(_mm256_loadu_si256(x.as_ptr().cast()), _mm256_set1_epi32(i32::MAX));
                largest = _mm256_max_epi32(largest, bits);
            }
            let x = _mm_max_epi32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256::<1>(largest));
            let x = _mm_max_epi32(x, _mm_shuffle_epi32::<0b01_00_11_10>(x));
            let x = _mm_max_epi32(x, _mm_shuffle_epi32::<0b10_11_00_01>(x));
            _mm_cvtsi128_si32(x) as u32
        }
    }

    #[inline(always)]
    fn quantize(self, x: &[f32; 16], factor: f32, q: &mut [u8; 16]) -> i32 {
        unsafe {
            let factor = _mm256_set1_ps(factor);
            // Conversion rounds to nearest even (the default of MXCSR, which Rust code keeps).
            let eight = |at: usize| _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x.as_ptr().add(at)), factor));
            let (a, b) = (eight(0), eight(8));
            // Packing works within 128-bit halves; the permutation puts the quarters in order.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(a, b));
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(q.as_mut_ptr().cast(), bytes);
            let sum = _mm256_add_epi32(a, b);
            let sum = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
            let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b01_00_11_10>(sum));
            let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b10_11_00_01>(sum));
            _mm_cvtsi128_si32(sum)
        }
    }
}

// SAFETY of the intrinsics: as above.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<const VNNI: bool> WordDots for Avx2<VNNI> {
    #[inline(always)]
    fn shift_down<const SHIFT: u32>(self, dot: __m256i) -> __m256i {
        unsafe { _mm256_sra_epi32(dot, _mm_cvtsi32_si128(SHIFT as i32)) }
    }

    #[inline(always)]
    fn end_apart(self, dot: __m256i, acc: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(acc, dot) }
    }
}
