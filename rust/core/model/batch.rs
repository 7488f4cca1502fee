//! What a call asks for, and how it is cut into chunks.

use std::ops::Range;

use crate::kv_cache::Sequence;
use crate::memory::human;
use crate::{Error, Result};

/// Which logits a [`BatchItem`] wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Logits {
    /// None: the tokens only fill the cache.
    None,
    /// Those after the last token.
    Last,
    /// Those after every token.
    All,
}

/// What a forward call computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Output {
    /// Logits.
    Logits,
    /// Hidden states after the last norm.
    Hidden,
}

/// The next tokens of one sequence.
#[derive(Debug)]
pub struct BatchItem<'a> {
    /// Where they are appended; positions continue from its length.
    pub sequence: &'a mut Sequence,
    /// The tokens; at least one.
    pub tokens: &'a [u32],
    /// Which logits to compute.
    pub logits: Logits,
    /// Receives `(rows, vocabulary)` logits; what was in it is replaced, and its memory is used again.
    pub out: &'a mut Vec<f32>,
}

impl BatchItem<'_> {
    /// Number of rows of logits.
    pub(super) fn wanted(&self) -> usize {
        match self.logits {
            Logits::None => 0,
            Logits::Last => 1,
            Logits::All => self.tokens.len(),
        }
    }

    /// Makes room for rows of `width` values; of a vector with those of a call like this one, nothing is touched.
    pub(super) fn reserve(&mut self, width: usize) -> Result<()> {
        let rows = self.wanted();
        let values = rows.saturating_mul(width);
        self.out.truncate(values);
        self.out.try_reserve(values - self.out.len()).map_err(|_| {
            let bytes = human((values as u64).saturating_mul(4));
            Error::Memory(format!("the system refused {bytes} for {rows} rows of results; ask for fewer"))
        })
    }

    /// The results, with at least the first `rows` rows. They grow as the rows come: to write zeros to many at once takes seconds.
    pub(super) fn grown(&mut self, rows: usize, width: usize) -> &mut [f32] {
        let values = rows * width;
        if self.out.len() < values {
            self.out.resize(values, 0.0);
        }
        self.out
    }
}

/// Neighbouring tokens of one sequence in a chunk.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// Index of the sequence.
    pub(super) item: usize,
    /// Tokens of the item.
    pub(super) tokens: Range<usize>,
    /// Position of the first one.
    pub(super) position: usize,
    /// How many of the last ones want logits.
    pub(super) wanted: usize,
}

/// The next at most `limit` tokens of the batch; `next` is the item and its token to go on with. With `whole`, items stay in one piece:
/// none is longer than the limit.
pub(super) fn plan_chunk(
    batch: &[BatchItem<'_>],
    next: &mut (usize, usize),
    limit: usize,
    whole: bool,
    segments: &mut Vec<Segment>,
) {
    segments.clear();
    let mut room = limit;
    while room > 0 && next.0 < batch.len() {
        let item = &batch[next.0];
        let start = next.1;
        if whole && item.tokens.len() > room {
            break;
        }
        let end = item.tokens.len().min(start + room);
        let done = end == item.tokens.len();
        let wanted = match item.logits {
            Logits::Last if !done => 0,
            _ => item.wanted().min(end - start),
        };
        segments.push(Segment { item: next.0, tokens: start..end, position: item.sequence.len(), wanted });
        room -= end - start;
        *next = if done { (next.0 + 1, 0) } else { (next.0, end) };
    }
}
