//! The heads of the forward pass: norm and rope, the writes to the cache, and attention over it.

use std::ops::Range;

use fastq_kernels::attention::{KvHead, Query, SPLIT, Scores, attention, attention_part, combine, part_len};
use fastq_kernels::elementwise::{add, mul_sigmoid, rope, scale};

use super::arch::HeadNorms;
use super::buffers::{ATTENTION_ROWS, Buffers, PIECES_PER_THREAD, Worker, recycle};
use super::forward::{Context, Pass, Row};
use super::regions::Regions;
use super::spec::Attention;
use super::weights::{AttentionWeights, Norm};
use crate::Result;
use crate::kv_cache::HeadIndex;
use crate::pool::Disjoint;

impl Pass<'_, '_> {
    /// Bias, norm and rope of the heads, and the keys and values into the cache.
    pub(super) fn heads(
        &mut self,
        buffers: &mut Buffers,
        spec: &Attention,
        weights: &AttentionWeights,
        with_queries: bool,
        with_keys: bool,
    ) -> Result<()> {
        let Context { spec: model, weights: all, cpu, .. } = self.context;
        let stride = all.pairs_before(all.ropes.len());
        let rotation = spec.rope.map(|rope| {
            let before = all.pairs_before(rope);
            (model.ropes[rope].style, before..before + all.ropes[rope].pairs())
        });
        let together = model.architecture.head_norms == HeadNorms::Together;
        let (queries, keys, values) = (spec.queries(), spec.kv_heads * spec.key_dim, spec.kv_heads * spec.value_dim);
        let Buffers { q, k, v, cos, sin, workers, .. } = buffers;
        let (q, k, v, workers) = (Disjoint::new(q), Disjoint::new(k), Disjoint::new(v), Disjoint::new(workers));
        let (rows, batch) = (&*self.rows, &*self.batch);
        self.regions.each_row(rows.len(), 2 * (queries + keys + values), |index, worker| {
            let row = rows[index];
            // SAFETY: a worker number belongs to one thread at a time.
            let worker = unsafe { workers.item(worker) };
            let mut turn = |x: &mut [f32], norm: Option<&Norm>| {
                if let Some(norm) = norm {
                    let span = if together { x.len() } else { spec.key_dim };
                    norm.parts(cpu, x, span, &mut worker.local);
                }
                if let Some((style, pairs)) = &rotation {
                    let angles = row.index * stride + pairs.start..row.index * stride + pairs.end;
                    rope(cpu, x, spec.key_dim, *style, &cos[angles.clone()], &sin[angles]);
                }
            };
            if with_queries {
                // SAFETY: a row belongs to one piece.
                let q = unsafe { q.slice(index * queries..(index + 1) * queries) };
                if let Some(bias) = &weights.query.bias {
                    add(cpu, q, bias);
                }
                // All at once, unless there are gates between them.
                let (stride, len) = if spec.gated { (spec.query_stride(), spec.key_dim) } else { (queries, queries) };
                for q in q.chunks_exact_mut(stride) {
                    let q = &mut q[..len];
                    turn(q, weights.query_norm.as_ref());
                    if let Some(temperature) = model.temperature {
                        scale(cpu, q, temperature.at(row.position));
                    }
                }
            }
            if with_keys {
                // SAFETY: a row belongs to one piece.
                let (k, v) = unsafe {
                    (k.slice(index * keys..(index + 1) * keys), v.slice(index * values..(index + 1) * values))
                };
                if let Some(bias) = &weights.key.bias {
                    add(cpu, k, bias);
                }
                turn(k, weights.key_norm.as_ref());
                if let Some(bias) = &weights.value.bias {
                    add(cpu, v, bias);
                }
                let heads = k.chunks_exact(spec.key_dim).zip(v.chunks_exact(spec.value_dim));
                for (head, (key, value)) in heads.enumerate() {
                    let at = HeadIndex { group: spec.group, layer: spec.index_in_group, head };
                    let (sequence, position, store) = (&*batch[row.item].sequence, row.position, &mut worker.store);
                    // SAFETY: the rows of a chunk have different positions or sequences, the pages were made unshared by
                    // `prepare`, and nobody reads the cache in this region.
                    unsafe { sequence.write(cpu, at, position, key, value, store) };
                }
            }
        })
    }

