//! The walk over the tiles, and how the parts of a long text come together.

use super::blocks::{CACHE_LINE, Chunk, Line, Stored, Weights};
use super::layout::BLOCK;
use super::pages::{At, Pages, Reader, Scores as Products};
use super::softmax::Tile;
use super::{AttentionScratch, KvHead, QUERIES, Query, SPLIT, Scores, State, TILE, VECTORS, part_len};
use crate::isa::{Isa, Kernel};
use crate::{Cpu, LANES, math};

/// Queries whose state and sums should stay in the second-level cache while they walk over the tiles.
const GROUP: usize = 128;

/// From this many blocks on, a tile is converted to f32 once instead of in every block; only where the registers allow wide
/// steps, since narrow ones walk the larger tile once per vector (measured: 10 % faster on AVX-512, slower on AVX2).
const CONVERT_FROM: usize = 3;

/// Tiles of a part.
const PART_TILES: usize = SPLIT / TILE;

/// What is written at the end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    /// The weighted mean of the values.
    Output,
    /// The record of a part: largest score and sum in the first line, then the weighted values.
    Part,
}

/// The arguments of [`attention`](super::attention).
pub(super) struct Walk<'a> {
    pub(super) cpu: Cpu,
    pub(super) kv: KvHead<'a>,
    pub(super) queries: &'a [Query],
    pub(super) scores: Scores,
    pub(super) q: &'a [f32],
    pub(super) out: &'a mut [f32],
    pub(super) scratch: &'a mut AttentionScratch,
    pub(super) finish: Finish,
}

impl<'a> Walk<'a> {
    /// The walk over pages of a format.
    pub(super) fn over<R: Reader>(self, reader: R) -> WalkOver<'a, R> {
        WalkOver { walk: self, _reader: reader }
    }
}

/// A [`Walk`] over pages of the format `R`.
pub(super) struct WalkOver<'a, R> {
    walk: Walk<'a>,
    _reader: R,
}

impl<R: Reader> Kernel for WalkOver<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let mut walk = self.walk;
        for group in walk.queries.chunks(GROUP) {
            walk.group::<I, R>(isa, group);
        }
    }
}

