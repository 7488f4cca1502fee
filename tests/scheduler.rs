//! Many callers of one model: every answer is the one of a call of its own, whatever the others do.

#[path = "model/tiny.rs"]
#[allow(dead_code, reason = "other tests use the other models")]
mod tiny;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastq_core::generate::{Completion, Overflow, Speculation};
use fastq_core::sampler::{LogitsProcessor, SamplerOptions, TokenLogprobs};
use fastq_core::{Error, FinishReason, Generation, GenerationOptions, LoadOptions, Model, Never, Prompt};
use tiny::{Tiny, tokens};

fn load(tiny: &Tiny) -> Model {
    load_with(tiny, LoadOptions::default())
}

fn load_with(tiny: &Tiny, options: LoadOptions) -> Model {
    tiny.load(&LoadOptions { threads: Some(2), prefill_chunk: 48, ..options }).expect("loads")
}

/// A model of full attention, one with windows, and two with recurrent states.
fn kinds() -> [Tiny; 4] {
    [tiny::llama(), tiny::gemma(), tiny::lfm2(), tiny::qwen35()]
}

fn options(seed: u64, max_tokens: usize) -> GenerationOptions {
    GenerationOptions {
        max_tokens: Some(max_tokens),
        ignore_eos: true,
        sampler: SamplerOptions { seed, temperature: 1.5, top_k: 0, repeat_penalty: 1.1, ..SamplerOptions::default() },
        ..GenerationOptions::default()
    }
}

fn run(model: &Model, prompt: &[u32], options: &GenerationOptions) -> Completion {
    let prompts = vec![Prompt::Tokens(prompt.to_vec())];
    Generation::new(model, prompts, options, &Never).expect("starts").run(&Never).expect("runs").remove(0)
}

/// The answer of a model that knows no other text.
fn alone(tiny: &Tiny, prompt: &[u32], options: &GenerationOptions) -> Completion {
    let options = GenerationOptions { reuse: false, speculate: None, ..options.clone() };
    run(&load(tiny), prompt, &options)
}

/// A prompt of some length; many begin alike.
fn prompt(number: usize) -> Vec<u32> {
    let mut prompt = tokens(100 + number as u64 % 3, 40 + 30 * (number % 2));
    prompt.extend(tokens(number as u64, 1 + number * 13 % 90));
    prompt
}

#[test]
fn threads_get_the_answers_of_single_calls() {
    for tiny in kinds() {
        let expected: Vec<Vec<u32>> =
            (0..24).map(|n| alone(&tiny, &prompt(n), &options(n as u64, 3 + n % 11)).tokens).collect();
        let model = load(&tiny);
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= 72 {
                            break;
                        }
                        let n = number % 24;
                        let answer = run(&model, &prompt(n), &options(n as u64, 3 + n % 11));
                        assert_eq!(answer.tokens, expected[n], "{} prompt {n}", tiny.architecture);
                    }
                });
            }
        });
        assert_eq!(model.requests(), 0);
    }
}

