//! Taking blocks of 16 rows apart.

use core::arch::x86_64::*;

use super::Avx512;
use crate::format::grid::{Grid, SIGNS};
use crate::isa::shuffles::{BYTE, choices, gather};
use crate::isa::unpacking::Unpacking;
use crate::unpack::Rows;

impl Avx512 {
    /// Byte `b` is `VALUE` where bit `4 i + b` of the lane is set, else 0.
    #[inline(always)]
    fn bits<const VALUE: u8>(self, w: __m512i, i: usize) -> __m512i {
        let at = 4 * i as i32 - VALUE.trailing_zeros() as i32;
        self.unaligned_bytes(w, [at, at + 1, at + 2, at + 3], VALUE)
    }

    /// Shuffles the bytes of each dword.
    #[inline(always)]
    pub(super) fn shuffle(self, w: __m512i, mask: &[i8; 16]) -> __m512i {
        // SAFETY: the level has AVX-512BW; 16 bytes are loaded from an array of 16.
        unsafe { _mm512_shuffle_epi8(w, _mm512_broadcast_i32x4(_mm_loadu_si128(mask.as_ptr().cast()))) }
    }

    /// Byte `b` of each dword becomes the eight bits from bit `at[b]` of the dword on, those that `mask` keeps. The kept bits
    /// lie within the dword.
    #[inline(always)]
    fn unaligned_bytes(self, w: __m512i, at: [i32; 4], mask: u8) -> __m512i {
        // SAFETY: the level has AVX-512VBMI.
        unsafe { _mm512_and_si512(_mm512_multishift_epi64_epi8(places(at), w), _mm512_set1_epi8(mask as i8)) }
    }

    /// Per byte `table[w]`.
    #[inline(always)]
    fn look_up_byte(self, table: &[u8; 256], w: __m512i) -> __m512i {
        let mut halves = [w; 2];
        for (half, table) in halves.iter_mut().zip(table.as_chunks::<128>().0) {
            // SAFETY: the level has AVX-512VBMI; 64 bytes are loaded from each half of 128.
            unsafe {
                let (a, b) = (table.as_ptr(), table.as_ptr().add(64));
                *half = _mm512_permutex2var_epi8(_mm512_loadu_si512(a.cast()), w, _mm512_loadu_si512(b.cast()));
            }
        }
        // SAFETY: the level has AVX-512BW.
        unsafe { _mm512_mask_blend_epi8(_mm512_movepi8_mask(w), halves[0], halves[1]) }
    }
}

impl Avx512 {
    /// The words of entries `low + 256 * high` of the grid, for byte `E` of each lane.
    #[inline(always)]
    fn gather<const N: usize, const WIDTH: usize, const E: u32>(
        self,
        grid: &'static Grid<N, WIDTH>,
        low: __m512i,
        high: __m512i,
    ) -> __m512i {
        // SAFETY: the level has AVX-512F; a number is below N, whatever the bytes.
        unsafe {
            let low = _mm512_srl_epi32(low, _mm_cvtsi32_si128(8 * E as i32));
            let high = match E {
                0 => _mm512_slli_epi32::<8>(high),
                1 => high,
                2 => _mm512_srli_epi32::<8>(high),
                _ => _mm512_srli_epi32::<16>(high),
            };
            // Bits 7-0 of the one, the others of the other.
            let number = _mm512_ternarylogic_epi32::<0xca>(_mm512_set1_epi32(0xff), low, high);
            let number = _mm512_and_si512(number, _mm512_set1_epi32(N as i32 - 1));
            _mm512_i32gather_epi32::<4>(number, grid.words.as_ptr().cast())
        }
    }

    /// The bytes of a part of 128 bytes of `plane` that the lower seven bits of each byte number.
    #[inline(always)]
    fn part<const N: usize>(self, plane: &'static [u8; N], part: usize, numbers: __m512i) -> __m512i {
        let part = &plane[128 * part..][..128];
        // SAFETY: the level has AVX-512VBMI; the part has 128 bytes.
        unsafe {
            let (a, b) = (_mm512_loadu_si512(part.as_ptr().cast()), _mm512_loadu_si512(part[64..].as_ptr().cast()));
            _mm512_permutex2var_epi8(a, numbers, b)
        }
    }

