//! The matrix product of bytes: `smmla` multiplies two rows of eight weights with two tokens of eight activations and adds to four
//! sums, twice the work of a dot product.
//!
//! A panel has the weights of [`PANEL`] vectors of rows by pairs of rows, as the instruction wants them. Sums of a tile have lanes
//! `[row 0 token 0, row 0 token 1, row 1 token 0, row 1 token 1]` of a pair of rows and a pair of tokens; so the scales of rows are
//! stored as `[0, 0, 1, 1]`, and those of tokens are brought to `[0, 1, 0, 1]`.
//!
//! ```text
//! Blocks       octets [4][PAIRS]    d [PAIRS]    m, or d of the second half [PAIRS]
//! SuperBlocks  octets [32][PAIRS]   sub-scales [16][PAIRS]   minima [2][PAIRS]   d, dmin [PAIRS]
//! ```
//!
//! Minima are bytes, one for each sub-block, and multiply the sums of its activations; those have up to 12 bits with their sign and
//! are taken as two signed bytes, `128 * high + low`.
//!
//! The activations of [`AT_ONCE`] tokens are laid out by tiles too, once for all panels: per block of a tile
//!
//! ```text
//! Block32      octets [4][2]     scales [2]   sums [2]
//! Super256     octets [32][2]    scales [2]   upper bytes of the sums [2][2]   lower bytes [2][2]
//! ```
//!
//! Source of the instruction: Arm Architecture Reference Manual for A-profile, SMMLA (vector). It is written in assembly because the
//! intrinsic is not stable in Rust.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one argument for all: whoever runs these kernels has the level, and the \
    panel and the records have what is read, as each function says"
)]

use core::arch::aarch64::*;
use core::marker::PhantomData;
use core::ops::Range;

use super::panel::room;
use super::{PANEL, groups};
use crate::activation::Activation;
use crate::ahead::Ahead;
use crate::gemv::{Group, offset};
use crate::isa::integers::Integers;
use crate::isa::neon::{Neon, Only, run_only};
use crate::isa::unpacking::Unpacking;
use crate::matmul::{Job, Line, MatmulScratch};
use crate::unpack::{Blocks, Sink, SuperBlocks, SuperScales};
use crate::{Cpu, Level};

/// Tokens of a tile.
const TOKENS: usize = 4;
/// Most tokens whose activations are laid out at once, so that the room for them stays small.
const AT_ONCE: usize = 128;
/// Lanes of a vector.
const ROWS: usize = <Neon<true> as Unpacking>::ROWS;
/// Pairs of rows in a panel.
const PAIRS: usize = PANEL * ROWS / 2;
/// Bytes of a vector.
const VECTOR: usize = 16;

/// Places in a block of a panel, in vectors.
const BLOCK_SCALES: usize = 4 * PAIRS;
const BLOCK_MINIMA: usize = BLOCK_SCALES + PAIRS;
const BLOCK_VECTORS: usize = BLOCK_MINIMA + PAIRS;
const SUPER_SUB_SCALES: usize = 32 * PAIRS;
const SUPER_SUB_MINIMA: usize = SUPER_SUB_SCALES + 16 * PAIRS;
const SUPER_SCALES: usize = SUPER_SUB_MINIMA + 2 * PAIRS;
const SUPER_MINIMA: usize = SUPER_SCALES + PAIRS;
const SUPER_VECTORS: usize = SUPER_MINIMA + PAIRS;

/// Pairs of tokens in a tile.
const COLUMNS: usize = TOKENS / 2;

/// Places in a block of the activations of a tile, in vectors.
const fn x_scales(kind: Activation) -> usize {
    kind.block() / 8 * COLUMNS
}
const fn x_sums(kind: Activation) -> usize {
    x_scales(kind) + COLUMNS
}
const fn x_vectors(kind: Activation) -> usize {
    x_sums(kind) + if matches!(kind, Activation::Super256) { 4 * COLUMNS } else { COLUMNS }
}

/// Whether a job is for this driver. It has more tokens than the driver of few.
pub(super) fn takes(cpu: Cpu, job: &Job<'_>) -> bool {
    cpu.level() == Level::NeonI8mm && job.tokens >= TOKENS
}

