//! The kinds of parallel regions of a pass: by rows, and matrix products as one list of pieces.

use std::ops::Range;

use arrayvec::ArrayVec;
use fastq_kernels::activation::quantize_activations;
use fastq_kernels::{Activation, Cpu, Matrix, OutTile, matmul};

use super::buffers::{Worker, kind_index};
use super::weights::{Linear, MAX_INPUTS};
use crate::gguf::Gguf;
use crate::memory::Zeroed;
use crate::pool::{Disjoint, Pool};
use crate::{Interrupt, Result};

/// Below this many values a region runs on the calling thread: handing it over costs more.
const SERIAL_VALUES: usize = 16 * 1024;
/// Multiply-adds of a piece of a matrix product: enough to be worth handing over, and little enough to stop soon.
const PIECE_WORK: Range<usize> = 1 << 17..1 << 25;
/// Weight rows of a piece are a multiple of this, the largest panel of the kernels.
const PANEL: usize = 32;

/// The kinds of activations that some matrices want.
#[derive(Clone, Copy)]
pub(super) struct Kinds([bool; Activation::ALL.len()]);

impl Kinds {
    pub(super) fn of<'l>(linears: impl IntoIterator<Item = &'l Linear>) -> Kinds {
        let mut kinds = Kinds([false; Activation::ALL.len()]);
        linears.into_iter().for_each(|linear| kinds.0[kind_index(linear.format.activation())] = true);
        kinds
    }

    /// These and one more.
    pub(super) fn with(mut self, kind: Activation) -> Kinds {
        self.0[kind_index(kind)] = true;
        self
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Activation> {
        Activation::ALL.iter().copied().filter(move |kind| self.0[kind_index(*kind)])
    }
}

/// A matrix product of one region.
#[derive(Debug)]
pub(super) struct Product<'a> {
    matrix: Matrix<'a>,
    x: &'a [u8],
    tokens: usize,
    out: OutTile<'a>,
    /// Weight rows of a piece.
    per: usize,
    /// Its first piece in the region.
    first: usize,
}

/// The products of one region.
pub(super) type Products<'a> = ArrayVec<Product<'a>, MAX_INPUTS>;

impl<'a> Product<'a> {
    /// `out = linear(records)` for some rows, without the bias; `out` begins with the first of them.
    pub(super) fn new(
        file: &'a Gguf,
        linear: &'a Linear,
        records: &'a [Zeroed<u8>; Activation::ALL.len()],
        rows: Range<usize>,
        out: &'a mut [f32],
    ) -> Product<'a> {
        let kind = linear.format.activation();
        let record = kind.row_bytes(linear.k);
        let x = &records[kind_index(kind)][rows.start * record..rows.end * record];
        Product::of(linear.matrix(file), x, rows.len(), &mut out[..rows.len() * linear.rows])
    }

    /// `out = matrix(x)` for the records of `tokens` rows.
    pub(super) fn of(matrix: Matrix<'a>, x: &'a [u8], tokens: usize, out: &'a mut [f32]) -> Product<'a> {
        Product { matrix, x, tokens, out: OutTile::new(out, matrix.rows), per: 0, first: 0 }
    }
}

/// Where the regions run.
pub(super) struct Regions<'a> {
    pub(super) pool: &'a mut Pool,
    pub(super) interrupt: &'a dyn Interrupt,
    pub(super) cpu: Cpu,
}

impl Regions<'_> {
    /// Calls `work(row, worker)` for `n` rows, in parallel when `cost` values per row are worth it.
    pub(super) fn each_row(&mut self, n: usize, cost: usize, work: impl Fn(usize, usize) + Sync) -> Result<()> {
        let threads = self.pool.threads();
        if threads == 1 || n == 1 || n * cost < SERIAL_VALUES {
            return self.pool.run(1, self.interrupt, |_, worker| (0..n).for_each(|row| work(row, worker)));
        }
        let per = n.div_ceil(threads * 4);
        self.pool.run(n.div_ceil(per), self.interrupt, |piece, worker| {
            (piece * per..n.min((piece + 1) * per)).for_each(|row| work(row, worker));
        })
    }

    /// Computes several products as one list of pieces.
    pub(super) fn products(&mut self, products: &mut [Product<'_>], workers: &mut [Worker]) -> Result<()> {
        let work: usize = products.iter().map(|p| p.matrix.rows * p.matrix.k * p.tokens).sum();
        let target = match self.pool.threads() {
            1 => PIECE_WORK.end,
            threads => (work / (threads * 6)).clamp(PIECE_WORK.start, PIECE_WORK.end),
        };
        let mut pieces = 0;
        for Product { matrix, tokens, per, first, .. } in &mut *products {
            *per = (target / (matrix.k * *tokens)).next_multiple_of(PANEL).max(PANEL);
            *first = pieces;
            pieces += matrix.rows.div_ceil(*per);
        }
        let products = &*products;
        let (cpu, workers) = (self.cpu, Disjoint::new(workers));
        self.pool.run(pieces, self.interrupt, |piece, worker| {
            let index = products.partition_point(|product| product.first <= piece) - 1;
            let &Product { matrix, x, tokens, out, per, first } = &products[index];
            let start = (piece - first) * per;
            let rows = start..matrix.rows.min(start + per);
            // SAFETY: a worker number belongs to one thread at a time.
            let scratch = unsafe { &mut workers.item(worker).matmul };
            // SAFETY: the pieces of a matrix are disjoint row ranges, and the products have different outputs.
            unsafe { matmul(cpu, matrix, rows, x, tokens, out, scratch) };
        })
    }
}

/// The activation records of a region, by kind.
pub(super) struct Records<'a>([Disjoint<'a, u8>; Activation::ALL.len()]);

impl<'a> Records<'a> {
    pub(super) fn new(records: &'a mut [Zeroed<u8>; Activation::ALL.len()]) -> Records<'a> {
        Records(records.each_mut().map(|records| Disjoint::new(records)))
    }

    /// Quantizes one row for the kinds.
    ///
    /// # Safety
    /// Nobody else uses the records of the row during the call.
    pub(super) unsafe fn quantize(&self, cpu: Cpu, kinds: Kinds, row: usize, x: &[f32]) {
        for kind in kinds.iter() {
            let bytes = kind.row_bytes(x.len());
            // SAFETY: the caller's promise.
            let record = unsafe { self.0[kind_index(kind)].slice(row * bytes..(row + 1) * bytes) };
            quantize_activations(cpu, kind, x, x.len(), record);
        }
    }
}
