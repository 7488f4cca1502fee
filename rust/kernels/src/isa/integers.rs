//! Integer and float operations on vectors with one matrix row per lane, for the matrix products.

use core::ops::Range;

use super::unpacking::Unpacking;

/// The arithmetic of a SIMD level on what [`Unpacking`] took apart.
///
/// Sums are exact, so a level is free in how it forms them.
pub(crate) trait Integers: Unpacking {
    /// Tokens per tile of the GEMM: 3, 4 or 6.
    const TILE: usize;

    /// Whether dot products have room for weights that are shifted up within their bytes, and are shifted down as a whole:
    /// one operation for sixteen weights where each four would take one.
    const SHIFTS_SUMS: bool;

    /// Whether sub-blocks of a super-block with the same scale are multiplied together.
    const JOINS: bool = false;

    /// Whether the loop over blocks takes four at a time, for one token: where it is instructions that count.
    const FOURS: bool = false;

    /// Dot products under way.
    type Dot: Copy;

    /// Sums of dot products under way that [`dot16`](Integers::dot16) adds to.
    type Sum: Copy;

    /// The scales of sub-block `byte` of four, as [`end_scaled`](Integers::end_scaled) wants them for bytes up to `peak`.
    /// `signed` says whether the bytes are.
    fn sub_scale(self, w: Self::Words, byte: usize, peak: u32, signed: bool) -> Self::Words;

    /// As [`sub_scale`](Integers::sub_scale), of the first byte or the last, which may be the cheaper ones to take.
    #[inline(always)]
    fn outer_scale(self, w: Self::Words, last: bool, peak: u32, signed: bool) -> Self::Words {
        self.sub_scale(w, if last { 3 } else { 0 }, peak, signed)
    }

    /// Bytes `2 pair` and `2 pair + 1` of each lane as i16, times `factor` (products fit i16).
    fn scale_pair(self, w: Self::Words, pair: usize, signed: bool, factor: i32) -> Self::Words;

    /// `a.0 * b.0 + a.1 * b.1` of the i16 pairs of each lane.
    fn pair_product(self, a: Self::Words, b: Self::Words) -> Self::Words;

    /// [`pair_dot`](Integers::pair_dot) with the pair at `p`.
    ///
    /// # Safety
    /// Four bytes are readable.
    #[inline(always)]
    unsafe fn pair_dot_at(self, acc: Self::Words, a: Self::Words, p: *const u8) -> Self::Words {
        // SAFETY: by the contract.
        self.pair_dot(acc, a, unsafe { self.splat_at(p) })
    }

    /// `acc + a.0 * b.0 + a.1 * b.1` of the i16 pairs of each lane.
    fn pair_dot(self, acc: Self::Words, a: Self::Words, b: Self::Words) -> Self::Words;

    /// After how many [`step`](Integers::step)s with bytes up to `peak` a dot product must end: a power of two.
    fn steps(self, peak: u32) -> usize;

    /// A peak that is not below `peak` and scales few dot products at a time best: what sixteen weights sum up to is scaled
    /// at once, even if that takes more than a pair product.
    fn whole_peak(self, peak: u32) -> u32;

    /// As [`steps`](Integers::steps), at most four, for dot products that [`end_scaled`](Integers::end_scaled) ends.
    fn scaled_steps(self, peak: u32) -> usize;

    /// Starts a dot product that will be added to `acc` by [`end`](Integers::end).
    fn begin(self, acc: Self::Words) -> Self::Dot;

    /// Starts a dot product for [`end_scaled`](Integers::end_scaled).
    fn begin_scaled(self) -> Self::Dot;

    /// Adds `Σ w[b] * x[b]` over the four bytes of each lane. Bytes of `w` are unsigned up to `peak`, or
    /// [`signed_bytes`](Unpacking::signed_bytes) for [`SIGNED`](crate::unpack::SIGNED); those of `x` are within ±127.
    fn step(self, dot: Self::Dot, w: Self::Words, x: Self::Words, peak: u32) -> Self::Dot;

    /// `acc` plus the dot product; `acc` is what [`begin`](Integers::begin) was given.
    fn end(self, dot: Self::Dot, acc: Self::Words, peak: u32) -> Self::Words;

    /// `acc + scale * dot`, with a scale from [`sub_scale`](Integers::sub_scale). The dot product has
    /// at most [`scaled_steps`](Integers::scaled_steps).
    fn end_scaled(self, dot: Self::Dot, acc: Self::Words, scale: Self::Words, peak: u32) -> Self::Words;

    /// To f32, to nearest even.
    fn to_floats(self, w: Self::Words) -> Self::Floats;

    /// `x` in every lane.
    fn splat_float(self, x: f32) -> Self::Floats;

    /// The f32 at `p` in every lane.
    ///
    /// # Safety
    /// Four bytes are readable.
    unsafe fn splat_float_at(self, p: *const u8) -> Self::Floats;

    /// Lane `r` from `p[r]`.
    ///
    /// # Safety
    /// `ROWS` values are readable; no alignment.
    unsafe fn load_floats(self, p: *const f32) -> Self::Floats;

