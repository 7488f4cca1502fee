//! Integer operations on four rows, with the dot product or without.
//!
//! Every `unsafe` here calls intrinsics: a value of [`Neon`] exists only where the CPU has NEON, with the dot product for `DOT`, and pointers are readable or writable by the contracts of the traits.

#![allow(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]

use core::arch::aarch64::*;
use core::ops::Range;

use super::Neon;
use crate::isa::integers::Integers;
use crate::isa::unpacking::Unpacking;
use crate::unpack::SIGNED;

/// `acc` plus the dot products of the four bytes of each lane. The intrinsic is not stable in Rust.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn sdot(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the features are enabled, and the instruction works on registers.
    unsafe {
        core::arch::asm!(
            "sdot {acc:v}.4s, {a:v}.16b, {b:v}.16b",
            acc = inout(vreg) acc, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// As [`sdot`], with word `WORD` of `b` in the place of each of its words.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot_word<const WORD: usize>(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the features are enabled, and the instruction works on registers.
    unsafe {
        core::arch::asm!(
            "sdot {acc:v}.4s, {a:v}.16b, {b:v}.4b[{word}]",
            acc = inout(vreg) acc, a = in(vreg) a, b = in(vreg) b, word = const WORD,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// Zero, which the compiler thinks it has from `sum`: with one dot product after the other it does not run out of registers.
#[inline(always)]
fn zero_after(sum: int32x4_t) -> int32x4_t {
    let zero;
    // SAFETY: the instruction works on registers.
    unsafe {
        core::arch::asm!(
            "movi {zero:v}.2d, #0 /* {sum:v} */", zero = lateout(vreg) zero, sum = in(vreg) sum,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    zero
}

/// A dot product under way: its sums with the dot instruction; else products of bytes, which are sums of i16, for the lower and for
/// the upper two rows, with the products of a row side by side.
#[derive(Clone, Copy)]
pub(crate) struct Dot(int32x4_t, int32x4_t);

impl Dot {
    #[inline(always)]
    fn pairs(self) -> (int16x8_t, int16x8_t) {
        unsafe { (vreinterpretq_s16_s32(self.0), vreinterpretq_s16_s32(self.1)) }
    }
}

/// Sums of four rows that are not set to zero: what came before is subtracted from all rows at once, where each row would take an
/// instruction. They wrap around, and the difference is exact.
#[derive(Clone, Copy)]
pub(crate) struct Sum {
    /// Of each row, its four lanes still apart.
    lanes: [int32x4_t; 4],
    /// What does not count of the sums, one row per lane.
    before: int32x4_t,
}

impl Sum {
    /// Adds the lanes of each row times its lane of `scale`.
    #[inline(always)]
    fn add_scaled(&mut self, lanes: [int32x4_t; 4], scale: int32x4_t) {
        let [a, b, c, d] = self.lanes;
        unsafe {
            self.lanes = [
                vmlaq_laneq_s32::<0>(a, lanes[0], scale),
                vmlaq_laneq_s32::<1>(b, lanes[1], scale),
                vmlaq_laneq_s32::<2>(c, lanes[2], scale),
                vmlaq_laneq_s32::<3>(d, lanes[3], scale),
            ];
        }
    }
}

impl<const DOT: bool> Neon<DOT> {
    /// As [`sums_dot`], by pairs.
    ///
    /// # Safety
    /// 32 bytes are readable at `sums`.
    #[inline(always)]
    unsafe fn sums_product(self, bytes: &[uint8x16_t; 4], signed: bool, sums: *const u8) -> int32x4_t {
        let mut total = self.splat(0);
        for p in 0..8 {
            let pairs = self.scale_pair(bytes[p / 2], p % 2, signed, 1);
            // SAFETY: by the contract.
            total = unsafe { self.pair_dot_at(total, pairs, sums.add(4 * p)) };
        }
        unsafe { vreinterpretq_s32_u8(total) }
    }

    /// The sums of each lane of a dot product.
    #[inline(always)]
    fn lanes(self, dot: Dot) -> int32x4_t {
        unsafe {
            if DOT {
                dot.0
            } else {
                let (low, high) = dot.pairs();
                vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high))
            }
        }
    }
}

/// The words `words` of a panel times activations, by the dot product with one word of a register: one load for the activations
/// of sixteen weights.
///
/// # Safety
/// As for [`Integers::tile`]; the CPU has the dot product.
#[inline(always)]
unsafe fn tile<const T: usize, const V: usize>(
    dot: &mut [[Dot; V]; T],
    panel: *const u8,
    x: &[*const u8; T],
    words: Range<usize>,
) {
    unsafe {
        let mut i = words.start;
        while i < words.end {
            let mut sixteen = [vdupq_n_s8(0); T];
            for t in 0..T {
                sixteen[t] = vld1q_s8(x[t].add(4 * i).cast());
            }
            macro_rules! word {
                ($word:literal) => {
                    for v in 0..V {
                        let w = vld1q_s8(panel.add((V * (i + $word) + v) * 16).cast());
                        for t in 0..T {
                            dot[t][v].0 = sdot_word::<$word>(dot[t][v].0, w, sixteen[t]);
                        }
                    }
                };
            }
            word!(0);
            word!(1);
            word!(2);
            word!(3);
            i += 4;
        }
    }
}

/// `Σ bytes[j] * sums[j]` over 16 sub-blocks: the sums, of up to 12 bits with their sign, are two signed bytes, `128 * high + low`.
///
/// # Safety
/// 32 bytes are readable at `sums`; the CPU has the dot product.
#[inline(always)]
unsafe fn sums_dot(bytes: &[uint8x16_t; 4], sums: *const u8) -> int32x4_t {
    unsafe {
        let (a, b) = (vld1q_s16(sums.cast()), vld1q_s16(sums.add(16).cast()));
        let low = vuzp1q_s8(vreinterpretq_s8_s16(a), vreinterpretq_s8_s16(b));
        let low = vandq_s8(low, vdupq_n_s8(127));
        let high = vshrn_high_n_s16::<7>(vshrn_n_s16::<7>(a), b);
        let [w0, w1, w2, w3] = bytes.map(|w| vreinterpretq_s8_u8(w));
        let dot = |acc, x| {
            let acc = sdot_word::<1>(sdot_word::<0>(acc, w0, x), w1, x);
            sdot_word::<3>(sdot_word::<2>(acc, w2, x), w3, x)
        };
        dot(vshlq_n_s32::<7>(dot(vdupq_n_s32(0), high)), low)
    }
}

/// The words of a lane from bytes, moved by `vqtbl1q_u8`, which clears where the table has 255.
const fn bytes_of_lanes(bytes: [u8; 4]) -> [u8; 16] {
    let mut table = [0; 16];
    let mut i = 0;
    while i < 16 {
        let byte = bytes[i % 4];
        table[i] = if byte == 255 { 255 } else { (i / 4 * 4) as u8 + byte };
        i += 1;
    }
    table
}

const NONE: u8 = 255;

impl<const DOT: bool> Integers for Neon<DOT> {
    const TILE: usize = if DOT { 4 } else { 3 };

    // Bytes are signed: a weight of 15 in the upper nibble has no room.
    const SHIFTS_SUMS: bool = false;
    const JOINS: bool = true;
    const FOURS: bool = true;

    type Dot = Dot;

    type Sum = Sum;

    #[inline(always)]
    fn sub_scale(self, w: uint8x16_t, byte: usize, _peak: u32, signed: bool) -> uint8x16_t {
        const LOW: [[u8; 16]; 4] = [
            bytes_of_lanes([0, NONE, NONE, NONE]),
            bytes_of_lanes([1, NONE, NONE, NONE]),
            bytes_of_lanes([2, NONE, NONE, NONE]),
            bytes_of_lanes([3, NONE, NONE, NONE]),
        ];
        const HIGH: [[u8; 16]; 4] = [
            bytes_of_lanes([NONE, NONE, NONE, 0]),
            bytes_of_lanes([NONE, NONE, NONE, 1]),
            bytes_of_lanes([NONE, NONE, NONE, 2]),
            bytes_of_lanes([NONE, NONE, NONE, 3]),
        ];
        unsafe {
            if signed {
                let top = self.shuffle(w, &HIGH[byte]);
                vreinterpretq_u8_s32(vshrq_n_s32::<24>(vreinterpretq_s32_u8(top)))
            } else {
                self.shuffle(w, &LOW[byte])
            }
        }
    }

    // Without a table, which would take a register.
    #[inline(always)]
    fn outer_scale(self, w: uint8x16_t, last: bool, _peak: u32, signed: bool) -> uint8x16_t {
        unsafe {
            if signed {
                let words = vreinterpretq_s32_u8(w);
                let top = if last { words } else { vshlq_n_s32::<24>(words) };
                vreinterpretq_u8_s32(vshrq_n_s32::<24>(top))
            } else if last {
                vreinterpretq_u8_u32(vshrq_n_u32::<24>(vreinterpretq_u32_u8(w)))
            } else {
                vandq_u8(w, self.splat(0xff))
            }
        }
    }

    #[inline(always)]
    fn scale_pair(self, w: uint8x16_t, pair: usize, signed: bool, factor: i32) -> uint8x16_t {
        const LOW: [[u8; 16]; 2] = [bytes_of_lanes([0, NONE, 1, NONE]), bytes_of_lanes([2, NONE, 3, NONE])];
        const HIGH: [[u8; 16]; 2] = [bytes_of_lanes([NONE, 0, NONE, 1]), bytes_of_lanes([NONE, 2, NONE, 3])];
        unsafe {
            let pairs = if signed {
                vshrq_n_s16::<8>(vreinterpretq_s16_u8(self.shuffle(w, &HIGH[pair])))
            } else {
                vreinterpretq_s16_u8(self.shuffle(w, &LOW[pair]))
            };
            vreinterpretq_u8_s16(if factor == 1 { pairs } else { vmulq_n_s16(pairs, factor as i16) })
        }
    }

    #[inline(always)]
    fn pair_product(self, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        unsafe {
            let (a, b) = (vreinterpretq_s16_u8(a), vreinterpretq_s16_u8(b));
            let products = vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b));
            vreinterpretq_u8_s32(products)
        }
    }

    #[inline(always)]
    fn pair_dot(self, acc: uint8x16_t, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        unsafe {
            let sum = vaddq_s32(vreinterpretq_s32_u8(acc), vreinterpretq_s32_u8(self.pair_product(a, b)));
            vreinterpretq_u8_s32(sum)
        }
    }

    #[inline(always)]
    fn steps(self, peak: u32) -> usize {
        // A step adds at most 127 * peak to an i16; of signed bytes 127 * 128.
        if DOT {
            64
        } else {
            match peak {
                0..=16 => 16,
                17..=32 => 8,
                33..=64 => 4,
                _ => 2,
            }
        }
    }

    #[inline(always)]
    fn whole_peak(self, peak: u32) -> u32 {
        peak
    }

    #[inline(always)]
    fn scaled_steps(self, peak: u32) -> usize {
        self.steps(peak).min(4)
    }

    #[inline(always)]
    fn begin(self, acc: uint8x16_t) -> Dot {
        unsafe { if DOT { Dot(vreinterpretq_s32_u8(acc), vdupq_n_s32(0)) } else { self.begin_scaled() } }
    }

    #[inline(always)]
    fn begin_scaled(self) -> Dot {
        unsafe { Dot(vdupq_n_s32(0), vdupq_n_s32(0)) }
    }

    #[inline(always)]
    fn step(self, dot: Dot, w: uint8x16_t, x: uint8x16_t, _peak: u32) -> Dot {
        unsafe {
            let (w, x) = (vreinterpretq_s8_u8(w), vreinterpretq_s8_u8(x));
            if DOT {
                return Dot(sdot(dot.0, w, x), dot.1);
            }
            let (low, high) = dot.pairs();
            let low = vmlal_s8(low, vget_low_s8(w), vget_low_s8(x));
            Dot(vreinterpretq_s32_s16(low), vreinterpretq_s32_s16(vmlal_high_s8(high, w, x)))
        }
    }

    #[inline(always)]
    fn end(self, dot: Dot, acc: uint8x16_t, _peak: u32) -> uint8x16_t {
        unsafe {
            let sums = self.lanes(dot);
            vreinterpretq_u8_s32(if DOT { sums } else { vaddq_s32(vreinterpretq_s32_u8(acc), sums) })
        }
    }

    #[inline(always)]
    fn end_scaled(self, dot: Dot, acc: uint8x16_t, scale: uint8x16_t, _peak: u32) -> uint8x16_t {
        unsafe {
            let (acc, scale) = (vreinterpretq_s32_u8(acc), vreinterpretq_s32_u8(scale));
            vreinterpretq_u8_s32(vmlaq_s32(acc, self.lanes(dot), scale))
        }
    }

    #[inline(always)]
    fn sum(self) -> Sum {
        unsafe { Sum { lanes: [vdupq_n_s32(0); 4], before: vdupq_n_s32(0) } }
    }

    #[inline(always)]
    fn start(self, sum: &mut Sum, start: uint8x16_t) {
        sum.before = unsafe { vsubq_s32(sum.before, vreinterpretq_s32_u8(start)) };
    }

    #[inline(always)]
    unsafe fn start_pair(self, sum: &mut Sum, pairs: uint8x16_t, p: *const u8) {
        unsafe {
            let mut pairs = vreinterpretq_s16_u8(pairs);
            // As they are: the compiler would replace the products with constants by more instructions.
            core::arch::asm!("/* {:v} */", inout(vreg) pairs, options(pure, nomem, nostack, preserves_flags));
            let (first, second) = (vget_low_s16(vuzp1q_s16(pairs, pairs)), vget_low_s16(vuzp2q_s16(pairs, pairs)));
            let x = vreinterpret_s16_u32(vld1_lane_u32::<0>(p.cast(), vdup_n_u32(0)));
            sum.before = vmlsl_lane_s16::<1>(vmlsl_lane_s16::<0>(sum.before, first, x), second, x);
        }
    }

    #[inline(always)]
    fn total(self, sum: &mut Sum) -> uint8x16_t {
        unsafe {
            let [a, b, c, d] = sum.lanes;
            let mut after = vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
            let total: int32x4_t;
            // The compiler would subtract later, from a copy, or add the products of `start_pair` up before.
            core::arch::asm!(
                "sub {total:v}.4s, {after:v}.4s, {total:v}.4s",
                total = inout(vreg) sum.before => total, after = inout(vreg) after,
                options(pure, nomem, nostack, preserves_flags)
            );
            sum.before = after;
            vreinterpretq_u8_s32(total)
        }
    }

    #[inline(always)]
    unsafe fn add_sums<const T: usize>(
        self,
        total: &mut [uint8x16_t; T],
        bytes: &[uint8x16_t; 4],
        signed: bool,
        factor: i32,
        sums: &[*const u8; T],
    ) {
        unsafe {
            for t in 0..T {
                let sum = if DOT { sums_dot(bytes, sums[t]) } else { self.sums_product(bytes, signed, sums[t]) };
                let sum = if factor == 1 { sum } else { vmulq_n_s32(sum, factor) };
                total[t] = vreinterpretq_u8_s32(vaddq_s32(vreinterpretq_s32_u8(total[t]), sum));
            }
        }
    }

    #[inline(always)]
    unsafe fn dot16<const SHIFT: u32>(self, mut acc: Sum, w: &[uint8x16_t; 4], x: *const u8, _peak: u32) -> Sum {
        debug_assert!(SHIFT == 0, "sums are not shifted");
        unsafe {
            let x = vld1q_s8(x.cast());
            for (acc, &w) in acc.lanes.iter_mut().zip(w) {
                let w = vreinterpretq_s8_u8(w);
                *acc = if DOT { sdot(*acc, w, x) } else { vpadalq_s16(*acc, products(w, x)) };
            }
        }
        acc
    }

    #[inline(always)]
    unsafe fn dot16_scaled<const SHIFT: u32>(
        self,
        mut acc: Sum,
        w: &[uint8x16_t; 4],
        x: *const u8,
        scale: uint8x16_t,
        _peak: u32,
    ) -> Sum {
        debug_assert!(SHIFT == 0, "sums are not shifted");
        unsafe {
            let scale = vreinterpretq_s32_u8(scale);
            let x = vld1q_s8(x.cast());
            let dot = |w: uint8x16_t| {
                let w = vreinterpretq_s8_u8(w);
                if DOT { sdot(vdupq_n_s32(0), w, x) } else { vpaddlq_s16(products(w, x)) }
            };
            acc.add_scaled([dot(w[0]), dot(w[1]), dot(w[2]), dot(w[3])], scale);
        }
        acc
    }

    #[inline(always)]
    unsafe fn dot32_scaled(
        self,
        mut acc: Sum,
        w: &[[uint8x16_t; 4]; 2],
        x: *const u8,
        scale: uint8x16_t,
        peak: u32,
    ) -> Sum {
        unsafe {
            if !DOT {
                acc = self.dot16_scaled::<0>(acc, &w[0], x, scale, peak);
                return self.dot16_scaled::<0>(acc, &w[1], x.add(16), scale, peak);
            }
            let (low, high) = (vld1q_s8(x.cast()), vld1q_s8(x.add(16).cast()));
            let mut dot = acc.lanes.map(zero_after);
            for r in 0..4 {
                dot[r] = sdot(dot[r], vreinterpretq_s8_u8(w[0][r]), low);
                dot[r] = sdot(dot[r], vreinterpretq_s8_u8(w[1][r]), high);
            }
            acc.add_scaled(dot, vreinterpretq_s32_u8(scale));
        }
        acc
    }

    #[inline(always)]
    unsafe fn tile<const T: usize, const V: usize>(
        self,
        dot: &mut [[Dot; V]; T],
        panel: *const u8,
        x: &[*const u8; T],
        words: Range<usize>,
        peak: u32,
    ) {
        unsafe {
            if DOT {
                return tile(dot, panel, x, words);
            }
            for i in words {
                let mut w = [self.splat(0); V];
                for (v, w) in w.iter_mut().enumerate() {
                    *w = self.load(panel.add((V * i + v) * 16));
                }
                for t in 0..T {
                    let x = self.splat_at(x[t].add(4 * i));
                    for v in 0..V {
                        dot[t][v] = self.step(dot[t][v], w[v], x, peak);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn to_floats(self, w: uint8x16_t) -> float32x4_t {
        unsafe { vcvtq_f32_s32(vreinterpretq_s32_u8(w)) }
    }

    #[inline(always)]
    fn splat_float(self, x: f32) -> float32x4_t {
        unsafe { vdupq_n_f32(x) }
    }

    #[inline(always)]
    unsafe fn splat_float_at(self, p: *const u8) -> float32x4_t {
        unsafe { vld1q_dup_f32(p.cast()) }
    }

    #[inline(always)]
    unsafe fn load_floats(self, p: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(p) }
    }

    #[inline(always)]
    unsafe fn store_floats(self, p: *mut f32, v: float32x4_t) {
        unsafe { vst1q_f32(p, v) }
    }

    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vmulq_f32(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(c, a, b) }
    }

    #[inline(always)]
    fn fnma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        unsafe { vfmsq_f32(c, a, b) }
    }

    #[inline(always)]
    fn largest_magnitude(self, x: &[[f32; 16]]) -> u32 {
        unsafe {
            let mut largest = vdupq_n_u32(0);
            for x in x.as_flattened().as_chunks::<4>().0 {
                let bits = vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(x.as_ptr())));
                largest = vmaxq_u32(largest, bits);
            }
            vmaxvq_u32(largest)
        }
    }

    #[inline(always)]
    fn quantize(self, x: &[f32; 16], factor: f32, q: &mut [u8; 16]) -> i32 {
        unsafe {
            let factor = vdupq_n_f32(factor);
            let four = |at: usize| vcvtnq_s32_f32(vmulq_f32(vld1q_f32(x[at..at + 4].as_ptr()), factor));
            let (a, b, c, d) = (four(0), four(4), four(8), four(12));
            let low = vcombine_s16(vmovn_s32(a), vmovn_s32(b));
            let high = vcombine_s16(vmovn_s32(c), vmovn_s32(d));
            vst1q_s8(q.as_mut_ptr().cast(), vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
            i32::from(vaddvq_s16(vaddq_s16(low, high)))
        }
    }
}

/// The products of bytes `i` and `i + 8`, added up: at most twice 127 * 128, which fits i16.
#[inline(always)]
fn products(w: int8x16_t, x: int8x16_t) -> int16x8_t {
    const { assert!(2 * 127 * SIGNED <= i16::MAX as u32) };
    unsafe { vmlal_high_s8(vmull_s8(vget_low_s8(w), vget_low_s8(x)), w, x) }
}
