//! Encoding with importance, and the searches on every level.

use super::encode;
use crate::scalar;
use fastq_kernels::format::QuantizeError;
use fastq_kernels::testing::{Cases, Rng, fnv1a, special_values, values};
use fastq_kernels::{Cpu, Format, Level};

/// The formats that the importance of the weights makes a difference for.
fn formats() -> impl Iterator<Item = Format> {
    Format::ALL.iter().copied().filter(|format| format.info().uses_importance)
}

#[test]
fn what_is_made_of_importance_is_as_in_ggml() {
    // What `ggml_quantize_requires_imatrix` says of them.
    let needs: Vec<_> = Format::ALL.iter().filter(|format| format.info().needs_importance).collect();
    assert_eq!(needs, [&Format::IQ1_S, &Format::IQ2_XXS, &Format::IQ2_XS]);
    for &format in Format::ALL {
        let info = format.info();
        let mut out = vec![0; info.bytes];
        let result = format.quantize_row(scalar(), &vec![1.0; info.block], None, &mut out);
        let expected = if info.needs_importance { Err(QuantizeError::NoImportance(format)) } else { Ok(()) };
        assert_eq!(result, expected);
        let ignored = encode(scalar(), format, &golden_rows()[..512], Some(&golden_importance()))
            == encode(scalar(), format, &golden_rows()[..512], Some(&[1.0; 512]));
        assert_eq!(ignored, !info.uses_importance, "{}", info.name);
    }
    let message = QuantizeError::NoImportance(Format::IQ2_XS).to_string();
    assert!(message.starts_with("IQ2_XS needs the importance"), "{message}");
}

#[test]
#[should_panic(expected = "importance of every weight")]
fn importance_of_another_length_panics() {
    let _ = Format::Q8_0.quantize_row(scalar(), &[0.0; 64], Some(&[0.0; 32]), &mut [0; 68]);
}

/// FNV-1a of [`golden_rows`] encoded without and with [`golden_importance`], made once by `libgguf` 0.2.2 from the same data. They
/// are not to be updated from the output of this crate.
const GOLDEN: &[(Format, Option<u64>, u64)] = &[
    (Format::Q4_0, Some(0xa2df_a66f_166c_c1fd), 0x5004_d6e1_7bdf_7537),
    (Format::Q4_1, Some(0xeb56_5dfb_49ed_7d1c), 0x356d_9484_a37b_5919),
    (Format::Q5_0, Some(0xc618_9d8f_373a_9e7e), 0xa07b_e4a2_5cbc_b4ce),
    (Format::Q5_1, Some(0x9902_eca3_9ffb_b25f), 0xfb6f_383e_ac01_f978),
    (Format::IQ4_NL, Some(0x5479_7556_c9c7_a76b), 0x9ff1_f5c2_9553_f7a8),
    (Format::Q2_K, Some(0x5228_a0ee_45bf_5003), 0x2cc9_b94e_c20f_14b7),
    (Format::Q3_K, Some(0x3e3b_3531_f12d_d54e), 0x8c00_d730_ece2_1c36),
    (Format::Q4_K, Some(0xd6f6_31a6_139d_34fc), 0x9350_24e1_9dbc_b337),
    (Format::Q5_K, Some(0xf81f_5b8a_4d2c_1a87), 0x3f66_4db4_13df_581b),
    (Format::Q6_K, Some(0xc089_b84a_3419_bb86), 0x1dba_f2e8_d06f_6c82),
    (Format::IQ1_S, None, 0x869a_8e57_6a65_80b8),
    (Format::IQ1_M, Some(0xfa23_831f_4877_32e3), 0xaea1_0e82_7dbb_40bb),
    (Format::IQ2_XXS, None, 0x6747_d640_94f9_c0e7),
    (Format::IQ2_XS, None, 0x655f_fb60_08e5_8449),
    (Format::IQ2_S, Some(0xeb0b_9648_3fa9_ce64), 0x5b56_a45e_5cfa_fb50),
    (Format::IQ3_XXS, Some(0x0615_60fc_7a96_7ae2), 0x4b8a_a6af_a224_e9a8),
    (Format::IQ3_S, Some(0x3bf3_8b68_7971_cf96), 0x66f1_ded4_8a91_ad40),
    (Format::IQ4_XS, Some(0x48e1_3f79_b319_ee7b), 0xd50f_406b_455c_dff0),
];

/// Rows of 512: plausible values, then the special rows for which no sum overflows.
fn golden_rows() -> Vec<f32> {
    let mut x = values(&mut Rng::new(2026), 256 * 256, 0.05);
    let moderate = |row: &[f32]| row.iter().all(|x| x.abs() < 1e10);
    x.extend(special_values().into_iter().filter(|(_, row)| moderate(row)).flat_map(|(_, row)| row));
    x.truncate(x.len() / 512 * 512);
    x
}

