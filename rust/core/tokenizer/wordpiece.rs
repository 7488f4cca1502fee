//! WordPiece (Schuster and Nakajima 2012, in the form of BERT): a text is normalised and cut into words, and each word into the longest
//! pieces from its start; a word that cannot be cut so is one unknown token.
//!
//! Files spell pieces in the way of SentencePiece: `▁` begins a word, where BERT's own vocabulary writes nothing and `##` before
//! all that does not.
//!
//! This is what BERT's own tokenizer does, so that models see what they were trained with. llama.cpp differs: it drops every kind of
//! mark where BERT drops nonspacing ones (the vowels of Hindi are others), keeps the first letter of a Hangul syllable only, and
//! takes words of any length.

use std::borrow::Cow;
use std::sync::OnceLock;

use unicode_normalization::char::decompose_canonical;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

use super::prefixes::{self, Prefixes};
use super::spm::{SPACE, unescape};
use super::vocabulary::Vocabulary;
use super::{Encoder, special};
use crate::gguf::Gguf;
use crate::{Error, Interrupt, Result};

const LOWERCASE: &str = "tokenizer.ggml.normalizer.lowercase";
const STRIP_ACCENTS: &str = "tokenizer.ggml.normalizer.strip_accents";

/// A word of more characters is unknown.
const LONGEST_WORD: usize = 100;

/// Pieces between two looks at the interrupt.
const PIECES_PER_CHECK: usize = 1024;

/// What is done to a text before it is cut.
#[derive(Clone, Copy)]
struct Normalizer {
    lowercase: bool,
    strip_accents: bool,
}

impl Normalizer {
    /// What `file` asks for; small letters without accents when it says nothing.
    fn from_gguf(file: &Gguf) -> Result<Normalizer> {
        let lowercase = file.bool(LOWERCASE)?.unwrap_or(true);
        Ok(Normalizer { lowercase, strip_accents: file.bool(STRIP_ACCENTS)?.unwrap_or(lowercase) })
    }

    /// Gives the words of `text`, each with [`SPACE`] in front.
    fn words(self, text: &str, word: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
        let mut current = String::from(SPACE);
        let mut finish = |current: &mut String| {
            if current.len() > SPACE.len() {
                word(current)?;
                current.truncate(SPACE.len());
            }
            Ok(())
        };
        let mut parts = String::new();
        for character in text.chars() {
            if is_dropped(character) {
                continue;
            }
            if character.is_whitespace() {
                finish(&mut current)?;
                continue;
            }
            self.parts(character, &mut parts);
            for part in parts.chars() {
                let alone = is_word(part);
                if alone {
                    finish(&mut current)?;
                }
                current.push(part);
                if alone {
                    finish(&mut current)?;
                }
            }
        }
        finish(&mut current)
    }

    /// What a character becomes: without accents what is left of its canonical decomposition, and small letters.
    fn parts(self, character: char, parts: &mut String) {
        parts.clear();
        let mut add = |part: char| match self.lowercase {
            true => parts.extend(part.to_lowercase()),
            false => parts.push(part),
        };
        match self.strip_accents {
            true => decompose_canonical(character, |part| {
                if part.general_category() != GeneralCategory::NonspacingMark {
                    add(part);
                }
            }),
            false => add(character),
        }
    }
}

/// Whether it is no text: characters that control or format, private ones, and what replaces invalid bytes.
fn is_dropped(character: char) -> bool {
    use GeneralCategory::{Control, Format, PrivateUse};
    if matches!(character, '\t' | '\n' | '\r') {
        return false;
    }
    character == char::REPLACEMENT_CHARACTER || matches!(character.general_category(), Control | Format | PrivateUse)
}

/// Whether it is a word of its own: punctuation, what is punctuation on a typewriter, and Chinese characters.
fn is_word(character: char) -> bool {
    match character.general_category_group() {
        GeneralCategoryGroup::Punctuation => true,
        GeneralCategoryGroup::Symbol => character.is_ascii(),
        _ => is_chinese(character),
    }
}

/// The blocks that BERT counts as Chinese; with its gap of 256 characters before U+2B920, which models were trained with.
fn is_chinese(character: char) -> bool {
    matches!(u32::from(character),
        0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x20000..=0x2a6df | 0x2a700..=0x2b81f | 0x2b920..=0x2ceaf
            | 0x2f800..=0x2fa1f)
}

/// The encoder.
pub(super) struct WordPiece {
    normalizer: Normalizer,
    unknown: u32,
    /// Of all tokens; built on first use.
    prefixes: OnceLock<Prefixes>,
}

impl WordPiece {
    /// Reads and validates what `file` says; `unknown` is its token for that.
    pub(super) fn from_gguf(file: &Gguf, vocabulary: &Vocabulary, unknown: Option<u32>) -> Result<WordPiece> {
        prefixes::check(file, vocabulary)?;
        let unknown = special::needed(file, special::UNKNOWN, unknown)?;
        Ok(WordPiece { normalizer: Normalizer::from_gguf(file)?, unknown, prefixes: OnceLock::new() })
    }
}

impl Encoder for WordPiece {
    fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        _: bool,
        ids: &mut Vec<u32>,
        interrupt: &dyn Interrupt,
    ) -> Result<()> {
        let prefixes = self.prefixes.get_or_init(|| Prefixes::new(vocabulary, |_| true));
        let mut pieces = 0_usize;
        self.normalizer.words(text, &mut |word| {
            // Its first character is the mark of a beginning.
            if word.chars().nth(LONGEST_WORD + 1).is_some() {
                ids.push(self.unknown);
                return Ok(());
            }
            let before = ids.len();
            let mut rest = word.as_bytes();
            while !rest.is_empty() {
                pieces += 1;
                if pieces.is_multiple_of(PIECES_PER_CHECK) && interrupt.stop() {
                    return Err(Error::Cancelled);
                }
                let Some((length, id)) = prefixes.longest(vocabulary, rest) else {
                    ids.truncate(before);
                    ids.push(self.unknown);
                    break;
                };
                ids.push(id);
                rest = &rest[length..];
            }
            Ok(())
        })
    }

    fn decode_piece<'p>(&self, piece: &'p [u8]) -> Cow<'p, [u8]> {
        unescape(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(lowercase: bool, strip_accents: bool, text: &str) -> String {
        let mut words = String::new();
        let normalizer = Normalizer { lowercase, strip_accents };
        let mut collect = |word: &str| {
            words.push_str(word);
            Ok(())
        };
        normalizer.words(text, &mut collect).unwrap();
        words
    }

    #[test]
    fn normalised_words() {
        let text = "Ça\u{301}, U.S.\u{200d}A \u{0}$5€é\tİ中文x\u{3000}e\u{301}각\u{fffd}";
        assert_eq!(words(true, true, text), "▁ca▁,▁u▁.▁s▁.▁a▁$▁5€e▁i▁中▁文▁x▁e\u{1100}\u{1161}\u{11a8}");
        assert_eq!(words(true, false, text), "▁ça\u{301}▁,▁u▁.▁s▁.▁a▁$▁5€é▁i\u{307}▁中▁文▁x▁e\u{301}각");
        assert_eq!(words(false, true, text), "▁Ca▁,▁U▁.▁S▁.▁A▁$▁5€e▁I▁中▁文▁x▁e\u{1100}\u{1161}\u{11a8}");
        assert_eq!(words(true, true, " \t\n\u{301}"), "");
        // Vowels that take space are marks, too, and stay.
        assert_eq!(words(true, true, "हैं दुनिया"), "▁ह▁दनिया");
    }
}
