//! The gated delta net of Qwen 3.5 (arXiv 2412.06464): per head a matrix from keys to values that decays, and that every token corrects.
//!
//! Queries, keys and values go through a causal convolution and SiLU; queries and keys become vectors of length one. The outputs of
//! the heads are normalised and multiplied by the SiLU of a gate.

use std::ops::Range;

use fastq_kernels::elementwise::{add, exp, l2_norm_in_place, mul, scale, sigmoid, silu, softplus};
use fastq_kernels::recurrent::{DeltaStep, arrange_taps, convolve, delta_rule, delta_state_len};

use super::convolution::Convolution;
use crate::Result;
use crate::model::buffers::Buffers;
use crate::model::forward::{Context, Pass};
use crate::model::keys::Keys;
use crate::model::regions::Product;
use crate::model::spec::{MAX_HEAD_DIM, MAX_HEADS, MAX_WIDTH};
use crate::model::tensors::Role;
use crate::model::weights::{Linear, Loader, Norm};
use crate::pool::Disjoint;

/// Values of a head that a thread takes at once, a multiple of the lanes of the kernels: with keys of 128 their state fills a
/// first-level cache.
const PART: usize = 64;

/// A gated delta net.
#[derive(Clone, Debug)]
pub struct DeltaNet {
    /// Heads, each with a value of its own.
    pub heads: usize,
    /// Heads of queries and keys, which the others use in turn; divides `heads`.
    pub key_heads: usize,
    /// Length of a query, a key and a value.
    pub size: usize,
    /// Over queries, keys and values. The matrices of the heads lie behind its state.
    pub convolution: Convolution,
}

/// Part of the values of a head.
struct Part {
    head: usize,
    values: Range<usize>,
    state: Range<usize>,
}

impl DeltaNet {
    /// Reads the keys `ssm.*`.
    pub(in crate::model) fn read(keys: Keys<'_>) -> Result<DeltaNet> {
        let size = keys.count("ssm.state_size", 1..=MAX_HEAD_DIM, None)?;
        let heads = keys.count("ssm.time_step_rank", 1..=MAX_HEADS, None)?;
        let key_heads = keys.count("ssm.group_count", 1..=MAX_HEADS, None)?;
        if !heads.is_multiple_of(key_heads) {
            let what = format!("must divide the {heads} heads of ssm.time_step_rank, found {key_heads}");
            return Err(keys.wrong("ssm.group_count", what));
        }
        let inner = keys.count("ssm.inner_size", 1..=MAX_WIDTH, None)?;
        if inner != heads * size {
            let what = format!("must be {heads} heads of {size} (ssm.time_step_rank, ssm.state_size), found {inner}");
            return Err(keys.wrong("ssm.inner_size", what));
        }
        let convolution = Convolution::read(keys, "ssm.conv_kernel", (2 * key_heads + heads) * size)?;
        Ok(DeltaNet { heads, key_heads, size, convolution })
    }

    /// Values of all heads of a position.
    pub fn values(&self) -> usize {
        self.heads * self.size
    }

    /// Values that the matrices give for a position: those of the convolution, the gates, and two numbers per head.
    pub fn inputs(&self) -> usize {
        self.convolution.channels + self.values() + 2 * self.heads
    }

    /// Values of its state.
    pub fn state_len(&self) -> usize {
        self.convolution.state_len().saturating_add(self.head_len().saturating_mul(self.heads))
    }

    fn head_len(&self) -> usize {
        delta_state_len(self.size, self.size)
    }

    /// Parts that threads share.
    fn parts(&self) -> usize {
        self.heads * self.size.div_ceil(PART)
    }

    fn part(&self, index: usize) -> Part {
        let per_head = self.size.div_ceil(PART);
        let (head, part) = (index / per_head, index % per_head);
        let values = part * PART..self.size.min((part + 1) * PART);
        let matrices = self.convolution.state_start + self.convolution.state_len();
        let start = matrices + head * self.head_len() + delta_state_len(self.size, values.start);
        let state = start..start + delta_state_len(self.size, values.len());
        Part { head, values, state }
    }

