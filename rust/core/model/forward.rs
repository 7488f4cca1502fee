//! The forward pass: one function for all architectures, which reads the [`ModelSpec`] and computes a chunk of tokens of several
//! sequences.
//!
//! A row is one token of the chunk. Every row's bits depend on its sequence only: products, norms and attention treat rows
//! alone, so neither the chunk, the other rows nor the threads change them.

use std::ops::Range;

use fastq_kernels::elementwise::{add, gelu_mul, rms_norm, scale, silu_mul};
use fastq_kernels::{Activation, Cpu};

use super::arch::Gate;
use super::buffers::{Buffers, kind_index};
use super::regions::{Product, Records, kinds};
use super::spec::{LayerSpec, ModelSpec};
use super::weights::{LayerWeights, Linear, Weights};
use crate::gguf::Gguf;
use crate::kv_cache::{GroupLayout, Sequence};
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

/// Neighbouring tokens of one sequence in a chunk.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// Index of the sequence.
    pub(super) item: usize,
    /// Tokens of the item.
    pub(super) tokens: Range<usize>,
    /// Position of the first one.
    pub(super) position: usize,
    /// How many of the last ones want logits.
    pub(super) wanted: usize,
}

/// One token of the chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) item: usize,
    pub(super) position: usize,
    /// Index into the rope tables of the chunk.
    pub(super) index: usize,
    wanted: bool,
}

/// Computes the segments, whose sequences have room prepared, and appends the logits that are wanted to `outs`, one per item.
pub(super) fn chunk(
    context: Context<'_>,
    pool: &mut Pool,
    buffers: &mut Buffers,
    segments: &[Segment],
    sequences: &[&Sequence],
    tokens: &[&[u32]],
    outs: &mut [&mut Vec<f32>],
) -> Result<()> {
    let mut rows = Vec::with_capacity(buffers.chunk);
    let mut ids = Vec::with_capacity(buffers.chunk);
    for segment in segments {
        let count = segment.tokens.len();
        for i in 0..count {
            let wanted = i + segment.wanted >= count;
            rows.push(Row { item: segment.item, position: segment.position + i, index: rows.len(), wanted });
        }
        ids.extend_from_slice(&tokens[segment.item][segment.tokens.clone()]);
    }
    if rows.is_empty() {
        return Ok(());
    }
    let mut pass = Pass { context, pool, rows };
    pass.embed(buffers, &ids)?;
    pass.check(buffers, "the embedding", "token_embd.")?;
    let layers = context.spec.layers.len();
    for (index, (spec, weights)) in context.spec.layers.iter().zip(&context.weights.layers).enumerate() {
        pass.attention_part(buffers, spec, weights, sequences, index + 1 == layers)?;
        if pass.rows.is_empty() {
            return Ok(());
        }
        pass.feed_forward_part(buffers, spec, weights)?;
        pass.check(buffers, &format!("layer {index}"), &format!("blk.{index}."))?;
    }
    pass.output(buffers, outs)
}

/// A chunk being computed.
pub(super) struct Pass<'a> {
    pub(super) context: Context<'a>,
    pub(super) pool: &'a mut Pool,
    /// The rows that are still needed.
    pub(super) rows: Vec<Row>,
}

