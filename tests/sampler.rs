//! The sampler from outside: draws, distributions, limits of the options, speed.

#[cfg(unix)]
use std::time::Duration;

use fastq_core::Error;
use fastq_core::sampler::philox::{philox4x32_10, uniform};
use fastq_core::sampler::{Sampler, SamplerOptions};

/// The known answers that the authors publish with Random123 (`kat_vectors`).
#[test]
fn philox_gives_the_published_answers() {
    let cases: [([u32; 4], [u32; 2], [u32; 4]); 3] = [
        ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
        ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
        (
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        ),
    ];
    for (counter, key, expected) in cases {
        assert_eq!(philox4x32_10(counter, key), expected, "counter {counter:x?}, key {key:x?}");
    }
}

#[test]
fn uniform_numbers_are_uniform() {
    let mut bins = [0u32; 64];
    for position in 0..64_000 {
        let u = uniform(7, position);
        assert!((0.0..1.0).contains(&u));
        bins[(u * 64.0) as usize] += 1;
    }
    // Chi-square with 63 degrees of freedom: 103.4 is the 0.999 quantile; seed and count are fixed.
    let chi: f64 = bins.iter().map(|&n| (f64::from(n) - 1000.0).powi(2) / 1000.0).sum();
    assert!(chi < 103.4, "chi-square {chi}");
}

/// How often each token is drawn at positions 0..n.
fn frequencies(options: &SamplerOptions, logits: &[f32], n: usize) -> Vec<f64> {
    let mut sampler = Sampler::new(options, logits.len()).unwrap();
    let mut counts = vec![0usize; logits.len()];
    for position in 0..n {
        counts[sampler.sample(&mut logits.to_vec(), position).unwrap() as usize] += 1;
    }
    counts.iter().map(|&c| c as f64 / n as f64).collect()
}

#[test]
fn draws_follow_the_probabilities() {
    let plain = SamplerOptions { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..SamplerOptions::default() };
    let logits = [0.5f32, 0.25, 0.125, 0.0625, 0.0625].map(f32::ln);
    let n = 100_000;
    let cases: [(&str, SamplerOptions, [f64; 5]); 6] = [
        ("plain", plain.clone(), [0.5, 0.25, 0.125, 0.0625, 0.0625]),
        ("temperature 0.5 squares", SamplerOptions { temperature: 0.5, ..plain.clone() }, {
            let squares = [0.25, 0.0625, 0.015_625, 0.003_906_25, 0.003_906_25f64];
            squares.map(|s| s / squares.iter().sum::<f64>())
        }),
        ("top-k 2", SamplerOptions { top_k: 2, ..plain.clone() }, [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0, 0.0]),
        ("top-p 0.8", SamplerOptions { top_p: 0.8, ..plain.clone() }, [4.0 / 7.0, 2.0 / 7.0, 1.0 / 7.0, 0.0, 0.0]),
        ("min-p 0.4", SamplerOptions { min_p: 0.4, ..plain.clone() }, [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0, 0.0]),
        (
            "bias forbids the first",
            SamplerOptions { logit_bias: vec![(0, f32::NEG_INFINITY)], ..plain.clone() },
            [0.0, 0.5, 0.25, 0.125, 0.125],
        ),
    ];
    for (name, options, expected) in cases {
        for seed in [1, 0xDEAD_BEEF_0123_4567] {
            let got = frequencies(&SamplerOptions { seed, ..options.clone() }, &logits, n);
            for (token, (got, expected)) in got.iter().zip(expected).enumerate() {
                // Four standard deviations; nothing at all where the probability is zero.
                let deviation = 4.0 * (expected * (1.0 - expected) / n as f64).sqrt();
                assert!((got - expected).abs() <= deviation, "{name}, token {token}: {got} is not {expected}");
            }
        }
    }
}

