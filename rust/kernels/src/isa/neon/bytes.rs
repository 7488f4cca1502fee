//! The int8 operations of NEON, with the dot product or without: sixteen lanes are four registers.
//!
//! Every `unsafe` here calls intrinsics: a value of [`Neon`] exists only where the CPU has NEON, with the dot product for `DOT`, and the arrays that are given have what is loaded.

#![allow(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]

use core::arch::aarch64::*;

use super::Neon;
use super::floats::F;
use super::integers::sdot;
use crate::LANES;
use crate::isa::bytes::Bytes;

/// Lanes `4 i..4 i + 4` in register `i`.
#[derive(Clone, Copy, Debug)]
pub struct W([int8x16_t; 4]);

/// As [`W`].
#[derive(Clone, Copy, Debug)]
pub struct S([int32x4_t; 4]);

impl<const DOT: bool> Neon<DOT> {
    #[inline(always)]
    fn four(self, sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        unsafe {
            if DOT {
                return sdot(sums, w, x);
            }
            // Products of two neighbours fit i16 one by one, not their sums.
            let low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x)));
            let high = vpaddlq_s16(vmull_high_s8(w, x));
            vaddq_s32(sums, vpaddq_s32(low, high))
        }
    }
}

impl<const DOT: bool> Bytes for Neon<DOT> {
    type W = W;
    type S = S;

    #[inline(always)]
    fn load_words(self, x: &[u16; 2 * LANES]) -> W {
        unsafe {
            let x: *const i8 = x.as_ptr().cast();
            W([vld1q_s8(x), vld1q_s8(x.add(16)), vld1q_s8(x.add(32)), vld1q_s8(x.add(48))])
        }
    }

    #[inline(always)]
    fn splat_word(self, x: i32) -> W {
        unsafe { W([vreinterpretq_s8_s32(vdupq_n_s32(x)); 4]) }
    }

    #[inline(always)]
    fn start(self, _sum: i32) -> S {
        unsafe { S([vdupq_n_s32(0); 4]) }
    }

    #[inline(always)]
    fn dot(self, sums: S, w: W, x: W) -> S {
        S([
            self.four(sums.0[0], w.0[0], x.0[0]),
            self.four(sums.0[1], w.0[1], x.0[1]),
            self.four(sums.0[2], w.0[2], x.0[2]),
            self.four(sums.0[3], w.0[3], x.0[3]),
        ])
    }

    #[inline(always)]
    fn sums(self, sums: S) -> F {
        unsafe {
            F([vcvtq_f32_s32(sums.0[0]), vcvtq_f32_s32(sums.0[1]), vcvtq_f32_s32(sums.0[2]), vcvtq_f32_s32(sums.0[3])])
        }
    }

    #[inline(always)]
    fn load_i8(self, x: &[u16; LANES / 2]) -> F {
        unsafe {
            let x = vld1q_s8(x.as_ptr().cast());
            let (low, high) = (vmovl_s8(vget_low_s8(x)), vmovl_high_s8(x));
            F([
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_high_s16(low)),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_high_s16(high)),
            ])
        }
    }

    #[inline(always)]
    fn prefetch(self, p: *const u16) {
        // SAFETY: a hint, which any address may be given to; the intrinsic is not stable.
        unsafe {
            core::arch::asm!("prfm pldl1keep, [{p}]", p = in(reg) p, options(readonly, nostack, preserves_flags));
        }
    }
}
