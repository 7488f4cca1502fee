//! The cache behind a model: windows, forks, truncation, cancellation, limits, the plan.

#[path = "model/tiny.rs"]
mod tiny;

use std::cell::Cell;

use fastq_core::generate::Kept;
use fastq_core::kv_cache::WINDOW_SLACK;
use fastq_core::{
    BatchItem, Error, Generation, GenerationOptions, KvFormat, LoadOptions, Logits, Model, Never, Prompt, Sequence,
};
use tiny::tokens;

fn options(kv: KvFormat) -> LoadOptions {
    LoadOptions { threads: Some(2), prefill_chunk: 32, kv, ..LoadOptions::default() }
}

/// A test for every format of the cache.
macro_rules! every_format {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() {
            KvFormat::ALL.iter().for_each(|&kv| in_format::$name(kv));
        }
    )* };
}

every_format! {
    a_window_keeps_only_the_window
    bytes_are_what_a_sequence_holds
    forks_share_until_they_write
    truncation_forgets
    a_window_that_is_gone_cannot_be_truncated_to
    cancelling_restores_the_sequence
    everything_is_given_back
    the_plan_is_what_is_allocated
}

fn append(model: &Model, sequence: &mut Sequence, tokens: &[u32]) -> Vec<u32> {
    let mut out = Vec::new();
    let item = BatchItem { sequence, tokens, logits: Logits::Last, out: &mut out };
    model.forward(&mut [item], &Never).expect("logits");
    out.iter().map(|x| x.to_bits()).collect()
}

fn item<'a>(sequence: &'a mut Sequence, tokens: &'a [u32], out: &'a mut Vec<f32>) -> BatchItem<'a> {
    BatchItem { sequence, tokens, logits: Logits::Last, out }
}

/// Models with recurrent layers.
fn recurrent() -> [tiny::Tiny; 2] {
    [tiny::lfm2(), tiny::qwen35()]
}

/// As [`whole`], with a model that has all its memory.
fn whole_of_fresh(tiny: &tiny::Tiny, text: &[u32]) -> Vec<u32> {
    whole(&tiny.load(&options(KvFormat::F16)).expect("loads"), text)
}

/// Logits after `text`, computed at once.
fn whole(model: &Model, text: &[u32]) -> Vec<u32> {
    append(model, &mut model.new_sequence(), text)
}

mod in_format {
    use super::*;

    pub(super) fn a_window_keeps_only_the_window(kv: KvFormat) {
        let model = tiny::gemma().load(&options(kv)).expect("loads");
        let text = tokens(1, 700);
        let mut sequence = model.new_sequence();
        let mut most = 0;
        for (index, part) in text.chunks(50).enumerate() {
            let logits = append(&model, &mut sequence, part);
            let len = (index * 50 + part.len()).min(text.len());
            assert!(logits == whole(&model, &text[..len]), "after {len} positions");
            let groups: Vec<_> = model.plan().kv.iter().map(|kv| kv.window).collect();
            for (window, pages) in groups.into_iter().zip(sequence.pages()) {
                match window {
                    None => assert_eq!(pages, len.div_ceil(64)),
                    // 20 positions of the window and the 64 before it touch at most three pages.
                    Some(_) => {
                        assert!(pages <= 3, "{pages} pages at {len}");
                        most = most.max(pages);
                    }
                }
            }
        }
        assert_eq!(most, 3);
    }

    pub(super) fn bytes_are_what_a_sequence_holds(kv: KvFormat) {
        for tiny in [tiny::llama(), tiny::gemma(), tiny::qwen35()] {
            let model = tiny.load(&options(kv)).expect("loads");
            let mut sequence = model.new_sequence();
            assert_eq!(sequence.bytes(), 0);
            append(&model, &mut sequence, &tokens(15, 70));
            assert_eq!(sequence.bytes(), model.kv_used_bytes(), "{}", tiny.architecture);
            // The state of a snapshot is shared with the sequence until it goes on.
            sequence.snapshot();
            assert_eq!(sequence.bytes(), model.kv_used_bytes());
            append(&model, &mut sequence, &[5]);
            assert_eq!(sequence.bytes(), model.kv_used_bytes());
        }
    }

