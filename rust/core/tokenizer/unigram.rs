//! The unigram model of SentencePiece (Kudo 2018): of all ways to write a text in pieces the one with the highest sum of scores, found by
//! Viterbi's algorithm. T5 and XLM-RoBERTa have it.
//!
//! What is in no piece is one unknown token, whose score is 10 below the lowest; several in a row become one.

use std::borrow::Cow;
use std::sync::OnceLock;

use super::chain::Chain;
use super::charsmap::CharsMap;
use super::prefixes::{self, Prefixes};
use super::spm::{SPACE, unescape};
use super::vocabulary::{Kind, Vocabulary};
use super::{Encoder, special};
use crate::gguf::Gguf;
use crate::{Error, Interrupt, Result};

const REMOVE_EXTRA_WHITESPACES: &str = "tokenizer.ggml.remove_extra_whitespaces";

/// How much less than the lowest score an unknown character counts.
const UNKNOWN_PENALTY: f32 = 10.0;

/// How much longer a text may become when it is normalised; by the rules of NFKC one character becomes eleven times as long.
const MAX_GROWTH: usize = 32;

/// Characters between two looks at the interrupt.
const CHARACTERS_PER_CHECK: usize = 1024;

/// The encoder.
pub(super) struct Unigram {
    charsmap: Option<CharsMap>,
    add_space_prefix: bool,
    /// A run of spaces becomes one, and those at the ends of a text none.
    merge_spaces: bool,
    unknown: u32,
    unknown_score: f64,
    tables: OnceLock<Tables>,
}

/// Built on first use.
struct Tables {
    /// Of what texts are written in.
    pieces: Prefixes,
    /// Of what the normaliser leaves alone.
    user_defined: Prefixes,
}

impl Unigram {
    /// Reads and validates what `file` says; `unknown` is its token for that.
    pub(super) fn from_gguf(
        file: &Gguf,
        vocabulary: &Vocabulary,
        unknown: Option<u32>,
        add_space_prefix: bool,
    ) -> Result<Unigram> {
        prefixes::check(file, vocabulary)?;
        let normal = (0..vocabulary.len() as u32).filter(|id| vocabulary.kind(*id) == Kind::Normal);
        let lowest = normal.map(|id| vocabulary.score(id)).fold(f32::MAX, f32::min);
        Ok(Unigram {
            charsmap: CharsMap::from_gguf(file)?,
            add_space_prefix,
            merge_spaces: file.bool(REMOVE_EXTRA_WHITESPACES)?.unwrap_or(false),
            unknown: special::needed(file, special::UNKNOWN, unknown)?,
            unknown_score: f64::from(lowest - UNKNOWN_PENALTY),
            tables: OnceLock::new(),
        })
    }

    fn tables(&self, vocabulary: &Vocabulary) -> &Tables {
        self.tables.get_or_init(|| {
            let kind = |id| vocabulary.kind(id);
            let piece = |id| matches!(kind(id), Kind::Normal | Kind::UserDefined | Kind::Unused);
            Tables {
                pieces: Prefixes::new(vocabulary, piece),
                user_defined: Prefixes::new(vocabulary, |id| kind(id) == Kind::UserDefined),
            }
        })
    }

    /// The normalised text, with [`SPACE`] for spaces. Not always UTF-8: replacements are what the file says.
    fn normalize(&self, vocabulary: &Vocabulary, text: &str, interrupt: &dyn Interrupt) -> Result<Vec<u8>> {
        let user_defined = &self.tables(vocabulary).user_defined;
        let mut normalized = Vec::with_capacity(text.len() + text.len() / 2);
        let (mut prefix, mut in_word) = (self.add_space_prefix, false);
        let (mut at, mut steps) = (0, 0_usize);
        while at < text.len() {
            check(&mut steps, interrupt)?;
            let (replacement, length) = self.normal_form(vocabulary, user_defined, text, at)?;
            for byte in replacement {
                let space = *byte == b' ';
                // In front of a word, or for a space that stays.
                let mark = if space { !self.merge_spaces } else { !in_word && (prefix || self.merge_spaces) };
                if mark {
                    normalized.extend_from_slice(SPACE.as_bytes());
                }
                if !space {
                    prefix &= in_word;
                    normalized.push(*byte);
                }
                in_word = !space;
            }
            if normalized.len() > MAX_GROWTH * (text.len() + 1) {
                let what = format!("a text must not become more than {MAX_GROWTH} times as long when it is normalised");
                return Err(Error::Tokenizer(what));
            }
            at += length;
        }
        Ok(normalized)
    }