    /// What the matrices give for `n` rows.
    fn split<'a>(&self, mixed: &'a mut [f32], n: usize) -> Inputs<'a> {
        let (mixed, rest) = mixed.split_at_mut(n * self.convolution.channels);
        let (gate, rest) = rest.split_at_mut(n * self.values());
        let (decay, rest) = rest.split_at_mut(n * self.heads);
        Inputs { mixed, gate, decay, beta: &mut rest[..n * self.heads] }
    }
}

/// What the matrices give, by rows.
struct Inputs<'a> {
    /// Queries, keys and values.
    mixed: &'a mut [f32],
    gate: &'a mut [f32],
    decay: &'a mut [f32],
    beta: &'a mut [f32],
}

/// Its weights.
#[derive(Clone, Debug)]
pub struct DeltaNetWeights {
    /// Gives queries, keys and values.
    pub mixed: Linear,
    /// Gives the gates of the outputs.
    pub gate: Linear,
    /// Gives how fast the heads forget.
    pub alpha: Linear,
    /// Gives how much the heads learn.
    pub beta: Linear,
    /// The filters, arranged for [`convolve`].
    pub filters: Vec<f32>,
    /// Added to what `alpha` gives.
    pub rate_bias: Vec<f32>,
    /// Logarithm of the decay per rate.
    pub log_decay: Vec<f32>,
    /// Norm of the outputs of every head.
    pub norm: Norm,
    /// Makes the output.
    pub output: Linear,
}

impl Loader<'_> {
    pub(in crate::model) fn delta_net(&mut self, spec: &DeltaNet, layer: usize) -> Result<DeltaNetWeights> {
        let norm = self.norm(Role::DeltaNorm, None, layer)?;
        Ok(DeltaNetWeights {
            mixed: self.need_linear(Role::QueryKeyValue, None, layer)?,
            gate: self.need_linear(Role::DeltaGate, None, layer)?,
            alpha: self.need_linear(Role::DeltaAlpha, None, layer)?,
            beta: self.need_linear(Role::DeltaBeta, None, layer)?,
            filters: arrange_taps(&self.need_vector(Role::DeltaTaps, layer)?, spec.convolution.taps),
            rate_bias: self.need_vector(Role::DeltaRateBias, layer)?,
            log_decay: self.need_vector(Role::DeltaLogDecay, layer)?,
            norm: self.required(Role::DeltaNorm, layer, norm)?,
            output: self.need_linear(Role::DeltaOutput, None, layer)?,
        })
    }
}

