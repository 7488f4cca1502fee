//! The two products of attention for a block of queries held in registers.

use super::{QUERIES, TILE, VECTORS};
use crate::LANES;
use crate::isa::bytes::Bytes;

/// Sixteen f32 values, a whole cache line.
#[derive(Clone, Copy, Default, Debug)]
#[repr(align(64))]
pub(super) struct Line(pub(super) [f32; LANES]);

/// Sixteen values of a tile: f32 or f16 bits or bytes of a page, or what they were converted to.
pub(super) trait Chunk {
    /// Its length in a page in units of two bytes; 0 when it is in no page.
    const UNITS: usize;

    /// The values in f32, exact.
    fn load<I: Bytes>(&self, isa: I) -> I::F;
}

/// Sixteen values of a page.
pub(super) trait Stored: Chunk + Copy {
    /// The whole chunks of a part of a page.
    fn of(page: &[u16]) -> &[Self];

    /// A chunk that begins with these units, at most [`UNITS`](Chunk::UNITS), and goes on with zeros.
    fn filled(units: &[u16]) -> Self;
}

impl<const N: usize> Stored for [u16; N]
where
    [u16; N]: Chunk,
{
    #[inline(always)]
    fn of(page: &[u16]) -> &[Self] {
        page.as_chunks().0
    }

    #[inline(always)]
    fn filled(units: &[u16]) -> Self {
        if let Ok(whole) = units.try_into() {
            return whole;
        }
        let mut chunk = [0; N];
        chunk[..units.len()].copy_from_slice(units);
        chunk
    }
}

impl Chunk for [u16; 2 * LANES] {
    const UNITS: usize = 2 * LANES;

    #[inline(always)]
    fn load<I: Bytes>(&self, isa: I) -> I::F {
        // SAFETY: both are 64 bytes, and all bits are numbers. By value, since units are aligned to two bytes only; it is one load.
        isa.load(&unsafe { std::mem::transmute::<[u16; 2 * LANES], [f32; LANES]>(*self) })
    }
}

impl Chunk for [u16; LANES] {
    const UNITS: usize = LANES;

    #[inline(always)]
    fn load<I: Bytes>(&self, isa: I) -> I::F {
        isa.load_f16(self)
    }
}

impl Chunk for [u16; LANES / 2] {
    const UNITS: usize = LANES / 2;

    #[inline(always)]
    fn load<I: Bytes>(&self, isa: I) -> I::F {
        isa.load_i8(self)
    }
}

impl Chunk for [f32; LANES] {
    const UNITS: usize = 0;

    #[inline(always)]
    fn load<I: Bytes>(&self, isa: I) -> I::F {
        isa.load(self)
    }
}

impl Chunk for Line {
    const UNITS: usize = 0;

    #[inline(always)]
    fn load<I: Bytes>(&self, isa: I) -> I::F {
        isa.load(&self.0)
    }
}

/// Units of a cache line.
pub(super) const CACHE_LINE: usize = 32;

/// Asks for `V` chunks from `p` on, which is where the walk will be a tile later: pages of the cache lie apart in memory, where the
/// processor does not look ahead by itself.
#[inline(always)]
fn ahead<I: Bytes, C: Chunk, const V: usize>(isa: I, p: *const u16) {
    if C::UNITS > 0 {
        for v in (0..V).step_by(CACHE_LINE / C::UNITS.max(1)) {
            isa.prefetch(p.wrapping_add(v * C::UNITS));
        }
    }
}

/// Dot products of a block of `count` queries `(key_dim, count)` with the keys of a tile `(key_dim, VECTORS)`: one fma chain
/// over `key_dim`. `next` are the keys of the next tile.
#[inline(always)]
pub(super) fn scores_of<I: Bytes, K: Chunk>(
    isa: I,
    keys: &[K],
    queries: &[f32],
    count: usize,
    next: *const u16,
    out: &mut [[Line; VECTORS]; QUERIES],
) {
    // Q * V sums and V keys stay in registers.
    if I::VECTORS == 1 {
        scores_by::<I, K, 1, 1>(isa, keys, queries, next, out);
    } else if I::VECTORS >= 32 {
        match count {
            1 => scores_by::<I, K, 1, 4>(isa, keys, queries, next, out),
            2 => scores_by::<I, K, 2, 4>(isa, keys, queries, next, out),
            3 => scores_by::<I, K, 3, 4>(isa, keys, queries, next, out),
            _ => scores_by::<I, K, 4, 4>(isa, keys, queries, next, out),
        }
    } else {
        match count {
            1 => scores_by::<I, K, 1, 4>(isa, keys, queries, next, out),
            2 => scores_by::<I, K, 2, 2>(isa, keys, queries, next, out),
            3 => scores_by::<I, K, 3, 1>(isa, keys, queries, next, out),
            _ => scores_by::<I, K, 4, 1>(isa, keys, queries, next, out),
        }
    }
}

