//! Options that several commands share.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use fastq_core::generate::{DEFAULT_MAX_TOKENS, GenerationOptions};
use fastq_core::model::arch::Architecture;
use fastq_core::model::arch::description::described;
use fastq_core::sampler::{SamplerOptions, StageName, random_seed};
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
    #[arg(long, visible_alias = "temp", value_name = "T", default_value_t = SamplerOptions::default().temperature, allow_negative_numbers = true)]
    pub(crate) temperature: f32,
    /// Let the temperature go this far down and up with the entropy of the candidates; 0 is off
    #[arg(long, value_name = "X", default_value_t = SamplerOptions::default().dynatemp_range, allow_negative_numbers = true)]
    pub(crate) dynatemp_range: f32,
    /// Power of the entropy by which it goes
    #[arg(long, visible_alias = "dynatemp-exp", value_name = "X", default_value_t = SamplerOptions::default().dynatemp_exponent, allow_negative_numbers = true)]
    pub(crate) dynatemp_exponent: f32,
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
    #[arg(long, visible_alias = "typical", value_name = "P", default_value_t = SamplerOptions::default().typical_p, allow_negative_numbers = true)]
    pub(crate) typical_p: f32,
    /// Keep the tokens at most N standard deviations below the largest logit; 0 and below is off
    #[arg(long, visible_alias = "top-nsigma", value_name = "N", default_value_t = SamplerOptions::default().top_n_sigma, allow_negative_numbers = true)]
    pub(crate) top_n_sigma: f32,
    /// How often to drop the most likely tokens (exclude top choices); 0 is off
    #[arg(long, value_name = "P", default_value_t = SamplerOptions::default().xtc_probability, allow_negative_numbers = true)]
    pub(crate) xtc_probability: f32,
    /// How likely those are, of which the least likely one stays; above 0.5 is off
    #[arg(long, value_name = "P", default_value_t = SamplerOptions::default().xtc_threshold, allow_negative_numbers = true)]
    pub(crate) xtc_threshold: f32,
    /// Cut by surprise, with version 1 or 2 of mirostat, instead of top-k, top-p and the like; 0 is off
    #[arg(long, value_name = "VERSION", default_value_t = SamplerOptions::default().mirostat, allow_negative_numbers = true)]
    pub(crate) mirostat: u32,
    /// Surprise in bits per token that mirostat aims at
    #[arg(long, visible_alias = "mirostat-ent", value_name = "X", default_value_t = SamplerOptions::default().mirostat_tau, allow_negative_numbers = true)]
    pub(crate) mirostat_tau: f32,
    /// Learning rate of mirostat
    #[arg(long, visible_alias = "mirostat-lr", value_name = "X", default_value_t = SamplerOptions::default().mirostat_eta, allow_negative_numbers = true)]
    pub(crate) mirostat_eta: f32,
    /// Divide the logits of recent tokens by this; 1 is off
    #[arg(long, value_name = "X", default_value_t = SamplerOptions::default().repeat_penalty, allow_negative_numbers = true)]
    pub(crate) repeat_penalty: f32,
    /// How many recent tokens the penalties look at; -1 is all
    #[arg(long, value_name = "N", default_value = "64", allow_negative_numbers = true, value_parser = last_n)]
    pub(crate) repeat_last_n: usize,
    /// Subtract this from the logit of every recent token
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    pub(crate) presence_penalty: f32,
    /// Subtract this from the logit of a recent token for each time it occurred
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    pub(crate) frequency_penalty: f32,
    /// Subtract this from the logit of a token that would go on with a repetition of several tokens (DRY); 0 is off
    #[arg(long, value_name = "X", default_value_t = SamplerOptions::default().dry_multiplier, allow_negative_numbers = true)]
    pub(crate) dry_multiplier: f32,
    /// Multiply that by this for each token that the repetition is longer than allowed
    #[arg(long, value_name = "X", default_value_t = SamplerOptions::default().dry_base, allow_negative_numbers = true)]
    pub(crate) dry_base: f32,
    /// How long a repetition may be that goes on for nothing
    #[arg(long, value_name = "N", default_value_t = SamplerOptions::default().dry_allowed_length, allow_negative_numbers = true)]
    pub(crate) dry_allowed_length: usize,
    /// How many recent tokens DRY looks at; -1 is all, 0 is off
    #[arg(long, value_name = "N", default_value = "-1", allow_negative_numbers = true, value_parser = last_n)]
    pub(crate) dry_penalty_last_n: usize,
    /// Text across which DRY sees no repetition, instead of line end, colon, quotation mark and asterisk; may be given several times;
    /// none is no such text
    #[arg(long, value_name = "TEXT")]
    pub(crate) dry_sequence_breaker: Vec<String>,
    /// Stages in the order to apply them in, separated by ';'; those that are left out are off
    /// [default: penalties;dry;top_n_sigma;top_k;typical_p;top_p;min_p;xtc;temperature]
    #[arg(long, value_name = "NAMES", value_parser = Chain::parse)]
    pub(crate) samplers: Option<Chain>,
    /// Add X to the logit of token ID (-inf forbids it); may be given several times
    #[arg(long, value_name = "ID=X", value_parser = bias)]
    pub(crate) logit_bias: Vec<(u32, f32)>,
    /// Seed of the random numbers [default: a new one, told in the summary]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