    /// Attention of all rows. Pieces are a few rows times one kv head with its query heads; when that makes few pieces, those with a
    /// long text are split at the multiples of [`SPLIT`] positions, too, and put together at the end.
    pub(super) fn attend(&mut self, buffers: &mut Buffers, spec: &Attention, sinks: Option<&[f32]>) -> Result<()> {
        let Context { spec: model, cpu, groups, .. } = self.context;
        let layout = &groups[spec.group];
        let group = spec.heads / spec.kv_heads;
        let (queries, outputs) = (spec.queries(), spec.heads * spec.value_dim);
        let record = part_len(spec.value_dim);
        let scores = Scores { scale: spec.score_scale, softcap: model.score_cap };
        let sink = |head: usize| sinks.map(|sinks| sinks[head]);
        let Regions { pool, interrupt, .. } = &mut self.regions;
        let (rows, batch) = (&*self.rows, &*self.batch);
        let Buffers { q, a, parts, pieces, workers, .. } = buffers;
        plan(rows, |row| (layout.start(row.position), row.end), spec, pool.threads(), parts.len(), pieces);

        let q = &q[..rows.len() * queries];
        {
            let (a, parts, workers) = (Disjoint::new(a), Disjoint::new(parts), Disjoint::new(workers));
            let pieces = &*pieces;
            pool.run(pieces.len(), *interrupt, |piece, worker| {
                let &Piece { rows: ref range, head, part, records } = &pieces[piece];
                let piece_rows = &rows[range.clone()];
                let (Some(first), Some(last)) = (piece_rows.first(), piece_rows.last()) else { return };
                let bounds = part.map_or(0..usize::MAX, |part| part * SPLIT..(part + 1) * SPLIT);
                let (start, end) = (layout.start(first.position).max(bounds.start), last.end.min(bounds.end));
                // SAFETY: a worker number belongs to one thread at a time.
                let worker = unsafe { workers.item(worker) };
                let Worker { attention: scratch, queries: list, local, pages: empty, .. } = worker;
                let mut pages = recycle(std::mem::take(empty));
                let at = HeadIndex { group: spec.group, layer: spec.index_in_group, head };
                // SAFETY: nobody writes the cache in this region.
                let (layout_of_head, first_page) =
                    unsafe { batch[first.item].sequence.head(at, start, end, &mut pages) };
                let kv = KvHead { layout: layout_of_head, first_page, pages: &pages };
                let step = if part.is_some() { record } else { spec.value_dim };
                list.clear();
                for (i, row) in piece_rows.iter().enumerate() {
                    let (start, end) = (layout.start(row.position).max(start), row.end.min(end));
                    if start < end {
                        list.extend((0..group).map(|h| Query {
                            q: (range.start + i) * queries + (head * group + h) * spec.query_stride(),
                            out: (i * group + h) * step,
                            start,
                            end,
                            sink: sink(head * group + h),
                        }));
                    }
                }
                let local = &mut local[..piece_rows.len() * group * step];
                if let Some(part) = part {
                    attention_part(cpu, kv, list, scores, q, local, scratch);
                    for query in &*list {
                        let (i, h) = (query.out / step / group, query.out / step % group);
                        let start = (records.at(i, head * group + h, spec.heads) + part - records.first) * record;
                        // SAFETY: a row, head and part belong to one piece.
                        unsafe { parts.slice(start..start + record) }.copy_from_slice(&local[query.out..][..record]);
                    }
                } else {
                    attention(cpu, kv, list, scores, q, local, scratch);
                    for (i, out) in local.chunks_exact(group * step).enumerate() {
                        let start = (range.start + i) * outputs + head * group * step;
                        // SAFETY: a row and head belong to one piece.
                        unsafe { a.slice(start..start + out.len()) }.copy_from_slice(out);
                    }
                }
                *empty = recycle(pages);
            })?;
        }
        // Little work: a part of 512 keys is one line here.
        let Some(worker) = workers.first_mut() else { return Ok(()) };
        for piece in pieces.iter().filter(|piece| piece.part == Some(piece.records.first)) {
            let heads = piece.head * group..(piece.head + 1) * group;
            for (i, h) in (0..piece.rows.len()).flat_map(|i| heads.clone().map(move |h| (i, h))) {
                let row = piece.rows.start + i;
                let (first, last) = (layout.start(rows[row].position) / SPLIT, (rows[row].end - 1) / SPLIT);
                let start = piece.records.at(i, h, spec.heads) + first - piece.records.first;
                let records = &parts[start * record..(start + last + 1 - first) * record];
                let out = &mut a[row * outputs + h * spec.value_dim..][..spec.value_dim];
                combine(cpu, records, sink(h), out, &mut worker.attention);
            }
        }
        Ok(())
    }
}

