//! AVX2, with the AVX-VNNI dot product as a variant.
mod bytes;
mod floats;
mod integers;
mod unpacking;

use super::{Isa, Kernel, SimdKernel};

/// AVX2 operations; `VNNI` chooses the dot product.
#[derive(Clone, Copy, Debug)]
pub struct Avx2<const VNNI: bool>(());

impl<const VNNI: bool> Isa for Avx2<VNNI> {}

/// # Safety
/// The CPU has the features of [`Level::Avx2`](crate::Level::Avx2).
#[target_feature(enable = "avx2,fma,f16c,bmi2")]
pub(super) unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2::<false>(()))
}

/// # Safety
/// The CPU has the features of [`Level::AvxVnni`](crate::Level::AvxVnni).
#[target_feature(enable = "avx2,fma,f16c,bmi2,avxvnni")]
pub(super) unsafe fn run_avxvnni<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2::<true>(()))
}

/// # Safety
/// The CPU has the features of [`Level::Avx2`](crate::Level::Avx2).
#[target_feature(enable = "avx2,fma,f16c,bmi2")]
pub(super) unsafe fn simd_avx2<K: SimdKernel>(kernel: K) -> K::Output {
    kernel.run(Avx2::<false>(()))
}

/// # Safety
/// The CPU has the features of [`Level::AvxVnni`](crate::Level::AvxVnni).
#[target_feature(enable = "avx2,fma,f16c,bmi2,avxvnni")]
pub(super) unsafe fn simd_avxvnni<K: SimdKernel>(kernel: K) -> K::Output {
    kernel.run(Avx2::<true>(()))
}
