use std::ops::Range;

use crate::{other_levels, scalar};
use fastq_kernels::activation::{Activation, quantize_activations};
use fastq_kernels::matmul::*;
use fastq_kernels::testing::{self, Bits, Cases, Rng};
use fastq_kernels::{Cpu, Format};

/// The records of rows of `k` values.
fn quantized(cpu: Cpu, kind: Activation, x: &[f32], k: usize) -> Vec<u8> {
    let mut out = vec![0xa5; x.len() / k * kind.row_bytes(k)];
    quantize_activations(cpu, kind, x, k, &mut out);
    out
}

/// Equal bits, or both NaN.
fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

/// Untouched outputs hold this.
const UNTOUCHED: f32 = -7.125e-11;

/// The rows of a product in a buffer of `(tokens, matrix.rows)`.
fn product(cpu: Cpu, matrix: Matrix<'_>, rows: Range<usize>, x: &[u8], tokens: usize) -> Vec<f32> {
    let mut out = vec![UNTOUCHED; tokens * matrix.rows];
    let mut scratch = MatmulScratch::default();
    // SAFETY: the only thread.
    unsafe { matmul(cpu, matrix, rows, x, tokens, OutTile::new(&mut out, matrix.rows), &mut scratch) };
    out
}

/// Random weights of `rows` rows and activations of `tokens` tokens, quantized on the scalar level.
fn random(rng: &mut Rng, format: Format, rows: usize, k: usize, tokens: usize, bits: Bits) -> (Vec<u8>, Vec<u8>) {
    let data = testing::blocks(rng, format, rows * k / format.info().block, bits);
    let x = testing::values(rng, tokens * k, 1.0);
    (data, quantized(scalar(), format.activation(), &x, k))
}

/// Row lengths to test: every number of blocks from 1 to 40 for small blocks, to 6 for super-blocks, every tail for floats.
fn lengths(format: Format) -> Vec<usize> {
    match format.info().block {
        1 => (1..=40).chain([576, 1000]).collect(),
        block @ 32..256 => (1..=40).map(|blocks| block * blocks).collect(),
        block => (1..=6).map(|blocks| block * blocks).collect(),
    }
}

#[test]
fn every_level_equals_the_scalar_one() {
    const ROWS: usize = 33;
    const TOKENS: [usize; 8] = [1, 2, 3, 4, 5, 7, 8, 17];
    for cpu in other_levels() {
        let mut rng = Rng::new(1);
        let mut cases = Cases::new();
        for &format in Format::ALL {
            for (i, k) in lengths(format).into_iter().enumerate() {
                let shapes =
                    [1, 2, 4, 5, 7, 8, 9, 16, 17, 33].into_iter().flat_map(|rows| TOKENS.map(|tokens| (rows, tokens)));
                let shapes: Vec<_> = shapes.filter(|_| cases.take()).collect();
                let Some(most) = shapes.iter().map(|&(_, tokens)| tokens).max() else { continue };
                let bits = [Bits::Sensible, Bits::Finite, Bits::Sensible, Bits::Any][i % 4];
                let (data, x) = random(&mut rng, format, ROWS, k, most, bits);
                let row_bytes = format.row_bytes(k).expect("whole blocks");
                let record = format.activation().row_bytes(k);
                let whole = Matrix { format, rows: ROWS, k, data: &data };
                let expected = product(scalar(), whole, 0..ROWS, &x, most);
                assert!(
                    expected.iter().any(|&x| x != UNTOUCHED && x != 0.0),
                    "{} {k}: nothing computed",
                    format.name()
                );
                for (rows, tokens) in shapes {
                    let matrix = Matrix { rows, data: &data[..rows * row_bytes], ..whole };
                    let found = product(cpu, matrix, 0..rows, &x[..tokens * record], tokens);
                    for (at, &found) in found.iter().enumerate() {
                        let (t, r) = (at / rows, at % rows);
                        let expected = expected[t * ROWS + r];
                        assert!(
                            same(found, expected),
                            "{} {} k={k} {bits:?} row {r} of {rows}, token {t} of {tokens}: {found:e}, not {expected:e}",
                            cpu.level().name(),
                            format.name(),
                        );
                    }
                }
            }
        }
    }
}

