//! The products on the scalar level, and the oracle of the others: decode a block, multiply it with every token.

use super::Job;
use crate::LANES;
use crate::activation::Activation;
use crate::unpack::{Blocks, Dense, SuperBlocks, Visitor};

/// The product of a job.
pub(super) struct Product<'a, 's> {
    pub(super) job: Job<'a>,
    /// One accumulator per token.
    pub(super) sums: &'s mut Vec<f32>,
}

impl Product<'_, '_> {
    /// Walks the parts of the blocks of each row: `step(part, record, index of the part, acc)` is the next link of a chain.
    fn chains<B>(
        self,
        bytes: usize,
        parts: usize,
        decode: impl Fn(&[u8], usize) -> B,
        step: impl Fn(&B, &[u8], usize, f32) -> f32,
    ) {
        let Product { job, sums } = self;
        for row in job.rows.clone() {
            sums.clear();
            sums.resize(job.tokens, 0.0);
            let blocks = job.row(row).chunks_exact(bytes);
            for (index, (block, part)) in blocks.flat_map(|block| (0..parts).map(move |part| (block, part))).enumerate()
            {
                let part = decode(block, part);
                for (token, sum) in sums.iter_mut().enumerate() {
                    *sum = step(&part, job.record(token), index, *sum);
                }
            }
            for (token, &sum) in sums.iter().enumerate() {
                // SAFETY: the job was checked, and its caller promises that no other thread writes these rows.
                unsafe { *job.out.at(token, row) = sum };
            }
        }
    }
}

impl Visitor for Product<'_, '_> {
    type Output = ();

    fn blocks<F: Blocks>(self) {
        let k = self.job.weights.k;
        let (scales, sums) = (Activation::Block32.scales_at(k), Activation::Block32.sums_at(k));
        self.chains(F::BYTES, F::BLOCK / 32, F::decode, |part, x, b, acc| {
            let d_a = f32_at(x, scales + 4 * b);
            if F::SPLIT {
                let (low, high) = part.quants.split_at(16);
                let acc = (dot(low, &x[32 * b..]) as f32).mul_add(part.d * d_a, acc);
                return (dot(high, &x[32 * b + 16..]) as f32).mul_add(part.m * d_a, acc);
            }
            let acc = (dot(&part.quants, &x[32 * b..]) as f32).mul_add(part.d * d_a, acc);
            if !F::MINIMUM {
                return acc;
            }
            let sum = i16_at(x, sums + 4 * b) + i16_at(x, sums + 4 * b + 2);
            f32::from(sum).mul_add(part.m * d_a, acc)
        });
    }

    fn super_blocks<F: SuperBlocks>(self) {
        let k = self.job.weights.k;
        let (scales, sums) = (Activation::Super256.scales_at(k), Activation::Super256.sums_at(k));
        self.chains(
            F::BYTES,
            1,
            |block, _| F::decode(block),
            |block, x, b, acc| {
                let d_a = f32_at(x, scales + 4 * b);
                let (mut isum, mut msum) = (0, 0);
                for (j, quants) in block.quants.chunks_exact(16).enumerate() {
                    isum += block.scales[j] * dot(quants, &x[256 * b + 16 * j..]);
                    msum += block.minima[j] * i32::from(i16_at(x, sums + 32 * b + 2 * j));
                }
                let acc = (isum as f32).mul_add(block.d * d_a, acc);
                if F::MINIMA { (msum as f32).mul_add(-block.dmin * d_a, acc) } else { acc }
            },
        );
    }

    fn dense<F: Dense>(self) {
        let job = self.job;
        for row in job.rows.clone() {
            for token in 0..job.tokens {
                let mut lanes = [0f32; LANES];
                let x = job.record(token).chunks_exact(4);
                for (i, (w, x)) in job.row(row).chunks_exact(F::BYTES).zip(x).enumerate() {
                    let lane = &mut lanes[i % LANES];
                    *lane = F::value(w).mul_add(f32_at(x, 0), *lane);
                }
                for width in [8, 4, 2, 1] {
                    for l in 0..width {
                        lanes[l] += lanes[l + width];
                    }
                }
                // SAFETY: the job was checked, and its caller promises that no other thread writes these rows.
                unsafe { *job.out.at(token, row) = lanes[0] };
            }
        }
    }
}

/// The exact dot product of the weights with as many int8 activations.
fn dot(weights: &[i8], x: &[u8]) -> i32 {
    weights.iter().zip(x).map(|(&w, &x)| i32::from(w) * i32::from(x as i8)).sum()
}

fn f32_at(bytes: &[u8], at: usize) -> f32 {
    f32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_ne_bytes([bytes[at], bytes[at + 1]])
}
