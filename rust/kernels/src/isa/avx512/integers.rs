//! Integer operations on 16 rows.

use core::arch::x86_64::*;

use super::Avx512;
use crate::format::grid::{Grid, SIGNS};
use crate::isa::integers::Integers;
use crate::unpack::Rows;

/// Shuffle masks that move byte `b` of each dword to a place and clear the others.
const fn gather(bytes: [i8; 4]) -> [i8; 16] {
    let mut mask = [-1; 16];
    let mut i = 0;
    while i < 16 {
        if bytes[i % 4] >= 0 {
            mask[i] = (i / 4 * 4) as i8 + bytes[i % 4];
        }
        i += 1;
    }
    mask
}

impl Avx512 {
    /// Shuffles the bytes of each dword; -1 clears.
    #[inline(always)]
    fn shuffle(self, w: __m512i, bytes: [i8; 4]) -> __m512i {
        let mask = gather(bytes);
        // SAFETY: the level has AVX-512BW; 16 bytes are loaded from an array of 16.
        unsafe { _mm512_shuffle_epi8(w, _mm512_broadcast_i32x4(_mm_loadu_si128(mask.as_ptr().cast()))) }
    }
}

/// Whether sums over 16 weights up to `peak` fit i16, so that a pair product can scale them.
#[inline(always)]
const fn narrow(peak: u32) -> bool {
    16 * peak * 127 <= i16::MAX as u32
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
impl Integers for Avx512 {
    const ROWS: usize = 16;
    const TILE: usize = 6;
    const SIGNED_OFFSET: i32 = 128;

    type Words = __m512i;
    type Floats = __m512;
    type Dot = __m512i;
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
    unsafe fn word(self, rows: Rows) -> __m512i {
        let mut words = [0i32; 16];
        for (r, word) in words.iter_mut().enumerate() {
            *word = unsafe { rows.block.add(r * rows.stride).cast::<i32>().read_unaligned() };
        }
        unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
    }

    #[inline(always)]
    unsafe fn chunk(self, rows: Rows) -> [__m512i; 4] {
        unsafe {
            // The 128-bit lane g of `x[i]` is row 4 g + i, so that the transposition below leaves the rows in order.
            let mut x = [_mm512_setzero_si512(); 4];
            for (i, x) in x.iter_mut().enumerate() {
                let row = rows.block.add(i * rows.stride);
                let four = 4 * rows.stride;
                *x = _mm512_castsi128_si512(_mm_loadu_si128(row.cast()));
                *x = _mm512_mask_broadcast_i32x4(*x, 0x00f0, _mm_loadu_si128(row.add(four).cast()));
                *x = _mm512_mask_broadcast_i32x4(*x, 0x0f00, _mm_loadu_si128(row.add(2 * four).cast()));
                *x = _mm512_mask_broadcast_i32x4(*x, 0xf000, _mm_loadu_si128(row.add(3 * four).cast()));
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
    unsafe fn halves(self, rows: Rows) -> __m512 {
        let mut halves = [0u16; 16];
        for (r, half) in halves.iter_mut().enumerate() {
            *half = unsafe { rows.block.add(r * rows.stride).cast::<u16>().read_unaligned() };
        }
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(halves.as_ptr().cast())) }
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
    fn between(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(_mm512_srli_epi32::<16>(a), _mm512_slli_epi32::<16>(b)) }
    }

    #[inline(always)]
    fn prefetch(self, rows: Rows) {
        for r in 0..16 {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(rows.block.wrapping_add(r * rows.stride).cast()) };
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
    fn field_up<const SHIFT: u32, const MASK: u8>(self, w: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(_mm512_slli_epi32::<SHIFT>(w), _mm512_set1_epi8(MASK as i8)) }
    }

    #[inline(always)]
    fn sub_bytes(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_sub_epi8(a, b) }
    }

    #[inline(always)]
    fn double_bytes(self, w: __m512i) -> (__m512i, __m512i) {
        (self.shuffle(w, [0, 0, 1, 1]), self.shuffle(w, [2, 2, 3, 3]))
    }

    #[inline(always)]
    fn fifth_bits(self, w: __m512i, i: usize) -> __m512i {
        let byte = (i / 2) as i8;
        let bytes = self.shuffle(w, [byte; 4]);
        let bits = if i.is_multiple_of(2) { 0x0804_0201 } else { 0x8040_2010u32 as i32 };
        unsafe { _mm512_maskz_set1_epi8(_mm512_test_epi8_mask(bytes, _mm512_set1_epi32(bits)), 16) }
    }

    #[inline(always)]
    fn pick(self, a: __m512i, b: __m512i, bytes: [u8; 4]) -> __m512i {
        let of = |first: u8| bytes.map(|byte| if byte / 4 * 4 == first { (byte % 4) as i8 } else { -1 });
        unsafe { _mm512_or_si512(self.shuffle(a, of(0)), self.shuffle(b, of(4))) }
    }

    #[inline(always)]
    fn spread<const WIDTH: u32>(self, w: __m512i, from: u32) -> __m512i {
        let (from, width) = (from as i32, WIDTH as i32);
        unsafe {
            let bytes = _mm512_multishift_epi64_epi8(
                places([from, from + width, from + 2 * width, from + 3 * width]),
                w,
            );
            _mm512_and_si512(bytes, _mm512_set1_epi8((1 << WIDTH) - 1))
        }
    }

    #[inline(always)]
    fn bit_everywhere(self, w: __m512i, bit: u32) -> __m512i {
        unsafe { _mm512_srai_epi32::<31>(_mm512_sll_epi32(w, _mm_cvtsi32_si128(31 - bit as i32))) }
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
        unsafe {
            if gathers(N) {
                for (m, entries) in entries.iter_mut().enumerate() {
                    for (e, entry) in entries.iter_mut().enumerate() {
                        let low = _mm512_srl_epi32(low[m], _mm_cvtsi32_si128(8 * e as i32));
                        let high = if e == 0 {
                            _mm512_slli_epi32::<8>(high[m])
                        } else {
                            _mm512_srl_epi32(high[m], _mm_cvtsi32_si128(8 * e as i32 - 8))
                        };
                        // Bits 7-0 of the one, the others of the other; a lane's number stays below N, whatever the bytes.
                        let number = _mm512_ternarylogic_epi32::<0xca>(_mm512_set1_epi32(0xff), low, high);
                        let number = _mm512_and_si512(number, _mm512_set1_epi32(N as i32 - 1));
                        *entry = _mm512_i32gather_epi32::<4>(number, grid.words.as_ptr().cast());
                    }
                }
                return entries;
            }
            // Each part of a plane, 128 entries, fills two registers; the lower seven bits of a number choose in it.
            let mut parts = low;
            for m in 0..M {
                let part = _mm512_and_si512(_mm512_srli_epi32::<7>(low[m]), _mm512_set1_epi8(1));
                parts[m] = if N == 256 {
                    part
                } else {
                    let upper = _mm512_and_si512(_mm512_add_epi8(high[m], high[m]), _mm512_set1_epi8((N / 128 - 2) as i8));
                    _mm512_or_si512(part, upper)
                };
            }
            for part in 0..N / 128 {
                for plane in 0..2 {
                    let table = grid.planes[plane].as_ptr().add(128 * part);
                    let table = (_mm512_loadu_si512(table.cast()), _mm512_loadu_si512(table.add(64).cast()));
                    for m in 0..M {
                        let found = &mut entries[m][plane];
                        if part == 0 {
                            *found = _mm512_permutex2var_epi8(table.0, low[m], table.1);
                        } else {
                            let chosen = _mm512_cmpeq_epi8_mask(parts[m], _mm512_set1_epi8(part as i8));
                            let all = _mm512_permutex2var_epi8(table.0, low[m], table.1);
                            *found = _mm512_mask_blend_epi8(chosen, *found, all);
                        }
                    }
                }
            }
        }
        entries
    }

    #[inline(always)]
    fn grid_weights<const N: usize, const WIDTH: usize>(
        self,
        grid: &'static Grid<N, WIDTH>,
        entries: [__m512i; 4],
        signs: __m512i,
        half: usize,
    ) -> [__m512i; 4] {
        let bits = Grid::<N, WIDTH>::BITS as i32;
        let mut weights = entries;
        for (i, weights) in weights.iter_mut().enumerate() {
            let e = 2 * half + i / 2;
            let (byte, i) = (8 * e as i32, i as i32);
            unsafe {
                let codes = match (WIDTH, gathers(N)) {
                    (8, true) if i % 2 == 0 => entries[e],
                    (8, true) => _mm512_srli_epi32::<4>(entries[e]),
                    (8, false) => _mm512_multishift_epi64_epi8(
                        places([byte, byte + 2, byte + 4, byte + 6]),
                        entries[i as usize % 2],
                    ),
                    _ => {
                        let lower = _mm512_multishift_epi64_epi8(places([8 * i, 8 * i + 3, 0, 0]), entries[0]);
                        let upper = places([0, 0, 8 * i, 8 * i + 3]);
                        _mm512_mask_multishift_epi64_epi8(lower, 0xcccc_cccc_cccc_cccc, upper, entries[1])
                    }
                };
                let first = byte + 4 * (i % 2) - bits;
                let signs = _mm512_multishift_epi64_epi8(places([first, first + 1, first + 2, first + 3]), signs);
                // The lower bits of the one and the next bit of the other; bits 7 and 6 do not count, and the table
                // repeats itself for what is in the bits between.
                let mask = _mm512_set1_epi8((1 << bits) - 1);
                let index = _mm512_ternarylogic_epi32::<0xca>(mask, codes, signs);
                *weights = _mm512_permutexvar_epi8(index, _mm512_loadu_si512(grid.bytes.as_ptr().cast()));
            }
        }
        weights
    }

    #[inline(always)]
    fn signed_bytes(self, w: __m512i) -> __m512i {
        unsafe { _mm512_xor_si512(w, _mm512_set1_epi8(-128)) }
    }

    #[inline(always)]
    fn sub_scale(self, w: __m512i, byte: usize, peak: u32, signed: bool) -> __m512i {
        let byte = byte as i8;
        unsafe {
            match (signed, narrow(peak)) {
                (false, _) => self.shuffle(w, [byte, -1, -1, -1]),
                (true, true) => _mm512_srai_epi16::<8>(self.shuffle(w, [-1, byte, -1, -1])),
                (true, false) => _mm512_srai_epi32::<24>(self.shuffle(w, [-1, -1, -1, byte])),
            }
        }
    }

    #[inline(always)]
    fn scale_pair(self, w: __m512i, pair: usize, signed: bool, factor: i32) -> __m512i {
        let first = 2 * pair as i8;
        unsafe {
            let pairs = if signed {
                _mm512_srai_epi16::<8>(self.shuffle(w, [-1, first, -1, first + 1]))
            } else {
                self.shuffle(w, [first, -1, first + 1, -1])
            };
            if factor == 1 { pairs } else { _mm512_mullo_epi16(pairs, _mm512_set1_epi16(factor as i16)) }
        }
    }

    #[inline(always)]
    fn pair_dot(self, acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_dpwssd_epi32(acc, a, b) }
    }

    #[inline(always)]
    fn sub_scaled(self, a: __m512i, b: __m512i, factor: i32) -> __m512i {
        if factor == 0 {
            return a;
        }
        unsafe { _mm512_sub_epi32(a, _mm512_sll_epi32(b, _mm_cvtsi32_si128(factor.trailing_zeros() as i32))) }
    }

    #[inline(always)]
    fn steps(self, _peak: u32) -> usize {
        // Dot products are i32 all along.
        64
    }

    #[inline(always)]
    fn begin(self, acc: __m512i) -> __m512i {
        acc
    }

    #[inline(always)]
    fn begin_scaled(self) -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn step(self, dot: __m512i, w: __m512i, x: __m512i, _peak: u32) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(dot, w, x) }
    }

    #[inline(always)]
    fn end(self, dot: __m512i, _acc: __m512i, _peak: u32) -> __m512i {
        dot
    }

    #[inline(always)]
    fn end_scaled(self, dot: __m512i, acc: __m512i, scale: __m512i, peak: u32) -> __m512i {
        unsafe {
            if narrow(peak) {
                // The scale has a zero upper half, so the upper half of the sum (its sign) does not count.
                _mm512_dpwssd_epi32(acc, dot, scale)
            } else {
                _mm512_add_epi32(acc, _mm512_mullo_epi32(dot, scale))
            }
        }
    }

    #[inline(always)]
    fn to_floats(self, w: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(w) }
    }

    #[inline(always)]
    fn splat_float(self, x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn splat_float_at(self, p: *const u8) -> __m512 {
        unsafe { _mm512_set1_ps(p.cast::<f32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn load_floats(self, p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn store_floats(self, p: *mut f32, v: __m512) {
        unsafe { _mm512_storeu_ps(p, v) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn fnma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fnmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn largest_magnitude(self, x: &[[f32; 16]]) -> u32 {
        unsafe {
            let mut largest = _mm512_setzero_si512();
            for x in x {
                let bits = _mm512_and_si512(_mm512_loadu_si512(x.as_ptr().cast()), _mm512_set1_epi32(i32::MAX));
                largest = _mm512_max_epi32(largest, bits);
            }
            _mm512_reduce_max_epi32(largest) as u32
        }
    }

    #[inline(always)]
    fn quantize(self, x: &[f32; 16], factor: f32, q: &mut [u8; 16]) -> i32 {
        unsafe {
            // Conversion rounds to nearest even (the default of MXCSR, which Rust code keeps).
            let q32 = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x.as_ptr()), _mm512_set1_ps(factor)));
            _mm_storeu_si128(q.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(q32));
            _mm512_reduce_add_epi32(q32)
        }
    }
}
