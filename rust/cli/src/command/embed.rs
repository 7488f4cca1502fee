//! `fastq embed`: vectors for texts.

use std::io::{BufRead, stdin};
use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use fastq_core::model::embed::{EmbedOptions, Pooling};
use serde_json::json;

use crate::options::LoadArguments;
use crate::signals::Computing;
use crate::terminal::{self, Failure, Outcome};

/// Turn texts into vectors
///
/// One JSON object per text: {"text": …, "embedding": […]}. Encoders (BERT and its kin) are made for this; any other model works, too.
#[derive(Args)]
pub(crate) struct Arguments {
    /// A GGUF file
    model: PathBuf,
    /// Texts; without any, each line of stdin is one
    texts: Vec<String>,
    /// How one vector is made of those of the tokens [default: what the file says, else mean]
    #[arg(long, value_name = "HOW", value_parser = poolings())]
    pooling: Option<Pooling>,
    /// Do not divide vectors by their length
    #[arg(long)]
    no_normalize: bool,
    /// Shorten texts that exceed the context
    #[arg(long)]
    truncate: bool,
    #[command(flatten)]
    load: LoadArguments,
}

fn poolings() -> impl TypedValueParser<Value = Pooling> {
    PossibleValuesParser::new(Pooling::ALL.map(|(name, _)| name)).try_map(|name| Pooling::from_name(&name))
}

fn lines_of_stdin() -> Outcome<Vec<String>> {
    let lines: Result<Vec<_>, _> = stdin().lock().lines().collect();
    lines.map_err(|error| Failure::Error(format!("cannot read the texts from stdin: {error}")))
}

pub(crate) fn run(arguments: Arguments) -> Outcome<u8> {
    let texts = if arguments.texts.is_empty() { lines_of_stdin()? } else { arguments.texts };
    let computing = Computing::begin();
    let model = arguments.load.load(Some(&arguments.model), &computing)?;
    let Arguments { pooling, no_normalize, truncate, .. } = arguments;
    let options = EmbedOptions { pooling, normalize: !no_normalize, truncate };
    let vectors = model.embed_texts(&texts, options, &computing)?;
    for (text, vector) in texts.iter().zip(vectors.chunks_exact(model.info().width)) {
        terminal::print_line(&json!({ "text": text, "embedding": vector }).to_string())?;
    }
    Ok(0)
}
