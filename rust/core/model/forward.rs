//! The forward pass: one function for all architectures, which reads the [`ModelSpec`] and computes a chunk of tokens of several
//! sequences.
//!
//! A row is one token of the chunk. Every row's bits depend on its sequence only: products, norms and attention treat rows
//! alone, so neither the chunk, the other rows nor the threads change them.

use std::ops::Range;

use fastq_kernels::elementwise::{add, clamped_swiglu, gelu, gelu_mul, scale, silu, silu_mul};
use fastq_kernels::{Activation, Cpu};

use super::arch::{ActivationFunction, Gate, NormPlacement};
use super::batch::{BatchItem, Output, Segment};
use super::buffers::{Buffers, kind_index};
use super::observe::Observing;
use super::parts::{End, Start};
use super::regions::{Kinds, Product, Products, Records, Regions};
use super::spec::{Attention, FeedForward, LayerSpec, Mixer, ModelSpec};
use super::weights::{
    AttentionWeights, FeedForwardPart, FeedForwardWeights, LayerWeights, Linear, MixerWeights, Weights,
};
use crate::gguf::Gguf;
use crate::kv_cache::GroupLayout;
use crate::memory::Zeroed;
use crate::pool::{Disjoint, Pool};
use crate::{Error, Interrupt, Result};

/// What a pass reads.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) file: &'a Gguf,
    pub(super) spec: &'a ModelSpec,
    pub(super) weights: &'a Weights,
    pub(super) groups: &'a [GroupLayout],
    pub(super) cpu: Cpu,
    pub(super) interrupt: &'a dyn Interrupt,
    /// What is computed.
    pub(super) output: Output,
    /// Look for values that are not finite after every layer.
    pub(super) check: bool,
    /// Somebody wants to see the inputs of the matrices, so that they are kept as f32, too.
    pub(super) observed: bool,
}

impl Context<'_> {
    /// The kinds of activations that are made for some matrices.
    pub(super) fn kinds<'l>(&self, linears: impl IntoIterator<Item = &'l Linear>) -> Kinds {
        let kinds = Kinds::of(linears);
        if self.observed { kinds.with(Activation::F32) } else { kinds }
    }
}

/// One token of the chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) item: usize,
    pub(super) position: usize,
    /// End of the positions that it sees.
    pub(super) end: usize,
    /// Index into the rope tables of the chunk.
    pub(super) index: usize,
    pub(super) token: u32,
    /// Which row of the logits of its item it wants.
    pub(super) logits: Option<usize>,
}