impl Pass<'_, '_> {
    /// From the records of all rows to [`Buffers::a`].
    pub(in crate::model) fn delta_net(
        &mut self,
        buffers: &mut Buffers,
        spec: &DeltaNet,
        weights: &DeltaNetWeights,
    ) -> Result<()> {
        let (Context { file, cpu, .. }, n) = (self.context, self.rows.len());
        let Buffers { a, mixed, records, segments, workers, .. } = buffers;
        let inputs = spec.split(mixed, n);
        let mut products = [
            Product::new(file, &weights.mixed, records, 0..n, inputs.mixed),
            Product::new(file, &weights.gate, records, 0..n, inputs.gate),
            Product::new(file, &weights.alpha, records, 0..n, inputs.decay),
            Product::new(file, &weights.beta, records, 0..n, inputs.beta),
        ];
        self.regions.products(&mut products, workers)?;
        let inputs = spec.split(mixed, n);
        {
            let (convolution, mixed) = (&spec.convolution, Disjoint::new(inputs.mixed));
            let (parts, channels) = (convolution.parts(), convolution.channels);
            self.each_carried(segments, parts, 4 * channels / parts, |rows, sequence, part, _| {
                let part = convolution.part(part);
                let filters = &weights.filters[part.filters];
                // SAFETY: the channels of a sequence belong to one piece.
                let state = unsafe { sequence.state(part.state) };
                for row in rows {
                    let own = row * channels + part.channels.start..row * channels + part.channels.end;
                    // SAFETY: as above.
                    let x = unsafe { mixed.slice(own) };
                    convolve(cpu, filters, state, x);
                    silu(cpu, x);
                }
            })?;
        }
        let Inputs { mixed, gate, decay, beta } = inputs;
        self.delta_inputs(spec, weights, mixed, decay, beta)?;
        {
            let (mixed, decay, beta, out) = (&*mixed, &*decay, &*beta, Disjoint::new(&mut *a));
            let (size, channels, values) = (spec.size, spec.convolution.channels, spec.values());
            self.each_carried(segments, spec.parts(), 4 * size * size.min(PART), |rows, sequence, part, _| {
                let Part { head, values: part, state } = spec.part(part);
                // SAFETY: the values of a head of a sequence belong to one piece.
                let state = unsafe { sequence.state(state) };
                for row in rows {
                    let x = &mixed[row * channels..(row + 1) * channels];
                    let vector = |index: usize| &x[index * size..(index + 1) * size];
                    let step = DeltaStep {
                        query: vector(head % spec.key_heads),
                        key: vector(spec.key_heads + head % spec.key_heads),
                        value: &vector(2 * spec.key_heads + head)[part.clone()],
                        decay: decay[row * spec.heads + head],
                        beta: beta[row * spec.heads + head],
                    };
                    let start = row * values + head * size;
                    // SAFETY: as above.
                    let out = unsafe { out.slice(start + part.start..start + part.end) };
                    delta_rule(cpu, step, state, out);
                }
            })?;
        }
        let (a, gate, workers) = (Disjoint::new(a), Disjoint::new(gate), Disjoint::new(workers));
        let values = spec.values();
        self.regions.each_row(n, 4 * values, |row, worker| {
            let own = row * values..(row + 1) * values;
            // SAFETY: a row belongs to one piece, and a worker number to one thread at a time.
            let (out, gate, worker) = unsafe { (a.slice(own.clone()), gate.slice(own), workers.item(worker)) };
            weights.norm.parts(cpu, out, spec.size, &mut worker.local);
            silu(cpu, gate);
            mul(cpu, out, gate);
        })
    }

    /// Queries and keys of length one, with the factor of the outputs in the queries; decay and beta of the heads.
    fn delta_inputs(
        &mut self,
        spec: &DeltaNet,
        weights: &DeltaNetWeights,
        mixed: &mut [f32],
        decay: &mut [f32],
        beta: &mut [f32],
    ) -> Result<()> {
        let Context { cpu, spec: model, .. } = self.context;
        let (channels, queries) = (spec.convolution.channels, spec.key_heads * spec.size);
        let factor = 1.0 / (spec.size as f32).sqrt();
        let (mixed, decay, beta) = (Disjoint::new(mixed), Disjoint::new(decay), Disjoint::new(beta));
        self.regions.each_row(self.rows.len(), 4 * queries + 16 * spec.heads, |row, _| {
            let heads = row * spec.heads..(row + 1) * spec.heads;
            let own = row * channels..row * channels + 2 * queries;
            // SAFETY: a row belongs to one piece.
            let (x, decay, beta) = unsafe { (mixed.slice(own), decay.slice(heads.clone()), beta.slice(heads)) };
            x.chunks_exact_mut(spec.size).for_each(|x| l2_norm_in_place(cpu, x, model.norm_epsilon));
            scale(cpu, &mut x[..queries], factor);
            sigmoid(cpu, beta);
            add(cpu, decay, &weights.rate_bias);
            softplus(cpu, decay);
            mul(cpu, decay, &weights.log_decay);
            exp(cpu, decay);
        })
    }
}
