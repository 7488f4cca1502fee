//! Operations that take blocks of weights apart, with one matrix row per lane.

use crate::format::grid::Grid;
use crate::unpack::Rows;

/// The vectors of a SIMD level that hold weights, and what unpacking does with them. A lane is a row of weights; bytes of a lane are
/// neighbours along k.
///
/// Sixteen bytes of each row are four vectors: words, of which `[i]` holds bytes `4 i..4 i + 4` of all rows, or in the order of the
/// level. That is the same on levels that multiply lane by lane. Where dot products add up neighbours anyway, it is cheaper to leave a
/// row in one piece and to bring the sums together in the end: then `[r]` holds all sixteen bytes of row `r`. What treats every byte
/// alike works on both.
///
/// The trait is implemented by values that exist only where the CPU has the instructions; the `unsafe` operations are those
/// that take pointers.
pub(crate) trait Unpacking: Copy {
    /// Lanes of a vector.
    const ROWS: usize;

    /// Whether words that lie scattered are copied ahead of their use, and lines of weights are asked for ahead: where there are more
    /// rows than the hardware follows as streams, and vectors are slow to gather.
    const AHEAD: bool;

    /// What [`signed_bytes`](Unpacking::signed_bytes) adds to the bytes.
    const SIGNED_OFFSET: i32;

    /// One i32, or four bytes, per lane.
    type Words: Copy;

    /// One f32 per lane.
    type Floats: Copy;

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

    /// Lane `r` from the first four bytes of row `r`.
    ///
    /// # Safety
    /// Four bytes are readable in each of `ROWS` rows.
    #[inline(always)]
    unsafe fn scattered(self, rows: Rows) -> Self::Words {
        let mut words = [0u32; 16];
        for (r, word) in words[..Self::ROWS].iter_mut().enumerate() {
            // SAFETY: by the contract.
            *word = unsafe { rows.block.wrapping_add(r * rows.stride).cast::<u32>().read_unaligned() };
        }
        // SAFETY: there are `ROWS` words.
        unsafe { self.load(words.as_ptr().cast()) }
    }

    /// Lane `r` from the bytes `4 r..` at `p`.
    ///
    /// # Safety
    /// `4 ROWS` bytes are readable.
    unsafe fn load(self, p: *const u8) -> Self::Words;

    /// The inverse of [`load`](Unpacking::load).
    ///
    /// # Safety
    /// `4 ROWS` bytes are writable.
    unsafe fn store(self, p: *mut u8, w: Self::Words);

    /// Sixteen bytes of each row, in the order of the level.
    ///
    /// # Safety
    /// Sixteen bytes are readable in each of `ROWS` rows.
    unsafe fn chunk(self, rows: Rows) -> [Self::Words; 4];

    /// From the order of the level to words, or back: `[i]` of words holds bytes `4 i..4 i + 4` of each row.
    #[inline(always)]
    fn turn(self, chunk: [Self::Words; 4]) -> [Self::Words; 4] {
        chunk
    }

    /// Sixteen bytes of each row: `[i]` holds bytes `4 i..4 i + 4`.
    ///
    /// # Safety
    /// As for [`chunk`](Unpacking::chunk).
    #[inline(always)]
    unsafe fn words(self, rows: Rows) -> [Self::Words; 4] {
        // SAFETY: by the contract.
        self.turn(unsafe { self.chunk(rows) })
    }

    /// The first eight bytes of each row of `a`, then those of `b`; and the other eight. All in the order of the level.
    #[inline(always)]
    fn halves(self, a: [Self::Words; 4], b: [Self::Words; 4]) -> [[Self::Words; 4]; 2] {
        [[a[0], a[1], b[0], b[1]], [a[2], a[3], b[2], b[3]]]
    }

    /// The f16 in the lower half of each lane, as f32.
    fn lower_halves(self, w: Self::Words) -> Self::Floats;

    /// `words` and `rows` as they are, where it pays to have the words before anything of the rows is read.
    #[inline(always)]
    fn before<const N: usize>(self, words: [Self::Words; N], rows: Rows) -> ([Self::Words; N], Rows) {
        (words, rows)
    }

