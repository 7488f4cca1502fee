//! Rotary position embedding (Su et al., "RoFormer", 2021).

use crate::isa::floats::Floats;
use crate::isa::{Isa, Kernel, dispatch_floats};
use crate::{Cpu, LANES};

/// How rope pairs the values of a head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RopeStyle {
    /// `(x[2i], x[2i+1])`, as in Llama files.
    Pairs,
    /// `(x[i], x[i + n/2])`, as in NeoX, Qwen and Gemma; `n` is the number of rotated values.
    Halves,
}

/// Pairs in a vector of [`RopeStyle::Pairs`].
const PAIRS: usize = LANES / 2;

struct Rope<'a> {
    x: &'a mut [f32],
    head_dim: usize,
    style: RopeStyle,
    cos: &'a [f32],
    sin: &'a [f32],
}

impl Kernel for Rope<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        match self.style {
            RopeStyle::Pairs => self.pairs(isa),
            RopeStyle::Halves => self.halves(isa),
        }
    }
}

impl Rope<'_> {
    #[inline(always)]
    fn halves<I: Floats>(self, isa: I) {
        let half = self.cos.len();
        for start in (0..half).step_by(LANES) {
            let end = half.min(start + LANES);
            let (cos, sin) = (isa.load_first(&self.cos[start..end], 0.0), isa.load_first(&self.sin[start..end], 0.0));
            for head in self.x.chunks_exact_mut(self.head_dim) {
                let a = isa.load_first(&head[start..end], 0.0);
                let b = isa.load_first(&head[half + start..half + end], 0.0);
                isa.store_first(isa.fma(a, cos, isa.neg(isa.mul(b, sin))), &mut head[start..end]);
                isa.store_first(isa.fma(b, cos, isa.mul(a, sin)), &mut head[half + start..half + end]);
            }
        }
    }

    #[inline(always)]
    fn pairs<I: Floats>(self, isa: I) {
        let half = self.cos.len();
        let mut alternating = [0.0; LANES];
        alternating.as_chunks_mut::<2>().0.fill([-1.0, 1.0]);
        let alternating = isa.load(&alternating);
        for start in (0..half).step_by(PAIRS) {
            let end = half.min(start + PAIRS);
            // (c0, c0, c1, c1, …) and (-s0, s0, -s1, s1, …)
            let (mut cos, mut sin) = ([0.0; PAIRS], [0.0; PAIRS]);
            cos[..end - start].copy_from_slice(&self.cos[start..end]);
            sin[..end - start].copy_from_slice(&self.sin[start..end]);
            let cos = isa.load_doubled(&cos);
            let sin = isa.mul(isa.load_doubled(&sin), alternating);
            for head in self.x.chunks_exact_mut(self.head_dim) {
                let x = &mut head[2 * start..2 * end];
                let v = isa.load_first(x, 0.0);
                isa.store_first(isa.fma(v, cos, isa.mul(isa.swap_pairs(v), sin)), x);
            }
        }
    }
}

/// Rotates the first `2 * cos.len()` values of every head of `x` `(heads, head_dim)`:
/// `(a, b)` becomes `(fma(a, cos, -(b sin)), fma(b, cos, a sin))`.
pub fn rope(cpu: Cpu, x: &mut [f32], head_dim: usize, style: RopeStyle, cos: &[f32], sin: &[f32]) {
    assert_eq!(cos.len(), sin.len(), "cos and sin must have the same length");
    assert!(head_dim > 0 && x.len().is_multiple_of(head_dim), "x must hold whole heads");
    assert!(2 * cos.len() <= head_dim, "a head is shorter than what is rotated");
    dispatch_floats(cpu, Rope { x, head_dim, style, cos, sin });
}
