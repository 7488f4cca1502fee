//! The BPE of SentencePiece (Kudo and Richardson 2018): neighbours whose concatenation is a piece are merged, the highest score
//! first, of equal scores the leftmost. There is no list of merges: the scores of the vocabulary are the order.
//!
//! It needs only the hash table that the vocabulary has anyway: turning 262,144 pieces into a list of merges would take longer than
//! loading the rest of the file.

use std::borrow::Cow;
use std::sync::OnceLock;

use super::Encoder;
use super::chain::{Chain, Merges, NONE, Symbol};
use super::vocabulary::{TOKENS, Vocabulary};
use crate::{Error, Interrupt, Result};

/// What a space is written as inside pieces: U+2581.
pub(super) const SPACE: &str = "\u{2581}";

/// `text` with [`SPACE`] for spaces, and one in front of it when it shall have a `prefix`.
pub(super) fn escape(text: &str, prefix: bool) -> String {
    let mut escaped = String::with_capacity(SPACE.len() + text.len() + text.len() / 2);
    escaped.push_str(if prefix { SPACE } else { "" });
    for (index, word) in text.split(' ').enumerate() {
        escaped.push_str(if index == 0 { "" } else { SPACE });
        escaped.push_str(word);
    }
    escaped
}

/// A piece with spaces for [`SPACE`].
pub(super) fn unescape(piece: &[u8]) -> Cow<'_, [u8]> {
    // Byte by byte, because a piece need not be UTF-8.
    let mark = SPACE.as_bytes();
    if !piece.windows(mark.len()).any(|part| part == mark) {
        return Cow::Borrowed(piece);
    }
    let (mut text, mut rest) = (Vec::with_capacity(piece.len()), piece);
    while let Some((first, tail)) = rest.split_first() {
        match rest.strip_prefix(mark) {
            Some(tail) => (text.push(b' '), rest = tail),
            None => (text.push(*first), rest = tail),
        };
    }
    Cow::Owned(text)
}

/// Tokens for what is no piece.
pub(super) struct Fallback {
    bytes: Box<[Option<u32>; 256]>,
    unknown: Option<u32>,
}

impl Fallback {
    /// The tokens `<0x00>` to `<0xFF>`, or those that are the bytes themselves, and the unknown token.
    pub(super) fn new(vocabulary: &Vocabulary, unknown: Option<u32>) -> Fallback {
        let token = |byte: usize| vocabulary.byte_token(byte as u8).or_else(|| vocabulary.id(&[byte as u8]));
        Fallback { bytes: Box::new(std::array::from_fn(token)), unknown }
    }

