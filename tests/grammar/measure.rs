//! What grammars cost: `cargo test --release --test grammar measure -- --ignored --nocapture`.

#![allow(clippy::print_stdout, reason = "it measures")]

use std::time::{Duration, Instant};

use fastq_core::grammar::GrammarSource;
use serde_json::Value;

use super::schema_generator::generate;
use super::schema_table::CASES;
use super::support::{Random, draw_with, real};

/// Time per mask, sorted.
fn report(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let mean = times.iter().sum::<Duration>() / times.len() as u32;
    let at = |share: usize| times[(times.len() - 1) * share / 1_000];
    println!(
        "{name}: {} masks, mean {mean:.0?}, median {:.0?}, 99 % {:.0?}, most {:.0?}",
        times.len(),
        at(500),
        at(990),
        at(1_000)
    );
}

#[test]
#[ignore = "measures; a busy machine says nothing"]
fn masks_and_vocabularies() {
    for name in ["smollm2", "gemma3"] {
        let start = Instant::now();
        let Some(model) = real(name) else { return };
        let tokens = model.tokenizer.vocab_size();
        println!("{name}: {tokens} tokens; file, tokenizer and trie ready after {:.0?}", start.elapsed());
        let start = Instant::now();
        let again = fastq_core::grammar::GrammarVocabulary::new(model.tokenizer.clone()).unwrap();
        println!("{name}: trie {:.0?}", start.elapsed());
        drop(again);
        let mut schemas: Vec<Value> = CASES.iter().map(|case| serde_json::from_str(case.0).unwrap()).collect();
        schemas.extend((0..100).map(|seed| generate(&mut Random(seed))));
        let mut sources: Vec<GrammarSource> = schemas.into_iter().map(GrammarSource::JsonSchema).collect();
        let schemas = sources.len();
        sources.push(GrammarSource::Regex(r"[A-Z][a-z ]{20,200}\.".into()));
        sources.push(GrammarSource::Gbnf(super::gbnf::JSON.into()));
        let (mut masks, mut compiles, mut starts, mut applied) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (index, source) in sources.iter().enumerate() {
            let start = Instant::now();
            let grammar = model.compile(source).unwrap();
            compiles.push(start.elapsed());
            let start = Instant::now();
            let matcher = grammar.matcher();
            starts.push(start.elapsed());
            drop(matcher);
            let mut times = Vec::new();
            for seed in 0..3 {
                draw_with(&model, &grammar, seed, 300, &mut |matcher, logits| {
                    let start = Instant::now();
                    matcher.prepare().unwrap();
                    times.push(start.elapsed());
                    let start = Instant::now();
                    matcher.mask(logits).unwrap();
                    applied.push(start.elapsed());
                });
            }
            if index >= schemas {
                report(&format!("{name} {source:.40?}"), times.clone());
            }
            masks.extend(times);
        }
        report(&format!("{name} all masks"), masks);
        report(&format!("{name} applying a mask"), applied);
        report(&format!("{name} compiling"), compiles);
        report(&format!("{name} beginning an answer"), starts);
    }
}