    pub(super) fn forks_share_until_they_write(kv: KvFormat) {
        for tiny in [tiny::llama(), tiny::gemma(), tiny::lfm2(), tiny::qwen35()] {
            let model = tiny.load(&options(kv)).expect("loads");
            let (text, left, right) = (tokens(2, 100), tokens(3, 40), tokens(4, 40));
            let mut first = model.new_sequence();
            append(&model, &mut first, &text);
            let before = model.kv_used_bytes();
            let mut second = first.fork();
            assert_eq!(model.kv_used_bytes(), before);
            let a = append(&model, &mut first, &left);
            let b = append(&model, &mut second, &right);
            assert!(a == whole(&model, &[&text[..], &left].concat()), "{}", tiny.architecture);
            assert!(b == whole(&model, &[&text[..], &right].concat()), "{}", tiny.architecture);
            assert!(a != b);
        }
    }

    pub(super) fn truncation_forgets(kv: KvFormat) {
        let model = tiny::llama().load(&options(kv)).expect("loads");
        let (text, more) = (tokens(5, 150), tokens(6, 20));
        let mut sequence = model.new_sequence();
        append(&model, &mut sequence, &text);
        for len in [130, 128, 70, 1] {
            sequence.truncate(len).expect("shorter");
            assert_eq!((sequence.len(), sequence.pages()), (len, vec![len.div_ceil(64)]));
            let expected = whole(&model, &[&text[..len], &more].concat());
            assert!(append(&model, &mut sequence.fork(), &more) == expected, "{len}");
        }
        assert!(matches!(sequence.truncate(2), Err(Error::Argument(_))));
        sequence.truncate(0).expect("empty");
        assert!(append(&model, &mut sequence, &text) == whole(&model, &text));
    }

    pub(super) fn a_window_that_is_gone_cannot_be_truncated_to(kv: KvFormat) {
        let model = tiny::gemma().load(&options(kv)).expect("loads");
        let text = tokens(7, 300);
        let mut sequence = model.new_sequence();
        append(&model, &mut sequence, &text);
        let error = sequence.truncate(200).expect_err("positions 181.. are gone").to_string();
        assert!(error.contains("sliding window of 20") && error.contains("positions from 192 on"), "{error}");
        assert_eq!(sequence.len(), 300);
        // Position 280 sees 261 and later, which are there.
        sequence.truncate(280).expect("the window is there");
        let more = tokens(8, 30);
        assert!(append(&model, &mut sequence, &more) == whole(&model, &[&text[..280], &more].concat()));
        // Wherever it ends, it can go back by the slack, also in steps.
        for end in [310, 333, 384, 385, 447, 448] {
            let mut sequence = model.new_sequence();
            append(&model, &mut sequence, &text);
            append(&model, &mut sequence, &tokens(14, end - 300));
            let known = [&text[..], &tokens(14, end - 300)].concat();
            for len in [end - 5, end - 40, end - WINDOW_SLACK] {
                assert_eq!(sequence.truncate(len).expect("within the slack"), len);
                let expected = whole(&model, &[&known[..len], &more].concat());
                assert!(append(&model, &mut sequence.fork(), &more) == expected, "{end} to {len}");
            }
        }
        sequence.truncate(0).expect("empty is always possible");
        assert!(append(&model, &mut sequence, &text) == whole(&model, &text));
    }

    pub(super) fn cancelling_restores_the_sequence(kv: KvFormat) {
        for tiny in [tiny::llama(), tiny::gemma(), tiny::lfm2(), tiny::qwen35()] {
            // A prompt of many chunks, interrupted at ever later times.
            let model = tiny.load(&LoadOptions { prefill_chunk: 8, ..options(kv) }).expect("loads");
            let (start, long, end) = (tokens(9, 90), tokens(10, 400), tokens(11, 10));
            let expected = whole(&model, &[&start[..], &end].concat());
            let mut sequence = model.new_sequence();
            append(&model, &mut sequence, &start);
            let (pages, mut cancelled) = (sequence.pages(), 0);
            for after in 0..12 {
                let asked = Cell::new(0);
                let interrupt = || {
                    asked.set(asked.get() + 1);
                    asked.get() > after
                };
                let mut out = vec![1.0];
                let item = BatchItem { sequence: &mut sequence, tokens: &long, logits: Logits::All, out: &mut out };
                match model.forward(&mut [item], &interrupt) {
                    Err(Error::Cancelled) => {
                        cancelled += 1;
                        assert_eq!(
                            (sequence.len(), sequence.pages(), out.len()),
                            (90, pages.clone(), 0),
                            "after {after}"
                        );
                    }
                    Ok(()) => {
                        // Faster than the interrupt was asked that often: start again.
                        sequence = model.new_sequence();
                        append(&model, &mut sequence, &start);
                    }
                    Err(other) => panic!("{other}"),
                }
                assert!(append(&model, &mut sequence.fork(), &end) == expected, "{} after {after}", tiny.architecture);
            }
            assert!(cancelled > 0, "at least the first question comes before the end");
        }
    }

