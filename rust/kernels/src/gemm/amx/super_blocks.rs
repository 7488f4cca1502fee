//! Tiles of [`SuperBlocks`]: sums over 256 weights that already hold the scales of their sub-blocks.

use core::arch::x86_64::*;
use core::marker::PhantomData;

use super::super::panel::room;
use super::super::{PANEL, groups};
use super::columns::Sums;
use super::unit::{Tokens, Unit};
use super::{ROWS, TOKENS, Tile, VECTOR};
use crate::ahead::{Ahead, CHUNK};
use crate::gemv::{offset, prefetch};
use crate::isa::avx512::{Avx512, Only};
use crate::isa::integers::Integers;
use crate::isa::unpacking::Unpacking;
use crate::matmul::{Job, Line};
use crate::unpack::{Sink, SuperBlocks, SuperScales};

/// Bytes per weight that the products of weights and sub-scales need.
pub(super) const fn passes<F: SuperBlocks>() -> usize {
    let offset = offset::<Avx512>(F::PEAK, F::OFFSET) as u32;
    // Signed bytes are those of i8.
    let largest = if F::PEAK - offset > offset { F::PEAK - offset } else { offset };
    assert!(largest * F::SCALE_PEAK < 1 << 14, "two bytes with seven bits in the lower one");
    if largest * F::SCALE_PEAK < 128 { 1 } else { 2 }
}

/// What the columns have to hold of the sums.
pub(super) const fn sums<F: SuperBlocks>() -> Sums {
    match (F::MINIMA, F::WIDE) {
        (false, _) => Sums::No,
        (true, false) => Sums::Pairs,
        (true, true) => Sums::WidePairs,
    }
}

/// A super-block of a panel, for one vector of rows, in vectors: for each pass 64 words of weights, then the pairs of minima, and
/// the scales `d` and `dmin`.
struct Places;

impl Places {
    const PASS: usize = 64;
    const MINIMA: usize = 8;
    const fn pairs(passes: usize) -> usize {
        passes * Places::PASS
    }
    const fn scales(passes: usize) -> usize {
        Places::pairs(passes) + Places::MINIMA
    }
    const fn vectors(passes: usize) -> usize {
        Places::scales(passes) + 2
    }
}

/// Unpacks the panel that begins at `row`: super-block after super-block, in each one vector of rows after the other.
pub(super) struct UnpackSuperBlocks<'j, 'a, F> {
    pub(super) job: &'j Job<'a>,
    pub(super) row: usize,
    pub(super) panel: &'j mut Vec<Line>,
    pub(super) format: PhantomData<F>,
}

impl<F: SuperBlocks> Only for UnpackSuperBlocks<'_, '_, F> {
    #[inline(always)]
    fn run(self, isa: Avx512) {
        let passes = const { passes::<F>() };
        let blocks = self.job.weights.k / 256;
        let panel = room::<Avx512>(self.panel, blocks, PANEL * Places::vectors(passes));
        let offset = isa.splat(offset::<Avx512>(F::PEAK, F::OFFSET) * 0x0101_0101);
        let mut ahead = Ahead::new();
        for (v, group) in groups::<Avx512>(self.job, self.row).iter().enumerate() {
            let rows = group.rows(self.job);
            // SAFETY: the group's rows are inside the matrix and have `blocks` blocks.
            unsafe { ahead.read::<Avx512, F>(rows, 0, blocks) };
            for b in 0..blocks {
                if b.is_multiple_of(CHUNK) {
                    // SAFETY: as above.
                    unsafe { ahead.read::<Avx512, F>(rows, b + CHUNK, blocks) };
                }
                let block = rows.at(b * F::BYTES);
                prefetch(isa, rows, b * F::BYTES, F::BYTES, PANEL * ROWS * rows.stride);
                // SAFETY: as above; the panel has room for as many blocks.
                unsafe {
                    let place = panel.add((b * PANEL + v) * Places::vectors(passes) * VECTOR);
                    let head = ahead.head::<Avx512, F>(block, b);
                    let SuperScales { scales, minima, d, dmin } = F::scales(isa, block, head);
                    let at = place.add(Places::scales(passes) * VECTOR);
                    isa.store_floats(at.cast(), d);
                    if F::MINIMA {
                        isa.store_floats(at.add(VECTOR).cast(), dmin);
                        for p in 0..sums::<F>().words() {
                            let pair = if F::WIDE {
                                // Bytes 0 and 2.
                                _mm512_and_si512(minima[p], _mm512_set1_epi32(0x00ff_00ff))
                            } else {
                                isa.scale_pair(minima[p / 2], p % 2, false, 1)
                            };
                            isa.store(place.add((Places::pairs(passes) + p) * VECTOR), pair);
                        }
                    }
                    F::unpack(isa, block, head, &mut Fold::<F> { place, scales, offset, format: PhantomData });
                }
            }
        }
    }
}

