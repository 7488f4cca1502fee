//! From logits to a token: a chain of stages, one per file.
//!
//! The chain and the meaning of each stage follow llama.cpp (`common_sampler_init` and `llama-sampling.cpp`), so that
//! settings carry over: logit bias → penalties → top-k → typical → top-p → min-p → temperature → draw. At temperature 0
//! the largest logit after the penalties is taken and the cutting stages are left out.
//!
//! A new stage is one file beside `top_k.rs` and one line in [`stages!`](self).
//!
//! One answer (DESIGN §3): sums run in a fixed order in f64, exponentials are our own, ties go to the smaller token id,
//! and the random number of a draw depends only on the seed and the token's position in its sequence. The same logits
//! therefore give the same token on every machine and in every batch.

mod candidates;
mod draw;
mod logit_bias;
mod min_p;
mod penalties;
pub mod philox;
mod temperature;
mod top_k;
mod top_p;
mod typical;

#[cfg(test)]
mod tests;

use candidates::Candidates;
pub use philox::random_seed;

use crate::{Error, Result};

/// How tokens are chosen. The defaults are the ones of `fastq run` and of `Model.generate`.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerOptions {
    /// Divides the logits; 0 takes the most likely token (greedy), larger is more surprising. At least 0.
    pub temperature: f32,
    /// Keeps this many most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the most likely tokens whose probabilities together reach this; in (0, 1], 1 keeps all.
    pub top_p: f32,
    /// Drops tokens less likely than this times the most likely one; in [0, 1], 0 keeps all.
    pub min_p: f32,
    /// Keeps the tokens of most typical information up to this probability; in (0, 1], 1 keeps all.
    pub typical_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen lately; above 0, 1 is off.
    pub repeat_penalty: f32,
    /// How many of the last tokens (prompt included) the three penalties look at; 0 is off.
    pub repeat_last_n: usize,
    /// Subtracted once from the logit of each token seen lately; 0 is off.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token for each time it was seen lately; 0 is off.
    pub frequency_penalty: f32,
    /// Added to the logits of single tokens; negative infinity forbids a token.
    pub logit_bias: Vec<(u32, f32)>,
    /// Key of the random numbers.
    pub seed: u64,
}

impl Default for SamplerOptions {
    fn default() -> SamplerOptions {
        SamplerOptions {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
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
        chain(self, vocab).map(drop)
    }
}

/// One step of the chain.
trait Stage: Send + Sync {
    /// Changes logits or narrows the candidates; must leave at least one.
    fn apply(&mut self, candidates: &mut Candidates<'_>);

    /// Notes a token that became part of the sequence (prompt or answer).
    fn accept(&mut self, _token: u32) {}
}

/// Declares the chain: modules of stages, first to last. Each has `fn stage(&SamplerOptions, vocab) ->
/// Result<Option<Box<dyn Stage>>>`, which checks the options it reads and is `None` when they switch it off.
macro_rules! stages {
    ($($stage:ident),* $(,)?) => {
        fn chain(options: &SamplerOptions, vocab: usize) -> Result<Vec<Box<dyn Stage>>> {
            let mut chain = Vec::new();
            $( chain.extend($stage::stage(options, vocab)?); )*
            Ok(chain)
        }
    };
}

stages![logit_bias, penalties, top_k, typical, top_p, min_p, temperature];

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
}

impl Sampler {
    /// A sampler for logits of `vocab` tokens.
    ///
    /// # Errors
    /// [`Error::Argument`] as [`SamplerOptions::validate`].
    pub fn new(options: &SamplerOptions, vocab: usize) -> Result<Sampler> {
        let chain = chain(options, vocab)?;
        Ok(Sampler { chain, draw: draw::Draw::new(options), vocab, list: Vec::new() })
    }

    /// Notes a token of the prompt or of the answer, for the penalties. [`sample`](Self::sample) does not do it by itself.
    pub fn accept(&mut self, token: u32) {
        for stage in &mut self.chain {
            stage.accept(token);
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
            stage.apply(&mut candidates);
        }
        let token = self.draw.choose(&mut candidates, position);
        self.list = candidates.into_storage();
        token.ok_or_else(|| {
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