    pub(super) fn everything_is_given_back(kv: KvFormat) {
        let model = tiny::gemma().load(&options(kv)).expect("loads");
        let page: u64 = model.plan().kv.iter().map(|kv| kv.page_bytes).sum();
        for seed in 0..3 {
            let mut sequences: Vec<_> = (0..4).map(|_| model.new_sequence()).collect();
            for sequence in &mut sequences {
                append(&model, sequence, &tokens(seed, 600));
            }
            drop(sequences);
            // Some pages stay for the next sequence.
            assert!(model.kv_used_bytes() <= 8 * page, "{} bytes", model.kv_used_bytes());
        }
    }

    pub(super) fn the_plan_is_what_is_allocated(kv: KvFormat) {
        for tiny in [tiny::llama(), tiny::gemma(), tiny::gpt_oss(), tiny::granitemoe(), tiny::lfm2(), tiny::qwen35()] {
            let model = tiny.load(&options(kv)).expect("loads");
            let plan = model.plan().clone();
            assert_eq!(plan.context, tiny.context);
            assert_eq!(plan.kv_bytes, plan.kv.iter().map(|kv| kv.bytes).sum::<u64>());
            let parts = [plan.kv_bytes, plan.state_bytes, plan.scratch_bytes, plan.weights_bytes];
            assert_eq!(parts.iter().sum::<u64>(), plan.total_bytes, "not mapped");
            let vectors = plan.scratch_bytes - model.scratch_used_bytes();
            assert!(vectors < plan.weights_bytes, "{vectors} bytes of vectors");
            let mut sequence = model.new_sequence();
            append(&model, &mut sequence, &tokens(12, 64));
            append(&model, &mut sequence, &tokens(13, tiny.context - 64));
            // Two states of five: without snapshots.
            let used = model.kv_used_bytes() - plan.state_bytes / 5 * 2;
            match tiny.window {
                0 => assert_eq!(used, plan.kv_bytes),
                _ => assert!(
                    used <= plan.kv_bytes && plan.kv_bytes <= used + 2 * plan.kv[0].page_bytes,
                    "{used} {plan:?}"
                ),
            }
            let error = model
                .forward(
                    &mut [BatchItem {
                        sequence: &mut sequence,
                        tokens: &[1],
                        logits: Logits::None,
                        out: &mut Vec::new(),
                    }],
                    &Never,
                )
                .expect_err("the context is full");
            assert!(matches!(error, Error::ContextOverflow(_)), "{error}");
            assert_eq!(sequence.len(), tiny.context);
        }
    }
}

#[test]
fn a_state_goes_back_to_snapshots() {
    for tiny in recurrent() {
        let model = tiny.load(&options(KvFormat::F16)).expect("loads");
        let (text, more) = (tokens(30, 120), tokens(31, 20));
        let mut sequence = model.new_sequence();
        let continued = |sequence: &Sequence, len: usize| {
            assert_eq!(sequence.len(), len);
            let expected = whole(&model, &[&text[..len], &more].concat());
            assert!(append(&model, &mut sequence.fork(), &more) == expected, "{} after {len}", tiny.architecture);
        };
        for (start, end) in [(0, 10), (10, 40), (40, 41), (41, 70), (70, 120)] {
            append(&model, &mut sequence, &text[start..end]);
            sequence.snapshot();
            sequence.snapshot();
        }
        // The newest three of 10, 40, 41, 70 and 120.
        let mut other = sequence.fork();
        assert_eq!(other.truncate(119).expect("shorter"), 70);
        continued(&other, 70);
        assert_eq!(other.truncate(70).expect("the same"), 70);
        assert_eq!(other.truncate(60).expect("shorter"), 41);
        continued(&other, 41);
        assert_eq!(other.truncate(40).expect("shorter"), 0);
        assert!(append(&model, &mut other, &text) == whole(&model, &text));
        // What was appended after going back takes the place of what was there.
        assert_eq!(sequence.truncate(100).expect("shorter"), 70);
        assert_eq!(append(&model, &mut sequence, &more), whole(&model, &[&text[..70], &more].concat()));
        sequence.snapshot();
        assert_eq!(sequence.truncate(89).expect("shorter"), 70);
        continued(&sequence, 70);
        assert!(sequence.truncate(71).is_err());
        sequence.truncate(0).expect("empty is always possible");
        assert!(append(&model, &mut sequence, &text) == whole(&model, &text));
    }
}

