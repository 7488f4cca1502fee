//! Stages that look at the tokens before, beside small implementations of the same thing.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::*;
use crate::sampler::token_strings::TokenStrings;

/// Tokens of a small vocabulary, some of which hold `\n` or a part of `--`.
const TEXTS: [&str; 8] = ["a", "b", "c", "\n", "b\nc", "-", "a-", "--x"];

fn breakers(strings: &[String]) -> DryBreakers {
    let bytes = |token: u32| Ok(Cow::Borrowed(TEXTS[token as usize].as_bytes()));
    let strings = TokenStrings::new("dry_sequence_breakers", strings, TEXTS.len(), bytes).unwrap();
    DryBreakers { strings: Some(Arc::new(strings)) }
}

/// The penalties by definition: every earlier end of what the text ends with, token by token.
fn dry_by_definition(options: &SamplerOptions, tokens: &[u32]) -> HashMap<u32, f64> {
    let text = |tokens: &[u32]| -> String { tokens.iter().map(|&t| TEXTS[t as usize]).collect() };
    let window = &tokens[tokens.len().saturating_sub(options.dry_penalty_last_n)..];
    let breaks = |end: usize| {
        let (before, upto) = (text(&tokens[..end - 1]), text(&tokens[..end]));
        let ends = before.len() + 1..=upto.len();
        ends.into_iter().any(|at| options.dry_sequence_breakers.iter().any(|s| upto[..at].ends_with(s.as_str())))
    };
    let unbroken = (1..=tokens.len()).rev().take_while(|&end| !breaks(end)).count();
    let mut penalties = HashMap::new();
    if window.len() <= options.dry_allowed_length {
        return penalties;
    }
    for end in 1..window.len() {
        let same = (0..end).take_while(|&back| window[end - 1 - back] == window[window.len() - 1 - back]).count();
        let length = same.min(unbroken);
        let next = window[end];
        let holds = options.dry_sequence_breakers.iter().any(|s| TEXTS[next as usize].contains(s.as_str()));
        if length >= options.dry_allowed_length && !holds {
            let exponent = (length - options.dry_allowed_length) as i32;
            let penalty = f64::from(options.dry_multiplier) * f64::from(options.dry_base).powi(exponent);
            let entry = penalties.entry(next).or_insert(penalty);
            *entry = penalty.max(*entry);
        }
    }
    penalties
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn dry_is_its_definition(
        tokens in prop_oneof![prop::collection::vec(0u32..8, 0..60), prop::collection::vec(0u32..3, 0..60)],
        strings in prop::sample::subsequence(vec!["\n", "--", "c", "-a"], 0..3),
        multiplier in 0.1f32..3.0, base in 1.0f32..2.0, allowed in 0usize..4, last_n in prop_oneof![1usize..30, Just(usize::MAX)],
    ) {
        let options = SamplerOptions {
            dry_multiplier: multiplier, dry_base: base, dry_allowed_length: allowed, dry_penalty_last_n: last_n,
            dry_sequence_breakers: strings.into_iter().map(str::to_owned).collect(), ..off()
        };
        let breakers = breakers(&options.dry_sequence_breakers);
        let mut stage = dry::stage(&Setup { options: &options, vocab: 8, breakers: &breakers }).unwrap().unwrap();
        tokens.iter().for_each(|&token| stage.accept(token, None));
        let expected = dry_by_definition(&options, &tokens);
        for (id, logit) in left(Ok(Some(stage)), &[0.0; 8]) {
            let expected = -expected.get(&id).copied().unwrap_or(0.0);
            prop_assert!((f64::from(logit) - expected).abs() <= 1e-6 * expected.abs(), "token {}: {} is not {}", id, logit, expected);
        }
    }
}

#[test]
fn dry_of_a_long_loop_stays_finite() {
    let options = SamplerOptions { dry_multiplier: 0.8, dry_sequence_breakers: Vec::new(), temperature: 0.0, ..off() };
    let mut sampler = Sampler::new(&options, 3).unwrap();
    // A prompt may have tokens that have no logit.
    (0..20_000).for_each(|at| sampler.accept([0, 1, 9][at % 3]));
    let mut row = [f32::MIN, 2.0, -1e30];
    assert_eq!(sampler.sample(&mut row, 0).unwrap(), 1);
    assert_eq!(row[0], f32::MIN, "1.75 to the power of 20000 is above every number");
}

#[test]
fn dry_needs_its_breakers() {
    let options = SamplerOptions { dry_multiplier: 0.8, ..off() };
    assert!(matches!(Sampler::new(&options, 3), Err(Error::Internal(_))));
    options.validate(3).unwrap();
    Sampler::with_breakers(&options, 3, &breakers(&options.dry_sequence_breakers)).unwrap();
    let unnamed = SamplerOptions { chain: Some(Vec::new()), ..options };
    Sampler::new(&unnamed, 3).unwrap();
}

