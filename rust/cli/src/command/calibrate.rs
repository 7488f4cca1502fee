//! `fastq calibrate`: an importance matrix.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use fastq_core::calibrate::{Options, calibrate, write_grams};
use fastq_core::{LoadOptions, Model};
use serde_json::json;

use crate::options::text_of;
use crate::progress::Bar;
use crate::signals::Computing;
use crate::terminal::{self, Outcome, seconds};

/// Learn from a text which weights matter
///
/// Writes an importance matrix for `fastq quantize --imatrix` (and llama-quantize): the mean square of every input of every matrix on the text. Some
/// 20,000 tokens of what the model will be used for are enough.
#[derive(Args)]
pub(crate) struct Arguments {
    /// A GGUF file in F16, BF16 or F32
    model: PathBuf,
    /// A text file; with --chat, a JSON list of messages per line
    text: PathBuf,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The most chunks to compute [default: the whole text]
    #[arg(long, value_name = "N")]
    chunks: Option<usize>,
    /// Tokens of a chunk
    #[arg(long, value_name = "N", default_value_t = Options::default().chunk_size)]
    chunk_size: usize,
    /// The text holds conversations, to be written by the chat template of the model
    #[arg(long)]
    chat: bool,
    /// Write Gram matrices instead, for `fastq quantize --calibration`: what the methods feedback, awq and auto need to know of a text
    #[arg(long)]
    gram: bool,
    /// Look at the inputs of the output matrix, too
    #[arg(long)]
    process_output: bool,
    /// Threads [default: what the machine grants]
    #[arg(short, long, value_name = "N")]
    threads: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(arguments: Arguments) -> Outcome<u8> {
    let start = Instant::now();
    let computing = Computing::begin();
    let Arguments { chunk_size, chunks, process_output, chat, threads, .. } = arguments;
    let text = text_of(&arguments.text)?;
    let load = LoadOptions { context: Some(chunk_size), threads, ..LoadOptions::default() };
    let model = Model::load(&arguments.model, &load, &computing)?;
    let bar = Bar::new(arguments.quiet);
    let options = Options { chunk_size, chunks, process_output, chat };
    let dataset = arguments.text.to_string_lossy().into_owned();
    let (entries, count, bytes) = if arguments.gram {
        let written = write_grams(&model, &[text], &[dataset], options, &arguments.output, &computing, &bar)?;
        (written.inputs, written.chunks, written.bytes)
    } else {
        let imatrix = calibrate(&model, &[text], vec![dataset], options, &computing, &bar)?;
        let bytes = imatrix.write(&arguments.output, &computing)?;
        (imatrix.entries.len(), imatrix.chunk_count as usize, bytes)
    };
    drop(bar);
    let (kind, taken) = (if arguments.gram { "inputs" } else { "tensors" }, start.elapsed().as_secs_f64());
    if arguments.json {
        let record = json!({
            "output": arguments.output.to_string_lossy(), kind: entries, "chunks": count, "chunk_size": chunk_size,
            "bytes": bytes, "seconds": taken,
        });
        terminal::print_json(&record)?;
    } else {
        let taken = seconds(taken);
        terminal::print_line(&format!("{entries} {kind}, {count} chunks of {chunk_size} tokens, {bytes} bytes, {taken}"))?;
    }
    Ok(0)
}