impl Walk<'_> {
    /// At most [`GROUP`] queries.
    #[inline(always)]
    fn group<I: Isa, R: Reader>(&mut self, isa: I, queries: &[Query]) {
        let Walk { cpu, kv, scores, q, ref mut out, ref mut scratch, finish, .. } = *self;
        let layout = kv.layout;
        let lines = layout.value_dim.div_ceil(LANES);
        // Plain code takes one query after the other.
        let size = if I::VECTORS == 1 { 1 } else { QUERIES };
        let first = queries.iter().map(|query| query.start / TILE).min().unwrap_or(0);
        let end = queries.iter().map(|query| query.end.div_ceil(TILE)).max().unwrap_or(0);
        let parts = first / PART_TILES != (end.max(1) - 1) / PART_TILES;
        scratch.prepare(kv, queries.len(), lines, parts);
        R::pack(layout, cpu, queries, q, size, &mut scratch.packed);
        let AttentionScratch { packed, states, sums, total_states, total_sums, keys, values, scaled } = &mut **scratch;

        let blocks = if R::SCALED { layout.value_dim.div_ceil(BLOCK) } else { 1 };
        let mut p: Products = Default::default();
        for number in first..end {
            if number > first && number.is_multiple_of(PART_TILES) {
                // `parts` is true here: two tiles of different parts were met.
                let totals = total_states.iter_mut().zip(total_sums.chunks_exact_mut(lines));
                for ((state, sums), (total, totals)) in states.iter_mut().zip(sums.chunks_exact_mut(lines)).zip(totals)
                {
                    fold(isa, total, totals, *state, sums);
                    *state = State::NONE;
                    sums.fill(Line([0.0; LANES]));
                }
            }
            let tile = Tile { isa, scores, start: number * TILE };
            let page = kv.pages[number - kv.first_page];
            let next = kv.pages.get(number + 1 - kv.first_page).unwrap_or(&page).as_ptr();
            let pages = Pages { here: page, next };
            let seen = queries.chunks(size).filter(|block| block.iter().any(|query| tile.sees(query))).count();
            let convert = I::VECTORS >= 32 && seen >= CONVERT_FROM;
            // Values that do not fill whole lines are padded in f32, so that the blocks know only whole lines.
            let whole_lines = R::SCALED || layout.value_dim.is_multiple_of(LANES);
            let convert_values = convert || !whole_lines;
            if convert && R::CONVERTS_KEYS {
                R::convert_keys(isa, layout, page, keys);
            }
            if convert {
                // The blocks read the converted tile.
                for line in (0..page.len()).step_by(CACHE_LINE) {
                    isa.prefetch(next.wrapping_add(line));
                }
            }
            if convert_values {
                if whole_lines {
                    for (line, value) in values.iter_mut().zip(R::values(layout, page)) {
                        isa.store(value.load(isa), &mut line.0);
                    }
                } else {
                    let rows = page[layout.values_at()..].chunks_exact(layout.value_stride());
                    for (row, page) in values.chunks_exact_mut(lines).zip(rows) {
                        for (line, page) in row.iter_mut().zip(page.chunks(R::Value::UNITS)) {
                            isa.store(R::Value::filled(page).load(isa), &mut line.0);
                        }
                    }
                }
            }
            let memory = states.chunks_mut(size).zip(sums.chunks_mut(size * lines));
            for (index, (block, (states, sums))) in queries.chunks(size).zip(memory).enumerate() {
                if !block.iter().any(|query| tile.sees(query)) {
                    continue;
                }
                let at = At { block: index, size, count: block.len() };
                if convert && R::CONVERTS_KEYS {
                    super::blocks::scores_of(isa, keys.as_slice(), packed.floats(layout, at), at.count, next, &mut p);
                } else {
                    R::scores(isa, layout, pages, packed, at, &mut p);
                }
                let (mut factors, mut ranges) = ([0.0; QUERIES], [(0, 0); QUERIES]);
                for (i, (query, state)) in block.iter().zip(states).enumerate() {
                    ranges[i] = tile.range(query);
                    factors[i] = tile.softmax(&mut p[i], ranges[i], state);
                    if R::SCALED {
                        R::scale(isa, layout, pages, &p[i], &mut scaled[i * blocks..][..blocks]);
                    }
                }
                let next = next.wrapping_add(layout.values_at());
                let weights = Weights { p: if R::SCALED { scaled } else { &p }, blocks, factors, ranges, next };
                if convert_values {
                    match R::SCALED {
                        true => weights.apply::<I, Line, true>(isa, values, block.len(), sums),
                        false => weights.apply::<I, Line, false>(isa, values, block.len(), sums),
                    }
                } else {
                    let values = R::values(layout, page);
                    match R::SCALED {
                        true => weights.apply::<I, R::Value, true>(isa, values, block.len(), sums),
                        false => weights.apply::<I, R::Value, false>(isa, values, block.len(), sums),
                    }
                }
            }
        }

        for (i, query) in queries.iter().enumerate() {
            let (mut state, mut sums) = (states[i], &mut sums[i * lines..][..lines]);
            if parts {
                let totals = &mut total_sums[i * lines..][..lines];
                fold(isa, &mut total_states[i], totals, state, sums);
                (state, sums) = (total_states[i], totals);
            }
            match finish {
                Finish::Output => {
                    if let Some(sink) = query.sink {
                        sink_in(isa, &mut state, sums, sink);
                    }
                    divide(isa, state, sums, &mut out[query.out..][..layout.value_dim]);
                }
                Finish::Part => {
                    let record = &mut out[query.out..][..part_len(layout.value_dim)];
                    let (head, rest) = record.split_at_mut(LANES);
                    head[0] = state.max;
                    head[1] = state.sum;
                    for (out, line) in rest.as_chunks_mut::<LANES>().0.iter_mut().zip(&*sums) {
                        isa.store(isa.load(&line.0), out);
                    }
                }
            }
        }
    }
}