    /// `p`, where it pays to move it on by itself and not by an offset that other pointers share.
    #[inline(always)]
    fn apart(self, p: *const u8) -> *const u8 {
        p
    }

    /// The f16 in the first two bytes of each row, as f32.
    ///
    /// # Safety
    /// Four bytes are readable in each of `ROWS` rows.
    #[inline(always)]
    unsafe fn scattered_halves(self, rows: Rows) -> Self::Floats {
        // SAFETY: by the contract.
        self.lower_halves(unsafe { self.scattered(rows) })
    }

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

    /// A table for [`look_up`](Unpacking::look_up).
    fn table(self, bytes: &[u8; 16]) -> Self::Table;

    /// Per byte `table[(w >> SHIFT) & 15]`, with a `SHIFT` of 0 or 4: the lower or the upper nibble.
    fn look_up<const SHIFT: u32>(self, table: Self::Table, w: Self::Words) -> Self::Words;

    /// Per byte `a - b`, wrapping.
    fn sub_bytes(self, a: Self::Words, b: Self::Words) -> Self::Words;

    /// Bytes `[0, 0, 1, 1]` and `[2, 2, 3, 3]` of each lane.
    fn double_bytes(self, w: Self::Words) -> (Self::Words, Self::Words);

    /// The five digits of each byte as a fraction in base 3, `n` from 0: `((byte * 3^n) % 256 * 3) >> 8`.
    fn trits(self, w: Self::Words) -> [Self::Words; 5];

    /// Byte `i` of each lane is byte `bytes[i]` of `a`, or byte `bytes[i] - 4` of `b`.
    fn pick(self, a: Self::Words, b: Self::Words, bytes: [u8; 4]) -> Self::Words;

    /// Byte `b` of a row is `VALUE`, a power of two, where bit `16 half + b` of its lane is set, else 0. In the order of the level.
    fn sixteen_bits<const VALUE: u8>(self, w: Self::Words, half: usize) -> [Self::Words; 4];

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
    /// entries of four. Byte `b` of a row is [`Grid::bytes`] of code `b`, with bit `16 HALF + b` of `signs` as its sign. In the
    /// order of the level.
    fn grid_weights<const N: usize, const WIDTH: usize, const HALF: usize>(
        self,
        grid: &'static Grid<N, WIDTH>,
        entries: Self::Entries,
        signs: Self::Words,
    ) -> [Self::Words; 4];

    /// Signed bytes as the level multiplies them: plus [`SIGNED_OFFSET`](Unpacking::SIGNED_OFFSET).
    fn signed_bytes(self, w: Self::Words) -> Self::Words;

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

    /// [`look_up`](Unpacking::look_up) of four words.
    #[inline(always)]
    fn look_up_each<const SHIFT: u32>(self, table: Self::Table, [a, b, c, d]: [Self::Words; 4]) -> [Self::Words; 4] {
        [
            self.look_up::<SHIFT>(table, a),
            self.look_up::<SHIFT>(table, b),
            self.look_up::<SHIFT>(table, c),
            self.look_up::<SHIFT>(table, d),
        ]
    }

    /// [`field`](Unpacking::field) of four words.
    #[inline(always)]
    fn fields<const SHIFT: u32, const MASK: u8>(self, [a, b, c, d]: [Self::Words; 4]) -> [Self::Words; 4] {
        [
            self.field::<SHIFT, MASK>(a),
            self.field::<SHIFT, MASK>(b),
            self.field::<SHIFT, MASK>(c),
            self.field::<SHIFT, MASK>(d),
        ]
    }

    /// [`field_in_place`](Unpacking::field_in_place) of four words.
    #[inline(always)]
    fn fields_in_place<const SHIFT: u32, const MASK: u8>(self, [a, b, c, d]: [Self::Words; 4]) -> [Self::Words; 4] {
        [
            self.field_in_place::<SHIFT, MASK>(a),
            self.field_in_place::<SHIFT, MASK>(b),
            self.field_in_place::<SHIFT, MASK>(c),
            self.field_in_place::<SHIFT, MASK>(d),
        ]
    }

    /// [`field_up`](Unpacking::field_up) of four words.
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
}
