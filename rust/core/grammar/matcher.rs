//! The state of one answer under a grammar.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use llguidance::api::StopReason;
use llguidance::panic_utils::catch_unwind;
use llguidance::toktrie::{Recognizer, SimpleVob};
use llguidance::{CancellationHandle, TokenParser};

use super::watch::watch;
use super::{GrammarVocabulary, MAX_MASK, told, too_slow};
use crate::{Error, Result};

/// What may follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// More text, perhaps an end.
    Open,
    /// An end only.
    Complete,
    /// An end token was accepted.
    Ended,
}

/// The state of one answer: which tokens may come next. The mask of the next token may be computed on another thread
/// ([`prepare`](Matcher::prepare)) while the model computes.
pub struct Matcher {
    parser: TokenParser,
    /// Stops the parser.
    handle: CancellationHandle,
    vocabulary: Arc<GrammarVocabulary>,
    state: State,
    /// Of the next token, when it was computed.
    mask: Option<SimpleVob>,
    /// Tokens accepted.
    tokens: usize,
    /// What went wrong; nothing works any more then.
    failed: Option<String>,
}

impl Matcher {
    pub(super) fn new(mut parser: TokenParser, vocabulary: Arc<GrammarVocabulary>) -> Matcher {
        let handle = parser.enable_cancellation();
        let mut matcher =
            Matcher { parser, handle, vocabulary, state: State::Open, mask: None, tokens: 0, failed: None };
        // Where only the empty text matches. A panic shows in what is called next.
        matcher.state = matcher.run(Self::state_after).unwrap_or(State::Open);
        matcher
    }

    /// Computes the mask of the next token, unless that was done.
    ///
    /// # Errors
    /// [`Error::Grammar`] when no token can follow, or when the grammar is too complex here; it stays so.
    pub fn prepare(&mut self) -> Result<()> {
        if self.mask.is_some() {
            return Ok(());
        }
        let mask = match self.state {
            State::Open => self.run(|parser| parser.compute_mask())?,
            State::Complete | State::Ended => self.parser.token_env.tok_trie().eos_token_set(),
        };
        self.mask = Some(mask);
        Ok(())
    }

    /// Sets the logits of tokens that must not come next to minus infinity. Logits beyond the vocabulary belong to no token.
    ///
    /// # Errors
    /// As [`prepare`](Matcher::prepare).
    pub fn mask(&mut self, logits: &mut [f32]) -> Result<()> {
        self.prepare()?;
        if let Some(mask) = &self.mask {
            apply(mask.as_slice(), self.vocabulary.len(), logits);
        }
        Ok(())
    }

    /// Whether `token` may come next.
    ///
    /// # Errors
    /// As [`prepare`](Matcher::prepare).
    pub fn allows(&mut self, token: u32) -> Result<bool> {
        self.prepare()?;
        let known = (token as usize) < self.vocabulary.len();
        Ok(known && self.mask.as_ref().is_some_and(|mask| mask.is_allowed(token)))
    }

    /// Goes on behind `token`, an end token included.
    ///
    /// # Errors
    /// [`Error::Grammar`] when the token may not come next, or when the grammar is too complex here; it stays so.
    pub fn accept(&mut self, token: u32) -> Result<()> {
        self.check()?;
        if self.vocabulary.ends().binary_search(&token).is_ok() {
            let complete = self.state != State::Open || self.run(|parser| Ok(parser.is_accepting()))?;
            if !complete {
                return Err(self.refused(token, "an end token before the grammar is complete"));
            }
            self.state = State::Ended;
            self.mask = None;
            return Ok(());
        }
        if self.state != State::Open {
            return Err(self.refused(token, "text behind the end of the grammar"));
        }
        // Not by the mask, which allows but one spelling of what is forced: any spelling of the text will do.
        let known = (token as usize) < self.vocabulary.len();
        if !known || !self.run(|parser| parser.validate_token(token))? {
            return Err(self.refused(token, "a token that the grammar does not allow"));
        }
        self.mask = None;
        self.state = self.run(|parser| {
            parser.consume_token(token)?;
            Self::state_after(parser)
        })?;
        self.tokens += 1;
        Ok(())
    }

