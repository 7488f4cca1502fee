//! Many tokens: a panel of rows is unpacked once and multiplied with all of them.
//!
//! A panel is [`PANEL`] vectors of rows. Its blocks lie behind each other, each with everything a tile needs:
//!
//! ```text
//! Blocks       weights [8][PANEL] words    d [PANEL] floats    m, or d of the second half [PANEL] floats
//! SuperBlocks  weights [64][PANEL] words   sub-scales [16][PANEL] words   pairs [8][PANEL] words   d, dmin [PANEL] floats
//! ```
//!
//! Word `s` of a row holds weights `4 s..4 s + 4` of the block. The pairs multiply the sums of the activations: the minima, or the
//! sub-scales times `-OFFSET`. Panels of different formats differ in numbers only, so the tiles are compiled per level and
//! class of the largest byte, not per format.

use core::marker::PhantomData;
use core::ops::Range;

use crate::Cpu;
use crate::activation::Activation;
use crate::ahead::{Ahead, CHUNK};
use crate::gemv::{Group, offset, offset_pairs, prefetch, splat_pair};
use crate::isa::integers::Integers;
use crate::isa::{SimdKernel, dispatch_simd};
use crate::matmul::{Job, Line};
use crate::unpack::{Blocks, SIGNED, Sink, SuperBlocks, SuperScales};

/// Vectors of rows in a panel.
const PANEL: usize = 2;

/// Places in a block of a panel, in vectors.
const BLOCK_SCALES: usize = 8 * PANEL;
const BLOCK_MINIMA: usize = BLOCK_SCALES + PANEL;
const BLOCK_VECTORS: usize = BLOCK_MINIMA + PANEL;
const SUPER_SUB_SCALES: usize = 64 * PANEL;
const SUPER_PAIRS: usize = SUPER_SUB_SCALES + 16 * PANEL;
const SUPER_SCALES: usize = SUPER_PAIRS + 8 * PANEL;
const SUPER_MINIMA: usize = SUPER_SCALES + PANEL;
const SUPER_VECTORS: usize = SUPER_MINIMA + PANEL;

/// Multiplies the job's rows panel by panel. The matrix has at least [`lanes`] rows.
pub(crate) fn blocks<F: Blocks>(cpu: Cpu, job: &Job<'_>, panel: &mut Vec<Line>) {
    for row in job.rows.clone().step_by(PANEL * lanes(cpu)) {
        run(cpu, UnpackBlocks::<F> { job, row, panel, format: PhantomData });
        macro_rules! tiles {
            ($peak:expr, $min:expr, $split:expr) => {
                run(cpu, BlockTiles::<{ $peak }, { $min }, { $split }> { job, row, panel, offset: F::OFFSET })
            };
        }
        match (F::PEAK, F::MINIMUM) {
            _ if F::SPLIT => tiles!(32, false, true),
            (..=16, false) => tiles!(16, false, false),
            (..=16, true) => tiles!(16, true, false),
            (..=32, false) => tiles!(32, false, false),
            (..=32, true) => tiles!(32, true, false),
            (..=64, false) => tiles!(64, false, false),
            (..=64, true) => tiles!(64, true, false),
            (_, false) => tiles!(SIGNED, false, false),
            (_, true) => tiles!(SIGNED, true, false),
        }
    }
}

/// As [`blocks`].
pub(crate) fn super_blocks<F: SuperBlocks>(cpu: Cpu, job: &Job<'_>, panel: &mut Vec<Line>) {
    for row in job.rows.clone().step_by(PANEL * lanes(cpu)) {
        run(cpu, UnpackSuperBlocks::<F> { job, row, panel, format: PhantomData });
        macro_rules! tiles {
            ($peak:expr, $min:expr) => {
                run(cpu, SuperTiles::<{ $peak }, { $min }> { job, row, panel, offset: F::OFFSET })
            };
        }
        match (F::PEAK, F::MINIMA) {
            (..=16, false) => tiles!(16, false),
            (..=16, true) => tiles!(16, true),
            (..=32, false) => tiles!(32, false),
            (..=32, true) => tiles!(32, true),
            (..=64, true) => tiles!(64, true),
            (..=64, false) => tiles!(64, false),
            (..=126, false) => tiles!(126, false),
            (_, false) => tiles!(SIGNED, false),
            (_, true) => const { assert!(F::PEAK <= 64 || !F::MINIMA, "there are no tiles of minima with such peaks") },
        }
    }
}

fn run<K: SimdKernel<Output = ()>>(cpu: Cpu, kernel: K) {
    let run = dispatch_simd(cpu, kernel).is_ok();
    debug_assert!(run, "the scalar level has its own product");
}

/// Lanes of a vector on the level of `cpu`; 1 on the scalar level.
pub(crate) fn lanes(cpu: Cpu) -> usize {
    struct Lanes;
    impl SimdKernel for Lanes {
        type Output = usize;
        #[inline(always)]
        fn run<I: Integers>(self, _isa: I) -> usize {
            I::ROWS
        }
    }
    dispatch_simd(cpu, Lanes).unwrap_or(1)
}

