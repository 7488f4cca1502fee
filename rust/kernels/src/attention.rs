//! Attention over a paged f16 cache: scores, softmax and values in one walk over key tiles.
//!
//! # The cache
//!
//! A page holds [`TILE`] positions of one kv head. Position `t` is column `t % TILE` of a key page `(key_dim, TILE)`
//! — transposed, so that the lanes of a vector are keys — and row `t % TILE` of a value page `(TILE, value_dim)`. Both hold
//! f16 bits; [`store_key`] and [`store_value`] write them. A page may hold anything where nothing was stored yet, or where
//! it was dropped.
//!
//! # The walk
//!
//! Tiles are walked in key order. Queries go through a tile in blocks of `QUERIES`, which share the loads and the
//! conversions of a tile; when there are many blocks, the tile is converted to f32 once for all of them.

mod blocks;
mod store;
#[cfg(test)]
mod tests;

pub use store::{store_key, store_value};

use crate::isa::floats::Floats;
use crate::isa::{Isa, Kernel, dispatch_floats};
use crate::{Cpu, LANES, math};
use blocks::{Line, Weights, scores_of};

/// Keys per tile, and per page of the cache.
pub const TILE: usize = 64;

/// Vectors of keys in a tile.
const VECTORS: usize = TILE / LANES;

/// Queries of a block.
const QUERIES: usize = 4;

/// Queries whose state and sums should stay in the second-level cache while they walk over the tiles.
const GROUP: usize = 128;

/// From this many blocks on, a tile is converted to f32 once instead of in every block; only where the registers allow wide
/// steps, since narrow ones walk the larger tile once per vector (measured: 10 % faster on AVX-512, slower on AVX2).
const CONVERT_FROM: usize = 3;

/// The keys and values of one kv head, in pages of [`TILE`] positions. Page `p` holds the positions
/// `(first_page + p) * TILE ..`. A key page is `(key_dim, TILE)` (transposed: lanes are keys), a value page `(TILE, value_dim)`,
/// both f16 bits.
#[derive(Clone, Copy, Debug)]
pub struct KvHead<'a> {
    /// Index of the page `keys[0]`.
    pub first_page: usize,
    /// Key pages.
    pub keys: &'a [&'a [u16]],
    /// Value pages.
    pub values: &'a [&'a [u16]],
    /// Length of a key.
    pub key_dim: usize,
    /// Length of a value.
    pub value_dim: usize,
}

/// One query row and the positions it sees.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// Offset of the query vector in `q`.
    pub q: usize,
    /// Offset of its output in `out`.
    pub out: usize,
    /// First key position it sees.
    pub start: usize,
    /// One past the last key position it sees.
    pub end: usize,
}

/// Scale and soft cap of the scores.
#[derive(Clone, Copy, Debug)]
pub struct Scores {
    /// Factor of the dot product.
    pub scale: f32,
    /// `cap * tanh(score / cap)` when present.
    pub softcap: Option<f32>,
}

/// Working memory of one thread for [`attention`]. Grows to the largest call and is then reused.
#[derive(Default, Debug)]
pub struct AttentionScratch {
    /// Query vectors, interleaved within each block: `(blocks, key_dim, queries of the block)`.
    queries: Vec<f32>,
    /// Largest score and sum of every query so far.
    states: Vec<State>,
    /// Weighted values so far `(queries, value_dim padded to whole lines)`.
    out: Vec<Line>,
    /// A key tile in f32 `(key_dim, TILE)`.
    keys: Vec<Line>,
    /// A value tile in f32 `(TILE, value_dim padded to whole lines)`.
    values: Vec<Line>,
}

/// What the softmax of a query knows of the keys so far.
#[derive(Clone, Copy, Debug)]
struct State {
    max: f32,
    sum: f32,
}

