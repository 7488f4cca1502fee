//! Operations on vectors with one matrix row per lane, for the integer matrix products.

use core::ops::Range;

use crate::format::grid::Grid;
use crate::unpack::Rows;

/// The integer operations of a SIMD level. A lane is a row of weights; bytes of a lane are neighbours along k.
///
/// Sums are exact, so a level is free in how it forms them. The trait is implemented by values that exist only where the CPU
/// has the instructions; the `unsafe` operations are those that take pointers.
pub(crate) trait Integers: Copy {
    /// Lanes of a vector.
    const ROWS: usize;
    /// Tokens per tile of the GEMM.
    const TILE: usize;
    /// Whether dot products have room for weights that are shifted up within their bytes, and are shifted down as a whole:
    /// one operation for sixteen weights where each four would take one.
    const SHIFTS_SUMS: bool;
    /// What [`signed_bytes`](Integers::signed_bytes) adds to the bytes.
    const SIGNED_OFFSET: i32;

    /// One i32, or four bytes, per lane.
    type Words: Copy;
    /// One f32 per lane.
    type Floats: Copy;
    /// Dot products under way.
    type Dot: Copy;
    /// Four entries of a grid per lane.
    type Entries: Copy;
    /// Sixteen bytes to choose from.
    type Table: Copy;

    /// `x` in every lane.
    fn splat(self, x: i32) -> Self::Words;

    /// The four bytes at `p` in every lane.
    ///
    /// # Safety
    /// Four bytes are readable.
    unsafe fn splat_at(self, p: *const u8) -> Self::Words;

    /// Lane `r` from the bytes `4 r..` at `p`.
    ///
    /// # Safety
    /// `4 ROWS` bytes are readable.
    unsafe fn load(self, p: *const u8) -> Self::Words;

    /// The inverse of [`load`](Integers::load).
    ///
    /// # Safety
    /// `4 ROWS` bytes are writable.
    unsafe fn store(self, p: *mut u8, w: Self::Words);

    /// Sixteen bytes of each row: `[i]` holds bytes `4 i..4 i + 4`.
    ///
    /// # Safety
    /// Sixteen bytes are readable in each of `ROWS` rows.
    unsafe fn chunk(self, rows: Rows) -> [Self::Words; 4];

    /// The f16 in the lower half of each lane, as f32.
    fn lower_halves(self, w: Self::Words) -> Self::Floats;

    /// The f16 in the upper half of each lane, as f32.
    fn upper_halves(self, w: Self::Words) -> Self::Floats;

    /// `2^(e - 128)` of the lowest byte `e` of each lane, exact: subnormal for 0 and 1, `2^127` for 255.
    fn exponents(self, w: Self::Words) -> Self::Floats;

    /// Half the unsigned E4M3 in the byte `byte` of each lane, exact: 0 for 0x7f; else the top bit does not count.
    fn small_floats(self, w: Self::Words, byte: usize) -> Self::Floats;

    /// The four bytes that begin in the middle of `a` and end in the middle of `b`.
    fn between(self, a: Self::Words, b: Self::Words) -> Self::Words;

    /// Asks for the cache line of the block in every row, for the second-level cache.
    fn prefetch(self, rows: Rows);

    /// Asks for the cache line at `p`, for the second-level cache.
    fn prefetch_line(self, p: *const u8);

    /// Bitwise or.
    fn or(self, a: Self::Words, b: Self::Words) -> Self::Words;

    /// Per byte `(w >> SHIFT) & MASK`; `MASK < 256 >> SHIFT`.
    fn field<const SHIFT: u32, const MASK: u8>(self, w: Self::Words) -> Self::Words;

    /// Per byte `w & (MASK << SHIFT)`.
    fn field_in_place<const SHIFT: u32, const MASK: u8>(self, w: Self::Words) -> Self::Words;

    /// Per byte `(w << SHIFT) & MASK`; the lower `SHIFT` bits of `MASK` are zero.
    fn field_up<const SHIFT: u32, const MASK: u8>(self, w: Self::Words) -> Self::Words;

    /// A table for [`look_up`](Integers::look_up).
    fn table(self, bytes: &[u8; 16]) -> Self::Table;

    /// Per byte `table[(w >> SHIFT) & 15]`, with a `SHIFT` of 0 or 4: the lower or the upper nibble.
    fn look_up<const SHIFT: u32>(self, table: Self::Table, w: Self::Words) -> Self::Words;

    /// Per byte `a - b`, wrapping.
    fn sub_bytes(self, a: Self::Words, b: Self::Words) -> Self::Words;

    /// Bytes `[0, 0, 1, 1]` and `[2, 2, 3, 3]` of each lane.
    fn double_bytes(self, w: Self::Words) -> (Self::Words, Self::Words);

