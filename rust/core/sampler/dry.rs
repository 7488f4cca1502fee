//! Don't repeat yourself: a token that would go on with a repetition loses the more, the longer the repetition already is
//! (Weidmann 2024, <https://github.com/oobabooga/text-generation-webui/pull/5637>; llama.cpp pull request 9702).
//!
//! When the last n tokens were there before, the token that followed them then loses `multiplier · base^(n - allowed_length)`, for the
//! longest such n of at least the allowed length. Repetitions do not reach back beyond a sequence breaker, and a token that holds a
//! breaker loses nothing. llama.cpp finds breakers of several tokens where they are spelled as the tokenizer spells them; here the bytes of
//! the text are searched, so that it does not matter how they are spelled.

use std::collections::HashMap;
use std::sync::Arc;

use fastq_kernels::math::pow64;

use super::candidates::Candidates;
use super::token_strings::{ROOT, TokenStrings, check as check_strings};
use super::{SamplerOptions, Setup, Stage, StageName, check};
use crate::Result;
use crate::tokenizer::Tokenizer;

/// What `dry_sequence_breakers` are in tokens. Made once for all answers with the same ones, because it takes as long as looking at
/// every token of the vocabulary; a clone costs nothing.
#[derive(Clone, Default)]
pub struct DryBreakers {
    pub(super) strings: Option<Arc<TokenStrings>>,
}

impl DryBreakers {
    /// Those of `options`; nothing, at once, when DRY is off.
    ///
    /// # Errors
    /// As [`dry_breakers`].
    pub fn of(options: &SamplerOptions, tokenizer: &Tokenizer) -> Result<DryBreakers> {
        if is_on(options) {
            dry_breakers(tokenizer, &options.dry_sequence_breakers)
        } else {
            Ok(DryBreakers::default())
        }
    }
}

impl std::fmt::Debug for DryBreakers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DryBreakers").finish_non_exhaustive()
    }
}

/// What `strings` are in tokens. Control tokens count by their names, so that `<|im_start|>` can be a breaker.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) for an empty string, and beyond [`MAX_BANNED`](super::MAX_BANNED) strings,
/// [`MAX_STRING_BYTES`](super::MAX_STRING_BYTES) or [`MAX_STRINGS_BYTES`](super::MAX_STRINGS_BYTES).
pub fn dry_breakers(tokenizer: &Tokenizer, strings: &[String]) -> Result<DryBreakers> {
    let bytes = |token| tokenizer.token_bytes(token, true);
    let strings = TokenStrings::new("dry_sequence_breakers", strings, tokenizer.vocab_size(), bytes)?;
    Ok(DryBreakers { strings: Some(Arc::new(strings)) })
}

/// Whether the stage does anything.
pub(super) fn is_on(options: &SamplerOptions) -> bool {
    let named = options.order().any(|name| name == StageName::Dry);
    named && options.dry_multiplier > 0.0 && options.dry_penalty_last_n > 0
}

struct Dry {
    multiplier: f64,
    base: f64,
    allowed: usize,
    last_n: usize,
    breakers: Option<Arc<TokenStrings>>,
    node: u32,
    /// The last tokens, at least `last_n` of them if there are as many.
    tokens: Vec<u32>,
    /// How many tokens came after the last breaker.
    unbroken: usize,
    /// Of [`Dry::repetitions`], kept for the next call.
    lengths: Vec<usize>,
}

/// Off when the multiplier is 0 or no tokens are looked at.
pub(super) fn stage(setup: &Setup<'_>) -> Result<Option<Box<dyn Stage>>> {
    let options = setup.options;
    let (multiplier, base) = (options.dry_multiplier, options.dry_base);
    check(multiplier >= 0.0 && multiplier.is_finite(), "dry_multiplier", multiplier, "a finite number of at least 0")?;
    check(base >= 1.0 && base.is_finite(), "dry_base", base, "a finite number of at least 1")?;
    check_strings("dry_sequence_breakers", &options.dry_sequence_breakers)?;
    Ok(is_on(options).then(|| {
        Box::new(Dry {
            multiplier: f64::from(multiplier),
            base: f64::from(base),
            allowed: options.dry_allowed_length,
            last_n: options.dry_penalty_last_n,
            breakers: setup.breakers.strings.clone(),
            node: ROOT,
            tokens: Vec::new(),
            unbroken: 0,
            lengths: Vec::new(),
        }) as Box<dyn Stage>
    }))
}

impl Dry {
    /// For each token that followed what the text ends with: the length of the longest such end, if that is allowed no more.
    fn repetitions(&mut self) -> HashMap<u32, usize> {
        let mut longest = HashMap::new();
        let window = &self.tokens[self.tokens.len().saturating_sub(self.last_n)..];
        let n = window.len();
        let limit = self.unbroken.min(n);
        if n <= self.allowed || limit < self.allowed {
            return longest;
        }
        // Counted from the end, so that ends of the text are its beginnings. `lengths[k]`: how many tokens from the k-th on are those
        // from the first on. The Z algorithm (Gusfield 1997, §1.3) takes linear time: the stretch that reached farthest,
        // from `start` to `end`, is a copy whose lengths are known.
        let token = |at: usize| window[n - 1 - at];
        let lengths = &mut self.lengths;
        lengths.clear();
        lengths.push(n);
        let (mut start, mut end) = (0, 0);
        for k in 1..n {
            let mut length = if k < end { lengths[k - start].min(end - k) } else { 0 };
            while k + length < n && token(length) == token(k + length) {
                length += 1;
            }
            if k + length > end {
                (start, end) = (k, k + length);
            }
            lengths.push(length);
            let length = length.min(limit);
            if length >= self.allowed {
                let entry = longest.entry(token(k - 1)).or_insert(length);
                *entry = length.max(*entry);
            }
        }
        longest
    }
}

impl Stage for Dry {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _position: u64) {
        let repetitions = self.repetitions();
        if repetitions.is_empty() {
            return;
        }
        let logits = candidates.logits();
        for (token, length) in repetitions {
            // A prompt may hold a token of a padded vocabulary that has no logit.
            let Some(logit) = logits.get_mut(token as usize).filter(|l| **l > f32::NEG_INFINITY) else { continue };
            if self.breakers.as_ref().is_some_and(|breakers| breakers.holds(token)) {
                continue;
            }
            let penalty = self.multiplier * pow64(self.base, (length - self.allowed) as f64);
            *logit = (f64::from(*logit) - penalty).max(f64::from(f32::MIN)) as f32;
        }
    }

    fn accept(&mut self, token: u32, _probability: Option<f64>) {
        self.unbroken += 1;
        if let Some(breakers) = &self.breakers {
            if breakers.completes(self.node, token) {
                self.unbroken = 0;
            }
            self.node = breakers.next(self.node, token);
        }
        self.tokens.push(token);
        // Twice the window, so that the tokens are moved once in a while and not every time.
        if self.tokens.len() >= self.last_n.saturating_mul(2) {
            self.tokens.drain(..self.tokens.len() - self.last_n);
        }
    }
}
