//! Taking blocks of four rows apart.
//!
//! Every `unsafe` here calls intrinsics: a value of [`Neon`] exists only where the CPU has NEON, and pointers are readable or writable by the contract of the trait.

#![allow(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]

use core::arch::aarch64::*;

use super::Neon;
use crate::format::grid::Grid;
use crate::isa::unpacking::Unpacking;
use crate::unpack::Rows;

impl<const DOT: bool> Neon<DOT> {
    /// Byte `i` is byte `table[i]` of `w`, or 0 where there is none.
    #[inline(always)]
    pub(super) fn shuffle(self, w: uint8x16_t, table: &[u8; 16]) -> uint8x16_t {
        unsafe { vqtbl1q_u8(w, vld1q_u8(table.as_ptr())) }
    }

    /// 255 for each bit of 16 of row `r` that is set, from bit `16 half` of its lane on.
    #[inline(always)]
    fn row_bits(self, w: uint8x16_t, r: usize, half: usize) -> uint8x16_t {
        unsafe {
            let byte = (4 * r + 2 * half) as u8;
            let bytes = vqtbl1q_u8(w, vcombine_u8(vdup_n_u8(byte), vdup_n_u8(byte + 1)));
            vtstq_u8(bytes, vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201)))
        }
    }

    /// The entries of the grid for the bytes of one lane, whose numbers are given.
    #[inline(always)]
    fn four_entries<const N: usize, const WIDTH: usize>(
        self,
        grid: &'static Grid<N, WIDTH>,
        numbers: [u16; 4],
    ) -> uint8x16_t {
        unsafe {
            let word = |e: usize| grid.words[usize::from(numbers[e]) % N..].as_ptr();
            let entries = vdupq_n_u32(0);
            let entries = {
                let entries = vld1q_lane_u32::<0>(word(0), entries);
                let entries = vld1q_lane_u32::<1>(word(1), entries);
                let entries = vld1q_lane_u32::<2>(word(2), entries);
                vld1q_lane_u32::<3>(word(3), entries)
            };
            vreinterpretq_u8_u32(entries)
        }
    }
}

/// The table of [`Unpacking::pick`] for the bytes of each lane in `a`, or from 16 on in `b`.
#[inline(always)]
const fn picks(bytes: [u8; 4]) -> [u8; 16] {
    let mut table = [0; 16];
    let mut i = 0;
    while i < 16 {
        let byte = bytes[i % 4];
        table[i] = (i / 4 * 4) as u8 + byte % 4 + byte / 4 * 16;
        i += 1;
    }
    table
}

impl<const DOT: bool> Unpacking for Neon<DOT> {
    const ROWS: usize = 4;

    // Four streams are what prefetchers follow, and a lane is loaded by one instruction.
    const AHEAD: bool = false;

    const SIGNED_OFFSET: i32 = 0;

    type Words = uint8x16_t;
    type Floats = float32x4_t;
    type Table = uint8x16_t;

    /// The words of the entries of each row.
    type Entries = [uint8x16_t; 4];

    #[inline(always)]
    fn splat(self, x: i32) -> uint8x16_t {
        unsafe { vreinterpretq_u8_s32(vdupq_n_s32(x)) }
    }

    #[inline(always)]
    unsafe fn splat_at(self, p: *const u8) -> uint8x16_t {
        unsafe { vreinterpretq_u8_u32(vld1q_dup_u32(p.cast())) }
    }

    #[inline(always)]
    unsafe fn scattered(self, rows: Rows) -> uint8x16_t {
        unsafe {
            let words = vld1q_lane_u32::<0>(rows.block.cast(), vdupq_n_u32(0));
            let words = vld1q_lane_u32::<1>(rows.others[0].cast(), words);
            let words = vld1q_lane_u32::<2>(rows.others[1].cast(), words);
            vreinterpretq_u8_u32(vld1q_lane_u32::<3>(rows.others[2].cast(), words))
        }
    }