/// Enough tokens for tiles of every kind, with and without a rest.
#[test]
fn many_tokens_equal_the_scalar_level() {
    for cpu in other_levels() {
        let mut rng = Rng::new(8);
        let mut cases = Cases::new();
        for &format in Format::ALL {
            for (i, blocks) in [1, 2, 3, 9].into_iter().enumerate() {
                let k = blocks * if format.info().block == 1 { 19 } else { format.info().block };
                let bits = [Bits::Sensible, Bits::Any, Bits::Finite, Bits::Sensible][i];
                for (rows, tokens) in [(16, 31), (17, 32), (33, 47), (32, 64), (8, 65), (5, 37), (50, 130)] {
                    if !cases.take() {
                        continue;
                    }
                    let (data, x) = random(&mut rng, format, rows, k, tokens, bits);
                    let matrix = Matrix { format, rows, k, data: &data };
                    let expected = product(scalar(), matrix, 0..rows, &x, tokens);
                    let found = product(cpu, matrix, 0..rows, &x, tokens);
                    for (at, (&found, &expected)) in found.iter().zip(&expected).enumerate() {
                        assert!(
                            same(found, expected),
                            "{} {} k={k} {bits:?} row {} of {rows}, token {} of {tokens}: {found:e}, not {expected:e}",
                            cpu.level().name(),
                            format.name(),
                            at % rows,
                            at / rows,
                        );
                    }
                }
            }
        }
    }
}

/// The lengths that [`lengths`] leaves out, of one shape: with a group that overlaps another, few tokens and many, and of tiles.
#[test]
fn every_number_of_super_blocks() {
    const ROWS: usize = 17;
    const TOKENS: usize = 33;
    let levels = other_levels();
    let mut rng = Rng::new(7);
    let mut cases = Cases::new();
    for &format in Format::ALL.iter().filter(|format| format.info().block == 256) {
        for blocks in (7..=40).filter(|_| cases.take()) {
            let k = 256 * blocks;
            let (data, x) = random(&mut rng, format, ROWS, k, TOKENS, Bits::Sensible);
            let matrix = Matrix { format, rows: ROWS, k, data: &data };
            let expected = product(scalar(), matrix, 0..ROWS, &x, TOKENS);
            for &cpu in &levels {
                for tokens in [1, 9, TOKENS] {
                    let found = product(cpu, matrix, 0..ROWS, &x[..tokens * format.activation().row_bytes(k)], tokens);
                    assert!(
                        found.iter().zip(&expected).all(|(&found, &expected)| same(found, expected)),
                        "{} {} k={k}, {tokens} tokens",
                        cpu.level().name(),
                        format.name(),
                    );
                }
            }
        }
    }
}

#[test]
fn any_split_of_rows_gives_the_same_and_writes_nothing_else() {
    const ROWS: usize = 40;
    for cpu in other_levels().into_iter().chain([scalar()]) {
        let mut rng = Rng::new(2);
        let mut cases = Cases::new();
        for &format in Format::ALL {
            let k = 3 * format.info().block.max(19);
            for tokens in [1, 3, 9, 35] {
                let (data, x) = random(&mut rng, format, ROWS, k, tokens, Bits::Sensible);
                let matrix = Matrix { format, rows: ROWS, k, data: &data };
                let whole = product(cpu, matrix, 0..ROWS, &x, tokens);
                for start in 0..ROWS {
                    for end in
                        [start, start + 1, start + 3, start + 8, start + 16, start + 17, start + 32, start + 33, ROWS]
                    {
                        if end > ROWS || !cases.take() {
                            continue;
                        }
                        let part = product(cpu, matrix, start..end, &x, tokens);
                        for (at, (&part, &whole)) in part.iter().zip(&whole).enumerate() {
                            let expected = if (start..end).contains(&(at % ROWS)) { whole } else { UNTOUCHED };
                            assert!(
                                same(part, expected),
                                "{} {} rows {start}..{end} of {tokens} tokens, at {at}",
                                cpu.level().name(),
                                format.name()
                            );
                        }
                    }
                }
            }
        }
    }
}

/// The scalar level against f64 products of what the weights and activations stand for.
#[test]
fn the_scalar_level_multiplies_the_dequantized_weights() {
    let mut rng = Rng::new(3);
    for &format in Format::ALL {
        for blocks in [1, 2, 5] {
            let k = blocks * if format.info().block == 1 { 37 } else { format.info().block };
            let (data, x) = random(&mut rng, format, 20, k, 3, Bits::Sensible);
            let matrix = Matrix { format, rows: 20, k, data: &data };
            let out = product(scalar(), matrix, 0..20, &x, 3);
            let mut weights = vec![0.0; 20 * k];
            format.dequantize(&data, &mut weights);
            for (t, record) in x.chunks_exact(format.activation().row_bytes(k)).enumerate() {
                let x = dequantized(format.activation(), record, k);
                for (r, w) in weights.chunks_exact(k).enumerate() {
                    let terms = w.iter().zip(&x).map(|(&w, &x)| f64::from(w) * x);
                    let (sum, magnitude) = terms.fold((0.0, 0.0), |(s, m), x| (s + x, m + x.abs()));
                    let found = f64::from(out[t * 20 + r]);
                    // One rounding per block or element, and those of scales and minima.
                    let tolerance = magnitude * 1e-6 * (4.0 + blocks as f64);
                    assert!((found - sum).abs() <= tolerance, "{} k={k}: {found}, not {sum}", format.name());
                }
            }
        }
    }
}

