//! Calibration and evaluation on small models: against plain sums, over chunks, threads and splits.

#[allow(dead_code, reason = "the other models are for other tests")]
#[path = "model/tiny.rs"]
mod tiny;

use fastq_core::calibrate::{self, Grams, calibrate};
use fastq_core::evaluate::{Options, chunks, kl_divergence, perplexity};
use fastq_core::model::{Input, Observer};
use fastq_core::{BatchItem, LoadOptions, Logits, Model, Never, Result, Silent};

fn options(threads: usize) -> LoadOptions {
    LoadOptions { threads: Some(threads), prefill_chunk: 32, ..LoadOptions::default() }
}

fn text(len: usize) -> String {
    // Bytes are tokens of the tiny vocabulary.
    (0..len).map(|i| char::from(b'a' + (i * i % 23) as u8)).collect()
}

const CALIBRATION: calibrate::Options =
    calibrate::Options { chunk_size: 40, chunks: Some(3), process_output: true, chat: false };

#[test]
fn chunks_begin_with_the_token_of_the_model() {
    let model = tiny::llama().load(&options(1)).expect("loads");
    let pieces = chunks(&model, &text(100), 40, None, &Never).expect("long enough");
    let all = model.tokenizer().encode(&text(100), true, false, &Never).expect("encodes");
    let bos = model.tokenizer().bos().expect("has one");
    assert_eq!(pieces.len(), all.len() / 40);
    for (index, piece) in pieces.iter().enumerate() {
        let first = if model.tokenizer().add_bos() { bos } else { all[index * 40] };
        assert_eq!((piece[0], &piece[1..]), (first, &all[index * 40 + 1..(index + 1) * 40]));
    }
    assert!(chunks(&model, &text(50), 40, None, &Never).is_err(), "less than two");
    assert_eq!(chunks(&model, &text(100), 40, Some(1), &Never).expect("long enough").len(), 1);
}

/// All inputs, kept.
#[derive(Default)]
struct Kept(std::collections::BTreeMap<(String, Option<usize>), Vec<f32>>);

impl Observer for Kept {
    fn input(&mut self, input: &mut Input<'_>) -> Result<()> {
        for name in input.tensors {
            self.0.entry(((*name).to_owned(), input.expert)).or_default().extend(input.x);
        }
        Ok(())
    }
}

#[test]
fn sums_are_those_of_the_inputs() {
    for tiny in [tiny::llama(), tiny::gemma(), tiny::gpt_oss(), tiny::qwen35()] {
        let model = tiny.load(&options(2)).expect("loads");
        let texts = [text(60), text(90)];
        let found = calibrate(&model, &texts, vec!["a".into()], CALIBRATION, &Never, &Silent).expect("calibrates");
        assert_eq!((found.chunk_count, found.chunk_size, &found.datasets[..]), (3, 40, &["a".to_owned()][..]));
        let pieces = calibrate::pieces(&model, &texts, CALIBRATION, &Never).expect("long enough");
        let mut kept = Kept::default();
        calibrate::observe(&model, &pieces, true, &mut kept, &Never, &Silent).expect("observes");
        for ((name, expert), x) in &kept.0 {
            let entry = &found.entries[name];
            let (k, expert) = (entry.k(), expert.unwrap_or(0));
            assert_eq!(entry.counts[expert], (x.len() / k) as f32, "{name}");
            for (j, sum) in entry.sums[expert * k..(expert + 1) * k].iter().enumerate() {
                let expected: f64 = x.iter().skip(j).step_by(k).map(|x| f64::from(*x) * f64::from(*x)).sum();
                assert!((f64::from(*sum) - expected).abs() <= 1e-5 * expected, "{name} {j}: {sum} for {expected}");
            }
        }
        assert_eq!(
            found.entries.len(),
            kept.0.keys().map(|(name, _)| name).collect::<std::collections::BTreeSet<_>>().len()
        );
        let without = calibrate::Options { process_output: false, ..CALIBRATION };
        let inner = calibrate(&model, &texts, vec![], without, &Never, &Silent).expect("calibrates");
        assert_eq!(inner.entries.len() + 1, found.entries.len());
        let alone = tiny.load(&options(1)).expect("loads");
        assert!(calibrate(&alone, &texts, vec![], without, &Never, &Silent).expect("calibrates") == inner, "threads");
    }
}

