//! Operations on sixteen f32 lanes, the vector of every floating-point kernel.

use crate::LANES;

/// The f32 operations of a level. [`scalar`](super::scalar) is the reference for each.
///
/// All are lane by lane and round to nearest even with denormals kept, so every level gives the same bits; only the
/// sign and payload of a NaN may differ between levels (IEEE 754 leaves them open).
pub trait Floats: Copy {
    /// Sixteen lanes ([`LANES`]).
    type F: Copy;

    /// How many `F` the registers of the level hold (1 in plain code): kernels choose their register blocks by it.
    const VECTORS: usize;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::F;

    /// Lane `l` is `x[l]`.
    fn load(self, x: &[f32; LANES]) -> Self::F;

    /// Writes lane `l` to `out[l]`.
    fn store(self, v: Self::F, out: &mut [f32; LANES]);

    /// f16 bits to f32, exact; a signalling NaN becomes quiet and keeps its payload.
    fn load_f16(self, x: &[u16; LANES]) -> Self::F;

    /// f32 to f16 bits, to nearest even; above 65504 (rounded) infinity; NaN is quiet and keeps the top of its payload.
    fn store_f16(self, v: Self::F, out: &mut [u16; LANES]);

    /// bf16 bits to f32, exact (NaN included: the bits are only moved).
    fn load_bf16(self, x: &[u16; LANES]) -> Self::F;

    /// `(x0, x0, x1, x1, …)`.
    fn load_doubled(self, x: &[f32; LANES / 2]) -> Self::F;

    /// `a + b`.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;

    /// `a - b`.
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;

    /// `a * b`.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;

    /// `a / b`.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;

    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;

    /// `if a < b { a } else { b }`: `b` when either is NaN, and for zeros of either sign.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;

    /// `if a > b { a } else { b }`: `b` when either is NaN, and for zeros of either sign.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;

    /// Clears the sign bit.
    fn abs(self, a: Self::F) -> Self::F;

    /// Flips the sign bit.
    fn neg(self, a: Self::F) -> Self::F;

    /// `x` with the sign bit of `sign`; the sign bit of `x` must be clear.
    fn with_sign(self, x: Self::F, sign: Self::F) -> Self::F;

    /// `v * 2^n` rounded once. `n` holds integers in -250..=250, `v` is 0.25..=4 in magnitude; NaN where either is NaN.
    fn scale2(self, v: Self::F, n: Self::F) -> Self::F;

    /// `(x1, x0, x3, x2, …)`.
    fn swap_pairs(self, v: Self::F) -> Self::F;

    /// `if a < b { x } else { y }`.
    fn select_less(self, a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F;

    /// Lanes `first..end` from `x`, the others from `y`; nothing from `x` unless `first < end`. Both at most 16.
    fn select_lanes(self, first: usize, end: usize, x: Self::F, y: Self::F) -> Self::F;

    /// Bit `l` is set where `a == b` in lane `l`.
    fn equal(self, a: Self::F, b: Self::F) -> u16;

    /// Bit `l` is set where lane `l` is NaN.
    fn is_nan(self, v: Self::F) -> u16;

    /// The sum of the lanes by the tree `(l, l + 8)`, `(l, l + 4)`, `(l, l + 2)`, `(l, l + 1)`.
    fn sum(self, v: Self::F) -> f32;

    /// The largest lane by the same tree, with [`max`](Floats::max) of the lower and the upper lane.
    fn largest(self, v: Self::F) -> f32;

    /// Lane `l` is `x[l]`, or `fill` from `x.len()` on. `x` has at most 16 values.
    #[inline(always)]
    fn load_first(self, x: &[f32], fill: f32) -> Self::F {
        if let Ok(x) = x.try_into() {
            return self.load(x);
        }
        let mut lanes = [fill; LANES];
        lanes[..x.len()].copy_from_slice(x);
        self.load(&lanes)
    }

    /// Writes the first `out.len()` lanes, at most 16.
    #[inline(always)]
    fn store_first(self, v: Self::F, out: &mut [f32]) {
        if let Ok(out) = <&mut [_; LANES]>::try_from(&mut *out) {
            return self.store(v, out);
        }
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        out.copy_from_slice(&lanes[..out.len()]);
    }

    /// [`load_f16`](Floats::load_f16) of at most 16 values, zero from `x.len()` on.
    #[inline(always)]
    fn load_f16_first(self, x: &[u16]) -> Self::F {
        if let Ok(x) = x.try_into() {
            return self.load_f16(x);
        }
        let mut lanes = [0; LANES];
        lanes[..x.len()].copy_from_slice(x);
        self.load_f16(&lanes)
    }

    /// Writes the first `out.len()` lanes as f16 bits, at most 16.
    #[inline(always)]
    fn store_f16_first(self, v: Self::F, out: &mut [u16]) {
        if let Ok(out) = <&mut [_; LANES]>::try_from(&mut *out) {
            return self.store_f16(v, out);
        }
        let mut lanes = [0; LANES];
        self.store_f16(v, &mut lanes);
        out.copy_from_slice(&lanes[..out.len()]);
    }

    /// [`load_bf16`](Floats::load_bf16) of at most 16 values, zero from `x.len()` on.
    #[inline(always)]
    fn load_bf16_first(self, x: &[u16]) -> Self::F {
        if let Ok(x) = x.try_into() {
            return self.load_bf16(x);
        }
        let mut lanes = [0; LANES];
        lanes[..x.len()].copy_from_slice(x);
        self.load_bf16(&lanes)
    }
}
