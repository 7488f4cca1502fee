//! Working memory of the forward pass: allocated once per model, sized for one chunk of tokens.

use fastq_kernels::Activation;
use fastq_kernels::attention::{AttentionScratch, Query, SPLIT, StoreScratch, part_len};
use fastq_kernels::matmul::MatmulScratch;

use super::attend::Piece;
use super::batch::Segment;
use super::experts::{ExpertBuffers, ExpertSizes};
use super::forward::Row;
use super::spec::{Attention, LayerSpec, Mixer, ModelSpec};
use super::weights::Weights;
use crate::Result;
use crate::memory::Zeroed;

/// The most rows of logits that are computed at once when they belong to several sequences.
pub(super) const LOGIT_ROWS: usize = 16;
/// What the kernels keep per thread; an upper estimate of panels and score tiles.
const KERNEL_SCRATCH: u64 = 1 << 20;
/// The most values of [`Buffers::parts`]: what does not fit is not split.
const MAX_PARTS: usize = 1 << 20;

/// Lengths of the buffers.
#[derive(Clone, Debug)]
pub(super) struct BufferSizes {
    chunk: usize,
    width: usize,
    queries: usize,
    keys: usize,
    values: usize,
    outputs: usize,
    mixed: usize,
    feed_forward: usize,
    /// Bytes of the longest record of each kind of activations in use, else 0.
    records: [usize; Activation::ALL.len()],
    /// Pairs of all rotations.
    pairs: usize,
    logits: usize,
    /// Values of one thread.
    local: usize,
    /// Values of the parts of attention.
    parts: usize,
    experts: ExpertSizes,
    threads: usize,
}

/// Index of a kind of activations in [`Activation::ALL`].
pub(super) fn kind_index(kind: Activation) -> usize {
    match kind {
        Activation::F32 => 0,
        Activation::Block32 => 1,
        Activation::Super256 => 2,
    }
}

impl BufferSizes {
    /// The sizes for chunks of `chunk` tokens.
    pub(super) fn new(spec: &ModelSpec, weights: &Weights, chunk: usize, threads: usize) -> BufferSizes {
        let attentions = || spec.layers.iter().filter_map(LayerSpec::attention);
        let largest = |size: fn(&Attention) -> usize| attentions().map(size).max().unwrap_or(0);
        let mixers = |size: fn(&Mixer) -> usize| spec.layers.iter().map(|l| size(&l.mixer)).max().unwrap_or(0);
        let queries = largest(Attention::queries);
        let keys = largest(|layer| layer.kv_heads * layer.key_dim);
        let mut records = [0; Activation::ALL.len()];
        for linear in weights.linears() {
            let kind = linear.format.activation();
            let bytes = &mut records[kind_index(kind)];
            *bytes = kind.row_bytes(linear.k).max(*bytes);
        }
        let largest_group = largest(|layer| layer.heads / layer.kv_heads * part_len(layer.value_dim));
        // With one thread nothing is split, with more only what makes few pieces.
        let rows = if threads == 1 { 0 } else { chunk.min(PIECES_PER_THREAD * threads) };
        let parts = largest(|layer| layer.heads * part_len(layer.value_dim))
            .saturating_mul(spec.context.div_ceil(SPLIT))
            .saturating_mul(rows);
        BufferSizes {
            chunk,
            width: spec.width,
            queries,
            keys,
            values: largest(|layer| layer.kv_heads * layer.value_dim),
            outputs: mixers(Mixer::outputs),
            mixed: mixers(Mixer::mixed),
            feed_forward: spec.layers.iter().map(|layer| layer.feed_forward.width_per_row()).max().unwrap_or(0),
            records,
            pairs: spec.ropes.iter().map(|rope| rope.dims / 2).sum(),
            logits: spec.vocabulary * LOGIT_ROWS.min(chunk),
            // Norms need a row of the hidden state, or of queries, keys or outputs.
            local: (largest_group * ATTENTION_ROWS).max(spec.width).max(queries).max(keys).max(mixers(Mixer::outputs)),
            parts: parts.min(MAX_PARTS),
            experts: ExpertSizes::new(spec, weights),
            threads,
        }
    }

    fn per_row(&self) -> usize {
        2 * (self.width + self.feed_forward + self.pairs)
            + self.queries
            + self.keys
            + self.values
            + self.outputs
            + self.mixed
    }

    /// Bytes of all buffers.
    pub(super) fn bytes(&self) -> u64 {
        let rows = self.chunk as u64;
        let records: usize = self.records.iter().sum();
        rows * (4 * self.per_row() as u64 + records as u64)
            + 4 * (self.logits + self.parts) as u64
            + self.experts.bytes(self.chunk)
            + self.threads as u64 * (4 * self.local as u64 + KERNEL_SCRATCH)
    }
}

/// The most tokens of one attention piece.
pub(super) const ATTENTION_ROWS: usize = 16;
/// Attention with fewer pieces per thread than this is split by keys, too.
pub(super) const PIECES_PER_THREAD: usize = 4;