/// The values a record stands for.
fn dequantized(kind: Activation, record: &[u8], k: usize) -> Vec<f64> {
    let f32_at = |at: usize| f64::from(f32::from_ne_bytes(record[at..at + 4].try_into().expect("four bytes")));
    let block = kind.block();
    match kind {
        Activation::F32 => (0..k).map(|i| f32_at(4 * i)).collect(),
        _ => (0..k).map(|i| f64::from(record[i] as i8) * f32_at(kind.scales_at(k) + 4 * (i / block))).collect(),
    }
}

#[test]
fn no_tokens_rows_or_inputs() {
    for cpu in other_levels().into_iter().chain([scalar()]) {
        for &format in Format::ALL {
            let k = format.info().block;
            let data = vec![0; format.info().bytes * 20];
            let x = vec![0; format.activation().row_bytes(k)];
            let matrix = Matrix { format, rows: 20, k, data: &data };
            assert!(product(cpu, matrix, 0..20, &[], 0).is_empty());
            assert_eq!(product(cpu, matrix, 7..7, &x, 1), vec![UNTOUCHED; 20]);
            let empty = Matrix { format, rows: 20, k: 0, data: &[] };
            for tokens in [1, 9] {
                assert_eq!(product(cpu, empty, 0..20, &[], tokens), vec![0.0; 20 * tokens]);
            }
        }
    }
}

#[test]
fn wrong_lengths_panic() {
    let data = vec![0; 18 * 4];
    let x = vec![0; Activation::Block32.row_bytes(32)];
    let matrix = Matrix { format: Format::Q4_0, rows: 4, k: 32, data: &data };
    let panics = |matrix: Matrix<'_>, rows: Range<usize>, x: &[u8], tokens: usize, out: usize, stride: usize| {
        let mut out = vec![0.0; out];
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // SAFETY: the only thread.
            unsafe {
                matmul(scalar(), matrix, rows, x, tokens, OutTile::new(&mut out, stride), &mut MatmulScratch::default())
            }
        }))
        .is_err()
    };
    assert!(!panics(matrix, 0..4, &x, 1, 4, 4));
    assert!(panics(matrix, 0..5, &x, 1, 8, 8), "too many rows");
    assert!(panics(matrix, 0..4, &x, 1, 3, 4), "too few outputs");
    assert!(panics(matrix, 0..4, &x[1..], 1, 4, 4), "a short record");
    assert!(panics(Matrix { data: &data[1..], ..matrix }, 0..4, &x, 1, 4, 4), "short weights");
    assert!(panics(Matrix { k: 33, ..matrix }, 0..4, &x, 1, 4, 4), "not whole blocks");
    assert!(panics(matrix, 0..4, &[&x[..], &x].concat(), 2, 8, 3), "tokens overlap");
    assert!(panics(matrix, 0..4, &[&x[..], &x].concat(), 2, 8, usize::MAX), "the stride overflows");
}

/// Weights, records and outputs between pages that cannot be touched.
#[cfg(all(unix, target_pointer_width = "64"))]
#[test]
fn nothing_outside_the_slices_is_touched() {
    use fastq_kernels::testing::{Guarded, Side};
    for cpu in other_levels().into_iter().chain([scalar()]) {
        let mut rng = Rng::new(4);
        for &format in Format::ALL {
            let block = format.info().block;
            for k in if block == 1 { vec![1, 5, 15, 16, 17, 33] } else { vec![block, 2 * block, 3 * block] } {
                for (rows, tokens) in
                    [(4, 1), (5, 3), (8, 1), (16, 1), (17, 2), (33, 4), (9, 9), (35, 7), (3, 1), (33, 33)]
                {
                    let (data, x) = random(&mut rng, format, rows, k, tokens, Bits::Sensible);
                    for side in Side::ALL {
                        let (data, x) = (Guarded::new(&data, side), Guarded::new(&x, side));
                        let mut out = Guarded::new(&vec![UNTOUCHED; rows * tokens], side);
                        let matrix = Matrix { format, rows, k, data: &data };
                        let tile = OutTile::new(&mut out, rows);
                        // SAFETY: the only thread.
                        unsafe { matmul(cpu, matrix, 0..rows, &x, tokens, tile, &mut MatmulScratch::default()) };
                        assert!(out.iter().all(|&x| x != UNTOUCHED), "{} {}", cpu.level().name(), format.name());
                    }
                }
            }
        }
    }
}

mod activations {
    use super::*;

