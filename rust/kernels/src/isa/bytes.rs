//! Operations on int8 with sixteen lanes, for attention over a quantized cache.

use super::floats::Floats;
use crate::LANES;

/// The int8 operations of a level, beside its [`Floats`]. [`scalar`](super::scalar) is the reference for each; all are exact.
pub trait Bytes: Floats {
    /// Four signed bytes in each of sixteen lanes.
    type W: Copy;

    /// An i32 in each of sixteen lanes.
    type S: Copy;

    /// Lane `l` holds the bytes of `x[2 l]` and `x[2 l + 1]`, low byte first, as [`dot`](Bytes::dot) wants its first factor.
    fn load_words(self, x: &[u16; 2 * LANES]) -> Self::W;

    /// The four bytes of `x`, lowest first, in every lane, as [`dot`](Bytes::dot) wants its second factor.
    fn splat_word(self, x: i32) -> Self::W;

    /// The start of dot products whose second factors add up to `sum`.
    fn start(self, sum: i32) -> Self::S;

    /// `sums` plus the dot product of the four bytes of each lane. Bytes of `x` are within ±127. Sums stay far from the ends
    /// of i32 with up to 2^16 products.
    fn dot(self, sums: Self::S, w: Self::W, x: Self::W) -> Self::S;

    /// The sums since [`start`](Bytes::start) as f32, to nearest even.
    fn sums(self, sums: Self::S) -> Self::F;

    /// Sixteen signed bytes as f32: those of `x`, low byte first.
    fn load_i8(self, x: &[u16; LANES / 2]) -> Self::F;

    /// Asks for the cache line of `p`, which is not accessed.
    fn prefetch(self, p: *const u16);
}
