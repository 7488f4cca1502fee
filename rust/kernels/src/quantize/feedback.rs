//! Error feedback: the error of each weight is made good by the weights after it.
//!
//! The error of a layer's outputs over the calibration inputs `X` is `(w - q) H (w - q)^T` per row, with `H = X^T X`. Columns are rounded
//! in order; after each, the columns that are still free move to where the error becomes least (GPTQ, arXiv 2210.17323; the same as
//! LDLQ of QuIP, arXiv 2307.13304). With `H^-1 = U^T U`, `U` upper triangular, the error `e = (w_i - q_i) / U_ii` moves column `j` by
//! `-e U_ij`. Scales are chosen when a block is reached, for its weights as they have become by then and with the weights `1 / U_ii^2` by
//! which an error counts that the columns behind make the best of; those of a sub-block once more when it is reached.

use super::codebook::FeedbackRows;
use super::fit::Fitter;
use super::lanes::{Integers, LANES, Lanes, Round, Table, all, reciprocals};
use super::search::store;
use crate::Cpu;
use crate::format::parts::Levels;
use crate::format::{Format, ScalarFormat};
use crate::isa::{Isa, Kernel, dispatch_floats};

/// What the inputs of a layer say about its columns.
#[derive(Clone, Copy, Debug)]
pub struct Feedback<'a> {
    /// Number of columns.
    pub k: usize,
    /// `U` by columns `(k, k)`: `factor[j * k + i]` is `U_ij`, `i <= j`; what is behind is not read. See
    /// [`inverse_factor`](super::inverse_factor).
    pub factor: &'a [f32],
}

/// Encodes rows `(n, k)`.
///
/// # Panics
/// When the format has no grid ([`Format::has_grid`]), or a length does not fit.
pub fn feedback(cpu: Cpu, format: Format, feedback: Feedback<'_>, rows: &[f32], out: &mut [u8]) {
    let Feedback { k, factor } = feedback;
    let row_bytes = format.row_bytes(k).expect("rows of whole blocks");
    assert!(rows.len().is_multiple_of(k) && rows.len() / k * row_bytes == out.len(), "rows and their bytes");
    assert_eq!(factor.len(), k * k, "a factor of k columns");
    let (mut w, mut errors) = (vec![all(0.0); k], vec![all(0.0); k]);
    for (rows, out) in rows.chunks(LANES * k).zip(out.chunks_mut(LANES * row_bytes)) {
        w.fill(all(0.0));
        for (l, row) in rows.chunks_exact(k).enumerate() {
            for (w, value) in w.iter_mut().zip(row) {
                w[l] = *value;
            }
        }
        let (n, w, errors) = (rows.len() / k, &mut w[..], &mut errors[..]);
        match (format.scalar(), format.codebook()) {
            (Some(scalar), _) => dispatch_floats(cpu, Rows { scalar, k, row_bytes, factor, w, errors, n, out }),
            (None, Some(book)) => {
                dispatch_floats(cpu, FeedbackRows { book: &book, feedback, row_bytes, w, errors, n, out });
            }
            (None, None) => panic!("{} has no grid", format.name()),
        }
    }
}

/// Up to sixteen rows.
struct Rows<'a> {
    scalar: ScalarFormat,
    k: usize,
    row_bytes: usize,
    factor: &'a [f32],
    /// The columns as they are by now.
    w: &'a mut [Lanes],
    /// `e` of the columns that are rounded.
    errors: &'a mut [Lanes],
    n: usize,
    out: &'a mut [u8],
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _isa: I) {
        match self.scalar.grid.levels {
            Levels::Range(low, high) => self.with(Integers { low: low as f32, high: high as f32 }),
            Levels::Table(values) => self.with(Table::new(values)),
        }
    }
}

impl Rows<'_> {
    #[inline(always)]
    fn with<R: Round>(self, round: R) {
        let Rows { scalar, k, row_bytes, factor, w, errors, n, out } = self;
        let (block, sub) = (scalar.grid.block, scalar.grid.sub);
        let block_bytes = row_bytes / (k / block);
        let fitter = Fitter { grid: scalar.grid, round };
        let mut weights = [all(0.0); 256];
        let mut values = [all(0.0); 256];
        for start in (0..k).step_by(block) {
            let end = start + block;
            advance(w, errors, factor, k, 0..start, start..end);
            for (weight, i) in weights.iter_mut().zip(start..end) {
                let u = factor[i * k + i];
                *weight = all(1.0 / (u * u));
            }
            let mut scales = fitter.block(&w[start..end], &weights[..block]);
            for j in 0..block / sub {
                let columns = start + j * sub..start + (j + 1) * sub;
                if j > 0 {
                    advance(w, errors, factor, k, start..columns.start, columns.clone());
                    fitter.refit(&w[columns.clone()], &weights[j * sub..(j + 1) * sub], &mut scales, j);
                }
                let (scale, min) = scales.sub(j);
                let inverse = reciprocals(&scale);
                for i in columns.clone() {
                    let x = w[i];
                    let value = fitter.values(&x, &inverse, &min);
                    values[i - start] = value;
                    let unit = 1.0 / factor[i * k + i];
                    let error: Lanes = core::array::from_fn(|l| ((x[l] + min[l]) - scale[l] * value[l]) * unit);
                    errors[i] = error;
                    for next in i + 1..columns.end {
                        let u = factor[next * k + i];
                        for l in 0..LANES {
                            w[next][l] -= error[l] * u;
                        }
                    }
                }
            }
            let at = start / block * block_bytes;
            store(&scalar, &scales, &values[..block], n, |l| l * row_bytes + at..l * row_bytes + at + block_bytes, out);
        }
    }
}

/// Moves the columns `to` by the errors of the columns `from`.
#[inline(always)]
pub(super) fn advance(
    w: &mut [Lanes],
    errors: &[Lanes],
    factor: &[f32],
    k: usize,
    from: core::ops::Range<usize>,
    to: core::ops::Range<usize>,
) {
    // Four columns at once: as many independent chains.
    const COLUMNS: usize = 4;
    let errors = &errors[from.clone()];
    for first in to.clone().step_by(COLUMNS) {
        let columns: [usize; COLUMNS] = core::array::from_fn(|c| (first + c).min(to.end - 1));
        let us = columns.map(|column| &factor[column * k + from.start..column * k + from.end]);
        let mut sums = [all(0.0); COLUMNS];
        for (i, error) in errors.iter().enumerate() {
            for c in 0..COLUMNS {
                let u = us[c][i];
                for l in 0..LANES {
                    sums[c][l] += error[l] * u;
                }
            }
        }
        for c in 0..COLUMNS.min(to.end - first) {
            for l in 0..LANES {
                w[first + c][l] -= sums[c][l];
            }
        }
    }
}
