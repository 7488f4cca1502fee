use fastq_kernels::Format;
use fastq_kernels::checkpoint::*;
use fastq_kernels::half::f16_to_f32;

/// `levels` as a stream of bits, by the definition.
fn packed(levels: &[u8], bits: usize) -> Vec<u8> {
    let mut out = vec![0u8; (levels.len() * bits).div_ceil(32) * 4];
    for (index, level) in levels.iter().enumerate() {
        for bit in 0..bits {
            let at = index * bits + bit;
            out[at / 8] |= (level >> bit & 1) << (at % 8);
        }
    }
    out
}

#[test]
fn streams_of_bits_come_back() {
    for bits in 1..=8 {
        let levels: Vec<u8> = (0..96u32).map(|i| (i * 37 + i * i / 7) as u8 & ((1u32 << bits) - 1) as u8).collect();
        let bytes = packed(&levels, bits);
        let mut out = vec![0; levels.len()];
        Words { bytes: &bytes, first: 0, stride: 1 }.levels(bits as u32, &mut out);
        assert_eq!(out, levels, "{bits} bits");
    }
}

#[test]
fn columns_are_rows_with_a_stride() {
    // Three columns of two words each.
    let words: Vec<u32> = vec![0x7654_3210, 0xfedc_ba98, 0x1111_1111, 0x8888_8888, 0, 0x2222_2222];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut out = [0; 16];
    Words { bytes: &bytes, first: 0, stride: 3 }.levels(4, &mut out);
    assert_eq!(out, [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8, 8, 8, 8, 8]);
    let mut out = [0; 2];
    Words { bytes: &bytes, first: 1, stride: 3 }.nibbles(8, &mut out);
    assert_eq!(out, [0xa, 0]);
}

#[test]
fn blocks_have_the_integers_and_the_rounded_scales() {
    let levels: Vec<u8> = (0..64).map(|i| (i * 7 % 16) as u8).collect();
    let (scales, minima) = ([0.1f32, -0.25], [-0.75f32, 2.0]);
    let half = |value: f32| f16_to_f32(fastq_kernels::half::f32_to_f16(value));
    let (mut q4_0, mut q4_1, mut out) = ([0; 36], [0; 40], [0.0; 64]);
    q4_0_of_levels(&levels, &scales, &mut q4_0);
    Format::Q4_0.dequantize(&q4_0, &mut out);
    for (i, value) in out.iter().enumerate() {
        assert_eq!(*value, half(scales[i / 32]) * (f32::from(levels[i]) - 8.0));
    }
    q4_1_of_levels(&levels, &scales, &minima, &mut q4_1);
    Format::Q4_1.dequantize(&q4_1, &mut out);
    for (i, value) in out.iter().enumerate() {
        assert_eq!(*value, half(scales[i / 32]) * f32::from(levels[i]) + minima[i / 32]);
    }
}

/// The values of OCP Microscaling Formats 1.0, table 5, times the scale.
#[test]
fn microscaling_blocks_are_those_of_the_specification() {
    const VALUES: [f32; 16] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];
    let pairs: Vec<u8> = (0..32).map(|i| (i * 41 + 3) as u8).collect();
    let (mut blocks, mut out) = ([0; 34], [0.0; 64]);
    mxfp4_of_pairs(&pairs, &[126, 130], &mut blocks);
    Format::MXFP4.dequantize(&blocks, &mut out);
    for (i, value) in out.iter().enumerate() {
        let level = pairs[i / 2] >> (4 * (i % 2)) & 15;
        assert_eq!(*value, VALUES[level as usize] * [0.5, 8.0][i / 32], "weight {i}");
    }
}

#[test]
fn rows_are_changed_in_place() {
    let mut values = [1.0, -2.0, 0.0];
    add(&mut values, 1.0);
    assert_eq!(values, [2.0, -1.0, 1.0]);
    negative_exp(&mut values);
    assert_eq!(values.map(f64::from), [2.0f64, -1.0, 1.0].map(|x| f64::from(-x.exp() as f32)));
    assert_eq!((peak(&[1.0, -3.0, 2.0]), peak(&[])), (3.0, 0.0));
    assert!(peak(&[1.0, f32::NAN, 2.0]).is_nan());
    assert_eq!(peak(&[f32::NEG_INFINITY, 2.0]), f32::INFINITY);
    let mut out = [0; 4];
    gather(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 2, 1, 2, &mut out);
    assert_eq!(out, [3, 4, 7, 8]);
    let mut out = [0.0; 3];
    let groups = [Group { scale: 0.5, zero: 8.0, bias: 0.0 }, Group { scale: 2.0, zero: 0.0, bias: -1.0 }];
    dequantize_levels(&[10, 3, 0], &[0, 1, 0], &groups, &mut out);
    assert_eq!(out, [1.0, 5.0, -4.0]);
}
