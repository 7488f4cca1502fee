//! Taking blocks of 4 rows apart.

use core::arch::x86_64::*;

use super::Sse41;
use super::halves::from_halves;
use crate::format::grid::Grid;
use crate::isa::shuffles::{BYTE, choices, gather};
use crate::isa::unpacking::Unpacking;
use crate::unpack::Rows;

impl Sse41 {
    /// Byte `b` is `VALUE` where bit `4 i + b` of the lane is set, else 0.
    #[inline(always)]
    fn bits<const VALUE: u8>(self, w: __m128i, i: usize) -> __m128i {
        let bytes = self.shuffle(w, &const { choices([BYTE; 4]) }[i / 2]);
        let bits = if i.is_multiple_of(2) { 0x0804_0201 } else { 0x8040_2010u32 as i32 };
        // SAFETY: the level has SSE4.1.
        unsafe {
            let bits = _mm_set1_epi32(bits);
            _mm_and_si128(_mm_cmpeq_epi8(_mm_and_si128(bytes, bits), bits), _mm_set1_epi8(VALUE as i8))
        }
    }

    /// Shuffles the bytes of each dword.
    #[inline(always)]
    pub(super) fn shuffle(self, w: __m128i, mask: &[i8; 16]) -> __m128i {
        // SAFETY: the level has SSE4.1; 16 bytes are loaded from an array of 16.
        unsafe { _mm_shuffle_epi8(w, _mm_loadu_si128(mask.as_ptr().cast())) }
    }
}

impl Sse41 {
    /// The bytes of codes whose signs are those of `bits` in the bytes of `signs`.
    #[inline(always)]
    fn signed_codes<const N: usize, const WIDTH: usize>(
        self,
        grid: &'static Grid<N, WIDTH>,
        codes: __m128i,
        signs: __m128i,
        bits: i32,
    ) -> __m128i {
        // SAFETY: the level has SSE4.1; the table has more than 16 bytes.
        unsafe {
            let bits = _mm_set1_epi32(bits);
            let negative = _mm_cmpeq_epi8(_mm_and_si128(signs, bits), bits);
            let sign = _mm_and_si128(negative, _mm_set1_epi8(1 << Grid::<N, WIDTH>::BITS));
            let bytes = _mm_loadu_si128(grid.bytes.as_ptr().cast());
            _mm_shuffle_epi8(bytes, _mm_or_si128(codes, sign))
        }
    }
}

