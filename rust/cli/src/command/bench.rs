//! `fastq bench`: how fast a model is on this machine.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use fastq_core::sampler::philox::philox4x32_10;
use fastq_core::{BatchItem, Interrupt, KvFormat, LoadOptions, Logits, Model, Sequence};
use serde_json::{Value, json};

use crate::options::{kv_formats, model_path, usage};
use crate::report::{Statistics, table, warn};
use crate::signals::Computing;
use crate::terminal::{self, Outcome, bytes, seconds};

/// Measure the speed of a model
///
/// Per thread count and format of the KV cache: loads the model, and for each depth computes a prompt of random tokens (prefill), then
/// single tokens (decode), and repeats. Medians, with the range. Without MODEL the default model is measured.
#[derive(Args)]
pub(crate) struct Arguments {
    /// A GGUF file
    model: Option<PathBuf>,
    /// Prompt tokens; 0 leaves prefill out
    #[arg(short, long, value_name = "N", default_value_t = 512)]
    prompt: usize,
    /// Tokens to decode; 0 leaves decode out
    #[arg(short = 'n', long, value_name = "N", default_value_t = 128)]
    decode: usize,
    /// Tokens already in the context before prompt and decode; several in turn
    #[arg(short, long, value_name = "LIST", value_delimiter = ',', default_value = "0")]
    depth: Vec<usize>,
    /// Keys and values of the KV cache, one format after the other
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = KvFormat::default().name(), value_parser = kv_formats())]
    kv: Vec<KvFormat>,
    /// Thread counts, one after the other [default: what the machine grants]
    #[arg(short, long, value_name = "LIST", value_delimiter = ',')]
    threads: Vec<usize>,
    /// Rounds of each measurement
    #[arg(short, long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Read the file into memory instead of mapping it
    #[arg(long)]
    no_mmap: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The measurements for one number of threads, format of the cache and depth.
struct Measured {
    threads: usize,
    kv: KvFormat,
    depth: usize,
    level: &'static str,
    kv_bytes: u64,
    load: Vec<f64>,
    first_token: Vec<f64>,
    prefill: Vec<f64>,
    decode: Vec<f64>,
}

pub(crate) fn run(arguments: Arguments) -> Outcome<u8> {
    if arguments.rounds == 0 {
        return usage("--rounds must be at least 1");
    }
    if arguments.prompt == 0 && arguments.decode == 0 {
        return usage("--prompt 0 with --decode 0 leaves nothing to measure");
    }
    let computing = Computing::begin();
    let path = model_path(arguments.model.as_deref(), &computing)?;
    let threads: Vec<Option<usize>> = match arguments.threads.as_slice() {
        [] => vec![None],
        list => list.iter().copied().map(Some).collect(),
    };
    let mut results = Vec::new();
    for threads in threads {
        for &kv in &arguments.kv {
            results.extend(measure(&path, &arguments, threads, kv, &computing)?);
        }
    }
    if arguments.json { print_json(&path, &arguments, &results) } else { print_text(&path, &arguments, &results) }?;
    Ok(0)
}

/// Random tokens, always the same ones: a repeated token would make the cache of the output rows look good.
fn tokens(count: usize, vocabulary: usize) -> Vec<u32> {
    (0..count).map(|at| philox4x32_10([at as u32, 0, 0, 0], [0, 0])[0] % vocabulary.max(1) as u32).collect()
}

fn forward(
    model: &Model,
    sequence: &mut Sequence,
    tokens: &[u32],
    out: &mut Vec<f32>,
    interrupt: &dyn Interrupt,
) -> Outcome<f64> {
    let start = Instant::now();
    if !tokens.is_empty() {
        model.forward(&mut [BatchItem { sequence, tokens, logits: Logits::Last, out }], interrupt)?;
    }
    Ok(start.elapsed().as_secs_f64())
}

