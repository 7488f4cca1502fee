//! What the parts of a layer begin and end with: norms, residuals, and the records for the next matrices.

use fastq_kernels::Cpu;
use fastq_kernels::elementwise::{add, add_scaled};

use super::arch::NormPlacement;
use super::batch::Output;
use super::buffers::Worker;
use super::forward::Context;
use super::regions::{Kinds, Records};
use super::weights::{LayerWeights, Norm};

/// What a part begins with: `norm(x)`, or `x` where it has no norm, quantized for its matrices. It is computed with the end of the
/// part before it, while the row is in the cache.
#[derive(Clone, Copy)]
pub(super) struct Start<'a> {
    norm: Option<&'a Norm>,
    kinds: Kinds,
    cpu: Cpu,
}

impl<'a> Start<'a> {
    /// The start of a layer, or of the output after the last one.
    pub(super) fn layer(context: &Context<'a>, layer: usize) -> Start<'a> {
        let Context { weights, spec, cpu, .. } = *context;
        match weights.layers.get(layer) {
            Some(layer) => {
                let beside = layer.beside(spec);
                let matrices = layer.mixer.inputs().into_iter().chain(beside.into_iter().flat_map(|b| b.inputs()));
                Start { norm: layer.attention_norm.as_ref(), kinds: context.kinds(matrices), cpu }
            }
            None => {
                let output = weights.output.as_ref().filter(|_| context.output == Output::Logits);
                Start { norm: weights.output_norm.as_ref(), kinds: context.kinds(output), cpu }
            }
        }
    }

    /// Nothing: the hidden states are kept as they are.
    pub(super) fn none(context: &Context<'a>) -> Start<'a> {
        Start { norm: None, kinds: Kinds::of([]), cpu: context.cpu }
    }

    /// The start of a feed-forward part.
    pub(super) fn feed_forward(context: &Context<'a>, layer: &'a LayerWeights) -> Start<'a> {
        let kinds = context.kinds(layer.feed_forward.inputs());
        Start { norm: layer.feed_forward_norm.as_ref(), kinds, cpu: context.cpu }
    }

    /// Fills the records of a row.
    ///
    /// # Safety
    /// Nobody else uses the records of the row during the call.
    pub(super) unsafe fn row(&self, x: &[f32], worker: &mut Worker, records: &Records<'_>, row: usize) {
        let local = match self.norm {
            Some(norm) => {
                let local = &mut worker.local[..x.len()];
                norm.row(self.cpu, x, local);
                local
            }
            None => x,
        };
        // SAFETY: the caller's promise.
        unsafe { records.quantize(self.cpu, self.kinds, row, local) };
    }
}

/// What a part ends with: `x += norm(t)`, or `x += t` where it has no norm, and the start of the next one.
#[derive(Clone, Copy)]
pub(super) struct End<'a> {
    norm: Option<&'a Norm>,
    /// The norm is of the sum.
    of_sum: bool,
    scale: Option<f32>,
    next: Option<Start<'a>>,
    cpu: Cpu,
}

impl<'a> End<'a> {
    pub(super) fn new(context: &Context<'a>, norm: Option<&'a Norm>, next: Option<Start<'a>>) -> End<'a> {
        let of_sum = context.spec.norms == NormPlacement::AfterSum;
        End { norm, of_sum, scale: context.spec.residual_scale, next, cpu: context.cpu }
    }

    /// Ends a row.
    ///
    /// # Safety
    /// Nobody else uses the records of the row during the call.
    pub(super) unsafe fn row(&self, x: &mut [f32], t: &[f32], worker: &mut Worker, records: &Records<'_>, row: usize) {
        let cpu = self.cpu;
        let local = &mut worker.local[..t.len()];
        let update = match self.norm {
            Some(norm) if !self.of_sum => {
                norm.row(cpu, t, local);
                &*local
            }
            _ => t,
        };
        match self.scale {
            None => add(cpu, x, update),
            Some(factor) => add_scaled(cpu, x, update, factor),
        }
        if let Some(norm) = self.norm.filter(|_| self.of_sum) {
            norm.row(cpu, x, local);
            x.copy_from_slice(local);
        }
        if let Some(next) = self.next {
            // SAFETY: the caller's promise.
            unsafe { next.row(x, worker, records, row) };
        }
    }
}
