//! Integer operations on 16 rows.

use core::arch::x86_64::*;
use core::mem;

use super::Avx512;
use crate::isa::integers::Integers;
use crate::isa::shuffles::{BYTE, choices, gather};
use crate::isa::unpacking::Unpacking;
use crate::isa::words::WordDots;

/// `acc + a.0 * b.0 + a.1 * b.1` of the i16 pairs of each lane, in one instruction. The compiler takes the intrinsic apart
/// into a multiplication and an addition for their shorter latency, which costs 15 % of a GEMM.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dpwssd(mut acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: the features are enabled, and the instruction works on registers.
    unsafe {
        core::arch::asm!(
            "vpdpwssd {acc}, {a}, {b}",
            acc = inout(zmm_reg) acc, a = in(zmm_reg) a, b = in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// As [`dpwssd`] with the pair at `p` in every lane, which the compiler would load early, into a scalar register.
///
/// # Safety
/// Four bytes are readable.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn dpwssd_at(mut acc: __m512i, a: __m512i, p: *const u8) -> __m512i {
    // SAFETY: the features are enabled, and the bytes are readable.
    unsafe {
        core::arch::asm!(
            "vpdpwssd {acc}, {a}, dword ptr [{p}]{{1to16}}",
            acc = inout(zmm_reg) acc, a = in(zmm_reg) a, p = in(reg) p,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    acc
}

/// Whether sums over at least 8 weights up to `peak` fit i16, so that a pair product can scale them.
#[inline(always)]
const fn narrow(peak: u32) -> bool {
    8 * peak * 127 <= i16::MAX as u32
}

// SAFETY of the intrinsics here: a value of `Avx512` exists only where the CPU has the features of the level. Pointers are
// readable or writable by the contracts of the trait.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl Integers for Avx512 {
    const TILE: usize = 6;
    const SHIFTS_SUMS: bool = true;

    type Dot = __m512i;
    type Sum = __m512i;

    #[inline(always)]
    fn sub_scale(self, w: __m512i, byte: usize, peak: u32, signed: bool) -> __m512i {
        unsafe {
            match (signed, narrow(peak)) {
                (false, _) => self.shuffle(w, &const { choices([BYTE, -1, -1, -1]) }[byte]),
                (true, true) => _mm512_srai_epi16::<8>(self.shuffle(w, &const { choices([-1, BYTE, -1, -1]) }[byte])),
                (true, false) => _mm512_srai_epi32::<24>(self.shuffle(w, &const { choices([-1, -1, -1, BYTE]) }[byte])),
            }
        }
    }

    #[inline(always)]
    fn scale_pair(self, w: __m512i, pair: usize, signed: bool, factor: i32) -> __m512i {
        unsafe {
            let pairs = if signed {
                _mm512_srai_epi16::<8>(
                    self.shuffle(w, &const { [gather([-1, 0, -1, 1], 0), gather([-1, 2, -1, 3], 0)] }[pair]),
                )
            } else {
                self.shuffle(w, &const { [gather([0, -1, 1, -1], 0), gather([2, -1, 3, -1], 0)] }[pair])
            };
            if factor == 1 { pairs } else { _mm512_mullo_epi16(pairs, _mm512_set1_epi16(factor as i16)) }
        }
    }

    #[inline(always)]
    fn pair_product(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_madd_epi16(a, b) }
    }

    #[inline(always)]
    fn pair_dot(self, acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
        unsafe { dpwssd(acc, a, b) }
    }

    #[inline(always)]
    unsafe fn pair_dot_at(self, acc: __m512i, a: __m512i, p: *const u8) -> __m512i {
        unsafe { dpwssd_at(acc, a, p) }
    }

    #[inline(always)]
    fn steps(self, _peak: u32) -> usize {
        // Dot products are i32 all along.
        64
    }

    #[inline(always)]
    fn whole_peak(self, peak: u32) -> u32 {
        if matches!(peak, 17..=32) { 64 } else { peak }
    }

    #[inline(always)]
    fn scaled_steps(self, peak: u32) -> usize {
        // Until sums do not fit i16 where they are narrow.
        if matches!(peak, 17..=32) { 2 } else { 4 }
    }

    #[inline(always)]
    fn begin(self, acc: __m512i) -> __m512i {
        acc
    }

    #[inline(always)]
    fn begin_scaled(self) -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn step(self, dot: __m512i, w: __m512i, x: __m512i, _peak: u32) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(dot, w, x) }
    }

    #[inline(always)]
    fn end(self, dot: __m512i, _acc: __m512i, _peak: u32) -> __m512i {
        dot
    }

    #[inline(always)]
    fn end_scaled(self, dot: __m512i, acc: __m512i, scale: __m512i, peak: u32) -> __m512i {
        unsafe {
            if narrow(peak) {
                // The scale has a zero upper half, so the upper half of the sum (its sign) does not count.
                dpwssd(acc, dot, scale)
            } else {
                _mm512_add_epi32(acc, _mm512_mullo_epi32(dot, scale))
            }
        }
    }

    #[inline(always)]
    fn sum(self) -> __m512i {
        self.splat(0)
    }

    #[inline(always)]
    fn start(self, sum: &mut __m512i, start: __m512i) {
        *sum = start;
    }

    #[inline(always)]
    fn total(self, sum: &mut __m512i) -> __m512i {
        mem::replace(sum, self.splat(0))
    }

    #[inline(always)]
    unsafe fn dot16<const SHIFT: u32>(self, acc: __m512i, w: &[__m512i; 4], x: *const u8, peak: u32) -> __m512i {
        unsafe { self.words_dot::<SHIFT>(acc, w, x, peak) }
    }

    #[inline(always)]
    unsafe fn dot16_scaled<const SHIFT: u32>(
        self,
        acc: __m512i,
        w: &[__m512i; 4],
        x: *const u8,
        scale: __m512i,
        peak: u32,
    ) -> __m512i {
        unsafe { self.words_dot_scaled::<SHIFT>(acc, w, x, scale, peak) }
    }

    #[inline(always)]
    fn to_floats(self, w: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(w) }
    }

    #[inline(always)]
    fn splat_float(self, x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn splat_float_at(self, p: *const u8) -> __m512 {
        unsafe { _mm512_set1_ps(p.cast::<f32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn load_floats(self, p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn store_floats(self, p: *mut f32, v: __m512) {
        unsafe { _mm512_storeu_ps(p, v) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn fnma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fnmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn largest_magnitude(self, x: &[[f32; 16]]) -> u32 {
        unsafe {
            let mut largest = _mm512_setzero_si512();
            for x in x {
                let bits = _mm512_and_si512(_mm512_loadu_si512(x.as_ptr().cast()), _mm512_set1_epi32(i32::MAX));
                largest = _mm512_max_epi32(largest, bits);
            }
            _mm512_reduce_max_epi32(largest) as u32
        }
    }

    #[inline(always)]
    fn quantize(self, x: &[f32; 16], factor: f32, q: &mut [u8; 16]) -> i32 {
        unsafe {
            // Conversion rounds to nearest even (the default of MXCSR, which Rust code keeps).
            let q32 = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x.as_ptr()), _mm512_set1_ps(factor)));
            _mm_storeu_si128(q.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(q32));
            _mm512_reduce_add_epi32(q32)
        }
    }
}

// SAFETY of the intrinsics: as above.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl WordDots for Avx512 {
    #[inline(always)]
    fn shift_down<const SHIFT: u32>(self, dot: __m512i) -> __m512i {
        unsafe { _mm512_srai_epi32::<SHIFT>(dot) }
    }

    #[inline(always)]
    fn end_apart(self, dot: __m512i, acc: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(acc, dot) }
    }
}