/// The groups of the panel that begins at `row`.
#[inline(always)]
fn groups<I: Integers>(job: &Job<'_>, row: usize) -> [Group; PANEL] {
    core::array::from_fn(|v| Group::at(job, row + v * I::ROWS, I::ROWS))
}

/// Makes room for `blocks` blocks of `vectors` vectors.
#[inline(always)]
fn room<I: Integers>(panel: &mut Vec<Line>, blocks: usize, vectors: usize) -> *mut u8 {
    let lines = (blocks * vectors * 4 * I::ROWS).div_ceil(size_of::<Line>());
    if panel.len() < lines {
        panel.resize(lines, Line::default());
    }
    panel.as_mut_ptr().cast()
}

/// Stores the weights of a block for one vector of rows.
struct Store(*mut u8);

impl<I: Integers> Sink<I> for Store {
    #[inline(always)]
    fn take(&mut self, isa: I, j: usize, bytes: [I::Words; 4]) {
        for (i, bytes) in bytes.into_iter().enumerate() {
            // SAFETY: whoever made this has room for a block.
            unsafe { isa.store(self.0.add((4 * j + i) * PANEL * 4 * I::ROWS), bytes) };
        }
    }
}

/// Unpacks the panel that begins at `row`.
struct UnpackBlocks<'j, 'a, F> {
    job: &'j Job<'a>,
    row: usize,
    panel: &'j mut Vec<Line>,
    format: PhantomData<F>,
}

impl<F: Blocks> SimdKernel for UnpackBlocks<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run<I: Integers>(self, isa: I) {
        let vector = 4 * I::ROWS;
        let (blocks, parts) = (self.job.weights.k / F::BLOCK, F::BLOCK / 32);
        let panel = room::<I>(self.panel, blocks * parts, BLOCK_VECTORS);
        let mut ahead = Ahead::new();
        for (v, group) in groups::<I>(self.job, self.row).iter().enumerate() {
            let rows = group.rows(self.job);
            // SAFETY: the group's rows are inside the matrix and have `blocks` blocks.
            unsafe { ahead.read::<I, F>(rows, 0, blocks) };
            for b in 0..blocks {
                if b.is_multiple_of(CHUNK) {
                    // SAFETY: as above.
                    unsafe { ahead.read::<I, F>(rows, b + CHUNK, blocks) };
                }
                let (block, head) = (rows.at(b * F::BYTES), ahead.head::<I, F>(b));
                prefetch(isa, rows, b * F::BYTES, F::BYTES, PANEL * I::ROWS * rows.stride);
                for part in 0..parts {
                    // SAFETY: as above; the panel has room for all parts.
                    unsafe {
                        let panel = panel.add(((b * parts + part) * BLOCK_VECTORS + v) * vector);
                        F::unpack(isa, block, head, part, &mut Store(panel));
                        let (d, m) = F::scales(isa, head, part);
                        isa.store_floats(panel.add(BLOCK_SCALES * vector).cast(), d);
                        if F::MINIMUM || F::SPLIT {
                            isa.store_floats(panel.add(BLOCK_MINIMA * vector).cast(), m);
                        }
                    }
                }
            }
        }
    }
}

/// As [`UnpackBlocks`].
struct UnpackSuperBlocks<'j, 'a, F> {
    job: &'j Job<'a>,
    row: usize,
    panel: &'j mut Vec<Line>,
    format: PhantomData<F>,
}

impl<F: SuperBlocks> SimdKernel for UnpackSuperBlocks<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run<I: Integers>(self, isa: I) {
        let vector = 4 * I::ROWS;
        let blocks = self.job.weights.k / 256;
        let panel = room::<I>(self.panel, blocks, SUPER_VECTORS);
        let offset = offset::<I>(F::PEAK, F::OFFSET);
        let mut ahead = Ahead::new();
        for (v, group) in groups::<I>(self.job, self.row).iter().enumerate() {
            let rows = group.rows(self.job);
            // SAFETY: the group's rows are inside the matrix and have `blocks` blocks.
            unsafe { ahead.read::<I, F>(rows, 0, blocks) };
            for b in 0..blocks {
                if b.is_multiple_of(CHUNK) {
                    // SAFETY: as above.
                    unsafe { ahead.read::<I, F>(rows, b + CHUNK, blocks) };
                }
                let (block, head) = (rows.at(b * F::BYTES), ahead.head::<I, F>(b));
                prefetch(isa, rows, b * F::BYTES, F::BYTES, PANEL * I::ROWS * rows.stride);
                // SAFETY: as above; the panel has room for as many blocks.
                unsafe {
                    let panel = panel.add((b * SUPER_VECTORS + v) * vector);
                    let SuperScales { scales: factors, minima, d, dmin } = F::scales(isa, block, head);
                    for j in 0..16 {
                        let scale = isa.sub_scale(factors[j / 4], j % 4, F::PEAK, !F::MINIMA);
                        isa.store(panel.add((SUPER_SUB_SCALES + j * PANEL) * vector), scale);
                    }
                    for p in 0..8 {
                        let pairs = if F::MINIMA {
                            isa.scale_pair(minima[p / 2], p % 2, false, 1)
                        } else {
                            isa.scale_pair(factors[p / 2], p % 2, true, -offset)
                        };
                        isa.store(panel.add((SUPER_PAIRS + p * PANEL) * vector), pairs);
                    }
                    isa.store_floats(panel.add(SUPER_SCALES * vector).cast(), d);
                    if F::MINIMA {
                        isa.store_floats(panel.add(SUPER_MINIMA * vector).cast(), dmin);
                    }
                    F::unpack(isa, block, head, &mut Store(panel));
                }
            }
        }
    }
}

