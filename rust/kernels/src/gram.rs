//! Sums over rows of activations: squares (importance matrices), and the Gram matrix `XᵀX` (error feedback).
//!
//! Each sum is one fma chain in the order of the rows, which begins with what the output holds. So it does not depend on how many rows
//! a call has, nor on how threads share the output.

use core::ops::Range;

use crate::isa::floats::Floats;
use crate::isa::{Isa, Kernel, dispatch_floats};
use crate::{Cpu, LANES};

/// Rows of activations that are arranged at once: with the columns of a strip they stay in the first-level cache.
const DEPTH: usize = 64;
/// Rows of the output in a tile, at most.
const TALL: usize = 8;
/// Vectors of a strip of columns, at most.
const WIDE: usize = 2;

fn check(x: &[f32], k: usize) {
    assert!(k > 0 && x.len().is_multiple_of(k), "{} values are not whole rows of {k}", x.len());
}

struct Squares<'a> {
    x: &'a [f32],
    sums: &'a mut [f32],
}

impl Kernel for Squares<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let k = self.sums.len();
        for start in (0..k).step_by(LANES) {
            let own = start..k.min(start + LANES);
            let mut sum = isa.load_first(&self.sums[own.clone()], 0.0);
            for row in self.x.chunks_exact(k) {
                let x = isa.load_first(&row[own.clone()], 0.0);
                sum = isa.fma(x, x, sum);
            }
            isa.store_first(sum, &mut self.sums[own]);
        }
    }
}

/// `sums[j] += x[r][j]²` for the rows of `x` `(n, k)`, in their order.
///
/// # Panics
/// When the values are not whole rows.
pub fn add_squares(cpu: Cpu, x: &[f32], sums: &mut [f32]) {
    check(x, sums.len());
    dispatch_floats(cpu, Squares { x, sums });
}

/// The product of some rows of the output.
struct Gram<'a> {
    x: &'a [f32],
    k: usize,
    rows: Range<usize>,
    out: &'a mut [f32],
}

impl Kernel for Gram<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        // As many chains as hide the latency of a sum and fit the registers.
        match I::VECTORS {
            32.. => self.tiles::<I, TALL, WIDE>(isa),
            _ => self.tiles::<I, 4, 1>(isa),
        }
    }
}

impl Gram<'_> {
    #[inline(always)]
    fn tiles<I: Floats, const R: usize, const W: usize>(self, isa: I) {
        let Gram { x, k, rows, out } = self;
        let mut tall = vec![0.0f32; rows.len().next_multiple_of(R) * DEPTH];
        let mut wide = vec![0.0f32; DEPTH * W * LANES];
        for x in x.chunks(DEPTH * k) {
            let depth = x.len() / k;
            arrange::<R>(x, k, rows.clone(), &mut tall);
            // Strips begin where those of every other part of the output do, at the multiples of their width.
            let first = rows.start / (W * LANES) * (W * LANES);
            for strip in (first..k).step_by(W * LANES) {
                let columns = strip..k.min(strip + W * LANES);
                for (row, wide) in x.chunks_exact(k).zip(wide.chunks_exact_mut(W * LANES)) {
                    wide[..columns.len()].copy_from_slice(&row[columns.clone()]);
                }
                for at in (rows.start..rows.end.min(columns.end)).step_by(R) {
                    let index = at - rows.start;
                    let (a, _) = tall[index * DEPTH..][..R * depth].as_chunks::<R>();
                    let (b, _) = wide[..depth * W * LANES].as_chunks::<LANES>();
                    let tile = &mut out[index * k..(rows.end.min(at + R) - rows.start) * k];
                    add_tile::<I, R, W>(isa, a, b, tile, k, columns.clone());
                }
            }
        }
    }
}

/// Columns `rows` of `x` in groups of `R`: `(groups, DEPTH, R)`. Those that fill the last group up may hold anything.
#[inline(always)]
fn arrange<const R: usize>(x: &[f32], k: usize, rows: Range<usize>, out: &mut [f32]) {
    for (group, out) in out.chunks_exact_mut(R * DEPTH).enumerate() {
        let start = rows.start + group * R;
        let own = start..rows.end.min(start + R);
        for (row, out) in x.chunks_exact(k).zip(out.chunks_exact_mut(R)) {
            out[..own.len()].copy_from_slice(&row[own.clone()]);
        }
    }
}

/// `out[i][columns] += Σ a[r][i] * b[r]`; `out` has at most `R` rows of `k`.
#[inline(always)]
fn add_tile<I: Floats, const R: usize, const W: usize>(
    isa: I,
    a: &[[f32; R]],
    b: &[[f32; LANES]],
    out: &mut [f32],
    k: usize,
    columns: Range<usize>,
) {
    let lanes =
        |w: usize| (columns.start + w * LANES).min(columns.end)..(columns.start + (w + 1) * LANES).min(columns.end);
    let mut acc = [[isa.splat(0.0); W]; R];
    for (out, acc) in out.chunks_exact(k).zip(&mut acc) {
        for w in 0..W {
            acc[w] = isa.load_first(&out[lanes(w)], 0.0);
        }
    }
    let (b, _) = b.as_chunks::<W>();
    for (a, b) in a.iter().zip(b) {
        // Loops, not `map`: what closures hold would lose the features of the level.
        let mut wide = [isa.splat(0.0); W];
        for w in 0..W {
            wide[w] = isa.load(&b[w]);
        }
        for r in 0..R {
            let tall = isa.splat(a[r]);
            for w in 0..W {
                acc[r][w] = isa.fma(tall, wide[w], acc[r][w]);
            }
        }
    }
    for (out, acc) in out.chunks_exact_mut(k).zip(acc) {
        for w in 0..W {
            isa.store_first(acc[w], &mut out[lanes(w)]);
        }
    }
}

/// Adds the rows of `x` `(n, k)` to rows `rows` of the Gram matrix `(k, k)`: `out[i][j] += Σ x[r][i] * x[r][j]`. `out` begins with the
/// first of these rows. The columns from the diagonal on are complete; what lies before it is not, until [`mirror`] fills it.
///
/// # Panics
/// When the lengths do not fit together.
pub fn gram(cpu: Cpu, x: &[f32], k: usize, rows: Range<usize>, out: &mut [f32]) {
    check(x, k);
    assert!(rows.start <= rows.end && rows.end <= k, "rows {rows:?} of {k}");
    assert_eq!(out.len(), rows.len() * k, "the output must have {} rows of {k}", rows.len());
    dispatch_floats(cpu, Gram { x, k, rows, out });
}

/// Copies what is above the diagonal of a matrix `(k, k)` below it.
///
/// # Panics
/// When it is not square.
pub fn mirror(matrix: &mut [f32], k: usize) {
    assert_eq!(Some(matrix.len()), k.checked_mul(k), "a matrix of {k} rows");
    /// Tiles, so that neither side jumps from page to page.
    const TILE: usize = 32;
    for first in (0..k).step_by(TILE) {
        for second in (first..k).step_by(TILE) {
            for i in first..k.min(first + TILE) {
                for j in second.max(i + 1)..k.min(second + TILE) {
                    matrix[j * k + i] = matrix[i * k + j];
                }
            }
        }
    }
}
