//! Dot products of words, for levels whose order of sixteen weights they are: lane by lane, each with the same activations.

use core::ops::Range;

use super::integers::Integers;

/// What [`dot16`](Integers::dot16) and [`dot16_scaled`](Integers::dot16_scaled) are made of on such levels.
pub(super) trait WordDots: Integers {
    /// The dot product divided by `2^SHIFT`, which leaves no rest.
    fn shift_down<const SHIFT: u32>(self, dot: Self::Dot) -> Self::Dot;

    /// `acc + dot`, of a dot product from [`begin_scaled`](Integers::begin_scaled).
    fn end_apart(self, dot: Self::Dot, acc: Self::Words) -> Self::Words;

    /// [`dot16`](Integers::dot16) of words: [`begin`](Integers::begin),
    /// [`step`](Integers::step)s, [`end`](Integers::end).
    ///
    /// # Safety
    /// 16 bytes are readable at `x`.
    #[inline(always)]
    unsafe fn words_dot<const SHIFT: u32>(
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

    /// As [`words_dot`](WordDots::words_dot), times `scale`.
    ///
    /// # Safety
    /// 16 bytes are readable at `x`.
    #[inline(always)]
    unsafe fn words_dot_scaled<const SHIFT: u32>(
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
}