#[test]
fn callers_who_leave_do_not_disturb() {
    let tiny = tiny::gemma();
    let expected: Vec<Vec<u32>> = (0..6).map(|n| alone(&tiny, &prompt(n), &options(9, 40)).tokens).collect();
    let model = load(&tiny);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for thread in 0..3u32 {
            let (model, over) = (&model, &over);
            scope.spawn(move || {
                let mut round = 0;
                while !over.load(Ordering::Relaxed) {
                    let prompts = vec![Prompt::Tokens(tokens(u64::from(thread * 1000 + round), 300))];
                    let mut generation = Generation::new(model, prompts, &options(1, 50), &Never).expect("starts");
                    // Leaves in the prompt, after some tokens, or by an interrupt.
                    let polls = AtomicUsize::new(0);
                    let stop = || polls.fetch_add(1, Ordering::Relaxed) > (round as usize * 7) % 60;
                    for _ in 0..round % 5 {
                        if generation.step(&stop).is_err() {
                            break;
                        }
                    }
                    if round % 2 == 0 {
                        // Others may have computed it to the end, and a step has given that out.
                        let reason = if generation.finished() { FinishReason::Length } else { FinishReason::Cancelled };
                        generation.cancel();
                        assert_eq!(generation.completions()[0].as_ref().map(|c| c.finish_reason), Some(reason));
                    }
                    round += 1;
                }
            });
        }
        for round in 0..4 {
            for (n, expected) in expected.iter().enumerate() {
                assert_eq!(&run(&model, &prompt(n), &options(9, 40)).tokens, expected, "round {round}");
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(model.requests(), 0);
}

/// What others computed ahead, and was not given out, does not count.
#[test]
fn an_answer_that_others_completed_can_be_cancelled() {
    let tiny = tiny::llama();
    let model = load(&tiny);
    let prompts = vec![Prompt::Tokens(prompt(1))];
    let mut generation = Generation::new(&model, prompts, &options(1, 6), &Never).expect("starts");
    assert!(!generation.step(&Never).expect("a piece").is_empty());
    run(&model, &prompt(2), &options(2, 40));
    generation.cancel();
    let answer = generation.into_completions().remove(0);
    assert_eq!(answer.finish_reason, FinishReason::Cancelled);
}

#[test]
fn little_memory_is_shared() {
    let tiny = tiny::llama();
    let expected: Vec<Vec<u32>> = (0..8).map(|n| alone(&tiny, &prompt(n), &options(4, 60)).tokens).collect();
    let most = load(&tiny).plan().kv_bytes;
    let model = load_with(&tiny, LoadOptions { kv_limit: Some(most), ..LoadOptions::default() });
    thread::scope(|scope| {
        for (n, expected) in expected.iter().enumerate() {
            let model = &model;
            scope.spawn(move || assert_eq!(&run(model, &prompt(n), &options(4, 60)).tokens, expected));
        }
    });
    assert!(model.kv_used_bytes() <= most);
}

#[test]
fn one_who_is_slow_holds_nobody_up() {
    let tiny = tiny::llama();
    let model = load(&tiny);
    let prompts = vec![Prompt::Tokens(prompt(1))];
    let mut slow = Generation::new(&model, prompts, &options(1, 200), &Never).expect("starts");
    let mut taken = slow.step(&Never).expect("a piece").len();
    // Others go on while nobody takes what it has.
    for n in 2..6 {
        assert_eq!(run(&model, &prompt(n), &options(2, 100)).tokens, alone(&tiny, &prompt(n), &options(2, 100)).tokens);
    }
    let waiting = slow.step(&Never).expect("pieces").len();
    assert!((20..=32).contains(&waiting), "{waiting} pieces ahead");
    taken += waiting;
    while !slow.finished() {
        taken += slow.step(&Never).expect("pieces").len();
    }
    assert_eq!(taken, 200);
    assert_eq!(slow.into_completions()[0].tokens, alone(&tiny, &prompt(1), &options(1, 200)).tokens);
}

#[test]
fn an_interrupt_of_the_leader_is_nobody_elses() {
    let tiny = tiny::llama();
    let model = load(&tiny);
    let expected = alone(&tiny, &prompt(3), &options(5, 150)).tokens;
    thread::scope(|scope| {
        let other = scope.spawn(|| run(&model, &prompt(3), &options(5, 150)));
        for n in 0..20 {
            let prompts = vec![Prompt::Tokens(tokens(n, 400))];
            let deadline = Instant::now() + Duration::from_millis(n);
            let stopped = Generation::new(&model, prompts, &options(1, 100), &Never)
                .expect("starts")
                .run(&|| Instant::now() > deadline);
            assert!(matches!(stopped, Err(Error::Cancelled) | Ok(_)));
        }
        assert_eq!(other.join().expect("no panic").tokens, expected);
    });
}

#[test]
fn beginnings_in_common_are_computed_once() {
    for tiny in kinds() {
        let model = load(&tiny);
        let system = tokens(1, 100);
        let ask = |n: u64| [system.clone(), tokens(n, 20)].concat();
        let first = run(&model, &ask(2), &options(1, 5));
        assert_eq!((first.cached_tokens, first.timings.prefill_tokens), (0, 120));
        let again = run(&model, &ask(2), &options(1, 5));
        assert_eq!(again.tokens, first.tokens);
        let other = run(&model, &ask(3), &options(1, 5));
        assert_eq!(other.tokens, alone(&tiny, &ask(3), &options(1, 5)).tokens, "{}", tiny.architecture);
        assert_eq!(other.cached_tokens + other.timings.prefill_tokens, 120);
        if model.remembers() {
            assert_eq!((again.cached_tokens, other.cached_tokens), (119, 100));
        } else {
            // The state at the end of the prompt but its last token is kept.
            assert_eq!(again.cached_tokens, 119, "{}", tiny.architecture);
        }
        // A conversation goes on: what was answered need not be computed again.
        let next = [ask(2), first.tokens.clone(), tokens(7, 9)].concat();
        let turn = run(&model, &next, &options(1, 5));
        assert_eq!(turn.tokens, alone(&tiny, &next, &options(1, 5)).tokens);
        assert_eq!(turn.cached_tokens, 120 + first.tokens.len() - 1, "{}", tiny.architecture);
        let none = run(&model, &ask(2), &GenerationOptions { reuse: false, ..options(1, 5) });
        assert_eq!((none.cached_tokens, none.tokens), (0, first.tokens));
    }
}

#[test]
fn prompts_of_one_batch_share_their_beginning() {
    let model = load(&tiny::llama());
    let same = vec![Prompt::Tokens(tokens(1, 150)); 5];
    let each: Vec<GenerationOptions> = (0..5).map(|seed| options(seed, 6)).collect();
    let answers =
        Generation::each(&model, same.into_iter().zip(&each), &Never).expect("starts").run(&Never).expect("runs");
    let computed: usize = answers.iter().map(|answer| answer.timings.prefill_tokens).sum();
    assert_eq!(computed, 150 + 4);
    for (answer, options) in answers.iter().zip(&each) {
        assert_eq!(answer.tokens, alone(&tiny::llama(), &tokens(1, 150), options).tokens);
    }
}

#[test]
fn guesses_do_not_change_an_answer() {
    for tiny in [tiny::llama(), tiny::gemma()] {
        let model = load(&tiny);
        // A text that repeats itself, and a draw that often does.
        let repeating = tokens(5, 12).repeat(6);
        let greedy = GenerationOptions { sampler: SamplerOptions::greedy(), ..options(0, 120) };
        let (mut drafted, mut accepted) = (0, 0);
        for base in [greedy, options(3, 60), options(4, 60)] {
            let expected = alone(&tiny, &repeating, &base);
            for speculation in [Speculation::Ngram, Speculation::Draft(model.clone()), Speculation::Draft(load(&tiny))]
            {
                let options = GenerationOptions { speculate: Some(speculation), reuse: false, ..base.clone() };
                let answer = run(&model, &repeating, &options);
                assert_eq!(answer.tokens, expected.tokens, "{} {:?}", tiny.architecture, options.speculate);
                assert_eq!(answer.text, expected.text);
                assert!(answer.accepted <= answer.drafted);
                drafted += answer.drafted;
                accepted += answer.accepted;
            }
        }
        assert!(accepted > 100, "{accepted} of {drafted} guesses came true");
    }
    let model = load(&tiny::lfm2());
    let options = GenerationOptions { speculate: Some(Speculation::Ngram), ..options(1, 5) };
    let error = Generation::new(&model, vec![Prompt::Tokens(prompt(1))], &options, &Never).err().expect("refused");
    assert!(error.to_string().contains("recurrent state"), "{error}");
}

#[test]
fn a_full_context_is_an_error_an_end_or_goes_on() {
    for tiny in kinds() {
        let model = load_with(&tiny, LoadOptions { context: Some(96), ..LoadOptions::default() });
        let long = tokens(1, 130);
        let with = |overflow, max| GenerationOptions { overflow, ..options(2, max) };
        let prompts = vec![Prompt::Tokens(long.clone())];
        let error = Generation::new(&model, prompts, &with(Overflow::Error, 5), &Never).err().expect("refused");
        assert!(matches!(error, Error::ContextOverflow(_)), "{error}");

        let cut = run(&model, &long, &with(Overflow::TruncateMiddle, 1000));
        assert_eq!((cut.prompt_tokens, cut.dropped_tokens, cut.tokens.len()), (130, 58, 24));
        assert_eq!(cut.finish_reason, FinishReason::Length);

        let shifted = run(&model, &long, &with(Overflow::Shift, 300));
        assert_eq!((shifted.tokens.len(), shifted.finish_reason), (300, FinishReason::Length));
        assert!(shifted.dropped_tokens >= 130 + 300 - 96, "{}", shifted.dropped_tokens);
        // The answer is the same however often it is asked for, with guesses, and beside others.
        let again = run(&model, &long, &with(Overflow::Shift, 300));
        assert_eq!(again.tokens, shifted.tokens);
        if model.spec().state_len == 0 {
            let guessed = run(
                &model,
                &long,
                &GenerationOptions { speculate: Some(Speculation::Ngram), ..with(Overflow::Shift, 300) },
            );
            assert_eq!(guessed.tokens, shifted.tokens, "{}", tiny.architecture);
        }
    }
}

#[test]
fn log_probabilities_of_prompt_and_answer() {
    for tiny in [tiny::llama(), tiny::lfm2()] {
        let model = load(&tiny);
        let base = GenerationOptions { sampler: SamplerOptions::greedy(), ..options(0, 6) };
        let asked = GenerationOptions { logprobs: Some(3), prompt_logprobs: Some(2), ..base.clone() };
        let prompt = tokens(3, 130);
        run(&model, &prompt, &base);
        let answer = run(&model, &prompt, &asked);
        assert_eq!(answer.tokens, run(&model, &prompt, &base).tokens, "asking changes nothing");
        assert_eq!(answer.cached_tokens, 0, "every token of the prompt is computed");
        let text = [&prompt[..], &answer.tokens].concat();
        let mut logits = Vec::new();
        let mut sequence = model.new_sequence();
        let item = fastq_core::BatchItem {
            sequence: &mut sequence,
            tokens: &text,
            logits: fastq_core::Logits::All,
            out: &mut logits,
        };
        model.forward(&mut [item], &Never).expect("logits");
        let row = |position: usize| &logits[(position - 1) * model.vocabulary()..position * model.vocabulary()];
        let (of_prompt, of_answer) = (answer.prompt_logprobs.expect("asked"), answer.logprobs.expect("asked"));
        assert_eq!((of_prompt.len(), of_answer.len()), (130, 6));
        assert_eq!(of_prompt[0], None);
        for (position, &token) in text.iter().enumerate().skip(1) {
            let (found, top) = match position.checked_sub(130) {
                None => (of_prompt[position].as_ref().expect("known"), 2),
                Some(at) => (&of_answer[at], 3),
            };
            assert_eq!(found, &TokenLogprobs::of(row(position), token, top), "{} {position}", tiny.architecture);
        }
        // Without an answer, the prompt is scored all the same.
        let scored = run(&model, &prompt, &GenerationOptions { max_tokens: Some(0), ..asked.clone() });
        assert_eq!(scored.prompt_logprobs.as_deref(), Some(&of_prompt[..]));
        assert!(scored.tokens.is_empty());
    }
}

#[test]
fn processors_and_banned_strings_of_one_are_not_those_of_others() {
    struct Only(u32);
    impl LogitsProcessor for Only {
        fn process(&self, tokens: &[u32], logits: &mut [f32]) -> fastq_core::Result<()> {
            if tokens.len() > 60 {
                return Err(Error::Argument("enough".into()));
            }
            logits.iter_mut().enumerate().for_each(|(id, logit)| {
                if id as u32 != self.0 {
                    *logit = f32::NEG_INFINITY;
                }
            });
            Ok(())
        }
    }
    let tiny = tiny::llama();
    let model = load(&tiny);
    let only = GenerationOptions { processors: vec![Arc::new(Only(77))], ..options(1, 20) };
    let plain = options(1, 20);
    let prompts = [tokens(1, 50), tokens(2, 50), tokens(1, 10)];
    let each = [&plain, &only, &only];
    let prompts = prompts.iter().map(|prompt| Prompt::Tokens(prompt.clone())).zip(each);
    let mut generation = Generation::each(&model, prompts, &Never).expect("starts");
    let error = loop {
        match generation.step(&Never) {
            Ok(_) => assert!(!generation.finished()),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("enough"), "{error}");
    let answer = run(&model, &tokens(1, 10), &only);
    assert_eq!(answer.tokens, [77; 20]);
    assert_eq!(run(&model, &tokens(1, 50), &plain).tokens, alone(&tiny, &tokens(1, 50), &plain).tokens);
}