/// Attention of several queries (tokens and the heads of a group) on one kv head. `out[query.out..][..value_dim]` is written.
/// Neighbours in `queries` should see nearly the same keys: the heads of a token, then the next token.
///
/// A query's bits depend only on its vector, its range and the cache: not on the other queries of the call. Nothing
/// outside its range influences it, not even an infinity or a NaN.
///
/// Per tile, for the keys of `start..end` in it: `s = chain fma over key_dim from 0`, times scale, soft cap;
/// `m' = max(m, max s)`, `c = exp(m - m')`, `p = exp(s - m')`, `l = fma(l, c, tree sum of p over 16 lanes)`,
/// `o = o * c`, then `o = fma(p, v, o)` in key order; at the end `o / l`. The output is NaN when a score is NaN, +∞, or
/// when all are -∞.
///
/// # Panics
/// When a range is empty or outside the pages, an offset outside the buffers, or a page has the wrong length.
pub fn attention(
    cpu: Cpu,
    kv: KvHead<'_>,
    queries: &[Query],
    scores: Scores,
    q: &[f32],
    out: &mut [f32],
    scratch: &mut AttentionScratch,
) {
    assert!(kv.key_dim > 0 && kv.value_dim > 0, "keys and values have at least one dimension");
    assert_eq!(kv.keys.len(), kv.values.len(), "there are as many key pages as value pages");
    assert!(kv.keys.iter().all(|page| page.len() == kv.key_dim * TILE), "a key page is (key_dim, TILE)");
    assert!(kv.values.iter().all(|page| page.len() == TILE * kv.value_dim), "a value page is (TILE, value_dim)");
    let covered = kv.first_page * TILE..(kv.first_page + kv.keys.len()) * TILE;
    for query in queries {
        assert!(query.start < query.end, "a query sees at least one key");
        assert!(covered.start <= query.start && query.end <= covered.end, "a query sees keys outside the pages");
    }
    dispatch_floats(cpu, Attention { kv, queries, scores, q, out, scratch });
}

struct Attention<'a> {
    kv: KvHead<'a>,
    queries: &'a [Query],
    scores: Scores,
    q: &'a [f32],
    out: &'a mut [f32],
    scratch: &'a mut AttentionScratch,
}

impl Kernel for Attention<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        for group in self.queries.chunks(GROUP) {
            self.group(isa, group);
        }
    }
}

impl Attention<'_> {
    /// At most [`GROUP`] queries.
    #[inline(always)]
    fn group<I: Isa>(&mut self, isa: I, queries: &[Query]) {
        let Attention { kv, scores, q, ref mut out, ref mut scratch, .. } = *self;
        let lines = kv.value_dim.div_ceil(LANES);
        // Plain code takes one query after the other.
        let size = if I::VECTORS == 1 { 1 } else { QUERIES };
        scratch.prepare(kv, queries, q, lines, size);
        let AttentionScratch { queries: packed, states, out: sums, keys: key_tile, values: value_tile } = scratch;

        let first = queries.iter().map(|query| query.start / TILE).min().unwrap_or(0);
        let end = queries.iter().map(|query| query.end.div_ceil(TILE)).max().unwrap_or(0);
        let mut weights = Weights::default();
        for page in first..end {
            let tile = Tile { isa, scores, start: page * TILE };
            let (keys, values) = (kv.keys[page - kv.first_page], kv.values[page - kv.first_page]);
            let seen = queries.chunks(size).filter(|block| block.iter().any(|query| tile.sees(query))).count();
            // Values that do not fill whole lines are padded in f32, so that the blocks know only whole lines.
            let convert = I::VECTORS >= 32 && seen >= CONVERT_FROM;
            let convert_values = convert || !kv.value_dim.is_multiple_of(LANES);
            if convert {
                for (line, keys) in key_tile.iter_mut().zip(keys.as_chunks::<LANES>().0) {
                    isa.store(isa.load_f16(keys), &mut line.0);
                }
            }
            if convert_values {
                for (row, values) in value_tile.chunks_exact_mut(lines).zip(values.chunks_exact(kv.value_dim)) {
                    for (line, values) in row.iter_mut().zip(values.chunks(LANES)) {
                        isa.store(isa.load_f16_first(values), &mut line.0);
                    }
                }
            }
            let blocks = queries.chunks(size).zip(states.chunks_mut(size));
            let memory = packed.chunks(size * kv.key_dim).zip(sums.chunks_mut(size * lines));
            for ((block, states), (packed, sums)) in blocks.zip(memory) {
                if !block.iter().any(|query| tile.sees(query)) {
                    continue;
                }
                if convert {
                    scores_of(isa, key_tile, packed, block.len(), &mut weights.p);
                } else {
                    scores_of(isa, keys.as_chunks::<LANES>().0, packed, block.len(), &mut weights.p);
                }
                for (i, (query, state)) in block.iter().zip(states).enumerate() {
                    weights.ranges[i] = tile.range(query);
                    weights.factors[i] = tile.softmax(&mut weights.p[i], weights.ranges[i], state);
                }
                if convert_values {
                    weights.apply(isa, value_tile, block.len(), sums);
                } else {
                    weights.apply(isa, values.as_chunks::<LANES>().0, block.len(), sums);
                }
            }
        }

        for ((query, state), sums) in queries.iter().zip(states).zip(sums.chunks_exact(lines)) {
            let sum = isa.splat(state.sum);
            let out = out[query.out..][..kv.value_dim].chunks_mut(LANES);
            for (out, line) in out.zip(sums) {
                isa.store_first(isa.div(isa.load(&line.0), sum), out);
            }
        }
    }
}

