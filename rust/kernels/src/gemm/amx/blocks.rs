//! Tiles of [`Blocks`](crate::unpack::Blocks) with a scale alone: the sums of every part of 32 weights leave the unit to be scaled.

use super::super::panel::{BLOCK_SCALES, BLOCK_VECTORS};
use super::super::{PANEL, groups};
use super::unit::{Tokens, Unit};
use super::{ROWS, TOKENS, Tile, VECTOR, tiles};
use crate::isa::avx512::{Avx512, Only};
use crate::isa::integers::Integers;
use crate::isa::unpacking::Unpacking;
use crate::matmul::{Job, Line};

/// Multiplies a panel of signed bytes.
pub(super) struct BlockTiles<'j, 'a> {
    pub(super) job: &'j Job<'a>,
    pub(super) row: usize,
    pub(super) panel: &'j [Line],
    pub(super) columns: &'j [Line],
}

impl Only for BlockTiles<'_, '_> {
    #[inline(always)]
    fn run(self, isa: Avx512) {
        let (job, parts) = (self.job, self.job.weights.k / 32);
        // SAFETY: whoever runs this has the level.
        let unit = unsafe { Unit::<32>::new() };
        let mut sums = [[Tile([0; TOKENS * ROWS]); 4]; 2];
        for (tile, token) in tiles(job.tokens).enumerate() {
            let columns = self.columns[tile * parts..].as_ptr().cast::<u8>();
            for (v, group) in groups::<Avx512>(job, self.row).iter().enumerate() {
                let x = Tokens { x: job.record(token).as_ptr(), stride: job.record };
                let panel = self.panel.as_ptr().cast::<u8>().wrapping_add(v * VECTOR);
                let mut acc = [isa.splat_float(0.0); TOKENS];
                // Four parts of two tiles at a time: while one is scaled, the unit computes the other.
                // SAFETY: the panel and the records have all parts.
                unsafe {
                    unit.four(x, panel, parts, &mut sums[0]);
                    for part in (0..parts).step_by(4) {
                        let (now, next) = (part / 4 % 2, (part / 4 + 1) % 2);
                        if part + 4 < parts {
                            let panel = panel.add((part + 4) * BLOCK_VECTORS * VECTOR);
                            unit.four(x.at(32 * (part + 4)), panel, parts - part - 4, &mut sums[next]);
                        }
                        for (i, sums) in sums[now][..(parts - part).min(4)].iter().enumerate() {
                            let panel = panel.add((part + i) * BLOCK_VECTORS * VECTOR);
                            scale(isa, panel, columns.add((part + i) * VECTOR), sums, &mut acc);
                        }
                    }
                }
                for (t, acc) in acc.into_iter().enumerate() {
                    // SAFETY: the job is checked, and its caller promises that no other thread writes the rows.
                    unsafe { group.store(isa, job.out, token + t, acc) };
                }
            }
        }
    }
}

/// Adds the sums of a part, scaled, to the outputs.
///
/// # Safety
/// `panel` is a vector of rows of a part in the panel, and `columns` what the columns have of the part.
#[inline(always)]
unsafe fn scale(
    isa: Avx512,
    panel: *const u8,
    columns: *const u8,
    sums: &Tile<i32>,
    acc: &mut [<Avx512 as Unpacking>::Floats; TOKENS],
) {
    // SAFETY: by the contract.
    unsafe {
        let d = isa.load_floats(panel.add(BLOCK_SCALES * VECTOR).cast());
        for (t, acc) in acc.iter_mut().enumerate() {
            let scale = isa.splat_float_at(columns.add(4 * t));
            let isum = isa.to_floats(isa.load(sums.token(t).cast()));
            *acc = isa.fma(isum, isa.mul(d, scale), *acc);
        }
    }
}

impl Unit<32> {
    /// The sums over the next four of `parts` parts of the panel, or over the last ones.
    ///
    /// # Safety
    /// The panel and the records have as many parts.
    #[inline(always)]
    unsafe fn four(&self, x: Tokens, panel: *const u8, parts: usize, sums: &mut [Tile<i32>; 4]) {
        let part = BLOCK_VECTORS * VECTOR;
        // SAFETY: by the contract.
        unsafe {
            if parts >= 4 {
                self.four_parts(x, panel, PANEL * VECTOR, part, sums);
            } else {
                for (i, sums) in sums[..parts].iter_mut().enumerate() {
                    self.one_part(x.at(32 * i), panel.add(i * part), PANEL * VECTOR, sums);
                }
            }
        }
    }
}
