//! From tokens back to text, piece by piece.

use std::ops::Deref;

use super::Tokenizer;
use crate::Result;

/// Turns tokens into text as they come. What [`push`](Detokenizer::push) and [`finish`](Detokenizer::finish) return is always
/// valid UTF-8, and all of it together is what [`Tokenizer::decode`] makes of all the tokens. At most three bytes, the start of an
/// unfinished character, are held back.
#[derive(Debug)]
pub struct Detokenizer<T> {
    tokenizer: T,
    special: bool,
    /// The text begins here, so a space that encoding put in front is taken off.
    at_start: bool,
    /// The start of an unfinished character.
    held: Vec<u8>,
}

impl<T: Deref<Target = Tokenizer>> Detokenizer<T> {
    pub(crate) fn new(tokenizer: T, special: bool, at_start: bool) -> Detokenizer<T> {
        Detokenizer { tokenizer, special, at_start, held: Vec::new() }
    }

    /// The text that `id` completes; may be empty.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) when `id` is not in the vocabulary; the detokenizer is as before.
    pub fn push(&mut self, id: u32) -> Result<String> {
        let bytes = self.tokenizer.token_bytes(id, self.special)?;
        let mut bytes: &[u8] = &bytes;
        // Hidden tokens are not the start of the text.
        if self.at_start && !bytes.is_empty() {
            self.at_start = false;
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
        }
        self.held.extend_from_slice(bytes);
        Ok(self.complete())
    }

    /// Takes the finished characters out of `held`. Invalid bytes become U+FFFD exactly as [`String::from_utf8_lossy`] does it.
    fn complete(&mut self) -> String {
        let mut text = String::with_capacity(self.held.len());
        let mut done = 0;
        for chunk in self.held.utf8_chunks() {
            text.push_str(chunk.valid());
            done += chunk.valid().len();
            let invalid = chunk.invalid();
            if invalid.is_empty() {
                continue;
            }
            // At the end it may become a character with the bytes that follow.
            let at_end = done + invalid.len() == self.held.len();
            if at_end && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none()) {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            done += invalid.len();
        }
        self.held.drain(..done);
        text
    }

    /// What is left: U+FFFD when the last character was never finished.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.held).into_owned();
        self.held.clear();
        text
    }
}
