//! f16 and bf16 bits to f32 and back, scalar; the crate has no dependencies, so these are here.
//!
//! All four functions give the bits that the F16C and AVX512-BF16 instructions give (round to nearest even, signalling
//! NaNs made quiet), except that nothing is flushed to zero.

/// The value of an IEEE binary16. Exact; a NaN keeps its payload and becomes quiet.
#[inline]
pub const fn f16_to_f32(bits: u16) -> f32 {
    let sign = ((bits & 0x8000) as u32) << 16;
    let magnitude = (bits & 0x7fff) as u32;
    let value = if magnitude > 0x7c00 {
        0x7fc0_0000 | (magnitude << 13)
    } else if magnitude == 0x7c00 {
        0x7f80_0000
    } else if magnitude >= 0x0400 {
        // Both formats put the exponent above the fraction; only its bias differs, by 127 - 15.
        (magnitude << 13) + (112 << 23)
    } else {
        // Subnormal: an integer times 2^-24, which f32 holds as a normal number.
        const UNIT: f32 = 1.0 / 16_777_216.0;
        (magnitude as f32 * UNIT).to_bits()
    };
    f32::from_bits(sign | value)
}

/// The nearest IEEE binary16, ties to even. From 65520 upwards the result is infinite; a NaN stays a (quiet) NaN with the
/// upper bits of its payload.
#[inline]
pub const fn f32_to_f16(value: f32) -> u16 {
    const INFINITE: u32 = 0x7f80_0000;
    const SMALLEST_NORMAL: u32 = (127 - 14) << 23;
    const BEYOND: u32 = (127 + 16) << 23;
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    let half = if magnitude > INFINITE {
        0x7e00 | ((magnitude >> 13) & 0x03ff)
    } else if magnitude >= BEYOND {
        0x7c00
    } else if magnitude >= SMALLEST_NORMAL {
        let rebased = magnitude - (112 << 23);
        // A carry out of the fraction steps the exponent, up to infinity.
        (rebased + 0x0fff + ((rebased >> 13) & 1)) >> 13
    } else {
        // Subnormal: between 0.5 and 1 an f32 has steps of 2^-24, just as the result, so the addition rounds.
        (f32::from_bits(magnitude) + 0.5).to_bits() - 0.5f32.to_bits()
    };
    sign | half as u16
}

/// The value of a bfloat16: the upper half of an f32. Exact, NaN payloads included.
#[inline]
pub const fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// The nearest bfloat16, ties to even; a NaN stays a (quiet) NaN with the upper bits of its payload, as in ggml.
#[inline]
pub const fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if bits & 0x7fff_ffff > 0x7f80_0000 {
        (bits >> 16) as u16 | 0x0040
    } else {
        // Cannot overflow: the largest finite or infinite pattern is 0xff80_0000.
        ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
    }
}
