//! Strings that never come up in an answer.

use std::sync::Arc;

use super::token_strings::{ROOT, TokenStrings};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

pub use super::token_strings::{MAX_STRING_BYTES, MAX_STRINGS as MAX_BANNED, MAX_STRINGS_BYTES};

/// Forbids the tokens that would complete a banned string, before one is drawn: those that hold one, and those that go on with
/// what the answer ends with. Upper and lower case differ, and a string within the prompt, or one that begins there, does not count.
///
/// Made once for all answers with the same strings, which takes as long as looking at every token; a clone costs nothing and has
/// the state of the answer that it was cloned from.
#[derive(Clone)]
pub struct BannedStrings {
    strings: Arc<TokenStrings>,
    node: u32,
}

impl BannedStrings {
    /// For answers that show control tokens or not (`special`, as in [`Tokenizer::token_bytes`]). Tokens that end an answer are
    /// none of its text.
    ///
    /// # Errors
    /// [`Error::Argument`] for an empty string, for one with U+FFFD, which stands in the text for bytes that no string has, and
    /// beyond [`MAX_BANNED`], [`MAX_STRING_BYTES`] or [`MAX_STRINGS_BYTES`].
    pub fn new(tokenizer: &Tokenizer, strings: &[String], special: bool) -> Result<BannedStrings> {
        if let Some(at) = strings.iter().position(|s| s.contains(char::REPLACEMENT_CHARACTER)) {
            return Err(Error::Argument(format!(
                "banned[{at}] has U+FFFD, which stands for bytes that are not text; leave it out"
            )));
        }
        let bytes = |token: u32| match tokenizer.is_end_of_generation(token) {
            true => Ok(Default::default()),
            false => tokenizer.token_bytes(token, special),
        };
        let strings = TokenStrings::new("banned", strings, tokenizer.vocab_size(), bytes)?;
        Ok(BannedStrings { strings: Arc::new(strings), node: ROOT })
    }

    /// Sets the logits (by token id) of the tokens that must not come next to negative infinity.
    pub fn mask(&self, logits: &mut [f32]) {
        self.strings.each_completing(self.node, |token| {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        });
    }

    /// Notes the next token of the answer.
    pub fn accept(&mut self, token: u32) {
        self.node = self.strings.next(self.node, token);
    }
}

impl std::fmt::Debug for BannedStrings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BannedStrings").field("node", &self.node).finish_non_exhaustive()
    }
}