#[test]
fn snapshots_give_way_where_memory_is_short() {
    for tiny in recurrent() {
        let options = LoadOptions { context: Some(128), ..options(KvFormat::F16) };
        let plan = tiny.load(&options).expect("loads").plan().clone();
        // Two states of the five that a sequence may have, and a little.
        let kv_limit = Some(plan.kv_bytes + plan.state_bytes / 5 * 2 + 8);
        let model = tiny.load(&LoadOptions { kv_limit, ..options }).expect("loads");
        let text = tokens(32, 90);
        let mut sequence = model.new_sequence();
        for part in text.chunks(30) {
            append(&model, &mut sequence, part);
            sequence.snapshot();
        }
        assert!(append(&model, &mut sequence, &[5]) == whole_of_fresh(&tiny, &[&text[..], &[5]].concat()));
        let error = model.forward(&mut [item(&mut model.new_sequence(), &text, &mut Vec::new())], &Never);
        assert!(matches!(error, Err(Error::Memory(_))), "no room for a second sequence");
    }
}

/// A conversation, whose history ends with the token 2 and is followed by another beginning of the answer each time.
#[test]
fn kept_states_answer_as_new_ones() {
    for tiny in recurrent() {
        let model = tiny.load(&options(KvFormat::F16)).expect("loads");
        let generation = GenerationOptions { max_tokens: Some(6), ignore_eos: true, ..GenerationOptions::default() };
        let turn = |kept: Option<Kept>, prompt: &[u32]| {
            let prompt = Prompt::Tokens(prompt.to_vec());
            let mut generation = Generation::resume(&model, kept, prompt, &generation, &Never).expect("starts");
            while !generation.finished() {
                generation.step(&Never).expect("steps");
            }
            let kept = generation.take_kept();
            (generation.into_completions().remove(0), kept)
        };
        let message = |seed, len: usize| {
            [&tokens(seed, len).iter().map(|t| t.max(&3)).copied().collect::<Vec<_>>()[..], &[2]].concat()
        };
        let (mut history, mut kept) = (message(40, 30), None);
        for round in 0..4 {
            let known = history.len();
            let prompt = [&history[..], &[10 + round, 20]].concat();
            let (answer, now) = turn(kept, &prompt);
            assert_eq!(answer.tokens, turn(None, &prompt).0.tokens, "{} round {round}", tiny.architecture);
            assert_eq!(answer.timings.prefill_tokens + answer.cached_tokens, prompt.len());
            // The same again begins where the last message ended.
            let (again, now) = turn(now, &prompt);
            assert_eq!((again.cached_tokens, &again.tokens), (known, &answer.tokens));
            // As does the next one, which shows the beginning of the answer otherwise.
            kept = now;
            history.extend([30, 31]);
            history.extend(message(50 + u64::from(round), 8));
            let next = [&history[..], &[99]].concat();
            let (other, now) = turn(kept, &next);
            assert_eq!((other.cached_tokens, &other.tokens), (known, &turn(None, &next).0.tokens));
            kept = now;
        }
    }
}

#[test]
fn threads_take_turns() {
    let model = tiny::gemma().load(&options(KvFormat::F16)).expect("loads");
    let texts: Vec<_> = (20..24).map(|seed| tokens(seed, 90)).collect();
    let expected: Vec<_> = texts.iter().map(|text| whole(&model, text)).collect();
    std::thread::scope(|scope| {
        for (text, expected) in texts.iter().zip(&expected) {
            let model = model.clone();
            scope.spawn(move || {
                for _ in 0..3 {
                    let mut sequence = model.new_sequence();
                    append(&model, &mut sequence, &text[..40]);
                    assert!(append(&model, &mut sequence, &text[40..]) == *expected);
                }
            });
        }
    });
}

#[test]
fn wrong_arguments_change_nothing() {
    let model = tiny::llama().load(&options(KvFormat::F16)).expect("loads");
    let other = tiny::llama().load(&options(KvFormat::F16)).expect("loads");
    let mut sequence = model.new_sequence();
    append(&model, &mut sequence, &tokens(1, 5));
    let mut try_it = |model: &Model, tokens: &[u32]| {
        let mut out = Vec::new();
        let item = BatchItem { sequence: &mut sequence, tokens, logits: Logits::Last, out: &mut out };
        model.forward(&mut [item], &Never).expect_err("refused").to_string()
    };
    assert!(try_it(&model, &[3, 300]).contains("below the vocabulary 300, found 300"));
    assert!(try_it(&model, &[]).contains("at least one token"));
    assert!(try_it(&other, &[1]).contains("another model"));
    assert_eq!(sequence.len(), 5);
}