/// The job's rows, panel by panel; [`takes`] was true.
pub(super) fn blocks<F: Blocks>(cpu: Cpu, job: &Job<'_>, scratch: &mut MatmulScratch) {
    let MatmulScratch { panel, columns, .. } = scratch;
    for tokens in parts(job.tokens) {
        run_here(cpu, Columns { job, tokens: tokens.clone(), out: columns });
        for row in job.rows.clone().step_by(PANEL * ROWS) {
            run_here(cpu, UnpackBlocks::<F> { job, row, panel, format: PhantomData });
            macro_rules! tiles {
                ($min:literal, $split:literal) => {
                    run_here(cpu, BlockTiles::<$min, $split> { job, row, tokens: tokens.clone(), panel, columns })
                };
            }
            match (F::MINIMUM, F::SPLIT) {
                (false, false) => tiles!(false, false),
                (true, _) => tiles!(true, false),
                (false, true) => tiles!(false, true),
            }
        }
    }
}

/// As [`blocks()`].
pub(super) fn super_blocks<F: SuperBlocks>(cpu: Cpu, job: &Job<'_>, scratch: &mut MatmulScratch) {
    let MatmulScratch { panel, columns, .. } = scratch;
    for tokens in parts(job.tokens) {
        run_here(cpu, Columns { job, tokens: tokens.clone(), out: columns });
        for row in job.rows.clone().step_by(PANEL * ROWS) {
            run_here(cpu, UnpackSuperBlocks::<F> { job, row, panel, format: PhantomData });
            macro_rules! tiles {
                ($min:literal, $wide:literal) => {
                    run_here(cpu, SuperTiles::<$min, $wide> { job, row, tokens: tokens.clone(), panel, columns })
                };
            }
            match (F::MINIMA, F::WIDE) {
                (false, false) => tiles!(false, false),
                (false, true) => tiles!(false, true),
                (true, false) => tiles!(true, false),
                (true, true) => tiles!(true, true),
            }
        }
    }
}

/// The tokens in parts of [`AT_ONCE`]; the last one overlaps the one before where it would have less than a tile.
fn parts(tokens: usize) -> impl Iterator<Item = Range<usize>> {
    (0..tokens).step_by(AT_ONCE).map(move |first| first.min(tokens - TOKENS)..(first + AT_ONCE).min(tokens))
}

fn run_here(cpu: Cpu, kernel: impl Only) {
    assert_eq!(cpu.level(), Level::NeonI8mm, "the level with the instruction");
    // SAFETY: a `Cpu` of the level exists only when detection found its features.
    unsafe { run_only(kernel) }
}

