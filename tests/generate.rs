//! Generation on a tiny random model: batches, limits, stop strings, cancelling, waves, kept sequences.

#[path = "common/tiny_model.rs"]
mod tiny_model;

use std::cell::Cell;

use fastq_core::generate::{Completion, Kept, chat_tokens};
use fastq_core::grammar::{Grammar, GrammarSource};
use fastq_core::sampler::SamplerOptions;
use fastq_core::{Error, FinishReason, Generation, GenerationOptions, LoadOptions, Model, Never, Prompt};
use serde_json::{Map, json};
use tiny_model::{BOS, BYTES, CONTEXT, EOS, LETTER_A, Tiny, VOCABULARY};

fn load(tiny: Tiny, options: &LoadOptions) -> Model {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    tiny_model::write(&path, tiny);
    // Read, not mapped: the folder goes away.
    Model::load(&path, &LoadOptions { mmap: false, threads: Some(1), ..options.clone() }, &Never).unwrap()
}

fn tiny() -> Model {
    load(Tiny::default(), &LoadOptions::default())
}

/// Forces one token by a bias far above all logits.
fn only(token: u32) -> SamplerOptions {
    SamplerOptions { logit_bias: vec![(token, 1e6)], ..SamplerOptions::greedy() }
}

fn options(max_tokens: usize, sampler: SamplerOptions) -> GenerationOptions {
    GenerationOptions { max_tokens: Some(max_tokens), sampler, ..GenerationOptions::default() }
}

fn run(model: &Model, prompts: &[&str], options: &GenerationOptions) -> Vec<Completion> {
    let prompts = prompts.iter().map(|&p| p.into()).collect();
    Generation::new(model, prompts, options, &Never).unwrap().run(&Never).unwrap()
}

fn texts(completions: &[Completion]) -> Vec<&str> {
    completions.iter().map(|c| c.text.as_str()).collect()
}

/// Generations move between the threads of a program, and a Python object is shared by all of them.
#[test]
fn a_generation_is_send_and_sync() {
    fn check<T: Send + Sync>() {}
    check::<Generation>();
    check::<Kept>();
}

#[test]
fn a_batch_answers_as_each_prompt_alone() {
    let model = tiny();
    let prompts = ["abc", "", "the quick brown fox", "z", "abc"];
    for sampler in [SamplerOptions::greedy(), SamplerOptions { seed: 11, ..SamplerOptions::default() }] {
        let options = GenerationOptions { ignore_eos: true, ..options(24, sampler) };
        let together = run(&model, &prompts, &options);
        for (prompt, in_batch) in prompts.iter().zip(&together) {
            let alone = run(&model, &[prompt], &options).remove(0);
            assert_eq!((&alone.text, &alone.tokens), (&in_batch.text, &in_batch.tokens), "{prompt:?}");
            assert_eq!(in_batch.tokens.len(), 24);
            assert_eq!(in_batch.finish_reason, FinishReason::Length);
            assert_eq!(in_batch.timings.prefill_tokens, in_batch.prompt_tokens);
            assert_eq!(in_batch.timings.decode_tokens, 23);
        }
        assert_eq!(together[0].tokens, together[4].tokens);
    }
    let seeded = |seed| {
        let sampler = SamplerOptions { seed, temperature: 3.0, top_k: 0, min_p: 0.0, ..SamplerOptions::default() };
        run(&model, &["abc"], &options(24, sampler)).remove(0).tokens
    };
    assert_ne!(seeded(1), seeded(2));
}

