//! Many tokens: a panel of [`PANEL`] vectors of rows is unpacked once and multiplied with all of them.
//!
//! Panels of different formats differ in numbers only, so the tiles are compiled per level and class of the largest byte, not
//! per format.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "aarch64")]
mod i8mm;
mod panel;
mod tiles;

use core::marker::PhantomData;

use crate::Cpu;
use crate::gemv::Group;
use crate::isa::integers::Integers;
use crate::isa::{SimdKernel, dispatch_simd};
use crate::matmul::{Job, MatmulScratch};
use crate::unpack::{Blocks, SIGNED, SuperBlocks};
use panel::{UnpackBlocks, UnpackSuperBlocks};
use tiles::{BlockTiles, SuperTiles};

/// Vectors of rows in a panel.
const PANEL: usize = 2;

/// Multiplies the job's rows panel by panel. The matrix has at least [`lanes`] rows.
pub(crate) fn blocks<F: Blocks>(cpu: Cpu, job: &Job<'_>, scratch: &mut MatmulScratch) {
    #[cfg(target_arch = "x86_64")]
    // Not where the vectors have more to scale: two scales for a part (its halves would leave the unit apart), or minima.
    if !F::SPLIT && !F::MINIMUM && amx::takes(cpu, job) {
        return amx::blocks::<F>(cpu, job, scratch);
    }
    #[cfg(target_arch = "aarch64")]
    if i8mm::takes(cpu, job) {
        return i8mm::blocks::<F>(cpu, job, scratch);
    }
    let panel = &mut scratch.panel;
    for row in job.rows.clone().step_by(PANEL * lanes(cpu)) {
        run(cpu, UnpackBlocks::<F> { job, row, panel, signed: false, format: PhantomData });
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
pub(crate) fn super_blocks<F: SuperBlocks>(cpu: Cpu, job: &Job<'_>, scratch: &mut MatmulScratch) {
    #[cfg(target_arch = "x86_64")]
    if amx::takes(cpu, job) {
        return amx::super_blocks::<F>(cpu, job, scratch);
    }
    #[cfg(target_arch = "aarch64")]
    if i8mm::takes(cpu, job) {
        return i8mm::super_blocks::<F>(cpu, job, scratch);
    }
    let panel = &mut scratch.panel;
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