    /// Byte `b` is `VALUE`, a power of two, where bit `4 i + b` of the lane is set, else 0 (`i < 8`).
    fn bits<const VALUE: u8>(self, w: Self::Words, i: usize) -> Self::Words;

    /// The five digits of each byte as a fraction in base 3, `n` from 0: `((byte * 3^n) % 256 * 3) >> 8`.
    fn trits(self, w: Self::Words) -> [Self::Words; 5];

    /// Byte `i` of each lane is byte `bytes[i]` of `a`, or byte `bytes[i] - 4` of `b`.
    fn pick(self, a: Self::Words, b: Self::Words, bytes: [u8; 4]) -> Self::Words;

    /// Byte `b` of each lane is bits `FROM + WIDTH b..` of the lane, `WIDTH` of them; all four are inside it.
    fn spread<const WIDTH: u32, const FROM: u32>(self, w: Self::Words) -> Self::Words;

    /// Bit `BIT` of each lane in all of its bits.
    fn bit_everywhere<const BIT: u32>(self, w: Self::Words) -> Self::Words;

    /// 255 for bytes with bit 7, 0 for the others.
    fn negative_bytes(self, w: Self::Words) -> Self::Words;

    /// Per byte `w & 127`, with a bit 7 that makes the number of set bits even.
    fn with_parity(self, w: Self::Words) -> Self::Words;

    /// The four entries of `grid` with the numbers `(low[b] + 256 * high[b]) % N`, for the bytes of each lane.
    fn entries<const N: usize, const WIDTH: usize, const M: usize>(
        self,
        grid: &'static Grid<N, WIDTH>,
        low: [Self::Words; M],
        high: [Self::Words; M],
    ) -> [Self::Entries; M];

    /// Sixteen weights from `entries`: 2 and 3 for `HALF` 1 of entries of eight weights, 0 and 1 for half 0, all four of
    /// entries of four. Byte `b` of word `i` is [`Grid::bytes`] of code `4 i + b`, with bit `16 HALF + 4 i + b` of `signs` as its
    /// sign.
    fn grid_weights<const N: usize, const WIDTH: usize, const HALF: usize>(
        self,
        grid: &'static Grid<N, WIDTH>,
        entries: Self::Entries,
        signs: Self::Words,
    ) -> [Self::Words; 4];

    /// Signed bytes as the level multiplies them: plus [`SIGNED_OFFSET`](Integers::SIGNED_OFFSET).
    fn signed_bytes(self, w: Self::Words) -> Self::Words;

    /// The scales of sub-block `byte` of four, as [`end_scaled`](Integers::end_scaled) wants them for bytes up to `peak`.
    /// `signed` says whether the bytes are.
    fn sub_scale(self, w: Self::Words, byte: usize, peak: u32, signed: bool) -> Self::Words;

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
    /// [`signed_bytes`](Integers::signed_bytes) for [`SIGNED`](crate::unpack::SIGNED); those of `x` are within ±127.
    fn step(self, dot: Self::Dot, w: Self::Words, x: Self::Words, peak: u32) -> Self::Dot;

    /// `acc` plus the dot product; `acc` is what [`begin`](Integers::begin) was given.
    fn end(self, dot: Self::Dot, acc: Self::Words, peak: u32) -> Self::Words;

    /// The dot product divided by `2^SHIFT`, which leaves no rest; with [`SHIFTS_SUMS`](Integers::SHIFTS_SUMS).
    fn shift_down<const SHIFT: u32>(self, dot: Self::Dot) -> Self::Dot;

    /// `acc + dot`, of a dot product from [`begin_scaled`](Integers::begin_scaled), with
    /// [`SHIFTS_SUMS`](Integers::SHIFTS_SUMS).
    fn end_apart(self, dot: Self::Dot, acc: Self::Words) -> Self::Words;

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

    /// [`begin`](Integers::begin), [`step`](Integers::step)s over 16 weights, [`end`](Integers::end); of weights times
    /// `2^SHIFT`, which is 0 without [`SHIFTS_SUMS`](Integers::SHIFTS_SUMS).
    ///
    /// # Safety
    /// 16 bytes are readable at `x`.
    #[inline(always)]
    unsafe fn dot16<const SHIFT: u32>(
        self,
        acc: Self::Words,
        w: &[Self::Words; 4],
        x: *const u8,
        peak: u32,
    ) -> Self::Words {
        if SHIFT > 0 {
            // SAFETY: by the contract.
            let dot = unsafe { self.steps4(self.begin_scaled(), w, x, 0..4, peak) };
            return self.end_apart(self.shift_down::<SHIFT>(dot), acc);
        }
        let mut acc = acc;
        let steps = self.steps(peak).min(4);
        let mut i = 0;
        while i < 4 {
            // SAFETY: by the contract.
            let dot = unsafe { self.steps4(self.begin(acc), w, x, i..i + steps, peak) };
            acc = self.end(dot, acc, peak);
            i += steps;
        }
        acc
    }

