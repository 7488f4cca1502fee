//! How the walk reads the pages of each format: queries packed for it, scores of a tile, values.

use std::marker::PhantomData;

use super::blocks::{Line, Stored};
use super::layout::{BLOCK, HeadLayout, StoreScratch, WORD};
use super::{QUERIES, Query, TILE, VECTORS};
use crate::isa::Isa;
use crate::{Cpu, LANES};

/// The dot products of a block of queries with the keys of a tile, then their weights.
pub(super) type Scores = [[Line; VECTORS]; QUERIES];

/// A format of the cache in the walk.
pub(super) trait Reader: Copy {
    /// Sixteen values in a page.
    type Value: Stored;

    /// Values have scales, which are multiplied into the weights.
    const SCALED: bool;

    /// Keys may be converted to f32 once for many blocks of queries.
    const CONVERTS_KEYS: bool;

    /// Packs the query vectors in blocks of `size`.
    fn pack(layout: HeadLayout, cpu: Cpu, queries: &[Query], q: &[f32], size: usize, packed: &mut Packed);

    /// The keys of a page in f32, `(key_dim, VECTORS)`.
    fn convert_keys<I: Isa>(isa: I, layout: HeadLayout, page: &[u16], out: &mut [Line]);

    /// The dot products of a block of queries with the keys of `pages.here`.
    fn scores<I: Isa>(isa: I, layout: HeadLayout, pages: Pages<'_>, packed: &Packed, at: At, out: &mut Scores);

    /// The values of a page `(TILE, lines)`; without scales they are no whole lines where `value_dim` is not.
    fn values(layout: HeadLayout, page: &[u16]) -> &[Self::Value];

    /// `weights * scale` of the values of a tile, per block of 32 dimensions.
    fn scale<I: Isa>(isa: I, layout: HeadLayout, pages: Pages<'_>, p: &[Line; VECTORS], out: &mut [[Line; VECTORS]]);
}

/// The page of a tile, and where that of the next one begins.
#[derive(Clone, Copy)]
pub(super) struct Pages<'a> {
    pub(super) here: &'a [u16],
    pub(super) next: *const u16,
}

/// A block of queries.
#[derive(Clone, Copy)]
pub(super) struct At {
    /// Its number.
    pub(super) block: usize,
    /// Queries of a whole block.
    pub(super) size: usize,
    /// Queries of this one.
    pub(super) count: usize,
}

/// Query vectors, interleaved within each block.
#[derive(Default, Debug)]
pub(super) struct Packed {
    /// `(blocks, key_dim, queries of the block)`.
    floats: Vec<f32>,
    /// `(blocks, key_dim / 4, queries of the block)`.
    words: Vec<i32>,
    /// Scales `(blocks, key_dim / 32, queries of the block)`.
    scales: Vec<f32>,
    /// Sums of the bytes `(blocks, key_dim / 32, queries of the block)`.
    sums: Vec<i32>,
    record: StoreScratch,
}

impl Packed {
    /// The f32 vectors of a block.
    pub(super) fn floats(&self, layout: HeadLayout, at: At) -> &[f32] {
        &self.floats[at.block * at.size * layout.key_dim..][..at.count * layout.key_dim]
    }
}

/// Keys and values without scales, sixteen of which are a `C`.
#[derive(Clone, Copy)]
pub(super) struct Unscaled<C>(PhantomData<C>);

impl<C> Unscaled<C> {
    pub(super) const READER: Self = Unscaled(PhantomData);
}

/// f32 keys and values.
pub(super) type F32 = Unscaled<[u16; 2 * LANES]>;
/// f16 keys and values.
pub(super) type F16 = Unscaled<[u16; LANES]>;

impl<C: Stored> Reader for Unscaled<C> {
    type Value = C;
    const SCALED: bool = false;
    const CONVERTS_KEYS: bool = true;

    fn pack(layout: HeadLayout, _: Cpu, queries: &[Query], q: &[f32], size: usize, packed: &mut Packed) {
        packed.floats.resize(queries.len() * layout.key_dim, 0.0);
        for (block, packed) in queries.chunks(size).zip(packed.floats.chunks_mut(size * layout.key_dim)) {
            for (i, query) in block.iter().enumerate() {
                let vector = &q[query.q..][..layout.key_dim];
                for (slot, &x) in packed[i..].iter_mut().step_by(block.len()).zip(vector) {
                    *slot = x;
                }
            }
        }
    }

