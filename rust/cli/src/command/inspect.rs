//! `fastq inspect`: what is in a model file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use fastq_core::gguf::{Gguf, OpenOptions, Value};
use serde_json::{Map, json};

use crate::terminal::{self, Outcome, bytes, count, one_line};
use crate::report::table;

/// Show what a model file contains
#[derive(Args)]
pub(crate) struct Arguments {
    /// A GGUF file; of a split model, the first
    model: PathBuf,
    /// List the tensors
    #[arg(long)]
    tensors: bool,
    /// List the metadata
    #[arg(long)]
    metadata: bool,
    /// Print one JSON object (with --metadata and --tensors: complete)
    #[arg(long)]
    json: bool,
}

/// Items of an array that the text form shows.
const SHOWN_ITEMS: usize = 6;
/// Characters of a string that the text form shows.
const SHOWN_CHARACTERS: usize = 100;

pub(crate) fn run(arguments: Arguments) -> Outcome<u8> {
    let file = Gguf::open(&arguments.model, &OpenOptions::default())?;
    if arguments.json { print_json(&file, &arguments)? } else { print_text(&file, &arguments)? }
    Ok(0)
}

/// Per tensor type: number of tensors, weights and bytes.
fn types(file: &Gguf) -> BTreeMap<&'static str, (u64, u64, u64)> {
    let mut types = BTreeMap::new();
    for tensor in file.tensors() {
        let entry: &mut (u64, u64, u64) = types.entry(tensor.ty.name()).or_default();
        entry.0 += 1;
        entry.1 = entry.1.saturating_add(tensor.elements());
        entry.2 = entry.2.saturating_add(tensor.bytes);
    }
    types
}

/// What most people look for: key after `general.` or `ARCHITECTURE.`, and what to call it.
const SUMMARY: [(&str, &str); 11] = [
    ("general.name", "name"),
    ("general.architecture", "architecture"),
    ("{}.context_length", "context"),
    ("{}.block_count", "layers"),
    ("{}.embedding_length", "width"),
    ("{}.feed_forward_length", "feed-forward width"),
    ("{}.expert_count", "experts"),
    ("{}.expert_used_count", "experts per token"),
    ("{}.attention.head_count", "heads"),
    ("{}.attention.head_count_kv", "key/value heads"),
    ("tokenizer.ggml.model", "tokenizer"),
];

fn print_text(file: &Gguf, arguments: &Arguments) -> Outcome {
    let architecture = match file.get("general.architecture") {
        Some(Value::String(name)) => String::from_utf8_lossy(name).into_owned(),
        _ => String::new(),
    };
    let types = types(file);
    let weights = types.values().fold(0u64, |sum, t| sum.saturating_add(t.1));
    let tensor_bytes = types.values().fold(0u64, |sum, t| sum.saturating_add(t.2));
    let mut lines = vec![format!("{:20} {}", "file", one_line(&arguments.model.display().to_string()))];
    let mut line = |name: &str, value: String| lines.push(format!("{name:20} {}", one_line(&value)));
    let shards = file.paths().len();
    let split = if shards > 1 { format!(" in {shards} files") } else { String::new() };
    line("format", format!("GGUF version {}, {}{split}", file.version(), bytes(file.file_bytes())));
    for (key, name) in SUMMARY {
        if let Some(value) = file.get(&key.replace("{}", &architecture)) {
            line(name, text(value));
        }
    }
    let bits = if weights > 0 { format!(", {:.2} bits per weight", tensor_bytes as f64 * 8.0 / weights as f64) } else { String::new() };
    line("weights", format!("{} in {} tensors{bits}", count(weights), file.tensors().len()));
    let mut by_size: Vec<_> = types.into_iter().collect();
    by_size.sort_by_key(|(_, (_, _, bytes))| std::cmp::Reverse(*bytes));
    for (ty, (tensors, weights, size)) in by_size {
        line(&format!("  {ty}"), format!("{tensors} tensors, {}, {}", count(weights), bytes(size)));
    }
    line("metadata", format!("{} keys", file.metadata().len()));
    terminal::print_line(&lines.join("\n"))?;
    if arguments.metadata {
        let rows: Vec<_> =
            file.metadata().map(|(key, value)| vec![one_line(key), value.describe(), text(value)]).collect();
        terminal::print_line(&format!("\n{}", table(&["key", "type", "value"], &rows)))?;
    }
    if arguments.tensors {
        let rows: Vec<_> = file
            .tensors()
            .iter()
            .map(|t| {
                let shape = t.shape.iter().map(u64::to_string).collect::<Vec<_>>().join(" × ");
                vec![one_line(&t.name), t.ty.name().to_owned(), shape, t.bytes.to_string(), t.offset.to_string()]
            })
            .collect();
        terminal::print_line(&format!("\n{}", table(&["tensor", "type", "shape", "bytes", "offset"], &rows)))?;
    }
    Ok(())
}

