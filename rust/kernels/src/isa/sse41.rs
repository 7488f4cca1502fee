//! SSE4.1: vectors of 128 bits, and no fused multiply-add.
mod bytes;
mod floats;
mod fma;
mod halves;
mod integers;
mod unpacking;

use super::{Isa, Kernel, SimdKernel};

/// SSE4.1 operations.
#[derive(Clone, Copy, Debug)]
pub struct Sse41(());

impl Isa for Sse41 {}

/// # Safety
/// The CPU has the features of [`Level::Sse41`](crate::Level::Sse41).
#[target_feature(enable = "ssse3,sse4.1")]
pub(super) unsafe fn run_sse41<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Sse41(()))
}

/// # Safety
/// The CPU has the features of [`Level::Sse41`](crate::Level::Sse41).
#[target_feature(enable = "ssse3,sse4.1")]
pub(super) unsafe fn simd_sse41<K: SimdKernel>(kernel: K) -> K::Output {
    kernel.run(Sse41(()))
}
