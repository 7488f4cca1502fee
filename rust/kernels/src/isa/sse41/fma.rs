//! `a * b + c` rounded once, without an instruction for it.
//!
//! A product of two f32 has at most 48 bits and is exact in f64. The sum is rounded there to 53 bits, and again to the 24 of f32.
//! Let `s` be the first rounding of the exact sum `S`. Rounding to f32 changes at the midpoints of neighbouring f32 only (the
//! one above the largest f32, from which on the result is infinite, included), all of which an f64 can be; and rounding to f64 moves
//! nothing across an f64. So the second rounding goes wrong only where `s` is a midpoint and `S` is not:
//!
//! * Midpoints from 2^-126 on have the lower 29 bits `1000…`.
//! * Those below, in the subnormal numbers, are odd multiples of 2^-150; they round to a neighbour, of at most 2^-126. If that
//!   is zero, nothing was lost: say `s` = ±2^-150. Then `c`, a multiple of 2^-149, is zero, and `S` is the product itself; or
//!   the product is at least 2^-151, so that it and with it `S`, of which the first bit is 2^-150, is a multiple of 2^-198.
//!
//! Such sums are looked for, and computed again, first rounded to odd: what is inexact is cut off and gets an odd last bit. That is on the
//! same side of every midpoint as `S`. (S. Boldo and G. Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms
//! using rounding to odd", IEEE Transactions on Computers 57(4), 2008.)
//!
//! No f64 here overflows, as products are below 2^256, or is subnormal, as all are multiples of 2^-298.

use core::arch::x86_64::*;

/// `a * b + c` of four lanes.
///
/// # Safety
/// The CPU has SSE4.1.
#[inline(always)]
pub(super) unsafe fn fma(a: __m128, b: __m128, c: __m128) -> __m128 {
    // SAFETY: by the contract; registers only.
    unsafe {
        let (sum, low, size) = rounded_twice(a, b, c);
        if is_doubtful(low, size) { exact(a, b, c) } else { sum }
    }
}

/// `a * b + c` of sixteen lanes.
///
/// # Safety
/// The CPU has SSE4.1.
#[inline(always)]
pub(super) unsafe fn fma4(a: [__m128; 4], b: [__m128; 4], c: [__m128; 4]) -> [__m128; 4] {
    // SAFETY: by the contract; registers only.
    unsafe {
        let mut sums = c;
        let (mut lowest, mut smallest) = (_mm_set1_epi32(i32::MAX), _mm_set1_epi32(i32::MAX));
        for i in 0..4 {
            let (sum, low, size) = rounded_twice(a[i], b[i], c[i]);
            sums[i] = sum;
            lowest = _mm_min_epi32(lowest, low);
            smallest = _mm_min_epi32(smallest, size);
        }
        if is_doubtful(lowest, smallest) { one_by_one(a, b, c) } else { sums }
    }
}

/// The lower two lanes and the upper two, in f64.
///
/// # Safety
/// The CPU has SSE4.1.
#[inline(always)]
unsafe fn wide(v: __m128) -> [__m128d; 2] {
    // SAFETY: by the contract; registers only.
    unsafe { [_mm_cvtps_pd(v), _mm_cvtps_pd(_mm_movehl_ps(v, v))] }
}

/// `a * b + c` rounded to f64 and then to f32, with what [`is_doubtful`] wants to know of it.
///
/// # Safety
/// The CPU has SSE4.1.
#[inline(always)]
unsafe fn rounded_twice(a: __m128, b: __m128, c: __m128) -> (__m128, __m128i, __m128i) {
    // SAFETY: by the contract; registers only.
    unsafe {
        let ([a0, a1], [b0, b1], [c0, c1]) = (wide(a), wide(b), wide(c));
        let (s0, s1) = (_mm_add_pd(_mm_mul_pd(a0, b0), c0), _mm_add_pd(_mm_mul_pd(a1, b1), c1));
        let sum = _mm_movelh_ps(_mm_cvtpd_ps(s0), _mm_cvtpd_ps(s1));
        // The lower 29 bits of the f64, at the top of the lane.
        let low = _mm_castps_si128(_mm_shuffle_ps::<0b10_00_10_00>(_mm_castpd_ps(s0), _mm_castpd_ps(s1)));
        // The bits of the f32 without the sign, turned so that those of the smallest subnormal number come first, of zero last.
        let size = _mm_add_epi32(_mm_slli_epi32::<1>(_mm_castps_si128(sum)), _mm_set1_epi32(i32::MAX));
        (sum, _mm_slli_epi32::<3>(low), size)
    }
}