/// A value for people, shortened.
fn text(value: &Value) -> String {
    match value {
        Value::Array(array) => {
            let items: Vec<String> = array.iter().take(SHOWN_ITEMS).map(|item| text(&item)).collect();
            let more = if array.len() > SHOWN_ITEMS { format!(", … {} more", array.len() - SHOWN_ITEMS) } else { String::new() };
            format!("[{}{more}]", items.join(", "))
        }
        Value::String(raw) => {
            let whole = String::from_utf8_lossy(raw);
            let mut shown: String = whole.chars().take(SHOWN_CHARACTERS).collect();
            if shown.len() < whole.len() {
                shown.push('…');
            }
            one_line(&shown)
        }
        Value::F32(v) => v.to_string(),
        Value::F64(v) => v.to_string(),
        Value::Bool(v) => v.to_string(),
        other => other.integer().map(|v| v.to_string()).unwrap_or_default(),
    }
}

/// A value as JSON, complete. Numbers that JSON has not (NaN, infinities) become strings, bytes that are no UTF-8 U+FFFD.
fn to_json(value: &Value) -> serde_json::Value {
    let float = |v: f64| serde_json::Number::from_f64(v).map_or_else(|| json!(v.to_string()), serde_json::Value::Number);
    match value {
        Value::Array(array) => array.iter().map(|item| to_json(&item)).collect(),
        Value::String(raw) => json!(String::from_utf8_lossy(raw)),
        // By way of its shortest decimal form: 0.1f32 is 0.1, not 0.10000000149.
        Value::F32(v) => float(v.to_string().parse().unwrap_or(f64::from(*v))),
        Value::F64(v) => float(*v),
        Value::Bool(v) => json!(v),
        Value::U64(v) => json!(v),
        other => json!(other.integer().and_then(|v| i64::try_from(v).ok())),
    }
}

fn print_json(file: &Gguf, arguments: &Arguments) -> Outcome {
    let types: Map<String, serde_json::Value> = types(file)
        .into_iter()
        .map(|(ty, (tensors, weights, size))| (ty.to_owned(), json!({ "tensors": tensors, "weights": weights, "bytes": size })))
        .collect();
    let mut object = json!({
        "path": arguments.model.display().to_string(),
        "version": file.version(),
        "alignment": file.alignment(),
        "file_bytes": file.file_bytes(),
        "files": file.paths().len(),
        "weights": file.tensors().iter().fold(0u64, |sum, t| sum.saturating_add(t.elements())),
        "types": types,
    });
    if arguments.metadata {
        object["metadata"] = file.metadata().map(|(key, value)| (key.to_owned(), to_json(value))).collect::<Map<_, _>>().into();
    }
    if arguments.tensors {
        let tensors = file.tensors().iter().map(|t| {
            json!({ "name": t.name, "type": t.ty.name(), "shape": t.shape, "offset": t.offset, "bytes": t.bytes })
        });
        object["tensors"] = tensors.collect();
    }
    terminal::print_json(&object)
}
