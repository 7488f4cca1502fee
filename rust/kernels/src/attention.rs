//! Attention over a paged f16 cache: scores, softmax and values in one walk over key tiles.

use crate::Cpu;

/// Keys per tile, and per page of the cache.
pub const TILE: usize = 64;

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

/// Working memory of one thread for [`attention`].
#[derive(Default, Debug)]
pub struct AttentionScratch {}

/// Attention of several queries (tokens and the heads of a group) on one kv head. `out[query.out..][..value_dim]` is written.
///
/// A query's bits depend only on its vector, its range and the cache: not on the other queries of the call.
///
/// Per tile, for the keys of `start..end` in it: `s = chain fma over key_dim from 0`, times scale, soft cap;
/// `m' = max(m, max s)`, `c = exp(m - m')`, `p = exp(s - m')`, `l = fma(l, c, tree sum of p over 16 lanes)`,
/// `o = o * c`, then `o = fma(p, v, o)` in key order; at the end `o / l`.
///
/// # Panics
/// When a range is empty or outside the pages, or an offset outside the buffers.
pub fn attention(
    cpu: Cpu,
    kv: KvHead<'_>,
    queries: &[Query],
    scores: Scores,
    q: &[f32],
    out: &mut [f32],
    scratch: &mut AttentionScratch,
) {
    let _ = (cpu, kv, queries, scores, q, out, scratch);
}