/// Squares, with single zeros and a block of them.
fn golden_importance() -> Vec<f32> {
    let mut rng = Rng::new(31);
    let mut value = |i: usize| {
        let x = rng.bell();
        if i % 16 == 5 || (64..96).contains(&i) { 0.0 } else { x * x }
    };
    (0..512).map(&mut value).collect()
}

#[test]
fn golden_rows_are_encoded_as_ggml_does() {
    assert_eq!(GOLDEN.len(), formats().count());
    let (rows, importance) = (golden_rows(), golden_importance());
    for &(format, plain, weighted) in GOLDEN {
        let hash = |importance: Option<&[f32]>| {
            let row = |x: &[f32]| encode(scalar(), format, x, importance);
            fnv1a(&rows.chunks_exact(512).flat_map(row).collect::<Vec<_>>())
        };
        assert_eq!(hash(Some(&importance)), weighted, "{} with importance", format.name());
        if let Some(plain) = plain {
            assert_eq!(hash(None), plain, "{}", format.name());
        }
    }
}

/// A row of `k` values of one of several kinds, half of them hostile.
fn row(rng: &mut Rng, kind: usize, k: usize) -> Vec<f32> {
    let mut x = values(rng, k, 0.05);
    let special = special_values();
    match kind {
        0 => {}
        1 => x.iter_mut().for_each(|x| *x = f32::from_bits(rng.bits() as u32)),
        2 => {
            let mut rows = special.iter().cycle().skip(rng.below(special.len()));
            let mut next = || rows.next().expect("a cycle").1.iter().copied();
            x = std::iter::repeat_with(&mut next).flatten().take(k).collect();
        }
        3 => x[rng.below(k)] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX][rng.below(4)],
        4 => x.iter_mut().for_each(|x| *x = (*x * 80.0).round() / 8.0),
        _ => x.iter_mut().step_by(2).for_each(|x| *x = 0.0),
    }
    x
}

/// Importance of one of several kinds, half of them hostile.
fn importance(rng: &mut Rng, kind: usize, k: usize) -> Option<Vec<f32>> {
    let mut w: Vec<f32> = (0..k).map(|_| rng.bell()).map(|x| x * x).collect();
    match kind {
        0 => return None,
        1 => {}
        2 => w.iter_mut().for_each(|w| *w = f32::from_bits(rng.bits() as u32)),
        3 => w.iter_mut().for_each(|w| *w -= 0.5),
        4 => w[..k / 2].fill(0.0),
        _ => w.fill(0.0),
    }
    Some(w)
}

#[test]
fn every_level_encodes_as_the_plain_code() {
    let mut rng = Rng::new(8);
    let levels: Vec<_> = Level::available().into_iter().filter(|&level| level != Level::Scalar).collect();
    let mut cases = Cases::new();
    for format in formats() {
        // The grids are searched by plain code on every level.
        let grid = ["IQ1", "IQ2", "IQ3"].iter().any(|family| format.name().starts_with(family));
        for k in [format.info().block, 768, 1280] {
            for (x_kind, w_kind) in (0..36).map(|i| (i / 6, i % 6)) {
                if !cases.take() || grid && k != 768 {
                    continue;
                }
                let (x, w) = (row(&mut rng, x_kind, k), importance(&mut rng, w_kind, k));
                let expected = encode(scalar(), format, &x, w.as_deref());
                for &level in &levels {
                    let cpu = Cpu::new(level).expect("available");
                    let found = encode(cpu, format, &x, w.as_deref());
                    let name = (format.name(), level.name());
                    assert!(found == expected, "{name:?}: {k} values of kind {x_kind}, importance {w_kind}");
                }
            }
        }
    }
}

#[test]
fn importance_moves_the_error_to_where_it_matters_less() {
    let k = 256 * Cases::new().part_of(64, 8);
    let mut rng = Rng::new(12);
    let x: Vec<f32> = (0..k).map(|_| rng.bell()).collect();
    // Every other weight matters a hundred times as much.
    let importance: Vec<f32> = (0..k).map(|i| if i % 2 == 0 { 10.0 } else { 0.1 }).collect();
    for format in formats() {
        let error = |importance: &[f32]| {
            let mut y = vec![0.0; k];
            format.dequantize(&encode(scalar(), format, &x, Some(importance)), &mut y);
            let square = |i: usize| f64::from(x[i] - y[i]) * f64::from(x[i] - y[i]);
            [0, 1].map(|first| (first..k).step_by(2).map(square).sum::<f64>())
        };
        let (even, odd) = (error(&vec![1.0; k]), error(&importance));
        assert!(odd[0] < 0.97 * even[0] && odd[1] > even[1], "{}: {even:?}, then {odd:?}", format.name());
    }
}