#[test]
fn seeds_and_positions_differ() {
    let logits = [0.0f32; 1000];
    let options = |seed| SamplerOptions { seed, top_k: 0, ..SamplerOptions::default() };
    let run = |seed| -> Vec<u32> {
        let mut sampler = Sampler::new(&options(seed), 1000).unwrap();
        (0..20).map(|position| sampler.sample(&mut logits.to_vec(), position).unwrap()).collect()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    assert_ne!(run(1), run(1 << 40), "the upper half of the seed counts");
    assert!(run(1).iter().any(|&t| t != run(1)[0]));
}

#[test]
fn options_out_of_range_are_named() {
    let d = SamplerOptions::default;
    let cases: Vec<(&str, SamplerOptions)> = vec![
        ("temperature", SamplerOptions { temperature: -0.1, ..d() }),
        ("temperature", SamplerOptions { temperature: f32::NAN, ..d() }),
        ("temperature", SamplerOptions { temperature: f32::INFINITY, ..d() }),
        ("top_p", SamplerOptions { top_p: 0.0, ..d() }),
        ("top_p", SamplerOptions { top_p: 1.01, ..d() }),
        ("top_p", SamplerOptions { top_p: f32::NAN, ..d() }),
        ("min_p", SamplerOptions { min_p: -0.1, ..d() }),
        ("min_p", SamplerOptions { min_p: 1.1, ..d() }),
        ("min_p", SamplerOptions { min_p: f32::NAN, ..d() }),
        ("typical_p", SamplerOptions { typical_p: 0.0, ..d() }),
        ("typical_p", SamplerOptions { typical_p: f32::NAN, ..d() }),
        ("repeat_penalty", SamplerOptions { repeat_penalty: 0.0, ..d() }),
        ("repeat_penalty", SamplerOptions { repeat_penalty: f32::NAN, ..d() }),
        ("presence_penalty", SamplerOptions { presence_penalty: f32::INFINITY, ..d() }),
        ("frequency_penalty", SamplerOptions { frequency_penalty: f32::NAN, ..d() }),
        ("logit_bias", SamplerOptions { logit_bias: vec![(10, 1.0)], ..d() }),
        ("logit_bias", SamplerOptions { logit_bias: vec![(0, f32::NAN)], ..d() }),
        ("logit_bias", SamplerOptions { logit_bias: vec![(0, f32::INFINITY)], ..d() }),
    ];
    for (option, options) in cases {
        // Also at temperature 0, where the stage itself is left out.
        let greedy = SamplerOptions { temperature: 0.0, ..options.clone() };
        let both = if option == "temperature" { vec![options] } else { vec![options, greedy] };
        for options in both {
            match options.validate(10) {
                Err(Error::Argument(message)) => assert!(message.starts_with(option), "{message}"),
                other => panic!("{option}: {other:?} for {options:?}"),
            }
        }
    }
    d().validate(10).unwrap();
}

#[test]
fn damaged_logits_are_refused_and_masked_ones_are_not_chosen() {
    for options in [SamplerOptions::greedy(), SamplerOptions::default()] {
        let mut sampler = Sampler::new(&options, 1000).unwrap();
        for bad in [f32::NAN, f32::INFINITY] {
            for at in [0, 255, 256, 999] {
                let mut logits = vec![0.0; 1000];
                logits[at] = bad;
                let error = sampler.sample(&mut logits, 0).unwrap_err();
                assert!(matches!(&error, Error::NotFinite(m) if m.contains(&format!("token {at} "))), "{error}");
            }
        }
        let mut masked = vec![f32::NEG_INFINITY; 1000];
        assert!(matches!(sampler.sample(&mut masked.clone(), 0), Err(Error::NotFinite(_))));
        masked[700] = -1e30;
        assert_eq!(sampler.sample(&mut masked, 0).unwrap(), 700);
        assert!(matches!(sampler.sample(&mut [0.0; 10], 0), Err(Error::Internal(_))));
    }
    let options = SamplerOptions { logit_bias: vec![(0, f32::NEG_INFINITY)], ..SamplerOptions::default() };
    let mut sampler = Sampler::new(&options, 1).unwrap();
    let error = sampler.sample(&mut [1.0], 0).unwrap_err();
    assert!(error.to_string().contains("logit_bias"), "{error}");
}

#[test]
fn penalties_discourage_what_was_accepted() {
    let options = SamplerOptions { presence_penalty: 1.0, repeat_last_n: 2, ..SamplerOptions::greedy() };
    let mut sampler = Sampler::new(&options, 3).unwrap();
    let logits = [1.0, 0.5, 0.2];
    assert_eq!(sampler.sample(&mut logits.to_vec(), 0).unwrap(), 0);
    sampler.accept(0);
    assert_eq!(sampler.sample(&mut logits.to_vec(), 1).unwrap(), 1);
    sampler.accept(1);
    assert_eq!(sampler.sample(&mut logits.to_vec(), 2).unwrap(), 2);
    sampler.accept(2);
    assert_eq!(sampler.sample(&mut logits.to_vec(), 3).unwrap(), 0, "the first token left the window of two");
}

/// Processor time of this thread: the clock on the wall also counts what other processes do.
#[cfg(unix)]
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a valid struct.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) }, 0);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