/// Adds what a part gave to what the parts before it gave.
#[inline(always)]
fn fold<I: Isa, C: Chunk>(isa: I, total: &mut State, totals: &mut [Line], part: State, sums: &[C]) {
    if part.sum == 0.0 {
        return;
    }
    if total.sum == 0.0 {
        *total = part;
        for (total, sum) in totals.iter_mut().zip(sums) {
            isa.store(sum.load(isa), &mut total.0);
        }
        return;
    }
    let max = if total.max > part.max { total.max } else { part.max };
    let (a, b) = (isa.splat(total.max - max), isa.splat(part.max - max));
    let (a, b) = (math::exp(isa, a), math::exp(isa, b));
    for (total, sum) in totals.iter_mut().zip(sums) {
        isa.store(isa.fma(sum.load(isa), b, isa.mul(isa.load(&total.0), a)), &mut total.0);
    }
    *total = State { max, sum: part.sum.mul_add(isa.largest(b), total.sum * isa.largest(a)) };
}

/// Adds a key with the score `sink` whose value is zero.
#[inline(always)]
fn sink_in<I: Isa>(isa: I, state: &mut State, sums: &mut [Line], sink: f32) {
    let max = if state.max > sink { state.max } else { sink };
    let (a, b) = (isa.splat(state.max - max), isa.splat(sink - max));
    let (a, b) = (math::exp(isa, a), math::exp(isa, b));
    for sum in sums {
        isa.store(isa.mul(isa.load(&sum.0), a), &mut sum.0);
    }
    *state = State { max, sum: state.sum.mul_add(isa.largest(a), isa.largest(b)) };
}

/// The weighted mean.
#[inline(always)]
fn divide<I: Isa>(isa: I, state: State, sums: &[Line], out: &mut [f32]) {
    let sum = isa.splat(state.sum);
    for (out, line) in out.chunks_mut(LANES).zip(sums) {
        isa.store_first(isa.div(isa.load(&line.0), sum), out);
    }
}

/// The arguments of [`combine`](super::combine).
pub(super) struct Combine<'a> {
    pub(super) parts: &'a [f32],
    pub(super) sink: Option<f32>,
    pub(super) out: &'a mut [f32],
    pub(super) scratch: &'a mut AttentionScratch,
}

impl Kernel for Combine<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let record = part_len(self.out.len());
        let (mut state, sums) = (State::NONE, &mut self.scratch.total_sums);
        sums.resize(record / LANES - 1, Line([0.0; LANES]));
        for part in self.parts.chunks_exact(record) {
            let (head, rest) = part.split_at(LANES);
            let part = State { max: head[0], sum: head[1] };
            fold(isa, &mut state, sums, part, rest.as_chunks::<LANES>().0);
        }
        if let Some(sink) = self.sink {
            sink_in(isa, &mut state, sums, sink);
        }
        divide(isa, state, sums, self.out);
    }
}

impl AttentionScratch {
    /// Makes room and forgets the call before.
    fn prepare(&mut self, kv: KvHead<'_>, queries: usize, lines: usize, parts: bool) {
        const ZERO: Line = Line([0.0; LANES]);
        self.states.clear();
        self.states.resize(queries, State::NONE);
        self.sums.clear();
        self.sums.resize(queries * lines, ZERO);
        if parts {
            self.total_states.clear();
            self.total_states.resize(queries, State::NONE);
            self.total_sums.resize(queries * lines, ZERO);
        }
        self.keys.resize(kv.layout.key_dim * VECTORS, ZERO);
        self.values.resize(TILE * lines, ZERO);
        self.scaled.resize(QUERIES * kv.layout.value_dim.div_ceil(BLOCK), Default::default());
    }
}
