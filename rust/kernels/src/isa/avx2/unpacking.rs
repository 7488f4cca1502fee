//! Taking blocks of 8 rows apart.

use core::arch::x86_64::*;

use super::Avx2;
use crate::format::grid::Grid;
use crate::isa::shuffles::{BYTE, choices, gather};
use crate::isa::unpacking::Unpacking;
use crate::unpack::Rows;

impl<const VNNI: bool> Avx2<VNNI> {
    /// Byte `b` is `VALUE` where bit `4 i + b` of the lane is set, else 0.
    #[inline(always)]
    fn bits<const VALUE: u8>(self, w: __m256i, i: usize) -> __m256i {
        let bytes = self.shuffle(w, &const { choices([BYTE; 4]) }[i / 2]);
        let bits = if i.is_multiple_of(2) { 0x0804_0201 } else { 0x8040_2010u32 as i32 };
        // SAFETY: the level has AVX2.
        unsafe {
            let bits = _mm256_set1_epi32(bits);
            _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(bytes, bits), bits), _mm256_set1_epi8(VALUE as i8))
        }
    }

    /// Shuffles the bytes of each dword.
    #[inline(always)]
    pub(super) fn shuffle(self, w: __m256i, mask: &[i8; 16]) -> __m256i {
        // SAFETY: the level has AVX2; 16 bytes are loaded from an array of 16.
        unsafe { _mm256_shuffle_epi8(w, _mm256_broadcastsi128_si256(_mm_loadu_si128(mask.as_ptr().cast()))) }
    }
}

impl<const VNNI: bool> Avx2<VNNI> {
    /// The words of entries `low + 256 * high` of the grid, for byte `e` of each lane.
    #[inline(always)]
    fn gather<const N: usize, const WIDTH: usize>(
        self,
        grid: &'static Grid<N, WIDTH>,
        low: __m256i,
        high: __m256i,
        e: usize,
    ) -> __m256i {
        let mut number = self.shuffle(low, &const { choices([BYTE, -1, -1, -1]) }[e]);
        // SAFETY: the level has AVX2; a number is below N, whatever the bytes.
        unsafe {
            if N > 256 {
                let high = _mm256_and_si256(high, _mm256_set1_epi8((N / 256 - 1) as i8));
                number = _mm256_or_si256(number, self.shuffle(high, &const { choices([-1, BYTE, -1, -1]) }[e]));
            }
            _mm256_i32gather_epi32::<4>(grid.words.as_ptr().cast(), number)
        }
    }

    /// The bytes of codes whose signs are those of `bits` in the bytes of `signs`.
    #[inline(always)]
    fn signed_codes<const N: usize, const WIDTH: usize>(
        self,
        grid: &'static Grid<N, WIDTH>,
        codes: __m256i,
        signs: __m256i,
        bits: i32,
    ) -> __m256i {
        // SAFETY: the level has AVX2; the table has more than 16 bytes.
        unsafe {
            let bits = _mm256_set1_epi32(bits);
            let negative = _mm256_cmpeq_epi8(_mm256_and_si256(signs, bits), bits);
            let sign = _mm256_and_si256(negative, _mm256_set1_epi8(1 << Grid::<N, WIDTH>::BITS));
            let bytes = _mm256_broadcastsi128_si256(_mm_loadu_si128(grid.bytes.as_ptr().cast()));
            _mm256_shuffle_epi8(bytes, _mm256_or_si256(codes, sign))
        }
    }
}

