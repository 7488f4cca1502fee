use fastq_kernels::format::Scale;

#[test]
fn every_half_is_read_back_and_the_rest_of_the_block_stays() {
    for (scale, mask) in
        [(Scale::Half(3), [0, 0, 0, 0xff, 0xff, 0, 0, 0]), (Scale::Nibbles(1), [0, 0xf0, 0, 0xf0, 0, 0xf0, 0, 0xf0])]
    {
        for bits in 0..=u16::MAX {
            let mut block = [0xa5u8; 8];
            scale.set_bits(&mut block, bits);
            assert_eq!(scale.bits(&block), bits);
            assert!(block.iter().zip(mask).all(|(byte, mask)| byte & !mask == 0xa5 & !mask), "{scale:?}");
        }
    }
    for bits in 0..=u8::MAX {
        let mut block = [0xa5u8; 3];
        Scale::Exponent(1).set_bits(&mut block, u16::from(bits));
        assert_eq!(block, [0xa5, bits, 0xa5]);
        let value = Scale::Exponent(1).get(&block);
        assert_eq!(f64::from(value), 2f64.powi(i32::from(bits) - 128));
        for value in [value, -value, value * 1.75] {
            Scale::Exponent(1).set(&mut block, value);
            assert_eq!(block, [0xa5, bits, 0xa5], "{value:e}");
        }
    }
    let mut block = [0; 7];
    Scale::Nibbles(0).set_bits(&mut block, 0x4321);
    assert_eq!(block, [0x10, 0, 0x20, 0, 0x30, 0, 0x40]);
    Scale::Half(2).set(&mut block, -2.0);
    assert_eq!((Scale::Half(2).get(&block), block[3]), (-2.0, 0xc0));
}