    /// The inverse of [`load_floats`](Integers::load_floats).
    ///
    /// # Safety
    /// `ROWS` values are writable; no alignment.
    unsafe fn store_floats(self, p: *mut f32, v: Self::Floats);

    /// `a * b`.
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;

    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;

    /// `c - a * b`, rounded once.
    fn fnma(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;

    /// The largest bit pattern of the magnitudes, so that infinities and NaN come out on top.
    fn largest_magnitude(self, x: &[[f32; 16]]) -> u32;

    /// `q = round_ties_even(x * factor)`, and the sum of `q`. The products are within ±127.5.
    fn quantize(self, x: &[f32; 16], factor: f32, q: &mut [u8; 16]) -> i32;

    /// Sums of zero.
    fn sum(self) -> Self::Sum;

    /// Adds `start` to sums of zero.
    fn start(self, sum: &mut Self::Sum, start: Self::Words);

    /// Adds the products of `pairs`, of which all lanes are equal, and the pair of i16 at `p` to sums of zero.
    ///
    /// # Safety
    /// Four bytes are readable.
    #[inline(always)]
    unsafe fn start_pair(self, sum: &mut Self::Sum, pairs: Self::Words, p: *const u8) {
        // SAFETY: by the contract.
        self.start(sum, self.pair_product(pairs, unsafe { self.splat_at(p) }));
    }

    /// The sums, which are zero from now on.
    fn total(self, sum: &mut Self::Sum) -> Self::Words;

    /// Adds `factor * Σ bytes[j] * sums[j]` over the 16 sub-blocks of a super-block: byte `j % 4` of word `j / 4` with i16 `j` at the
    /// sums of each token. Unsigned bytes are below 128; a product of a byte and the factor fits i16.
    ///
    /// # Safety
    /// 32 bytes are readable at each of `sums`.
    #[inline(always)]
    unsafe fn add_sums<const T: usize>(
        self,
        total: &mut [Self::Words; T],
        bytes: &[Self::Words; 4],
        signed: bool,
        factor: i32,
        sums: &[*const u8; T],
    ) {
        for p in 0..8 {
            let pairs = self.scale_pair(bytes[p / 2], p % 2, signed, factor);
            for t in 0..T {
                // SAFETY: by the contract.
                total[t] = unsafe { self.pair_dot_at(total[t], pairs, sums[t].add(4 * p)) };
            }
        }
    }

    /// Adds the dot products of 16 weights, in the order of the level; of weights times `2^SHIFT`, which is 0 without
    /// [`SHIFTS_SUMS`](Integers::SHIFTS_SUMS).
    ///
    /// # Safety
    /// 16 bytes are readable at `x`.
    unsafe fn dot16<const SHIFT: u32>(self, acc: Self::Sum, w: &[Self::Words; 4], x: *const u8, peak: u32)
    -> Self::Sum;

    /// As [`dot16`](Integers::dot16), times `scale`.
    ///
    /// # Safety
    /// 16 bytes are readable at `x`.
    unsafe fn dot16_scaled<const SHIFT: u32>(
        self,
        acc: Self::Sum,
        w: &[Self::Words; 4],
        x: *const u8,
        scale: Self::Words,
        peak: u32,
    ) -> Self::Sum;

    /// As [`dot16_scaled`](Integers::dot16_scaled), of 32 weights with the same scale.
    ///
    /// # Safety
    /// 32 bytes are readable at `x`.
    #[inline(always)]
    unsafe fn dot32_scaled(
        self,
        acc: Self::Sum,
        w: &[[Self::Words; 4]; 2],
        x: *const u8,
        scale: Self::Words,
        peak: u32,
    ) -> Self::Sum {
        // SAFETY: by the contract.
        unsafe {
            let acc = self.dot16_scaled::<0>(acc, &w[0], x, scale, peak);
            self.dot16_scaled::<0>(acc, &w[1], x.add(16), scale, peak)
        }
    }

    /// Adds to `dot` the products of the words `words` of a panel with `V` vectors of rows and the activations of `T` tokens. Word
    /// `i` of vector `v` is at `panel + (V i + v) 4 ROWS`, its activations at `x + 4 i`. `words` begins and ends at multiples of
    /// [`scaled_steps`](Integers::scaled_steps).
    ///
    /// # Safety
    /// What is named is readable.
    #[inline(always)]
    unsafe fn tile<const T: usize, const V: usize>(
        self,
        dot: &mut [[Self::Dot; V]; T],
        panel: *const u8,
        x: &[*const u8; T],
        words: Range<usize>,
        peak: u32,
    ) {
        for i in words {
            let mut w = [self.splat(0); V];
            for (v, w) in w.iter_mut().enumerate() {
                // SAFETY: by the contract.
                *w = unsafe { self.load(panel.add((V * i + v) * 4 * Self::ROWS)) };
            }
            for t in 0..T {
                // SAFETY: by the contract.
                let x = unsafe { self.splat_at(x[t].add(4 * i)) };
                for v in 0..V {
                    dot[t][v] = self.step(dot[t][v], w[v], x, peak);
                }
            }
        }
    }
}