/// Mirostat written after llama.cpp's description, with the standard library: the tokens of one answer.
fn mirostat_by_definition(options: &SamplerOptions, rows: &[Vec<f32>]) -> Vec<u32> {
    let mut mu = 2.0 * f64::from(options.mirostat_tau);
    let mut tokens = Vec::new();
    for (position, row) in rows.iter().enumerate() {
        let scaled: Vec<f32> = row.iter().map(|l| l / options.temperature).collect();
        let p = softmax(&scaled);
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|&a, &b| p[b].total_cmp(&p[a]).then(a.cmp(&b)));
        let keep = if options.mirostat == 1 {
            let (mut products, mut squares) = (0.0, 0.0);
            for i in 0..99.min(row.len() - 1) {
                let step = ((i + 2) as f64 / (i + 1) as f64).ln();
                products += step * (p[order[i]] / p[order[i + 1]]).ln();
                squares += step * step;
            }
            let s = products / squares;
            let epsilon = s - 1.0;
            let k = (epsilon * 2f64.powf(mu) / (1.0 - (row.len() as f64).powf(-epsilon))).powf(1.0 / s);
            (k as usize).max(1)
        } else {
            order.iter().take_while(|&&i| -p[i].log2() <= mu).count().max(1)
        };
        let mut kept: Vec<usize> = order.into_iter().take(keep).collect();
        kept.sort_unstable();
        let mass: f64 = kept.iter().map(|&i| p[i]).sum();
        let mut reached = 0.0;
        let chosen = kept.into_iter().find(|&i| {
            reached += p[i] / mass;
            reached > philox::uniform(options.seed, position as u64)
        });
        let chosen = chosen.unwrap();
        mu -= f64::from(options.mirostat_eta) * (-(p[chosen] / mass).log2() - f64::from(options.mirostat_tau));
        tokens.push(chosen as u32);
    }
    tokens
}

/// A falling row of logits whose order depends on the position, without ties.
fn falling(position: u64, n: u64) -> Vec<f32> {
    (0..n)
        .map(|id| philox::uniform(position + 1000, id))
        .map(|u| -(((1.0 - u) * n as f64 + 1.0).ln()) as f32 * 1.3)
        .collect()
}

#[test]
fn mirostat_is_its_description() {
    let rows: Vec<Vec<f32>> = (0..60).map(|position| falling(position, 700)).collect();
    let mut changed = 0;
    for mirostat in [1, 2] {
        for (tau, eta, temperature) in [(5.0, 0.1, 1.0), (3.0, 0.5, 0.8), (1.0, 0.3, 1.5), (8.0, 0.2, 1.0)] {
            for seed in 0..4 {
                let options = SamplerOptions {
                    mirostat,
                    mirostat_tau: tau,
                    mirostat_eta: eta,
                    temperature,
                    seed,
                    top_k: 5,
                    top_p: 0.5,
                    ..off()
                };
                let mut sampler = Sampler::new(&options, 700).unwrap();
                let tokens: Vec<u32> = (0..)
                    .zip(&rows)
                    .map(|(position, row)| {
                        // Asked twice, and in between about another position: only what is accepted counts.
                        let first = sampler.sample(&mut row.clone(), position).unwrap();
                        sampler.sample(&mut row.clone(), position + 1).unwrap();
                        let token = sampler.sample(&mut row.clone(), position).unwrap();
                        assert_eq!(first, token);
                        sampler.accept(token);
                        token
                    })
                    .collect();
                assert_eq!(
                    tokens,
                    mirostat_by_definition(&options, &rows),
                    "mirostat {mirostat}, tau {tau}, seed {seed}"
                );
                // The test could fail: without learning the tokens are others.
                let still = SamplerOptions { mirostat_eta: 0.0, ..options };
                changed += usize::from(tokens != mirostat_by_definition(&still, &rows));
            }
        }
    }
    assert!(changed > 16, "{changed} of 32");
}

#[test]
fn mirostat_learns_from_drawn_tokens_only() {
    let options = SamplerOptions { mirostat: 2, mirostat_tau: 2.0, mirostat_eta: 1.0, ..off() };
    let row: Vec<f32> = falling(1, 300);
    let kept = |sampler: &mut Sampler| {
        let mut row = row.clone();
        let mut candidates = Candidates::new(&mut row, Vec::new());
        sampler.chain.iter_mut().for_each(|stage| stage.apply(&mut candidates, 0));
        candidates.list().len()
    };
    let mut sampler = Sampler::new(&options, 300).unwrap();
    let before = kept(&mut sampler);
    (0..50).for_each(|token| sampler.accept(token));
    assert_eq!(kept(&mut sampler), before, "a prompt");
    let token = sampler.sample(&mut row.clone(), 0).unwrap();
    sampler.accept(token + 1);
    sampler.accept(token);
    assert_eq!(kept(&mut sampler), before, "another token than the one that was drawn");
    let token = sampler.sample(&mut row.clone(), 0).unwrap();
    sampler.accept(token);
    assert_ne!(kept(&mut sampler), before);
}

/// The mean surprise of what is drawn comes near the target, which a fixed cut does not do.
#[test]
fn mirostat_reaches_its_target() {
    for mirostat in [1, 2] {
        for tau in [2.0f32, 4.0] {
            let options = SamplerOptions { mirostat, mirostat_tau: tau, mirostat_eta: 0.1, ..off() };
            let mut sampler = Sampler::new(&options, 2000).unwrap();
            let mut surprise = 0.0;
            for position in 0..600 {
                let row = falling(position, 2000);
                let token = sampler.sample(&mut row.clone(), position as usize).unwrap();
                let drawn = sampler.drawn.unwrap();
                assert_eq!(drawn.0, token);
                surprise -= drawn.1.log2();
                sampler.accept(token);
            }
            assert!(
                (surprise / 600.0 - f64::from(tau)).abs() < 0.3,
                "mirostat {mirostat}, {tau}: {}",
                surprise / 600.0
            );
        }
    }
}
