//! Levels as types: a kernel is written once over [`Isa`] and compiled per level.
//!
//! A kernel is a value holding its arguments and a generic [`Kernel::run`]; [`dispatch`] runs it inside a function
//! compiled with the features of the level. Everything between that function and the intrinsics is
//! `#[inline(always)]`, so that the features reach them.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
pub mod bytes;
pub mod floats;
pub mod integers;
#[cfg(target_arch = "aarch64")]
pub mod neon;
pub mod scalar;
#[cfg(target_arch = "x86_64")]
mod shuffles;
#[cfg(target_arch = "x86_64")]
pub mod sse41;
pub mod unpacking;
#[cfg(target_arch = "x86_64")]
mod words;

use crate::level::{Cpu, Level};

/// The operations of one level. Values of the implementing types exist only where the CPU has the instructions.
///
/// Each operation documents its exact result; [`scalar`] is the reference.
pub trait Isa: bytes::Bytes {}

/// A computation that is compiled once per level.
pub trait Kernel {
    /// What it returns.
    type Output;
    /// Runs it with the operations of a level. Implementations are `#[inline(always)]`.
    fn run<I: Isa>(self, isa: I) -> Self::Output;
}

/// Runs `kernel` on the level that `cpu` proves to exist.
#[inline]
pub fn dispatch<K: Kernel>(cpu: Cpu, kernel: K) -> K::Output {
    match cpu.level() {
        Level::Scalar => kernel.run(scalar::Scalar),
        // SAFETY: a `Cpu` of a level exists only when detection found the level's features.
        #[cfg(target_arch = "x86_64")]
        Level::Sse41 => unsafe { sse41::run_sse41(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { avx2::run_avx2(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::AvxVnni => unsafe { avx2::run_avxvnni(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Amx => unsafe { avx512::run_avx512(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Level::Neon => unsafe { neon::run_neon(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Level::NeonDot | Level::NeonI8mm => unsafe { neon::run_neon_dot(kernel) },
    }
}

/// A computation on integer vectors, compiled once per level that has them. The scalar level has none: its counterpart is
/// plain code, so that the oracle does not share the structure of what it checks.
pub(crate) trait SimdKernel: Sized {
    /// What it returns.
    type Output;
    /// Runs it with the operations of a level. Implementations are `#[inline(always)]`.
    fn run<I: integers::Integers>(self, isa: I) -> Self::Output;
}

/// As [`Kernel`]s of the SIMD levels run `kernel`; it comes back on the scalar level.
#[inline]
pub(crate) fn dispatch_simd<K: SimdKernel>(cpu: Cpu, kernel: K) -> Result<K::Output, K> {
    match cpu.level() {
        Level::Scalar => Err(kernel),
        // SAFETY: a `Cpu` of a level exists only when detection found the level's features.
        #[cfg(target_arch = "x86_64")]
        Level::Sse41 => Ok(unsafe { sse41::simd_sse41(kernel) }),
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => Ok(unsafe { avx2::simd_avx2(kernel) }),
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::AvxVnni => Ok(unsafe { avx2::simd_avxvnni(kernel) }),
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Amx => Ok(unsafe { avx512::simd_avx512(kernel) }),
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Level::Neon => Ok(unsafe { neon::simd_neon(kernel) }),
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Level::NeonDot | Level::NeonI8mm => Ok(unsafe { neon::simd_neon_dot(kernel) }),
    }
}

/// [`dispatch`] for kernels that use nothing but [`floats::Floats`]: levels that share these operations share the code.
#[inline]
pub fn dispatch_floats<K: Kernel>(cpu: Cpu, kernel: K) -> K::Output {
    match cpu.level() {
        // SAFETY: the level has every feature of the level `Avx2`.
        #[cfg(target_arch = "x86_64")]
        Level::AvxVnni => unsafe { avx2::run_avx2(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Level::NeonDot | Level::NeonI8mm => unsafe { neon::run_neon(kernel) },
        _ => dispatch(cpu, kernel),
    }
}