    // The compiler would begin with the dot products of a whole super-block, and keep them in memory until the scales are there.
    #[allow(clippy::pointers_in_nomem_asm_block, reason = "nothing is read; the values only pass through")]
    #[inline(always)]
    fn before<const N: usize>(self, mut words: [uint8x16_t; N], mut rows: Rows) -> ([uint8x16_t; N], Rows) {
        for word in &mut words {
            let [second, third, fourth] = &mut rows.others;
            unsafe {
                core::arch::asm!(
                    "/* {:v} {} {} {} {} */", inout(vreg) *word, inout(reg) rows.block,
                    inout(reg) *second, inout(reg) *third, inout(reg) *fourth,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
        }
        (words, rows)
    }

    #[allow(clippy::pointers_in_nomem_asm_block, reason = "nothing is read; the pointer only passes through")]
    #[inline(always)]
    fn apart(self, mut p: *const u8) -> *const u8 {
        unsafe { core::arch::asm!("/* {} */", inout(reg) p, options(pure, nomem, nostack, preserves_flags)) };
        p
    }

    #[inline(always)]
    unsafe fn load(self, p: *const u8) -> uint8x16_t {
        unsafe { vld1q_u8(p) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut u8, w: uint8x16_t) {
        unsafe { vst1q_u8(p, w) }
    }

    #[inline(always)]
    unsafe fn chunk(self, rows: Rows) -> [uint8x16_t; 4] {
        unsafe {
            let [b, c, d] = rows.others;
            [vld1q_u8(rows.block), vld1q_u8(b), vld1q_u8(c), vld1q_u8(d)]
        }
    }

    #[inline(always)]
    fn turn(self, chunk: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        unsafe {
            let [a, b, c, d] = [
                vreinterpretq_u32_u8(chunk[0]),
                vreinterpretq_u32_u8(chunk[1]),
                vreinterpretq_u32_u8(chunk[2]),
                vreinterpretq_u32_u8(chunk[3]),
            ];
            // Words 0 and 2, then 1 and 3, of two rows each.
            let (even_ab, odd_ab) = (vreinterpretq_u64_u32(vtrn1q_u32(a, b)), vreinterpretq_u64_u32(vtrn2q_u32(a, b)));
            let (even_cd, odd_cd) = (vreinterpretq_u64_u32(vtrn1q_u32(c, d)), vreinterpretq_u64_u32(vtrn2q_u32(c, d)));
            [
                vreinterpretq_u8_u64(vtrn1q_u64(even_ab, even_cd)),
                vreinterpretq_u8_u64(vtrn1q_u64(odd_ab, odd_cd)),
                vreinterpretq_u8_u64(vtrn2q_u64(even_ab, even_cd)),
                vreinterpretq_u8_u64(vtrn2q_u64(odd_ab, odd_cd)),
            ]
        }
    }

    #[inline(always)]
    fn halves(self, a: [uint8x16_t; 4], b: [uint8x16_t; 4]) -> [[uint8x16_t; 4]; 2] {
        unsafe {
            let (mut first, mut second) = (a, b);
            for r in 0..4 {
                let (a, b) = (vreinterpretq_u64_u8(a[r]), vreinterpretq_u64_u8(b[r]));
                first[r] = vreinterpretq_u8_u64(vtrn1q_u64(a, b));
                second[r] = vreinterpretq_u8_u64(vtrn2q_u64(a, b));
            }
            [first, second]
        }
    }

    #[inline(always)]
    fn lower_halves(self, w: uint8x16_t) -> float32x4_t {
        unsafe { vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(vreinterpretq_u32_u8(w)))) }
    }

    #[inline(always)]
    unsafe fn scattered_halves(self, rows: Rows) -> float32x4_t {
        unsafe {
            let mut halves = vld1_dup_u16(rows.block.cast());
            // As it is: the compiler would take the first lane through a general register.
            core::arch::asm!("/* {:v} */", inout(vreg) halves, options(pure, nomem, nostack, preserves_flags));
            let halves = vld1_lane_u16::<1>(rows.others[0].cast(), halves);
            let halves = vld1_lane_u16::<2>(rows.others[1].cast(), halves);
            let halves = vld1_lane_u16::<3>(rows.others[2].cast(), halves);
            vcvt_f32_f16(vreinterpret_f16_u16(halves))
        }
    }

    #[inline(always)]
    fn upper_halves(self, w: uint8x16_t) -> float32x4_t {
        unsafe { vcvt_f32_f16(vreinterpret_f16_u16(vshrn_n_u32::<16>(vreinterpretq_u32_u8(w)))) }
    }

    #[inline(always)]
    fn exponents(self, w: uint8x16_t) -> float32x4_t {
        unsafe {
            let e = vandq_u32(vreinterpretq_u32_u8(w), vdupq_n_u32(0xff));
            let one = vdupq_n_u32(1);
            let normal = vreinterpretq_s32_u32(vshlq_n_u32::<23>(vsubq_u32(e, one)));
            // 2^-128 and 2^-127, which every normal number is above.
            let below = vreinterpretq_s32_u32(vminq_u32(e, one));
            let subnormal = vshlq_s32(vdupq_n_s32(0x0020_0000), below);
            vreinterpretq_f32_s32(vmaxq_s32(normal, subnormal))
        }
    }

    #[inline(always)]
    fn small_floats(self, w: uint8x16_t, byte: usize) -> float32x4_t {
        unsafe {
            let shift = vdupq_n_s32(-8 * byte as i32);
            let bits = vandq_u32(vshlq_u32(vreinterpretq_u32_u8(w), shift), vdupq_n_u32(0xff));
            let nan = vceqq_u32(bits, vdupq_n_u32(0x7f));
            // An f16 with the same bits has the exponent bias 15 instead of 7.
            let halves = vandq_u32(vshlq_n_u32::<7>(bits), vdupq_n_u32(0x3f80));
            let floats = vmulq_f32(self.lower_halves(vreinterpretq_u8_u32(halves)), vdupq_n_f32(128.0));
            vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(floats), nan))
        }
    }

    #[inline(always)]
    fn between(self, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        unsafe {
            let lower = vshrq_n_u32::<16>(vreinterpretq_u32_u8(a));
            vreinterpretq_u8_u32(vsliq_n_u32::<16>(lower, vreinterpretq_u32_u8(b)))
        }
    }

    // Nothing is asked for: see `AHEAD`.
    #[inline(always)]
    fn prefetch(self, _rows: Rows) {}

    #[inline(always)]
    fn prefetch_line(self, _p: *const u8) {}

    #[inline(always)]
    fn or(self, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        unsafe { vorrq_u8(a, b) }
    }

    #[inline(always)]
    fn field<const SHIFT: u32, const MASK: u8>(self, w: uint8x16_t) -> uint8x16_t {
        unsafe {
            let shifted = if SHIFT == 0 { w } else { vshlq_u8(w, vdupq_n_s8(-(SHIFT as i8))) };
            if MASK == 255 >> SHIFT { shifted } else { vandq_u8(shifted, vdupq_n_u8(MASK)) }
        }
    }

    #[inline(always)]
    fn field_in_place<const SHIFT: u32, const MASK: u8>(self, w: uint8x16_t) -> uint8x16_t {
        unsafe { vandq_u8(w, vdupq_n_u8(MASK << SHIFT)) }
    }

    #[inline(always)]
    fn field_up<const SHIFT: u32, const MASK: u8>(self, w: uint8x16_t) -> uint8x16_t {
        unsafe { vandq_u8(vshlq_u8(w, vdupq_n_s8(SHIFT as i8)), vdupq_n_u8(MASK)) }
    }

    #[inline(always)]
    fn table(self, bytes: &[u8; 16]) -> uint8x16_t {
        unsafe { vld1q_u8(bytes.as_ptr()) }
    }

    #[inline(always)]
    fn look_up<const SHIFT: u32>(self, table: uint8x16_t, w: uint8x16_t) -> uint8x16_t {
        unsafe { vqtbl1q_u8(table, self.field::<SHIFT, 0x0f>(w)) }
    }

    #[inline(always)]
    fn sub_bytes(self, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        unsafe { vsubq_u8(a, b) }
    }

    #[inline(always)]
    fn double_bytes(self, w: uint8x16_t) -> (uint8x16_t, uint8x16_t) {
        (self.pick(w, w, [0, 0, 1, 1]), self.pick(w, w, [2, 2, 3, 3]))
    }

    #[inline(always)]
    fn sixteen_bits<const VALUE: u8>(self, w: uint8x16_t, half: usize) -> [uint8x16_t; 4] {
        unsafe {
            let value = vdupq_n_u8(VALUE);
            [
                vandq_u8(self.row_bits(w, 0, half), value),
                vandq_u8(self.row_bits(w, 1, half), value),
                vandq_u8(self.row_bits(w, 2, half), value),
                vandq_u8(self.row_bits(w, 3, half), value),
            ]
        }
    }

    #[inline(always)]
    fn trits(self, w: uint8x16_t) -> [uint8x16_t; 5] {
        unsafe {
            let mut rest = w;
            let mut digits = [w; 5];
            for digit in &mut digits {
                // Three quarters of the rest, rounded down: a halving addition of the rest and half of it.
                let three_quarters = vhaddq_u8(rest, vshrq_n_u8::<1>(rest));
                *digit = vshrq_n_u8::<6>(three_quarters);
                rest = vaddq_u8(rest, vaddq_u8(rest, rest));
            }
            digits
        }
    }

    #[inline(always)]
    fn pick(self, a: uint8x16_t, b: uint8x16_t, bytes: [u8; 4]) -> uint8x16_t {
        unsafe {
            let table = picks(bytes);
            vqtbl2q_u8(uint8x16x2_t(a, b), vld1q_u8(table.as_ptr()))
        }
    }

    #[inline(always)]
    fn spread<const WIDTH: u32, const FROM: u32>(self, w: uint8x16_t) -> uint8x16_t {
        unsafe {
            // First two fields to each half of a lane, then one to each byte.
            let (two, one) = (1u32 << (2 * WIDTH), 1u32 << WIDTH);
            let by = |bits: i32| vdupq_n_s32(bits);
            let w = vshlq_u32(vreinterpretq_u32_u8(w), by(-(FROM as i32)));
            let upper = vandq_u32(vshlq_u32(w, by(-2 * WIDTH as i32)), vdupq_n_u32(two - 1));
            let halves = vsliq_n_u32::<16>(vandq_u32(w, vdupq_n_u32(two - 1)), upper);
            let upper = vshlq_u32(halves, by(8 - WIDTH as i32));
            vreinterpretq_u8_u32(vorrq_u32(
                vandq_u32(halves, vdupq_n_u32((one - 1) * 0x0001_0001)),
                vandq_u32(upper, vdupq_n_u32((one - 1) * 0x0100_0100)),
            ))
        }
    }

    #[inline(always)]
    fn bit_everywhere<const BIT: u32>(self, w: uint8x16_t) -> uint8x16_t {
        unsafe { vreinterpretq_u8_u32(vtstq_u32(vreinterpretq_u32_u8(w), vdupq_n_u32(1 << BIT))) }
    }

    #[inline(always)]
    fn negative_bytes(self, w: uint8x16_t) -> uint8x16_t {
        unsafe { vcltzq_s8(vreinterpretq_s8_u8(w)) }
    }

    #[inline(always)]
    fn with_parity(self, w: uint8x16_t) -> uint8x16_t {
        unsafe {
            let seven = vandq_u8(w, vdupq_n_u8(127));
            // The lowest bit of the number of set bits goes to bit 7.
            vsliq_n_u8::<7>(seven, vcntq_u8(seven))
        }
    }

    #[inline(always)]
    fn entries<const N: usize, const WIDTH: usize, const M: usize>(
        self,
        grid: &'static Grid<N, WIDTH>,
        low: [uint8x16_t; M],
        high: [uint8x16_t; M],
    ) -> [[uint8x16_t; 4]; M] {
        unsafe {
            let mut entries = [[self.splat(0); 4]; M];
            for m in 0..M {
                let mut numbers = [0u16; 16];
                let high = vandq_u8(high[m], vdupq_n_u8((N / 256 - 1) as u8));
                vst1q_u16(numbers.as_mut_ptr(), vreinterpretq_u16_u8(vzip1q_u8(low[m], high)));
                vst1q_u16(numbers[8..].as_mut_ptr(), vreinterpretq_u16_u8(vzip2q_u8(low[m], high)));
                for (entries, &numbers) in entries[m].iter_mut().zip(numbers.as_chunks::<4>().0) {
                    *entries = self.four_entries(grid, numbers);
                }
            }
            entries
        }
    }

    #[inline(always)]
    fn grid_weights<const N: usize, const WIDTH: usize, const HALF: usize>(
        self,
        grid: &'static Grid<N, WIDTH>,
        entries: [uint8x16_t; 4],
        signs: uint8x16_t,
    ) -> [uint8x16_t; 4] {
        unsafe {
            let bytes = vld1q_u8(grid.bytes.as_ptr());
            let mut weights = entries;
            for (r, weights) in weights.iter_mut().enumerate() {
                let codes = if WIDTH == 8 {
                    // The codes of two entries, of each the lower nibbles, then the upper ones.
                    let words = vreinterpretq_u32_u8(*weights);
                    let two = if HALF == 0 { vzip1q_u32(words, words) } else { vzip2q_u32(words, words) };
                    let shifts = vreinterpretq_s8_u64(vdupq_n_u64(0xfcfc_fcfc_0000_0000));
                    vandq_u8(vshlq_u8(vreinterpretq_u8_u32(two), shifts), vdupq_n_u8(15))
                } else {
                    *weights
                };
                let sign = vandq_u8(self.row_bits(signs, r, HALF), vdupq_n_u8(1 << Grid::<N, WIDTH>::BITS));
                *weights = vqtbl1q_u8(bytes, vorrq_u8(codes, sign));
            }
            weights
        }
    }

    #[inline(always)]
    fn signed_bytes(self, w: uint8x16_t) -> uint8x16_t {
        w
    }
}