// SAFETY of the intrinsics here: a value of `Avx2` exists only where the CPU has the features of the level, with AVX-VNNI for
// `VNNI`. Pointers are readable or writable by the contracts of the trait.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<const VNNI: bool> Unpacking for Avx2<VNNI> {
    const ROWS: usize = 8;
    const AHEAD: bool = true;

    // Without VNNI, products of pairs are added in i16, where 255 * 127 * 2 has no room.
    const SIGNED_OFFSET: i32 = if VNNI { 128 } else { 0 };

    type Words = __m256i;
    type Floats = __m256;

    /// The table in both halves.
    type Table = __m256i;

    /// The words of the grid.
    type Entries = [__m256i; 4];

    #[inline(always)]
    fn splat(self, x: i32) -> __m256i {
        unsafe { _mm256_set1_epi32(x) }
    }

    #[inline(always)]
    unsafe fn splat_at(self, p: *const u8) -> __m256i {
        unsafe { _mm256_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn load(self, p: *const u8) -> __m256i {
        unsafe { _mm256_loadu_si256(p.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut u8, w: __m256i) {
        unsafe { _mm256_storeu_si256(p.cast(), w) }
    }

    #[inline(always)]
    unsafe fn chunk(self, rows: Rows) -> [__m256i; 4] {
        unsafe {
            // The upper half of `x[i]` is row 4 + i, so that the transposition below leaves the rows in order.
            let mut x = [_mm256_setzero_si256(); 4];
            let [first, _] = rows.eighths();
            for (i, x) in x.iter_mut().enumerate() {
                let row = first.add(i * rows.stride);
                let lower = _mm256_castsi128_si256(_mm_loadu_si128(row.cast()));
                *x = _mm256_inserti128_si256::<1>(lower, _mm_loadu_si128(row.add(4 * rows.stride).cast()));
            }
            let (a, b) = (_mm256_unpacklo_epi32(x[0], x[1]), _mm256_unpacklo_epi32(x[2], x[3]));
            let (c, d) = (_mm256_unpackhi_epi32(x[0], x[1]), _mm256_unpackhi_epi32(x[2], x[3]));
            [
                _mm256_unpacklo_epi64(a, b),
                _mm256_unpackhi_epi64(a, b),
                _mm256_unpacklo_epi64(c, d),
                _mm256_unpackhi_epi64(c, d),
            ]
        }
    }

    #[inline(always)]
    fn lower_halves(self, w: __m256i) -> __m256 {
        unsafe {
            // Unsigned saturation keeps values below 2^16; packing works within 128-bit halves.
            let lower = _mm256_and_si256(w, _mm256_set1_epi32(0xffff));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(lower, lower));
            _mm256_cvtph_ps(_mm256_castsi256_si128(words))
        }
    }

    #[inline(always)]
    fn upper_halves(self, w: __m256i) -> __m256 {
        unsafe { self.lower_halves(_mm256_srli_epi32::<16>(w)) }
    }

    #[inline(always)]
    fn exponents(self, w: __m256i) -> __m256 {
        unsafe {
            let e = _mm256_and_si256(w, _mm256_set1_epi32(0xff));
            let one = _mm256_set1_epi32(1);
            let normal = _mm256_slli_epi32::<23>(_mm256_sub_epi32(e, one));
            // 2^-128 and 2^-127, which every normal number is above.
            let subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x0020_0000), _mm256_min_epi32(e, one));
            _mm256_castsi256_ps(_mm256_max_epi32(normal, subnormal))
        }
    }

    #[inline(always)]
    fn small_floats(self, w: __m256i, byte: usize) -> __m256 {
        let bits = self.shuffle(w, &const { choices([BYTE, -1, -1, -1]) }[byte]);
        unsafe {
            let nan = _mm256_castsi256_ps(_mm256_cmpeq_epi32(bits, _mm256_set1_epi32(0x7f)));
            // An f16 with the same bits has the exponent bias 15 instead of 7.
            let halves = _mm256_and_si256(_mm256_slli_epi32::<7>(bits), _mm256_set1_epi32(0x3f80));
            _mm256_andnot_ps(nan, _mm256_mul_ps(self.lower_halves(halves), _mm256_set1_ps(128.0)))
        }
    }

    #[inline(always)]
    fn between(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_or_si256(_mm256_srli_epi32::<16>(a), _mm256_slli_epi32::<16>(b)) }
    }

    #[inline(always)]
    fn prefetch_line(self, p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) };
    }

    #[inline(always)]
    fn prefetch(self, rows: Rows) {
        let [first, _] = rows.eighths();
        for r in 0..8 {
            unsafe { _mm_prefetch::<_MM_HINT_T1>(first.wrapping_add(r * rows.stride).cast()) };
        }
    }

    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_or_si256(a, b) }
    }

    #[inline(always)]
    fn field<const SHIFT: u32, const MASK: u8>(self, w: __m256i) -> __m256i {
        unsafe { _mm256_and_si256(_mm256_srl_epi32(w, _mm_cvtsi32_si128(SHIFT as i32)), _mm256_set1_epi8(MASK as i8)) }
    }

    #[inline(always)]
    fn field_in_place<const SHIFT: u32, const MASK: u8>(self, w: __m256i) -> __m256i {
        unsafe { _mm256_and_si256(w, _mm256_set1_epi8((MASK << SHIFT) as i8)) }
    }

    #[inline(always)]
    fn field_up<const SHIFT: u32, const MASK: u8>(self, w: __m256i) -> __m256i {
        unsafe { _mm256_and_si256(_mm256_sll_epi32(w, _mm_cvtsi32_si128(SHIFT as i32)), _mm256_set1_epi8(MASK as i8)) }
    }

    #[inline(always)]
    fn table(self, bytes: &[u8; 16]) -> __m256i {
        unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(bytes.as_ptr().cast())) }
    }

    #[inline(always)]
    fn look_up<const SHIFT: u32>(self, table: __m256i, w: __m256i) -> __m256i {
        unsafe { _mm256_shuffle_epi8(table, self.field::<SHIFT, 0x0f>(w)) }
    }

    #[inline(always)]
    fn sub_bytes(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_sub_epi8(a, b) }
    }

    #[inline(always)]
    fn double_bytes(self, w: __m256i) -> (__m256i, __m256i) {
        let masks = &const { [gather([0, 0, 1, 1], 0), gather([2, 2, 3, 3], 0)] };
        (self.shuffle(w, &masks[0]), self.shuffle(w, &masks[1]))
    }

    #[inline(always)]
    fn sixteen_bits<const VALUE: u8>(self, w: __m256i, half: usize) -> [__m256i; 4] {
        let i = 4 * half;
        [
            self.bits::<VALUE>(w, i),
            self.bits::<VALUE>(w, i + 1),
            self.bits::<VALUE>(w, i + 2),
            self.bits::<VALUE>(w, i + 3),
        ]
    }

    #[inline(always)]
    fn trits(self, w: __m256i) -> [__m256i; 5] {
        let mut rest = w;
        let mut digits = [w; 5];
        for digit in &mut digits {
            unsafe {
                // An average rounds up; from one less it rounds down: half of the rest, then three quarters.
                let less = _mm256_subs_epu8(rest, _mm256_set1_epi8(1));
                let three_quarters = _mm256_avg_epu8(less, _mm256_avg_epu8(less, _mm256_setzero_si256()));
                *digit = self.field::<6, 0x03>(three_quarters);
                rest = _mm256_add_epi8(rest, _mm256_add_epi8(rest, rest));
            }
        }
        digits
    }

    #[inline(always)]
    fn pick(self, a: __m256i, b: __m256i, bytes: [u8; 4]) -> __m256i {
        let of = |first: u8| bytes.map(|byte| if byte / 4 * 4 == first { (byte % 4) as i8 } else { -1 });
        unsafe { _mm256_or_si256(self.shuffle(a, &gather(of(0), 0)), self.shuffle(b, &gather(of(4), 0))) }
    }

    #[inline(always)]
    fn spread<const WIDTH: u32, const FROM: u32>(self, w: __m256i) -> __m256i {
        // First two fields to each half of a lane, then one to each byte.
        let (two, one) = (1i32 << (2 * WIDTH) as i32, 1i32 << WIDTH as i32);
        unsafe {
            let mask = _mm256_set1_epi32(two - 1);
            let w = _mm256_srl_epi32(w, _mm_cvtsi32_si128(FROM as i32));
            let upper = _mm256_srl_epi32(w, _mm_cvtsi32_si128(2 * WIDTH as i32));
            let halves =
                _mm256_or_si256(_mm256_and_si256(w, mask), _mm256_slli_epi32::<16>(_mm256_and_si256(upper, mask)));
            let upper = _mm256_sll_epi32(halves, _mm_cvtsi32_si128(8 - WIDTH as i32));
            _mm256_or_si256(
                _mm256_and_si256(halves, _mm256_set1_epi32((one - 1) * 0x0001_0001)),
                _mm256_and_si256(upper, _mm256_set1_epi32((one - 1) * 0x0100_0100)),
            )
        }
    }

    #[inline(always)]
    fn bit_everywhere<const BIT: u32>(self, w: __m256i) -> __m256i {
        unsafe { _mm256_srai_epi32::<31>(_mm256_sll_epi32(w, _mm_cvtsi32_si128(31 - BIT as i32))) }
    }

    #[inline(always)]
    fn negative_bytes(self, w: __m256i) -> __m256i {
        unsafe { _mm256_cmpgt_epi8(_mm256_setzero_si256(), w) }
    }

    #[inline(always)]
    fn with_parity(self, w: __m256i) -> __m256i {
        /// Nibbles of which the number of set bits is odd have bit 7.
        const LOW: [u8; 16] = parities(0);
        /// As `LOW`, for three bits that belong above four others.
        const HIGH: [u8; 16] = parities(4);
        const fn parities(shift: u32) -> [u8; 16] {
            let mut bytes = [0; 16];
            let mut i = 0u8;
            while i < 16 {
                let value = if shift == 0 { i } else { i & 7 };
                bytes[i as usize] = value << shift | (value.count_ones() as u8 & 1) << 7;
                i += 1;
            }
            bytes
        }
        unsafe {
            let nibbles = _mm256_set1_epi8(15);
            let low = _mm256_and_si256(w, nibbles);
            let high = _mm256_and_si256(_mm256_srli_epi32::<4>(w), nibbles);
            let low_table = _mm256_broadcastsi128_si256(_mm_loadu_si128(LOW.as_ptr().cast()));
            let high_table = _mm256_broadcastsi128_si256(_mm_loadu_si128(HIGH.as_ptr().cast()));
            _mm256_xor_si256(_mm256_shuffle_epi8(low_table, low), _mm256_shuffle_epi8(high_table, high))
        }
    }

    #[inline(always)]
    fn entries<const N: usize, const WIDTH: usize, const M: usize>(
        self,
        grid: &'static Grid<N, WIDTH>,
        low: [__m256i; M],
        high: [__m256i; M],
    ) -> [[__m256i; 4]; M] {
        let mut entries = [[self.splat(0); 4]; M];
        for m in 0..M {
            entries[m] = [
                self.gather(grid, low[m], high[m], 0),
                self.gather(grid, low[m], high[m], 1),
                self.gather(grid, low[m], high[m], 2),
                self.gather(grid, low[m], high[m], 3),
            ];
        }
        entries
    }

    #[inline(always)]
    fn grid_weights<const N: usize, const WIDTH: usize, const HALF: usize>(
        self,
        grid: &'static Grid<N, WIDTH>,
        entries: [__m256i; 4],
        signs: __m256i,
    ) -> [__m256i; 4] {
        // Codes in the lower nibbles; a shuffle ignores bits 4 to 6, and bit 7 is clear: no code of two bits is 3.
        let codes = if WIDTH == 8 {
            let (a, b) = (entries[2 * HALF], entries[2 * HALF + 1]);
            unsafe { [a, _mm256_srli_epi32::<4>(a), b, _mm256_srli_epi32::<4>(b)] }
        } else {
            entries
        };
        let masks = &const { choices([BYTE; 4]) };
        let (first, second) = (self.shuffle(signs, &masks[2 * HALF]), self.shuffle(signs, &masks[2 * HALF + 1]));
        [
            self.signed_codes(grid, codes[0], first, 0x0804_0201),
            self.signed_codes(grid, codes[1], first, 0x8040_2010u32 as i32),
            self.signed_codes(grid, codes[2], second, 0x0804_0201),
            self.signed_codes(grid, codes[3], second, 0x8040_2010u32 as i32),
        ]
    }

    #[inline(always)]
    fn signed_bytes(self, w: __m256i) -> __m256i {
        if VNNI { unsafe { _mm256_xor_si256(w, _mm256_set1_epi8(-128)) } } else { w }
    }
}