/// `acc` plus the products of the rows of `a` with those of `b`, both `(2, 8)` bytes: `(2, 2)` sums.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn smmla(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the features are enabled, and the instruction works on registers.
    unsafe {
        core::arch::asm!(
            "smmla {acc:v}.4s, {a:v}.16b, {b:v}.16b",
            acc = inout(vreg) acc, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// The first eight bytes of `a` and of `b`, and the others.
#[inline(always)]
fn octets(a: uint8x16_t, b: uint8x16_t) -> [uint8x16_t; 2] {
    unsafe {
        let (a, b) = (vreinterpretq_u64_u8(a), vreinterpretq_u64_u8(b));
        [vreinterpretq_u8_u64(vtrn1q_u64(a, b)), vreinterpretq_u8_u64(vtrn2q_u64(a, b))]
    }
}

/// Stores the values of four rows, one per lane, for the lanes of the sums of two pairs of rows.
///
/// # Safety
/// Two vectors are writable.
#[inline(always)]
unsafe fn store_pairs(p: *mut u8, rows: uint8x16_t) {
    unsafe {
        let rows = vreinterpretq_u32_u8(rows);
        vst1q_u32(p.cast(), vzip1q_u32(rows, rows));
        vst1q_u32(p.add(VECTOR).cast(), vzip2q_u32(rows, rows));
    }
}

/// Stores the weights of a block for one vector of rows.
struct Store {
    place: *mut u8,
    /// Subtracted from every byte.
    minus: uint8x16_t,
}

impl Sink<Neon<true>> for Store {
    #[inline(always)]
    fn take(&mut self, isa: Neon<true>, j: usize, bytes: [uint8x16_t; 4]) {
        for pair in 0..2 {
            let (a, b) = (isa.sub_bytes(bytes[2 * pair], self.minus), isa.sub_bytes(bytes[2 * pair + 1], self.minus));
            for (half, octet) in octets(a, b).into_iter().enumerate() {
                // SAFETY: whoever made this has room for a block.
                unsafe { isa.store(self.place.add(((2 * j + half) * PAIRS + pair) * VECTOR), octet) };
            }
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

impl<F: Blocks> Only for UnpackBlocks<'_, '_, F> {
    #[inline(always)]
    fn run(self, isa: Neon<true>) {
        let (blocks, parts) = (self.job.weights.k / F::BLOCK, F::BLOCK / 32);
        let panel = room::<Neon<true>>(self.panel, blocks * parts, BLOCK_VECTORS);
        let minus = isa.splat(offset::<Neon<true>>(F::PEAK, F::OFFSET) * 0x0101_0101);
        let ahead = Ahead::new();
        for (v, group) in groups::<Neon<true>>(self.job, self.row).iter().enumerate() {
            let rows = group.rows(self.job);
            for b in 0..blocks {
                let block = rows.at(b * F::BYTES);
                // SAFETY: the group's rows are inside the matrix and have `blocks` blocks; the panel has room for all parts.
                unsafe {
                    let head = ahead.head::<Neon<true>, F>(block, b);
                    for part in 0..parts {
                        let place = panel.add(((b * parts + part) * BLOCK_VECTORS + 2 * v) * VECTOR);
                        F::unpack(isa, block, head, part, &mut Store { place, minus });
                        let (d, m) = F::scales(isa, head, part);
                        store_pairs(place.add(BLOCK_SCALES * VECTOR), vreinterpretq_u8_f32(d));
                        if F::MINIMUM || F::SPLIT {
                            store_pairs(place.add(BLOCK_MINIMA * VECTOR), vreinterpretq_u8_f32(m));
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

impl<F: SuperBlocks> Only for UnpackSuperBlocks<'_, '_, F> {
    #[inline(always)]
    fn run(self, isa: Neon<true>) {
        let blocks = self.job.weights.k / 256;
        let panel = room::<Neon<true>>(self.panel, blocks, SUPER_VECTORS);
        let minus = isa.splat(offset::<Neon<true>>(F::PEAK, F::OFFSET) * 0x0101_0101);
        let ahead = Ahead::new();
        for (v, group) in groups::<Neon<true>>(self.job, self.row).iter().enumerate() {
            let rows = group.rows(self.job);
            for b in 0..blocks {
                let block = rows.at(b * F::BYTES);
                // SAFETY: the group's rows are inside the matrix and have `blocks` blocks; the panel has room for all of them.
                unsafe {
                    let head = ahead.head::<Neon<true>, F>(block, b);
                    let place = panel.add((b * SUPER_VECTORS + 2 * v) * VECTOR);
                    let SuperScales { scales, minima, d, dmin } = F::scales(isa, block, head);
                    for j in (0..16).step_by(if F::WIDE { 2 } else { 1 }) {
                        let scale = isa.sub_scale(scales[j / 4], j % 4, F::PEAK, !F::MINIMA);
                        store_pairs(place.add((SUPER_SUB_SCALES + j * PAIRS) * VECTOR), scale);
                    }
                    store_pairs(place.add(SUPER_SCALES * VECTOR), vreinterpretq_u8_f32(d));
                    if F::MINIMA {
                        let mut store = Store { place: place.add(SUPER_SUB_MINIMA * VECTOR), minus: isa.splat(0) };
                        store.take(isa, 0, isa.turn(minima));
                        store_pairs(place.add(SUPER_MINIMA * VECTOR), vreinterpretq_u8_f32(dmin));
                    }
                    F::unpack(isa, block, head, &mut Store { place, minus });
                }
            }
        }
    }
}

/// Sums, or outputs, of a tile: by pairs of rows and of tokens.
type Tile<T> = [[T; COLUMNS]; PAIRS];

/// The records of the tokens of a tile.
#[derive(Clone, Copy)]
struct Tokens([*const u8; TOKENS]);

impl Tokens {
    #[inline(always)]
    fn at(self, bytes: usize) -> Tokens {
        let [a, b, c, d] = self.0;
        Tokens([a.wrapping_add(bytes), b.wrapping_add(bytes), c.wrapping_add(bytes), d.wrapping_add(bytes)])
    }

    /// Sixteen activations of each pair of tokens, as two octets.
    ///
    /// # Safety
    /// Sixteen bytes are readable of each token.
    #[inline(always)]
    unsafe fn sixteen(self) -> [[uint8x16_t; 2]; COLUMNS] {
        unsafe {
            let x = self.0.map(|x| vld1q_u8(x));
            [octets(x[0], x[1]), octets(x[2], x[3])]
        }
    }

    /// The f32 at each token, for the lanes of the sums.
    ///
    /// # Safety
    /// Four bytes are readable of each token.
    #[inline(always)]
    unsafe fn floats(self) -> [float32x4_t; COLUMNS] {
        unsafe {
            let pair = |a: *const u8, b: *const u8| {
                let (a, b) = (vld1q_dup_f32(a.cast()), vld1q_dup_f32(b.cast()));
                vtrn1q_f32(a, b)
            };
            [pair(self.0[0], self.0[1]), pair(self.0[2], self.0[3])]
        }
    }

    /// The sum of the two i16 at each token, for the lanes of the sums.
    ///
    /// # Safety
    /// Four bytes are readable of each token.
    #[inline(always)]
    unsafe fn pair_sums(self) -> [float32x4_t; COLUMNS] {
        unsafe { self.floats().map(|pairs| vcvtq_f32_s32(vpaddlq_s16(vreinterpretq_s16_f32(pairs)))) }
    }

    /// The sixteen i16 at each token, as octets of the upper nine bits and of the lower seven.
    ///
    /// # Safety
    /// 32 bytes are readable of each token.
    #[inline(always)]
    unsafe fn sums(self) -> [[[uint8x16_t; 2]; COLUMNS]; 2] {
        unsafe {
            let mut low = [vdupq_n_u8(0); TOKENS];
            let mut high = low;
            for t in 0..TOKENS {
                let (a, b) = (vld1q_u16(self.0[t].cast()), vld1q_u16(self.0[t].add(16).cast()));
                let bytes = vcombine_u8(vmovn_u16(a), vmovn_u16(b));
                low[t] = vandq_u8(bytes, vdupq_n_u8(127));
                high[t] = vcombine_u8(vshrn_n_u16::<7>(a), vshrn_n_u16::<7>(b));
            }
            [high, low].map(|x| [octets(x[0], x[1]), octets(x[2], x[3])])
        }
    }
}

/// Lays out the activations of `tokens`: tile after tile, in each block after block.
struct Columns<'j, 'a> {
    job: &'j Job<'a>,
    tokens: Range<usize>,
    out: &'j mut Vec<Line>,
}

impl Only for Columns<'_, '_> {
    #[inline(always)]
    fn run(self, isa: Neon<true>) {
        let (job, k) = (self.job, self.job.weights.k);
        let kind = job.weights.format.activation();
        let (blocks, vectors) = (k / kind.block(), x_vectors(kind));
        let mut out = room::<Neon<true>>(self.out, self.tokens.len().div_ceil(TOKENS) * blocks, vectors);
        for token in tiles(self.tokens) {
            let x = Tokens(core::array::from_fn(|t| job.record(token + t).as_ptr()));
            for b in 0..blocks {
                // SAFETY: the records have the blocks, and there is room for `vectors` vectors of each.
                unsafe {
                    for (i, place) in (0..kind.block()).step_by(16).zip((0..).step_by(2 * COLUMNS)) {
                        let octets = x.at(kind.block() * b + i).sixteen();
                        store_octets(isa, out.add(place * VECTOR), octets);
                    }
                    let scales = x.at(kind.scales_at(k) + 4 * b).floats();
                    let at = out.add(x_scales(kind) * VECTOR);
                    for (pair, scales) in scales.into_iter().enumerate() {
                        isa.store_floats(at.add(pair * VECTOR).cast(), scales);
                    }
                    let at = out.add(x_sums(kind) * VECTOR);
                    let sums = x.at(kind.sums_at(k) + kind.block() / 8 * b);
                    if kind == Activation::Super256 {
                        let [high, low] = sums.sums();
                        store_octets(isa, at, high);
                        store_octets(isa, at.add(2 * COLUMNS * VECTOR), low);
                    } else {
                        for (pair, sums) in sums.pair_sums().into_iter().enumerate() {
                            isa.store_floats(at.add(pair * VECTOR).cast(), sums);
                        }
                    }
                    out = out.add(vectors * VECTOR);
                }
            }
        }
    }
}

/// Stores octets of pairs of tokens, both pairs of the first ones before the others.
///
/// # Safety
/// Four vectors are writable.
#[inline(always)]
unsafe fn store_octets(isa: Neon<true>, p: *mut u8, octets: [[uint8x16_t; 2]; COLUMNS]) {
    for (pair, octets) in octets.into_iter().enumerate() {
        for (half, octet) in octets.into_iter().enumerate() {
            // SAFETY: by the contract.
            unsafe { isa.store(p.add((half * COLUMNS + pair) * VECTOR), octet) };
        }
    }
}

/// Adds the products of two octets of the weights at `panel` with those of the activations at `x`.
///
/// # Safety
/// Both have two octets.
#[inline(always)]
unsafe fn sixteen(sums: &mut Tile<int32x4_t>, panel: *const u8, x: *const u8) {
    unsafe {
        for half in 0..2 {
            let mut octets = [vdupq_n_s8(0); COLUMNS];
            for (pair, octet) in octets.iter_mut().enumerate() {
                *octet = vld1q_s8(x.add((half * COLUMNS + pair) * VECTOR).cast());
            }
            for (pair, sums) in sums.iter_mut().enumerate() {
                let w = vld1q_s8(panel.add((half * PAIRS + pair) * VECTOR).cast());
                for (sum, octet) in sums.iter_mut().zip(octets) {
                    *sum = smmla(*sum, w, octet);
                }
            }
        }
    }
}

/// The values of the pairs of tokens at place `at` of a block of activations.
///
/// # Safety
/// The block has them.
#[inline(always)]
unsafe fn of_tokens(x: *const u8, at: usize) -> [float32x4_t; COLUMNS] {
    unsafe { [vld1q_f32(x.add(at * VECTOR).cast()), vld1q_f32(x.add((at + 1) * VECTOR).cast())] }
}

/// `acc + sums * (scale * x)`, or minus, with the scales of rows at place `at` of a block of a panel.
///
/// # Safety
/// `panel` is a block of a panel.
#[inline(always)]
unsafe fn scale<const MINUS: bool>(
    acc: &mut Tile<float32x4_t>,
    sums: &Tile<float32x4_t>,
    panel: *const u8,
    at: usize,
    x: [float32x4_t; COLUMNS],
) {
    unsafe {
        for (pair, (acc, sums)) in acc.iter_mut().zip(sums).enumerate() {
            let d = vld1q_f32(panel.add((at + pair) * VECTOR).cast());
            for ((acc, &sum), x) in acc.iter_mut().zip(sums).zip(x) {
                let d = vmulq_f32(d, x);
                *acc = if MINUS { vfmsq_f32(*acc, sum, d) } else { vfmaq_f32(*acc, sum, d) };
            }
        }
    }
}

/// Zeros, or what else a tile begins with.
#[inline(always)]
fn all<T: Copy>(x: T) -> Tile<T> {
    [[x; COLUMNS]; PAIRS]
}

#[inline(always)]
fn floats(sums: &Tile<int32x4_t>) -> Tile<float32x4_t> {
    unsafe {
        let mut floats = all(vdupq_n_f32(0.0));
        for (floats, sums) in floats.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
            *floats = vcvtq_f32_s32(*sums);
        }
        floats
    }
}

/// Writes the outputs of the tokens from `token` on.
///
/// # Safety
/// The job is checked, the groups and tokens are its own, and no other thread writes the rows.
#[inline(always)]
unsafe fn write(isa: Neon<true>, job: &Job<'_>, groups: &[Group; PANEL], token: usize, acc: &Tile<float32x4_t>) {
    unsafe {
        for (v, group) in groups.iter().enumerate() {
            for pair in 0..COLUMNS {
                let (a, b) = (acc[2 * v][pair], acc[2 * v + 1][pair]);
                group.store(isa, job.out, token + 2 * pair, vuzp1q_f32(a, b));
                group.store(isa, job.out, token + 2 * pair + 1, vuzp2q_f32(a, b));
            }
        }
    }
}

/// The first token of every tile: the last one overlaps the one before, whose outputs it writes again with the same bits.
fn tiles(tokens: Range<usize>) -> impl Iterator<Item = usize> {
    tokens.clone().step_by(TOKENS).map(move |token| token.min(tokens.end - TOKENS))
}

/// Multiplies a panel of [`Blocks`].
struct BlockTiles<'j, 'a, const MIN: bool, const SPLIT: bool> {
    job: &'j Job<'a>,
    row: usize,
    tokens: Range<usize>,
    panel: &'j [Line],
    columns: &'j [Line],
}

impl<const MIN: bool, const SPLIT: bool> Only for BlockTiles<'_, '_, MIN, SPLIT> {
    #[inline(always)]
    fn run(self, isa: Neon<true>) {
        const KIND: Activation = Activation::Block32;
        let (job, blocks) = (self.job, self.job.weights.k / 32);
        let groups = groups::<Neon<true>>(job, self.row);
        let mut x = self.columns.as_ptr().cast::<u8>();
        for token in tiles(self.tokens) {
            let mut panel = self.panel.as_ptr().cast::<u8>();
            // SAFETY: the panel and the columns have as many blocks; the tokens are the job's.
            unsafe {
                let zero = all(vdupq_n_s32(0));
                let mut acc = all(vdupq_n_f32(0.0));
                for _ in 0..blocks {
                    let d_a = of_tokens(x, x_scales(KIND));
                    let mut sums = zero;
                    sixteen(&mut sums, panel, x);
                    if SPLIT {
                        scale::<false>(&mut acc, &floats(&sums), panel, BLOCK_SCALES, d_a);
                        sums = zero;
                    }
                    sixteen(&mut sums, panel.add(2 * PAIRS * VECTOR), x.add(2 * COLUMNS * VECTOR));
                    let at = if SPLIT { BLOCK_MINIMA } else { BLOCK_SCALES };
                    scale::<false>(&mut acc, &floats(&sums), panel, at, d_a);
                    if MIN {
                        let msum = [of_tokens(x, x_sums(KIND)); PAIRS];
                        scale::<false>(&mut acc, &msum, panel, BLOCK_MINIMA, d_a);
                    }
                    panel = panel.add(BLOCK_VECTORS * VECTOR);
                    x = x.add(x_vectors(KIND) * VECTOR);
                }
                write(isa, job, &groups, token, &acc);
            }
        }
    }
}

/// Multiplies a panel of [`SuperBlocks`].
struct SuperTiles<'j, 'a, const MIN: bool, const WIDE: bool> {
    job: &'j Job<'a>,
    row: usize,
    tokens: Range<usize>,
    panel: &'j [Line],
    columns: &'j [Line],
}

impl<const MIN: bool, const WIDE: bool> Only for SuperTiles<'_, '_, MIN, WIDE> {
    #[inline(always)]
    fn run(self, isa: Neon<true>) {
        const KIND: Activation = Activation::Super256;
        let (job, blocks) = (self.job, self.job.weights.k / 256);
        let groups = groups::<Neon<true>>(job, self.row);
        let mut x = self.columns.as_ptr().cast::<u8>();
        for token in tiles(self.tokens) {
            let mut panel = self.panel.as_ptr().cast::<u8>();
            // SAFETY: the panel and the columns have as many blocks; the tokens are the job's.
            unsafe {
                let zero = all(vdupq_n_s32(0));
                let mut acc = all(vdupq_n_f32(0.0));
                for _ in 0..blocks {
                    let mut isum = zero;
                    for j in (0..16).step_by(if WIDE { 2 } else { 1 }) {
                        let mut sums = zero;
                        for j in j..j + if WIDE { 2 } else { 1 } {
                            let (w, x) = (panel.add(2 * j * PAIRS * VECTOR), x.add(2 * j * COLUMNS * VECTOR));
                            sixteen(&mut sums, w, x);
                        }
                        for (pair, (isum, sums)) in isum.iter_mut().zip(sums).enumerate() {
                            let factor = vld1q_s32(panel.add((SUPER_SUB_SCALES + j * PAIRS + pair) * VECTOR).cast());
                            for (isum, sum) in isum.iter_mut().zip(sums) {
                                *isum = vmlaq_s32(*isum, sum, factor);
                            }
                        }
                    }
                    let d_a = of_tokens(x, x_scales(KIND));
                    scale::<false>(&mut acc, &floats(&isum), panel, SUPER_SCALES, d_a);
                    if MIN {
                        let minima = panel.add(SUPER_SUB_MINIMA * VECTOR);
                        let mut msum = zero;
                        sixteen(&mut msum, minima, x.add(x_sums(KIND) * VECTOR));
                        for msum in msum.as_flattened_mut() {
                            *msum = vshlq_n_s32::<7>(*msum);
                        }
                        sixteen(&mut msum, minima, x.add((x_sums(KIND) + 2 * COLUMNS) * VECTOR));
                        scale::<true>(&mut acc, &floats(&msum), panel, SUPER_MINIMA, d_a);
                    }
                    panel = panel.add(SUPER_VECTORS * VECTOR);
                    x = x.add(x_vectors(KIND) * VECTOR);
                }
                write(isa, job, &groups, token, &acc);
            }
        }
    }
}
