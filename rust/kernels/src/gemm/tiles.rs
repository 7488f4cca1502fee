//! Tiles of some tokens times the rows of a panel, in registers.

use core::ops::Range;

use crate::activation::Activation;
use crate::gemv::{Group, offset, offset_pairs, splat_pair};
use crate::isa::SimdKernel;
use crate::isa::integers::Integers;
use crate::isa::unpacking::Unpacking;
use crate::matmul::{Job, Line};

use super::panel::{
    BLOCK_MINIMA, BLOCK_SCALES, BLOCK_VECTORS, SUPER_MINIMA, SUPER_PAIRS, SUPER_SCALES, SUPER_SUB_SCALES,
    SUPER_VECTORS, floats, words,
};
use super::{PANEL, groups};

/// A tile: the outputs of `T` tokens for the rows of a panel.
type Tile<I, const T: usize> = [[<I as Unpacking>::Floats; PANEL]; T];

/// Calls `tile` for all tokens, [`TILE`](Integers::TILE) or fewer at a time, through the given function.
macro_rules! each_tile {
    ($isa:ident, $self:ident, $tile:ident) => {{
        let groups = groups::<I>($self.job, $self.row);
        let mut token = 0;
        while token < $self.job.tokens {
            let left = $self.job.tokens - token;
            // SAFETY: the tile's tokens are the job's; the job is checked, and its caller promises that no other thread
            // writes the rows.
            unsafe {
                if I::TILE == 6 && left >= 6 {
                    write($isa, $self.job, &groups, token, $self.$tile::<I, 6>($isa, token));
                    token += 6;
                } else if I::TILE == 4 && left >= 4 {
                    write($isa, $self.job, &groups, token, $self.$tile::<I, 4>($isa, token));
                    token += 4;
                } else if left >= 3 {
                    write($isa, $self.job, &groups, token, $self.$tile::<I, 3>($isa, token));
                    token += 3;
                } else {
                    write($isa, $self.job, &groups, token, $self.$tile::<I, 1>($isa, token));
                    token += 1;
                }
            }
        }
    }};
}

/// # Safety
/// The job is checked, the groups and tokens are its own, and no other thread writes the rows.
#[inline(always)]
unsafe fn write<I: Integers, const T: usize>(
    isa: I,
    job: &Job<'_>,
    groups: &[Group; PANEL],
    token: usize,
    tile: Tile<I, T>,
) {
    for (t, row) in tile.into_iter().enumerate() {
        for (group, v) in groups.iter().zip(row) {
            // SAFETY: by the contract.
            unsafe { group.store(isa, job.out, token + t, v) };
        }
    }
}

/// The sums of the activations times the pairs of a block.
///
/// # Safety
/// `panel` is a block of a panel, and 16 sums are readable at each of `sums`.
#[inline(always)]
unsafe fn pairs<I: Integers, const T: usize>(isa: I, panel: *const u8, sums: [*const u8; T]) -> [[I::Words; PANEL]; T] {
    let mut total = [[isa.splat(0); PANEL]; T];
    for p in 0..8 {
        // SAFETY: by the contract.
        let w = unsafe { words(isa, panel, SUPER_PAIRS + p * PANEL) };
        for t in 0..T {
            // SAFETY: by the contract.
            let sum = unsafe { isa.splat_at(sums[t].add(4 * p)) };
            for v in 0..PANEL {
                total[t][v] = isa.pair_dot(total[t][v], w[v], sum);
            }
        }
    }
    total
}

