//! The forward pass: one function for all architectures, which reads the [`ModelSpec`] and computes a chunk of tokens of several
//! sequences.
//!
//! A row is one token of the chunk. Every row's bits depend on its sequence only: products, norms and attention treat rows
//! alone, so neither the chunk, the other rows nor the threads change them.

use fastq_kernels::Cpu;
use fastq_kernels::elementwise::{add, gelu_mul, rms_norm, scale, silu_mul};

use super::arch::Gate;
use super::batch::{BatchItem, Segment};
use super::buffers::{Buffers, Worker, kind_index};
use super::regions::{Kinds, Product, Records, Regions};
use super::spec::{LayerSpec, ModelSpec};
use super::weights::{LayerWeights, Linear, Weights};
use crate::gguf::Gguf;
use crate::kv_cache::GroupLayout;
use crate::pool::{Disjoint, Pool};
use crate::{Interrupt, Result};

/// What a pass reads.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) file: &'a Gguf,
    pub(super) spec: &'a ModelSpec,
    pub(super) weights: &'a Weights,
    pub(super) groups: &'a [GroupLayout],
    pub(super) cpu: Cpu,
    pub(super) interrupt: &'a dyn Interrupt,
    /// Look for values that are not finite after every layer.
    pub(super) check: bool,
}

/// One token of the chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) item: usize,
    pub(super) position: usize,
    /// Index into the rope tables of the chunk.
    pub(super) index: usize,
    token: u32,
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
    let mut rows = std::mem::take(&mut buffers.rows);
    rows.clear();
    for Segment { item, tokens, position, wanted } in &buffers.segments {
        // The last rows of the logits of an item belong to its last tokens.
        let end = batch[*item].wanted();
        let first = batch[*item].tokens.len() - end;
        for (i, at) in tokens.clone().enumerate() {
            let logits = (i + wanted >= tokens.len()).then(|| at - first);
            let token = batch[*item].tokens[at];
            rows.push(Row { item: *item, position: position + i, index: rows.len(), token, logits });
        }
    }
    let regions = Regions { pool, interrupt: context.interrupt, cpu: context.cpu };
    let mut pass = Pass { context, regions, rows, batch };
    let result = pass.run(buffers);
    buffers.rows = pass.rows;
    result
}

/// A chunk being computed.
pub(super) struct Pass<'a, 'b> {
    pub(super) context: Context<'a>,
    pub(super) regions: Regions<'a>,
    /// The rows that are still needed.
    pub(super) rows: Vec<Row>,
    pub(super) batch: &'a mut [BatchItem<'b>],
}

/// What a part begins with: `norm(x)`, quantized for its matrices. It is computed with the end of the part before it, while the row is
/// in the cache.
#[derive(Clone, Copy)]
struct Start<'a> {
    norm: &'a [f32],
    epsilon: f32,
    kinds: Kinds,
    cpu: Cpu,
}

