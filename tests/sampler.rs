//! The sampler from outside: draws, distributions, limits of the options, speed.

mod tokenizer_support;

#[cfg(unix)]
use std::time::Duration;

use fastq_core::Error;
use fastq_core::sampler::philox::{philox4x32_10, uniform};
use fastq_core::sampler::{
    BannedStrings, DryBreakers, Sampler, SamplerOptions, StageName, TokenLogprobs, dry_breakers,
};
use fastq_core::tokenizer::Tokenizer;
use tokenizer_support::{bpe, spm};

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
    let cases: [(&str, SamplerOptions, [f64; 5]); 9] = [
        ("plain", plain.clone(), [0.5, 0.25, 0.125, 0.0625, 0.0625]),
        ("temperature 0.5 squares", SamplerOptions { temperature: 0.5, ..plain.clone() }, {
            let squares = [0.25, 0.0625, 0.015_625, 0.003_906_25, 0.003_906_25f64];
            squares.map(|s| s / squares.iter().sum::<f64>())
        }),
        ("top-k 2", SamplerOptions { top_k: 2, ..plain.clone() }, [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0, 0.0]),
        ("top-p 0.8", SamplerOptions { top_p: 0.8, ..plain.clone() }, [4.0 / 7.0, 2.0 / 7.0, 1.0 / 7.0, 0.0, 0.0]),
        ("min-p 0.4", SamplerOptions { min_p: 0.4, ..plain.clone() }, [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0, 0.0]),
        (
            // 0.5 and 0.25 reach the threshold; of them 0.25 stays when they are dropped.
            "xtc one time in four",
            SamplerOptions { xtc_probability: 0.25, xtc_threshold: 0.2, ..plain.clone() },
            [0.375, 0.3125, 0.15625, 0.078_125, 0.078_125],
        ),
        (
            // In units of ln 2 the logits are -1, -2, -3, -4, -4, their standard deviation is 1.166.
            "top-n-sigma 1",
            SamplerOptions { top_n_sigma: 1.0, ..plain.clone() },
            [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0, 0.0],
        ),
        (
            // Top-k comes before the temperature, which squares what is left.
            "a chain of two",
            SamplerOptions {
                chain: Some(vec![StageName::TopK, StageName::Temperature]),
                top_k: 2,
                temperature: 0.5,
                top_p: 0.1,
                min_p: 1.0,
                ..plain.clone()
            },
            [0.8, 0.2, 0.0, 0.0, 0.0],
        ),
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
        ("top_n_sigma", SamplerOptions { top_n_sigma: f32::NAN, ..d() }),
        ("top_n_sigma", SamplerOptions { top_n_sigma: f32::INFINITY, ..d() }),
        ("xtc_probability", SamplerOptions { xtc_probability: 1.1, ..d() }),
        ("xtc_probability", SamplerOptions { xtc_probability: f32::NAN, ..d() }),
        ("xtc_threshold", SamplerOptions { xtc_threshold: -0.1, ..d() }),
        ("xtc_threshold", SamplerOptions { xtc_threshold: f32::NAN, ..d() }),
        ("dynatemp_range", SamplerOptions { dynatemp_range: -0.1, ..d() }),
        ("dynatemp_range", SamplerOptions { dynatemp_range: f32::NAN, ..d() }),
        ("dynatemp_exponent", SamplerOptions { dynatemp_exponent: -1.0, ..d() }),
        ("dynatemp_exponent", SamplerOptions { dynatemp_exponent: f32::NAN, ..d() }),
        ("mirostat ", SamplerOptions { mirostat: 3, ..d() }),
        ("mirostat_tau", SamplerOptions { mirostat_tau: f32::NAN, ..d() }),
        ("mirostat_tau", SamplerOptions { mirostat_tau: -1.0, ..d() }),
        ("mirostat_eta", SamplerOptions { mirostat_eta: f32::INFINITY, ..d() }),
        ("dry_multiplier", SamplerOptions { dry_multiplier: -0.1, ..d() }),
        ("dry_multiplier", SamplerOptions { dry_multiplier: f32::NAN, ..d() }),
        ("dry_base", SamplerOptions { dry_base: 0.9, ..d() }),
        ("dry_base", SamplerOptions { dry_base: f32::NAN, ..d() }),
        ("dry_sequence_breakers", SamplerOptions { dry_sequence_breakers: vec![String::new()], ..d() }),
        ("chain", SamplerOptions { chain: Some(vec![StageName::TopK, StageName::Xtc, StageName::TopK]), ..d() }),
        ("repeat_penalty", SamplerOptions { repeat_penalty: 0.0, ..d() }),
        ("repeat_penalty", SamplerOptions { repeat_penalty: f32::NAN, ..d() }),
        ("presence_penalty", SamplerOptions { presence_penalty: f32::INFINITY, ..d() }),
        ("frequency_penalty", SamplerOptions { frequency_penalty: f32::NAN, ..d() }),
        ("logit_bias", SamplerOptions { logit_bias: vec![(10, 1.0)], ..d() }),
        ("logit_bias", SamplerOptions { logit_bias: vec![(0, f32::NAN)], ..d() }),
        ("logit_bias", SamplerOptions { logit_bias: vec![(0, f32::INFINITY)], ..d() }),
    ];
    for (option, options) in cases {
        // Also at temperature 0, and without the stage, where it is left out.
        let greedy = SamplerOptions { temperature: 0.0, ..options.clone() };
        let unnamed = SamplerOptions { chain: options.chain.clone().or(Some(Vec::new())), ..options.clone() };
        let both = if option == "temperature" { vec![options, unnamed] } else { vec![options, greedy, unnamed] };
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
        SamplerOptions { top_k: 0, top_n_sigma: 1.0, xtc_probability: 1.0, ..SamplerOptions::default() },
        SamplerOptions { top_k: 0, dynatemp_range: 0.5, ..SamplerOptions::default() },
        SamplerOptions { mirostat: 1, ..SamplerOptions::default() },
        SamplerOptions { mirostat: 2, ..SamplerOptions::default() },
        SamplerOptions {
            repeat_penalty: 1.1,
            chain: Some(StageName::ALL.iter().rev().copied().collect()),
            ..SamplerOptions::default()
        },
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

/// DRY takes time that is linear in the text, also of a text that repeats itself in every way.
#[cfg(unix)]
#[test]
fn dry_is_not_quadratic() {
    let options =
        SamplerOptions { dry_multiplier: 0.8, dry_sequence_breakers: Vec::new(), ..SamplerOptions::default() };
    for (name, period) in [("one token", 1), ("two", 2), ("long", 997)] {
        let time = |n: u32| {
            let mut sampler = Sampler::new(&options, 1000).unwrap();
            (0..n).for_each(|at| sampler.accept(at % period));
            let rounds = (0..3).map(|round| {
                let start = thread_time();
                sampler.sample(&mut [0.0; 1000], round).unwrap();
                thread_time() - start
            });
            rounds.min().unwrap().as_secs_f64()
        };
        let (small, large) = (time(2048).max(20e-6), time(131_072));
        assert!(large < small * 64.0 * 16.0, "{name}: {small} s for 2048 tokens, {large} s for 131072");
    }
}

/// A greedy answer of random rows, with strings banned; the text of every token comes from the tokenizer.
fn banned_answer(tokenizer: &Tokenizer, strings: &[&str], special: bool, n: u64) -> (Vec<u32>, String) {
    let strings: Vec<String> = strings.iter().map(|&s| s.to_owned()).collect();
    let mut banned = BannedStrings::new(tokenizer, &strings, special).unwrap();
    let mut sampler = Sampler::new(&SamplerOptions::greedy(), tokenizer.vocab_size()).unwrap();
    let mut tokens = Vec::new();
    for position in 0..n {
        let mut logits = row(tokenizer.vocab_size(), position);
        banned.mask(&mut logits);
        let token = sampler.sample(&mut logits, position as usize).unwrap();
        // A clone has the state of the answer, and what becomes of it does not change the original.
        banned.clone().accept(0);
        banned.accept(token);
        tokens.push(token);
    }
    let mut detokenizer = tokenizer.continuation(special);
    let mut text: String = tokens.iter().map(|&token| detokenizer.push(token).unwrap()).collect();
    text += &detokenizer.finish();
    (tokens, text)
}

/// Nothing but what completes a banned string is masked, and that always is: each token is the best one whose text is allowed.
#[test]
fn banned_strings_never_come_up() {
    for tokenizer in [bpe("gpt-2").tokenizer().unwrap(), spm().tokenizer().unwrap()] {
        let (_, free) = banned_answer(&tokenizer, &[], false, 300);
        // What came up: one character, two over a border of tokens, and a longer stretch.
        let at = |chars: usize, n: usize| -> String { free.chars().skip(chars).take(n).collect() };
        let usable = |s: &&String| !s.contains(char::REPLACEMENT_CHARACTER);
        let strings: Vec<String> =
            (0..free.chars().count() - 9).step_by(3).flat_map(|c| [at(c, 2), at(c, 5), at(c, 9)]).collect();
        let strings: Vec<&str> = strings.iter().filter(usable).map(String::as_str).take(60).collect();
        assert!(strings.len() > 20 && strings.iter().all(|s| free.contains(s)));
        let (tokens, text) = banned_answer(&tokenizer, &strings, false, 300);
        let found = |text: &str| strings.iter().any(|s| text.contains(s));
        assert!(!found(&text), "{text:?}");
        let decode = |tokens: &[u32]| -> Vec<u8> {
            tokens
                .iter()
                .filter(|&&t| !tokenizer.is_end_of_generation(t))
                .flat_map(|&t| tokenizer.token_bytes(t, false).unwrap().into_owned())
                .collect()
        };
        for (position, &token) in tokens.iter().enumerate() {
            let logits = row(tokenizer.vocab_size(), position as u64);
            let before = |id: usize| {
                logits[id] > logits[token as usize] || (logits[id] == logits[token as usize] && id < token as usize)
            };
            for id in (0..logits.len()).filter(|&id| before(id)) {
                let bytes = decode(&[&tokens[..position], &[id as u32]].concat());
                let holds = |s: &str| bytes.windows(s.len()).any(|window| window == s.as_bytes());
                assert!(strings.iter().any(|s| holds(s)), "token {id} was allowed at {position}");
            }
        }
    }
}

#[test]
fn banned_strings_that_cannot_be() {
    let tokenizer = spm().tokenizer().unwrap();
    let error = |string: &str| {
        let strings = ["a".to_owned(), string.to_owned()];
        BannedStrings::new(&tokenizer, &strings, false).unwrap_err().to_string()
    };
    assert!(error("").contains("banned[1] is empty"));
    assert!(error("a\u{fffd}").contains("banned[1] has U+FFFD"));
    assert!(error(&"a".repeat(1000)).contains("banned[1] must have at most 256 bytes, got 1000"));
}

/// Control tokens are part of a text only where they are shown; those that end an answer never are.
#[test]
fn banned_strings_and_control_tokens() {
    let tokenizer = spm().tokenizer().unwrap();
    let bos = tokenizer.bos().unwrap();
    let eos = tokenizer.eos().unwrap();
    let names: Vec<String> = [bos, eos].map(|id| tokenizer.token_text(id).unwrap().into_owned()).to_vec();
    for (special, masked) in [(false, false), (true, true)] {
        let banned = BannedStrings::new(&tokenizer, &names, special).unwrap();
        let mut logits = vec![0.0; tokenizer.vocab_size()];
        banned.mask(&mut logits);
        assert_eq!(logits[bos as usize] == f32::NEG_INFINITY, masked);
        assert_eq!(logits[eos as usize], 0.0);
    }
}

/// The breaker may be spread over tokens, and counts however it is spelled.
#[test]
fn dry_breakers_of_a_tokenizer() {
    let tokenizer = bpe("gpt-2").tokenizer().unwrap();
    let id = |text: &str| tokenizer.token_id(text).unwrap();
    let options = SamplerOptions { dry_multiplier: 50.0, temperature: 0.0, ..SamplerOptions::default() };
    let chosen = |breakers: &[&str], text: &[u32]| {
        let strings: Vec<String> = breakers.iter().map(|&s| s.to_owned()).collect();
        let breakers = dry_breakers(&tokenizer, &strings).unwrap();
        let mut sampler = Sampler::with_breakers(&options, tokenizer.vocab_size(), &breakers).unwrap();
        text.iter().for_each(|&token| sampler.accept(token));
        let mut logits = vec![0.0; tokenizer.vocab_size()];
        logits[id("c") as usize] = 9.0;
        sampler.sample(&mut logits, text.len()).unwrap()
    };
    let [a, b, c, x] = ["a", "b", "c", "x"].map(id);
    let text = [a, b, c, x, a, b];
    assert_ne!(chosen(&[], &text), c, "c would repeat a b c");
    assert_ne!(chosen(&["\n"], &text), c);
    assert_eq!(chosen(&["b"], &text), c, "nothing is repeated since b");
    assert_eq!(chosen(&["ab"], &text), c, "nor since a b");
    assert_eq!(chosen(&["c"], &text), c, "c is a breaker");
    assert_ne!(chosen(&["x"], &text), c, "what is repeated began behind x");
    let off = DryBreakers::of(&SamplerOptions::default(), &tokenizer).unwrap();
    assert!(Sampler::with_breakers(&SamplerOptions::default(), 10, &off).is_ok());
    let bad = SamplerOptions { dry_sequence_breakers: vec![String::new()], ..options };
    assert!(
        DryBreakers::of(&bad, &tokenizer).unwrap_err().to_string().starts_with("dry_sequence_breakers[0] is empty")
    );
}

/// The answers of the new stages, to the token: they may not change with machine, level or version.
#[test]
fn golden_stages() {
    let plain =
        SamplerOptions { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 5, ..SamplerOptions::default() };
    let cases: Vec<(&str, SamplerOptions, [u32; 8])> = vec![
        (
            "top-n-sigma",
            SamplerOptions { top_n_sigma: 1.5, ..plain.clone() },
            [2251, 1297, 2761, 2027, 2065, 1745, 2882, 2027],
        ),
        (
            "xtc",
            SamplerOptions { top_k: 30, xtc_probability: 0.6, xtc_threshold: 0.02, ..plain.clone() },
            [165, 1685, 225, 2997, 225, 749, 1345, 2369],
        ),
        (
            "dynamic",
            SamplerOptions { top_k: 100, dynatemp_range: 0.9, dynatemp_exponent: 1.7, ..plain.clone() },
            [667, 694, 1838, 1084, 1293, 1482, 2289, 1017],
        ),
        (
            "mirostat 1",
            SamplerOptions { mirostat: 1, mirostat_tau: 3.0, mirostat_eta: 0.5, ..plain.clone() },
            [2737, 1324, 2737, 2027, 2649, 1901, 2737, 2027],
        ),
        (
            "mirostat 2",
            SamplerOptions { mirostat: 2, mirostat_tau: 3.0, mirostat_eta: 0.5, ..plain.clone() },
            [2737, 1324, 2737, 2027, 2251, 1950, 2737, 2027],
        ),
        (
            "dry",
            SamplerOptions {
                dry_multiplier: 3.0,
                dry_allowed_length: 1,
                dry_sequence_breakers: Vec::new(),
                top_k: 4,
                ..plain.clone()
            },
            [1866, 2027, 2649, 1324, 1866, 1576, 2649, 1576],
        ),
    ];
    for (name, options, expected) in cases {
        let mut sampler = Sampler::new(&options, 3000).unwrap();
        let tokens: Vec<u32> = (0..8)
            .map(|position| {
                let token = sampler.sample(&mut row(3000, position % 2), position as usize).unwrap();
                sampler.accept(token);
                token
            })
            .collect();
        assert_eq!(tokens, expected, "{name}");
    }
    let logprobs = TokenLogprobs::of(&row(3000, 1), 7, 2);
    let bits: Vec<(u32, u32)> = logprobs.top.iter().map(|top| (top.0, top.1.to_bits())).collect();
    assert_eq!((logprobs.logprob.to_bits(), bits), (0xc13c_610c, vec![(2027, 3_225_125_936), (1324, 3_227_747_376)]));
}