fn measure(
    path: &Path,
    arguments: &Arguments,
    threads: Option<usize>,
    kv: KvFormat,
    interrupt: &dyn Interrupt,
) -> Outcome<Vec<Measured>> {
    let Arguments { prompt, decode, rounds, .. } = *arguments;
    let deepest = arguments.depth.iter().copied().max().unwrap_or(0);
    let context = deepest.saturating_add(prompt.max(decode)).max(1);
    let options =
        LoadOptions { context: Some(context), threads, kv, mmap: !arguments.no_mmap, ..LoadOptions::default() };
    let load = |times: &mut Vec<f64>| -> Outcome<Model> {
        let start = Instant::now();
        let model = Model::load(path, &options, interrupt)?;
        times.push(start.elapsed().as_secs_f64());
        Ok(model)
    };
    let mut load_times = Vec::new();
    let mut model = load(&mut load_times)?;
    if !arguments.json {
        warn(&model);
    }
    for _ in 1..rounds {
        drop(model);
        model = load(&mut load_times)?;
    }
    let vocabulary = model.info().vocabulary;
    let text = tokens(context, vocabulary);
    let mut out = Vec::new();
    let mut results = Vec::new();
    let mut bases = Vec::new();
    for &depth in &arguments.depth {
        let mut base = model.new_sequence();
        let before = model.kv_used_bytes();
        forward(&model, &mut base, &text[..depth], &mut out, interrupt)?;
        results.push(Measured {
            threads: model.threads(),
            kv,
            depth,
            level: model.level().name(),
            kv_bytes: model.kv_used_bytes().saturating_sub(before),
            load: load_times.clone(),
            first_token: Vec::new(),
            prefill: Vec::new(),
            decode: Vec::new(),
        });
        bases.push(base);
    }
    // Once without a clock: pages of the file come into memory, clocks of the processor go up. Only now, because the cache keeps
    // pages that were given back, and what the texts hold is counted by how it grows.
    forward(&model, &mut model.new_sequence(), &text[..context.min(32)], &mut out, interrupt)?;
    // The depths take turns, so that a disturbance hits all alike.
    for round in 0..rounds {
        for (base, measured) in bases.iter().zip(&mut results) {
            let after = &text[measured.depth..];
            if prompt > 0 {
                let took = forward(&model, &mut base.fork(), &after[..prompt], &mut out, interrupt)?;
                measured.prefill.push(prompt as f64 / took);
                measured.first_token.push(measured.load[round] + took);
            }
            if decode > 0 {
                let mut sequence = base.fork();
                let mut took = 0.0;
                for token in after[..decode].chunks(1) {
                    took += forward(&model, &mut sequence, token, &mut out, interrupt)?;
                }
                measured.decode.push(decode as f64 / took);
            }
        }
    }
    Ok(results)
}

fn print_text(path: &Path, arguments: &Arguments, results: &[Measured]) -> Outcome {
    let cell = |values: &[f64], show: fn(f64) -> String| match Statistics::of(values) {
        Some(s) => format!("{} ({}..{})", show(s.median), show(s.min), show(s.max)),
        None => "-".to_owned(),
    };
    let per_second = |v: f64| format!("{v:.1}");
    let rows: Vec<Vec<String>> = results
        .iter()
        .map(|m| {
            vec![
                m.threads.to_string(),
                m.level.to_owned(),
                m.kv.name().to_owned(),
                m.depth.to_string(),
                cell(&m.load, seconds),
                cell(&m.first_token, seconds),
                cell(&m.prefill, per_second),
                cell(&m.decode, per_second),
            ]
        })
        .collect();
    let Arguments { prompt, decode, rounds, .. } = *arguments;
    let prefill = format!("prefill {prompt} t/s");
    let decode = format!("decode {decode} t/s");
    terminal::print_line(&format!("{}, median of {rounds} (range)", terminal::one_line(&path.display().to_string())))?;
    terminal::print_line(&table(&["threads", "level", "kv", "depth", "load", "first token", &prefill, &decode], &rows))?;
    match fastq_core::machine::peak_rss_bytes() {
        Some(peak) => terminal::print_line(&format!("peak resident size {}", bytes(peak))),
        None => Ok(()),
    }
}

fn print_json(path: &Path, arguments: &Arguments, results: &[Measured]) -> Outcome {
    let statistics = |values: &[f64]| Statistics::of(values).map(Statistics::json);
    let results: Vec<Value> = results
        .iter()
        .map(|m| {
            json!({
                "threads": m.threads,
                "level": m.level,
                "kv": m.kv.name(),
                "depth": m.depth,
                "kv_bytes": m.kv_bytes,
                "load_seconds": statistics(&m.load),
                "first_token_seconds": statistics(&m.first_token),
                "prefill_tokens_per_second": statistics(&m.prefill),
                "decode_tokens_per_second": statistics(&m.decode),
            })
        })
        .collect();
    terminal::print_json(&json!({
        "model": path.display().to_string(),
        "prompt": arguments.prompt,
        "decode": arguments.decode,
        "rounds": arguments.rounds,
        "peak_rss_bytes": fastq_core::machine::peak_rss_bytes(),
        "results": results,
    }))
}
