//! All formats by one table each: facts, round trips, golden data.

mod float4;
mod grid;
mod importance;
mod nonlinear;
mod round;
mod scale;

use crate::scalar;
use fastq_kernels::format::*;
use fastq_kernels::testing::internals::layout::*;
use fastq_kernels::testing::{Bits, Cases, Rng, blocks, fnv1a, special_values, values};
use fastq_kernels::{Activation, Cpu};

#[test]
fn facts_are_those_of_ggml() {
    // Type, id, weights and bytes per block as in ggml.h and ggml-common.h.
    let expected = [
        ("F32", 0, 1, 4),
        ("F16", 1, 1, 2),
        ("BF16", 30, 1, 2),
        ("Q4_0", 2, 32, 18),
        ("Q4_1", 3, 32, 20),
        ("Q5_0", 6, 32, 22),
        ("Q5_1", 7, 32, 24),
        ("Q8_0", 8, 32, 34),
        ("IQ4_NL", 20, 32, 18),
        ("MXFP4", 39, 32, 17),
        ("NVFP4", 40, 64, 36),
        ("Q1_0", 41, 128, 18),
        ("Q2_0", 42, 64, 18),
        ("Q2_K", 10, 256, 84),
        ("Q3_K", 11, 256, 110),
        ("Q4_K", 12, 256, 144),
        ("Q5_K", 13, 256, 176),
        ("Q6_K", 14, 256, 210),
        ("IQ1_S", 19, 256, 50),
        ("IQ1_M", 29, 256, 56),
        ("IQ2_XXS", 16, 256, 66),
        ("IQ2_XS", 17, 256, 74),
        ("IQ2_S", 22, 256, 82),
        ("IQ3_XXS", 18, 256, 98),
        ("IQ3_S", 21, 256, 110),
        ("IQ4_XS", 23, 256, 136),
        ("TQ1_0", 34, 256, 54),
        ("TQ2_0", 35, 256, 66),
    ];
    assert_eq!(Format::ALL.len(), expected.len());
    for (name, id, block, bytes) in expected {
        let format = Format::from_name(name).expect(name);
        let info = format.info();
        assert_eq!((info.name, info.id, info.block, info.bytes), (name, id, block, bytes));
        assert_eq!(Format::from_id(id), Some(format));
        assert_eq!(Format::from_name(&name.to_lowercase()), Some(format));
        assert_eq!(format.row_bytes(3 * block), Some(3 * bytes));
        assert_eq!(format.row_bytes(0), Some(0));
        assert_eq!(format.row_bytes(usize::MAX / block * block).is_none(), bytes > block);
        assert!(block == 1 || format.row_bytes(block + 1).is_none());
        let activation = if block == 1 {
            Activation::F32
        } else if block < 256 {
            Activation::Block32
        } else {
            Activation::Super256
        };
        assert_eq!(format.activation(), activation);
    }
    for unknown in ["", "Q4", "Q4_0 ", "IQ4"] {
        assert_eq!(Format::from_name(unknown), None);
    }
    assert_eq!(Format::from_id(4), None);
}

/// Encodes one row, with an importance of 1 where it has to be.
fn encode(cpu: Cpu, format: Format, x: &[f32], importance: Option<&[f32]>) -> Vec<u8> {
    let ones = vec![1.0; x.len()];
    let importance = importance.or(Some(&ones[..]).filter(|_| format.info().needs_importance));
    let mut out = vec![0; format.row_bytes(x.len()).expect("whole blocks")];
    format.quantize_row(cpu, x, importance, &mut out).expect("importance where it is needed");
    out
}

#[test]
fn lengths_that_do_not_fit_panic() {
    for &format in Format::ALL {
        let info = format.info();
        let attempt = |bytes: usize, weights: usize| {
            let ones = vec![1.0; weights];
            let encode = std::panic::catch_unwind(|| {
                format.quantize_row(scalar(), &vec![0.0; weights], Some(&ones), &mut vec![0; bytes])
            });
            let decode = std::panic::catch_unwind(|| format.dequantize(&vec![0; bytes], &mut vec![0.0; weights]));
            (encode.is_ok(), decode.is_ok())
        };
        assert_eq!(attempt(2 * info.bytes, 2 * info.block), (true, true), "{}", info.name);
        assert_eq!(attempt(2 * info.bytes - 1, 2 * info.block), (false, false), "{}", info.name);
        assert_eq!(attempt(2 * info.bytes, 2 * info.block + 1), (false, false), "{}", info.name);
    }
}

