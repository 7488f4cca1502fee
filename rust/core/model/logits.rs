//! The end of a pass: the output matrix for the rows that want logits, and the search for values that are not finite.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use fastq_kernels::elementwise::{add, scale, softcap};

use super::buffers::{Buffers, LOGIT_ROWS, kind_index};
use super::damage::diagnosis;
use super::forward::{Context, Pass, Row};
use super::regions::{Product, Regions};
use super::spec::ModelSpec;
use crate::pool::Disjoint;
use crate::{Error, Result};

/// Values of a piece of logits.
const LOGITS_PIECE: usize = 16 * 1024;
/// From this many rows of one sequence on, logits are computed straight into the caller's vector.
const DIRECT_ROWS: usize = 8;

impl Pass<'_, '_> {
    /// Output matrix, bias, factor and soft cap.
    pub(super) fn output(&mut self, buffers: &mut Buffers) -> Result<()> {
        let Context { spec, weights, file, .. } = self.context;
        let Some(output) = &weights.output else { return Err(no_logits(spec)) };
        self.observe(&buffers.records, 0..self.rows.len(), [output], None)?;
        let kind = output.format.activation();
        let (vocabulary, record) = (spec.vocabulary, kind.row_bytes(spec.width));
        let matrix = output.matrix(file);
        let Buffers { logits, records, workers, .. } = buffers;
        let x = |rows: &Range<usize>| &records[kind_index(kind)][rows.start * record..rows.end * record];
        let n = self.rows.len();
        let mut start = 0;
        while start < n {
            let count = run(&self.rows, start);
            let (item, first) = (self.rows[start].item, logits_row(&self.rows[start])?);
            if count >= DIRECT_ROWS || count == n {
                let rows = start..start + count;
                let out = self.batch[item].grown(first + count, vocabulary);
                let out = &mut out[first * vocabulary..(first + count) * vocabulary];
                let product = Product::of(matrix, x(&rows), count, out);
                self.regions.products(&mut [product], workers)?;
                let out = Disjoint::new(out);
                start = rows.end;
                self.context.finish_logits(&mut self.regions, &self.rows[rows], |row, part| {
                    // SAFETY: the parts of the rows are disjoint.
                    unsafe { out.slice(row * vocabulary + part.start..row * vocabulary + part.end) }
                })?;
                continue;
            }
            let mut rows = start..start + count;
            let limit = LOGIT_ROWS.min(logits.len() / vocabulary);
            while rows.end < n && run(&self.rows, rows.end) < DIRECT_ROWS {
                let end = rows.end + run(&self.rows, rows.end);
                if end - start > limit {
                    break;
                }
                rows.end = end;
            }
            let logits = &mut logits[..rows.len() * vocabulary];
            let product = Product::of(matrix, x(&rows), rows.len(), logits);
            self.regions.products(&mut [product], workers)?;
            start = rows.end;
            let rows = &self.rows[rows];
            // The logits of the row's item, and where its own begin.
            let mut outs = [(Disjoint::new(&mut []), 0); LOGIT_ROWS];
            for (index, item) in self.batch.iter_mut().enumerate() {
                let own = || (0..rows.len()).filter(|&row| rows[row].item == index);
                let mut end = 0;
                for row in own() {
                    end = end.max(logits_row(&rows[row])? + 1);
                }
                let out = Disjoint::new(item.grown(end, vocabulary));
                for row in own() {
                    outs[row] = (out, logits_row(&rows[row])? * vocabulary);
                }
            }
            let logits = &*logits;
            self.context.finish_logits(&mut self.regions, rows, |row, part| {
                let (out, place) = &outs[row];
                // SAFETY: the parts of the rows are disjoint.
                let out = unsafe { out.slice(place + part.start..place + part.end) };
                out.copy_from_slice(&logits[row * vocabulary + part.start..row * vocabulary + part.end]);
                out
            })?;
        }
        Ok(())
    }