impl Pass<'_, '_> {
    /// Multiplies the outputs of the heads by the sigmoid of the gates behind their queries.
    pub(super) fn gate_outputs(&mut self, buffers: &mut Buffers, spec: &Attention) -> Result<()> {
        let (cpu, queries, outputs) = (self.context.cpu, spec.queries(), spec.heads * spec.value_dim);
        let Buffers { q, a, .. } = buffers;
        let (q, a) = (&**q, Disjoint::new(a));
        self.regions.each_row(self.rows.len(), 4 * outputs, |row, _| {
            // SAFETY: a row belongs to one piece.
            let a = unsafe { a.slice(row * outputs..(row + 1) * outputs) };
            let q = &q[row * queries..(row + 1) * queries];
            for (a, q) in a.chunks_exact_mut(spec.value_dim).zip(q.chunks_exact(spec.query_stride())) {
                mul_sigmoid(cpu, a, &q[spec.key_dim..]);
            }
        })
    }
}

/// A piece of attention.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// Neighbouring rows of one sequence.
    rows: Range<usize>,
    /// The kv head.
    head: usize,
    /// The part of the keys, counted from position 0; `None` for all.
    part: Option<usize>,
    /// Where the records of the rows are.
    records: Records,
}

/// Where the records of some rows are in [`Buffers::parts`]: `(rows, heads, parts)`.
#[derive(Clone, Copy, Default, Debug)]
struct Records {
    /// Index of the first record.
    start: usize,
    /// First part of the first row.
    first: usize,
    /// Parts of all rows together.
    parts: usize,
}

impl Records {
    /// Index of the record of the first part of a row and query head, of `heads`.
    fn at(self, row: usize, head: usize, heads: usize) -> usize {
        self.start + (row * heads + head) * self.parts
    }
}

/// Cuts the attention of `rows`, each of which sees `sees`, into pieces. `room` is the number of values for the records of parts.
fn plan(
    rows: &[Row],
    sees: impl Fn(&Row) -> (usize, usize),
    spec: &Attention,
    threads: usize,
    room: usize,
    pieces: &mut Vec<Piece>,
) {
    pieces.clear();
    let mut groups = 0;
    let mut start = 0;
    let take = |start: usize| {
        let item = rows[start].item;
        let same = rows[start..].iter().take(ATTENTION_ROWS).take_while(|row| row.item == item).count();
        start..start + same
    };
    while start < rows.len() {
        start = take(start).end;
        groups += 1;
    }
    let split = threads > 1 && groups * spec.kv_heads < PIECES_PER_THREAD * threads;
    let room = room / part_len(spec.value_dim);
    let (mut start, mut used) = (0, 0);
    while start < rows.len() {
        let range = take(start);
        start = range.end;
        let first = sees(&rows[range.start]).0 / SPLIT;
        let parts = (sees(&rows[range.end - 1]).1 - 1) / SPLIT + 1 - first;
        let records = Records { start: used, first, parts };
        let needed = range.len() * spec.heads * parts;
        let apart = split && parts > 1 && needed <= room - used;
        if apart {
            used += needed;
        }
        for head in 0..spec.kv_heads {
            let piece = Piece { rows: range.clone(), head, part: None, records };
            match apart {
                true => pieces.extend((first..first + parts).map(|part| Piece { part: Some(part), ..piece.clone() })),
                false => pieces.push(piece),
            }
        }
    }
    // Late positions see the most keys, so their pieces are handed out first.
    pieces.sort_unstable_by_key(|piece| {
        (std::cmp::Reverse(rows[piece.rows.start].position), piece.rows.start, piece.head, piece.part)
    });
}