    /// Appends the tokens of one character that is no piece: one per byte, or one unknown token.
    fn encode(&self, character: &str, ids: &mut Vec<u32>) -> Result<()> {
        let before = ids.len();
        for byte in character.bytes() {
            match self.bytes[byte as usize] {
                Some(id) => ids.push(id),
                None => {
                    ids.truncate(before);
                    let what = || {
                        format!(
                            "the vocabulary cannot encode {character:?}: key `{TOKENS}` has neither a token for byte 0x{byte:02x} nor an unknown token"
                        )
                    };
                    ids.push(self.unknown.ok_or_else(|| Error::Tokenizer(what()))?);
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Orders scores: the higher first; there are no NaN.
fn order(score: f32) -> u32 {
    // -0 and 0 are one score; then negative numbers sort backwards by their bits.
    let bits = (score + 0.0).to_bits() as i32;
    let ascending = bits ^ ((bits >> 31) as u32 >> 1) as i32;
    !(ascending as u32 ^ 1 << 31)
}

/// Neighbours are merged when their text together is a piece.
impl Merges for Vocabulary {
    fn merge(&self, text: &[u8], left: &Symbol, right: &Symbol) -> Option<(u32, u32)> {
        let start = left.start as usize;
        let id = self.id(&text[start..start + (left.length + right.length) as usize])?;
        Some((order(self.score(id)), id))
    }

    /// However the text was put together.
    fn still(&self, _: &Symbol, _: &Symbol) -> bool {
        true
    }
}

/// Which characters stand next to each other in some piece. Between two that never do no merge is possible, so a text can be cut
/// there and the parts encoded on their own; in most vocabularies that is before every word, which keeps the queue short.
pub(super) struct Neighbours {
    /// A bit per hash of two characters. Two pairs that share a bit cost a cut, never a wrong one.
    bits: Box<[u64]>,
}

/// Bits of [`Neighbours`], 512 KiB: a vocabulary of 262,144 pieces has some 300,000 pairs.
const NEIGHBOUR_BITS: u32 = 22;

impl Neighbours {
    /// Collects the pairs of all pieces.
    pub(super) fn new(vocabulary: &Vocabulary) -> Neighbours {
        let mut bits = vec![0_u64; 1 << (NEIGHBOUR_BITS - 6)].into_boxed_slice();
        for id in 0..vocabulary.len() as u32 {
            // Pieces that are not UTF-8 come from no text.
            let Ok(piece) = std::str::from_utf8(vocabulary.piece(id)) else { continue };
            for (left, right) in piece.chars().zip(piece.chars().skip(1)) {
                let bit = Neighbours::bit(left, right);
                bits[bit >> 6] |= 1 << (bit & 63);
            }
        }
        Neighbours { bits }
    }

    fn bit(left: char, right: char) -> usize {
        let pair = u64::from(left) << 32 | u64::from(right);
        (pair.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - NEIGHBOUR_BITS)) as usize
    }

    fn may_merge(&self, left: char, right: char) -> bool {
        let bit = Neighbours::bit(left, right);
        self.bits[bit >> 6] >> (bit & 63) & 1 == 1
    }

    /// Where the part at the start of `text` ends.
    fn cut(&self, text: &str) -> usize {
        let mut characters = text.char_indices();
        let Some((_, mut left)) = characters.next() else { return 0 };
        for (start, right) in characters {
            if !self.may_merge(left, right) {
                return start;
            }
            left = right;
        }
        text.len()
    }
}

/// From this many bytes on a text is cut. Shorter ones are merged whole, so that the first word need not wait for [`Neighbours`],
/// for which every piece is read.
const WORTH_CUTTING: usize = 2048;

/// The encoder.
pub(super) struct Spm {
    fallback: Fallback,
    /// Built when they are needed.
    neighbours: OnceLock<Neighbours>,
    add_space_prefix: bool,
}

impl Spm {
    pub(super) fn new(vocabulary: &Vocabulary, unknown: Option<u32>, add_space_prefix: bool) -> Spm {
        Spm { fallback: Fallback::new(vocabulary, unknown), neighbours: OnceLock::new(), add_space_prefix }
    }
}

impl Encoder for Spm {
    fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        after_special: bool,
        ids: &mut Vec<u32>,
        interrupt: &dyn Interrupt,
    ) -> Result<()> {
        let escaped = escape(text, self.add_space_prefix && after_special);
        let mut text = &*escaped;
        Chain::check(text)?;
        let neighbours = match text.len() >= WORTH_CUTTING {
            true => Some(self.neighbours.get_or_init(|| Neighbours::new(vocabulary))),
            false => self.neighbours.get(),
        };
        let mut chain = Chain::default();
        while !text.is_empty() {
            let (part, rest) = text.split_at(neighbours.map_or(text.len(), |neighbours| neighbours.cut(text)));
            let characters = part.split_inclusive(|_| true).map(|c| (c.len(), vocabulary.id(c.as_bytes())));
            chain.encode(vocabulary, part.as_bytes(), characters, interrupt, |symbol| {
                match symbol.id {
                    NONE => self.fallback.encode(&part[symbol.start as usize..][..symbol.length as usize], ids)?,
                    id => ids.push(id),
                }
                Ok(())
            })?;
            text = rest;
        }
        Ok(())
    }

    fn decode_piece<'p>(&self, piece: &'p [u8]) -> Cow<'p, [u8]> {
        unescape(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn higher_scores_come_first() {
        let scores = [f32::NEG_INFINITY, -2.5, -1.0, -1e-40, 0.0, 1e-40, 1.0, 2.5, f32::INFINITY];
        assert!(scores.map(order).is_sorted_by(|a, b| a > b));
        assert_eq!(order(-0.0), order(0.0));
    }
}