/// Whether a sum may be wrong: its lower bits are those of a midpoint, which as an integer at the top of a lane are the smallest one;
/// or it is subnormal or 2^-126, which are the smallest sizes. So the smallest of several sums tell of all.
///
/// # Safety
/// The CPU has SSE4.1.
#[inline(always)]
unsafe fn is_doubtful(low: __m128i, size: __m128i) -> bool {
    // SAFETY: by the contract; registers only.
    unsafe {
        let midpoint = _mm_cmpeq_epi32(low, _mm_set1_epi32(i32::MIN));
        let small = _mm_cmplt_epi32(size, _mm_set1_epi32(i32::MIN + 0x0100_0000));
        _mm_movemask_epi8(_mm_or_si128(midpoint, small)) != 0
    }
}

/// `a * b + c` of four lanes, by rounding to odd.
#[cold]
#[inline(never)]
#[target_feature(enable = "sse4.1")]
fn exact(a: __m128, b: __m128, c: __m128) -> __m128 {
    // SAFETY: the feature is enabled.
    unsafe {
        let ([a0, a1], [b0, b1], [c0, c1]) = (wide(a), wide(b), wide(c));
        let (s0, s1) = (sum_to_odd(_mm_mul_pd(a0, b0), c0), sum_to_odd(_mm_mul_pd(a1, b1), c1));
        _mm_movelh_ps(_mm_cvtpd_ps(s0), _mm_cvtpd_ps(s1))
    }
}

/// [`fma4`] with a look at each four lanes: of products with few bits, like those of int8 values, one sum in some hundreds is a midpoint.
#[cold]
#[inline(never)]
#[target_feature(enable = "sse4.1")]
fn one_by_one(a: [__m128; 4], b: [__m128; 4], c: [__m128; 4]) -> [__m128; 4] {
    let mut sums = c;
    for i in 0..4 {
        // SAFETY: the feature is enabled.
        sums[i] = unsafe { fma(a[i], b[i], c[i]) };
    }
    sums
}

/// `p + c` cut off to f64, with an odd last bit where something was.
#[target_feature(enable = "sse4.1")]
fn sum_to_odd(p: __m128d, c: __m128d) -> __m128d {
    let (zero, sign) = (_mm_setzero_pd(), _mm_set1_pd(-0.0));
    let s = _mm_add_pd(p, c);
    // What the rounding lost, exact (D. Knuth, The Art of Computer Programming, volume 2, section 4.2.2, theorem B); with an infinity
    // or NaN it is NaN, for which both comparisons are false.
    let of_c = _mm_sub_pd(s, p);
    let lost = _mm_add_pd(_mm_sub_pd(p, _mm_sub_pd(s, of_c)), _mm_sub_pd(c, of_c));
    // In the direction of the sum: below zero where the sum was rounded away from zero.
    let lost = _mm_xor_pd(lost, _mm_and_pd(sign, s));
    let away = _mm_castpd_si128(_mm_cmplt_pd(lost, zero));
    let towards = _mm_castpd_si128(_mm_cmplt_pd(zero, lost));
    let cut = _mm_add_epi64(_mm_castpd_si128(s), away);
    _mm_castsi128_pd(_mm_or_si128(cut, _mm_srli_epi64::<63>(_mm_or_si128(away, towards))))
}