/// Computes `buffers.segments`, whose sequences have room prepared, and writes the logits that are wanted.
pub(super) fn chunk(
    context: Context<'_>,
    pool: &mut Pool,
    buffers: &mut Buffers,
    batch: &mut [BatchItem<'_>],
) -> Result<()> {
    let rows = rows(context.spec, buffers, batch);
    let regions = Regions { pool, interrupt: context.interrupt, cpu: context.cpu };
    let mut pass = Pass { context, regions, rows, batch, observing: None };
    let result = pass.run(buffers);
    buffers.rows = pass.rows;
    result
}

/// The rows of `buffers.segments`.
pub(super) fn rows(spec: &ModelSpec, buffers: &mut Buffers, batch: &[BatchItem<'_>]) -> Vec<Row> {
    let mut rows = std::mem::take(&mut buffers.rows);
    rows.clear();
    for Segment { item, tokens, position, wanted } in &buffers.segments {
        // The last rows of the logits of an item belong to its last tokens.
        let end = batch[*item].wanted();
        let first = batch[*item].tokens.len() - end;
        for (i, at) in tokens.clone().enumerate() {
            let logits = (i + wanted >= tokens.len()).then(|| at - first);
            let token = batch[*item].tokens[at];
            let end = position + if spec.causal { i + 1 } else { tokens.len() };
            rows.push(Row { item: *item, position: position + i, end, index: rows.len(), token, logits });
        }
    }
    rows
}

/// A chunk being computed.
pub(super) struct Pass<'a, 'b> {
    pub(super) context: Context<'a>,
    pub(super) regions: Regions<'a>,
    /// The rows that are still needed.
    pub(super) rows: Vec<Row>,
    pub(super) batch: &'a mut [BatchItem<'b>],
    /// Who sees the inputs of the matrices.
    pub(super) observing: Option<Observing<'a>>,
}

impl Pass<'_, '_> {
    fn run(&mut self, buffers: &mut Buffers) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let context = self.context;
        self.embed(buffers, Start::layer(&context, 0))?;
        self.check(buffers, None)?;
        let layers = context.spec.layers.len();
        for (index, (spec, weights)) in context.spec.layers.iter().zip(&context.weights.layers).enumerate() {
            self.mixer_part(buffers, spec, weights, index + 1 == layers)?;
            if self.rows.is_empty() {
                return Ok(());
            }
            self.feed_forward_part(buffers, &spec.feed_forward, weights, Start::layer(&context, index + 1))?;
            self.check(buffers, Some(index))?;
        }
        match context.output {
            Output::Logits => self.output(buffers),
            Output::Hidden => self.hidden(buffers),
        }
    }

    /// Hidden states from tokens, and the rope tables of the rows.
    pub(super) fn embed(&mut self, buffers: &mut Buffers, start: Start<'_>) -> Result<()> {
        let Context { spec, weights, file, cpu, .. } = self.context;
        let (width, embedding) = (spec.width, &weights.embedding);
        let pairs = weights.pairs_before(weights.ropes.len());
        let Buffers { x, cos, sin, records, workers, .. } = buffers;
        let (x, cos, sin) = (Disjoint::new(x), Disjoint::new(cos), Disjoint::new(sin));
        let (records, workers) = (Records::new(records), Disjoint::new(workers));
        let rows = &*self.rows;
        // A sine costs about as much as 16 plain values.
        self.regions.each_row(rows.len(), 3 * width + 16 * pairs, |row, worker| {
            let angles = row * pairs..(row + 1) * pairs;
            // SAFETY: a row belongs to one piece.
            let (x, cos, sin) =
                unsafe { (x.slice(row * width..(row + 1) * width), cos.slice(angles.clone()), sin.slice(angles)) };
            embedding.row(file, rows[row].token as usize, x);
            if let Some(factor) = spec.embedding_scale {
                scale(cpu, x, factor);
            }
            weights.angles(rows[row].position, cos, sin);
            // SAFETY: a worker number belongs to one thread at a time.
            let worker = unsafe { workers.item(worker) };
            let local = &mut worker.local[..width];
            if let Some(token_type) = &weights.token_type {
                add(cpu, x, token_type);
            }
            if let Some(positions) = &weights.position_rows {
                positions.row(file, rows[row].position, local);
                add(cpu, x, local);
            }
            if let Some(norm) = &weights.embedding_norm {
                norm.row(cpu, x, local);
                x.copy_from_slice(local);
            }
            // SAFETY: a row belongs to one piece.
            unsafe { start.row(x, worker, &records, row) };
        })
    }

    /// `x += mixer(norm(x))`. In the last layer the rows that want no logits end with what later positions need of them.
    pub(super) fn mixer_part(
        &mut self,
        buffers: &mut Buffers,
        spec: &LayerSpec,
        weights: &LayerWeights,
        last: bool,
    ) -> Result<()> {
        let context = self.context;
        let beside = weights.beside(context.spec);
        let narrow = last && self.rows.iter().any(|row| row.logits.is_none());
        let inputs = weights.mixer.inputs().into_iter().chain(beside.into_iter().flat_map(|beside| beside.inputs()));
        self.observe(&buffers.records, 0..self.rows.len(), inputs, None)?;
        let outputs = spec.mixer.outputs();
        match (&spec.mixer, &weights.mixer) {
            (Mixer::Attention(spec), MixerWeights::Attention(weights)) => {
                self.attention(buffers, spec, weights, beside, narrow)?;
            }
            (Mixer::ShortConv(spec), MixerWeights::ShortConv(weights)) => {
                self.short_conv(buffers, spec, weights)?;
                self.wanted_outputs(buffers, outputs, narrow);
            }
            (Mixer::DeltaNet(spec), MixerWeights::DeltaNet(weights)) => {
                self.delta_net(buffers, spec, weights)?;
                self.wanted_outputs(buffers, outputs, narrow);
            }
            _ => return Err(Error::Internal("a layer has the weights of another mixer".into())),
        }
        if self.rows.is_empty() {
            return Ok(());
        }
        let output = weights.mixer.output();
        let kinds = context.kinds([output]);
        {
            let a = &*buffers.a;
            let records = Records::new(&mut buffers.records);
            // SAFETY: a row belongs to one piece.
            self.regions.each_row(self.rows.len(), outputs, |row, _| unsafe {
                records.quantize(context.cpu, kinds, row, &a[row * outputs..(row + 1) * outputs])
            })?;
        }
        let next = beside.is_none().then(|| Start::feed_forward(&context, weights));
        self.add(buffers, output, End::new(&context, weights.post_attention_norm.as_ref(), next))
    }

    /// Attention from the records of the rows to [`Buffers::a`]; `beside` is a feed-forward part that has the same input.
    fn attention(
        &mut self,
        buffers: &mut Buffers,
        spec: &Attention,
        weights: &AttentionWeights,
        beside: Option<&FeedForwardWeights>,
        narrow: bool,
    ) -> Result<()> {
        let file = self.context.file;
        {
            let n = self.rows.len();
            let Buffers { q, k, v, gate, up, records, workers, .. } = &mut *buffers;
            let mut list = Products::new();
            list.push(Product::new(file, &weights.key, records, 0..n, k));
            list.push(Product::new(file, &weights.value, records, 0..n, v));
            if !narrow {
                list.push(Product::new(file, &weights.query, records, 0..n, q));
                if let Some(beside) = beside {
                    list.extend(beside.products(file, records, 0..n, gate, up));
                }
            }
            self.regions.products(&mut list, workers)?;
        }
        self.heads(buffers, spec, weights, !narrow, true)?;
        if narrow {
            let inputs = [&weights.query].into_iter().chain(beside.into_iter().flat_map(FeedForwardWeights::inputs));
            self.keep_wanted(buffers, Kinds::of(inputs));
            let n = self.rows.len();
            if n == 0 {
                return Ok(());
            }
            {
                let Buffers { q, gate, up, records, workers, .. } = &mut *buffers;
                let mut list = Products::new();
                list.push(Product::new(file, &weights.query, records, 0..n, q));
                if let Some(beside) = beside {
                    list.extend(beside.products(file, records, 0..n, gate, up));
                }
                self.regions.products(&mut list, workers)?;
            }
            self.heads(buffers, spec, weights, true, false)?;
        }
        self.attend(buffers, spec, weights.sinks.as_deref())?;
        if spec.gated { self.gate_outputs(buffers, spec) } else { Ok(()) }
    }

    /// Only rows with logits go on: they move to the front of the hidden states and of the records of the kinds.
    fn keep_wanted(&mut self, buffers: &mut Buffers, kinds: Kinds) {
        let width = self.context.spec.width;
        let mut kept = 0;
        for row in 0..self.rows.len() {
            if self.rows[row].logits.is_some() {
                buffers.x.copy_within(row * width..(row + 1) * width, kept * width);
                for kind in kinds.iter() {
                    let record = kind.row_bytes(width);
                    let records = &mut buffers.records[kind_index(kind)];
                    records.copy_within(row * record..(row + 1) * record, kept * record);
                }
                kept += 1;
            }
        }
        self.rows.retain(|row| row.logits.is_some());
    }

    /// The same after a mixer with a state, which needs all rows: the outputs move, too.
    fn wanted_outputs(&mut self, buffers: &mut Buffers, outputs: usize, narrow: bool) {
        if !narrow {
            return;
        }
        let wanted = self.rows.iter().enumerate().filter(|(_, row)| row.logits.is_some());
        for (kept, (row, _)) in wanted.enumerate() {
            buffers.a.copy_within(row * outputs..(row + 1) * outputs, kept * outputs);
        }
        self.keep_wanted(buffers, Kinds::of([]));
    }

    /// `x += norm(feed_forward(norm(x)))`, with the norms that are there.
    pub(super) fn feed_forward_part(
        &mut self,
        buffers: &mut Buffers,
        spec: &FeedForward,
        weights: &LayerWeights,
        next: Start<'_>,
    ) -> Result<()> {
        let end = End::new(&self.context, weights.post_feed_forward_norm.as_ref(), Some(next));
        match &weights.feed_forward {
            FeedForwardPart::Dense(network) => self.dense_part(buffers, spec, network, end),
            FeedForwardPart::Experts(part) => self.experts_part(buffers, spec, part, end),
        }
    }

    /// A feed-forward part of one network.
    fn dense_part(
        &mut self,
        buffers: &mut Buffers,
        spec: &FeedForward,
        network: &FeedForwardWeights,
        end: End<'_>,
    ) -> Result<()> {
        let Context { file, spec: model, .. } = self.context;
        let n = self.rows.len();
        let Buffers { gate, up, records, workers, .. } = &mut *buffers;
        if model.norms != NormPlacement::Parallel {
            self.observe(records, 0..n, network.inputs(), None)?;
            self.regions.products(&mut network.products(file, records, 0..n, gate, up), workers)?;
        }
        self.inner(n, spec, |_| network, gate, up, records)?;
        self.add(buffers, &network.down, end)
    }

    /// From the products of `n` rows with `gate` and `up` to the records for `down`. `network` gives the one of a row; they are alike.
    pub(super) fn inner<'w>(
        &mut self,
        n: usize,
        spec: &FeedForward,
        network: impl Fn(usize) -> &'w FeedForwardWeights + Sync,
        gate: &mut [f32],
        up: &mut [f32],
        records: &mut [Zeroed<u8>; Activation::ALL.len()],
    ) -> Result<()> {
        let (cpu, down) = (self.context.cpu, &network(0).down);
        let (width, kinds) = (down.k, self.context.kinds([down]));
        let (gate, up, records) = (Disjoint::new(gate), Disjoint::new(up), Records::new(records));
        self.regions.each_row(n, 4 * width, |row, _| {
            let network = network(row);
            let range = row * width..(row + 1) * width;
            // SAFETY: a row belongs to one piece.
            unsafe {
                let gate = if network.gate.is_some() { gate.slice(range.clone()) } else { &mut [] };
                let inner = network.inner(cpu, spec, gate, up.slice(range));
                records.quantize(cpu, kinds, row, inner);
            }
        })
    }

    /// `x += norm(linear(records))` or `x = norm(x + linear(records))`, where the norm is there, and what comes next.
    fn add(&mut self, buffers: &mut Buffers, linear: &Linear, end: End<'_>) -> Result<()> {
        let Context { file, spec, cpu, .. } = self.context;
        let (n, width) = (self.rows.len(), spec.width);
        let Buffers { x, t, records, workers, .. } = buffers;
        self.observe(records, 0..n, [linear], None)?;
        self.regions.products(&mut [Product::new(file, linear, records, 0..n, t)], workers)?;
        let (x, t) = (Disjoint::new(x), Disjoint::new(t));
        let (records, workers) = (Records::new(records), Disjoint::new(workers));
        self.regions.each_row(n, 4 * width, |row, worker| {
            let range = row * width..(row + 1) * width;
            // SAFETY: a row belongs to one piece, and a worker number to one thread at a time.
            let (x, t, worker) = unsafe { (x.slice(range.clone()), t.slice(range), workers.item(worker)) };
            if let Some(bias) = &linear.bias {
                add(cpu, t, bias);
            }
            // SAFETY: as above.
            unsafe { end.row(x, t, worker, &records, row) };
        })
    }
}