/// Stores the products of weights and their sub-scales.
struct Fold<F> {
    place: *mut u8,
    scales: [__m512i; 4],
    /// What the bytes are above the weights.
    offset: __m512i,
    format: PhantomData<F>,
}

impl<F: SuperBlocks> Sink<Avx512> for Fold<F> {
    #[inline(always)]
    fn take(&mut self, isa: Avx512, j: usize, bytes: [__m512i; 4]) {
        // SAFETY: a value of `Avx512` exists only where the CPU has the level; whoever made this has room for a super-block.
        unsafe {
            // The scale of the sub-block as i16 in both halves of each lane.
            let up = _mm512_sllv_epi32(self.scales[j / 4], _mm512_set1_epi32(24 - 8 * (j % 4) as i32));
            let scale = if F::MINIMA { _mm512_srli_epi32::<24>(up) } else { _mm512_srai_epi32::<24>(up) };
            let scale = _mm512_mask_blend_epi16(0xaaaa_aaaa, scale, _mm512_slli_epi32::<16>(scale));
            for (i, bytes) in bytes.into_iter().enumerate() {
                let weights = isa.sub_bytes(bytes, self.offset);
                let even = _mm512_mullo_epi16(_mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(weights)), scale);
                let odd = _mm512_mullo_epi16(_mm512_srai_epi16::<8>(weights), scale);
                let place = self.place.add((4 * j + i) * VECTOR);
                if const { passes::<F>() } == 1 {
                    isa.store(place, interleave(even, odd));
                } else {
                    let seven = _mm512_set1_epi16(0x7f);
                    isa.store(place, interleave(_mm512_and_si512(even, seven), _mm512_and_si512(odd, seven)));
                    let high = interleave(_mm512_srai_epi16::<7>(even), _mm512_srai_epi16::<7>(odd));
                    isa.store(place.add(Places::PASS * VECTOR), high);
                }
            }
        }
    }
}

/// The lower bytes of the i16 of `even` and `odd`, in turn.
///
/// # Safety
/// The CPU has the level.
#[inline(always)]
unsafe fn interleave(even: __m512i, odd: __m512i) -> __m512i {
    // SAFETY: by the contract.
    unsafe { _mm512_mask_blend_epi8(0xaaaa_aaaa_aaaa_aaaa, even, _mm512_slli_epi16::<8>(odd)) }
}

/// Pairs of tiles whose outputs stay in the cache while the super-blocks of a panel go by.
const PAIRS: usize = 4;

/// Multiplies a panel with as many words of pairs of minima.
pub(super) struct SuperTiles<'j, 'a, const PASSES: usize, const MINIMA: usize> {
    pub(super) job: &'j Job<'a>,
    pub(super) row: usize,
    pub(super) panel: &'j [Line],
    pub(super) columns: &'j [Line],
}

/// Two tiles of tokens.
#[derive(Clone, Copy)]
struct Pair {
    /// The first token of each: they overlap where there are no more tokens.
    tokens: [usize; 2],
    x: [Tokens; 2],
    columns: [*const u8; 2],
}

