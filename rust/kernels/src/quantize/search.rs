//! Weighted search: every block alone, each weight's error counted by its importance.

use super::codebook::SearchRows;
use super::fit::{Fitter, Scales};
use super::lanes::{Integers, LANES, Lanes, Round, Table, all, reciprocals};
use crate::Cpu;
use crate::format::parts::{Grid, Levels, Parts};
use crate::format::{Format, ScalarFormat};
use crate::isa::{Isa, Kernel, dispatch_floats};

/// Encodes rows `(n, k)`, each block with the scales that a search finds to have a small sum of `weight * error^2`.
///
/// With the `importance` of the columns `(k)`, the mean squares of the inputs, the weight is `importance * sqrt(m + x^2)`, `m` being the
/// mean of `x^2` in the block: inputs say how an error of the column shows, and large weights are those that inputs of other texts are
/// likely to meet. Without, it is `sqrt(m) + |x|`. (Both are those of ggml, which searches fewer scales.)
///
/// # Panics
/// When the format has no grid ([`Format::has_grid`]), or a length does not fit.
pub fn search(cpu: Cpu, format: Format, k: usize, importance: Option<&[f32]>, rows: &[f32], out: &mut [u8]) {
    let row_bytes = format.row_bytes(k).expect("rows of whole blocks");
    assert!(rows.len().is_multiple_of(k) && rows.len() / k * row_bytes == out.len(), "rows and their bytes");
    assert!(importance.is_none_or(|importance| importance.len() == k), "an importance for each column");
    for (rows, out) in rows.chunks(LANES * k).zip(out.chunks_mut(LANES * row_bytes)) {
        match (format.scalar(), format.codebook()) {
            (Some(scalar), _) => dispatch_floats(cpu, Search { scalar, k, row_bytes, importance, rows, out }),
            (None, Some(book)) => {
                dispatch_floats(cpu, SearchRows { book: &book, k, row_bytes, importance, rows, out });
            }
            (None, None) => panic!("{} has no grid", format.name()),
        }
    }
}

/// Up to sixteen rows.
struct Search<'a> {
    scalar: ScalarFormat,
    k: usize,
    row_bytes: usize,
    importance: Option<&'a [f32]>,
    rows: &'a [f32],
    out: &'a mut [u8],
}

impl Kernel for Search<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _isa: I) {
        match self.scalar.grid.levels {
            Levels::Range(low, high) => self.with(Integers { low: low as f32, high: high as f32 }),
            Levels::Table(values) => self.with(Table::new(values)),
        }
    }
}

impl Search<'_> {
    #[inline(always)]
    fn with<R: Round>(self, round: R) {
        let Search { scalar, k, row_bytes, importance, rows, out } = self;
        let block = scalar.grid.block;
        let fitter = Fitter { grid: scalar.grid, round };
        let mut x = [all(0.0); 256];
        let mut w = [all(0.0); 256];
        let (x, w) = (&mut x[..block], &mut w[..block]);
        for start in (0..k).step_by(block) {
            fill(rows, k, start, importance, x, w);
            let scales = fitter.block(x, w);
            let bytes = start / block * (row_bytes / (k / block));
            let mut values = [all(0.0); 256];
            for j in 0..block / scalar.grid.sub {
                let (scale, min) = scales.sub(j);
                let inverse = reciprocals(&scale);
                for i in j * scalar.grid.sub..(j + 1) * scalar.grid.sub {
                    values[i] = fitter.values(&x[i], &inverse, &min);
                }
            }
            store(
                &scalar,
                &scales,
                &values[..block],
                rows.len() / k,
                |l| {
                    let at = l * row_bytes + bytes;
                    at..at + row_bytes / (k / block)
                },
                out,
            );
        }
    }
}

/// Columns of up to sixteen rows from `start` on, and what an error of each weight counts.
#[inline(always)]
pub(super) fn fill(rows: &[f32], k: usize, start: usize, importance: Option<&[f32]>, x: &mut [Lanes], w: &mut [Lanes]) {
    let block = x.len();
    for (l, row) in rows.chunks_exact(k).enumerate() {
        for (x, value) in x.iter_mut().zip(&row[start..start + block]) {
            x[l] = *value;
        }
    }
    let mut squares = all(0.0);
    for x in &*x {
        for l in 0..LANES {
            squares[l] += x[l] * x[l];
        }
    }
    let mean = squares.map(|sum| sum / block as f32);
    for (i, (w, x)) in w.iter_mut().zip(&*x).enumerate() {
        *w = match importance {
            Some(importance) => {
                let importance = importance[start + i];
                core::array::from_fn(|l| importance * (mean[l] + x[l] * x[l]).sqrt())
            }
            None => core::array::from_fn(|l| mean[l].sqrt() + x[l].abs()),
        };
    }
}

/// Packs a block of the first `rows` lanes; `place` says where each goes.
pub(super) fn store(
    scalar: &ScalarFormat,
    scales: &Scales,
    values: &[Lanes],
    rows: usize,
    place: impl Fn(usize) -> core::ops::Range<usize>,
    out: &mut [u8],
) {
    let Grid { block, sub, .. } = scalar.grid;
    let mut parts = Parts::default();
    for l in 0..rows {
        (parts.d, parts.dmin) = (scales.d[l], scales.dmin[l]);
        for j in 0..block / sub {
            (parts.scales[j], parts.minima[j]) = (scales.scales[j][l] as i32, scales.minima[j][l] as i32);
        }
        for (value, values) in parts.values.iter_mut().zip(values) {
            *value = values[l] as i32;
        }
        (scalar.assemble)(&parts, &mut out[place(l)]);
    }
}
