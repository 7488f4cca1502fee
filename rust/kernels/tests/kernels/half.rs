use fastq_kernels::half::*;

/// binary16 by its definition in IEEE 754, in f64.
fn definition(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits >> 10 & 31);
    let fraction = f64::from(bits & 1023);
    sign * match exponent {
        31 if fraction != 0.0 => f64::NAN,
        31 => f64::INFINITY,
        0 => fraction / 1024.0 * 2f64.powi(-14),
        _ => (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
    }
}

#[test]
fn every_half_has_the_value_of_the_definition_and_comes_back() {
    for bits in 0..=u16::MAX {
        let (value, expected) = (f16_to_f32(bits), definition(bits));
        if expected.is_nan() {
            assert!(value.is_nan());
            assert_eq!(f32_to_f16(value), bits | 0x0200, "{bits:#06x}");
        } else {
            assert_eq!(f64::from(value).to_bits(), expected.to_bits(), "{bits:#06x}");
            assert_eq!(f32_to_f16(value), bits, "{bits:#06x}");
        }
    }
}

#[test]
fn rounding_to_f16_is_to_nearest_even() {
    // Between every pair of neighbours: just below, at, and just above the midpoint. The last pair is 65504 and the
    // value that would follow it if the exponent went on, which stands for infinity.
    for low in 0..0x7c00u16 {
        let upper = if low == 0x7bff { 65536.0 } else { definition(low + 1) };
        let middle = ((definition(low) + upper) / 2.0) as f32;
        let even = if low & 1 == 0 { low } else { low + 1 };
        assert_eq!(f32_to_f16(middle), even, "{low:#06x}");
        assert_eq!(f32_to_f16(middle.next_down()), low, "{low:#06x}");
        assert_eq!(f32_to_f16(middle.next_up()), low + 1, "{low:#06x}");
        assert_eq!(f32_to_f16(-middle), even | 0x8000, "{low:#06x}");
    }
    for huge in [65536.0, 1e10, f32::MAX, f32::INFINITY] {
        assert_eq!(f32_to_f16(huge), 0x7c00);
        assert_eq!(f32_to_f16(-huge), 0xfc00);
    }
    assert_eq!(f32_to_f16(f32::from_bits(1)), 0);
    assert_eq!(f32_to_f16(f32::from_bits(0x7f80_0001)), 0x7e00);
}

#[test]
fn every_bf16_comes_back_and_rounding_is_to_nearest_even() {
    for bits in 0..=u16::MAX {
        let value = bf16_to_f32(bits);
        assert_eq!(value.to_bits(), u32::from(bits) << 16);
        if value.is_nan() {
            assert_eq!(f32_to_bf16(value), bits | 0x0040, "{bits:#06x}");
            continue;
        }
        assert_eq!(f32_to_bf16(value), bits, "{bits:#06x}");
        if value.is_finite() {
            let at = |low: u32| f32_to_bf16(f32::from_bits(u32::from(bits) << 16 | low));
            assert_eq!(at(0x7fff), bits);
            assert_eq!(at(0x8000), if bits & 1 == 0 { bits } else { bits + 1 });
            assert_eq!(at(0x8001), bits + 1);
        }
    }
    // A NaN whose payload lies in the lower half only must not become an infinity.
    assert_eq!(f32_to_bf16(f32::from_bits(0x7f80_0001)), 0x7fc0);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn equals_the_f16c_instructions() {
    use core::arch::x86_64::*;

    #[target_feature(enable = "f16c")]
    fn compare(f32_bits: u32) {
        for bits in 0..=u16::MAX {
            let hardware = _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits))));
            assert_eq!(f16_to_f32(bits).to_bits(), hardware.to_bits(), "{bits:#06x}");
            let value = f32::from_bits(u32::from(bits) << 16 | f32_bits);
            let hardware = _mm_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm_set_ss(value));
            assert_eq!(f32_to_f16(value), _mm_cvtsi128_si32(hardware) as u16, "{:#010x}", value.to_bits());
        }
    }

    #[allow(clippy::print_stderr, reason = "a skipped comparison must be seen")]
    if !std::arch::is_x86_feature_detected!("f16c") {
        eprintln!("skipped: this cpu has no f16c");
        return;
    }
    for low in [0, 1, 0x0fff, 0x1000, 0x1001, 0x2fff, 0x3000, 0x3001, 0x5555, 0x8000, 0xffff] {
        // SAFETY: the feature was detected above.
        unsafe { compare(low) };
    }
}
