//! Attention over a paged cache: scores, softmax and values in one walk over key tiles.
//!
//! # The cache
//!
//! A page holds [`TILE`] positions of one kv head, position `t` in slot `t % TILE`, as f32, as f16 or as bytes with scales; [`HeadLayout`]
//! says how, and [`HeadLayout::store`] writes it. A page may hold anything where nothing was stored yet, or where it was dropped.
//!
//! # The numbers
//!
//! A query vector `q`, for the keys of its range `start..end`, tile by tile in key order:
//!
//! * scores, f32 and f16: `s = chain fma over key_dim from 0`;
//! * scores, q8_0: `q` is quantized to int8 in blocks of 32 like an activation; for each block in order
//!   `s = fma(f32(isum), d_key * d_query, s)` from 0, with an exact `isum`;
//! * `s` times scale, soft cap;
//! * `m' = max(m, max s)`, `c = exp(m - m')`, `p = exp(s - m')`, `l = fma(l, c, tree sum of p over 16 lanes)`;
//! * `o = o * c`, then for the keys in order `o = fma(p, v, o)` (f32, f16) or `o = fma(p * d_value, f32(v), o)` (q8_0).
//!
//! `(m, l, o)` starts afresh at every multiple of [`SPLIT`] positions. What such a part gives is combined with what the parts before it
//! gave: `m' = max(M, m)`, `a = exp(M - m')`, `b = exp(m - m')`, `L = fma(l, b, L * a)`, `O = fma(o, b, O * a)`; the first part is taken as it is.
//! A query with a sink sees one key more, after all others, whose score is `sink` and whose value is zero: `m' = max(M, sink)`,
//! `a = exp(M - m')`, `L = fma(L, a, exp(sink - m'))`, `O = O * a`. At the end `O / L`. So the parts of a long text can be computed by different threads without a change of bits ([`attention_part`],
//! [`combine`]), and up to [`SPLIT`] positions there is nothing to combine.
//!
//! The output is NaN when a score is NaN, +∞, or when all of a part are -∞.
//!
//! # The walk
//!
//! Queries go through a tile in blocks of `QUERIES`, which share the loads and the conversions of a tile; when there are many
//! blocks, the tile is converted to f32 once for all of them. While a tile is computed, the next one is asked for.

mod blocks;
mod layout;
mod pages;
mod softmax;
mod walk;

pub use layout::{HeadLayout, KvFormat, StoreScratch};

use crate::isa::{dispatch, dispatch_floats};
use crate::{Cpu, LANES};
use blocks::Line;
use walk::{Combine, Finish, Walk};

/// Keys per tile, and per page of the cache.
pub const TILE: usize = 64;

/// Positions of a part: what lies between two multiples of it can be computed on its own ([`attention_part`]).
pub const SPLIT: usize = 512;

/// Vectors of keys in a tile.
const VECTORS: usize = TILE / LANES;

/// Queries of a block.
const QUERIES: usize = 4;

/// The keys and values of one kv head, in pages of [`TILE`] positions. Page `p` holds the positions
/// `(first_page + p) * TILE ..`.
#[derive(Clone, Copy, Debug)]
pub struct KvHead<'a> {
    /// What a page is.
    pub layout: HeadLayout,
    /// Index of the page `pages[0]`.
    pub first_page: usize,
    /// The pages.
    pub pages: &'a [&'a [u16]],
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
    /// Score of a key without a value that it sees, too ("attention sink"): it takes its share of the weights, and gives nothing.
    /// Not subject to scale and soft cap.
    pub sink: Option<f32>,
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
    packed: pages::Packed,
    /// Largest score and sum of every query in the part so far.
    states: Vec<State>,
    /// Weighted values of the part so far `(queries, value_dim padded to whole lines)`.
    sums: Vec<Line>,
    /// The same of the parts before.
    total_states: Vec<State>,
    total_sums: Vec<Line>,
    /// A key tile in f32 `(key_dim, TILE)`.
    keys: Vec<Line>,
    /// A value tile in f32 `(TILE, value_dim padded to whole lines)`.
    values: Vec<Line>,
    /// Weights of a block of queries times the scales of the values `(QUERIES, value_dim / 32)`.
    scaled: Vec<[Line; VECTORS]>,
}