/// [`scores_of`] for `Q` queries, `V` vectors at a time.
#[inline(always)]
fn scores_by<I: Bytes, K: Chunk, const Q: usize, const V: usize>(
    isa: I,
    keys: &[K],
    queries: &[f32],
    next: *const u16,
    out: &mut [[Line; VECTORS]; QUERIES],
) {
    for first in (0..VECTORS).step_by(V) {
        scores_in::<I, K, Q, V>(isa, keys, queries.as_chunks::<Q>().0, first, next, out);
    }
}

/// The vectors `first..first + V` of [`scores_of`].
#[inline(always)]
fn scores_in<I: Bytes, K: Chunk, const Q: usize, const V: usize>(
    isa: I,
    keys: &[K],
    queries: &[[f32; Q]],
    first: usize,
    next: *const u16,
    out: &mut [[Line; VECTORS]; QUERIES],
) {
    let mut sums = [[isa.splat(0.0); V]; Q];
    for (d, (keys, query)) in keys.as_chunks::<VECTORS>().0.iter().zip(queries).enumerate() {
        ahead::<I, K, V>(isa, next.wrapping_add((d * VECTORS + first) * K::UNITS));
        let mut k = [isa.splat(0.0); V];
        for (k, chunk) in k.iter_mut().zip(&keys[first..][..V]) {
            *k = chunk.load(isa);
        }
        for i in 0..Q {
            let x = isa.splat(query[i]);
            for v in 0..V {
                sums[i][v] = isa.fma(x, k[v], sums[i][v]);
            }
        }
    }
    for i in 0..Q {
        for v in 0..V {
            isa.store(sums[i][v], &mut out[i][first + v].0);
        }
    }
}

/// What a block of queries takes from the values of a tile.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a> {
    /// Weights of the keys, `blocks` per query: of 32 dimensions each, or one of all.
    pub(super) p: &'a [[Line; VECTORS]],
    /// See `p`.
    pub(super) blocks: usize,
    /// Factor of what each query had before.
    pub(super) factors: [f32; QUERIES],
    /// The values of the next tile.
    pub(super) next: *const u16,
    /// The keys that each query sees (start, end); (0, 0) when none.
    pub(super) ranges: [(usize, usize); QUERIES],
}