    #[inline(always)]
    fn convert_keys<I: Isa>(isa: I, layout: HeadLayout, page: &[u16], out: &mut [Line]) {
        for (line, keys) in out.iter_mut().zip(C::of(&page[..layout.values_at()])) {
            isa.store(keys.load(isa), &mut line.0);
        }
    }

    #[inline(always)]
    fn scores<I: Isa>(isa: I, layout: HeadLayout, pages: Pages<'_>, packed: &Packed, at: At, out: &mut Scores) {
        let keys = C::of(&pages.here[..layout.values_at()]);
        super::blocks::scores_of(isa, keys, packed.floats(layout, at), at.count, pages.next, out);
    }

    #[inline(always)]
    fn values(layout: HeadLayout, page: &[u16]) -> &[C] {
        C::of(&page[layout.values_at()..][..TILE * layout.value_stride()])
    }

    #[inline(always)]
    fn scale<I: Isa>(_: I, _: HeadLayout, _: Pages<'_>, _: &[Line; VECTORS], _: &mut [[Line; VECTORS]]) {}
}

/// Keys and values in bytes with scales.
#[derive(Clone, Copy)]
pub(super) struct Q8;

/// Words of a block.
const WORDS: usize = BLOCK / WORD;

impl Reader for Q8 {
    type Value = [u16; LANES / 2];
    const SCALED: bool = true;
    const CONVERTS_KEYS: bool = false;

    fn pack(layout: HeadLayout, cpu: Cpu, queries: &[Query], q: &[f32], size: usize, packed: &mut Packed) {
        let (words, blocks) = (layout.key_dim.div_ceil(WORD), layout.key_dim.div_ceil(BLOCK));
        let Packed { words: all_words, scales: all_scales, sums: all_sums, record, .. } = packed;
        all_words.resize(queries.len() * words, 0);
        all_scales.resize(queries.len() * blocks, 0.0);
        all_sums.resize(queries.len() * blocks, 0);
        for (b, block) in queries.chunks(size).enumerate() {
            let count = block.len();
            for (i, query) in block.iter().enumerate() {
                let (bytes, scales) = record.quantize(cpu, &q[query.q..][..layout.key_dim]);
                let at = &mut all_words[b * size * words..][..count * words];
                for (slot, bytes) in at[i..].iter_mut().step_by(count).zip(bytes.as_chunks::<WORD>().0) {
                    *slot = i32::from_le_bytes(*bytes);
                }
                let at = &mut all_scales[b * size * blocks..][..count * blocks];
                for (slot, scale) in at[i..].iter_mut().step_by(count).zip(scales) {
                    *slot = scale;
                }
                let at = &mut all_sums[b * size * blocks..][..count * blocks];
                for (slot, sum) in at[i..].iter_mut().step_by(count).zip(record.sums(layout.key_dim)) {
                    *slot = sum;
                }
            }
        }
    }

    #[inline(always)]
    fn convert_keys<I: Isa>(_: I, _: HeadLayout, _: &[u16], _: &mut [Line]) {}

    #[inline(always)]
    fn scores<I: Isa>(isa: I, layout: HeadLayout, pages: Pages<'_>, packed: &Packed, at: At, out: &mut Scores) {
        let page = pages.here;
        let (words, blocks) = (layout.key_dim.div_ceil(WORD), layout.key_dim.div_ceil(BLOCK));
        let first = at.block * at.size;
        let tile = Bytes {
            keys: page[..layout.key_scales_at()].as_chunks().0,
            key_scales: page[layout.key_scales_at()..][..blocks * TILE].as_chunks().0,
            words: &packed.words[first * words..][..at.count * words],
            scales: &packed.scales[first * blocks..][..at.count * blocks],
            sums: &packed.sums[first * blocks..][..at.count * blocks],
            next: pages.next,
            next_scales: pages.next.wrapping_add(layout.key_scales_at()),
        };
        if I::VECTORS == 1 {
            tile.by::<I, 1, 1>(isa, out);
        } else if I::VECTORS >= 32 {
            match at.count {
                1 => tile.by::<I, 1, 4>(isa, out),
                2 => tile.by::<I, 2, 4>(isa, out),
                3 => tile.by::<I, 3, 2>(isa, out),
                _ => tile.by::<I, 4, 2>(isa, out),
            }
        } else {
            match at.count {
                1 => tile.by::<I, 1, 2>(isa, out),
                2 => tile.by::<I, 2, 1>(isa, out),
                3 => tile.by::<I, 3, 1>(isa, out),
                _ => tile.by::<I, 4, 1>(isa, out),
            }
        }
    }

