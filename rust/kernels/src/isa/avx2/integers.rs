//! Integer operations on 8 rows, with the AVX-VNNI dot product or without.

use core::arch::x86_64::*;

use super::Avx2;
use crate::format::grid::Grid;
use crate::isa::integers::Integers;
use crate::unpack::{Rows, SIGNED};

/// A shuffle mask that moves bytes of each dword and clears where -1 is; and such masks by the byte `b` that [`BYTE`] stands
/// for.
const fn gather(bytes: [i8; 4], b: i8) -> [i8; 16] {
    let mut mask = [-1; 16];
    let mut i = 0;
    while i < 16 {
        if bytes[i % 4] >= 0 {
            mask[i] = (i / 4 * 4) as i8 + if bytes[i % 4] == BYTE { b } else { bytes[i % 4] };
        }
        i += 1;
    }
    mask
}

/// A byte that is chosen later.
const BYTE: i8 = 4;

/// The masks for each byte in the place of [`BYTE`]: a table, so that a byte that is not known when compiling costs nothing.
const fn choices(bytes: [i8; 4]) -> [[i8; 16]; 4] {
    [gather(bytes, 0), gather(bytes, 1), gather(bytes, 2), gather(bytes, 3)]
}

/// `acc + a.0 * b.0 + a.1 * b.1` of the i16 pairs of each lane, in one instruction. The compiler takes the intrinsic apart
/// into a multiplication and an addition for their shorter latency.
#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn dpwssd(mut acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: the features are enabled, and the instruction works on registers.
    unsafe {
        core::arch::asm!(
            "{{vex}} vpdpwssd {acc}, {a}, {b}",
            acc = inout(ymm_reg) acc, a = in(ymm_reg) a, b = in(ymm_reg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

impl<const VNNI: bool> Avx2<VNNI> {
    /// Shuffles the bytes of each dword.
    #[inline(always)]
    fn shuffle(self, w: __m256i, mask: &[i8; 16]) -> __m256i {
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

/// Whether sums over at least 8 weights up to `peak` fit i16, so that a pair product can scale them.
#[inline(always)]
const fn narrow(peak: u32) -> bool {
    8 * peak * 127 <= i16::MAX as u32
}

// SAFETY of the intrinsics here: a value of `Avx2` exists only where the CPU has the features of the level, with AVX-VNNI for
// `VNNI`. Pointers are readable or writable by the contracts of the trait.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl<const VNNI: bool> Integers for Avx2<VNNI> {
    const ROWS: usize = 8;
    const TILE: usize = 3;
    const SHIFTS_SUMS: bool = VNNI;
    // Without VNNI, products of pairs are added in i16, where 255 * 127 * 2 has no room.
    const SIGNED_OFFSET: i32 = if VNNI { 128 } else { 0 };

    type Words = __m256i;
    type Floats = __m256;
    /// i32 with VNNI, else pairs of i16 whose sum is the dot product.
    type Dot = __m256i;
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
    fn bits<const VALUE: u8>(self, w: __m256i, i: usize) -> __m256i {
        let bytes = self.shuffle(w, &const { choices([BYTE; 4]) }[i / 2]);
        let bits = if i.is_multiple_of(2) { 0x0804_0201 } else { 0x8040_2010u32 as i32 };
        unsafe {
            let bits = _mm256_set1_epi32(bits);
            _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(bytes, bits), bits), _mm256_set1_epi8(VALUE as i8))
        }
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

    #[inline(always)]
    fn sub_scale(self, w: __m256i, byte: usize, peak: u32, signed: bool) -> __m256i {
        unsafe {
            match (VNNI, signed, narrow(peak)) {
                (true, false, _) => self.shuffle(w, &const { choices([BYTE, -1, -1, -1]) }[byte]),
                (true, true, true) => {
                    _mm256_srai_epi16::<8>(self.shuffle(w, &const { choices([-1, BYTE, -1, -1]) }[byte]))
                }
                (true, true, false) => {
                    _mm256_srai_epi32::<24>(self.shuffle(w, &const { choices([-1, -1, -1, BYTE]) }[byte]))
                }
                // Both i16 of a dot product take the scale.
                (false, false, _) => self.shuffle(w, &const { choices([BYTE, -1, BYTE, -1]) }[byte]),
                (false, true, _) => {
                    _mm256_srai_epi16::<8>(self.shuffle(w, &const { choices([-1, BYTE, -1, BYTE]) }[byte]))
                }
            }
        }
    }

    #[inline(always)]
    fn scale_pair(self, w: __m256i, pair: usize, signed: bool, factor: i32) -> __m256i {
        unsafe {
            let pairs = if signed {
                _mm256_srai_epi16::<8>(
                    self.shuffle(w, &const { [gather([-1, 0, -1, 1], 0), gather([-1, 2, -1, 3], 0)] }[pair]),
                )
            } else {
                self.shuffle(w, &const { [gather([0, -1, 1, -1], 0), gather([2, -1, 3, -1], 0)] }[pair])
            };
            if factor == 1 { pairs } else { _mm256_mullo_epi16(pairs, _mm256_set1_epi16(factor as i16)) }
        }
    }

    #[inline(always)]
    fn pair_product(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_madd_epi16(a, b) }
    }

    #[inline(always)]
    fn pair_dot(self, acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
        unsafe { if VNNI { dpwssd(acc, a, b) } else { _mm256_add_epi32(acc, _mm256_madd_epi16(a, b)) } }
    }

    #[inline(always)]
    fn steps(self, peak: u32) -> usize {
        // A step adds at most 2 * 127 * peak to an i16.
        if VNNI {
            64
        } else {
            match peak {
                0..=16 => 8,
                17..=32 => 4,
                33..=64 => 2,
                _ => 1,
            }
        }
    }

    #[inline(always)]
    fn whole_peak(self, peak: u32) -> u32 {
        if VNNI && matches!(peak, 17..=32) { 64 } else { peak }
    }

    #[inline(always)]
    fn scaled_steps(self, peak: u32) -> usize {
        match peak {
            _ if !VNNI => self.steps(peak).min(4),
            17..=32 => 2,
            _ => 4,
        }
    }

    #[inline(always)]
    fn begin(self, acc: __m256i) -> __m256i {
        if VNNI { acc } else { self.begin_scaled() }
    }

    #[inline(always)]
    fn begin_scaled(self) -> __m256i {
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    fn step(self, dot: __m256i, w: __m256i, x: __m256i, peak: u32) -> __m256i {
        unsafe {
            if VNNI {
                _mm256_dpbusd_avx_epi32(dot, w, x)
            } else if peak == SIGNED {
                // |w| is unsigned up to 128, and 128 * 127 * 2 fits i16; the sign moves to x, which is never -128.
                _mm256_add_epi16(dot, _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)))
            } else {
                _mm256_add_epi16(dot, _mm256_maddubs_epi16(w, x))
            }
        }
    }

    #[inline(always)]
    fn end(self, dot: __m256i, acc: __m256i, _peak: u32) -> __m256i {
        if VNNI { dot } else { unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(dot, _mm256_set1_epi16(1))) } }
    }

    #[inline(always)]
    fn shift_down<const SHIFT: u32>(self, dot: __m256i) -> __m256i {
        unsafe { _mm256_sra_epi32(dot, _mm_cvtsi32_si128(SHIFT as i32)) }
    }

    #[inline(always)]
    fn end_apart(self, dot: __m256i, acc: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(acc, dot) }
    }

    #[inline(always)]
    fn end_scaled(self, dot: __m256i, acc: __m256i, scale: __m256i, peak: u32) -> __m256i {
        unsafe {
            if !VNNI {
                _mm256_add_epi32(acc, _mm256_madd_epi16(dot, scale))
            } else if narrow(peak) {
                // The scale has a zero upper half, so the upper half of the sum (its sign) does not count.
                dpwssd(acc, dot, scale)
            } else {
                _mm256_add_epi32(acc, _mm256_mullo_epi32(dot, scale))
            }
        }
    }

    #[inline(always)]
    fn to_floats(self, w: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(w) }
    }

    #[inline(always)]
    fn splat_float(self, x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn splat_float_at(self, p: *const u8) -> __m256 {
        unsafe { _mm256_set1_ps(p.cast::<f32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn load_floats(self, p: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn store_floats(self, p: *mut f32, v: __m256) {
        unsafe { _mm256_storeu_ps(p, v) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn fnma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fnmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn largest_magnitude(self, x: &[[f32; 16]]) -> u32 {
        unsafe {
            let mut largest = _mm256_setzero_si256();
            for x in x.as_flattened().as_chunks::<8>().0 {
                let bits = _mm256_and_si256(_mm256_loadu_si256(x.as_ptr().cast()), _mm256_set1_epi32(i32::MAX));
                largest = _mm256_max_epi32(largest, bits);
            }
            let x = _mm_max_epi32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256::<1>(largest));
            let x = _mm_max_epi32(x, _mm_shuffle_epi32::<0b01_00_11_10>(x));
            let x = _mm_max_epi32(x, _mm_shuffle_epi32::<0b10_11_00_01>(x));
            _mm_cvtsi128_si32(x) as u32
        }
    }

    #[inline(always)]
    fn quantize(self, x: &[f32; 16], factor: f32, q: &mut [u8; 16]) -> i32 {
        unsafe {
            let factor = _mm256_set1_ps(factor);
            // Conversion rounds to nearest even (the default of MXCSR, which Rust code keeps).
            let eight = |at: usize| _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x.as_ptr().add(at)), factor));
            let (a, b) = (eight(0), eight(8));
            // Packing works within 128-bit halves; the permutation puts the quarters in order.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(a, b));
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(q.as_mut_ptr().cast(), bytes);
            let sum = _mm256_add_epi32(a, b);
            let sum = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
            let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b01_00_11_10>(sum));
            let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b10_11_00_01>(sum));
            _mm_cvtsi128_si32(sum)
        }
    }
}
