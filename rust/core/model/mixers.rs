//! Mixers that carry a state from position to position: what they are, their weights, and their step over the rows of a chunk.
//!
//! A step takes the rows of a sequence one after the other, so chunks do not change bits; threads share sequences, channels and
//! heads.

pub mod convolution;
pub mod delta_net;
pub mod short_conv;

use std::ops::Range;

use super::batch::Segment;
use super::forward::Pass;
use crate::kv_cache::Sequence;
use crate::{Error, Result};

impl Pass<'_, '_> {
    /// Calls `work(rows, sequence, part, worker)` for `parts` parts of every sequence of the chunk, in parallel when `cost` values per row and
    /// part are worth it. All rows of the chunk are there.
    fn each_carried(
        &mut self,
        segments: &[Segment],
        parts: usize,
        cost: usize,
        work: impl Fn(Range<usize>, &Sequence, usize, usize) + Sync,
    ) -> Result<()> {
        let rows = self.rows.len();
        if segments.iter().map(|segment| segment.tokens.len()).sum::<usize>() != rows {
            return Err(Error::Internal(format!("a state goes on with {rows} rows of a chunk")));
        }
        let batch = &*self.batch;
        let pieces = segments.len() * parts;
        self.regions.each_row(pieces, rows * parts * cost / pieces, |piece, worker| {
            let (segment, part) = (piece / parts, piece % parts);
            let start = segments[..segment].iter().map(|segment| segment.tokens.len()).sum();
            let Segment { item, tokens, .. } = &segments[segment];
            work(start..start + tokens.len(), &*batch[*item].sequence, part, worker);
        })
    }
}