/// What encoding may lose, per format: the largest error relative to the largest magnitude of the block (of 32 floats),
/// and the root mean
/// square error relative to that of bell-shaped values.
///
/// The first is what one step of the grid can lose (half of it, or all of it where the grid has no positive end) and, for
/// K-quants, what the rounding of the scales adds (formats with a grid have no such bound: theirs are what was seen); the second is a tenth above what ggml's quantizer reaches.
const LOSSES: &[(Format, f32, f64)] = &[
    (Format::F32, 0.0, 0.0),
    (Format::F16, 0.00049, 0.00023),
    (Format::BF16, 0.0040, 0.0018),
    (Format::Q4_0, 0.126, 0.093),
    (Format::Q4_1, 0.068, 0.085),
    (Format::Q5_0, 0.063, 0.046),
    (Format::Q5_1, 0.0335, 0.041),
    (Format::Q8_0, 0.0045, 0.0058),
    (Format::IQ4_NL, 0.126, 0.083),
    // Magnitudes from 12 to 16 become 12.
    (Format::MXFP4, 0.25, 0.129),
    // The scales end: at sigma 100 outliers above 2688 become 2688, and at 0.02 they are subnormal.
    (Format::NVFP4, 0.613, 0.1135),
    (Format::Q1_0, 0.98, 0.656),
    (Format::Q2_0, 0.501, 0.783),
    (Format::Q2_K, 0.45, 0.32),
    (Format::Q3_K, 0.25, 0.164),
    (Format::Q4_K, 0.11, 0.077),
    (Format::Q5_K, 0.065, 0.039),
    (Format::Q6_K, 0.018, 0.0193),
    (Format::IQ1_S, 0.99, 0.531),
    (Format::IQ1_M, 1.2, 0.639),
    (Format::IQ2_XXS, 0.66, 0.376),
    (Format::IQ2_XS, 0.59, 0.328),
    (Format::IQ2_S, 0.64, 0.289),
    (Format::IQ3_XXS, 0.52, 0.233),
    (Format::IQ3_S, 0.41, 0.182),
    (Format::IQ4_XS, 0.0965, 0.0836),
    (Format::TQ1_0, 0.501, 0.878),
    (Format::TQ2_0, 0.501, 0.878),
];

#[test]
fn decoding_what_was_encoded_loses_little() {
    assert_eq!(LOSSES.len(), Format::ALL.len());
    let count = 256 * Cases::new().part_of(512, 64);
    for &(format, worst_bound, mean_bound) in LOSSES {
        let info = format.info();
        for (seed, sigma) in [(1, 1.0), (2, 0.02), (3, 100.0)] {
            let mut rng = Rng::new(seed);
            let bell: Vec<f32> = (0..count).map(|_| rng.bell() * sigma).collect();
            let mean = relative_error(&bell, &round_trip(format, &bell));
            assert!(mean <= mean_bound, "{}: root mean square error {mean}", info.name);
            assert!(mean >= mean_bound * 0.8, "{}: the bound {mean_bound} is far above {mean}", info.name);

            // Of a generator of its own: fewer values are then the first of many, and no worse than these.
            let rows = [values(&mut Rng::new(seed + 10), count, sigma), bell];
            let group = info.block.max(32);
            let mut worst = 0.0f32;
            for x in rows {
                let y = round_trip(format, &x);
                for (x, y) in x.chunks_exact(group).zip(y.chunks_exact(group)) {
                    let top = x.iter().fold(0.0f32, |top, x| top.max(x.abs()));
                    worst = x.iter().zip(y).fold(worst, |worst, (x, y)| worst.max((x - y).abs() / top));
                }
            }
            assert!(worst <= worst_bound, "{}: error {worst} of the largest magnitude", info.name);
        }
    }
}

fn round_trip(format: Format, x: &[f32]) -> Vec<f32> {
    let mut decoded = vec![f32::NAN; x.len()];
    format.dequantize(&encode(scalar(), format, x, None), &mut decoded);
    decoded
}

fn relative_error(x: &[f32], y: &[f32]) -> f64 {
    let square = |value: f32| f64::from(value) * f64::from(value);
    let error: f64 = x.iter().zip(y).map(|(&x, &y)| square(x - y)).sum();
    (error / x.iter().map(|&x| square(x)).sum::<f64>()).sqrt()
}