    /// The codes of an entry of four weights, from bit `bit` of each lane of the planes on.
    #[inline(always)]
    fn four_codes(self, [lower, upper, ..]: [__m512i; 4], bit: i32) -> __m512i {
        // SAFETY: the level has AVX-512VBMI.
        unsafe {
            let lower = _mm512_multishift_epi64_epi8(places([bit, bit + 3, 0, 0]), lower);
            let places = places([0, 0, bit, bit + 3]);
            _mm512_mask_multishift_epi64_epi8(lower, 0xcccc_cccc_cccc_cccc, places, upper)
        }
    }

    /// The bytes of codes whose signs are four bits from `bit` of each lane of `signs` on.
    #[inline(always)]
    fn signed_codes<const N: usize, const WIDTH: usize>(
        self,
        grid: &'static Grid<N, WIDTH>,
        codes: __m512i,
        signs: __m512i,
        bit: i32,
    ) -> __m512i {
        let bits = Grid::<N, WIDTH>::BITS as i32;
        // SAFETY: the level has AVX-512VBMI; the table has 64 bytes.
        unsafe {
            let places = places([bit - bits, bit - bits + 1, bit - bits + 2, bit - bits + 3]);
            let signs = _mm512_multishift_epi64_epi8(places, signs);
            // The lower bits of the one and the next bit of the other; bits 7 and 6 do not count, and the table repeats
            // itself for what is in the bits between.
            let index = _mm512_ternarylogic_epi32::<0xca>(_mm512_set1_epi8((1 << bits) - 1), codes, signs);
            _mm512_permutexvar_epi8(index, _mm512_loadu_si512(grid.bytes.as_ptr().cast()))
        }
    }
}

/// Digits 0 to 3 of every byte in base 3, two bits each (see [`Unpacking::trits`]).
static FOUR_TRITS: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = trit(byte, 1) | trit(byte, 3) << 2 | trit(byte, 9) << 4 | trit(byte, 27) << 6;
        byte += 1;
    }
    table
};

/// Digit 4 of every byte.
static FIFTH_TRIT: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = trit(byte, 81);
        byte += 1;
    }
    table
};

const fn trit(byte: usize, power: usize) -> u8 {
    (byte * power % 256 * 3 / 256) as u8
}

/// Whether the words of a grid of `n` entries are gathered; the planes of smaller ones are looked up in registers.
#[inline(always)]
const fn gathers(n: usize) -> bool {
    n > 1024
}

/// Where the bytes of the two lanes of a quadword begin that have their bits at `bits`, wrapping around: for
/// `multishift`.
#[inline(always)]
fn places(bits: [i32; 4]) -> __m512i {
    let mut places = 0i64;
    for (b, bits) in bits.into_iter().enumerate() {
        places |= i64::from(bits & 63) << (8 * b) | i64::from((bits + 32) & 63) << (8 * b + 32);
    }
    // SAFETY: the caller's level has AVX-512F.
    unsafe { _mm512_set1_epi64(places) }
}

