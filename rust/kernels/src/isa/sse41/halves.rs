//! f16 to f32 and back, without instructions for it. Subnormal f32, which many processors compute with slowly, appear nowhere on the way.

use core::arch::x86_64::*;

/// The f16 whose bits are the lanes, below 2^16. Exact; a signalling NaN becomes quiet and keeps its payload.
///
/// # Safety
/// The CPU has SSE4.1.
#[inline(always)]
pub(super) unsafe fn from_halves(half: __m128i) -> __m128 {
    // SAFETY: by the contract; registers only.
    unsafe {
        let magnitude = _mm_and_si128(half, _mm_set1_epi32(0x7fff));
        let sign = _mm_slli_epi32::<16>(_mm_xor_si128(half, magnitude));
        // Both formats put the exponent above the fraction; only its bias differs, by 127 - 15.
        let normal = _mm_add_epi32(_mm_slli_epi32::<13>(magnitude), _mm_set1_epi32(112 << 23));
        // A subnormal number has the unit of the smallest normal ones, without their leading one: 2^-14 too much.
        let one_more = _mm_castsi128_ps(_mm_add_epi32(normal, _mm_set1_epi32(1 << 23)));
        let subnormal = _mm_sub_ps(one_more, _mm_castsi128_ps(_mm_set1_epi32(113 << 23)));
        let is_subnormal = _mm_castsi128_ps(_mm_cmplt_epi32(magnitude, _mm_set1_epi32(0x0400)));
        let value = _mm_castps_si128(_mm_blendv_ps(_mm_castsi128_ps(normal), subnormal, is_subnormal));
        // The largest exponent stays the largest.
        let infinite = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x7bff));
        let nan = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x7c00));
        let special = _mm_or_si128(
            _mm_and_si128(infinite, _mm_set1_epi32(0x7f80_0000)),
            _mm_and_si128(nan, _mm_set1_epi32(0x0040_0000)),
        );
        _mm_castsi128_ps(_mm_or_si128(_mm_or_si128(value, special), sign))
    }
}

/// The bits of the nearest f16, ties to even, in lanes below 2^16: infinite from 65520 on; a NaN is quiet and keeps the top of its
/// payload.
///
/// # Safety
/// The CPU has SSE4.1.
#[inline(always)]
pub(super) unsafe fn to_halves(value: __m128) -> __m128i {
    // SAFETY: by the contract; registers only.
    unsafe {
        let bits = _mm_castps_si128(value);
        let magnitude = _mm_and_si128(bits, _mm_set1_epi32(i32::MAX));
        let sign = _mm_srli_epi32::<16>(_mm_xor_si128(bits, magnitude));
        // A carry out of the fraction steps the exponent, up to infinity.
        let rebased = _mm_sub_epi32(magnitude, _mm_set1_epi32(112 << 23));
        let odd = _mm_and_si128(_mm_srli_epi32::<13>(rebased), _mm_set1_epi32(1));
        let normal = _mm_srli_epi32::<13>(_mm_add_epi32(_mm_add_epi32(rebased, _mm_set1_epi32(0x0fff)), odd));
        // Between 0.5 and 1 an f32 has steps of 2^-24, just as a subnormal f16, so the addition rounds.
        let half = _mm_set1_ps(0.5);
        let rounded = _mm_castps_si128(_mm_add_ps(_mm_castsi128_ps(magnitude), half));
        let subnormal = _mm_sub_epi32(rounded, _mm_castps_si128(half));
        let is_subnormal = _mm_cmplt_epi32(magnitude, _mm_set1_epi32(113 << 23));
        let finite = _mm_blendv_epi8(normal, subnormal, is_subnormal);
        let payload = _mm_and_si128(_mm_srli_epi32::<13>(magnitude), _mm_set1_epi32(0x03ff));
        let nan = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x7f80_0000));
        let quiet = _mm_and_si128(nan, _mm_or_si128(payload, _mm_set1_epi32(0x0200)));
        let special = _mm_or_si128(quiet, _mm_set1_epi32(0x7c00));
        let beyond = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32((143 << 23) - 1));
        _mm_or_si128(_mm_blendv_epi8(finite, special, beyond), sign)
    }
}
