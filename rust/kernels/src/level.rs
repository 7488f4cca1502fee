//! SIMD levels: the only list of CPU features, detection, and the `FASTQ_LEVEL` override.

use core::fmt;

/// Declares the levels, lowest first: variant, name, the features it is compiled with, and what else must be true to run it.
macro_rules! levels {
    ($(
        $(#[$doc:meta])* $variant:ident = $name:literal, $(#[cfg($cfg:meta)])? [$($feature:tt),*] $(, if $granted:path)?;
    )*) => {
        /// A set of instructions that kernels are compiled for; ordered from the plainest to the fastest.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Level { $( $(#[$doc])* $(#[cfg($cfg)])? $variant, )* }

        impl Level {
            /// Every level this build contains, lowest first, whether or not this CPU has it.
            pub const ALL: &'static [Level] = &[$( $(#[cfg($cfg)])? Level::$variant, )*];

            /// The name used in `FASTQ_LEVEL` and in reports.
            pub const fn name(self) -> &'static str {
                match self { $( $(#[cfg($cfg)])? Level::$variant => $name, )* }
            }

            /// The CPU features the level is compiled with.
            pub const fn features(self) -> &'static [&'static str] {
                match self { $( $(#[cfg($cfg)])? Level::$variant => &[$($feature),*], )* }
            }

            /// Whether this CPU and operating system can run the level.
            pub fn is_available(self) -> bool {
                match self {
                    $( $(#[cfg($cfg)])? Level::$variant => {
                        levels!(@detect $($feature),*) $(&& $granted())?
                    } )*
                }
            }

            /// The features of the level that this CPU lacks, or that its operating system does not let programs use.
            pub fn missing_features(self) -> Vec<&'static str> {
                match self {
                    $( $(#[cfg($cfg)])? Level::$variant => {
                        let features: &[(&'static str, bool)] = &[$(($feature, levels!(@detect $feature))),*];
                        features.iter().filter(|(_, found)| !found).map(|(name, _)| *name).collect()
                    } )*
                }
            }
        }
    };
    (@detect) => { true };
    (@detect $($feature:tt),+) => { true $(&& detected!($feature))+ };
}

#[cfg(target_arch = "x86_64")]
macro_rules! detected {
    ($feature:tt) => {
        std::arch::is_x86_feature_detected!($feature)
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! detected {
    ($feature:tt) => {
        std::arch::is_aarch64_feature_detected!($feature)
    };
}

levels! {
    /// Plain Rust; the oracle that every other level equals bit for bit.
    Scalar = "scalar", [];
    /// SSE4.1, without fused multiply-add and f16 (Penryn, Bulldozer, Silvermont and later).
    Sse41 = "sse41", #[cfg(target_arch = "x86_64")] ["ssse3", "sse4.1"];
    /// AVX2 with FMA and F16C (Haswell, Zen 1 and later).
    Avx2 = "avx2", #[cfg(target_arch = "x86_64")] ["avx2", "fma", "f16c", "bmi2"];
    /// AVX2 with the 256-bit VNNI dot product (Alder Lake, Zen 5 and later).
    AvxVnni = "avxvnni", #[cfg(target_arch = "x86_64")] ["avx2", "fma", "f16c", "bmi2", "avxvnni"];
    /// The Ice Lake set of AVX-512: F, BW, DQ, VL, VNNI, VBMI.
    Avx512 = "avx512", #[cfg(target_arch = "x86_64")]
        ["avx2", "fma", "f16c", "bmi2", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", "avx512vbmi"];
    /// The same, with the tile unit for products of many tokens (Sapphire Rapids and later; Linux).
    Amx = "amx", #[cfg(target_arch = "x86_64")]
        ["avx2", "fma", "f16c", "bmi2", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", "avx512vbmi"],
        if crate::isa::amx::granted;
    /// NEON, which every 64-bit ARM has (Cortex-A53 and later).
    Neon = "neon", #[cfg(target_arch = "aarch64")] ["neon"];
    /// The same with the dot product of bytes (Cortex-A55, A75, Neoverse N1, Apple A11 and later).
    NeonDot = "neon_dot", #[cfg(target_arch = "aarch64")] ["neon", "dotprod"];
    /// The same, with the product of byte matrices for many tokens (Cortex-A510, A710, Neoverse V1, Apple M2 and later).
    NeonI8mm = "neon_i8mm", #[cfg(target_arch = "aarch64")] ["neon", "dotprod", "i8mm"];
}

/// Name of the environment variable that chooses a level.
pub const LEVEL_VARIABLE: &str = "FASTQ_LEVEL";

impl Level {
    /// The level called `name` in this build.
    pub fn from_name(name: &str) -> Option<Level> {
        Level::ALL.iter().copied().find(|level| level.name() == name)
    }

    /// The levels this CPU can run, lowest first. Never empty: [`Level::Scalar`] always runs.
    pub fn available() -> Vec<Level> {
        Level::ALL.iter().copied().filter(|level| level.is_available()).collect()
    }
}

/// Proof that the CPU has a level; every kernel takes one, so none can run without its instructions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cpu(Level);

impl Cpu {
    /// The token of `level`.
    ///
    /// # Errors
    /// [`LevelError::Unavailable`] when this CPU lacks a feature of the level.
    pub fn new(level: Level) -> Result<Cpu, LevelError> {
        if level.is_available() { Ok(Cpu(level)) } else { Err(LevelError::Unavailable(level)) }
    }

    /// The highest level of this CPU, or the one that `FASTQ_LEVEL` names.
    ///
    /// # Errors
    /// [`LevelError`] when the variable names a level that does not exist or that this CPU lacks: asking for a
    /// level is never answered with another one.
    pub fn detect() -> Result<Cpu, LevelError> {
        match std::env::var(LEVEL_VARIABLE) {
            Ok(name) if !name.is_empty() => match Level::from_name(&name) {
                Some(level) => Cpu::new(level),
                None => Err(LevelError::Unknown(name)),
            },
            _ => Ok(Cpu(*Level::available().last().expect("the scalar level is always available"))),
        }
    }

    /// The level this token stands for.
    pub fn level(self) -> Level {
        self.0
    }
}

/// Why a level cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LevelError {
    /// No level of this build has the name.
    Unknown(String),
    /// The CPU lacks a feature of the level.
    Unavailable(Level),
}

impl fmt::Display for LevelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |levels: &[Level]| levels.iter().map(|l| l.name()).collect::<Vec<_>>().join(", ");
        match self {
            LevelError::Unknown(name) => {
                write!(f, "{LEVEL_VARIABLE}={name:?} is not a level of this build (levels: {})", names(Level::ALL))
            }
            LevelError::Unavailable(level) => {
                write!(f, "this cpu cannot run level {} (available: {})", level.name(), names(&Level::available()))
            }
        }
    }
}

impl std::error::Error for LevelError {}
