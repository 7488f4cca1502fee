//! The products of F32, F16 and BF16 weights with f32 activations, on the levels with vectors.

use core::marker::PhantomData;

use super::Job;
use crate::LANES;
use crate::isa::floats::Floats;
use crate::isa::{Isa, Kernel};
use crate::unpack::Dense;

/// Rows that go through all tokens together; a multiple of the rows of every tile.
const BLOCK: usize = 48;

/// The product of a job.
pub(super) struct DenseProduct<'a, F>(pub(super) Job<'a>, pub(super) PhantomData<F>);

impl<F: Dense> Kernel for DenseProduct<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let job = &self.0;
        // Tiles are as large as the registers allow; a single token wants more rows, whose chains do not wait for each other.
        let (wide, tall) = match job.tokens {
            1 => (4, 1),
            _ if I::VECTORS >= 32 => (6, 4),
            _ => (2, 2),
        };
        // A block of rows stays in the second-level cache for all tokens, the tokens of a tile in the first for its rows.
        for block in job.rows.clone().step_by(BLOCK) {
            let end = (block + BLOCK).min(job.rows.end);
            let mut token = 0;
            while token < job.tokens {
                let tokens = if job.tokens - token >= tall { tall } else { 1 };
                let mut row = block;
                while row < end {
                    let rows = if end - row >= wide { wide } else { 1 };
                    // SAFETY: the tile is inside the job, which was checked, and no other thread writes its rows.
                    unsafe {
                        match (rows, tokens) {
                            (6, 4) => tile::<I, F, 6, 4>(isa, job, row, token),
                            (6, _) => tile::<I, F, 6, 1>(isa, job, row, token),
                            (_, 4) => tile::<I, F, 1, 4>(isa, job, row, token),
                            (4, _) => tile::<I, F, 4, 1>(isa, job, row, token),
                            (2, 2) => tile::<I, F, 2, 2>(isa, job, row, token),
                            (2, _) => tile::<I, F, 2, 1>(isa, job, row, token),
                            (_, 2) => tile::<I, F, 1, 2>(isa, job, row, token),
                            _ => tile::<I, F, 1, 1>(isa, job, row, token),
                        }
                    }
                    row += rows;
                }
                token += tokens;
            }
        }
    }
}

/// # Safety
/// The tile is inside the checked job, and no other thread writes its rows.
#[inline(always)]
unsafe fn tile<I: Floats, F: Dense, const R: usize, const T: usize>(isa: I, job: &Job<'_>, row: usize, token: usize) {
    let k = job.weights.k;
    let w: [&[u8]; R] = core::array::from_fn(|r| job.row(row + r));
    let x: [&[u8]; T] = core::array::from_fn(|t| &job.record(token + t)[..4 * k]);
    let mut acc = [[isa.splat(0.0); T]; R];
    for i in 0..k / LANES {
        // Loops, not `map`: what closures hold would lose the features of the level.
        let mut weights = [isa.splat(0.0); R];
        for r in 0..R {
            // SAFETY: i < k / LANES, and the rows have k weights.
            weights[r] = unsafe { F::load(isa, w[r].as_ptr().add(i * LANES * F::BYTES)) };
        }
        for t in 0..T {
            // SAFETY: i < k / LANES, and the records have k values.
            let x = unsafe { isa.load(&x[t].as_ptr().add(4 * i * LANES).cast::<[f32; LANES]>().read_unaligned()) };
            for r in 0..R {
                acc[r][t] = isa.fma(weights[r], x, acc[r][t]);
            }
        }
    }
    let (done, tail) = (k / LANES * LANES, k % LANES);
    if tail > 0 {
        // Through padded copies; only the lanes of the tail are taken, as 0 * x + acc need not be acc.
        let w = w.map(|w| {
            let mut padded = [0; 4 * LANES];
            padded[..tail * F::BYTES].copy_from_slice(&w[done * F::BYTES..]);
            // SAFETY: the copy has room for LANES weights of up to four bytes.
            unsafe { F::load(isa, padded.as_ptr()) }
        });
        let x = x.map(|x| {
            let mut padded = [0f32; LANES];
            for (padded, x) in padded.iter_mut().zip(x[4 * done..].chunks_exact(4)) {
                *padded = f32::from_ne_bytes([x[0], x[1], x[2], x[3]]);
            }
            isa.load(&padded)
        });
        for r in 0..R {
            for t in 0..T {
                acc[r][t] = isa.select_lanes(0, tail, isa.fma(w[r], x[t], acc[r][t]), acc[r][t]);
            }
        }
    }
    for (r, acc) in acc.into_iter().enumerate() {
        for (t, acc) in acc.into_iter().enumerate() {
            // SAFETY: by the contract.
            unsafe { *job.out.at(token + t, row + r) = isa.sum(acc) };
        }
    }
}