    /// As [`dot16`](Integers::dot16), times `scale`.
    ///
    /// # Safety
    /// 16 bytes are readable at `x`.
    #[inline(always)]
    unsafe fn dot16_scaled<const SHIFT: u32>(
        self,
        acc: Self::Words,
        w: &[Self::Words; 4],
        x: *const u8,
        scale: Self::Words,
        peak: u32,
    ) -> Self::Words {
        let mut acc = acc;
        let steps = self.scaled_steps(peak);
        let mut i = 0;
        while i < 4 {
            // SAFETY: by the contract.
            let dot = unsafe { self.steps4(self.begin_scaled(), w, x, i..i + steps, peak) };
            let dot = if SHIFT > 0 { self.shift_down::<SHIFT>(dot) } else { dot };
            acc = self.end_scaled(dot, acc, scale, peak);
            i += steps;
        }
        acc
    }

    /// The [`step`](Integers::step)s `range` of four.
    ///
    /// # Safety
    /// 16 bytes are readable at `x`.
    #[inline(always)]
    unsafe fn steps4(
        self,
        dot: Self::Dot,
        w: &[Self::Words; 4],
        x: *const u8,
        range: Range<usize>,
        peak: u32,
    ) -> Self::Dot {
        let mut dot = dot;
        for i in range {
            // SAFETY: i < 4.
            dot = self.step(dot, w[i], unsafe { self.splat_at(x.add(4 * i)) }, peak);
        }
        dot
    }

    /// The lower nibbles of each byte.
    #[inline(always)]
    fn low_nibbles(self, words: [Self::Words; 4]) -> [Self::Words; 4] {
        self.fields::<0, 0x0f>(words)
    }

    /// The upper nibbles of each byte.
    #[inline(always)]
    fn high_nibbles(self, words: [Self::Words; 4]) -> [Self::Words; 4] {
        self.fields::<4, 0x0f>(words)
    }

    /// [`look_up`](Integers::look_up) of four words.
    #[inline(always)]
    fn look_up_each<const SHIFT: u32>(self, table: Self::Table, [a, b, c, d]: [Self::Words; 4]) -> [Self::Words; 4] {
        [
            self.look_up::<SHIFT>(table, a),
            self.look_up::<SHIFT>(table, b),
            self.look_up::<SHIFT>(table, c),
            self.look_up::<SHIFT>(table, d),
        ]
    }

    /// [`field`](Integers::field) of four words.
    #[inline(always)]
    fn fields<const SHIFT: u32, const MASK: u8>(self, [a, b, c, d]: [Self::Words; 4]) -> [Self::Words; 4] {
        [
            self.field::<SHIFT, MASK>(a),
            self.field::<SHIFT, MASK>(b),
            self.field::<SHIFT, MASK>(c),
            self.field::<SHIFT, MASK>(d),
        ]
    }

    /// [`field_in_place`](Integers::field_in_place) of four words.
    #[inline(always)]
    fn fields_in_place<const SHIFT: u32, const MASK: u8>(self, [a, b, c, d]: [Self::Words; 4]) -> [Self::Words; 4] {
        [
            self.field_in_place::<SHIFT, MASK>(a),
            self.field_in_place::<SHIFT, MASK>(b),
            self.field_in_place::<SHIFT, MASK>(c),
            self.field_in_place::<SHIFT, MASK>(d),
        ]
    }

    /// [`field_up`](Integers::field_up) of four words.
    #[inline(always)]
    fn fields_up<const SHIFT: u32, const MASK: u8>(self, [a, b, c, d]: [Self::Words; 4]) -> [Self::Words; 4] {
        [
            self.field_up::<SHIFT, MASK>(a),
            self.field_up::<SHIFT, MASK>(b),
            self.field_up::<SHIFT, MASK>(c),
            self.field_up::<SHIFT, MASK>(d),
        ]
    }

    /// Bitwise or of four words.
    #[inline(always)]
    fn or_each(self, a: [Self::Words; 4], b: [Self::Words; 4]) -> [Self::Words; 4] {
        [self.or(a[0], b[0]), self.or(a[1], b[1]), self.or(a[2], b[2]), self.or(a[3], b[3])]
    }

    /// The four words of [`bits`](Integers::bits) for 16 weights, `half` of 32.
    #[inline(always)]
    fn sixteen_bits<const VALUE: u8>(self, w: Self::Words, half: usize) -> [Self::Words; 4] {
        let i = 4 * half;
        [
            self.bits::<VALUE>(w, i),
            self.bits::<VALUE>(w, i + 1),
            self.bits::<VALUE>(w, i + 2),
            self.bits::<VALUE>(w, i + 3),
        ]
    }
}
