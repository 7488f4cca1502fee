//! The int8 operations in plain Rust; the meaning of every other level.

use super::Scalar;
use crate::LANES;
use crate::isa::bytes::Bytes;

impl Bytes for Scalar {
    type W = [[i8; 4]; LANES];
    type S = [i32; LANES];

    #[inline(always)]
    fn load_words(self, x: &[u16; 2 * LANES]) -> [[i8; 4]; LANES] {
        std::array::from_fn(|l| {
            let ([a, b], [c, d]) = (x[2 * l].to_le_bytes(), x[2 * l + 1].to_le_bytes());
            [a, b, c, d].map(|byte| byte as i8)
        })
    }

    #[inline(always)]
    fn splat_word(self, x: i32) -> [[i8; 4]; LANES] {
        [x.to_le_bytes().map(|byte| byte as i8); LANES]
    }

    #[inline(always)]
    fn start(self, _sum: i32) -> [i32; LANES] {
        [0; LANES]
    }

    #[inline(always)]
    fn dot(self, sums: [i32; LANES], w: [[i8; 4]; LANES], x: [[i8; 4]; LANES]) -> [i32; LANES] {
        std::array::from_fn(|l| w[l].iter().zip(x[l]).fold(sums[l], |sum, (&w, x)| sum + i32::from(w) * i32::from(x)))
    }

    #[inline(always)]
    fn sums(self, sums: [i32; LANES]) -> [f32; LANES] {
        sums.map(|sum| sum as f32)
    }

    #[inline(always)]
    fn load_i8(self, x: &[u16; LANES / 2]) -> [f32; LANES] {
        std::array::from_fn(|l| f32::from(x[l / 2].to_le_bytes()[l % 2] as i8))
    }

    #[inline(always)]
    fn prefetch(self, _p: *const u16) {}
}