    /// Whether nothing but an end may follow.
    pub fn finished(&self) -> bool {
        self.state != State::Open
    }

    /// The tokens that are the only possibility next, spelled as the tokenizer spells them; empty when there is a choice, and at the end.
    pub fn forced(&mut self) -> Vec<u32> {
        match self.state {
            // What goes wrong here shows in the mask.
            State::Open if self.failed.is_none() => {
                self.run(|parser| Ok(parser.compute_ff_tokens())).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    /// What may follow where the parser is.
    fn state_after(parser: &mut TokenParser) -> anyhow::Result<State> {
        if !parser.is_accepting() {
            return Ok(State::Open);
        }
        // Bytes that no text holds begin the names of control tokens.
        let more = parser.parser.with_recognizer(|recognizer| {
            recognizer.trie_started("end");
            let more = (0..=u8::MAX).any(|byte| recognizer.byte_allowed(byte));
            recognizer.trie_finished();
            more
        });
        Ok(if more { State::Open } else { State::Complete })
    }

    /// Calls the parser; after an error or a panic it is not called again.
    fn run<T>(&mut self, call: impl FnOnce(&mut TokenParser) -> anyhow::Result<T>) -> Result<T> {
        self.check()?;
        let parser = &mut self.parser;
        let _watched = watch(&self.handle, MAX_MASK);
        catch_unwind(AssertUnwindSafe(|| call(parser))).map_err(|error| {
            let what = match parser.stop_reason() {
                StopReason::Cancelled => too_slow(),
                StopReason::NoExtensionBias => "no token of the vocabulary can follow".to_owned(),
                _ => told(&error),
            };
            let what = format!("the grammar fails behind {} tokens: {what}", self.tokens);
            self.failed = Some(what.clone());
            Error::Grammar(what)
        })
    }

    fn check(&self) -> Result<()> {
        self.failed.as_ref().map_or(Ok(()), |what| Err(Error::Grammar(what.clone())))
    }

    fn refused(&self, token: u32, found: &str) -> Error {
        Error::Grammar(format!("token {token} cannot follow {} tokens: found {found}", self.tokens))
    }
}

impl std::fmt::Debug for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Matcher").field("state", &self.state).field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

/// Forbids what is not in the bits of `words`, and what is beyond the `vocabulary`.
fn apply(words: &[u32], vocabulary: usize, logits: &mut [f32]) {
    let (inside, beyond) = logits.split_at_mut(vocabulary.min(logits.len()));
    beyond.fill(f32::NEG_INFINITY);
    for (word, group) in words.iter().zip(inside.chunks_mut(u32::BITS as usize)) {
        match *word {
            u32::MAX => {}
            0 => group.fill(f32::NEG_INFINITY),
            word => {
                for (bit, logit) in group.iter_mut().enumerate() {
                    *logit = if word >> bit & 1 == 1 { *logit } else { f32::NEG_INFINITY };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::apply;

    #[test]
    fn masks_words_bits_and_what_is_beyond() {
        let words = [u32::MAX, 0, 0b101, 0xFFFF_FFFF];
        for vocabulary in [1, 31, 32, 33, 64, 67, 100, 128] {
            for length in [0, 1, 32, 66, 100, 128, 131] {
                let mut logits = vec![1.0; length];
                apply(&words, vocabulary, &mut logits);
                for (id, logit) in logits.iter().enumerate() {
                    let allowed = id < vocabulary && words[id / 32] >> (id % 32) & 1 == 1;
                    assert_eq!(*logit, if allowed { 1.0 } else { f32::NEG_INFINITY }, "{vocabulary} {length} {id}");
                }
            }
        }
    }
}