impl LayerWeights {
    /// The feed-forward network beside the mixer, where it has the same input.
    pub(super) fn beside(&self, spec: &ModelSpec) -> Option<&FeedForwardWeights> {
        match &self.feed_forward {
            FeedForwardPart::Dense(network) if spec.norms == NormPlacement::Parallel => Some(network),
            _ => None,
        }
    }
}

impl FeedForwardWeights {
    /// The products with the input of some rows; `gate` and `up` begin with the first of them.
    pub(super) fn products<'a>(
        &'a self,
        file: &'a Gguf,
        records: &'a [Zeroed<u8>; Activation::ALL.len()],
        rows: Range<usize>,
        gate: &'a mut [f32],
        up: &'a mut [f32],
    ) -> Products<'a> {
        let gate = self.gate.as_ref().map(|linear| Product::new(file, linear, records, rows.clone(), gate));
        gate.into_iter().chain([Product::new(file, &self.up, records, rows, up)]).collect()
    }

    /// What `down` multiplies, from the products of a row without their biases: `f(gate) * up`, or `f(up)` without a gate.
    fn inner<'a>(&self, cpu: Cpu, spec: &FeedForward, gate: &'a mut [f32], up: &'a mut [f32]) -> &'a mut [f32] {
        if let Some(bias) = &self.up.bias {
            add(cpu, up, bias);
        }
        let Some(linear) = &self.gate else {
            match spec.activation {
                ActivationFunction::Silu => silu(cpu, up),
                ActivationFunction::Gelu => gelu(cpu, up),
            }
            return up;
        };
        if let Some(bias) = &linear.bias {
            add(cpu, gate, bias);
        }
        match (spec.gate, spec.activation) {
            (Gate::Clamped, _) => clamped_swiglu(cpu, gate, up),
            (_, ActivationFunction::Silu) => silu_mul(cpu, gate, up),
            (_, ActivationFunction::Gelu) => gelu_mul(cpu, gate, up),
        }
        gate
    }
}