/// Adds to `isum` the products of the words `words` of a block, at most 8, with the activations at `x`.
///
/// # Safety
/// `panel` is a block of a panel, and four activations per word are readable.
#[inline(always)]
unsafe fn dots<I: Integers, const T: usize, const PEAK: u32>(
    isa: I,
    panel: *const u8,
    x: [*const u8; T],
    words: Range<usize>,
    isum: &mut [[I::Words; PANEL]; T],
) {
    let steps = isa.steps(PEAK).min(words.len());
    let mut first = words.start;
    while first < words.end {
        let mut dot = [[isa.begin_scaled(); PANEL]; T];
        for (dot, isum) in dot.iter_mut().zip(&*isum) {
            for (dot, isum) in dot.iter_mut().zip(isum) {
                *dot = isa.begin(*isum);
            }
        }
        // SAFETY: by the contract.
        unsafe { isa.tile(&mut dot, panel, &x, first..first + steps, PEAK) };
        for t in 0..T {
            for v in 0..PANEL {
                isum[t][v] = isa.end(dot[t][v], isum[t][v], PEAK);
            }
        }
        first += steps;
    }
}

/// Multiplies a panel of [`Blocks`](crate::unpack::Blocks) with bytes up to `PEAK`.
pub(super) struct BlockTiles<'j, 'a, const PEAK: u32, const MIN: bool, const SPLIT: bool> {
    pub(super) job: &'j Job<'a>,
    pub(super) row: usize,
    pub(super) panel: &'j [Line],
    pub(super) offset: i32,
}

impl<const PEAK: u32, const MIN: bool, const SPLIT: bool> SimdKernel for BlockTiles<'_, '_, PEAK, MIN, SPLIT> {
    type Output = ();

    #[inline(always)]
    fn run<I: Integers>(self, isa: I) {
        each_tile!(isa, self, tile);
    }
}

impl<const PEAK: u32, const MIN: bool, const SPLIT: bool> BlockTiles<'_, '_, PEAK, MIN, SPLIT> {
    /// # Safety
    /// The tokens are the job's, the panel is unpacked.
    #[inline(always)]
    unsafe fn tile<I: Integers, const T: usize>(&self, isa: I, token: usize) -> Tile<I, T> {
        let k = self.job.weights.k;
        let vector = 4 * I::ROWS;
        let minus = offset_pairs(isa, offset::<I>(PEAK, self.offset), SPLIT);
        let (zero, ones) = (isa.splat(0), splat_pair(isa, 1, 1));
        let (scales, sums) = (Activation::Block32.scales_at(k), Activation::Block32.sums_at(k));
        let mut x: [*const u8; T] = core::array::from_fn(|t| self.job.record(token + t).as_ptr());
        let records = x;
        let mut acc: Tile<I, T> = [[isa.splat_float(0.0); PANEL]; T];
        let mut panel = self.panel.as_ptr().cast::<u8>();
        for b in 0..k / 32 {
            for (half, minus) in minus.into_iter().enumerate().take(if SPLIT { 2 } else { 1 }) {
                // SAFETY: the panel and the records have k / 32 blocks.
                unsafe {
                    let mut isum = [[zero; PANEL]; T];
                    if !MIN {
                        for (isum, x) in isum.iter_mut().zip(records) {
                            *isum = [isa.pair_dot(zero, minus, isa.splat_at(x.add(sums + 4 * b))); PANEL];
                        }
                    }
                    let words = if SPLIT { 4 * half..4 * half + 4 } else { 0..8 };
                    dots::<I, T, PEAK>(isa, panel, x, words, &mut isum);
                    for t in 0..T {
                        let d_a = isa.splat_float_at(records[t].add(scales + 4 * b));
                        for v in 0..PANEL {
                            let d = isa.mul(floats(isa, panel, BLOCK_SCALES + half * PANEL + v), d_a);
                            acc[t][v] = isa.fma(isa.to_floats(isum[t][v]), d, acc[t][v]);
                        }
                        if MIN {
                            let pair = isa.splat_at(records[t].add(sums + 4 * b));
                            let sum = isa.to_floats(isa.pair_product(ones, pair));
                            for (v, acc) in acc[t].iter_mut().enumerate() {
                                *acc = isa.fma(sum, isa.mul(floats(isa, panel, BLOCK_MINIMA + v), d_a), *acc);
                            }
                        }
                    }
                }
            }
            panel = panel.wrapping_add(BLOCK_VECTORS * vector);
            for x in &mut x {
                *x = x.wrapping_add(32);
            }
        }
        acc
    }
}