#[test]
fn encoding_again_what_was_decoded_changes_nothing_where_the_grid_is_fixed() {
    // Holds for the types without a search: the value of largest magnitude is on the grid, so the scale comes back.
    for format in [Format::F32, Format::F16, Format::BF16, Format::Q4_0, Format::Q5_0, Format::Q8_0] {
        let x = values(&mut Rng::new(5), 256 * 64, 1.0);
        let once = round_trip(format, &x);
        assert_eq!(round_trip(format, &once), once, "{}", format.name());
    }
}

#[test]
fn special_rows_decode_to_finite_values_where_f16_scales_allow() {
    for format in Format::ALL.iter().copied().filter(|format| !format.info().scales.is_empty()) {
        for (name, x) in special_values() {
            let y = round_trip(format, &x);
            let top = x.iter().fold(0.0f32, |top, x| top.max(x.abs()));
            if top < 65504.0 {
                assert!(y.iter().all(|y| y.is_finite()), "{} of {name}", format.name());
            }
            if top == 0.0 {
                assert!(y.iter().all(|&y| y == 0.0), "{} of {name}", format.name());
            }
        }
    }
}

#[test]
fn no_bits_make_the_encoders_panic() {
    let mut rng = Rng::new(17);
    for &format in Format::ALL {
        for _ in 0..200 {
            let x: Vec<f32> = (0..256).map(|_| f32::from_bits(rng.bits() as u32)).collect();
            round_trip(format, &x);
        }
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            round_trip(format, &[value; 256]);
            let mut x = values(&mut rng, 256, 1.0);
            x[100] = value;
            round_trip(format, &x);
        }
    }
}

#[test]
fn scales_are_all_scales_of_a_block() {
    for &format in Format::ALL.iter().filter(|format| format.info().block > 1) {
        let info = format.info();
        let data = blocks(&mut Rng::new(11), format, 50, Bits::Sensible);
        for block in data.chunks_exact(info.bytes) {
            let mut block = block.to_vec();
            let mut out = vec![1.0; info.block];
            for scale in info.scales {
                assert!(scale.get(&block).is_finite());
                scale.set(&mut block, 0.0);
            }
            format.dequantize(&block, &mut out);
            // An exponent has no zero: 2^-128 times 12.
            assert!(out.iter().all(|&x| x.abs() < 1e-37), "{}", info.name);
        }
    }
}

#[test]
fn packing_is_the_inverse_of_unpacking() {
    fn random<const N: usize>(rng: &mut Rng) -> [u8; N] {
        let mut bytes = [0; N];
        rng.fill(&mut bytes);
        bytes
    }
    let mut rng = Rng::new(13);
    for _ in 0..200 {
        let bytes = random(&mut rng);
        assert_eq!(pack_nibbles(&nibbles(&bytes)), bytes);
        let bytes = random(&mut rng);
        assert_eq!(pack_fifth_bits(&fifth_bits(&bytes)), bytes);
        let bytes = random(&mut rng);
        assert_eq!(pack_crumbs(&crumbs(&bytes)), bytes);
        let bytes = random(&mut rng);
        assert_eq!(pack_planes(&planes(&bytes)), bytes);
        let bytes = random(&mut rng);
        assert_eq!(pack_super_nibbles(&super_nibbles(&bytes)), bytes);
        let bytes = random(&mut rng);
        let (scales, minima) = scales_and_minima(&bytes);
        assert_eq!(pack_scales_and_minima(&scales, &minima), bytes);
    }
}

