//! The tile unit of AMX: the sums of 16 tokens times 16 rows at once.
//!
//! The unit adds up exact i32 sums of signed bytes as fast as memory brings them, but they leave it only through memory, 16
//! cycles a tile, and while they do, the vectors that scale them have one port of two. So the fewer times a sum leaves, the better:
//!
//! * Formats with a scale in floats for every 32 weights ([`BlockTiles`]) have no choice: one product of 32 weights a time.
//! * In super-blocks ([`SuperTiles`]) the scales of the sub-blocks are integers. A panel holds the products
//!   `scale * weight`, at most 14 bits with their sign, as two signed bytes, `128 * high + low`; the unit adds up the products of both with the
//!   activations over all 256 weights, and `128 * Σ high x + Σ low x` is the sum of the super-block, exactly. Where the products
//!   fit one byte, one pass is enough.
//!
//! Source of the instructions: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18. They are
//! written in assembly because their intrinsics are not stable in Rust; the compiler itself never uses tile registers.

mod blocks;
mod columns;
mod super_blocks;
mod unit;

use core::marker::PhantomData;

use super::panel::UnpackBlocks;
use super::{PANEL, run};
use crate::isa::avx512::{Avx512, Only, run_only};
use crate::isa::unpacking::Unpacking;
use crate::matmul::{Job, MatmulScratch};
use crate::unpack::{Blocks, SuperBlocks};
use crate::{Cpu, Level};
use blocks::BlockTiles;
use columns::{Columns, Sums};
use super_blocks::{SuperTiles, UnpackSuperBlocks};

/// Tokens of a tile.
const TOKENS: usize = 16;
/// Rows of a tile: the lanes of the level.
const ROWS: usize = Avx512::ROWS;
/// Bytes of a vector, and of a row of a tile.
const VECTOR: usize = 4 * ROWS;

/// Fewest tokens for the unit: with a tile or less the vectors are as fast, as they unpack into less memory.
const FEWEST: usize = 2 * TOKENS;

/// Whether a job is for the unit.
pub(super) fn takes(cpu: Cpu, job: &Job<'_>) -> bool {
    cpu.level() == Level::Amx && job.tokens >= FEWEST
}

/// The job's rows, panel by panel. The level is [`Level::Amx`], and [`takes`] was true.
pub(super) fn blocks<F: Blocks>(cpu: Cpu, job: &Job<'_>, scratch: &mut MatmulScratch) {
    let MatmulScratch { panel, columns, .. } = scratch;
    run_here(cpu, Columns { job, sums: Sums::No, out: columns });
    for row in job.rows.clone().step_by(PANEL * ROWS) {
        run(cpu, UnpackBlocks::<F> { job, row, panel, signed: true, format: PhantomData });
        run_here(cpu, BlockTiles { job, row, panel, columns });
    }
}

/// As [`blocks()`].
pub(super) fn super_blocks<F: SuperBlocks>(cpu: Cpu, job: &Job<'_>, scratch: &mut MatmulScratch) {
    let MatmulScratch { panel, columns, .. } = scratch;
    run_here(cpu, Columns { job, sums: super_blocks::sums::<F>(), out: columns });
    for row in job.rows.clone().step_by(PANEL * ROWS) {
        run_here(cpu, UnpackSuperBlocks::<F> { job, row, panel, format: PhantomData });
        macro_rules! tiles {
            ($passes:literal, $pairs:literal) => {
                run_here(cpu, SuperTiles::<$passes, $pairs> { job, row, panel, columns })
            };
        }
        match (super_blocks::passes::<F>(), super_blocks::sums::<F>().words()) {
            (1, 0) => tiles!(1, 0),
            (1, _) => tiles!(1, 8),
            (_, 0) => tiles!(2, 0),
            (_, 4) => tiles!(2, 4),
            (_, _) => tiles!(2, 8),
        }
    }
}

fn run_here(cpu: Cpu, kernel: impl Only) {
    assert_eq!(cpu.level(), Level::Amx, "the level of the unit");
    // SAFETY: a `Cpu` of the level exists only when detection found its features, which include those of AVX-512.
    unsafe { run_only(kernel) }
}

/// The sums of a tile: token `t`, row `r` at `16 t + r`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Tile<T>([T; TOKENS * ROWS]);

impl<T> Tile<T> {
    /// The vector of a token.
    #[inline(always)]
    fn token(&self, t: usize) -> *const T {
        self.0[ROWS * t..][..ROWS].as_ptr()
    }

    /// As [`token`](Tile::token).
    #[inline(always)]
    fn token_mut(&mut self, t: usize) -> *mut T {
        self.0[ROWS * t..][..ROWS].as_mut_ptr()
    }
}

/// The first token of every tile: the last one overlaps the one before, whose outputs it writes again with the same bits.
fn tiles(tokens: usize) -> impl Iterator<Item = usize> {
    (0..tokens).step_by(TOKENS).map(move |token| token.min(tokens - TOKENS))
}