    /// A row with each special value in each place of a block, beside ordinary ones.
    fn rows() -> Vec<(&'static str, Vec<f32>)> {
        let mut rows = testing::special_values();
        let mut rng = Rng::new(5);
        for (name, value) in [
            ("NaN", f32::NAN),
            ("-NaN with a payload", f32::from_bits(0xffa0_0001)),
            ("infinity", f32::INFINITY),
            ("-infinity", f32::NEG_INFINITY),
            ("the largest", f32::MAX),
            ("a subnormal", 1e-40),
        ] {
            for at in [0, 1, 31, 32, 100, 255] {
                let mut row = testing::values(&mut rng, 256, 1.0);
                row[at] = value;
                rows.push((name, row));
            }
        }
        let largest_with_overflow = f32::from_bits((127.0 / f32::MAX).to_bits() - 1);
        rows.push(("the inverse overflows", vec![largest_with_overflow; 256]));
        rows.push(("the inverse is the largest", vec![f32::from_bits(largest_with_overflow.to_bits() + 2); 256]));
        for _ in 0..200 {
            rows.push(("random", testing::values(&mut rng, 256, 1.0)));
            let bits = (0..256).map(|_| f32::from_bits(rng.bits() as u32)).collect();
            rows.push(("random bits", bits));
        }
        rows
    }

    #[test]
    fn every_level_equals_the_scalar_one() {
        for cpu in other_levels() {
            for &kind in Activation::ALL {
                for (name, row) in rows() {
                    let (expected, found) = (quantized(scalar(), kind, &row, 256), quantized(cpu, kind, &row, 256));
                    assert_eq!(expected, found, "{} {kind:?} {name}", cpu.level().name());
                }
                let many = testing::values(&mut Rng::new(6), 3 * 2304, 1.0);
                assert_eq!(quantized(scalar(), kind, &many, 2304), quantized(cpu, kind, &many, 2304), "{kind:?}");
            }
        }
    }

    #[test]
    fn scalar_blocks_follow_the_definition() {
        for kind in [Activation::Block32, Activation::Super256] {
            for (name, row) in rows() {
                let record = quantized(scalar(), kind, &row, 256);
                let scale = |b: usize| {
                    let at = kind.scales_at(256) + 4 * b;
                    f32::from_ne_bytes(record[at..at + 4].try_into().expect("four bytes"))
                };
                let q: Vec<i32> = record[..256].iter().map(|&q| i32::from(q as i8)).collect();
                let sums = &record[kind.sums_at(256)..];
                for (b, x) in row.chunks_exact(kind.block()).enumerate() {
                    let q = &q[b * kind.block()..][..kind.block()];
                    assert!(q.iter().all(|q| (-127..=127).contains(q)), "{kind:?} {name}");
                    if x.iter().any(|x| !x.is_finite()) {
                        assert!(scale(b).is_nan() && q.iter().all(|&q| q == 0), "{kind:?} {name}");
                    } else {
                        let amax = x.iter().fold(0f32, |amax, x| amax.max(x.abs()));
                        assert_eq!(scale(b), amax / 127.0, "{kind:?} {name}");
                        // Within half a step; blocks below 2^-121 may become zero.
                        let slack = if amax < 1e-36 { 1e-36 } else { f64::from(scale(b)) * 0.50001 };
                        for (&x, &q) in x.iter().zip(q) {
                            assert!(
                                (f64::from(x) - f64::from(q) * f64::from(scale(b))).abs() <= slack,
                                "{kind:?} {name}"
                            );
                        }
                    }
                }
                for (sum, q) in sums.chunks_exact(2).zip(q.chunks_exact(16)) {
                    let sum = i16::from_ne_bytes(sum.try_into().expect("two bytes"));
                    assert_eq!(i32::from(sum), q.iter().sum::<i32>());
                }
            }
        }
    }

    /// A NaN or infinity in a token makes its outputs NaN and leaves the other tokens alone.
    #[test]
    fn faults_reach_the_outputs_of_their_token() {
        for cpu in other_levels().into_iter().chain([scalar()]) {
            for &format in Format::ALL {
                let mut rng = Rng::new(7);
                let data = testing::blocks(&mut rng, format, 33 * 512 / format.info().block, Bits::Sensible);
                let clean = testing::values(&mut rng, 9 * 512, 1.0);
                let mut faulty = clean.clone();
                faulty[2 * 512 + 300] = f32::NAN;
                let matrix = Matrix { format, rows: 33, k: 512, data: &data };
                let [clean, faulty] = [clean, faulty]
                    .map(|x| product(cpu, matrix, 0..33, &quantized(cpu, format.activation(), &x, 512), 9));
                for (at, (clean, faulty)) in clean.iter().zip(&faulty).enumerate() {
                    assert!(if at / 33 == 2 { faulty.is_nan() } else { same(*clean, *faulty) }, "{}", format.name());
                }
            }
        }
    }
}