/// The stages that `--samplers` names.
#[derive(Clone, Debug)]
pub(crate) struct Chain(Vec<StageName>);

impl Chain {
    fn parse(text: &str) -> Result<Chain, String> {
        let names = text.split(';').map(str::trim).filter(|name| !name.is_empty());
        StageName::chain(names).map(Chain).map_err(|error| error.to_string())
    }
}

/// A number of last tokens; -1 is all, as in llama.cpp.
fn last_n(text: &str) -> Result<usize, String> {
    match text {
        "-1" => Ok(usize::MAX),
        _ => text.parse().map_err(|_| "expected a whole number of at least 0, or -1 for all".to_owned()),
    }
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
        let breakers = match self.dry_sequence_breaker.as_slice() {
            [] => SamplerOptions::default().dry_sequence_breakers,
            [none] if none == "none" => Vec::new(),
            breakers => breakers.to_vec(),
        };
        GenerationOptions {
            max_tokens: self.max_tokens.or(max_tokens),
            stop: self.stop.clone(),
            ignore_eos: self.ignore_eos,
            special: self.special,
            sampler: SamplerOptions {
                temperature: self.temperature,
                dynatemp_range: self.dynatemp_range,
                dynatemp_exponent: self.dynatemp_exponent,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                typical_p: self.typical_p,
                top_n_sigma: self.top_n_sigma,
                xtc_probability: self.xtc_probability,
                xtc_threshold: self.xtc_threshold,
                mirostat: self.mirostat,
                mirostat_tau: self.mirostat_tau,
                mirostat_eta: self.mirostat_eta,
                repeat_penalty: self.repeat_penalty,
                repeat_last_n: self.repeat_last_n,
                presence_penalty: self.presence_penalty,
                frequency_penalty: self.frequency_penalty,
                dry_multiplier: self.dry_multiplier,
                dry_base: self.dry_base,
                dry_allowed_length: self.dry_allowed_length,
                dry_penalty_last_n: self.dry_penalty_last_n,
                dry_sequence_breakers: breakers,
                chain: self.samplers.as_ref().map(|chain| chain.0.clone()),
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        sampling: SamplingArguments,
    }

    fn sampler(arguments: &[&str]) -> Result<SamplerOptions, String> {
        let line = Line::try_parse_from([&["fastq"], arguments].concat()).map_err(|error| error.to_string())?;
        Ok(line.sampling.options(None).sampler)
    }

    #[test]
    fn without_flags_the_options_are_the_defaults() {
        let options = sampler(&["--seed", "0"]).unwrap();
        assert_eq!(options, SamplerOptions::default());
    }

    #[test]
    fn llama_cpp_s_flags_are_understood() {
        let options = sampler(&[
            "--temp",
            "0.7",
            "--dynatemp-range",
            "0.2",
            "--dynatemp-exp",
            "1.5",
            "--typical",
            "0.9",
            "--top-nsigma",
            "1.25",
            "--xtc-probability",
            "0.5",
            "--xtc-threshold",
            "0.2",
            "--mirostat",
            "2",
            "--mirostat-ent",
            "4",
            "--mirostat-lr",
            "0.2",
            "--dry-multiplier",
            "0.8",
            "--dry-base",
            "2",
            "--dry-allowed-length",
            "3",
            "--dry-penalty-last-n",
            "512",
            "--dry-sequence-breaker",
            "\n",
            "--dry-sequence-breaker",
            "end",
            "--samplers",
            "dry;typ_p; temperature",
            "--repeat-last-n",
            "-1",
            "--seed",
            "5",
        ]);
        let expected = SamplerOptions {
            temperature: 0.7,
            dynatemp_range: 0.2,
            dynatemp_exponent: 1.5,
            typical_p: 0.9,
            top_n_sigma: 1.25,
            xtc_probability: 0.5,
            xtc_threshold: 0.2,
            mirostat: 2,
            mirostat_tau: 4.0,
            mirostat_eta: 0.2,
            dry_multiplier: 0.8,
            dry_base: 2.0,
            dry_allowed_length: 3,
            dry_penalty_last_n: 512,
            dry_sequence_breakers: vec!["\n".into(), "end".into()],
            chain: Some(vec![StageName::Dry, StageName::Typical, StageName::Temperature]),
            repeat_last_n: usize::MAX,
            seed: 5,
            ..SamplerOptions::default()
        };
        assert_eq!(options.unwrap(), expected);
        let none =
            sampler(&["--dry-sequence-breaker", "none", "--dry-penalty-last-n", "-1", "--samplers", ""]).unwrap();
        assert_eq!(none.dry_sequence_breakers, Vec::<String>::new());
        assert_eq!((none.dry_penalty_last_n, none.chain), (usize::MAX, Some(Vec::new())));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (arguments, part) in [
            (["--samplers", "top_k;nucleus"], "\"nucleus\""),
            (["--samplers", "xtc;xtc"], "at most once"),
            (["--dry-penalty-last-n", "-2"], "or -1 for all"),
            (["--mirostat", "-1"], "--mirostat"),
        ] {
            let error = sampler(&arguments).unwrap_err();
            assert!(error.contains(part), "{arguments:?}: {error}");
        }
    }
}