/// What the softmax of a query knows of the keys so far.
#[derive(Clone, Copy, Debug)]
struct State {
    max: f32,
    /// Zero only where no key was seen.
    sum: f32,
}

impl State {
    /// No key was seen.
    const NONE: State = State { max: f32::NEG_INFINITY, sum: 0.0 };
}

/// Attention of several queries (tokens and the heads of a group) on one kv head. `out[query.out..][..value_dim]` is written.
/// Neighbours in `queries` should see nearly the same keys: the heads of a token, then the next token.
///
/// A query's bits depend only on its vector, its range and the cache: not on the other queries of the call. Nothing
/// outside its range influences it, not even an infinity or a NaN. The numbers are in the documentation of the module.
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
    check(kv, queries);
    run(cpu, Walk { cpu, kv, queries, scores, q, out, scratch, finish: Finish::Output });
}

/// Values of the record of a part: what one query takes from the keys between two multiples of [`SPLIT`].
pub const fn part_len(value_dim: usize) -> usize {
    LANES + value_dim.next_multiple_of(LANES)
}

/// As [`attention`], but each query's range lies between two multiples of [`SPLIT`], and a record of [`part_len`] values for
/// [`combine`] is written at `out[query.out..]`. The sink is left to [`combine`].
///
/// # Panics
/// As [`attention`], and when a range crosses a multiple of [`SPLIT`].
pub fn attention_part(
    cpu: Cpu,
    kv: KvHead<'_>,
    queries: &[Query],
    scores: Scores,
    q: &[f32],
    out: &mut [f32],
    scratch: &mut AttentionScratch,
) {
    check(kv, queries);
    let within = |query: &Query| query.start / SPLIT == (query.end - 1) / SPLIT;
    assert!(queries.iter().all(within), "the keys of a part lie between two multiples of SPLIT");
    run(cpu, Walk { cpu, kv, queries, scores, q, out, scratch, finish: Finish::Part });
}

/// The output of a query with this sink from the records of its parts in order, which follow each other in `parts`.
///
/// # Panics
/// When `parts` is not one or more records for values of the length of `out`.
pub fn combine(cpu: Cpu, parts: &[f32], sink: Option<f32>, out: &mut [f32], scratch: &mut AttentionScratch) {
    let record = part_len(out.len());
    assert!(!parts.is_empty() && parts.len().is_multiple_of(record), "parts are whole records");
    dispatch_floats(cpu, Combine { parts, sink, out, scratch });
}

fn check(kv: KvHead<'_>, queries: &[Query]) {
    let HeadLayout { key_dim, value_dim, .. } = kv.layout;
    assert!(key_dim > 0 && value_dim > 0, "keys and values have at least one dimension");
    let len = kv.layout.page_len();
    assert!(kv.pages.iter().all(|page| page.len() == len), "a page has the length of the layout");
    let covered = kv.first_page * TILE..(kv.first_page + kv.pages.len()) * TILE;
    for query in queries {
        assert!(query.start < query.end, "a query sees at least one key");
        assert!(covered.start <= query.start && query.end <= covered.end, "a query sees keys outside the pages");
    }
}

fn run(cpu: Cpu, walk: Walk<'_>) {
    match walk.kv.layout.format {
        KvFormat::F32 => dispatch_floats(cpu, walk.over(pages::F32::READER)),
        KvFormat::F16 => dispatch_floats(cpu, walk.over(pages::F16::READER)),
        KvFormat::Q8_0 => dispatch(cpu, walk.over(pages::Q8)),
    }
}
