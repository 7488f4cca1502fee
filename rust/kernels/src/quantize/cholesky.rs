//! The factor of an inverse Gram matrix that error feedback reads.
//!
//! With the columns in reverse order, `H = L L^T` (Cholesky) gives `H^-1 = U^T U` in the original order, where `U` is the inverse of `L` turned
//! around by both diagonals. So one factorisation and one triangular inverse suffice, both in f64, and each entry is one sum in a fixed
//! order: the factor is the same on every level and for any number of threads, which a library that picks its kernels at run time
//! would not promise.

use crate::Cpu;
use crate::isa::{Isa, Kernel, dispatch_floats};

/// Calls the function for the numbers below the first argument, in any order and on any threads.
pub type Parallel<'a> = &'a dyn Fn(usize, &(dyn Fn(usize) + Sync));

/// Partial sums of a dot product.
const SUMS: usize = 8;

/// Columns that are factored together.
const PANEL: usize = 32;

/// Rows of a piece of work.
const PIECE: usize = 16;

/// Overwrites the Gram matrix `H` `(k, k)`, of which the lower triangle is read, and gives `U` by columns as
/// [`Feedback::factor`](super::Feedback::factor) wants it. `damping` times the mean of the diagonal is added to the diagonal first; a column
/// that no input has used gets that mean.
///
/// Gives the number of the first column at which the matrix is not positive definite, if there is one: more damping helps.
///
/// # Panics
/// When a length is not `k * k`.
pub fn inverse_factor(
    cpu: Cpu,
    h: &mut [f64],
    k: usize,
    damping: f64,
    parallel: Parallel<'_>,
) -> Result<Vec<f32>, usize> {
    assert_eq!(h.len(), k * k, "a square matrix");
    let mean = (0..k).map(|i| h[i * k + i]).sum::<f64>() / k as f64;
    let mean = if mean > 0.0 { mean } else { 1.0 };
    // Turned around: entry (i, j) of the lower triangle is (k - 1 - j, k - 1 - i) of what it was. The lower triangle is mirrored into
    // the upper one by the same exchange, so only places in it move.
    for i in 0..k {
        for j in 0..=i {
            let (from, to) = (i * k + j, (k - 1 - j) * k + (k - 1 - i));
            if from < to {
                h.swap(from, to);
            }
        }
    }
    for i in 0..k {
        let diagonal = &mut h[i * k + i];
        *diagonal = if *diagonal > 0.0 { *diagonal } else { mean } + damping * mean;
    }
    let matrix = Shared { data: h.as_mut_ptr(), k };
    let mut diagonal = vec![0.0; k];
    for first in (0..k).step_by(PANEL) {
        let end = k.min(first + PANEL);
        // SAFETY: nobody else uses the rows of the panel.
        unsafe { corner(matrix, first, end, &mut diagonal) }.map_err(|column| k - 1 - column)?;
        let diagonal = &diagonal[..];
        parallel((k - end).div_ceil(PIECE), &|piece| {
            let rows = end + piece * PIECE..k.min(end + (piece + 1) * PIECE);
            // SAFETY: rows of a piece are written by it alone, columns before the panel and rows of the panel by nobody.
            dispatch_floats(cpu, Below { matrix, first, end, rows, diagonal });
        });
    }
    // The inverse X of L, by columns: Y[j][i] = X[i][j] for i > j goes into the upper triangle; its diagonal is 1 / L's.
    let diagonal = &diagonal[..];
    parallel(k.div_ceil(PIECE), &|piece| {
        // Short columns and long ones in turn, so that pieces are alike.
        let columns = (0..PIECE).map(|c| piece + c * k.div_ceil(PIECE)).filter(|column| *column < k);
        for column in columns {
            // SAFETY: the upper part of a row is written by its own column's work alone; the lower triangle by nobody.
            dispatch_floats(cpu, Inverse { matrix, column, diagonal });
        }
    });
    let mut factor = vec![0.0f32; k * k];
    for (c, out) in factor.chunks_exact_mut(k).enumerate() {
        let column = k - 1 - c;
        let row = &h[column * k..(column + 1) * k];
        for (r, out) in out[..c].iter_mut().enumerate() {
            *out = row[k - 1 - r] as f32;
        }
        out[c] = (1.0 / diagonal[column]) as f32;
    }
    Ok(factor)
}

/// A matrix that several threads work on.
#[derive(Clone, Copy)]
struct Shared {
    data: *mut f64,
    k: usize,
}