impl<const PASSES: usize, const MINIMA: usize> Only for SuperTiles<'_, '_, PASSES, MINIMA> {
    #[inline(always)]
    fn run(self, isa: Avx512) {
        let (tokens, blocks) = (self.job.tokens, self.job.weights.k / 256);
        let vectors = Places::vectors(PASSES) * VECTOR;
        let panel = self.panel.as_ptr().cast::<u8>();
        // SAFETY: whoever runs this has the level.
        let unit = unsafe { Unit::<64>::new() };
        let mut sums = [[[Tile([0; TOKENS * ROWS]); 2]; 2]; 2];
        let mut outputs = [[[Tile([0.0; TOKENS * ROWS]); 2]; PANEL]; PAIRS];
        let step = 2 * TOKENS * PAIRS;
        for first in (0..tokens).step_by(step) {
            let count = (tokens - first).div_ceil(2 * TOKENS).min(PAIRS);
            let pairs: [Pair; PAIRS] = core::array::from_fn(|i| self.pair(first + 2 * TOKENS * i));
            for output in outputs[..count].as_flattened_mut().as_flattened_mut() {
                output.0.fill(0.0);
            }
            // One pair and vector of rows behind the other; while one is scaled, the unit computes the next.
            let steps = blocks * count * PANEL;
            let place = |step: usize| (step / (PANEL * count), step / PANEL % count, step % PANEL);
            let product = |step: usize, sums: &mut [[Tile<i32>; 2]; 2]| {
                let (b, pair, v) = place(step);
                let [x, y] = pairs[pair].x;
                // SAFETY: the panel and the records have the block.
                unsafe {
                    unit.super_block::<PASSES>(x.at(256 * b), y.at(256 * b), panel.add((b * PANEL + v) * vectors), sums)
                };
            };
            if steps > 0 {
                product(0, &mut sums[0]);
            }
            for step in 0..steps {
                if step + 1 < steps {
                    product(step + 1, &mut sums[(step + 1) % 2]);
                }
                let (b, pair, v) = place(step);
                for half in 0..2 {
                    // SAFETY: the panel and the columns have the block.
                    unsafe {
                        let panel = panel.add((b * PANEL + v) * vectors + Places::pairs(PASSES) * VECTOR);
                        let columns = pairs[pair].columns[half].add(b * (1 + MINIMA) * VECTOR);
                        let output = &mut outputs[pair][v][half];
                        scale::<PASSES, MINIMA>(isa, panel, columns, &sums[step % 2][half], output);
                    }
                }
            }
            let groups = groups::<Avx512>(self.job, self.row);
            for (pair, outputs) in pairs.iter().zip(&outputs[..count]) {
                for (group, outputs) in groups.iter().zip(outputs) {
                    for (token, output) in pair.tokens.into_iter().zip(outputs) {
                        for t in 0..TOKENS {
                            // SAFETY: the job is checked, and its caller promises that no other thread writes the rows.
                            unsafe { group.store(isa, self.job.out, token + t, isa.load_floats(output.token(t))) };
                        }
                    }
                }
            }
        }
    }
}

impl<const PASSES: usize, const MINIMA: usize> SuperTiles<'_, '_, PASSES, MINIMA> {
    /// The two tiles from `token` on.
    fn pair(&self, token: usize) -> Pair {
        let (job, blocks) = (self.job, self.job.weights.k / 256);
        let tokens = [token, token + TOKENS].map(|token| token.min(job.tokens - TOKENS));
        let last = job.tokens.div_ceil(TOKENS) - 1;
        Pair {
            tokens,
            x: tokens.map(|token| Tokens { x: job.record(token).as_ptr(), stride: job.record }),
            columns: [0, 1].map(|i| {
                let tile = (token / TOKENS + i).min(last);
                self.columns[tile * blocks * (1 + MINIMA)..].as_ptr().cast()
            }),
        }
    }
}

/// Adds the sums of a super-block, scaled, to the outputs.
///
/// # Safety
/// `panel` is what the panel has for a vector of rows behind the weights, and `columns` what the columns have of the super-block.
#[inline(always)]
unsafe fn scale<const PASSES: usize, const MINIMA: usize>(
    isa: Avx512,
    panel: *const u8,
    columns: *const u8,
    sums: &[Tile<i32>; 2],
    output: &mut Tile<f32>,
) {
    // SAFETY: by the contract.
    unsafe {
        let d = isa.load_floats(panel.add(Places::MINIMA * VECTOR).cast());
        let dmin = isa.load_floats(panel.add((Places::MINIMA + 1) * VECTOR).cast());
        let mut pairs = [isa.splat(0); MINIMA];
        for (p, pair) in pairs.iter_mut().enumerate() {
            *pair = isa.load(panel.add(p * VECTOR));
        }
        for t in 0..TOKENS {
            let mut isum = isa.load(sums[0].token(t).cast());
            if PASSES == 2 {
                let high = isa.load(sums[1].token(t).cast());
                isum = _mm512_add_epi32(isum, _mm512_slli_epi32::<7>(high));
            }
            let d_a = isa.splat_float_at(columns.add(4 * t));
            let mut acc = isa.fma(isa.to_floats(isum), isa.mul(d, d_a), isa.load_floats(output.token(t)));
            if MINIMA > 0 {
                let mut msum = isa.splat(0);
                for (p, pair) in pairs.iter().enumerate() {
                    msum = isa.pair_dot(msum, *pair, isa.splat_at(columns.add((1 + p) * VECTOR + 4 * t)));
                }
                acc = isa.fnma(isa.to_floats(msum), isa.mul(dmin, d_a), acc);
            }
            isa.store_floats(output.token_mut(t), acc);
        }
    }
}
