//! `fastq eval`: how good a model is.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use fastq_core::evaluate::{Divergence, Estimate, Options, Perplexity, kl_divergence, perplexity};
use fastq_core::{LoadOptions, Model};

use crate::options::text_of;
use crate::progress::Bar;
use crate::report::table;
use crate::signals::Computing;
use crate::terminal::{self, Outcome};

/// Measure how good a model is on a text
///
/// Texts are cut and scored as by llama-perplexity of llama.cpp, so figures can be compared with its.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Perplexity: how surprised a model is by a text; less is better
    Ppl {
        /// A GGUF file
        model: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    /// Divergence of a quantized model from its base: how much its answers change; less is better
    Kld {
        /// The GGUF file that the other one was made of
        base: PathBuf,
        /// The quantized GGUF file
        quant: PathBuf,
        #[command(flatten)]
        common: Common,
    },
}

/// What both take.
#[derive(Args)]
struct Common {
    /// A text file
    text: PathBuf,
    /// Tokens of a chunk, of which the second half is scored
    #[arg(short, long, value_name = "N", default_value_t = Options::default().context)]
    context: usize,
    /// The most chunks to compute [default: the whole text]
    #[arg(long, value_name = "N")]
    chunks: Option<usize>,
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
    let computing = Computing::begin();
    let (What::Ppl { common, .. } | What::Kld { common, .. }) = &arguments.what;
    let text = text_of(&common.text)?;
    let load = LoadOptions { context: Some(common.context), threads: common.threads, ..LoadOptions::default() };
    let options = Options { context: common.context, chunks: common.chunks };
    let bar = Bar::new(common.quiet);
    let (record, shown) = match &arguments.what {
        What::Ppl { model, .. } => {
            let model = Model::load(model, &load, &computing)?;
            let result = perplexity(&model, &text, options, &computing, &bar)?;
            (result.to_json(), perplexity_text(&result))
        }
        What::Kld { base, quant, .. } => {
            let base = Model::load(base, &load, &computing)?;
            let quant = Model::load(quant, &load, &computing)?;
            let result = kl_divergence(&base, &quant, &text, options, &computing, &bar)?;
            (result.to_json(), divergence_text(&result))
        }
    };
    drop(bar);
    match common.json {
        true => terminal::print_json(&record)?,
        false => terminal::print_line(&shown)?,
    }
    Ok(0)
}

fn perplexity_text(result: &Perplexity) -> String {
    let Estimate { value, error } = result.ppl;
    let (tokens, chunks) = (result.tokens, result.chunks);
    format!("perplexity {value:.4} ± {error:.4} ({tokens} tokens of {chunks} chunks)")
}

fn divergence_text(result: &Divergence) -> String {
    let plain = |value: f64| format!("{value:.6}");
    let estimate = |e: Estimate| format!("{:.6} ± {:.6}", e.value, e.error);
    let percent = |e: Estimate| format!("{:.3} ± {:.3} %", 100.0 * e.value, 100.0 * e.error);
    let rows = [
        ("mean KL divergence", estimate(result.mean)),
        ("median", plain(result.median)),
        ("90 %", plain(result.p90)),
        ("99 %", plain(result.p99)),
        ("99.9 %", plain(result.p999)),
        ("maximum", plain(result.max)),
        ("same likeliest token", percent(result.same_top)),
        ("perplexity of the base", estimate(result.ppl_base)),
        ("perplexity", estimate(result.ppl)),
        ("ratio of the perplexities", estimate(result.ppl_ratio)),
        ("RMS of Δp", percent(result.rms_delta_p)),
        ("mean of Δp", percent(result.mean_delta_p)),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    format!("{}\n{} tokens of {} chunks", table(&["", "value"], &rows), result.tokens, result.chunks)
}
