//! The BPE of SentencePiece (Kudo and Richardson 2018): neighbours whose concatenation is a piece are merged, the highest score
//! first, of equal scores the leftmost. There is no list of merges: the scores of the vocabulary are the order.
//!
//! `tokenizers` has no such model, and turning 262,144 pieces into a list of merges takes longer than loading the rest of the
//! file. This one needs only the hash table that the vocabulary has anyway.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::vocabulary::{TOKENS, Vocabulary};
use crate::{Error, Interrupt, Result};

/// What a space is written as inside pieces: U+2581.
pub(super) const SPACE: &str = "\u{2581}";

/// Merges between two looks at the interrupt.
const MERGES_PER_CHECK: usize = 4096;

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

/// A possible merge. Ordered by score, then the leftmost first; the rest only tells whether it is still possible.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Merge {
    /// The score as an integer of the same order.
    score: i32,
    left: Reverse<u32>,
    right: u32,
    /// Bytes of both together.
    length: u32,
    id: u32,
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
            let score = ordered(self.vocabulary.score(id));
            self.queue.push(Merge { score, left: Reverse(left), right, length, id });
        }
    }
}

/// Appends the tokens of `text`, in which spaces are written as [`SPACE`]. Takes O(n log n).
pub(super) fn encode(
    vocabulary: &Vocabulary,
    fallback: &Fallback,
    text: &str,
    ids: &mut Vec<u32>,
    interrupt: &dyn Interrupt,
) -> Result<()> {
    // END and the lengths are u32.
    if text.len() >= END as usize {
        return Err(Error::Argument(format!("text must be shorter than 4 GiB, found {} bytes", text.len())));
    }
    let mut chain = Chain { vocabulary, text, symbols: Vec::with_capacity(text.len()), queue: BinaryHeap::new() };
    for (start, character) in text.char_indices() {
        let index = chain.symbols.len() as u32;
        let length = character.len_utf8() as u32;
        let id = vocabulary.id(&text.as_bytes()[start..start + length as usize]).unwrap_or(END);
        let previous = index.checked_sub(1).unwrap_or(END);
        chain.symbols.push(Symbol { start: start as u32, length, previous, next: index + 1, id });
    }
    if let Some(last) = chain.symbols.last_mut() {
        last.next = END;
    }
    for right in 1..chain.symbols.len() as u32 {
        if (right as usize).is_multiple_of(MERGES_PER_CHECK) && interrupt.stop() {
            return Err(Error::Cancelled);
        }
        chain.offer(right - 1, right);
    }
    let mut merges = 0_usize;
    while let Some(Merge { left: Reverse(left), right, length, id, .. }) = chain.queue.pop() {
        merges += 1;
        if merges.is_multiple_of(MERGES_PER_CHECK) && interrupt.stop() {
            return Err(Error::Cancelled);
        }
        let (first, second) = (chain.symbols[left as usize], chain.symbols[right as usize]);
        // One of the two has been merged since.
        if first.length == 0 || second.length == 0 || first.length + second.length != length {
            continue;
        }
        chain.symbols[left as usize] = Symbol { length, next: second.next, id, ..first };
        chain.symbols[right as usize].length = 0;
        if second.next != END {
            chain.symbols[second.next as usize].previous = left;
        }
        chain.offer(first.previous, left);
        chain.offer(left, second.next);
    }
    let mut index = if chain.symbols.is_empty() { END } else { 0 };
    while index != END {
        let Symbol { start, length, next, id, .. } = chain.symbols[index as usize];
        match id {
            END => fallback.encode(&text[start as usize..(start + length) as usize], ids)?,
            id => ids.push(id),
        }
        index = next;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::ordered;

    #[test]
    fn scores_keep_their_order_as_integers() {
        let scores = [f32::NEG_INFINITY, -2.5, -1.0, -1e-40, 0.0, 1e-40, 1.0, 2.5, f32::INFINITY];
        assert!(scores.map(ordered).is_sorted_by(|a, b| a < b));
        assert_eq!(ordered(-0.0), ordered(0.0));
    }
}