/// FNV-1a of the encoded golden values and of the decoded golden blocks (see [`golden_values`], [`golden_blocks`]).
///
/// Made once from the outputs of other programs on the same data: `libgguf` 0.2.2 (ggml's reference quantizer) for the first
/// column (empty for formats with a grid, for which it ends the program where sums overflow), `gguf.quants.dequantize` of the `gguf` package 0.19.0 for the second. Neither
/// package has everything: Q1_0 is decoded by `libgguf`, and Q2_0 is as its definition, written in NumPy, says. They are not to be updated from the output
/// of this crate.
const GOLDEN: &[(Format, Option<u64>, u64)] = &[
    (Format::F32, Some(0x7767_6bfc_b5b0_3b71), 0x3f05_2592_0c79_f242),
    (Format::F16, Some(0x89bd_68dd_9faa_162b), 0xd07a_2a34_6256_01a2),
    (Format::BF16, Some(0x9aab_1b3c_e645_f2bd), 0x4a8e_37c8_515a_2535),
    (Format::Q4_0, Some(0xdfdb_a94d_18c2_5876), 0xa477_a7a3_2694_4dbb),
    (Format::Q4_1, Some(0x7abd_e383_7208_a44b), 0x0e7e_d03f_960b_2c2a),
    (Format::Q5_0, Some(0x15fe_ecdd_34d3_b1ae), 0x7969_4b04_5c95_bbf9),
    (Format::Q5_1, Some(0x7078_eb8a_e926_72bf), 0x829a_b2b8_8021_8c10),
    (Format::Q8_0, Some(0xcf09_f43f_9872_7306), 0xfa66_4a50_a042_785c),
    (Format::IQ4_NL, Some(0x8fd5_52d0_6374_dfeb), 0x5c10_94fd_221c_c108),
    (Format::MXFP4, Some(0x2993_c538_7c16_294a), 0xe3e0_946f_adf2_9533),
    (Format::NVFP4, Some(0xb1b0_7c57_d9c3_6337), 0xcef3_b08c_5752_0aa3),
    (Format::Q1_0, Some(0x5519_3b17_ec05_6af4), 0xb9a4_95fa_fe25_68a5),
    (Format::Q2_0, Some(0x358f_f63f_c4b5_50b1), 0x8429_bba8_0bd7_9a6e),
    (Format::Q2_K, Some(0x56cc_9a0d_9a6d_ee06), 0x9057_05bc_d9db_d95d),
    (Format::Q3_K, Some(0xe765_b11d_040a_f90d), 0x72b4_d5ea_ccca_003b),
    (Format::Q4_K, Some(0xbeb4_1def_1e3b_21bd), 0x2802_112e_ef73_a6b8),
    (Format::Q5_K, Some(0x9417_a872_dab1_fbaa), 0xac52_f842_cb92_1152),
    (Format::Q6_K, Some(0xbea0_42e4_8b35_2f2e), 0xc1ed_63e2_476d_357e),
    (Format::IQ1_S, None, 0xe751_f3d4_3e9a_5c1c),
    (Format::IQ1_M, None, 0x9d0e_0042_363a_00f2),
    (Format::IQ2_XXS, None, 0x93eb_4c08_aa5c_6ccd),
    (Format::IQ2_XS, None, 0x5c38_efc3_51d0_f634),
    (Format::IQ2_S, None, 0x36e9_11b4_0abc_f9e4),
    (Format::IQ3_XXS, None, 0x6d34_1e3c_f5be_3aae),
    (Format::IQ3_S, None, 0x2f5c_680b_d227_8a38),
    (Format::IQ4_XS, Some(0xf113_8f70_1f79_7b17), 0x1f96_16b5_63d2_c1de),
    (Format::TQ1_0, Some(0x4f51_ebbe_65b6_56c3), 0x292f_8de0_bd7a_af99),
    (Format::TQ2_0, Some(0xb2f3_77fa_efdb_420b), 0xd961_0527_c7d5_3388),
];

/// 256 super-blocks of plausible values, then the special rows.
fn golden_values() -> Vec<f32> {
    let mut x = values(&mut Rng::new(2026), 256 * 256, 0.05);
    x.extend(special_values().into_iter().flat_map(|(_, row)| row));
    x
}

/// Blocks of 16384 weights with plausible scales, then as many with any finite scales.
fn golden_blocks(format: Format) -> Vec<u8> {
    let mut rng = Rng::new(22);
    let count = 16384 / format.info().block;
    let mut data = blocks(&mut rng, format, count, Bits::Sensible);
    data.extend(blocks(&mut rng, format, count, Bits::Finite));
    data
}

#[test]
fn golden_data_is_encoded_and_decoded_as_ggml_and_gguf_do() {
    assert_eq!(GOLDEN.len(), Format::ALL.len());
    let x = golden_values();
    for &(format, encoded_hash, decoded_hash) in GOLDEN {
        if let Some(hash) = encoded_hash {
            assert_eq!(fnv1a(&encode(scalar(), format, &x, None)), hash, "encoding {}", format.name());
        }
        let mut decoded = vec![0.0; 2 * 16384];
        format.dequantize(&golden_blocks(format), &mut decoded);
        let bytes: Vec<u8> = decoded.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(fnv1a(&bytes), decoded_hash, "decoding {}", format.name());
    }
}