/// The buffers. All are `(rows, …)`, one row per token of the chunk.
#[derive(Debug)]
pub(super) struct Buffers {
    /// Tokens per chunk.
    pub(super) chunk: usize,
    /// Hidden state `(rows, width)`.
    pub(super) x: Zeroed<f32>,
    /// Output of a part before it is added `(rows, width)`.
    pub(super) t: Zeroed<f32>,
    /// `(rows, heads * key_dim)`, with gates between them twice that.
    pub(super) q: Zeroed<f32>,
    /// `(rows, kv_heads * key_dim)`.
    pub(super) k: Zeroed<f32>,
    /// `(rows, kv_heads * value_dim)`.
    pub(super) v: Zeroed<f32>,
    /// Output of the mixer before its last matrix, `(rows, heads * value_dim)` of attention.
    pub(super) a: Zeroed<f32>,
    /// What a mixer with a state is given `(rows, mixed)`.
    pub(super) mixed: Zeroed<f32>,
    /// `(rows, feed_forward)`; with experts `(slots, width)`, then those of the shared one.
    pub(super) gate: Zeroed<f32>,
    /// As `gate`.
    pub(super) up: Zeroed<f32>,
    /// Quantized activations, by kind.
    pub(super) records: [Zeroed<u8>; Activation::ALL.len()],
    /// Cosines `(rows, pairs)` of all rotations.
    pub(super) cos: Zeroed<f32>,
    /// Sines `(rows, pairs)` of all rotations.
    pub(super) sin: Zeroed<f32>,
    /// `(rows, vocabulary)`.
    pub(super) logits: Zeroed<f32>,
    /// Records of the parts of attention that were computed apart.
    pub(super) parts: Zeroed<f32>,
    /// What mixtures of experts need beside the rest.
    pub(super) experts: ExpertBuffers,
    /// The chunk, kept for its memory, as are the rows.
    pub(super) segments: Vec<Segment>,
    /// The rows that are still needed.
    pub(super) rows: Vec<Row>,
    /// The pieces of attention, kept for their memory.
    pub(super) pieces: Vec<Piece>,
    /// One per thread.
    pub(super) workers: Vec<Worker>,
}

/// Working memory of one thread.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) matmul: MatmulScratch,
    pub(super) attention: AttentionScratch,
    pub(super) queries: Vec<Query>,
    /// Outputs of an attention piece; also a normalised row.
    pub(super) local: Zeroed<f32>,
    pub(super) store: StoreScratch,
    /// Empty; kept for its memory.
    pub(super) pages: Vec<&'static [u16]>,
}

impl Buffers {
    /// Allocates.
    pub(super) fn new(sizes: &BufferSizes) -> Result<Buffers> {
        let rows = |width: usize| Zeroed::scratch(sizes.chunk, width);
        let [a, b, c] = sizes.records;
        let record = |bytes: usize| Zeroed::scratch(sizes.chunk, bytes);
        Ok(Buffers {
            chunk: sizes.chunk,
            x: rows(sizes.width)?,
            t: rows(sizes.width)?,
            q: rows(sizes.queries)?,
            k: rows(sizes.keys)?,
            v: rows(sizes.values)?,
            a: rows(sizes.outputs)?,
            mixed: rows(sizes.mixed)?,
            gate: rows(sizes.feed_forward)?,
            up: rows(sizes.feed_forward)?,
            records: [record(a)?, record(b)?, record(c)?],
            cos: rows(sizes.pairs)?,
            sin: rows(sizes.pairs)?,
            logits: Zeroed::scratch(1, sizes.logits)?,
            parts: Zeroed::scratch(1, sizes.parts)?,
            experts: ExpertBuffers::new(&sizes.experts, sizes.chunk)?,
            segments: Vec::new(),
            rows: Vec::new(),
            pieces: Vec::new(),
            workers: (0..sizes.threads)
                .map(|_| {
                    Ok(Worker {
                        matmul: MatmulScratch::default(),
                        attention: AttentionScratch::default(),
                        queries: Vec::new(),
                        local: Zeroed::scratch(1, sizes.local)?,
                        store: StoreScratch::default(),
                        pages: Vec::new(),
                    })
                })
                .collect::<Result<_>>()?,
        })
    }

    /// Makes room for f32 records of the inputs of every matrix.
    pub(super) fn keep_floats(&mut self, weights: &Weights) -> Result<()> {
        let bytes = |k: usize| Activation::F32.row_bytes(k);
        let longest = weights.linears().map(|linear| bytes(linear.k)).max().unwrap_or(0);
        let index = kind_index(Activation::F32);
        if self.records[index].len() < self.chunk.saturating_mul(longest) {
            self.records[index] = Zeroed::scratch(self.chunk, longest)?;
        }
        self.experts.keep_floats(weights, self.chunk)
    }

    /// Bytes that were allocated, without what the kernels keep.
    pub(super) fn bytes(&self) -> u64 {
        let Buffers { x, t, q, k, v, a, mixed, gate, up, cos, sin, logits, parts, .. } = self;
        let floats = [x, t, q, k, v, a, mixed, gate, up, cos, sin, logits, parts].into_iter();
        let workers = self.workers.iter().map(|worker| worker.local.bytes() + KERNEL_SCRATCH);
        floats.map(Zeroed::bytes).sum::<u64>()
            + self.records.iter().map(Zeroed::bytes).sum::<u64>()
            + self.experts.bytes()
            + workers.sum::<u64>()
    }
}

/// The memory of a list for what lives at another time; `A` and `B` differ in lifetimes.
pub(super) fn recycle<A, B>(mut list: Vec<A>) -> Vec<B> {
    list.clear();
    // Collecting in place keeps the allocation; a test says so.
    list.into_iter().filter_map(|_| None).collect()
}

#[cfg(test)]
mod tests {
    use super::recycle;

    #[test]
    fn recycling_keeps_the_memory() {
        let values = [1u16, 2];
        let mut list: Vec<&'static [u16]> = Vec::new();
        let mut here = recycle(std::mem::take(&mut list));
        here.extend([&values[..]; 100]);
        let capacity = here.capacity();
        list = recycle(here);
        assert_eq!((list.len(), list.capacity()), (0, capacity));
    }
}