// SAFETY of the intrinsics here: a value of `Avx512` exists only where the CPU has the features of the level. Pointers are
// readable or writable by the contracts of the trait.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl Unpacking for Avx512 {
    const ROWS: usize = 16;
    const AHEAD: bool = true;
    const SIGNED_OFFSET: i32 = 128;

    type Words = __m512i;
    type Floats = __m512;

    /// The table four times, so that the upper bits of a place do not count.
    type Table = __m512i;

    /// The two planes of the grid, or where these are large (see [`gathers`]) its words.
    type Entries = [__m512i; 4];

    #[inline(always)]
    fn splat(self, x: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(x) }
    }

    #[inline(always)]
    unsafe fn splat_at(self, p: *const u8) -> __m512i {
        unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn load(self, p: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(p.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut u8, w: __m512i) {
        unsafe { _mm512_storeu_si512(p.cast(), w) }
    }

    #[inline(always)]
    unsafe fn chunk(self, rows: Rows) -> [__m512i; 4] {
        unsafe {
            // The 128-bit lane g of `x[i]` is row 4 g + i, so that the transposition below leaves the rows in order.
            let mut x = [_mm512_setzero_si512(); 4];
            let [first, upper] = rows.eighths();
            for (i, x) in x.iter_mut().enumerate() {
                let (row, four) = (i * rows.stride, (i + 4) * rows.stride);
                let lower = _mm256_castsi128_si256(_mm_loadu_si128(first.add(row).cast()));
                let lower = _mm256_inserti128_si256::<1>(lower, _mm_loadu_si128(first.add(four).cast()));
                let higher = _mm256_castsi128_si256(_mm_loadu_si128(upper.add(row).cast()));
                let higher = _mm256_inserti128_si256::<1>(higher, _mm_loadu_si128(upper.add(four).cast()));
                *x = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(lower), higher);
            }
            let (a, b) = (_mm512_unpacklo_epi32(x[0], x[1]), _mm512_unpacklo_epi32(x[2], x[3]));
            let (c, d) = (_mm512_unpackhi_epi32(x[0], x[1]), _mm512_unpackhi_epi32(x[2], x[3]));
            [
                _mm512_unpacklo_epi64(a, b),
                _mm512_unpackhi_epi64(a, b),
                _mm512_unpacklo_epi64(c, d),
                _mm512_unpackhi_epi64(c, d),
            ]
        }
    }

    #[inline(always)]
    fn lower_halves(self, w: __m512i) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm512_cvtepi32_epi16(w)) }
    }

    #[inline(always)]
    fn upper_halves(self, w: __m512i) -> __m512 {
        unsafe { self.lower_halves(_mm512_srli_epi32::<16>(w)) }
    }

    #[inline(always)]
    fn exponents(self, w: __m512i) -> __m512 {
        unsafe {
            let e = _mm512_and_si512(w, _mm512_set1_epi32(0xff));
            let one = _mm512_set1_epi32(1);
            let normal = _mm512_slli_epi32::<23>(_mm512_sub_epi32(e, one));
            // 2^-128 and 2^-127, which every normal number is above.
            let subnormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x0020_0000), _mm512_min_epi32(e, one));
            _mm512_castsi512_ps(_mm512_max_epi32(normal, subnormal))
        }
    }

    #[inline(always)]
    fn small_floats(self, w: __m512i, byte: usize) -> __m512 {
        let bits = self.shuffle(w, &const { choices([BYTE, -1, -1, -1]) }[byte]);
        unsafe {
            let counts = _mm512_cmpneq_epi32_mask(bits, _mm512_set1_epi32(0x7f));
            // An f16 with the same bits has the exponent bias 15 instead of 7.
            let halves = _mm512_and_si512(_mm512_slli_epi32::<7>(bits), _mm512_set1_epi32(0x3f80));
            _mm512_maskz_mul_ps(counts, self.lower_halves(halves), _mm512_set1_ps(128.0))
        }
    }

    #[inline(always)]
    fn between(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(_mm512_srli_epi32::<16>(a), _mm512_slli_epi32::<16>(b)) }
    }

    #[inline(always)]
    fn prefetch_line(self, p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) };
    }

    #[inline(always)]
    fn prefetch(self, rows: Rows) {
        for eight in rows.eighths() {
            for r in 0..8 {
                unsafe { _mm_prefetch::<_MM_HINT_T1>(eight.wrapping_add(r * rows.stride).cast()) };
            }
        }
    }

    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(a, b) }
    }

    #[inline(always)]
    fn field<const SHIFT: u32, const MASK: u8>(self, w: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(_mm512_srli_epi32::<SHIFT>(w), _mm512_set1_epi8(MASK as i8)) }
    }

    #[inline(always)]
    fn field_in_place<const SHIFT: u32, const MASK: u8>(self, w: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(w, _mm512_set1_epi8((MASK << SHIFT) as i8)) }
    }

    #[inline(always)]
    fn field_up<const SHIFT: u32, const MASK: u8>(self, w: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(_mm512_slli_epi32::<SHIFT>(w), _mm512_set1_epi8(MASK as i8)) }
    }

    #[inline(always)]
    fn table(self, bytes: &[u8; 16]) -> __m512i {
        unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(bytes.as_ptr().cast())) }
    }

    #[inline(always)]
    fn look_up<const SHIFT: u32>(self, table: __m512i, w: __m512i) -> __m512i {
        unsafe {
            // Six bits of each byte choose among 64; bits of the neighbour that a shift brings are above the four.
            let place = if SHIFT == 0 { w } else { _mm512_srli_epi32::<SHIFT>(w) };
            _mm512_permutexvar_epi8(place, table)
        }
    }

    #[inline(always)]
    fn sub_bytes(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_sub_epi8(a, b) }
    }

    #[inline(always)]
    fn double_bytes(self, w: __m512i) -> (__m512i, __m512i) {
        let masks = &const { [gather([0, 0, 1, 1], 0), gather([2, 2, 3, 3], 0)] };
        (self.shuffle(w, &masks[0]), self.shuffle(w, &masks[1]))
    }

    #[inline(always)]
    fn sixteen_bits<const VALUE: u8>(self, w: __m512i, half: usize) -> [__m512i; 4] {
        let i = 4 * half;
        [
            self.bits::<VALUE>(w, i),
            self.bits::<VALUE>(w, i + 1),
            self.bits::<VALUE>(w, i + 2),
            self.bits::<VALUE>(w, i + 3),
        ]
    }

    #[inline(always)]
    fn trits(self, w: __m512i) -> [__m512i; 5] {
        let four = self.look_up_byte(&FOUR_TRITS, w);
        [
            self.field::<0, 0x03>(four),
            self.field::<2, 0x03>(four),
            self.field::<4, 0x03>(four),
            self.field::<6, 0x03>(four),
            self.look_up_byte(&FIFTH_TRIT, w),
        ]
    }

    #[inline(always)]
    fn pick(self, a: __m512i, b: __m512i, bytes: [u8; 4]) -> __m512i {
        let of = |first: u8| bytes.map(|byte| if byte / 4 * 4 == first { (byte % 4) as i8 } else { -1 });
        unsafe { _mm512_or_si512(self.shuffle(a, &gather(of(0), 0)), self.shuffle(b, &gather(of(4), 0))) }
    }

    #[inline(always)]
    fn spread<const WIDTH: u32, const FROM: u32>(self, w: __m512i) -> __m512i {
        let (from, width) = (FROM as i32, WIDTH as i32);
        self.unaligned_bytes(w, [from, from + width, from + 2 * width, from + 3 * width], ((1u32 << WIDTH) - 1) as u8)
    }

    #[inline(always)]
    fn bit_everywhere<const BIT: u32>(self, w: __m512i) -> __m512i {
        unsafe { _mm512_srai_epi32::<31>(_mm512_sll_epi32(w, _mm_cvtsi32_si128(31 - BIT as i32))) }
    }

    #[inline(always)]
    fn negative_bytes(self, w: __m512i) -> __m512i {
        unsafe { _mm512_movm_epi8(_mm512_movepi8_mask(w)) }
    }

    #[inline(always)]
    fn with_parity(self, w: __m512i) -> __m512i {
        // The index has seven bits; the eighth is ignored.
        unsafe {
            let signs = SIGNS.0.as_ptr();
            _mm512_permutex2var_epi8(_mm512_loadu_si512(signs.cast()), w, _mm512_loadu_si512(signs.add(64).cast()))
        }
    }

    #[inline(always)]
    fn entries<const N: usize, const WIDTH: usize, const M: usize>(
        self,
        grid: &'static Grid<N, WIDTH>,
        low: [__m512i; M],
        high: [__m512i; M],
    ) -> [[__m512i; 4]; M] {
        let mut entries = [[self.splat(0); 4]; M];
        if gathers(N) {
            for m in 0..M {
                entries[m] = [
                    self.gather::<N, WIDTH, 0>(grid, low[m], high[m]),
                    self.gather::<N, WIDTH, 1>(grid, low[m], high[m]),
                    self.gather::<N, WIDTH, 2>(grid, low[m], high[m]),
                    self.gather::<N, WIDTH, 3>(grid, low[m], high[m]),
                ];
            }
            return entries;
        }
        let [lower, upper] = &grid.planes;
        for m in 0..M {
            entries[m][0] = self.part(lower, 0, low[m]);
            entries[m][1] = self.part(upper, 0, low[m]);
        }
        // Each part of a plane, 128 entries, fills two registers; the lower seven bits of a number choose in it, the others
        // choose the part.
        let mut parts = low;
        for m in 0..M {
            unsafe {
                parts[m] = _mm512_and_si512(_mm512_srli_epi32::<7>(low[m]), _mm512_set1_epi8(1));
                if N > 256 {
                    let upper = _mm512_add_epi8(high[m], high[m]);
                    let upper = _mm512_and_si512(upper, _mm512_set1_epi8((N / 128 - 2) as i8));
                    parts[m] = _mm512_or_si512(parts[m], upper);
                }
            }
        }
        for part in 1..N / 128 {
            for m in 0..M {
                unsafe {
                    let chosen = _mm512_cmpeq_epi8_mask(parts[m], _mm512_set1_epi8(part as i8));
                    let [a, b, ..] = entries[m];
                    entries[m][0] = _mm512_mask_blend_epi8(chosen, a, self.part(lower, part, low[m]));
                    entries[m][1] = _mm512_mask_blend_epi8(chosen, b, self.part(upper, part, low[m]));
                }
            }
        }
        entries
    }

    #[inline(always)]
    fn grid_weights<const N: usize, const WIDTH: usize, const HALF: usize>(
        self,
        grid: &'static Grid<N, WIDTH>,
        entries: [__m512i; 4],
        signs: __m512i,
    ) -> [__m512i; 4] {
        let (first, second) = (16 * HALF as i32, 16 * HALF as i32 + 8);
        let codes = if WIDTH == 4 {
            [
                self.four_codes(entries, 0),
                self.four_codes(entries, 8),
                self.four_codes(entries, 16),
                self.four_codes(entries, 24),
            ]
        } else if gathers(N) {
            let (a, b) = (entries[2 * HALF], entries[2 * HALF + 1]);
            unsafe { [a, _mm512_srli_epi32::<4>(a), b, _mm512_srli_epi32::<4>(b)] }
        } else {
            unsafe {
                let (a, b) =
                    (places([0, 2, 4, 6].map(|bit| first + bit)), places([0, 2, 4, 6].map(|bit| second + bit)));
                [
                    _mm512_multishift_epi64_epi8(a, entries[0]),
                    _mm512_multishift_epi64_epi8(a, entries[1]),
                    _mm512_multishift_epi64_epi8(b, entries[0]),
                    _mm512_multishift_epi64_epi8(b, entries[1]),
                ]
            }
        };
        [
            self.signed_codes(grid, codes[0], signs, first),
            self.signed_codes(grid, codes[1], signs, first + 4),
            self.signed_codes(grid, codes[2], signs, second),
            self.signed_codes(grid, codes[3], signs, second + 4),
        ]
    }

    #[inline(always)]
    fn signed_bytes(self, w: __m512i) -> __m512i {
        unsafe { _mm512_xor_si512(w, _mm512_set1_epi8(-128)) }
    }
}
