use crate::levels;
use fastq_kernels::format::codebook::{CodebookParts, EntrySigns};
use fastq_kernels::format::parts::{Grid, Levels, Minima, Parts, Precision};
use fastq_kernels::quantize::*;
use fastq_kernels::testing::{Rng, special_values, values};
use fastq_kernels::{Cpu, Format};

fn alone(count: usize, work: &(dyn Fn(usize) + Sync)) {
    (0..count).for_each(work);
}

fn formats() -> impl Iterator<Item = Format> {
    Format::ALL.iter().copied().filter(|format| format.has_grid())
}

/// `X^T X` of inputs with a few strong directions, `(k, k)`.
fn gram(rng: &mut Rng, k: usize) -> Vec<f64> {
    let tokens = 2 * k;
    let mixing = values(rng, 8 * k, 1.0);
    let mut h = vec![0.0; k * k];
    for _ in 0..tokens {
        let mut x: Vec<f64> = (0..k).map(|_| 0.3 * f64::from(rng.bell())).collect();
        for mixing in mixing.chunks_exact(k) {
            let strength = f64::from(rng.bell());
            x.iter_mut().zip(mixing).for_each(|(x, m)| *x += strength * f64::from(*m));
        }
        for i in 0..k {
            for j in 0..k {
                h[i * k + j] += x[i] * x[j];
            }
        }
    }
    h
}

fn decoded(format: Format, bytes: &[u8], n: usize) -> Vec<f32> {
    let mut out = vec![0.0; n];
    format.dequantize(bytes, &mut out);
    out
}

/// The sum of `(w - q) H (w - q)^T` over the rows.
fn loss(h: &[f64], k: usize, w: &[f32], q: &[f32]) -> f64 {
    let mut sum = 0.0;
    for (w, q) in w.chunks_exact(k).zip(q.chunks_exact(k)) {
        let e: Vec<f64> = w.iter().zip(q).map(|(w, q)| f64::from(*w) - f64::from(*q)).collect();
        for i in 0..k {
            sum += e[i] * h[i * k..(i + 1) * k].iter().zip(&e).map(|(h, e)| h * e).sum::<f64>();
        }
    }
    sum
}

#[test]
fn parts_come_back_from_blocks() {
    let mut rng = Rng::new(11);
    for (format, scalar) in formats().filter_map(|format| Some((format, format.scalar()?))) {
        let Grid { block, sub, levels, scales, minima, precision } = scalar.grid;
        for _ in 0..50 {
            let d = match precision {
                Precision::Half => (rng.below(1000) as f32 - 500.0) / 1024.0,
                Precision::Exponent => 1.0 / (1 << rng.below(20)) as f32,
            };
            let dmin = (rng.below(1000) as f32 - 500.0) / 1024.0;
            let mut parts = Parts { d, dmin, ..Parts::default() };
            for j in 0..block / sub {
                parts.scales[j] = scales.map_or(1, |(low, high)| low + rng.below((high - low + 1) as usize) as i32);
                parts.minima[j] = match minima {
                    Minima::None => 0,
                    Minima::Steps(top) => rng.below(top as usize + 1) as i32,
                    Minima::Free => 1,
                };
            }
            for value in &mut parts.values[..block] {
                *value = match levels {
                    Levels::Range(low, high) => low + rng.below((high - low + 1) as usize) as i32,
                    Levels::Table(values) => i32::from(values[rng.below(values.len())]),
                };
            }
            let mut bytes = vec![0xa5; format.info().bytes];
            (scalar.assemble)(&parts, &mut bytes);
            for (i, x) in decoded(format, &bytes, block).into_iter().enumerate() {
                let (scale, min) = (parts.d * parts.scales[i / sub] as f32, parts.dmin * parts.minima[i / sub] as f32);
                assert_eq!(x, scale * parts.values[i] as f32 - min, "{} weight {i}", format.name());
            }
        }
    }
}

#[test]
fn parts_come_back_from_blocks_with_a_codebook() {
    let mut rng = Rng::new(15);
    for (format, book) in formats().filter_map(|format| Some((format, format.codebook()?))) {
        for _ in 0..50 {
            let mut parts = CodebookParts { d: rng.below(1000) as f32 / 1024.0, ..CodebookParts::default() };
            for s in &mut parts.scales[..256 / book.sub] {
                *s = rng.below(usize::from(book.top) + 1) as u8;
            }
            for number in &mut parts.numbers[..256 / book.width] {
                *number = rng.below(book.planes[0].len()) as u16;
            }
            for (i, sign) in parts.signs.into_iter().enumerate() {
                let random = rng.below(256) as u8;
                parts.signs[i] = match book.signs {
                    EntrySigns::Free => random,
                    EntrySigns::Even => random & 127 | ((random & 127).count_ones() as u8 & 1) << 7,
                    EntrySigns::Shift(count) if 8 * i % count > 0 => parts.signs[i - 1],
                    EntrySigns::Shift(_) => sign.wrapping_sub(random & 1),
                };
            }
            let mut bytes = vec![0; format.info().bytes];
            (book.assemble)(&parts, &mut bytes);
            for (i, x) in decoded(format, &bytes, 256).into_iter().enumerate() {
                let number = usize::from(parts.numbers[i / book.width]);
                let negative = parts.signs[i / 8] >> (i % 8) & 1 == 1;
                let code = book.code(number, i % book.width);
                let value = match book.signs {
                    EntrySigns::Shift(_) => book.value(code, negative),
                    _ if negative => -book.value(code, false),
                    _ => book.value(code, false),
                };
                let scale = parts.d * book.unit * f32::from(2 * parts.scales[i / book.sub] + 1);
                assert_eq!(x, scale * value, "{} weight {i}", format.name());
            }
        }
    }
}

