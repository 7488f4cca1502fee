//! From logits to a token: a chain of stages, one per file.
//!
//! The chain and the meaning of each stage follow llama.cpp (`common_sampler_init` and `llama-sampler.cpp`), so that
//! settings carry over: logit bias → penalties → DRY → top-n-sigma → top-k → typical → top-p → min-p → XTC → temperature → draw.
//! [`SamplerOptions::chain`] is another order of the stages between the bias and the draw; those that it does not name are off.
//! Mirostat takes the place of the stages that cut, at the end. At temperature 0 the largest logit after the penalties and DRY is taken,
//! whatever the chain, and the cutting stages are left out.
//!
//! A new stage is one file beside `top_k.rs` and one line in `stages!` (`chain.rs`).
//!
//! One answer (DESIGN §3): sums run in a fixed order in f64, exponentials are our own, ties go to the smaller token id,
//! and the random numbers of a draw depend only on the seed and the token's position in its sequence. The same logits
//! therefore give the same token on every machine and in every batch. Penalties, DRY and mirostat look at the tokens before, too, and
//! at nothing else: what they remember changes in [`Sampler::accept`] alone.

mod banned;
mod candidates;
mod chain;
mod draw;
mod dry;
mod logit_bias;
mod logprobs;
mod min_p;
mod mirostat;
mod penalties;
pub mod philox;
mod processor;
mod temperature;
mod token_strings;
mod top_k;
mod top_n_sigma;
mod top_p;
mod typical;
mod xtc;

#[cfg(test)]
mod tests;

pub use banned::{BannedStrings, MAX_BANNED, MAX_STRING_BYTES, MAX_STRINGS_BYTES};
use candidates::Candidates;
pub use chain::StageName;
pub use dry::{DryBreakers, dry_breakers};
pub use logprobs::{MAX_LOGPROBS, TokenLogprobs};
pub use philox::random_seed;
pub use processor::{LogitsProcessor, process};

use crate::{Error, Result};

/// How tokens are chosen. The defaults are the ones of `fastq run` and of `Model.generate`.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerOptions {
    /// Divides the logits; 0 takes the most likely token (greedy), larger is more surprising. At least 0.
    pub temperature: f32,
    /// Dynamic temperature: how far it goes below and above [`temperature`](Self::temperature) where the entropy of the candidates is
    /// small and large. At least 0, which is off.
    pub dynatemp_range: f32,
    /// Power of the entropy, as a share of the largest possible one, that the dynamic temperature goes by. At least 0.
    pub dynatemp_exponent: f32,
    /// Keeps this many most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the most likely tokens whose probabilities together reach this; in (0, 1], 1 keeps all.
    pub top_p: f32,
    /// Drops tokens less likely than this times the most likely one; in [0, 1], 0 keeps all.
    pub min_p: f32,
    /// Keeps the tokens of most typical information up to this probability; in (0, 1], 1 keeps all.
    pub typical_p: f32,
    /// Keeps the tokens at most this many standard deviations of all logits below the largest one; 0 and below is off.
    pub top_n_sigma: f32,
    /// How often XTC drops the most likely tokens; in [0, 1], 0 is off.
    pub xtc_probability: f32,
    /// How likely tokens must be that XTC drops, of which it leaves the least likely one; in [0, 1], above 0.5 is off.
    pub xtc_threshold: f32,
    /// 1 or 2: cuts with that version of mirostat instead of top-n-sigma, top-k, typical, top-p, min-p and XTC; 0 is off.
    pub mirostat: u32,
    /// The surprise in bits per token that mirostat aims at. At least 0.
    pub mirostat_tau: f32,
    /// How fast mirostat learns. At least 0.
    pub mirostat_eta: f32,
    /// Divides positive and multiplies negative logits of tokens seen lately; above 0, 1 is off.
    pub repeat_penalty: f32,
    /// How many of the last tokens (prompt included) the three penalties look at; 0 is off.
    pub repeat_last_n: usize,
    /// Subtracted once from the logit of each token seen lately; 0 is off.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token for each time it was seen lately; 0 is off.
    pub frequency_penalty: f32,
    /// What DRY subtracts from the logit of a token that would go on with a repetition of just the allowed length; 0 is off.
    pub dry_multiplier: f32,
    /// What that is multiplied with for each further token of the repetition. At least 1.
    pub dry_base: f32,
    /// The longest repetition that may go on for nothing, in tokens.
    pub dry_allowed_length: usize,
    /// How many of the last tokens (prompt included) DRY looks at: 0 is off, [`usize::MAX`] all of them (-1 in llama.cpp).
    pub dry_penalty_last_n: usize,
    /// Strings across which nothing counts as a repetition. They need a tokenizer: see [`DryBreakers`].
    pub dry_sequence_breakers: Vec<String>,
    /// The stages in another order than [`StageName::ALL`], each at most once; those that are not named are off.
    pub chain: Option<Vec<StageName>>,
    /// Added to the logits of single tokens; negative infinity forbids a token.
    pub logit_bias: Vec<(u32, f32)>,
    /// Key of the random numbers.
    pub seed: u64,
}