#[test]
fn gram_matrices_hold_the_products_of_the_inputs() {
    let tiny = tiny::granitemoe();
    let texts = [text(130)];
    let wanted = |name: &str| name.starts_with("blk.1.");
    let mut results = Vec::new();
    for threads in [1, 2] {
        let model = tiny.load(&options(threads)).expect("loads");
        let pieces = calibrate::pieces(&model, &texts, CALIBRATION, &Never).expect("long enough");
        let mut grams = Grams::new(&wanted);
        calibrate::observe(&model, &pieces, false, &mut grams, &Never, &Silent).expect("observes");
        grams.finish();
        let mut kept = Kept::default();
        calibrate::observe(&model, &pieces, false, &mut kept, &Never, &Silent).expect("observes");
        let mut all = Vec::new();
        for ((name, expert), x) in kept.0.iter().filter(|((name, _), _)| wanted(name)) {
            let gram = grams.get(name, *expert).expect("is collected");
            let k = gram.k;
            assert_eq!(gram.count as usize, x.len() / k);
            for (i, j) in (0..k).step_by(41).flat_map(|i| (0..k).step_by(37).map(move |j| (i, j))) {
                let expected: f64 = x.chunks_exact(k).map(|x| f64::from(x[i]) * f64::from(x[j])).sum();
                let size: f64 = x.chunks_exact(k).map(|x| f64::from(x[i] * x[j]).abs()).sum();
                let found = f64::from(gram.sums[i * k + j]);
                assert!((found - expected).abs() <= 1e-5 * size, "{name} {i} {j}: {found} for {expected}");
                assert_eq!(gram.sums[i * k + j].to_bits(), gram.sums[j * k + i].to_bits());
            }
            all.push(gram.clone());
        }
        assert!(grams.get("blk.0.attn_q.weight", None).is_none());
        results.push(all);
    }
    assert!(results[0] == results[1], "threads change nothing");
}

/// Negative log-probabilities of the second half of the chunks, in f64.
fn scores(model: &Model, pieces: &[Vec<u32>]) -> Vec<(f64, Vec<f64>)> {
    let mut all = Vec::new();
    for piece in pieces {
        let (mut sequence, mut out) = (model.new_sequence(), Vec::new());
        let item = BatchItem { sequence: &mut sequence, tokens: piece, logits: Logits::All, out: &mut out };
        model.forward(&mut [item], &Never).expect("computes");
        for at in piece.len() / 2..piece.len() - 1 {
            let logits = &out[at * model.vocabulary()..(at + 1) * model.vocabulary()];
            let sum: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
            let logs: Vec<f64> = logits.iter().map(|x| f64::from(*x) - sum.ln()).collect();
            all.push((-logs[piece[at + 1] as usize], logs));
        }
    }
    all
}

#[test]
fn perplexity_and_divergence_are_those_of_the_definition() {
    let base = tiny::llama().load(&options(2)).expect("loads");
    let other =
        tiny::Tiny { formats: &[fastq_kernels::Format::Q4_K], ..tiny::llama() }.load(&options(1)).expect("loads");
    let options = Options { context: 40, chunks: Some(2) };
    let text = text(130);
    let pieces = chunks(&base, &text, 40, Some(2), &Never).expect("long enough");
    let (p, q) = (scores(&base, &pieces), scores(&other, &pieces));
    let close = |a: f64, b: f64| assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{a} for {b}");

    let found = perplexity(&base, &text, options, &Never, &Silent).expect("computes");
    let n = p.len() as f64;
    let mean = p.iter().map(|(nll, _)| nll).sum::<f64>() / n;
    close(found.ppl.value, mean.exp());
    assert_eq!((found.tokens, found.chunks, found.by_chunk.len(), found.by_chunk[1]), (38, 2, 2, found.ppl.value));
    let spread = p.iter().map(|(nll, _)| (nll - mean).powi(2)).sum::<f64>() / n;
    close(found.nll.error, (spread / (n - 1.0)).sqrt());

    let found = kl_divergence(&base, &other, &text, options, &Never, &Silent).expect("computes");
    let divergences: Vec<f64> =
        p.iter().zip(&q).map(|((_, p), (_, q))| p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum()).collect();
    close(found.mean.value, divergences.iter().sum::<f64>() / n);
    close(found.max, divergences.iter().copied().fold(0.0, f64::max));
    close(found.ppl_base.value, mean.exp());
    close(found.ppl.value, (q.iter().map(|(nll, _)| nll).sum::<f64>() / n).exp());
    let top = |logs: &[f64]| (0..logs.len()).max_by(|a, b| logs[*a].total_cmp(&logs[*b]));
    let same = p.iter().zip(&q).filter(|((_, p), (_, q))| top(p) == top(q)).count();
    close(found.same_top.value, same as f64 / n);
    let swapped = kl_divergence(&other, &base, &text, options, &Never, &Silent).expect("computes");
    assert!(swapped.mean.value != found.mean.value && swapped.ppl == found.ppl_base);
}
