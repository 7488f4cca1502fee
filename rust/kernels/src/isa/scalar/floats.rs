//! The f32 operations in plain Rust; the meaning of every other level.

use super::Scalar;
use crate::LANES;
use crate::half::{bf16_to_f32, f16_to_f32, f32_to_f16};
use crate::isa::floats::Floats;

/// Applies `f` to every lane.
#[inline(always)]
fn map(a: [f32; LANES], f: impl Fn(f32) -> f32) -> [f32; LANES] {
    a.map(f)
}

/// Applies `f` to every pair of lanes.
#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    std::array::from_fn(|l| f(a[l], b[l]))
}

/// Bit `l` is `f(l)`.
#[inline(always)]
fn bits(f: impl Fn(usize) -> bool) -> u16 {
    (0..LANES).fold(0, |bits, l| bits | u16::from(f(l)) << l)
}

/// Joins the lanes by the reduction tree of the contract.
#[inline(always)]
fn tree(mut v: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [8, 4, 2, 1] {
        for l in 0..half {
            v[l] = f(v[l], v[l + half]);
        }
    }
    v[0]
}

impl Floats for Scalar {
    type F = [f32; LANES];

    const VECTORS: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        *x
    }

    #[inline(always)]
    fn store(self, v: Self::F, out: &mut [f32; LANES]) {
        *out = v;
    }

    #[inline(always)]
    fn load_f16(self, x: &[u16; LANES]) -> Self::F {
        x.map(f16_to_f32)
    }

    #[inline(always)]
    fn store_f16(self, v: Self::F, out: &mut [u16; LANES]) {
        *out = v.map(f32_to_f16);
    }

    #[inline(always)]
    fn load_bf16(self, x: &[u16; LANES]) -> Self::F {
        x.map(bf16_to_f32)
    }

    #[inline(always)]
    fn load_doubled(self, x: &[f32; LANES / 2]) -> Self::F {
        std::array::from_fn(|l| x[l / 2])
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        std::array::from_fn(|l| a[l].mul_add(b[l], c[l]))
    }

    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        map(a, |a| f32::from_bits(a.to_bits() & 0x7fff_ffff))
    }

    #[inline(always)]
    fn neg(self, a: Self::F) -> Self::F {
        map(a, |a| f32::from_bits(a.to_bits() ^ 0x8000_0000))
    }

    #[inline(always)]
    fn with_sign(self, x: Self::F, sign: Self::F) -> Self::F {
        zip(x, sign, |x, sign| f32::from_bits(x.to_bits() | sign.to_bits() & 0x8000_0000))
    }

    #[inline(always)]
    fn scale2(self, v: Self::F, n: Self::F) -> Self::F {
        // In two halves: 2^n itself may lie outside the normal numbers. Only the second product rounds.
        let power = |n: i32| f32::from_bits(((n + 127) as u32) << 23);
        zip(v, n, |v, n| {
            let n = n as i32;
            v * power(n >> 1) * power(n - (n >> 1))
        })
    }

    #[inline(always)]
    fn swap_pairs(self, v: Self::F) -> Self::F {
        std::array::from_fn(|l| v[l ^ 1])
    }

    #[inline(always)]
    fn select_less(self, a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F {
        std::array::from_fn(|l| if a[l] < b[l] { x[l] } else { y[l] })
    }

    #[inline(always)]
    fn select_lanes(self, first: usize, end: usize, x: Self::F, y: Self::F) -> Self::F {
        std::array::from_fn(|l| if (first..end).contains(&l) { x[l] } else { y[l] })
    }

    #[inline(always)]
    fn equal(self, a: Self::F, b: Self::F) -> u16 {
        bits(|l| a[l] == b[l])
    }

    #[inline(always)]
    fn is_nan(self, v: Self::F) -> u16 {
        bits(|l| v[l].is_nan())
    }

    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        tree(v, |a, b| a + b)
    }

    #[inline(always)]
    fn largest(self, v: Self::F) -> f32 {
        tree(v, |a, b| if a > b { a } else { b })
    }
}
