//! The heads of the forward pass: norm and rope, the writes to the cache, and attention over it.

use std::ops::Range;

use fastq_kernels::attention::{KvHead, Query, Scores, attention};
use fastq_kernels::elementwise::{add, rms_norm, rope, to_f16};

use super::buffers::{ATTENTION_ROWS, Buffers, Worker};
use super::forward::{Context, Pass};
use super::spec::LayerSpec;
use super::weights::LayerWeights;
use crate::Result;
use crate::kv_cache::{HeadIndex, Sequence};
use crate::pool::Disjoint;

impl Pass<'_> {
    /// Bias, norm and rope of the heads, and the keys and values into the cache.
    pub(super) fn heads(
        &mut self,
        buffers: &mut Buffers,
        spec: &LayerSpec,
        weights: &LayerWeights,
        sequences: &[&Sequence],
        with_queries: bool,
        with_keys: bool,
    ) -> Result<()> {
        let Context { spec: model, cpu, .. } = self.context;
        let epsilon = model.norm_epsilon;
        let (style, pairs) = (model.ropes[spec.rope].style, model.ropes[spec.rope].dims / 2);
        let (queries, keys, values) =
            (spec.heads * spec.key_dim, spec.kv_heads * spec.key_dim, spec.kv_heads * spec.value_dim);
        let Buffers { q, k, v, ropes, workers, .. } = buffers;
        let (cos, sin) = &ropes[spec.rope];
        let (q, k, v, workers) = (Disjoint::new(q), Disjoint::new(k), Disjoint::new(v), Disjoint::new(workers));
        let rows = &self.rows.clone();
        self.each_row(2 * (queries + keys + values), |index, worker| {
            let row = rows[index];
            let angles = row.index * pairs..(row.index + 1) * pairs;
            let (cos, sin) = (&cos[angles.clone()], &sin[angles]);
            // SAFETY: a worker number belongs to one thread at a time.
            let worker = unsafe { workers.item(worker) };
            let mut turn = |x: &mut [f32], bias: Option<&[f32]>, norm: Option<&[f32]>| {
                if let Some(bias) = bias {
                    add(cpu, x, bias);
                }
                if let Some(norm) = norm {
                    let local = &mut worker.local[..spec.key_dim];
                    for head in x.chunks_exact_mut(spec.key_dim) {
                        rms_norm(cpu, head, Some(norm), epsilon, local);
                        head.copy_from_slice(local);
                    }
                }
                rope(cpu, x, spec.key_dim, style, cos, sin);
            };
            if with_queries {
                // SAFETY: a row belongs to one piece.
                let q = unsafe { q.slice(index * queries..(index + 1) * queries) };
                turn(q, weights.query.bias.as_deref(), weights.query_norm.as_deref());
            }
            if with_keys {
                // SAFETY: a row belongs to one piece.
                let (k, v) = unsafe {
                    (k.slice(index * keys..(index + 1) * keys), v.slice(index * values..(index + 1) * values))
                };
                turn(k, weights.key.bias.as_deref(), weights.key_norm.as_deref());
                if let Some(bias) = &weights.value.bias {
                    add(cpu, v, bias);
                }
                let (key_half, value_half) = worker.half[..keys + values].split_at_mut(keys);
                to_f16(cpu, k, key_half);
                to_f16(cpu, v, value_half);
                for head in 0..spec.kv_heads {
                    let at = HeadIndex { group: spec.group, layer: spec.index_in_group, head };
                    let key = &key_half[head * spec.key_dim..(head + 1) * spec.key_dim];
                    let value = &value_half[head * spec.value_dim..(head + 1) * spec.value_dim];
                    // SAFETY: the rows of a chunk have different positions or sequences, the pages were made unshared by
                    // `prepare`, and nobody reads the cache in this region.
                    unsafe { sequences[row.item].write(at, row.position, key, value) };
                }
            }
        })
    }

    /// Attention of all rows; pieces are a few rows times one kv head with its query heads.
    pub(super) fn attend(&mut self, buffers: &mut Buffers, spec: &LayerSpec, sequences: &[&Sequence]) -> Result<()> {
        let Context { spec: model, cpu, groups, .. } = self.context;
        let layout = &groups[spec.group];
        let group = spec.heads / spec.kv_heads;
        let (queries, outputs) = (spec.heads * spec.key_dim, spec.heads * spec.value_dim);
        let scores = Scores { scale: spec.score_scale, softcap: model.score_cap };
        // Late positions see the most keys, so their pieces are handed out first.
        let mut pieces: Vec<(Range<usize>, usize)> = Vec::new();
        let mut start = 0;
        while start < self.rows.len() {
            let item = self.rows[start].item;
            let same = self.rows[start..].iter().take(ATTENTION_ROWS).take_while(|row| row.item == item).count();
            pieces.extend((0..spec.kv_heads).map(|head| (start..start + same, head)));
            start += same;
        }
        pieces.sort_by_key(|(rows, _)| std::cmp::Reverse(self.rows[rows.start].position));

        let rows = &self.rows;
        let Buffers { q, a, workers, .. } = buffers;
        let q = &q[..rows.len() * queries];
        let (a, workers) = (Disjoint::new(a), Disjoint::new(workers));
        self.pool.run(pieces.len(), self.context.interrupt, |piece, worker| {
            let (range, head) = &pieces[piece];
            let piece_rows = &rows[range.clone()];
            let (Some(first), Some(last)) = (piece_rows.first(), piece_rows.last()) else { return };
            let (start, end) = (layout.start(first.position), last.position + 1);
            let at = HeadIndex { group: spec.group, layer: spec.index_in_group, head: *head };
            let mut keys = Vec::new();
            let mut values = Vec::new();
            // SAFETY: nobody writes the cache in this region.
            let first_page = unsafe { sequences[first.item].head(at, start, end, &mut keys, &mut values) };
            let kv =
                KvHead { first_page, keys: &keys, values: &values, key_dim: spec.key_dim, value_dim: spec.value_dim };
            // SAFETY: a worker number belongs to one thread at a time.
            let Worker { attention: scratch, queries: list, local, .. } = unsafe { workers.item(worker) };
            list.clear();
            for (i, row) in piece_rows.iter().enumerate() {
                list.extend((0..group).map(|h| Query {
                    q: (range.start + i) * queries + (head * group + h) * spec.key_dim,
                    out: (i * group + h) * spec.value_dim,
                    start: layout.start(row.position),
                    end: row.position + 1,
                }));
            }
            let width = group * spec.value_dim;
            let local = &mut local[..piece_rows.len() * width];
            attention(cpu, kv, list, scores, q, local, scratch);
            for (i, out) in local.chunks_exact(width).enumerate() {
                let start = (range.start + i) * outputs + head * width;
                // SAFETY: a row and head belong to one piece.
                unsafe { a.slice(start..start + width) }.copy_from_slice(out);
            }
        })
    }
}
