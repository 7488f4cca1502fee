use fastq_kernels::testing::internals::float4::*;

#[test]
fn every_scale_has_the_value_of_its_definition() {
    for bits in 0..=u8::MAX {
        let (exponent, fraction) = (i32::from(bits >> 3 & 15), f64::from(bits & 7));
        let twice = match exponent {
            0 => fraction * 2f64.powi(-9),
            _ => (1.0 + fraction / 8.0) * 2f64.powi(exponent - 7),
        };
        let expected = if bits == 0x7f { 0.0 } else { twice / 2.0 };
        assert_eq!(f64::from(half_of_ue4m3(bits)).to_bits(), expected.to_bits(), "{bits:#04x}");
        assert_eq!(f64::from(half_of_e8m0(bits)), 2f64.powi(i32::from(bits) - 128), "{bits}");
    }
}

#[test]
fn small_floats_come_back_and_round_to_the_nearest() {
    for bits in 0..0x78u8 {
        let value = |bits: u8| 2.0 * half_of_ue4m3(bits);
        assert_eq!(ue4m3_of(value(bits)), bits, "{bits:#04x}");
        let middle = (value(bits) + value(bits + 1)) / 2.0;
        // Subnormal numbers are rounded in f32, and not up to the first normal one.
        if bits < 0x77 && bits > 7 {
            assert_eq!((ue4m3_of(middle.next_down()), ue4m3_of(middle)), (bits, bits + 1), "{bits:#04x}");
        } else if bits < 7 {
            assert_eq!((ue4m3_of(middle * 0.99), ue4m3_of(middle)), (bits, bits + 1), "{bits:#04x}");
        }
    }
    assert_eq!([256.0, 448.0, 1e9, f32::INFINITY].map(ue4m3_of), [0x7e; 4]);
    assert_eq!([0.0, -1.0, f32::NAN, f32::from_bits(1)].map(ue4m3_of), [0; 4]);
}

#[test]
fn exponents_give_the_largest_weight_four_to_six() {
    for exponent in -125..=127 {
        let power = 2f32.powi(exponent);
        for amax in [power, power * 1.5, power * 1.999] {
            let e = e8m0_of(amax);
            assert_eq!(f64::from(half_of_e8m0(e)), 2f64.powi(exponent - 3), "{amax:e}");
        }
    }
    assert_eq!((e8m0_of(0.0), e8m0_of(f32::from_bits(1))), (0, 232));
}