#[test]
fn the_factor_is_that_of_the_inverse() {
    let mut rng = Rng::new(12);
    for k in [1, 2, 31, 33, 80] {
        let h = gram(&mut rng, k);
        let damping = 0.01;
        let mut copy = h.clone();
        // The upper triangle is not read.
        (0..k).for_each(|i| copy[i * k + i + 1..(i + 1) * k].fill(f64::NAN));
        let factor = inverse_factor(Cpu::detect().expect("a level"), &mut copy, k, damping, &alone).expect("definite");
        let mean = (0..k).map(|i| h[i * k + i]).sum::<f64>() / k as f64;
        // U H U^T is the identity.
        let u = |i: usize, j: usize| if i <= j { f64::from(factor[j * k + i]) } else { 0.0 };
        let damped = |i: usize, j: usize| h[i * k + j] + if i == j { damping * mean } else { 0.0 };
        for a in 0..k {
            let row: Vec<f64> = (0..k).map(|j| (0..k).map(|i| u(a, i) * damped(i, j)).sum()).collect();
            for b in 0..k {
                let value: f64 = (0..k).map(|j| row[j] * u(b, j)).sum();
                assert!((value - f64::from(u8::from(a == b))).abs() < 1e-4, "k {k}: {value} at ({a}, {b})");
            }
        }
    }
    let mut indefinite = vec![1.0, 0.0, 5.0, 1.0];
    assert_eq!(inverse_factor(Cpu::detect().expect("a level"), &mut indefinite, 2, 0.0, &alone), Err(0));
}

#[test]
fn a_search_beats_rounding_and_feedback_beats_the_search() {
    let mut rng = Rng::new(13);
    let (n, k) = (16, 256);
    let h = gram(&mut rng, k);
    let importance: Vec<f32> = (0..k).map(|i| h[i * k + i] as f32).collect();
    let w = values(&mut rng, n * k, 0.02);
    let diagonal = |q: &[f32]| -> f64 {
        w.iter().zip(q).enumerate().map(|(i, (w, q))| f64::from(importance[i % k]) * f64::from(w - q).powi(2)).sum()
    };
    for format in formats() {
        let cpu = Cpu::detect().expect("a level");
        let bytes = n * format.row_bytes(k).expect("whole blocks");
        let (mut plain, mut searched, mut fed) = (vec![0; bytes], vec![0; bytes], vec![0; bytes]);
        for (w, out) in w.chunks_exact(k).zip(plain.chunks_exact_mut(bytes / n)) {
            let importance = format.info().needs_importance.then_some(&importance[..]);
            format.quantize_row(cpu, w, importance, out).expect("a quantizer");
        }
        search(cpu, format, k, Some(&importance), &w, &mut searched);
        let factor = inverse_factor(cpu, &mut h.clone(), k, 0.01, &alone).expect("definite");
        feedback(cpu, format, Feedback { k, factor: &factor }, &w, &mut fed);
        let [plain, searched, fed] = [plain, searched, fed].map(|bytes| decoded(format, &bytes, n * k));
        let name = format.name();
        let (a, b) = (diagonal(&plain), diagonal(&searched));
        assert!(b < a, "{name}: {b} of {a}");
        let (b, c) = (loss(&h, k, &w, &searched), loss(&h, k, &w, &fed));
        let gram: Vec<f32> = h.iter().map(|h| *h as f32).collect();
        let kernel = fastq_kernels::quantize::loss(cpu, &gram, k, &w, &fed, &mut Vec::new());
        assert!((kernel - c).abs() < 1e-3 * c, "{name}: {kernel} and {c}");
        assert!(c < 0.7 * b, "{name}: {c} of {b}");
    }
}

#[test]
fn every_level_makes_the_same_bytes() {
    let mut rng = Rng::new(14);
    let (n, k) = (19, 256);
    let mut rows = values(&mut rng, n * k, 0.02);
    let special = special_values();
    for (row, (_, values)) in rows.chunks_exact_mut(k).zip(&special) {
        row[..256].copy_from_slice(values);
    }
    let h = gram(&mut rng, k);
    let importance: Vec<f32> = (0..k).map(|i| if i % 50 == 0 { 0.0 } else { h[i * k + i] as f32 }).collect();
    let factors: Vec<_> = levels()
        .into_iter()
        .map(|cpu| inverse_factor(cpu, &mut h.clone(), k, 0.01, &alone).expect("definite"))
        .collect();
    assert!(factors.iter().all(|factor| *factor == factors[0]));
    for format in formats() {
        let bytes = format.row_bytes(k).expect("whole blocks");
        let mut expected: Option<[Vec<u8>; 3]> = None;
        for cpu in levels() {
            let mut outs = [vec![0; n * bytes], vec![0; n * bytes], vec![0; n * bytes]];
            let [plain, weighted, fed] = &mut outs;
            search(cpu, format, k, None, &rows, plain);
            search(cpu, format, k, Some(&importance), &rows, weighted);
            feedback(cpu, format, Feedback { k, factor: &factors[0] }, &rows, fed);
            let expected = expected.get_or_insert_with(|| {
                // Rows do not depend on those beside them.
                let mut alone = vec![0; bytes];
                search(cpu, format, k, Some(&importance), &rows[5 * k..6 * k], &mut alone);
                assert_eq!(alone, outs[1][5 * bytes..6 * bytes], "{}", format.name());
                outs.clone()
            });
            assert!(*expected == outs, "{} on {:?}", format.name(), cpu.level());
        }
    }
}
