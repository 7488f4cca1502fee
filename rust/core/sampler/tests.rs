//! Every stage beside its definition, written as plainly as can be.

mod history;
mod order;

use proptest::prelude::*;

use super::candidates::Candidates;
use super::*;

/// Options that switch every stage off.
fn off() -> SamplerOptions {
    SamplerOptions { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..SamplerOptions::default() }
}

type Made = Result<Option<Box<dyn Stage>>>;

/// A stage of options.
fn made(stage: impl Fn(&Setup<'_>) -> Made, options: &SamplerOptions, vocab: usize) -> Made {
    stage(&Setup { options, vocab, breakers: &DryBreakers::default() })
}

/// The ids and logits left by one stage, by id.
fn left(stage: Made, logits: &[f32]) -> Vec<(u32, f32)> {
    let mut logits = logits.to_vec();
    let mut candidates = Candidates::new(&mut logits, Vec::new());
    stage.unwrap().expect("the stage is on").apply(&mut candidates, 0);
    let mut list: Vec<_> = candidates.list().iter().map(|c| (c.id, c.logit)).collect();
    list.sort_by_key(|c| c.0);
    list
}

fn ids(list: &[(u32, f32)]) -> Vec<u32> {
    list.iter().map(|c| c.0).collect()
}

/// Probabilities by id, with the standard library's exponential.
fn softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let e: Vec<f64> = logits.iter().map(|&l| (f64::from(l) - f64::from(max)).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|e| e / sum).collect()
}

/// Ids in the order of a key, then of the id, until their probabilities reach `mass`; sorted by id. `None` when the mass is
/// reached so narrowly that the last bits of an exponential decide.
fn by_mass(probabilities: &[f64], mass: f64, key: impl Fn(usize) -> f64) -> Option<Vec<u32>> {
    let mut order: Vec<usize> = (0..probabilities.len()).filter(|&i| probabilities[i] > 0.0).collect();
    order.sort_by(|&a, &b| key(a).total_cmp(&key(b)).then(a.cmp(&b)));
    // Two keys so close that the last bits decide which comes first are as undecided, unless the probabilities are equal.
    let close = |a: usize, b: usize| (key(a) - key(b)).abs() < 1e-9 && probabilities[a] != probabilities[b];
    if order.windows(2).any(|w| close(w[0], w[1])) {
        return None;
    }
    let (mut sum, mut kept) = (0.0, Vec::new());
    for i in order {
        sum += probabilities[i];
        kept.push(i as u32);
        if (sum - mass).abs() < 1e-9 {
            return None;
        }
        if sum > mass {
            break;
        }
    }
    kept.sort_unstable();
    Some(kept)
}