impl Default for SamplerOptions {
    fn default() -> SamplerOptions {
        SamplerOptions {
            temperature: 0.8,
            dynatemp_range: 0.0,
            dynatemp_exponent: 1.0,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            top_n_sigma: -1.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            mirostat: 0,
            mirostat_tau: 5.0,
            mirostat_eta: 0.1,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_penalty_last_n: usize::MAX,
            dry_sequence_breakers: ["\n", ":", "\"", "*"].map(str::to_owned).to_vec(),
            chain: None,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

impl SamplerOptions {
    /// Always the most likely token.
    pub fn greedy() -> SamplerOptions {
        SamplerOptions { temperature: 0.0, ..SamplerOptions::default() }
    }

    /// Checks every option for a vocabulary of `vocab` tokens.
    ///
    /// # Errors
    /// [`Error::Argument`] names the first option out of its range.
    pub fn validate(&self, vocab: usize) -> Result<()> {
        chain::chain(&Setup { options: self, vocab, breakers: &DryBreakers::default() }).map(drop)
    }
}

/// What stages are made from.
struct Setup<'a> {
    options: &'a SamplerOptions,
    /// Number of logits.
    vocab: usize,
    breakers: &'a DryBreakers,
}

/// One step of the chain.
trait Stage: Send + Sync {
    /// Changes logits or narrows the candidates for the token at `position`; must leave at least one. The same question has the
    /// same answer until a token is accepted.
    fn apply(&mut self, candidates: &mut Candidates<'_>, position: u64);

    /// Notes a token that became part of the sequence (prompt or answer). `probability` is what it was drawn with, among what
    /// the chain had left; `None` when it was not drawn.
    fn accept(&mut self, _token: u32, _probability: Option<f64>) {}
}

/// `Error::Argument` unless `holds`; `range` says what the option must be.
fn check(holds: bool, option: &str, value: f32, range: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Argument(format!("{option} must be {range}, got {value}"))) }
}

/// The sampler of one sequence: the chain, and what the chain remembers of the tokens so far.
pub struct Sampler {
    chain: Vec<Box<dyn Stage>>,
    draw: draw::Draw,
    vocab: usize,
    list: Vec<candidates::Candidate>,
    /// The last token that was chosen, and its probability among what the chain had left.
    drawn: Option<(u32, f64)>,
}

impl Sampler {
    /// A sampler for logits of `vocab` tokens.
    ///
    /// # Errors
    /// [`Error::Argument`] as [`SamplerOptions::validate`]; [`Error::Internal`] when DRY is on and has breakers, which need
    /// [`with_breakers`](Self::with_breakers).
    pub fn new(options: &SamplerOptions, vocab: usize) -> Result<Sampler> {
        let sampler = Sampler::with_breakers(options, vocab, &DryBreakers::default())?;
        if dry::is_on(options) && !options.dry_sequence_breakers.is_empty() {
            return Err(Error::Internal("dry_sequence_breakers need a tokenizer: use Sampler::with_breakers".into()));
        }
        Ok(sampler)
    }

    /// A sampler for logits of `vocab` tokens, and `breakers` instead of the strings in the options: those of
    /// [`DryBreakers::of`], made once for all samplers with the same options.
    ///
    /// # Errors
    /// [`Error::Argument`] as [`SamplerOptions::validate`].
    pub fn with_breakers(options: &SamplerOptions, vocab: usize, breakers: &DryBreakers) -> Result<Sampler> {
        let chain = chain::chain(&Setup { options, vocab, breakers })?;
        Ok(Sampler { chain, draw: draw::Draw::new(options), vocab, list: Vec::new(), drawn: None })
    }

    /// Notes a token of the prompt or of the answer. [`sample`](Self::sample) does not do it by itself, and changes nothing that counts:
    /// it may be asked any number of times before a token is accepted, which need not be the one that it gave. Mirostat learns
    /// from a token that is the last one sampled.
    pub fn accept(&mut self, token: u32) {
        let probability = self.drawn.take().filter(|drawn| drawn.0 == token).map(|drawn| drawn.1);
        for stage in &mut self.chain {
            stage.accept(token, probability);
        }
    }

    /// Chooses the token at `position` of its sequence (the number of tokens before it). `logits` (vocab) is changed.
    /// Negative infinity marks tokens that must not be chosen.
    ///
    /// # Errors
    /// [`Error::NotFinite`] when a logit is NaN or positive infinity, or all are negative infinity;
    /// [`Error::Internal`] when the number of logits is not the vocabulary's.
    pub fn sample(&mut self, logits: &mut [f32], position: usize) -> Result<u32> {
        if logits.len() != self.vocab {
            return Err(Error::Internal(format!(
                "the sampler was made for {} tokens and got {} logits",
                self.vocab,
                logits.len()
            )));
        }
        check_finite(logits)?;
        let mut candidates = Candidates::new(logits, std::mem::take(&mut self.list));
        for stage in &mut self.chain {
            stage.apply(&mut candidates, position as u64);
        }
        self.drawn = self.draw.choose(&mut candidates, position as u64);
        self.list = candidates.into_storage();
        self.drawn.map(|(token, _)| token).ok_or_else(|| {
            Error::NotFinite("every token is masked: all logits are negative infinity after logit_bias".into())
        })
    }
}

/// Refuses NaN and positive infinity anywhere, and rows without any finite logit.
fn check_finite(logits: &[f32]) -> Result<()> {
    // In blocks, so that the comparison is vectorised and a damaged row still names its first bad entry.
    for (block, values) in logits.chunks(256).enumerate() {
        // False for NaN, too.
        if !values.iter().fold(true, |good, &v| good & (v < f32::INFINITY)) {
            let at = values.iter().position(|&v| v.is_nan() || v == f32::INFINITY).unwrap_or(0);
            return Err(Error::NotFinite(format!(
                "the logit of token {} is {}: the weights are damaged or overflow",
                block * 256 + at,
                values[at]
            )));
        }
    }
    if logits.iter().any(|&v| v > f32::NEG_INFINITY) {
        Ok(())
    } else {
        Err(Error::NotFinite(
            "every logit is negative infinity: the weights are damaged or every token is masked".into(),
        ))
    }
}