    #[inline(always)]
    fn values(layout: HeadLayout, page: &[u16]) -> &[[u16; LANES / 2]] {
        page[layout.values_at()..layout.value_scales_at()].as_chunks().0
    }

    #[inline(always)]
    fn scale<I: Isa>(isa: I, layout: HeadLayout, pages: Pages<'_>, p: &[Line; VECTORS], out: &mut [[Line; VECTORS]]) {
        let next = pages.next.wrapping_add(layout.value_scales_at());
        let scales = pages.here[layout.value_scales_at()..layout.page_len()].as_chunks::<LANES>().0;
        for (block, (out, scales)) in out.iter_mut().zip(scales.as_chunks::<VECTORS>().0).enumerate() {
            for v in 0..VECTORS {
                isa.prefetch(next.wrapping_add(block * TILE + v * LANES));
                isa.store(isa.mul(isa.load(&p[v].0), isa.load_f16(&scales[v])), &mut out[v].0);
            }
        }
    }
}

/// Keys of a quantized tile and a block of queries.
#[derive(Clone, Copy)]
struct Bytes<'a> {
    /// `(key_dim / 4, VECTORS)`.
    keys: &'a [[u16; 2 * LANES]],
    /// `(key_dim / 32, VECTORS)`.
    key_scales: &'a [[u16; LANES]],
    /// `(key_dim / 4, queries)`.
    words: &'a [i32],
    /// `(key_dim / 32, queries)`.
    scales: &'a [f32],
    /// `(key_dim / 32, queries)`.
    sums: &'a [i32],
    /// The keys of the next tile, and their scales.
    next: *const u16,
    next_scales: *const u16,
}

impl Bytes<'_> {
    /// Dot products for `Q` queries, `V` vectors of keys at a time: `s = fma(f32(isum), d_key * d_query, s)` over the blocks.
    #[inline(always)]
    fn by<I: Isa, const Q: usize, const V: usize>(self, isa: I, out: &mut Scores) {
        for first in (0..VECTORS).step_by(V) {
            self.some::<I, Q, V>(isa, first, out);
        }
    }

    /// The vectors `first..first + V`.
    #[inline(always)]
    fn some<I: Isa, const Q: usize, const V: usize>(self, isa: I, first: usize, out: &mut Scores) {
        let mut s = [[isa.splat(0.0); V]; Q];
        let keys = self.keys.as_chunks::<VECTORS>().0.chunks(WORDS);
        let words = self.words.as_chunks::<Q>().0.chunks(WORDS);
        let scales = self.scales.as_chunks::<Q>().0.iter().zip(self.sums.as_chunks::<Q>().0);
        let key_scales = self.key_scales.as_chunks::<VECTORS>().0;
        let blocks = keys.zip(words).zip(scales).zip(key_scales);
        for (block, (((keys, words), (scales, sums)), key_scales)) in blocks.enumerate() {
            let mut isums = [[isa.start(0); V]; Q];
            for i in 0..Q {
                isums[i] = [isa.start(sums[i]); V];
            }
            for (word, (keys, words)) in keys.iter().zip(words).enumerate() {
                let next = self.next.wrapping_add(((block * WORDS + word) * VECTORS + first) * 2 * LANES);
                let mut k = [isa.splat_word(0); V];
                for v in 0..V {
                    isa.prefetch(next.wrapping_add(v * 2 * LANES));
                    k[v] = isa.load_words(&keys[first + v]);
                }
                for i in 0..Q {
                    let x = isa.splat_word(words[i]);
                    for v in 0..V {
                        isums[i][v] = isa.dot(isums[i][v], k[v], x);
                    }
                }
            }
            for v in 0..V {
                isa.prefetch(self.next_scales.wrapping_add((block * VECTORS + first + v) * LANES));
                let d = isa.load_f16(&key_scales[first + v]);
                for i in 0..Q {
                    s[i][v] = isa.fma(isa.sums(isums[i][v]), isa.mul(d, isa.splat(scales[i])), s[i][v]);
                }
            }
        }
        for i in 0..Q {
            for v in 0..V {
                isa.store(s[i][v], &mut out[i][first + v].0);
            }
        }
    }
}