/// Multiplies a panel of [`SuperBlocks`](crate::unpack::SuperBlocks) with bytes up to `PEAK`.
pub(super) struct SuperTiles<'j, 'a, const PEAK: u32, const MIN: bool> {
    pub(super) job: &'j Job<'a>,
    pub(super) row: usize,
    pub(super) panel: &'j [Line],
    pub(super) offset: i32,
}

impl<const PEAK: u32, const MIN: bool> SimdKernel for SuperTiles<'_, '_, PEAK, MIN> {
    type Output = ();

    #[inline(always)]
    fn run<I: Integers>(self, isa: I) {
        each_tile!(isa, self, tile);
    }
}

impl<const PEAK: u32, const MIN: bool> SuperTiles<'_, '_, PEAK, MIN> {
    /// # Safety
    /// The tokens are the job's, the panel is unpacked.
    #[inline(always)]
    unsafe fn tile<I: Integers, const T: usize>(&self, isa: I, token: usize) -> Tile<I, T> {
        let k = self.job.weights.k;
        let vector = 4 * I::ROWS;
        let (scales, sums) = (Activation::Super256.scales_at(k), Activation::Super256.sums_at(k));
        let x: [*const u8; T] = core::array::from_fn(|t| self.job.record(token + t).as_ptr());
        let steps = isa.scaled_steps(PEAK);
        let minus = offset::<I>(PEAK, self.offset) != 0;
        let mut acc: Tile<I, T> = [[isa.splat_float(0.0); PANEL]; T];
        let mut panel = self.panel.as_ptr().cast::<u8>();
        for b in 0..k / 256 {
            // SAFETY: the panel and the records have k / 256 blocks.
            unsafe {
                let (mut x_block, mut x_sums) = (x, x);
                for t in 0..T {
                    x_block[t] = x[t].add(256 * b);
                    x_sums[t] = x[t].add(sums + 32 * b);
                }
                let mut isum =
                    if !MIN && minus { pairs::<I, T>(isa, panel, x_sums) } else { [[isa.splat(0); PANEL]; T] };
                for j in 0..16 {
                    let scale = words(isa, panel, SUPER_SUB_SCALES + j * PANEL);
                    let mut s = 0;
                    while s < 4 {
                        let mut dot = [[isa.begin_scaled(); PANEL]; T];
                        let words = 4 * j + s..4 * j + s + steps;
                        isa.tile(&mut dot, panel, &x_block, words, PEAK);
                        for t in 0..T {
                            for v in 0..PANEL {
                                isum[t][v] = isa.end_scaled(dot[t][v], isum[t][v], scale[v], PEAK);
                            }
                        }
                        s += steps;
                    }
                }
                for t in 0..T {
                    let d_a = isa.splat_float_at(x[t].add(scales + 4 * b));
                    for v in 0..PANEL {
                        let d = isa.mul(floats(isa, panel, SUPER_SCALES + v), d_a);
                        acc[t][v] = isa.fma(isa.to_floats(isum[t][v]), d, acc[t][v]);
                    }
                }
                if MIN {
                    let msum = pairs::<I, T>(isa, panel, x_sums);
                    for t in 0..T {
                        let d_a = isa.splat_float_at(x[t].add(scales + 4 * b));
                        for v in 0..PANEL {
                            let dmin = isa.mul(floats(isa, panel, SUPER_MINIMA + v), d_a);
                            acc[t][v] = isa.fnma(isa.to_floats(msum[t][v]), dmin, acc[t][v]);
                        }
                    }
                }
                panel = panel.add(SUPER_VECTORS * vector);
            }
        }
        acc
    }
}
