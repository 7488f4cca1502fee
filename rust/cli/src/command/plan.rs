//! `fastq plan`: how much memory a model will need, before it is loaded.

use std::path::{Path, PathBuf};

use clap::Args;
use fastq_core::LoadOptions;
use fastq_core::gguf::{Gguf, OpenOptions};
use fastq_core::kv_cache::MAX_SNAPSHOTS;
use fastq_core::memory::MemoryPlan;
use fastq_core::model;
use serde_json::{Value, json};

use crate::options::{KvArguments, VariantArguments};
use crate::report::table;
use crate::terminal::{self, Outcome, bytes, one_line};

/// Compute the memory a model needs, without loading it
///
/// Exit code 1 when it does not fit what is free; the message says which context would.
#[derive(Args)]
pub(crate) struct Arguments {
    /// A GGUF file
    model: PathBuf,
    /// Positions per sequence [default: what the model was trained for, as far as memory allows]
    #[arg(short, long, value_name = "N")]
    context: Option<usize>,
    #[command(flatten)]
    kv: KvArguments,
    /// Plan for reading the file into memory instead of mapping it
    #[arg(long)]
    no_mmap: bool,
    #[command(flatten)]
    variant: VariantArguments,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: Arguments) -> Outcome<u8> {
    // Mapped in any case: nothing but the header is read.
    let file = Gguf::open(&arguments.model, &OpenOptions::default())?;
    let options = LoadOptions {
        context: arguments.context,
        mmap: !arguments.no_mmap,
        kv: arguments.kv.kv,
        architecture: arguments.variant.architecture,
        ..LoadOptions::default()
    };
    let plan = model::plan(&file, &options)?;
    if arguments.json {
        terminal::print_json(&to_json(&arguments.model, &plan))?;
    } else {
        terminal::print_line(&to_text(&arguments.model, &plan))?;
    }
    Ok(0)
}

fn to_text(path: &Path, plan: &MemoryPlan) -> String {
    let mut rows = vec![vec![
        "weights".to_owned(),
        bytes(plan.weights_bytes),
        if plan.weights_mapped { "mapped: file cache, shared and dropped by the system as needed" } else { "read into memory" }
            .to_owned(),
    ]];
    for group in &plan.kv {
        let sees = group.window.map_or("all positions".to_owned(), |window| format!("a window of {window} positions"));
        rows.push(vec!["kv cache".to_owned(), bytes(group.bytes), format!("{}, {} layers that see {sees}", plan.kv_format.name(), group.layers)]);
    }
    if plan.state_bytes > 0 {
        let note = format!("at any context: two that take turns, {MAX_SNAPSHOTS} snapshots");
        rows.push(vec!["recurrent state".to_owned(), bytes(plan.state_bytes), note]);
    }
    rows.push(vec!["working memory".to_owned(), bytes(plan.scratch_bytes), String::new()]);
    rows.push(vec!["must be free".to_owned(), bytes(plan.total_bytes), String::new()]);
    if let Some(available) = plan.available_bytes {
        rows.push(vec!["is free".to_owned(), bytes(available), String::new()]);
    }
    if let Some(warning) = &plan.warning {
        rows.push(vec!["warning".to_owned(), String::new(), warning.clone()]);
    }
    let context = format!("context {} of {} trained", plan.context, plan.trained_context);
    format!("{}, {context}\n{}", one_line(&path.display().to_string()), table(&["", "", ""], &rows).trim_start_matches('\n'))
}

fn to_json(path: &Path, plan: &MemoryPlan) -> Value {
    let kv = plan.kv.iter().map(|group| {
        json!({
            "window": group.window,
            "layers": group.layers,
            "pages": group.pages,
            "page_bytes": group.page_bytes,
            "bytes": group.bytes,
        })
    });
    json!({
        "model": path.display().to_string(),
        "context": plan.context,
        "trained_context": plan.trained_context,
        "weights_bytes": plan.weights_bytes,
        "weights_mapped": plan.weights_mapped,
        "kv_format": plan.kv_format.name(),
        "kv": kv.collect::<Vec<_>>(),
        "kv_bytes": plan.kv_bytes,
        "state_bytes": plan.state_bytes,
        "scratch_bytes": plan.scratch_bytes,
        "total_bytes": plan.total_bytes,
        "available_bytes": plan.available_bytes,
        "warning": plan.warning,
    })
}