/// Every chain is linear in the vocabulary: 64 times the tokens take far less than 64² times the time.
#[cfg(unix)]
#[test]
fn no_chain_is_quadratic() {
    let chains = [
        SamplerOptions::default(),
        SamplerOptions { top_k: 0, top_p: 1.0, min_p: 0.0, ..SamplerOptions::default() },
        SamplerOptions { top_k: 0, top_p: 0.999, ..SamplerOptions::default() },
        SamplerOptions { top_k: 0, typical_p: 0.9, ..SamplerOptions::default() },
        SamplerOptions { top_k: 200_000, ..SamplerOptions::default() },
    ];
    for options in chains {
        for (name, value) in [("equal", 0.0), ("rising", 1e-4), ("falling", -1e-4f32)] {
            let time = |n: usize| {
                let logits: Vec<f32> = (0..n).map(|i| i as f32 * value).collect();
                let mut sampler = Sampler::new(&options, n).unwrap();
                let rounds = (0..3).map(|round| {
                    let mut logits = logits.clone();
                    let start = thread_time();
                    sampler.sample(&mut logits, round).unwrap();
                    thread_time() - start
                });
                rounds.min().unwrap().as_secs_f64()
            };
            let (small, large) = (time(4096).max(20e-6), time(262_144));
            assert!(
                large < small * 64.0 * 16.0,
                "{name}: {small} s for 4096 tokens, {large} s for 262144: {options:?}"
            );
        }
    }
}

/// A row of `vocab` logits with a bell-like spread, ties included, that depends on nothing but `row`.
fn row(vocab: usize, row: u64) -> Vec<f32> {
    let value = |token: u64| (0..4u64).map(|part| uniform(row, token * 4 + part)).sum::<f64>() * 4.0;
    // Steps of 1/64 make equal logits.
    (0..vocab as u64).map(|token| (value(token) * 64.0).round() as f32 / 64.0).collect()
}

/// The answers of chains that were there before a stage was added stay, to the token.
#[test]
fn golden_chains() {
    let d = SamplerOptions::default;
    let cases: Vec<(&str, SamplerOptions, [u32; 8])> = vec![
        ("default", d(), [165, 896, 233, 373, 2027, 2041, 2221, 254]),
        ("greedy", SamplerOptions::greedy(), [2737, 2027, 2104, 2737, 2027, 2104, 2737, 2027]),
        (
            "all",
            SamplerOptions { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..d() },
            [2717, 1302, 1777, 2251, 458, 2055, 352, 1950],
        ),
        ("typical", SamplerOptions { top_k: 0, typical_p: 0.7, ..d() }, [2544, 1122, 1384, 1991, 395, 1705, 242, 1918]),
        (
            "penalties",
            SamplerOptions {
                repeat_penalty: 1.3,
                presence_penalty: 0.5,
                frequency_penalty: 0.25,
                temperature: 1.7,
                logit_bias: vec![(7, 2.0), (8, f32::NEG_INFINITY)],
                ..d()
            },
            [134, 254, 763, 1507, 1576, 1384, 1866, 2182],
        ),
    ];
    for (name, options, expected) in cases {
        let mut sampler = Sampler::new(&SamplerOptions { seed: 11, ..options }, 3000).unwrap();
        let tokens: Vec<u32> = (0..8)
            .map(|position| {
                let token = sampler.sample(&mut row(3000, position % 3), position as usize).unwrap();
                sampler.accept(token);
                token
            })
            .collect();
        assert_eq!(tokens, expected, "{name}");
    }
}
