//! The end of a pass: the output matrix for the rows that want logits, and the search for values that are not finite.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use fastq_kernels::OutTile;
use fastq_kernels::elementwise::{add, softcap};

use super::buffers::{Buffers, LOGIT_ROWS, kind_index};
use super::damage::diagnosis;
use super::forward::{Context, Pass, Row};
use super::regions::Product;
use crate::memory::human;
use crate::pool::Disjoint;
use crate::{Error, Result};

/// Values of a piece of logits.
const LOGITS_PIECE: usize = 16 * 1024;
/// From this many rows of one sequence on, logits are computed straight into the caller's vector.
const DIRECT_ROWS: usize = 8;

impl Pass<'_> {
    /// Final norm, output matrix, soft cap.
    pub(super) fn output(&mut self, buffers: &mut Buffers, outs: &mut [&mut Vec<f32>]) -> Result<()> {
        let Context { spec, weights, file, .. } = self.context;
        let output = &weights.output;
        let kind = output.format.activation();
        self.norm_rows(buffers, &weights.output_norm, &[kind])?;
        let (vocabulary, record) = (spec.vocabulary, kind.row_bytes(spec.width));
        let matrix = output.matrix(file);
        let n = self.rows.len();
        let run =
            |rows: &[Row], start: usize| rows[start..].iter().take_while(|row| row.item == rows[start].item).count();
        let mut start = 0;
        while start < n {
            let count = run(&self.rows, start);
            let Buffers { logits, records, workers, .. } = &mut *buffers;
            let x = |rows: Range<usize>| &records[kind_index(kind)][rows.start * record..rows.end * record];
            if count >= DIRECT_ROWS || count == n {
                let out = &mut *outs[self.rows[start].item];
                let len = out.len();
                let more = count * vocabulary;
                out.try_reserve(more).map_err(|_| {
                    let bytes = human(4 * more as u64);
                    Error::Memory(format!("the system refused {bytes} for {count} rows of logits; ask for fewer"))
                })?;
                out.resize(len + more, 0.0);
                let tile = OutTile::new(&mut out[len..], vocabulary);
                self.products(&[Product { matrix, x: x(start..start + count), out: tile }], count, workers)?;
                self.finish_logits(&mut out[len..], start)?;
                start += count;
                continue;
            }
            let mut end = start + count;
            let limit = LOGIT_ROWS.min(logits.len() / vocabulary);
            while end < n && run(&self.rows, end) < DIRECT_ROWS && end + run(&self.rows, end) - start <= limit {
                end += run(&self.rows, end);
            }
            let rows = end - start;
            let logits = &mut logits[..rows * vocabulary];
            let tile = OutTile::new(logits, vocabulary);
            self.products(&[Product { matrix, x: x(start..end), out: tile }], rows, workers)?;
            self.finish_logits(logits, start)?;
            for (row, values) in self.rows[start..end].iter().zip(logits.chunks_exact(vocabulary)) {
                outs[row.item].extend_from_slice(values);
            }
            start = end;
        }
        Ok(())
    }

    /// Bias and soft cap of rows of logits, the first of which belongs to row `start`, and the check that they are finite.
    fn finish_logits(&mut self, logits: &mut [f32], start: usize) -> Result<()> {
        let Context { spec, weights, cpu, .. } = self.context;
        let vocabulary = spec.vocabulary;
        let per_row = vocabulary.div_ceil(LOGITS_PIECE);
        let pieces = logits.len() / vocabulary * per_row;
        let bad = AtomicUsize::new(usize::MAX);
        let logits = Disjoint::new(logits);
        self.pool.run(pieces, self.context.interrupt, |piece, _| {
            let (row, part) = (piece / per_row, piece % per_row);
            let range = part * LOGITS_PIECE..vocabulary.min((part + 1) * LOGITS_PIECE);
            // SAFETY: the ranges of the pieces are disjoint.
            let values = unsafe { logits.slice(row * vocabulary + range.start..row * vocabulary + range.end) };
            if let Some(bias) = &weights.output.bias {
                add(cpu, values, &bias[range]);
            }
            if let Some(cap) = spec.logit_cap {
                softcap(cpu, values, cap);
            }
            if !all_finite(values) {
                bad.fetch_min(row, Ordering::Relaxed);
            }
        })?;
        match bad.into_inner() {
            usize::MAX => Ok(()),
            row => {
                let position = self.rows[start + row].position;
                Err(Error::NotFinite(match self.context.check {
                    // The layers are the business of the checks between them, but keys and values reach no hidden state.
                    true => diagnosis(self.context.file, position, "the output", &["output", "token_embd.", "blk."]),
                    false => format!("the logits of position {position} are not finite: the weights are damaged"),
                }))
            }
        }
    }

    /// In a checking pass: an error when hidden states after `place` are not finite.
    pub(super) fn check(&self, buffers: &Buffers, place: &str, prefix: &str) -> Result<()> {
        let Context { spec, file, check, .. } = self.context;
        if !check {
            return Ok(());
        }
        match self.rows.iter().zip(buffers.x.chunks_exact(spec.width)).find(|(_, values)| !all_finite(values)) {
            Some((row, _)) => Err(Error::NotFinite(diagnosis(file, row.position, place, &[prefix]))),
            None => Ok(()),
        }
    }
}

/// Whether no value is NaN or infinite.
pub(super) fn all_finite(values: &[f32]) -> bool {
    // Without a branch per value, so that the compiler vectorises it.
    let worst = values.iter().fold(0, |worst, value| (value.to_bits() & 0x7fff_ffff).max(worst));
    worst < 0x7f80_0000
}
