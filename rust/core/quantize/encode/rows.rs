//! Tensors whose rows know nothing of each other, some rows at a time.

use std::ops::Range;

use fastq_kernels::quantize::{ROWS, search};
use fastq_kernels::{Cpu, Distortion, Format, distortion, first_not_finite};

use super::weights::{buffer, bytes_of};
use super::{BATCH_WEIGHTS, Done, Encoder, Encoding, GROUP_WEIGHTS, Job, Way, expert_of};
use crate::pool::Disjoint;
use crate::{Error, Result};

/// Makes blocks of rows, which know nothing of each other.
pub trait RowEncoder: Sync {
    /// What it does to rows of `format`.
    fn encoding(&self, format: Format) -> Encoding;

    /// The most rows that one call gets. Only speed depends on it.
    fn rows(&self) -> usize {
        1
    }

    /// Encodes `values` `(rows, k)` in blocks of `format`. `importance` `(k)` says how much an error of each column matters.
    ///
    /// # Errors
    /// What is wrong, without the tensor's name.
    fn encode(
        &self,
        cpu: Cpu,
        format: Format,
        k: usize,
        values: &[f32],
        importance: Option<&[f32]>,
        out: &mut [u8],
    ) -> Result<(), String>;
}

/// Encodes row by row.
#[derive(Clone, Copy, Debug)]
pub struct Rows<E>(pub E);

/// Why a row was not encoded.
enum Fault {
    NotFinite { row: u64, column: usize, value: f32 },
    Range { row: u64 },
    Other(String),
}

impl Fault {
    /// What went wrong with the tensor of `job`.
    fn of(self, job: &Job<'_>) -> Error {
        match self {
            Fault::NotFinite { row, column, value } => job.not_finite(row, column, value),
            Fault::Range { row } => job.too_large(row),
            Fault::Other(what) => Error::Argument(format!("tensor {:?}: {what}", job.tensor().info.name)),
        }
    }
}

/// What a thread computes with.
struct Scratch {
    values: Vec<f32>,
    decoded: Vec<f32>,
}

impl<E: RowEncoder> Encoder for Rows<E> {
    fn encode(&mut self, job: &mut Job<'_>) -> Result<Done> {
        if !job.tensor().is_encoded() {
            return job.copy();
        }
        let (k, from, to) = (job.k()?, job.source_format()?, job.target_format()?);
        let (from_bytes, to_bytes) = (job.row_bytes(from, k)?, job.row_bytes(to, k)?);
        let importance = job.importance()?;
        let total = job.tensor().info.rows();
        let batch = (BATCH_WEIGHTS / k).max(1).min(usize::try_from(total).unwrap_or(usize::MAX));
        // Whole calls of the encoder.
        let (most, group) = (self.0.rows(), (GROUP_WEIGHTS / k).max(1).next_multiple_of(self.0.rows()));
        let mut source = buffer(bytes_of(batch, from_bytes)?, 0u8)?;
        let mut out = buffer(bytes_of(batch, to_bytes)?, 0u8)?;
        let mut scratch = Vec::new();
        for _ in 0..job.pool.threads() {
            scratch.push(Scratch { values: buffer(bytes_of(most, k)?, 0.0)?, decoded: buffer(k, 0.0)? });
        }
        let mut sum = Distortion::default();
        let mut first = 0;
        while first < total {
            let rows = (total - first).min(batch as u64) as usize;
            let (source, out) = (&mut source[..rows * from_bytes], &mut out[..rows * to_bytes]);
            job.reader.read(&job.tensor().info, first * from_bytes as u64, source)?;
            let source = &*source;
            let pieces = rows.div_ceil(group);
            let mut results: Vec<Result<Distortion, Fault>> = Vec::new();
            results.resize_with(pieces, || Ok(Distortion::default()));
            {
                let (shared, results) = (Disjoint::new(out), Disjoint::new(&mut results));
                let scratch = Disjoint::new(&mut scratch);
                let (cpu, shape) = (job.cpu, &job.tensor().info.shape);
                let part = |rows: Range<usize>, Scratch { values, decoded }: &mut Scratch, out: &mut [u8]| {
                    let number = |row: usize| first + row as u64;
                    let values = &mut values[..rows.len() * k];
                    from.dequantize(&source[rows.start * from_bytes..rows.end * from_bytes], values);
                    if let Some(at) = first_not_finite(cpu, values) {
                        let row = number(rows.start + at / k);
                        return Err(Fault::NotFinite { row, column: at % k, value: values[at] });
                    }
                    let expert = expert_of(shape, number(rows.start));
                    let importance = importance.as_deref().map(|all| &all[expert * k..(expert + 1) * k]);
                    self.0.encode(cpu, to, k, values, importance, out).map_err(Fault::Other)?;
                    let mut rows = rows.zip(values.chunks_exact(k).zip(out.chunks_exact(to_bytes)));
                    rows.try_fold(Distortion::default(), |sum, (row, (values, out))| {
                        to.dequantize(out, decoded);
                        let found = distortion(cpu, values, decoded);
                        if found.error.is_finite() {
                            Ok(sum.and(found))
                        } else {
                            Err(Fault::Range { row: number(row) })
                        }
                    })
                };
                // Rows of one call have the importance of one expert.
                let of_expert =
                    usize::try_from(job.tensor().info.shape.get(1).copied().unwrap_or(1)).unwrap_or(usize::MAX);
                let end_of = |row: usize| {
                    let within = (first % of_expert as u64) as usize + row;
                    row.saturating_add((of_expert - within % of_expert).min(most))
                };
                job.pool.run(pieces, job.interrupt, |piece, worker| {
                    // SAFETY: every piece has rows and a result, every worker a scratch of its own.
                    let (result, scratch) = unsafe { (results.item(piece), scratch.item(worker)) };
                    let (mut row, end) = (piece * group, rows.min((piece + 1) * group));
                    while row < end {
                        let range = row..end.min(end_of(row));
                        // SAFETY: as above.
                        let out = unsafe { shared.slice(range.start * to_bytes..range.end * to_bytes) };
                        row = range.end;
                        match (&mut *result, part(range, scratch, out)) {
                            (Ok(sum), Ok(found)) => *sum = sum.and(found),
                            (_, fault) => {
                                *result = fault;
                                break;
                            }
                        }
                    }
                })?;
            }
            for result in results {
                sum = sum.and(result.map_err(|fault| fault.of(job))?);
            }
            job.write(first, out)?;
            first += rows as u64;
            job.report(first * k as u64);
        }
        Ok(Done::Encoded(sum, Way { encoding: self.0.encoding(to), scaled: false }))
    }
}

