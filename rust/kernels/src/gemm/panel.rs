//! Panels: rows of weights unpacked for the tiles.
//!
//! Blocks lie behind each other, each with everything a tile needs:
//!
//! ```text
//! Blocks       weights [8][PANEL] words    d [PANEL] floats    m, or d of the second half [PANEL] floats
//! SuperBlocks  weights [64][PANEL] words   sub-scales [16][PANEL] words   pairs [8][PANEL] words   d, dmin [PANEL] floats
//! ```
//!
//! Word `s` of a row holds weights `4 s..4 s + 4` of the block. The pairs multiply the sums of the activations: the minima, or the
//! sub-scales times `-OFFSET`.

use core::marker::PhantomData;

use crate::ahead::{Ahead, CHUNK};
use crate::gemv::{offset, prefetch};
use crate::isa::SimdKernel;
use crate::isa::integers::Integers;
use crate::matmul::{Job, Line};
use crate::unpack::{Blocks, Sink, SuperBlocks, SuperScales};

use super::{PANEL, groups};

/// Places in a block of a panel, in vectors.
pub(super) const BLOCK_SCALES: usize = 8 * PANEL;
pub(super) const BLOCK_MINIMA: usize = BLOCK_SCALES + PANEL;
pub(super) const BLOCK_VECTORS: usize = BLOCK_MINIMA + PANEL;
pub(super) const SUPER_SUB_SCALES: usize = 64 * PANEL;
pub(super) const SUPER_PAIRS: usize = SUPER_SUB_SCALES + 16 * PANEL;
pub(super) const SUPER_SCALES: usize = SUPER_PAIRS + 8 * PANEL;
pub(super) const SUPER_MINIMA: usize = SUPER_SCALES + PANEL;
pub(super) const SUPER_VECTORS: usize = SUPER_MINIMA + PANEL;

/// Makes room for `blocks` blocks of `vectors` vectors.
#[inline(always)]
pub(super) fn room<I: Integers>(panel: &mut Vec<Line>, blocks: usize, vectors: usize) -> *mut u8 {
    let lines = (blocks * vectors * 4 * I::ROWS).div_ceil(size_of::<Line>());
    if panel.len() < lines {
        panel.resize(lines, Line::default());
    }
    panel.as_mut_ptr().cast()
}

/// Stores the weights of a block for one vector of rows.
struct Store<I: Integers> {
    place: *mut u8,
    /// Subtracted from every byte.
    minus: I::Words,
}

impl<I: Integers> Sink<I> for Store<I> {
    #[inline(always)]
    fn take(&mut self, isa: I, j: usize, bytes: [I::Words; 4]) {
        for (i, bytes) in isa.turn(bytes).into_iter().enumerate() {
            // SAFETY: whoever made this has room for a block.
            unsafe { isa.store(self.place.add((4 * j + i) * PANEL * 4 * I::ROWS), isa.sub_bytes(bytes, self.minus)) };
        }
    }
}

/// Unpacks the panel that begins at `row`.
pub(super) struct UnpackBlocks<'j, 'a, F> {
    pub(super) job: &'j Job<'a>,
    pub(super) row: usize,
    pub(super) panel: &'j mut Vec<Line>,
    /// Whether the offset of the format is subtracted, so that the bytes are the weights.
    pub(super) signed: bool,
    pub(super) format: PhantomData<F>,
}

impl<F: Blocks> SimdKernel for UnpackBlocks<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run<I: Integers>(self, isa: I) {
        let vector = 4 * I::ROWS;
        let (blocks, parts) = (self.job.weights.k / F::BLOCK, F::BLOCK / 32);
        let panel = room::<I>(self.panel, blocks * parts, BLOCK_VECTORS);
        let minus = isa.splat(if self.signed { offset::<I>(F::PEAK, F::OFFSET) * 0x0101_0101 } else { 0 });
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
                let block = rows.at(b * F::BYTES);
                prefetch(isa, rows, b * F::BYTES, F::BYTES, PANEL * I::ROWS * rows.stride);
                // SAFETY: as above.
                let head = unsafe { ahead.head::<I, F>(block, b) };
                for part in 0..parts {
                    // SAFETY: as above; the panel has room for all parts.
                    unsafe {
                        let panel = panel.add(((b * parts + part) * BLOCK_VECTORS + v) * vector);
                        F::unpack(isa, block, head, part, &mut Store { place: panel, minus });
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
pub(super) struct UnpackSuperBlocks<'j, 'a, F> {
    pub(super) job: &'j Job<'a>,
    pub(super) row: usize,
    pub(super) panel: &'j mut Vec<Line>,
    pub(super) format: PhantomData<F>,
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
                let block = rows.at(b * F::BYTES);
                prefetch(isa, rows, b * F::BYTES, F::BYTES, PANEL * I::ROWS * rows.stride);
                // SAFETY: as above; the panel has room for as many blocks.
                unsafe {
                    let panel = panel.add((b * SUPER_VECTORS + v) * vector);
                    let head = ahead.head::<I, F>(block, b);
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
                    F::unpack(isa, block, head, &mut Store { place: panel, minus: isa.splat(0) });
                }
            }
        }
    }
}

/// The vectors of a panel from the place `at` of a block on.
///
/// # Safety
/// `panel` is a block of a panel, and `at` a place in it.
#[inline(always)]
pub(super) unsafe fn words<I: Integers>(isa: I, panel: *const u8, at: usize) -> [I::Words; PANEL] {
    // SAFETY: by the contract.
    unsafe { [isa.load(panel.add(at * 4 * I::ROWS)), isa.load(panel.add((at + 1) * 4 * I::ROWS))] }
}

/// As [`words`], one vector of floats.
///
/// # Safety
/// As for [`words`].
#[inline(always)]
pub(super) unsafe fn floats<I: Integers>(isa: I, panel: *const u8, at: usize) -> I::Floats {
    // SAFETY: by the contract.
    unsafe { isa.load_floats(panel.add(at * 4 * I::ROWS).cast()) }
}