impl AttentionScratch {
    /// Packs the query vectors in blocks of `size` and resets the rest.
    fn prepare(&mut self, kv: KvHead<'_>, queries: &[Query], q: &[f32], lines: usize, size: usize) {
        self.states.clear();
        self.states.resize(queries.len(), State { max: f32::NEG_INFINITY, sum: 0.0 });
        self.out.clear();
        self.out.resize(queries.len() * lines, Line([0.0; LANES]));
        self.keys.resize(kv.key_dim * VECTORS, Line([0.0; LANES]));
        self.values.resize(TILE * lines, Line([0.0; LANES]));
        self.queries.resize(queries.len() * kv.key_dim, 0.0);
        for (block, packed) in queries.chunks(size).zip(self.queries.chunks_mut(size * kv.key_dim)) {
            for (i, query) in block.iter().enumerate() {
                let vector = &q[query.q..][..kv.key_dim];
                for (slot, &x) in packed[i..].iter_mut().step_by(block.len()).zip(vector) {
                    *slot = x;
                }
            }
        }
    }
}

/// One tile of keys, starting at position `start`.
#[derive(Clone, Copy)]
struct Tile<I> {
    isa: I,
    scores: Scores,
    start: usize,
}

impl<I: Floats> Tile<I> {
    /// Whether `query` sees any key of the tile.
    #[inline(always)]
    fn sees(self, query: &Query) -> bool {
        query.start < self.start + TILE && self.start < query.end
    }

    /// The keys of the tile that `query` sees, counted from the tile's start; empty (0..0) when it sees none.
    #[inline(always)]
    fn range(self, query: &Query) -> (usize, usize) {
        if self.sees(query) {
            (query.start.max(self.start) - self.start, (query.end - self.start).min(TILE))
        } else {
            (0, 0)
        }
    }

    /// Turns the dot products `s` of a query into weights, zero outside the range, and gives the factor of its earlier
    /// weights (1 when it sees nothing here).
    #[inline(always)]
    fn softmax(self, s: &mut [Line; VECTORS], (start, end): (usize, usize), state: &mut State) -> f32 {
        if start == end {
            return 1.0;
        }
        let isa = self.isa;
        let (scale, nothing) = (isa.splat(self.scores.scale), isa.splat(f32::NEG_INFINITY));
        let mut x = [nothing; VECTORS];
        for (x, s) in x.iter_mut().zip(s.iter()) {
            *x = isa.mul(isa.load(&s.0), scale);
        }
        if let Some(cap) = self.scores.softcap {
            let cap = isa.splat(cap);
            for x in &mut x {
                *x = math::softcap(isa, *x, cap);
            }
        }
        if (start, end) != (0, TILE) {
            // -∞ is below every score, and its weight is zero.
            for (v, x) in x.iter_mut().enumerate() {
                let (start, end) = (start.saturating_sub(v * LANES), end.saturating_sub(v * LANES));
                *x = isa.select_lanes(start.min(LANES), end.min(LANES), *x, nothing);
            }
        }
        let mut largest = nothing;
        for x in x {
            largest = isa.max(largest, x);
        }
        let tile_max = isa.largest(largest);
        let max = if state.max > tile_max { state.max } else { tile_max };
        let factor = isa.largest(math::exp(isa, isa.splat(state.max - max)));
        let shift = isa.splat(max);
        let mut sum = isa.splat(0.0);
        for (x, s) in x.into_iter().zip(s) {
            let p = math::exp(isa, isa.sub(x, shift));
            sum = isa.add(sum, p);
            isa.store(p, &mut s.0);
        }
        state.max = max;
        state.sum = state.sum.mul_add(factor, isa.sum(sum));
        factor
    }
}