#[test]
fn pieces_join_to_the_text_and_end_once() {
    let model = tiny();
    let options = options(40, SamplerOptions { temperature: 2.0, seed: 5, ..SamplerOptions::default() });
    let mut generation = Generation::new(&model, vec!["ab".into(), "xyz".into()], &options, &Never).unwrap();
    let (mut texts, mut tokens, mut ends) = ([String::new(), String::new()], [vec![], vec![]], [0, 0]);
    while !generation.finished() {
        for piece in generation.step(&Never).unwrap() {
            texts[piece.index] += &piece.text;
            tokens[piece.index].extend(piece.token);
            ends[piece.index] += usize::from(piece.finish.is_some());
        }
    }
    assert_eq!(generation.step(&Never).unwrap(), []);
    assert_eq!(ends, [1, 1]);
    for (index, completion) in generation.into_completions().into_iter().enumerate() {
        assert_eq!((completion.text, completion.tokens), (texts[index].clone(), tokens[index].clone()));
    }
}

#[test]
fn the_end_token_stops_and_is_not_part_of_the_answer() {
    let model = tiny();
    let ended = run(&model, &["a"], &options(5, only(EOS))).remove(0);
    assert_eq!((ended.text.as_str(), ended.tokens.len(), ended.finish_reason), ("", 0, FinishReason::Stop));
    let options = GenerationOptions { ignore_eos: true, ..options(5, only(EOS)) };
    let forbidden = run(&model, &["a"], &options).remove(0);
    assert_eq!((forbidden.tokens.len(), forbidden.finish_reason), (5, FinishReason::Length));
    assert!(!forbidden.tokens.contains(&EOS));
}

#[test]
fn stop_strings_span_tokens_and_do_not_leak() {
    let model = tiny();
    let stop = |stop: &[&str]| GenerationOptions {
        stop: stop.iter().map(|s| (*s).to_owned()).collect(),
        ..options(6, only(LETTER_A))
    };
    let stopped = run(&model, &["x"], &stop(&["aaaa", "b"])).remove(0);
    assert_eq!((stopped.text.as_str(), stopped.tokens.len(), stopped.finish_reason), ("", 4, FinishReason::Stop));
    // The start of a stop string is held back, and comes when the answer ends otherwise.
    let mut generation = Generation::new(&model, vec!["x".into()], &stop(&["aaaaaaaa"]), &Never).unwrap();
    let mut pieces = Vec::new();
    while !generation.finished() {
        pieces.extend(generation.step(&Never).unwrap());
    }
    let (last, before) = pieces.split_last().unwrap();
    assert!(before.iter().all(|piece| piece.text.is_empty()));
    assert_eq!((last.text.as_str(), last.finish), ("aaaaaa", Some(FinishReason::Length)));
    let error = Generation::new(&model, vec!["x".into()], &stop(&[""]), &Never).err().unwrap();
    assert!(matches!(error, Error::Argument(_)), "{error}");
}

#[test]
fn unfinished_characters_are_held_back() {
    let model = tiny();
    // Lead byte of a two-byte character, over and over: never a character.
    let completion = run(&model, &["x"], &options(3, only(BYTES + 0xC3))).remove(0);
    assert_eq!(completion.text, "\u{FFFD}\u{FFFD}\u{FFFD}");
}

#[test]
fn limits() {
    let model = tiny();
    let none = run(&model, &["abc"], &options(0, SamplerOptions::greedy())).remove(0);
    assert_eq!((none.text.as_str(), none.finish_reason, none.tokens.len()), ("", FinishReason::Length, 0));
    assert_eq!(none.timings.prefill_tokens, 0, "nothing is computed for nothing");
    let mut generation =
        Generation::new(&model, vec!["a".into()], &options(0, SamplerOptions::greedy()), &Never).unwrap();
    assert!(!generation.finished());
    assert_eq!(generation.step(&Never).unwrap()[0].finish, Some(FinishReason::Length));
    assert!(generation.finished());

    let unlimited = GenerationOptions { max_tokens: None, ..options(0, only(LETTER_A)) };
    let full = run(&model, &["abc"], &unlimited).remove(0);
    assert_eq!((full.prompt_tokens + full.tokens.len(), full.finish_reason), (CONTEXT, FinishReason::Length));

    let prompt = |n| vec![Prompt::Tokens(vec![LETTER_A; n])];
    let exact = Generation::new(&model, prompt(CONTEXT), &unlimited, &Never).unwrap().run(&Never).unwrap().remove(0);
    assert_eq!((exact.tokens.len(), exact.finish_reason), (0, FinishReason::Length));
    match Generation::new(&model, prompt(CONTEXT + 1), &unlimited, &Never).err().unwrap() {
        Error::ContextOverflow(message) => {
            assert!(
                message.contains(&CONTEXT.to_string()) && message.contains(&(CONTEXT + 1).to_string()),
                "{message}"
            );
        }
        other => panic!("{other}"),
    }
    let outside = vec![Prompt::Tokens(vec![BOS, VOCABULARY as u32])];
    match Generation::new(&model, outside, &unlimited, &Never).err().unwrap() {
        Error::Argument(message) => assert!(message.contains("token 286 at position 1"), "{message}"),
        other => panic!("{other}"),
    }
    assert!(Generation::new(&model, Vec::new(), &unlimited, &Never).unwrap().run(&Never).unwrap().is_empty());
}