/// A tile: the outputs of `T` tokens for the rows of a panel.
type Tile<I, const T: usize> = [[<I as Integers>::Floats; PANEL]; T];

/// Calls `tile` for all tokens, 6 (where there are 32 registers) or 3 or 1 at a time, through the given function.
macro_rules! each_tile {
    ($isa:ident, $self:ident, $tile:ident) => {{
        let groups = groups::<I>($self.job, $self.row);
        let mut token = 0;
        while token < $self.job.tokens {
            let left = $self.job.tokens - token;
            // SAFETY: the tile's tokens are the job's; the job is checked, and its caller promises that no other thread
            // writes the rows.
            unsafe {
                if I::TILE >= 6 && left >= 6 {
                    write($isa, $self.job, &groups, token, $self.$tile::<I, 6>($isa, token));
                    token += 6;
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

/// The vectors of a panel from the place `at` of a block on.
///
/// # Safety
/// `panel` is a block of a panel, and `at` a place in it.
#[inline(always)]
unsafe fn words<I: Integers>(isa: I, panel: *const u8, at: usize) -> [I::Words; PANEL] {
    // SAFETY: by the contract.
    unsafe { [isa.load(panel.add(at * 4 * I::ROWS)), isa.load(panel.add((at + 1) * 4 * I::ROWS))] }
}

/// As [`words`], one vector of floats.
///
/// # Safety
/// As for [`words`].
#[inline(always)]
unsafe fn floats<I: Integers>(isa: I, panel: *const u8, at: usize) -> I::Floats {
    // SAFETY: by the contract.
    unsafe { isa.load_floats(panel.add(at * 4 * I::ROWS).cast()) }
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
        for i in first..first + steps {
            // SAFETY: by the contract.
            let w = unsafe { self::words(isa, panel, i * PANEL) };
            for t in 0..T {
                // SAFETY: by the contract.
                let x = unsafe { isa.splat_at(x[t].add(4 * i)) };
                for v in 0..PANEL {
                    dot[t][v] = isa.step(dot[t][v], w[v], x, PEAK);
                }
            }
        }
        for t in 0..T {
            for v in 0..PANEL {
                isum[t][v] = isa.end(dot[t][v], isum[t][v], PEAK);
            }
        }
        first += steps;
    }
}

/// Multiplies a panel of [`Blocks`] with bytes up to `PEAK`.
struct BlockTiles<'j, 'a, const PEAK: u32, const MIN: bool, const SPLIT: bool> {
    job: &'j Job<'a>,
    row: usize,
    panel: &'j [Line],
    offset: i32,
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
            let halves = if SPLIT { 2 } else { 1 };
            for half in 0..halves {
                // SAFETY: the panel and the records have k / 32 blocks.
                unsafe {
                    let mut isum = [[zero; PANEL]; T];
                    if !MIN {
                        for (isum, x) in isum.iter_mut().zip(records) {
                            *isum = [isa.pair_dot(zero, minus[half], isa.splat_at(x.add(sums + 4 * b))); PANEL];
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
                            let sum = isa.to_floats(isa.pair_dot(zero, ones, pair));
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

/// Multiplies a panel of [`SuperBlocks`] with bytes up to `PEAK`.
struct SuperTiles<'j, 'a, const PEAK: u32, const MIN: bool> {
    job: &'j Job<'a>,
    row: usize,
    panel: &'j [Line],
    offset: i32,
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
                let mut x_sums = x;
                for x in &mut x_sums {
                    *x = x.add(sums + 32 * b);
                }
                let mut isum =
                    if !MIN && minus { pairs::<I, T>(isa, panel, x_sums) } else { [[isa.splat(0); PANEL]; T] };
                for j in 0..16 {
                    let scale = words(isa, panel, SUPER_SUB_SCALES + j * PANEL);
                    let mut s = 0;
                    while s < 4 {
                        let mut dot = [[isa.begin_scaled(); PANEL]; T];
                        for i in 4 * j + s..4 * j + s + steps {
                            let w = words(isa, panel, i * PANEL);
                            for t in 0..T {
                                let x = isa.splat_at(x[t].add(256 * b + 4 * i));
                                for v in 0..PANEL {
                                    dot[t][v] = isa.step(dot[t][v], w[v], x, PEAK);
                                }
                            }
                        }
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
