//! Options that several commands share.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use fastq_core::generate::{DEFAULT_MAX_TOKENS, GenerationOptions};
use fastq_core::model::arch::Architecture;
use fastq_core::model::arch::description::described;
use fastq_core::sampler::{SamplerOptions, random_seed};
use fastq_core::{Interrupt, KvFormat, LoadOptions, Model};

use crate::default_model::default_model;
use crate::terminal::{Failure, Outcome};

/// How to load a model.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Model options")]
pub(crate) struct LoadArguments {
    /// Positions per sequence [default: what the model was trained for, as far as memory allows]
    #[arg(short, long, value_name = "N")]
    pub(crate) context: Option<usize>,
    /// Threads [default: what the machine grants]
    #[arg(short, long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    #[command(flatten)]
    pub(crate) kv: KvArguments,
    /// Read the file into memory instead of mapping it
    #[arg(long)]
    pub(crate) no_mmap: bool,
    #[command(flatten)]
    pub(crate) variant: VariantArguments,
}

/// What the model is.
#[derive(Args, Clone, Debug)]
pub(crate) struct VariantArguments {
    /// Run the file as a variant of a known architecture: its name, or a description of how it differs in a .toml file
    #[arg(long, value_name = "NAME|FILE", value_parser = described)]
    pub(crate) architecture: Option<Architecture>,
}

/// What the KV cache stores.
#[derive(Args, Clone, Debug)]
pub(crate) struct KvArguments {
    /// Keys and values of the KV cache: f16, f32 as computed in twice the memory, or q8_0 in about half
    #[arg(long, value_name = "FORMAT", default_value = KvFormat::default().name(), value_parser = kv_formats())]
    pub(crate) kv: KvFormat,
}

/// The formats of the KV cache by name.
pub(crate) fn kv_formats() -> impl TypedValueParser<Value = KvFormat> {
    PossibleValuesParser::new(KvFormat::ALL.iter().map(|format| format.name()))
        .map(|name| KvFormat::from_name(&name).unwrap_or_default())
}

impl LoadArguments {
    /// The engine's options.
    pub(crate) fn options(&self) -> LoadOptions {
        LoadOptions {
            context: self.context,
            threads: self.threads,
            mmap: !self.no_mmap,
            kv: self.kv.kv,
            architecture: self.variant.architecture,
            ..LoadOptions::default()
        }
    }

    /// Loads `path`, or the default model (fetched first if need be).
    pub(crate) fn load(&self, path: Option<&Path>, interrupt: &dyn Interrupt) -> Outcome<Model> {
        let path = model_path(path, interrupt)?;
        Ok(Model::load(&path, &self.options(), interrupt)?)
    }
}

/// `path`, or the path of the default model (fetched first if need be).
pub(crate) fn model_path(path: Option<&Path>, interrupt: &dyn Interrupt) -> Outcome<PathBuf> {
    match path {
        Some(path) => Ok(path.to_path_buf()),
        None => Ok(default_model(true, interrupt)?),
    }
}

/// How to choose tokens and when to end.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Generation options")]
pub(crate) struct SamplingArguments {
    /// The most tokens to generate
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) max_tokens: Option<usize>,
    /// Text that ends the answer; may be given several times
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Go on after the model's end token
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    /// Show control tokens in the answer
    #[arg(long)]
    pub(crate) special: bool,
    /// Randomness; 0 always takes the most likely token
    #[arg(long, value_name = "T", default_value_t = SamplerOptions::default().temperature, allow_negative_numbers = true)]
    pub(crate) temperature: f32,
    /// Choose among the K most likely tokens; 0 is off
    #[arg(long, value_name = "K", default_value_t = SamplerOptions::default().top_k)]
    pub(crate) top_k: usize,
    /// Choose among the most likely tokens that reach probability P together; 1 is off
    #[arg(long, value_name = "P", default_value_t = SamplerOptions::default().top_p, allow_negative_numbers = true)]
    pub(crate) top_p: f32,
    /// Drop tokens less likely than P times the most likely one; 0 is off
    #[arg(long, value_name = "P", default_value_t = SamplerOptions::default().min_p, allow_negative_numbers = true)]
    pub(crate) min_p: f32,
    /// Keep the most typical tokens up to probability P; 1 is off
    #[arg(long, value_name = "P", default_value_t = SamplerOptions::default().typical_p, allow_negative_numbers = true)]
    pub(crate) typical_p: f32,
    /// Divide the logits of recent tokens by this; 1 is off
    #[arg(long, value_name = "X", default_value_t = SamplerOptions::default().repeat_penalty, allow_negative_numbers = true)]
    pub(crate) repeat_penalty: f32,
    /// How many recent tokens the penalties look at
    #[arg(long, value_name = "N", default_value_t = SamplerOptions::default().repeat_last_n)]
    pub(crate) repeat_last_n: usize,
    /// Subtract this from the logit of every recent token
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    pub(crate) presence_penalty: f32,
    /// Subtract this from the logit of a recent token for each time it occurred
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    pub(crate) frequency_penalty: f32,
    /// Add X to the logit of token ID (-inf forbids it); may be given several times
    #[arg(long, value_name = "ID=X", value_parser = bias)]
    pub(crate) logit_bias: Vec<(u32, f32)>,
    /// Seed of the random numbers [default: a new one, told in the summary]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

fn bias(text: &str) -> Result<(u32, f32), String> {
    let (token, bias) = text.split_once('=').ok_or("expected ID=X, for example 42=-1.5")?;
    let token = token.trim().parse().map_err(|_| format!("{token:?} is not a token id"))?;
    let bias = bias.trim().parse().map_err(|_| format!("{bias:?} is not a number"))?;
    Ok((token, bias))
}

impl SamplingArguments {
    /// The engine's options; without `--max-tokens`, at most `max_tokens`.
    pub(crate) fn options(&self, max_tokens: Option<usize>) -> GenerationOptions {
        GenerationOptions {
            max_tokens: self.max_tokens.or(max_tokens),
            stop: self.stop.clone(),
            ignore_eos: self.ignore_eos,
            special: self.special,
            sampler: SamplerOptions {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                typical_p: self.typical_p,
                repeat_penalty: self.repeat_penalty,
                repeat_last_n: self.repeat_last_n,
                presence_penalty: self.presence_penalty,
                frequency_penalty: self.frequency_penalty,
                logit_bias: self.logit_bias.clone(),
                seed: self.seed.unwrap_or_else(random_seed),
            },
            ..GenerationOptions::default()
        }
    }
}

/// What `fastq run` answers with at most.
pub(crate) const RUN_MAX_TOKENS: usize = DEFAULT_MAX_TOKENS;

/// What a text file holds.
pub(crate) fn text_of(path: &Path) -> Outcome<String> {
    let bytes =
        std::fs::read(path).map_err(|error| Failure::Error(format!("cannot read {}: {error}", path.display())))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::Error(format!("{}: expected text in UTF-8, found an invalid byte at {at}", path.display()))
    })
}

/// A usage error with exit code 2.
pub(crate) fn usage<T>(message: impl Into<String>) -> Outcome<T> {
    Err(Failure::Usage(message.into()))
}
