//! `fastq convert`: a checkpoint of transformers as a GGUF file.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use fastq_core::convert::{Conversion, ConvertOptions, Dtype, convert};
use serde_json::json;

use crate::progress::Bar;
use crate::signals::Computing;
use crate::terminal::{self, Outcome, bytes, count, one_line};

/// Convert a Hugging Face checkpoint to GGUF, without PyTorch
///
/// The folder holds config.json, safetensors files and a tokenizer. Checkpoints that GPTQ, AWQ, compressed-tensors or MLX have quantized
/// to four bits keep their integers.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The folder of the checkpoint
    directory: PathBuf,
    /// The GGUF file to write
    out: PathBuf,
    /// Type of the matrices; auto: as in the checkpoint
    #[arg(long, value_name = "TYPE", default_value = "auto", value_parser = dtypes())]
    dtype: Dtype,
    /// How words are cut (tokenizer.ggml.pre), where that does not follow from the tokenizer
    #[arg(long, value_name = "NAME")]
    pre: Option<String>,
    /// Name of the model in the file [default: that of the folder]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

fn dtypes() -> impl TypedValueParser<Value = Dtype> {
    PossibleValuesParser::new(Dtype::ALL.map(|(name, _)| name)).try_map(|name| Dtype::from_name(&name))
}

pub(crate) fn run(arguments: Arguments) -> Outcome<u8> {
    let Arguments { directory, out, dtype, pre, name, json, quiet } = arguments;
    let options = ConvertOptions { dtype, pre, name };
    let computing = Computing::begin();
    let done = {
        let bar = Bar::new(quiet);
        convert(&directory, &out, &options, &computing, &bar)?
    };
    for note in &done.notes {
        let note = one_line(&format!("{}: {}", note.subject, note.text));
        terminal::note(&format!("{} {note}", terminal::style("1;33", "warning:")));
    }
    if json {
        terminal::print_json(&to_json(&done))?;
    } else {
        terminal::print_line(&format!("{}: {}", one_line(&out.display().to_string()), to_text(&done)))?;
    }
    Ok(0)
}

fn to_text(done: &Conversion) -> String {
    let types: Vec<String> = done.types.iter().map(|(name, tensors)| format!("{tensors} {name}")).collect();
    let (weights, size) = (count(done.parameters), bytes(done.bytes));
    format!("{}, {weights} weights, {} tensors ({}), {size}", done.architecture, done.tensors, types.join(", "))
}

fn to_json(done: &Conversion) -> serde_json::Value {
    let notes = done.notes.iter().map(|note| json!({ "subject": note.subject, "text": note.text }));
    json!({
        "architecture": done.architecture,
        "tensors": done.tensors,
        "parameters": done.parameters,
        "bytes": done.bytes,
        "types": done.types,
        "notes": notes.collect::<Vec<_>>(),
    })
}
