//! The logits of a chunk that are scored, a few rows at a time.

use crate::{BatchItem, Interrupt, Logits, Model, Result, Sequence};

/// Bytes of logits that are held at once.
const LOGIT_BYTES: usize = 64 << 20;
/// The least rows at once: products of fewer are slow.
const LEAST_ROWS: usize = 16;

/// A model in the middle of a chunk.
pub(super) struct Rows<'a> {
    model: &'a Model,
    sequence: Sequence,
    /// Logits of the last rows `(rows, vocabulary)`.
    pub(super) logits: Vec<f32>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(model: &'a Model) -> Rows<'a> {
        Rows { model, sequence: model.new_sequence(), logits: Vec::new() }
    }

    /// How many rows are computed at once.
    pub(super) fn step(vocabulary: usize) -> usize {
        (LOGIT_BYTES / (4 * vocabulary.max(1))).max(LEAST_ROWS)
    }

    /// Begins a chunk with tokens that are not scored.
    pub(super) fn begin(&mut self, tokens: &[u32], interrupt: &dyn Interrupt) -> Result<()> {
        self.sequence = self.model.new_sequence();
        self.append(tokens, Logits::None, interrupt)
    }

    /// Goes on; `logits` are then those of the tokens.
    pub(super) fn next(&mut self, tokens: &[u32], interrupt: &dyn Interrupt) -> Result<()> {
        self.append(tokens, Logits::All, interrupt)
    }

    fn append(&mut self, tokens: &[u32], logits: Logits, interrupt: &dyn Interrupt) -> Result<()> {
        if tokens.is_empty() {
            return Ok(());
        }
        let item = BatchItem { sequence: &mut self.sequence, tokens, logits, out: &mut self.logits };
        self.model.forward(&mut [item], interrupt)
    }
}

/// Calls `score(row, token)` for the rows that are scored, where `token` is the true next one: those from the middle of each chunk on, but for
/// the last. `step` computes what it needs for `tokens` of a chunk; the first are not scored.
pub(super) fn each_scored(
    chunk: &[u32],
    step: usize,
    mut compute: impl FnMut(&[u32], bool) -> Result<()>,
    mut score: impl FnMut(usize, usize) -> Result<()>,
) -> Result<()> {
    let (first, end) = (chunk.len() / 2, chunk.len() - 1);
    compute(&chunk[..first], false)?;
    for start in (first..end).step_by(step) {
        let part = start..end.min(start + step);
        compute(&chunk[part.clone()], true)?;
        for (row, at) in part.enumerate() {
            score(row, chunk[at + 1] as usize)?;
        }
    }
    Ok(())
}