/// Rows with ties (whole numbers) and without, from one token to a few thousand, some masked.
fn logits() -> impl Strategy<Value = Vec<f32>> {
    let value = prop_oneof![
        4 => -20.0f32..20.0,
        4 => (-8i32..8).prop_map(|v| v as f32),
        1 => Just(f32::NEG_INFINITY),
    ];
    (0.0f32..1.0, prop::collection::vec(value, 1..3000)).prop_map(|(first, mut row)| {
        row[0] = first; // at least one is not masked
        row
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn top_k_is_a_full_sort_cut_at_k(row in logits(), k in prop_oneof![1usize..200, 1000usize..3000], listed: bool) {
        let mut order: Vec<u32> = (0..row.len() as u32).filter(|&i| row[i as usize] > f32::NEG_INFINITY).collect();
        order.sort_by(|&a, &b| row[b as usize].partial_cmp(&row[a as usize]).unwrap().then(a.cmp(&b)));
        order.truncate(k);
        order.sort_unstable();
        let mut copy = row.clone();
        let mut candidates = Candidates::new(&mut copy, Vec::new());
        if listed {
            candidates.list();
        }
        candidates.keep_best(k);
        let mut got: Vec<u32> = candidates.list().iter().map(|c| c.id).collect();
        got.sort_unstable();
        prop_assert_eq!(got, order);
    }

    #[test]
    fn top_p_keeps_the_smallest_nucleus(row in logits(), p in 0.01f32..0.999) {
        let expected = by_mass(&softmax(&row), f64::from(p), |i| -f64::from(row[i]));
        prop_assume!(expected.is_some());
        let options = SamplerOptions { top_p: p, ..off() };
        prop_assert_eq!(ids(&left(made(top_p::stage, &options, row.len()), &row)), expected.unwrap());
    }

    #[test]
    fn typical_keeps_what_is_nearest_to_the_entropy(row in logits(), p in 0.01f32..0.999) {
        let probabilities = softmax(&row);
        let entropy: f64 = probabilities.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        let expected = by_mass(&probabilities, f64::from(p), |i| (-probabilities[i].ln() - entropy).abs());
        prop_assume!(expected.is_some());
        let options = SamplerOptions { typical_p: p, ..off() };
        prop_assert_eq!(ids(&left(made(typical::stage, &options, row.len()), &row)), expected.unwrap());
    }

    #[test]
    fn min_p_compares_with_the_largest_probability(row in logits(), p in 0.001f32..1.0) {
        let probabilities = softmax(&row);
        let threshold = probabilities.iter().copied().fold(0.0, f64::max) * f64::from(p);
        prop_assume!(probabilities.iter().all(|q| (q / threshold - 1.0).abs() > 1e-9 || *q == 1.0));
        let expected: Vec<u32> = (0..row.len() as u32).filter(|&i| probabilities[i as usize] >= threshold).collect();
        let options = SamplerOptions { min_p: p, ..off() };
        prop_assert_eq!(ids(&left(made(min_p::stage, &options, row.len()), &row)), expected);
    }

    #[test]
    fn temperature_divides_differences(row in logits(), t in 0.05f32..5.0) {
        prop_assume!(t != 1.0);
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for (id, logit) in left(made(temperature::stage, &SamplerOptions { temperature: t, ..off() }, row.len()), &row) {
            prop_assert_eq!(logit, (row[id as usize] - max) / t);
        }
    }

    #[test]
    fn dynamic_temperature_goes_with_the_entropy(row in logits(), t in 0.1f32..3.0, range in 0.1f32..3.0, exponent in 0.0f32..3.0) {
        let probabilities = softmax(&row);
        let n = probabilities.iter().filter(|p| **p > 0.0).count();
        prop_assume!(n == row.iter().filter(|l| **l > f32::NEG_INFINITY).count()); // none underflows
        let entropy: f64 = probabilities.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        let share = if n > 1 { entropy / (n as f64).ln() } else { 0.0 };
        let low = f64::from((t - range).max(0.0));
        let dynamic = low + (f64::from(t + range) - low) * share.powf(f64::from(exponent));
        prop_assume!(dynamic > 1e-3);
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let options = SamplerOptions { temperature: t, dynatemp_range: range, dynatemp_exponent: exponent, ..off() };
        for (id, logit) in left(made(temperature::stage, &options, row.len()), &row) {
            let expected = f64::from(row[id as usize] - max) / dynamic;
            prop_assert!((f64::from(logit) - expected).abs() <= 1e-5 * expected.abs(), "{} is not {}", logit, expected);
        }
    }

    #[test]
    fn top_n_sigma_measures_from_the_largest_logit(row in logits(), n in 0.1f32..3.0) {
        let finite: Vec<f64> = row.iter().filter(|l| **l > f32::NEG_INFINITY).map(|&l| f64::from(l)).collect();
        let mean = finite.iter().sum::<f64>() / finite.len() as f64;
        let sigma = (finite.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / finite.len() as f64).sqrt();
        let threshold = finite.iter().copied().fold(f64::NEG_INFINITY, f64::max) - f64::from(n) * sigma;
        prop_assume!(sigma == 0.0 || finite.iter().all(|l| (l - threshold).abs() > 1e-9));
        let expected: Vec<u32> = (0..row.len() as u32).filter(|&i| f64::from(row[i as usize]) >= threshold).collect();
        let options = SamplerOptions { top_n_sigma: n, ..off() };
        prop_assert_eq!(ids(&left(made(top_n_sigma::stage, &options, row.len()), &row)), expected);
    }

    #[test]
    fn xtc_leaves_the_last_of_the_top_choices(row in logits(), threshold in 0.0f32..0.5) {
        let probabilities = softmax(&row);
        prop_assume!(probabilities.iter().all(|p| (p - f64::from(threshold)).abs() > 1e-9));
        let mut order: Vec<usize> = (0..row.len()).filter(|&i| probabilities[i] > 0.0).collect();
        order.sort_by(|&a, &b| row[b].partial_cmp(&row[a]).unwrap().then(a.cmp(&b)));
        let top = order.iter().filter(|&&i| probabilities[i] >= f64::from(threshold)).count();
        let mut expected: Vec<u32> = order[top.saturating_sub(1)..].iter().map(|&i| i as u32).collect();
        // What underflowed stays, too, though it is never drawn.
        expected.extend((0..row.len() as u32).filter(|&i| probabilities[i as usize] == 0.0 && row[i as usize] > f32::NEG_INFINITY));
        expected.sort_unstable();
        let options = SamplerOptions { xtc_probability: 1.0, xtc_threshold: threshold, ..off() };
        prop_assert_eq!(ids(&left(made(xtc::stage, &options, row.len()), &row)), expected);
    }

    #[test]
    fn penalties_count_the_last_tokens(
        row in prop::collection::vec(-9.0f32..9.0, 8),
        tokens in prop::collection::vec(0u32..9, 0..40),
        last_n in 1usize..20,
        repeat in 0.5f32..2.0,
        presence in -2.0f32..2.0,
        frequency in -2.0f32..2.0,
    ) {
        let options = SamplerOptions {
            repeat_penalty: repeat, repeat_last_n: last_n, presence_penalty: presence, frequency_penalty: frequency, ..off()
        };
        let mut stage = made(penalties::stage, &options, row.len()).unwrap().unwrap();
        tokens.iter().for_each(|&t| stage.accept(t, None)); // token 8 is outside the vocabulary
        let window = &tokens[tokens.len().saturating_sub(last_n)..];
        for (id, logit) in left(Ok(Some(stage)), &row) {
            let count = window.iter().filter(|&&t| t == id).count() as f32;
            let mut expected = row[id as usize];
            if count > 0.0 {
                expected = if expected > 0.0 { expected / repeat } else { expected * repeat };
                expected -= count * frequency + presence;
            }
            prop_assert!((logit - expected).abs() <= 1e-5, "{} is not {}", logit, expected);
        }
    }

    #[test]
    fn greedy_is_the_first_largest_logit(row in logits()) {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let expected = row.iter().position(|&l| l == max).unwrap() as u32;
        let mut sampler = Sampler::new(&SamplerOptions::greedy(), row.len()).unwrap();
        prop_assert_eq!(sampler.sample(&mut row.clone(), 0).unwrap(), expected);
    }

    #[test]
    fn every_chain_gives_a_token_that_is_not_masked(
        row in logits(), top_k in 0usize..50, top_p in 0.001f32..=1.0, min_p in 0.0f32..=1.0, typical_p in 0.001f32..=1.0,
        temperature in prop_oneof![Just(0.0f32), Just(1e-38), Just(3e38), 0.1f32..3.0], seed: u64, position in 0usize..1_000_000,
    ) {
        let options = SamplerOptions { top_k, top_p, min_p, typical_p, temperature, seed, ..SamplerOptions::default() };
        let mut sampler = Sampler::new(&options, row.len()).unwrap();
        let token = sampler.sample(&mut row.clone(), position).unwrap();
        prop_assert!(row[token as usize] > f32::NEG_INFINITY);
        // The same question has the same answer, whatever was asked in between.
        let _ = sampler.sample(&mut row.clone(), position + 1).unwrap();
        prop_assert_eq!(sampler.sample(&mut row.clone(), position).unwrap(), token);
    }
}

#[test]
fn bias_is_added_and_forbids() {
    let options = SamplerOptions { logit_bias: vec![(1, 2.5), (3, f32::NEG_INFINITY), (0, f32::MAX)], ..off() };
    let kept = left(made(logit_bias::stage, &options, 4), &[f32::MAX, -1.0, 0.0, 9.0]);
    assert_eq!(kept, [(0, f32::MAX), (1, 1.5), (2, 0.0)], "biases as given, the forbidden token gone, no overflow");
}

#[test]
fn all_that_is_kept_by_rounding_stays() {
    // 0.999_999_94 is the largest f32 below one: the tail of tiny probabilities is cut, the large ones stay.
    let options = SamplerOptions { top_p: 1.0 - f32::EPSILON / 2.0, ..off() };
    assert_eq!(ids(&left(made(top_p::stage, &options, 3), &[0.0, 0.0, -60.0])), [0, 1]);
    assert_eq!(ids(&left(made(top_p::stage, &options, 3), &[0.0, 0.0, 0.0])), [0, 1, 2]);
}