impl<'a> Start<'a> {
    fn new(context: &Context<'a>, norm: &'a [f32], matrices: &[&Linear]) -> Start<'a> {
        Start { norm, epsilon: context.spec.norm_epsilon, kinds: Kinds::of(matrices), cpu: context.cpu }
    }

    /// The start of a layer, or of the output after the last one.
    fn layer(context: &Context<'a>, layer: usize) -> Start<'a> {
        match context.weights.layers.get(layer) {
            Some(layer) => Start::new(context, &layer.attention_norm, &[&layer.query, &layer.key, &layer.value]),
            None => Start::new(context, &context.weights.output_norm, &[&context.weights.output]),
        }
    }

    /// Fills the records of a row.
    ///
    /// # Safety
    /// Nobody else uses the records of the row during the call.
    unsafe fn row(&self, x: &[f32], worker: &mut Worker, records: &Records<'_>, row: usize) {
        let local = &mut worker.local[..x.len()];
        rms_norm(self.cpu, x, Some(self.norm), self.epsilon, local);
        // SAFETY: the caller's promise.
        unsafe { records.quantize(self.cpu, self.kinds, row, local) };
    }
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
            self.attention_part(buffers, spec, weights, index + 1 == layers)?;
            if self.rows.is_empty() {
                return Ok(());
            }
            self.feed_forward_part(buffers, spec, weights, Start::layer(&context, index + 1))?;
            self.check(buffers, Some(index))?;
        }
        self.output(buffers)
    }

    /// Hidden states from tokens, and the rope tables of the rows.
    fn embed(&mut self, buffers: &mut Buffers, start: Start<'_>) -> Result<()> {
        let Context { spec, weights, file, cpu, .. } = self.context;
        let (width, embedding) = (spec.width, &weights.embedding);
        let matrix = embedding.matrix(file);
        let row_bytes = matrix.data.len() / matrix.rows;
        let pairs = weights.pairs_before(weights.ropes.len());
        let Buffers { x, cos, sin, records, workers, .. } = buffers;
        let (x, cos, sin) = (Disjoint::new(x), Disjoint::new(cos), Disjoint::new(sin));
        let (records, workers) = (Records::new(records), Disjoint::new(workers));
        let rows = &*self.rows;
        // A sine costs about as much as 16 plain values.
        self.regions.each_row(rows.len(), 3 * width + 16 * pairs, |row, worker| {
            let from = rows[row].token as usize * row_bytes;
            let angles = row * pairs..(row + 1) * pairs;
            // SAFETY: a row belongs to one piece.
            let (x, mut cos, mut sin) =
                unsafe { (x.slice(row * width..(row + 1) * width), cos.slice(angles.clone()), sin.slice(angles)) };
            embedding.format.dequantize(&matrix.data[from..from + row_bytes], x);
            if let Some(factor) = spec.embedding_scale {
                scale(cpu, x, factor);
            }
            for table in &weights.ropes {
                let (own_cos, own_sin);
                (own_cos, cos) = cos.split_at_mut(table.pairs());
                (own_sin, sin) = sin.split_at_mut(table.pairs());
                table.fill(rows[row].position, own_cos, own_sin);
            }
            // SAFETY: a row belongs to one piece, and a worker number to one thread at a time.
            unsafe { start.row(x, workers.item(worker), &records, row) };
        })
    }

    /// `x += attention(norm(x))`. In the last layer the rows that want no logits end with their keys and values.
    fn attention_part(
        &mut self,
        buffers: &mut Buffers,
        spec: &LayerSpec,
        weights: &LayerWeights,
        last: bool,
    ) -> Result<()> {
        let Context { file, spec: model, cpu, .. } = self.context;
        let width = model.width;
        let n = self.rows.len();
        let narrow = last && self.rows.iter().any(|row| row.logits.is_none());
        {
            let Buffers { q, k, v, records, workers, .. } = &mut *buffers;
            let list = [
                Product::new(file, &weights.query, records, n, q),
                Product::new(file, &weights.key, records, n, k),
                Product::new(file, &weights.value, records, n, v),
            ];
            self.regions.products(if narrow { &list[1..] } else { &list }, n, workers)?;
        }
        self.heads(buffers, spec, weights, !narrow, true)?;
        if narrow {
            // Only rows with logits go on. They move to the front of what is still needed of them.
            let kind = weights.query.format.activation();
            let record = kind.row_bytes(width);
            let records = &mut buffers.records[kind_index(kind)];
            let mut kept = 0;
            for row in 0..n {
                if self.rows[row].logits.is_some() {
                    buffers.x.copy_within(row * width..(row + 1) * width, kept * width);
                    records.copy_within(row * record..(row + 1) * record, kept * record);
                    kept += 1;
                }
            }
            self.rows.retain(|row| row.logits.is_some());
            if kept == 0 {
                return Ok(());
            }
            let Buffers { q, records, workers, .. } = &mut *buffers;
            self.regions.products(&[Product::new(file, &weights.query, records, kept, q)], kept, workers)?;
            self.heads(buffers, spec, weights, true, false)?;
        }
        self.attend(buffers, spec)?;

        let outputs = spec.heads * spec.value_dim;
        let linear = &weights.attention_output;
        let kinds = Kinds::of(&[linear]);
        {
            let a = &*buffers.a;
            let records = Records::new(&mut buffers.records);
            // SAFETY: a row belongs to one piece.
            self.regions.each_row(self.rows.len(), outputs, |row, _| unsafe {
                records.quantize(cpu, kinds, row, &a[row * outputs..(row + 1) * outputs])
            })?;
        }
        let next = Start::new(&self.context, &weights.feed_forward_norm, &[&weights.gate, &weights.up]);
        self.add(buffers, linear, weights.post_attention_norm.as_deref(), next)
    }

    /// `x += down(gate(x) * up(x))`.
    fn feed_forward_part(
        &mut self,
        buffers: &mut Buffers,
        spec: &LayerSpec,
        weights: &LayerWeights,
        next: Start<'_>,
    ) -> Result<()> {
        let Context { file, cpu, .. } = self.context;
        let (n, width) = (self.rows.len(), spec.feed_forward);
        {
            let Buffers { gate, up, records, workers, .. } = &mut *buffers;
            let first = Product::new(file, &weights.gate, records, n, gate);
            let second = Product::new(file, &weights.up, records, n, up);
            self.regions.products(&[first, second], n, workers)?;
        }
        {
            let kinds = Kinds::of(&[&weights.down]);
            let Buffers { gate, up, records, .. } = &mut *buffers;
            let (gate, up, records) = (Disjoint::new(gate), Disjoint::new(up), Records::new(records));
            self.regions.each_row(n, 4 * width, |row, _| {
                let range = row * width..(row + 1) * width;
                // SAFETY: a row belongs to one piece.
                let (gate, up) = unsafe { (gate.slice(range.clone()), up.slice(range)) };
                if let Some(bias) = &weights.gate.bias {
                    add(cpu, gate, bias);
                }
                if let Some(bias) = &weights.up.bias {
                    add(cpu, up, bias);
                }
                match spec.gate {
                    Gate::Silu => silu_mul(cpu, gate, up),
                    Gate::Gelu => gelu_mul(cpu, gate, up),
                }
                // SAFETY: as above.
                unsafe { records.quantize(cpu, kinds, row, gate) };
            })?;
        }
        self.add(buffers, &weights.down, weights.post_feed_forward_norm.as_deref(), next)
    }

    /// `x += norm(linear(records))`, where the norm is there, and what comes next.
    fn add(&mut self, buffers: &mut Buffers, linear: &Linear, norm: Option<&[f32]>, next: Start<'_>) -> Result<()> {
        let Context { file, spec, cpu, .. } = self.context;
        let (n, width) = (self.rows.len(), spec.width);
        let Buffers { x, t, records, workers, .. } = buffers;
        self.regions.products(&[Product::new(file, linear, records, n, t)], n, workers)?;
        let (x, t) = (Disjoint::new(x), Disjoint::new(t));
        let (records, workers) = (Records::new(records), Disjoint::new(workers));
        self.regions.each_row(n, 4 * width, |row, worker| {
            let range = row * width..(row + 1) * width;
            // SAFETY: a row belongs to one piece, and a worker number to one thread at a time.
            let (x, t, worker) = unsafe { (x.slice(range.clone()), t.slice(range), workers.item(worker)) };
            if let Some(bias) = &linear.bias {
                add(cpu, t, bias);
            }
            match norm {
                None => add(cpu, x, t),
                Some(weight) => {
                    let local = &mut worker.local[..width];
                    rms_norm(cpu, t, Some(weight), spec.norm_epsilon, local);
                    add(cpu, x, local);
                }
            }
            // SAFETY: as above.
            unsafe { next.row(x, worker, &records, row) };
        })
    }
}
