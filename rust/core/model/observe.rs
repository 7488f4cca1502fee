//! Who looks on while a model computes: every input of its matrices, as exact f32.

use std::ops::Range;

use arrayvec::ArrayVec;
use fastq_kernels::{Activation, Cpu};

use super::buffers::kind_index;
use super::forward::Pass;
use super::weights::{Linear, MAX_INPUTS};
use crate::memory::Zeroed;
use crate::pool::Pool;
use crate::{Interrupt, Result};

/// Rows that matrices are about to be multiplied with, before they are quantized.
pub struct Input<'a> {
    /// Names of the tensors, each once: those of queries, keys and values share an input, as do those of gate and up. A tensor of which
    /// several matrices are rows (`attn_qkv`) has one name.
    pub tensors: &'a [&'a str],
    /// The rows `(n, k)`, in the order of the texts.
    pub x: &'a [f32],
    /// Values of a row.
    pub k: usize,
    /// Number of the expert, where the tensors are the matrices of all experts.
    pub expert: Option<usize>,
    /// Threads that are idle during the call.
    pub pool: &'a mut Pool,
    /// The level to compute on.
    pub cpu: Cpu,
    /// To be passed to the pool.
    pub interrupt: &'a dyn Interrupt,
}

impl std::fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Input { tensors, x, k, expert, .. } = self;
        write!(f, "Input({tensors:?}, {} values in rows of {k}, expert {expert:?})", x.len())
    }
}

/// Sees the inputs of matrices ([`Model::advance`](super::Model::advance)). It is called in the middle of a computation and must not call the
/// model.
pub trait Observer {
    /// Once for every input of a chunk of rows, of experts for each that has rows, in the order of computation.
    ///
    /// # Errors
    /// What ends the computation.
    fn input(&mut self, input: &mut Input<'_>) -> Result<()>;
}

/// An observer, and room for what it is shown.
pub(super) struct Observing<'a> {
    pub(super) observer: &'a mut dyn Observer,
    /// Kept for its memory.
    pub(super) rows: &'a mut Vec<f32>,
}

impl Pass<'_, '_> {
    /// Shows the records of some rows, which `linears` are about to be multiplied with.
    pub(super) fn observe<'l>(
        &mut self,
        records: &[Zeroed<u8>; Activation::ALL.len()],
        rows: Range<usize>,
        linears: impl IntoIterator<Item = &'l Linear>,
        expert: Option<usize>,
    ) -> Result<()> {
        let Some(Observing { observer, rows: x }) = &mut self.observing else { return Ok(()) };
        let tensors = self.context.file.tensors();
        let mut names = ArrayVec::<&str, MAX_INPUTS>::new();
        let mut k = 0;
        for linear in linears {
            k = linear.k;
            let name = tensors[linear.tensor()].name.as_str();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let record = Activation::F32.row_bytes(k);
        let records = &records[kind_index(Activation::F32)][rows.start * record..rows.end * record];
        x.clear();
        for record in records.chunks_exact(record.max(1)) {
            x.extend(record[..4 * k].as_chunks::<4>().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)));
        }
        observer.input(&mut Input {
            tensors: &names,
            x,
            k,
            expert,
            pool: &mut *self.regions.pool,
            cpu: self.context.cpu,
            interrupt: self.context.interrupt,
        })
    }
}
