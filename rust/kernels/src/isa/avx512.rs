//! AVX-512, the Ice Lake set.
mod bytes;
mod floats;
mod integers;
mod unpacking;

use super::{Isa, Kernel, SimdKernel};

/// AVX-512 operations.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Isa for Avx512 {}

/// # Safety
/// The CPU has the features of [`Level::Avx512`](crate::Level::Avx512).
#[target_feature(enable = "avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi")]
pub(super) unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512(()))
}

/// # Safety
/// The CPU has the features of [`Level::Avx512`](crate::Level::Avx512).
#[target_feature(enable = "avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi")]
pub(super) unsafe fn simd_avx512<K: SimdKernel>(kernel: K) -> K::Output {
    kernel.run(Avx512(()))
}

/// A computation for this level alone.
pub(crate) trait Only {
    /// Runs it. Implementations are `#[inline(always)]`.
    fn run(self, isa: Avx512);
}

/// # Safety
/// The CPU has the features of [`Level::Avx512`](crate::Level::Avx512).
#[target_feature(enable = "avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi")]
pub(crate) unsafe fn run_only<K: Only>(kernel: K) {
    kernel.run(Avx512(()))
}