    /// Hidden states after the last norm.
    pub(super) fn hidden(&mut self, buffers: &mut Buffers) -> Result<()> {
        let Context { spec, weights, cpu, .. } = self.context;
        let width = spec.width;
        for (row, x) in self.rows.iter().zip(buffers.x.chunks_exact(width)) {
            let place = logits_row(row)?;
            let out = &mut self.batch[row.item].grown(place + 1, width)[place * width..(place + 1) * width];
            match &weights.output_norm {
                Some(norm) => norm.row(cpu, x, out),
                None => out.copy_from_slice(x),
            }
            if !all_finite(out) {
                let position = row.position;
                let what = format!("the hidden state of position {position} is not finite: the weights are damaged");
                return Err(Error::NotFinite(what));
            }
        }
        Ok(())
    }

    /// In a checking pass: an error when hidden states after a layer, or else after the embedding, are not finite.
    pub(super) fn check(&self, buffers: &Buffers, layer: Option<usize>) -> Result<()> {
        let Context { spec, file, check, .. } = self.context;
        if !check {
            return Ok(());
        }
        match self.rows.iter().zip(buffers.x.chunks_exact(spec.width)).find(|(_, values)| !all_finite(values)) {
            Some((row, _)) => Err(Error::NotFinite(match layer {
                Some(layer) => diagnosis(file, row.position, &format!("layer {layer}"), &[&format!("blk.{layer}.")]),
                None => diagnosis(file, row.position, "the embedding", &["token_embd."]),
            })),
            None => Ok(()),
        }
    }
}

/// What to say when logits are wanted of a model that has none.
pub(super) fn no_logits(spec: &ModelSpec) -> Error {
    Error::Argument(format!("a {} model has no logits: it makes embeddings", spec.name))
}

/// Which row of the logits of its item a row is.
fn logits_row(row: &Row) -> Result<usize> {
    row.logits.ok_or_else(|| Error::Internal("a row without logits reached the output".into()))
}

/// How many rows from `start` on are of one sequence.
fn run(rows: &[Row], start: usize) -> usize {
    rows[start..].iter().take_while(|row| row.item == rows[start].item).count()
}

impl Context<'_> {
    /// Bias, factor and soft cap of rows of logits, and the check that they are finite. `values(row, part)` gives a part of a row, once.
    fn finish_logits<'v>(
        &self,
        regions: &mut Regions<'_>,
        rows: &[Row],
        values: impl Fn(usize, &Range<usize>) -> &'v mut [f32] + Sync,
    ) -> Result<()> {
        let Context { spec, weights, cpu, .. } = *self;
        let vocabulary = spec.vocabulary;
        let per_row = vocabulary.div_ceil(LOGITS_PIECE);
        let bad = AtomicUsize::new(usize::MAX);
        regions.pool.run(rows.len() * per_row, regions.interrupt, |piece, _| {
            let (row, part) = (piece / per_row, piece % per_row);
            let part = part * LOGITS_PIECE..vocabulary.min((part + 1) * LOGITS_PIECE);
            let values = values(row, &part);
            if let Some(bias) = weights.output.as_ref().and_then(|output| output.bias.as_ref()) {
                add(cpu, values, &bias[part]);
            }
            if let Some(factor) = spec.logit_scale {
                scale(cpu, values, factor);
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
                let position = rows[row].position;
                Err(Error::NotFinite(match self.check {
                    // The layers are the business of the checks between them, but keys and values reach no hidden state.
                    true => diagnosis(self.file, position, "the output", &["output", "token_embd.", "blk."]),
                    false => format!("the logits of position {position} are not finite: the weights are damaged"),
                }))
            }
        }
    }
}

/// Whether no value is NaN or infinite.
pub(super) fn all_finite(values: &[f32]) -> bool {
    // Without a branch per value, and with operations that every level has as vectors.
    const EXPONENT: u32 = 0x7f80_0000;
    values.iter().fold(0, |bad, value| bad | u32::from(value.to_bits() & EXPONENT == EXPONENT)) == 0
}
