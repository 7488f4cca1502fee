//! What scales the sums of a tile, with one token per lane.
//!
//! In the records a token's scales lie behind each other; a tile wants those of its 16 tokens for one block. They are laid out so
//! once per job, which has many rows.

use core::arch::x86_64::*;

use super::{TOKENS, VECTOR, tiles};
use crate::gemv::splat_pair;
use crate::isa::avx512::{Avx512, Only};
use crate::isa::integers::Integers;
use crate::isa::unpacking::Unpacking;
use crate::matmul::{Job, Line};
use crate::unpack::Rows;

/// The sums of the activations, next to their scales.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sums {
    /// None.
    No,
    /// Eight words of each super-block: pairs of i16 sums of 16 activations.
    Pairs,
    /// Four words of each super-block: pairs of i16 sums of 32 activations.
    WidePairs,
}

impl Sums {
    /// Words of a block.
    pub(super) const fn words(self) -> usize {
        match self {
            Sums::No => 0,
            Sums::Pairs => 8,
            Sums::WidePairs => 4,
        }
    }
}

/// Lays out the columns of a job: tile after tile, in each block after block, of each the scale and the words of `sums`.
pub(super) struct Columns<'j, 'a> {
    pub(super) job: &'j Job<'a>,
    pub(super) sums: Sums,
    pub(super) out: &'j mut Vec<Line>,
}

impl Only for Columns<'_, '_> {
    #[inline(always)]
    fn run(self, isa: Avx512) {
        const { assert!(size_of::<Line>() == VECTOR, "a line is a vector") };
        let (k, tokens) = (self.job.weights.k, self.job.tokens);
        let kind = self.job.weights.format.activation();
        let blocks = k / kind.block();
        let vectors = 1 + self.sums.words();
        let lines = tokens.div_ceil(TOKENS) * blocks * vectors;
        if self.out.len() < lines {
            self.out.resize(lines, Line::default());
        }
        let ones = splat_pair(isa, 1, 1);
        for (tile, token) in tiles(tokens).enumerate() {
            let out = self.out[tile * blocks * vectors..][..blocks * vectors].as_mut_ptr().cast::<u8>();
            let record = Rows::new(self.job.record(token).as_ptr(), self.job.record);
            // SAFETY: sixteen bytes from every fourth scale, and from every fourth word of sums, are inside the records, whose
            // length is a multiple of 64; there is room for `vectors` vectors of every block.
            unsafe {
                let at = |b: usize, i: usize| out.add((b * vectors + i) * VECTOR);
                for first in (0..blocks).step_by(4) {
                    let scales = isa.words(record.at(kind.scales_at(k) + 4 * first));
                    for (i, &scale) in scales[..(blocks - first).min(4)].iter().enumerate() {
                        isa.store(at(first + i, 0), scale);
                    }
                }
                let sums = record.at(kind.sums_at(k));
                match self.sums {
                    Sums::No => {}
                    Sums::Pairs => {
                        for b in 0..blocks {
                            for half in 0..2 {
                                for (i, pair) in isa.words(sums.at(32 * b + 16 * half)).into_iter().enumerate() {
                                    isa.store(at(b, 1 + 4 * half + i), pair);
                                }
                            }
                        }
                    }
                    Sums::WidePairs => {
                        for b in 0..blocks {
                            for half in 0..2 {
                                let pairs = isa.words(sums.at(32 * b + 16 * half)).map(|p| isa.pair_product(ones, p));
                                for (i, pair) in pairs.as_chunks::<2>().0.iter().enumerate() {
                                    let low = _mm512_and_si512(pair[0], _mm512_set1_epi32(0xffff));
                                    let both = _mm512_or_si512(low, _mm512_slli_epi32::<16>(pair[1]));
                                    isa.store(at(b, 1 + 2 * half + i), both);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
