//! Which pieces a text begins with. [WordPiece](super::wordpiece) takes the longest, [unigram](super::unigram) weighs all.
//!
//! The ids in the order of their pieces are all the table there is: four bytes per token, and sorted in a fraction of the time that
//! an automaton takes to build. Every further byte of a text narrows the range of pieces that begin with what was read.

use super::vocabulary::{TOKENS, Vocabulary};
use crate::Result;
use crate::gguf::Gguf;

/// Longest piece, in bytes: what bounds the work at one place of a text. SentencePiece makes none of more than 16 characters.
const MAX_PIECE: usize = 256;

/// Refuses a vocabulary whose pieces are too long to be searched for at every place of a text.
pub(super) fn check(file: &Gguf, vocabulary: &Vocabulary) -> Result<()> {
    match vocabulary.longest() {
        0..=MAX_PIECE => Ok(()),
        found => {
            let what = format!("key `{TOKENS}` must have at most {MAX_PIECE} bytes per token, found {found}");
            Err(file.key_error(TOKENS, what))
        }
    }
}

/// Pieces in the order of their bytes.
pub(super) struct Prefixes {
    ids: Box<[u32]>,
    /// Where the pieces with each first byte end in `ids`; they start where those of the byte before end.
    ends: Box<[u32; 256]>,
}

impl Prefixes {
    /// Of the tokens that are `wanted`.
    pub(super) fn new(vocabulary: &Vocabulary, wanted: impl Fn(u32) -> bool) -> Prefixes {
        let named = |id: &u32| !vocabulary.piece(*id).is_empty() && wanted(*id);
        let mut ids: Box<[u32]> = (0..vocabulary.len() as u32).filter(named).collect();
        ids.sort_unstable_by_key(|id| vocabulary.piece(*id));
        let end = |byte| ids.partition_point(|id| vocabulary.piece(*id)[0] <= byte as u8) as u32;
        let ends = Box::new(std::array::from_fn(end));
        Prefixes { ids, ends }
    }

    /// Gives the length and the id of every piece that `text` begins with, the shortest first. Returns how many bytes of `text` some
    /// piece begins with.
    pub(super) fn each(&self, vocabulary: &Vocabulary, text: &[u8], mut found: impl FnMut(usize, u32)) -> usize {
        let Some(first) = text.first().copied() else { return 0 };
        let start = first.checked_sub(1).map_or(0, |before| self.ends[before as usize]);
        let mut range = &self.ids[start as usize..self.ends[first as usize] as usize];
        let mut length = 0;
        while !range.is_empty() {
            length += 1;
            // Of pieces with a common beginning the one that is nothing more comes first.
            if let Some((id, rest)) = range.split_first()
                && vocabulary.piece(*id).len() == length
            {
                found(length, *id);
                range = rest;
            }
            let Some(next) = text.get(length) else { break };
            let byte = |id: &u32| vocabulary.piece(*id)[length];
            range = &range[range.partition_point(|id| byte(id) < *next)..];
            range = &range[..range.partition_point(|id| byte(id) == *next)];
        }
        length
    }

    /// The length and the id of the longest piece that `text` begins with.
    pub(super) fn longest(&self, vocabulary: &Vocabulary, text: &[u8]) -> Option<(usize, u32)> {
        let mut longest = None;
        self.each(vocabulary, text, |length, id| longest = Some((length, id)));
        longest
    }
}