/// The method [`Search`](crate::quantize::Method::Search), for formats that have a grid; ternary ones are rounded as by ggml.
#[derive(Clone, Copy, Debug)]
pub(in crate::quantize) struct Search;

impl RowEncoder for Search {
    fn encoding(&self, format: Format) -> Encoding {
        if format.has_grid() { Encoding::Search } else { Encoding::Rtn }
    }

    fn rows(&self) -> usize {
        ROWS
    }

    fn encode(
        &self,
        cpu: Cpu,
        format: Format,
        k: usize,
        values: &[f32],
        importance: Option<&[f32]>,
        out: &mut [u8],
    ) -> Result<(), String> {
        if format.has_grid() && !may_be_too_large(cpu, values) {
            search(cpu, format, k, importance, values, out);
            return Ok(());
        }
        if !format.has_grid() || values.len() == k {
            return Rtn.encode(cpu, format, k, values, importance, out);
        }
        // Each alone: what becomes of a row does not depend on its neighbours.
        let bytes = out.len() * k / values.len();
        let mut rows = values.chunks_exact(k).zip(out.chunks_exact_mut(bytes));
        rows.try_for_each(|(values, out)| self.encode(cpu, format, k, values, importance, out))
    }
}

/// Whether weights exceed the largest f16, so that a scale may. A search would stop at the largest scale; rounding shows whether the
/// type holds such weights.
pub(in crate::quantize) fn may_be_too_large(cpu: Cpu, values: &[f32]) -> bool {
    distortion(cpu, values, values).power > 65504.0 * 65504.0
}

/// The method [`Rtn`](crate::quantize::Method::Rtn).
#[derive(Clone, Copy, Debug)]
pub(in crate::quantize) struct Rtn;

impl RowEncoder for Rtn {
    fn encoding(&self, _: Format) -> Encoding {
        Encoding::Rtn
    }

    fn encode(
        &self,
        cpu: Cpu,
        format: Format,
        k: usize,
        values: &[f32],
        importance: Option<&[f32]>,
        out: &mut [u8],
    ) -> Result<(), String> {
        let bytes = out.len() * k / values.len();
        let mut rows = values.chunks_exact(k).zip(out.chunks_exact_mut(bytes));
        rows.try_for_each(|(values, out)| format.quantize_row(cpu, values, importance, out))
            .map_err(|error| error.to_string())
    }
}