impl Pass<'_> {
    /// Hidden states from token ids, and the rope tables of the rows.
    fn embed(&mut self, buffers: &mut Buffers, ids: &[u32]) -> Result<()> {
        let Context { spec, weights, file, cpu, .. } = self.context;
        let (width, embedding) = (spec.width, &weights.embedding);
        let matrix = embedding.matrix(file);
        let row_bytes = matrix.data.len() / matrix.rows;
        let positions: Vec<usize> = self.rows.iter().map(|row| row.position).collect();
        let x = Disjoint::new(&mut buffers.x);
        let ropes: Vec<_> = buffers.ropes.iter_mut().map(|(c, s)| (Disjoint::new(c), Disjoint::new(s))).collect();
        // A sine costs about as much as 16 plain values.
        let cost = width + weights.ropes.iter().map(|rope| 16 * rope.pairs()).sum::<usize>();
        self.each_row(cost, |row, _| {
            let start = ids[row] as usize * row_bytes;
            // SAFETY: a row belongs to one piece.
            let x = unsafe { x.slice(row * width..(row + 1) * width) };
            embedding.format.dequantize(&matrix.data[start..start + row_bytes], x);
            if let Some(factor) = spec.embedding_scale {
                scale(cpu, x, factor);
            }
            for (table, (cos, sin)) in weights.ropes.iter().zip(&ropes) {
                let range = row * table.pairs()..(row + 1) * table.pairs();
                // SAFETY: a row belongs to one piece.
                let (cos, sin) = unsafe { (cos.slice(range.clone()), sin.slice(range)) };
                table.fill(positions[row], cos, sin);
            }
        })
    }

    /// `x += attention(norm(x))`. In the last layer the rows that want no logits end with their keys and values.
    fn attention_part(
        &mut self,
        buffers: &mut Buffers,
        spec: &LayerSpec,
        weights: &LayerWeights,
        sequences: &[&Sequence],
        last: bool,
    ) -> Result<()> {
        let Context { file, spec: model, cpu, .. } = self.context;
        let width = model.width;
        let wanted = self.rows.iter().filter(|row| row.wanted).count();
        let narrow = last && wanted < self.rows.len();
        let inputs = match narrow && wanted == 0 {
            true => kinds(&[&weights.key, &weights.value]),
            false => kinds(&[&weights.query, &weights.key, &weights.value]),
        };
        self.norm_rows(buffers, &weights.attention_norm, &inputs)?;

        let n = self.rows.len();
        {
            let Buffers { q, k, v, records, workers, .. } = &mut *buffers;
            let mut list = Vec::with_capacity(3);
            if !narrow {
                list.push(Product::new(file, &weights.query, records, n, q));
            }
            list.push(Product::new(file, &weights.key, records, n, k));
            list.push(Product::new(file, &weights.value, records, n, v));
            self.products(&list, n, workers)?;
        }
        self.heads(buffers, spec, weights, sequences, !narrow, true)?;
        if narrow {
            // Only rows with logits go on. They move to the front of what is still needed of them.
            let kept: Vec<usize> = (0..n).filter(|&row| self.rows[row].wanted).collect();
            self.rows.retain(|row| row.wanted);
            if kept.is_empty() {
                return Ok(());
            }
            let kind = weights.query.format.activation();
            let record = kind.row_bytes(width);
            let records = &mut buffers.records[kind_index(kind)];
            for (to, from) in kept.into_iter().enumerate() {
                buffers.x.copy_within(from * width..(from + 1) * width, to * width);
                records.copy_within(from * record..(from + 1) * record, to * record);
            }
            let n = self.rows.len();
            let Buffers { q, records, workers, .. } = &mut *buffers;
            self.products(&[Product::new(file, &weights.query, records, n, q)], n, workers)?;
            self.heads(buffers, spec, weights, sequences, true, false)?;
        }
        self.attend(buffers, spec, sequences)?;

        let n = self.rows.len();
        let outputs = spec.heads * spec.value_dim;
        let linear = &weights.attention_output;
        let kinds = kinds(&[linear]);
        {
            let a = &buffers.a[..n * outputs];
            let records = Records::new(&mut buffers.records);
            // SAFETY: a row belongs to one piece.
            self.each_row(outputs, |row, _| unsafe {
                records.quantize(cpu, &kinds, row, &a[row * outputs..(row + 1) * outputs])
            })?;
        }
        self.linear(buffers, linear)?;
        self.add_rows(buffers, linear, weights.post_attention_norm.as_deref())
    }

    /// `x += down(gate(x) * up(x))`.
    fn feed_forward_part(&mut self, buffers: &mut Buffers, spec: &LayerSpec, weights: &LayerWeights) -> Result<()> {
        let Context { file, cpu, .. } = self.context;
        self.norm_rows(buffers, &weights.feed_forward_norm, &kinds(&[&weights.gate, &weights.up]))?;
        let (n, width) = (self.rows.len(), spec.feed_forward);
        {
            let Buffers { gate, up, records, workers, .. } = &mut *buffers;
            let first = Product::new(file, &weights.gate, records, n, gate);
            let second = Product::new(file, &weights.up, records, n, up);
            self.products(&[first, second], n, workers)?;
        }
        {
            let kinds = kinds(&[&weights.down]);
            let Buffers { gate, up, records, .. } = &mut *buffers;
            let (gate, up, records) = (Disjoint::new(gate), Disjoint::new(up), Records::new(records));
            self.each_row(4 * width, |row, _| {
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
                unsafe { records.quantize(cpu, &kinds, row, gate) };
            })?;
        }
        self.linear(buffers, &weights.down)?;
        self.add_rows(buffers, &weights.down, weights.post_feed_forward_norm.as_deref())
    }

    /// Quantizes `norm(x)` for the kinds.
    pub(super) fn norm_rows(&mut self, buffers: &mut Buffers, weight: &[f32], kinds: &[Activation]) -> Result<()> {
        let (cpu, width, epsilon) = (self.context.cpu, self.context.spec.width, self.context.spec.norm_epsilon);
        let x = &buffers.x[..self.rows.len() * width];
        let (records, workers) = (Records::new(&mut buffers.records), Disjoint::new(&mut buffers.workers));
        self.each_row(2 * width, |row, worker| {
            // SAFETY: a worker number belongs to one thread at a time.
            let local = unsafe { &mut workers.item(worker).local[..width] };
            rms_norm(cpu, &x[row * width..(row + 1) * width], Some(weight), epsilon, local);
            // SAFETY: a row belongs to one piece.
            unsafe { records.quantize(cpu, kinds, row, local) };
        })
    }

    /// `t = linear(records)`.
    fn linear(&mut self, buffers: &mut Buffers, linear: &Linear) -> Result<()> {
        let n = self.rows.len();
        let Buffers { t, records, workers, .. } = buffers;
        self.products(&[Product::new(self.context.file, linear, records, n, t)], n, workers)
    }

    /// `x += norm(t + bias)`, where norm and bias are there.
    fn add_rows(&mut self, buffers: &mut Buffers, linear: &Linear, norm: Option<&[f32]>) -> Result<()> {
        let (cpu, width, epsilon) = (self.context.cpu, self.context.spec.width, self.context.spec.norm_epsilon);
        let Buffers { x, t, workers, .. } = buffers;
        let (x, t, workers) = (Disjoint::new(x), Disjoint::new(t), Disjoint::new(workers));
        self.each_row(2 * width, |row, worker| {
            let range = row * width..(row + 1) * width;
            // SAFETY: a row belongs to one piece.
            let (x, t) = unsafe { (x.slice(range.clone()), t.slice(range)) };
            if let Some(bias) = &linear.bias {
                add(cpu, t, bias);
            }
            match norm {
                None => add(cpu, x, t),
                Some(weight) => {
                    // SAFETY: a worker number belongs to one thread at a time.
                    let local = unsafe { &mut workers.item(worker).local[..width] };
                    rms_norm(cpu, t, Some(weight), epsilon, local);
                    add(cpu, x, local);
                }
            }
        })
    }
}