impl Weights<'_> {
    /// `sums = sums * factor`, then `fma(p, value, sums)` for the keys of each query's range in order. `values` is
    /// `(TILE, lines)`, `sums` is `(count, lines)`. With `SCALED` every two lines have weights of their own.
    #[inline(always)]
    pub(super) fn apply<I: Bytes, C: Chunk, const SCALED: bool>(
        mut self,
        isa: I,
        values: &[C],
        count: usize,
        sums: &mut [Line],
    ) {
        let lines = values.len() / TILE;
        // The keys that all see go through the registers together; each query's others before and after on their own.
        let ranges = &self.ranges[..count];
        let start = ranges.iter().map(|range| range.0).max().unwrap_or(0);
        let end = ranges.iter().map(|range| range.1).min().unwrap_or(0);
        let together = start < end;
        let mut done = [false; QUERIES];
        for turn in 0..2 {
            for i in 0..count {
                let range = match (together, turn) {
                    (true, 0) => (self.ranges[i].0, start),
                    (true, _) => (end, self.ranges[i].1),
                    (false, 0) => self.ranges[i],
                    (false, _) => (0, 0),
                };
                if range.0 < range.1 {
                    let factor = if done[i] { 1.0 } else { self.factors[i] };
                    done[i] = true;
                    let sums = &mut sums[i * lines..][..lines];
                    let one = Weights { p: &self.p[i * self.blocks..], ..self };
                    one.by::<I, C, SCALED, 1, 4>(isa, values, range, &[factor], sums);
                }
            }
            if turn == 0 && together {
                for (done, factor) in done.iter_mut().zip(&mut self.factors) {
                    if std::mem::replace(done, true) {
                        *factor = 1.0;
                    }
                }
                let (range, factors) = ((start, end), &self.factors);
                if I::VECTORS == 1 {
                    self.by::<I, C, SCALED, 1, 1>(isa, values, range, factors, sums);
                } else if I::VECTORS >= 32 {
                    match count {
                        1 => self.by::<I, C, SCALED, 1, 4>(isa, values, range, factors, sums),
                        2 => self.by::<I, C, SCALED, 2, 4>(isa, values, range, factors, sums),
                        3 => self.by::<I, C, SCALED, 3, 4>(isa, values, range, factors, sums),
                        _ => self.by::<I, C, SCALED, 4, 4>(isa, values, range, factors, sums),
                    }
                } else {
                    match count {
                        1 => self.by::<I, C, SCALED, 1, 4>(isa, values, range, factors, sums),
                        2 => self.by::<I, C, SCALED, 2, 2>(isa, values, range, factors, sums),
                        3 => self.by::<I, C, SCALED, 3, 1>(isa, values, range, factors, sums),
                        _ => self.by::<I, C, SCALED, 4, 1>(isa, values, range, factors, sums),
                    }
                }
            }
        }
    }

    /// [`apply`](Weights::apply) of one range for `Q` queries, `V` lines at a time and the last ones alone.
    #[inline(always)]
    fn by<I: Bytes, C: Chunk, const SCALED: bool, const Q: usize, const V: usize>(
        self,
        isa: I,
        values: &[C],
        range: (usize, usize),
        factors: &[f32],
        sums: &mut [Line],
    ) {
        let lines = values.len() / TILE;
        let mut whole = 0;
        if I::VECTORS > 1 && V > 1 {
            whole = lines / V * V;
            for first in (0..whole).step_by(V) {
                self.some::<I, C, SCALED, Q, V>(isa, values, range, factors, first, sums);
            }
        }
        for first in whole..lines {
            self.some::<I, C, SCALED, Q, 1>(isa, values, range, factors, first, sums);
        }
    }

    /// The lines `first..first + V` of [`by`](Weights::by).
    #[inline(always)]
    fn some<I: Bytes, C: Chunk, const SCALED: bool, const Q: usize, const V: usize>(
        self,
        isa: I,
        values: &[C],
        range: (usize, usize),
        factors: &[f32],
        first: usize,
        sums: &mut [Line],
    ) {
        let lines = values.len() / TILE;
        let mut acc = [[isa.splat(0.0); V]; Q];
        // The weights of each two lines.
        let mut p = [[&self.p[0]; V]; Q];
        for i in 0..Q {
            let factor = isa.splat(factors[i]);
            for v in 0..V {
                acc[i][v] = isa.mul(isa.load(&sums[i * lines + first + v].0), factor);
                p[i][v] = &self.p[i * self.blocks + if SCALED { (first + v) / 2 } else { 0 }];
            }
        }
        for (key, row) in values.chunks_exact(lines).enumerate().take(range.1).skip(range.0) {
            ahead::<I, C, V>(isa, self.next.wrapping_add((key * lines + first) * C::UNITS));
            let mut x = [isa.splat(0.0); V];
            for (x, chunk) in x.iter_mut().zip(&row[first..][..V]) {
                *x = chunk.load(isa);
            }
            for i in 0..Q {
                let mut weight = isa.splat(0.0);
                for v in 0..V {
                    if v == 0 || SCALED && v.is_multiple_of(2) {
                        // The remainder spares a bounds check: `key` is below TILE.
                        weight = isa.splat(p[i][v][key / LANES % VECTORS].0[key % LANES]);
                    }
                    acc[i][v] = isa.fma(weight, x[v], acc[i][v]);
                }
            }
        }
        for i in 0..Q {
            for v in 0..V {
                isa.store(acc[i][v], &mut sums[i * lines + first + v].0);
            }
        }
    }
}