#[test]
fn an_empty_prompt_starts_from_the_beginning_token() {
    let model = tiny();
    let empty = Generation::new(&model, vec![Prompt::Tokens(vec![])], &options(3, SamplerOptions::greedy()), &Never);
    let empty = empty.unwrap().run(&Never).unwrap().remove(0);
    assert_eq!(empty.prompt_tokens, 1);
    assert_eq!(empty.tokens, run(&model, &[""], &options(3, SamplerOptions::greedy())).remove(0).tokens);
    let without = load(Tiny { bos: false, ..Tiny::default() }, &LoadOptions::default());
    let error = Generation::new(&without, vec!["".into()], &GenerationOptions::default(), &Never).err().unwrap();
    assert!(matches!(&error, Error::Argument(m) if m.contains("empty")), "{error}");
}

#[test]
fn an_interrupted_step_loses_nothing_and_cancel_keeps_the_text() {
    let model = tiny();
    let options = options(30, SamplerOptions { seed: 3, ..SamplerOptions::default() });
    let expected = run(&model, &["ab", "cde"], &options);
    let mut generation = Generation::new(&model, vec!["ab".into(), "cde".into()], &options, &Never).unwrap();
    let calls = Cell::new(0u32);
    let mut stopped = 0;
    while !generation.finished() {
        // Stops at the first, third, … poll of the interrupt.
        let interrupt = || {
            calls.set(calls.get() + 1);
            calls.get() % 3 == 1
        };
        match generation.step(&interrupt) {
            Ok(_) => {}
            Err(Error::Cancelled) => {
                stopped += 1;
                generation.step(&Never).unwrap();
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(stopped > 0);
    let tokens = |completions: &[Completion]| completions.iter().map(|c| c.tokens.clone()).collect::<Vec<_>>();
    assert_eq!(tokens(&generation.into_completions()), tokens(&expected));

    let mut generation = Generation::new(&model, vec!["ab".into(), "cde".into()], &options, &Never).unwrap();
    for _ in 0..4 {
        generation.step(&Never).unwrap();
    }
    generation.cancel();
    assert!(generation.finished());
    for (cancelled, whole) in generation.into_completions().iter().zip(&expected) {
        assert_eq!(cancelled.finish_reason, FinishReason::Cancelled);
        assert_eq!(cancelled.tokens, whole.tokens[..4]);
    }
    assert!(matches!(
        Generation::new(&model, vec!["ab".into()], &options, &Never).unwrap().run(&|| true),
        Err(Error::Cancelled)
    ));
}

#[test]
fn damaged_weights_are_an_error() {
    let model = load(Tiny { damaged: true, ..Tiny::default() }, &LoadOptions::default());
    let mut generation = Generation::new(&model, vec!["ab".into()], &GenerationOptions::default(), &Never).unwrap();
    assert!(matches!(generation.step(&Never), Err(Error::NotFinite(_))));
}

#[test]
fn prompts_that_do_not_fit_together_run_in_waves() {
    let roomy = tiny();
    let prompts: Vec<String> = (0..9).map(|n| "abcdefgh".repeat(1 + n * 2)).collect();
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    let options =
        GenerationOptions { ignore_eos: true, ..options(70, SamplerOptions { seed: 1, ..SamplerOptions::default() }) };
    let expected = run(&roomy, &prompts, &options);
    // What one sequence of full length needs, and a little more: the longest prompts fit two at a time.
    let most = roomy.plan().kv_bytes;
    for limit in [most, most * 3 / 2, most * 2] {
        let tight = load(Tiny::default(), &LoadOptions { kv_limit: Some(limit), ..LoadOptions::default() });
        let got = run(&tight, &prompts, &options);
        assert!(tight.kv_used_bytes() <= limit);
        assert_eq!(texts(&got), texts(&expected), "limit {limit}");
    }
    let none = load(Tiny::default(), &LoadOptions { kv_limit: Some(16), ..LoadOptions::default() });
    let result = Generation::new(&none, vec!["a".into(), "b".into()], &options, &Never).unwrap().run(&Never);
    assert!(matches!(result, Err(Error::Memory(_))));
}

#[test]
fn a_kept_sequence_saves_what_the_prompts_have_in_common() {
    let model = tiny();
    let options =
        GenerationOptions { ignore_eos: true, ..options(10, SamplerOptions { seed: 2, ..SamplerOptions::default() }) };
    let turn = |kept: Option<Kept>, prompt: &[u32]| {
        let prompt = Prompt::Tokens(prompt.to_vec());
        let mut generation = Generation::resume(&model, kept, prompt, &options, &Never).unwrap();
        while !generation.finished() {
            generation.step(&Never).unwrap();
        }
        let kept = generation.take_kept().unwrap();
        (generation.into_completions().remove(0), kept)
    };
    let first = vec![BOS, 270, 271, 272];
    let (one, kept) = turn(None, &first);
    assert_eq!(one.cached_tokens, 0);
    assert_eq!(kept.tokens().len(), first.len() + one.tokens.len() - 1, "the last token was never computed");

    let second: Vec<u32> = first.iter().chain(&one.tokens).copied().chain([265, 266]).collect();
    let (two, kept) = turn(Some(kept), &second);
    assert_eq!(two.cached_tokens, first.len() + one.tokens.len() - 1);
    assert_eq!(two.timings.prefill_tokens, second.len() - two.cached_tokens);
    assert_eq!(two.tokens, turn(None, &second).0.tokens, "the answer is the one without a kept sequence");

    // The same prompt again: one token is computed, for its logits. Another prompt: what is in common.
    let (again, kept) = turn(Some(kept), &second);
    assert_eq!((again.cached_tokens, &again.tokens), (second.len() - 1, &two.tokens));
    let other = [BOS, 270, 280];
    let (other_kept, _) = turn(Some(kept), &other);
    assert_eq!((other_kept.cached_tokens, other_kept.tokens), (2, turn(None, &other).0.tokens));
}

#[test]
fn a_conversation_has_one_beginning_token() {
    let model = tiny();
    let messages = [json!({ "role": "user", "content": "hi" })];
    let tokens = chat_tokens(&model, &messages, None, &Map::new(), &Never).unwrap();
    assert_eq!(model.tokenizer().decode(&tokens, true).unwrap(), "<s>user:hi</s>assistant:");
    assert_eq!(tokens.iter().filter(|&&t| t == BOS).count(), 1);
    let without = load(Tiny { template: false, ..Tiny::default() }, &LoadOptions::default());
    assert!(matches!(chat_tokens(&without, &messages, None, &Map::new(), &Never), Err(Error::Template(_))));
}

#[test]
fn answers_match_their_grammar_and_end_with_it() {
    let model = tiny();
    let words = ["abc", "abd", "zebra"].map(str::to_owned);
    let grammar = Grammar::new(&model, &GrammarSource::Choices(words.to_vec())).unwrap();
    let regex = Grammar::new(&model, &GrammarSource::Regex("[a-c]{3}x+y".into())).unwrap();
    let mut seen = Vec::new();
    for seed in 0..30 {
        let sampler =
            SamplerOptions { seed, temperature: 2.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..SamplerOptions::default() };
        let with =
            |grammar: &Grammar| GenerationOptions { grammar: Some(grammar.clone()), ..options(60, sampler.clone()) };
        let chosen = run(&model, &["q"], &with(&grammar)).remove(0);
        assert!(words.contains(&chosen.text), "{:?}", chosen.text);
        assert_eq!(chosen.finish_reason, FinishReason::Stop);
        if chosen.text == "zebra" {
            // Behind the z there is no choice: the rest is guessed, and comes true.
            assert!(chosen.accepted > 0, "{chosen:?}");
        }
        seen.push(chosen.text);
        let matched = run(&model, &["q"], &with(&regex)).remove(0);
        let (head, tail) = matched.text.split_at(3);
        assert!(head.bytes().all(|byte| (b'a'..=b'c').contains(&byte)), "{:?}", matched.text);
        if matched.finish_reason == FinishReason::Stop {
            assert!(tail.len() > 1 && tail.trim_start_matches('x') == "y", "{:?}", matched.text);
        }
        // In a batch, and beside others without a grammar.
        let prompts = ["q", "abc", "q"].map(Prompt::from);
        let each = [with(&regex), options(9, sampler.clone()), with(&grammar)];
        let together = Generation::each(&model, prompts.into_iter().zip(&each), &Never).unwrap().run(&Never).unwrap();
        assert_eq!((&together[0].text, &together[2].text), (&matched.text, seen.last().unwrap()));
    }
    assert!(words.iter().all(|word| seen.contains(word)), "{seen:?}");
}

#[test]
fn a_second_process_goes_on_from_the_prompt_cache() {
    let folder = tempfile::tempdir().unwrap();
    let cached = || {
        let prompt_cache = Some((folder.path().join("cache"), 1 << 20));
        load(Tiny::default(), &LoadOptions { prompt_cache, ..LoadOptions::default() })
    };
    let options = options(4, SamplerOptions { seed: 1, ..SamplerOptions::default() });
    let system = "rules ".repeat(25);
    let ask = |model: &Model, question: &str| {
        let messages = [json!({ "role": "system", "content": system }), json!({ "role": "user", "content": question })];
        let tokens = chat_tokens(model, &messages, None, &Map::new(), &Never).unwrap();
        Generation::new(model, vec![Prompt::Tokens(tokens)], &options, &Never).unwrap().run(&Never).unwrap().remove(0)
    };
    let first = ask(&cached(), "one");
    assert_eq!(first.cached_tokens, 0);
    let second = cached();
    let (again, other) = (ask(&second, "one"), ask(&cached(), "two"));
    assert_eq!(again.tokens, first.tokens);
    assert!(again.cached_tokens * 100 >= again.prompt_tokens * 85, "{again:?}");
    assert_eq!(other.tokens, ask(&tiny(), "two").tokens, "the answer is the one without a cache");
    assert!(other.cached_tokens > 140, "{other:?}");
    // A plain text is kept as a whole.
    let plain = "letters ".repeat(20);
    let whole = run(&cached(), &[&plain], &options).remove(0);
    let from_disk = run(&cached(), &[&plain], &options).remove(0);
    assert_eq!((from_disk.cached_tokens, &from_disk.tokens), (whole.prompt_tokens - 1, &whole.tokens));
    // What lies there is believed only as far as it is whole.
    for file in std::fs::read_dir(folder.path().join("cache")).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    let damaged = ask(&cached(), "one");
    assert_eq!((damaged.cached_tokens, &damaged.tokens), (0, &first.tokens));
}