    /// What the text at a place becomes, and how many bytes of it.
    fn normal_form<'s>(
        &'s self,
        vocabulary: &Vocabulary,
        user_defined: &Prefixes,
        text: &'s str,
        at: usize,
    ) -> Result<(&'s [u8], usize)> {
        let rest = &text.as_bytes()[at..];
        // As in llama.cpp, the beginning of a user-defined token is enough.
        let length = user_defined.each(vocabulary, rest, |_, _| {});
        if length > 0 {
            return Ok((&rest[..length], length));
        }
        if let Some(charsmap) = &self.charsmap
            && let Some(found) = charsmap.replace(rest)?
        {
            return Ok(found);
        }
        Ok(match text.get(at..).and_then(|rest| rest.chars().next()) {
            Some(character) => (&rest[..character.len_utf8()], character.len_utf8()),
            // A user-defined token or a string of the table has ended inside a character.
            None => ("\u{fffd}".as_bytes(), 1),
        })
    }
}

/// The best way to write a text up to some place.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    /// The last token.
    id: u32,
    /// Its length in bytes.
    length: u32,
}

impl Encoder for Unigram {
    fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        _: bool,
        ids: &mut Vec<u32>,
        interrupt: &dyn Interrupt,
    ) -> Result<()> {
        Chain::check(text)?;
        let text = self.normalize(vocabulary, text, interrupt)?;
        let pieces = &self.tables(vocabulary).pieces;
        let start = ids.len();
        // For the places from `base` on. All ways lead through `base`, so what comes before is decided.
        let mut best = vec![Best { score: 0.0, id: self.unknown, length: 0 }];
        let (mut base, mut at, mut steps) = (0, 0, 0_usize);
        while at < text.len() {
            check(&mut steps, interrupt)?;
            let score = best[at - base].score;
            let character = character_length(text[at]).min(text.len() - at);
            let mut known = false;
            pieces.each(vocabulary, &text[at..], |length, id| {
                known |= length == character;
                // Scores are logarithms, all below that of a user-defined token.
                let own = if vocabulary.kind(id) == Kind::UserDefined { 0.0 } else { vocabulary.score(id).into() };
                improve(&mut best, at - base, length, score + own, id);
            });
            if !known {
                improve(&mut best, at - base, character, score + self.unknown_score, self.unknown);
            }
            at += character;
            if best.len() == at - base + 1 {
                self.decide(&mut best, start, ids);
                base = at;
            }
        }
        Ok(())
    }

    fn decode_piece<'p>(&self, piece: &'p [u8]) -> Cow<'p, [u8]> {
        unescape(piece)
    }
}

impl Unigram {
    /// Appends the tokens that lead to the last place, which is then the only one. Those of this text begin at `start`.
    fn decide(&self, best: &mut Vec<Best>, start: usize, ids: &mut Vec<u32>) {
        let from = ids.len();
        let mut place = best.len() - 1;
        while place > 0 {
            let Best { id, length, .. } = best[place];
            if id != self.unknown || ids[from..].last() != Some(&id) {
                ids.push(id);
            }
            place -= length as usize;
        }
        ids[from..].reverse();
        if from > start && ids[from] == self.unknown && ids[from - 1] == self.unknown {
            ids.remove(from);
        }
        best.drain(..best.len() - 1);
    }
}

/// Takes a token of `length` bytes at `place` when the way over it is better than what is known.
fn improve(best: &mut Vec<Best>, place: usize, length: usize, score: f64, id: u32) {
    let end = place + length;
    while best.len() <= end {
        best.push(Best { score: f64::MIN, id, length: best.len() as u32 });
    }
    if score > best[end].score {
        best[end] = Best { score, id, length: length as u32 };
    }
}

/// The length of the character that begins with `byte`.
fn character_length(byte: u8) -> usize {
    match byte {
        0..0xc0 => 1,
        0xc0..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0.. => 4,
    }
}

fn check(steps: &mut usize, interrupt: &dyn Interrupt) -> Result<()> {
    *steps += 1;
    if steps.is_multiple_of(CHARACTERS_PER_CHECK) && interrupt.stop() { Err(Error::Cancelled) } else { Ok(()) }
}