// SAFETY: every use says which entries it reads and writes.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Entries `from..to` of a row.
    ///
    /// # Safety
    /// Nobody writes them during the life of the slice.
    #[inline(always)]
    unsafe fn row<'a>(self, row: usize, from: usize, to: usize) -> &'a [f64] {
        debug_assert!(row < self.k && from <= to && to <= self.k);
        // SAFETY: inside the matrix, and by the contract.
        unsafe { core::slice::from_raw_parts(self.data.add(row * self.k + from), to - from) }
    }

    /// Writes an entry.
    ///
    /// # Safety
    /// Nobody else uses it at the same time.
    #[inline(always)]
    unsafe fn set(self, row: usize, column: usize, value: f64) {
        debug_assert!(row < self.k && column < self.k);
        // SAFETY: inside the matrix, and by the contract.
        unsafe { *self.data.add(row * self.k + column) = value };
    }

    /// Reads an entry.
    ///
    /// # Safety
    /// Nobody writes it at the same time.
    #[inline(always)]
    unsafe fn get(self, row: usize, column: usize) -> f64 {
        debug_assert!(row < self.k && column < self.k);
        // SAFETY: inside the matrix, and by the contract.
        unsafe { *self.data.add(row * self.k + column) }
    }
}

/// Factors the rows of a panel in its own columns. The error is a column.
///
/// # Safety
/// Nobody else uses the rows.
unsafe fn corner(matrix: Shared, first: usize, end: usize, diagonal: &mut [f64]) -> Result<(), usize> {
    for i in first..end {
        for j in first..=i {
            // SAFETY: the caller's promise.
            let value = unsafe { matrix.get(i, j) - dot(matrix.row(i, 0, j), matrix.row(j, 0, j)) };
            if i == j {
                if !(value > 0.0 && value.is_finite()) {
                    return Err(i);
                }
                diagonal[i] = value.sqrt();
            } else {
                // SAFETY: the caller's promise.
                unsafe { matrix.set(i, j, value / diagonal[j]) };
            }
        }
    }
    Ok(())
}

/// The sum of products, in eight sums that are added in pairs.
#[inline(always)]
fn dot(a: &[f64], b: &[f64]) -> f64 {
    dots(a, [b])[0]
}

/// [`dot`] with several.
#[inline(always)]
fn dots<const N: usize>(a: &[f64], b: [&[f64]; N]) -> [f64; N] {
    let mut sums = [[0.0; SUMS]; N];
    let whole = a.len() / SUMS * SUMS;
    for at in (0..whole).step_by(SUMS) {
        let a: &[f64; SUMS] = a[at..at + SUMS].try_into().expect("eight");
        for n in 0..N {
            let b: &[f64; SUMS] = b[n][at..at + SUMS].try_into().expect("eight");
            for l in 0..SUMS {
                sums[n][l] += a[l] * b[l];
            }
        }
    }
    core::array::from_fn(|n| {
        for (l, at) in (whole..a.len()).enumerate() {
            sums[n][l] += a[at] * b[n][at];
        }
        let [a, b, c, d, e, f, g, h] = sums[n];
        ((a + b) + (c + d)) + ((e + f) + (g + h))
    })
}

/// The rows below a panel, in its columns.
struct Below<'a> {
    matrix: Shared,
    first: usize,
    end: usize,
    rows: core::ops::Range<usize>,
    diagonal: &'a [f64],
}

impl Kernel for Below<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _isa: I) {
        let Below { matrix, first, end, rows, diagonal } = self;
        for i in rows {
            // What the columns before the panel take from four entries at once; the panel's own columns follow in order.
            for column in (first..end).step_by(4) {
                let columns: [usize; 4] = core::array::from_fn(|c| (column + c).min(end - 1));
                // SAFETY: columns before the panel are final, and rows of the panel are.
                let sums = unsafe { dots(matrix.row(i, 0, first), columns.map(|j| matrix.row(j, 0, first))) };
                for (j, sum) in (column..end.min(column + 4)).zip(sums) {
                    // SAFETY: the row is this piece's, the panel's row final.
                    unsafe {
                        let own = dot(matrix.row(i, first, j), matrix.row(j, first, j));
                        matrix.set(i, j, (matrix.get(i, j) - sum - own) / diagonal[j]);
                    }
                }
            }
        }
    }
}

/// A column of the inverse, in the upper part of its row.
struct Inverse<'a> {
    matrix: Shared,
    column: usize,
    diagonal: &'a [f64],
}

impl Kernel for Inverse<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _isa: I) {
        let Inverse { matrix, column: j, diagonal } = self;
        let first = 1.0 / diagonal[j];
        for (i, last) in diagonal.iter().enumerate().skip(j + 1) {
            // SAFETY: the lower triangle is final, and the upper part of row `j` is this call's.
            unsafe {
                let rest = dot(matrix.row(i, j + 1, i), matrix.row(j, j + 1, i));
                matrix.set(j, i, -(matrix.get(i, j) * first + rest) / last);
            }
        }
    }
}