// SAFETY of the intrinsics here: a value of `Sse41` exists only where the CPU has the features of the level. Pointers are readable or
// writable by the contracts of the trait.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl Unpacking for Sse41 {
    const ROWS: usize = 4;
    const AHEAD: bool = true;

    // Products of pairs are added in i16, where 255 * 127 * 2 has no room.
    const SIGNED_OFFSET: i32 = 0;

    type Words = __m128i;
    type Floats = __m128;

    type Table = __m128i;

    /// The words of the grid.
    type Entries = [__m128i; 4];

    #[inline(always)]
    fn splat(self, x: i32) -> __m128i {
        unsafe { _mm_set1_epi32(x) }
    }

    #[inline(always)]
    unsafe fn splat_at(self, p: *const u8) -> __m128i {
        unsafe { _mm_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn load(self, p: *const u8) -> __m128i {
        unsafe { _mm_loadu_si128(p.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut u8, w: __m128i) {
        unsafe { _mm_storeu_si128(p.cast(), w) }
    }

    #[inline(always)]
    unsafe fn chunk(self, rows: Rows) -> [__m128i; 4] {
        unsafe {
            let mut x = [_mm_setzero_si128(); 4];
            let [first, _] = rows.eighths();
            for (i, x) in x.iter_mut().enumerate() {
                *x = _mm_loadu_si128(first.add(i * rows.stride).cast());
            }
            let (a, b) = (_mm_unpacklo_epi32(x[0], x[1]), _mm_unpacklo_epi32(x[2], x[3]));
            let (c, d) = (_mm_unpackhi_epi32(x[0], x[1]), _mm_unpackhi_epi32(x[2], x[3]));
            [_mm_unpacklo_epi64(a, b), _mm_unpackhi_epi64(a, b), _mm_unpacklo_epi64(c, d), _mm_unpackhi_epi64(c, d)]
        }
    }

    #[inline(always)]
    fn lower_halves(self, w: __m128i) -> __m128 {
        unsafe { from_halves(_mm_and_si128(w, _mm_set1_epi32(0xffff))) }
    }

    #[inline(always)]
    fn upper_halves(self, w: __m128i) -> __m128 {
        unsafe { from_halves(_mm_srli_epi32::<16>(w)) }
    }

    #[inline(always)]
    fn exponents(self, w: __m128i) -> __m128 {
        unsafe {
            let e = _mm_and_si128(w, _mm_set1_epi32(0xff));
            let one = _mm_set1_epi32(1);
            let normal = _mm_slli_epi32::<23>(_mm_sub_epi32(e, one));
            // 2^-128 and 2^-127, which every normal number is above: a quarter and a half of the smallest one.
            let quarters = _mm_add_epi32(_mm_min_epi32(e, one), one);
            let subnormal = _mm_slli_epi32::<21>(quarters);
            _mm_castsi128_ps(_mm_max_epi32(normal, subnormal))
        }
    }

    #[inline(always)]
    fn small_floats(self, w: __m128i, byte: usize) -> __m128 {
        let bits = self.shuffle(w, &const { choices([BYTE, -1, -1, -1]) }[byte]);
        unsafe {
            let nan = _mm_castsi128_ps(_mm_cmpeq_epi32(bits, _mm_set1_epi32(0x7f)));
            // An f16 with the same bits has the exponent bias 15 instead of 7.
            let halves = _mm_and_si128(_mm_slli_epi32::<7>(bits), _mm_set1_epi32(0x3f80));
            _mm_andnot_ps(nan, _mm_mul_ps(self.lower_halves(halves), _mm_set1_ps(128.0)))
        }
    }

    #[inline(always)]
    fn between(self, a: __m128i, b: __m128i) -> __m128i {
        unsafe { _mm_or_si128(_mm_srli_epi32::<16>(a), _mm_slli_epi32::<16>(b)) }
    }

    #[inline(always)]
    fn prefetch_line(self, p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) };
    }

    #[inline(always)]
    fn prefetch(self, rows: Rows) {
        let [first, _] = rows.eighths();
        for r in 0..4 {
            unsafe { _mm_prefetch::<_MM_HINT_T1>(first.wrapping_add(r * rows.stride).cast()) };
        }
    }

    #[inline(always)]
    fn or(self, a: __m128i, b: __m128i) -> __m128i {
        unsafe { _mm_or_si128(a, b) }
    }

    #[inline(always)]
    fn field<const SHIFT: u32, const MASK: u8>(self, w: __m128i) -> __m128i {
        unsafe { _mm_and_si128(_mm_srl_epi32(w, _mm_cvtsi32_si128(SHIFT as i32)), _mm_set1_epi8(MASK as i8)) }
    }

    #[inline(always)]
    fn field_in_place<const SHIFT: u32, const MASK: u8>(self, w: __m128i) -> __m128i {
        unsafe { _mm_and_si128(w, _mm_set1_epi8((MASK << SHIFT) as i8)) }
    }

    #[inline(always)]
    fn field_up<const SHIFT: u32, const MASK: u8>(self, w: __m128i) -> __m128i {
        unsafe { _mm_and_si128(_mm_sll_epi32(w, _mm_cvtsi32_si128(SHIFT as i32)), _mm_set1_epi8(MASK as i8)) }
    }

    #[inline(always)]
    fn table(self, bytes: &[u8; 16]) -> __m128i {
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn look_up<const SHIFT: u32>(self, table: __m128i, w: __m128i) -> __m128i {
        unsafe { _mm_shuffle_epi8(table, self.field::<SHIFT, 0x0f>(w)) }
    }

    #[inline(always)]
    fn sub_bytes(self, a: __m128i, b: __m128i) -> __m128i {
        unsafe { _mm_sub_epi8(a, b) }
    }

    #[inline(always)]
    fn double_bytes(self, w: __m128i) -> (__m128i, __m128i) {
        let masks = &const { [gather([0, 0, 1, 1], 0), gather([2, 2, 3, 3], 0)] };
        (self.shuffle(w, &masks[0]), self.shuffle(w, &masks[1]))
    }

    #[inline(always)]
    fn sixteen_bits<const VALUE: u8>(self, w: __m128i, half: usize) -> [__m128i; 4] {
        let i = 4 * half;
        [
            self.bits::<VALUE>(w, i),
            self.bits::<VALUE>(w, i + 1),
            self.bits::<VALUE>(w, i + 2),
            self.bits::<VALUE>(w, i + 3),
        ]
    }

    #[inline(always)]
    fn trits(self, w: __m128i) -> [__m128i; 5] {
        let mut rest = w;
        let mut digits = [w; 5];
        for digit in &mut digits {
            unsafe {
                // An average rounds up; from one less it rounds down: half of the rest, then three quarters.
                let less = _mm_subs_epu8(rest, _mm_set1_epi8(1));
                let three_quarters = _mm_avg_epu8(less, _mm_avg_epu8(less, _mm_setzero_si128()));
                *digit = self.field::<6, 0x03>(three_quarters);
                rest = _mm_add_epi8(rest, _mm_add_epi8(rest, rest));
            }
        }
        digits
    }

    #[inline(always)]
    fn pick(self, a: __m128i, b: __m128i, bytes: [u8; 4]) -> __m128i {
        let of = |first: u8| bytes.map(|byte| if byte / 4 * 4 == first { (byte % 4) as i8 } else { -1 });
        unsafe { _mm_or_si128(self.shuffle(a, &gather(of(0), 0)), self.shuffle(b, &gather(of(4), 0))) }
    }

    #[inline(always)]
    fn spread<const WIDTH: u32, const FROM: u32>(self, w: __m128i) -> __m128i {
        // First two fields to each half of a lane, then one to each byte.
        let (two, one) = (1i32 << (2 * WIDTH) as i32, 1i32 << WIDTH as i32);
        unsafe {
            let mask = _mm_set1_epi32(two - 1);
            let w = _mm_srl_epi32(w, _mm_cvtsi32_si128(FROM as i32));
            let upper = _mm_srl_epi32(w, _mm_cvtsi32_si128(2 * WIDTH as i32));
            let halves = _mm_or_si128(_mm_and_si128(w, mask), _mm_slli_epi32::<16>(_mm_and_si128(upper, mask)));
            let upper = _mm_sll_epi32(halves, _mm_cvtsi32_si128(8 - WIDTH as i32));
            _mm_or_si128(
                _mm_and_si128(halves, _mm_set1_epi32((one - 1) * 0x0001_0001)),
                _mm_and_si128(upper, _mm_set1_epi32((one - 1) * 0x0100_0100)),
            )
        }
    }

    #[inline(always)]
    fn bit_everywhere<const BIT: u32>(self, w: __m128i) -> __m128i {
        unsafe { _mm_srai_epi32::<31>(_mm_sll_epi32(w, _mm_cvtsi32_si128(31 - BIT as i32))) }
    }

    #[inline(always)]
    fn negative_bytes(self, w: __m128i) -> __m128i {
        unsafe { _mm_cmpgt_epi8(_mm_setzero_si128(), w) }
    }

    #[inline(always)]
    fn with_parity(self, w: __m128i) -> __m128i {
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
            let nibbles = _mm_set1_epi8(15);
            let low = _mm_and_si128(w, nibbles);
            let high = _mm_and_si128(_mm_srli_epi32::<4>(w), nibbles);
            let low_table = _mm_loadu_si128(LOW.as_ptr().cast());
            let high_table = _mm_loadu_si128(HIGH.as_ptr().cast());
            _mm_xor_si128(_mm_shuffle_epi8(low_table, low), _mm_shuffle_epi8(high_table, high))
        }
    }

    #[inline(always)]
    fn entries<const N: usize, const WIDTH: usize, const M: usize>(
        self,
        grid: &'static Grid<N, WIDTH>,
        low: [__m128i; M],
        high: [__m128i; M],
    ) -> [[__m128i; 4]; M] {
        let mut entries = [[self.splat(0); 4]; M];
        for m in 0..M {
            // The numbers of all lanes by way of memory: a byte of a vector costs as much as a load.
            let mut numbers = [0u16; 16];
            unsafe {
                let high = if N > 256 {
                    _mm_and_si128(high[m], _mm_set1_epi8((N / 256 - 1) as i8))
                } else {
                    _mm_setzero_si128()
                };
                let at: *mut __m128i = numbers.as_mut_ptr().cast();
                _mm_storeu_si128(at, _mm_unpacklo_epi8(low[m], high));
                _mm_storeu_si128(at.add(1), _mm_unpackhi_epi8(low[m], high));
                // A number is below N, whatever the bytes.
                let word = |lane: usize, e: usize| *grid.words.get_unchecked(usize::from(numbers[4 * lane + e])) as i32;
                for (e, entries) in entries[m].iter_mut().enumerate() {
                    *entries = _mm_setr_epi32(word(0, e), word(1, e), word(2, e), word(3, e));
                }
            }
        }
        entries
    }

    #[inline(always)]
    fn grid_weights<const N: usize, const WIDTH: usize, const HALF: usize>(
        self,
        grid: &'static Grid<N, WIDTH>,
        entries: [__m128i; 4],
        signs: __m128i,
    ) -> [__m128i; 4] {
        // Codes in the lower nibbles; a shuffle ignores bits 4 to 6, and bit 7 is clear: no code of two bits is 3.
        let codes = if WIDTH == 8 {
            let (a, b) = (entries[2 * HALF], entries[2 * HALF + 1]);
            unsafe { [a, _mm_srli_epi32::<4>(a), b, _mm_srli_epi32::<4>(b)] }
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
    fn signed_bytes(self, w: __m128i) -> __m128i {
        w
    }
}
