//! The BPE of SentencePiece (Kudo and Richardson 2018): neighbours whose concatenation is a piece are merged, the highest score
//! first, of equal scores the leftmost. There is no list of merges: the scores of the vocabulary are the order.
//!
//! `tokenizers` has no such model, and turning 262,144 pieces into a list of merges takes longer than loading the rest of the
//! file. This one needs only the hash table that the vocabulary has anyway.

use std::borrow::Cow;
use std::collections::BinaryHeap;

use super::vocabulary::{TOKENS, Vocabulary};
use crate::{Error, Interrupt, Result};

/// What a space is written as inside pieces: U+2581.
pub(super) const SPACE: &str = "\u{2581}";

/// Pairs and merges between two looks at the interrupt.
const STEPS_PER_CHECK: usize = 4096;

/// The text of a normal piece: spaces for [`SPACE`].
pub(super) fn decode_piece(piece: &[u8]) -> Cow<'_, [u8]> {
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
        let token =
            |byte: usize| vocabulary.id(format!("<0x{byte:02X}>").as_bytes()).or_else(|| vocabulary.id(&[byte as u8]));
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

/// A run of bytes that is one symbol now: a link of the chain of symbols. Indices are those of the first characters.
#[derive(Clone, Copy)]
struct Symbol {
    start: u32,
    /// 0 when the symbol before has swallowed this one.
    length: u32,
    /// [`END`] at the ends of the chain.
    previous: u32,
    next: u32,
    /// The piece it is, [`END`] when it is none.
    id: u32,
}

const END: u32 = u32::MAX;

/// A possible merge of a symbol with its right neighbour.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Merge {
    /// The score, then the leftmost first: see [`priority`].
    priority: u64,
    /// Bytes of both together. A merge is out of date when they have another length by now; when they have not, their text and
    /// so the piece is the same, however it was put together.
    length: u32,
    id: u32,
}

/// Orders merges: the higher score first, of equal scores the leftmost.
fn priority(score: f32, left: u32) -> u64 {
    u64::from(ordered(score) as u32 ^ 1 << 31) << 32 | u64::from(!left)
}

/// Maps scores to integers in the same order; there are no NaN.
fn ordered(score: f32) -> i32 {
    // -0 and 0 are one score; then negative numbers sort backwards by their bits.
    let bits = (score + 0.0).to_bits() as i32;
    bits ^ ((bits >> 31) as u32 >> 1) as i32
}

struct Chain<'a> {
    vocabulary: &'a Vocabulary,
    text: &'a str,
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Merge>,
    steps: usize,
    interrupt: &'a dyn Interrupt,
}

impl Chain<'_> {
    /// Queues the merge of two neighbours when they are a piece together.
    fn offer(&mut self, left: u32, right: u32) {
        if left == END || right == END {
            return;
        }
        let (first, second) = (self.symbols[left as usize], self.symbols[right as usize]);
        let length = first.length + second.length;
        let start = first.start as usize;
        if let Some(id) = self.vocabulary.id(&self.text.as_bytes()[start..start + length as usize]) {
            self.queue.push(Merge { priority: priority(self.vocabulary.score(id), left), length, id });
        }
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

/// Appends the tokens of `text`, in which spaces are written as [`SPACE`]. Takes O(n log n).
pub(super) fn encode(
    vocabulary: &Vocabulary,
    neighbours: &Neighbours,
    fallback: &Fallback,
    mut text: &str,
    ids: &mut Vec<u32>,
    interrupt: &dyn Interrupt,
) -> Result<()> {
    // END and the lengths are u32.
    if text.len() >= END as usize {
        return Err(Error::Argument(format!("text must be shorter than 4 GiB, found {} bytes", text.len())));
    }
    let mut chain = Chain { vocabulary, text: "", symbols: Vec::new(), queue: BinaryHeap::new(), steps: 0, interrupt };
    while !text.is_empty() {
        let (part, rest) = text.split_at(neighbours.cut(text));
        chain.text = part;
        chain.encode(fallback, ids)?;
        text = rest;
    }
    Ok(())
}

impl Chain<'_> {
    /// Appends the tokens of `self.text`.
    fn encode(&mut self, fallback: &Fallback, ids: &mut Vec<u32>) -> Result<()> {
        self.symbols.clear();
        self.queue.clear();
        for (start, character) in self.text.char_indices() {
            let index = self.symbols.len() as u32;
            let length = character.len_utf8() as u32;
            let id = self.vocabulary.id(&self.text.as_bytes()[start..start + length as usize]).unwrap_or(END);
            let previous = index.checked_sub(1).unwrap_or(END);
            self.symbols.push(Symbol { start: start as u32, length, previous, next: index + 1, id });
        }
        if let Some(last) = self.symbols.last_mut() {
            last.next = END;
        }
        for right in 1..self.symbols.len() as u32 {
            self.step()?;
            self.offer(right - 1, right);
        }
        while let Some(Merge { priority, length, id }) = self.queue.pop() {
            self.step()?;
            let left = !(priority as u32);
            let first = self.symbols[left as usize];
            // Swallowed since, or has become the end of the chain.
            if first.length == 0 || first.next == END {
                continue;
            }
            let second = self.symbols[first.next as usize];
            if first.length + second.length != length {
                continue;
            }
            self.symbols[left as usize] = Symbol { length, next: second.next, id, ..first };
            self.symbols[first.next as usize].length = 0;
            if second.next != END {
                self.symbols[second.next as usize].previous = left;
            }
            self.offer(first.previous, left);
            self.offer(left, second.next);
        }
        let mut index = if self.symbols.is_empty() { END } else { 0 };
        while index != END {
            let Symbol { start, length, next, id, .. } = self.symbols[index as usize];
            match id {
                END => fallback.encode(&self.text[start as usize..(start + length) as usize], ids)?,
                id => ids.push(id),
            }
            index = next;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS_PER_CHECK) && self.interrupt.stop() { Err(Error::Cancelled) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::{ordered, priority};

    #[test]
    fn scores_keep_their_order_as_integers() {
        let scores = [f32::NEG_INFINITY, -2.5, -1.0, -1e-40, 0.0, 1e-40, 1.0, 2.5, f32::INFINITY];
        assert!(scores.map(ordered).is_sorted_by(|a, b| a < b));
        assert_eq!(ordered(-0.0), ordered(0.0));
        assert!(priority(-1.0, 7) > priority(-1.5, 0) && priority(1.0, 0) > priority(-1.0, 0));
        assert!(priority(-1.0, 3) > priority(-1.0, 4));
    }
}
