//! NEON, with the dot product (`sdot`) as a variant.
//!
//! A row of weights stays in one piece: vector `r` of a chunk is row `r`, products with the activations add up along it, and the four
//! sums come together as lanes once per block. That saves the transposition that lanes of rows would need, and it is what
//! multiplications of bytes without the dot product want.
mod bytes;
mod floats;
mod integers;
mod unpacking;

use super::{Isa, Kernel, SimdKernel};

/// NEON operations; `DOT` chooses the dot product.
#[derive(Clone, Copy, Debug)]
pub struct Neon<const DOT: bool>(());

impl<const DOT: bool> Isa for Neon<DOT> {}

/// # Safety
/// The CPU has the features of [`Level::Neon`](crate::Level::Neon).
#[target_feature(enable = "neon")]
pub(super) unsafe fn run_neon<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Neon::<false>(()))
}

/// # Safety
/// The CPU has the features of [`Level::NeonDot`](crate::Level::NeonDot).
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn run_neon_dot<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Neon::<true>(()))
}

/// # Safety
/// The CPU has the features of [`Level::Neon`](crate::Level::Neon).
#[target_feature(enable = "neon")]
pub(super) unsafe fn simd_neon<K: SimdKernel>(kernel: K) -> K::Output {
    kernel.run(Neon::<false>(()))
}

/// # Safety
/// The CPU has the features of [`Level::NeonDot`](crate::Level::NeonDot).
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn simd_neon_dot<K: SimdKernel>(kernel: K) -> K::Output {
    kernel.run(Neon::<true>(()))
}

/// A computation for the level with the matrix product alone.
pub(crate) trait Only {
    /// Runs it. Implementations are `#[inline(always)]`.
    fn run(self, isa: Neon<true>);
}

/// # Safety
/// The CPU has the features of [`Level::NeonI8mm`](crate::Level::NeonI8mm).
#[target_feature(enable = "neon,dotprod,i8mm")]
pub(crate) unsafe fn run_only<K: Only>(kernel: K) {
    kernel.run(Neon::<true>(()))
}
