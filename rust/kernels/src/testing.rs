//! What the tests and benchmarks of this crate and of its users share: seeded random data, blocks of every format, guard
//! pages. Everything here is deterministic and the same on every platform.

#[cfg(all(unix, target_pointer_width = "64"))]
mod guard;
#[cfg(all(unix, target_pointer_width = "64"))]
pub use guard::{Guarded, Side};

use crate::Format;
use crate::format::Scale;
use crate::half::{f32_to_bf16, f32_to_f16};

/// A SplitMix64 generator (Steele, Lea, Flood 2014): small, seedable, good enough for test data.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The generator of `seed`.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An integer in `0..bound`; the bias of at most `bound / 2^32` does not matter here.
    ///
    /// # Panics
    /// When `bound` is 0 or above 2^32.
    pub fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0 && bound as u64 <= 1 << 32, "a bound in 1..=2^32");
        (((self.bits() >> 32) * bound as u64) >> 32) as usize
    }

    /// A multiple of 2^-24 in `[0, 1)`.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / 16_777_216.0
    }

    /// A value with mean 0, standard deviation 1 and a bell-shaped density within `[-6, 6)`: a sum of twelve [`Rng::unit`],
    /// because exact additions give the same bits everywhere, and a logarithm would not.
    pub fn bell(&mut self) -> f32 {
        // Units are multiples of 2^-24; their sum stays below 2^4, which an f64 holds exactly.
        let sum: f64 = (0..12).map(|_| f64::from(self.unit())).sum();
        (sum - 6.0) as f32
    }

    /// Random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.bits().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// `n` values like those of a weight matrix or an activation: a bell of standard deviation `sigma`, and every 128th or so
/// twenty times as large.
pub fn values(rng: &mut Rng, n: usize, sigma: f32) -> Vec<f32> {
    (0..n).map(|_| rng.bell() * sigma * if rng.below(128) == 0 { 20.0 } else { 1.0 }).collect()
}

/// Finite rows of 256 values on which quantizers go wrong, with their names.
pub fn special_values() -> Vec<(&'static str, Vec<f32>)> {
    let mut rng = Rng::new(0x5bec_1a15);
    let mut rows = vec![
        ("zeros", vec![0.0; 256]),
        ("negative zeros", vec![-0.0; 256]),
        ("a constant", vec![0.37; 256]),
        ("a negative constant", vec![-1.25; 256]),
        ("the largest", vec![f32::MAX; 256]),
        ("the smallest", vec![f32::from_bits(1); 256]),
    ];
    let mut row = |name, value: &mut dyn FnMut(usize, f32) -> f32| {
        rows.push((name, (0..256).map(|i| value(i, rng.bell())).collect::<Vec<_>>()));
    };
    row("negative only", &mut |_, x| -x.abs() - 0.01);
    row("positive only", &mut |_, x| x.abs() + 0.01);
    row("far from zero", &mut |_, x| 3.0 + x * 1e-3);
    row("one value", &mut |i, _| if i == 77 { -2.5 } else { 0.0 });
    row("an outlier", &mut |i, x| if i == 200 { 50.0 } else { 0.01 * x });
    row("zero sub-blocks", &mut |i, x| if i / 16 % 3 == 0 { 0.0 } else { x });
    row("half-way between integers", &mut |i, _| (i as f32 - 128.0) / 2.0);
    row("signs", &mut |_, x| 0.5f32.copysign(x));
    row("subnormal", &mut |_, x| x * 1e-40);
    row("scales below f16", &mut |_, x| x * 1e-8);
    row("scales subnormal in f16", &mut |_, x| x * 1e-5);
    row("scales near the end of f16", &mut |_, x| x * 1e5);
    row("scales above f16", &mut |_, x| x * 1e8);
    row("squares overflow", &mut |_, x| x * 1e25);
    row("squares underflow", &mut |_, x| x * 1e-25);
    row("many magnitudes", &mut |i, x| x * 0.5f32.powi(i as i32 / 8 - 8));
    rows
}

/// Name of the environment variable that makes long tests try fewer cases.
pub const SHARE_VARIABLE: &str = "FASTQ_TEST_SHARE";

/// Chooses the cases that a long test tries: all, or with `FASTQ_TEST_SHARE=n` every n-th, because an emulated processor takes
/// minutes for what others do in seconds. Loops within each other count through, so that every combination has its turn in
/// some round of the outer one.
#[derive(Debug)]
pub struct Cases {
    share: usize,
    seen: usize,
}

impl Cases {
    /// Begins with a case that is tried.
    ///
    /// # Panics
    /// When the variable is set, but not to a number from 1.
    #[allow(clippy::new_without_default, reason = "it reads the environment")]
    pub fn new() -> Cases {
        let share = match std::env::var(SHARE_VARIABLE) {
            Ok(value) => value.parse().ok().filter(|&share| share > 0).expect("FASTQ_TEST_SHARE is a number from 1"),
            Err(_) => 1,
        };
        Cases { share, seen: 0 }
    }

    /// Whether the next case is to be tried.
    pub fn take(&mut self) -> bool {
        self.seen += 1;
        (self.seen - 1).is_multiple_of(self.share)
    }

    /// Of how many cases one is tried.
    pub fn share(&self) -> usize {
        self.share
    }

    /// The size to take for a random sample of `n`, which says something from `least` on.
    pub fn part_of(&self, n: usize, least: usize) -> usize {
        n.div_ceil(self.share).max(least)
    }
}

/// Which bits [`blocks`] may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bits {
    /// Any integers, with scales for which the weights come out with magnitudes around 1 or less.
    Sensible,
    /// Any bits, except that f16 scales (or the floats themselves) are finite.
    Finite,
    /// Any bits at all: scales may be infinite or NaN.
    Any,
}

/// `count` random blocks of a format.
pub fn blocks(rng: &mut Rng, format: Format, count: usize, bits: Bits) -> Vec<u8> {
    let info = format.info();
    let mut data = vec![0; count * info.bytes];
    rng.fill(&mut data);
    for block in data.chunks_exact_mut(info.bytes) {
        match (format, bits) {
            (_, Bits::Any) => {}
            (Format::F32, Bits::Sensible) => block.copy_from_slice(&rng.bell().to_le_bytes()),
            (Format::F16, Bits::Sensible) => block.copy_from_slice(&f32_to_f16(rng.bell()).to_le_bytes()),
            (Format::BF16, Bits::Sensible) => block.copy_from_slice(&f32_to_bf16(rng.bell()).to_le_bytes()),
            // Clearing the lowest bit of an exponent of ones makes it finite.
            (Format::F32 | Format::BF16, Bits::Finite) => {
                let top = &mut block[info.bytes - 2..];
                if top[1] & 0x7f == 0x7f && top[0] & 0x80 == 0x80 {
                    top[0] &= 0x7f;
                }
            }
            (Format::F16, Bits::Finite) => Scale::Half(0).make_finite(block),
            (_, Bits::Sensible) => set_sensible_scales(rng, format, block),
            (_, Bits::Finite) => {
                for &scale in info.scales {
                    scale.make_finite(block);
                }
            }
        }
    }
    data
}

/// Gives each scale of a block a size with which its part of the weights (the products or the minima) reaches about 1.
fn set_sensible_scales(rng: &mut Rng, format: Format, block: &mut [u8]) {
    let info = format.info();
    let values: Vec<f32> = info
        .scales
        .iter()
        .map(|only| {
            info.scales.iter().for_each(|scale| scale.set(block, if scale == only { 1.0 } else { 0.0 }));
            let mut out = vec![0.0; info.block];
            format.dequantize(block, &mut out);
            let reach = out.iter().fold(1.0f32, |top, x| top.max(x.abs()));
            let sign = if rng.below(8) == 0 { -1.0 } else { 1.0 };
            sign * (0.25 + rng.unit()) / reach
        })
        .collect();
    for (scale, value) in info.scales.iter().zip(values) {
        scale.set(block, value);
    }
}

/// FNV-1a of 64 bits: the fingerprint of golden data in tests.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// What the tests of this crate look at beyond its interface, and nobody else: it may change at any time.
#[doc(hidden)]
pub mod internals {
    use crate::isa::integers::Integers;
    use crate::isa::{SimdKernel, dispatch_simd};
    use crate::{Cpu, LANES};

    pub use crate::format::{float4, grid, layout, nonlinear, round};

    struct FmaRows<'a>(&'a [[f32; 3]], &'a mut [f32]);

    impl SimdKernel for FmaRows<'_> {
        type Output = ();

        #[inline(always)]
        fn run<I: Integers>(self, isa: I) {
            for (i, (cases, out)) in self.0.chunks(I::ROWS).zip(self.1.chunks_mut(I::ROWS)).enumerate() {
                let sign = if i.is_multiple_of(2) { 1.0 } else { -1.0 };
                let mut lanes = [[0.0; LANES]; 4];
                for (l, [a, b, c]) in cases.iter().enumerate() {
                    [lanes[0][l], lanes[1][l], lanes[2][l]] = [sign * a, *b, *c];
                }
                // SAFETY: no level has vectors of more than sixteen lanes.
                unsafe {
                    let [a, b, c] =
                        [&lanes[0], &lanes[1], &lanes[2]].map(|x: &[f32; LANES]| isa.load_floats(x.as_ptr()));
                    let sum = if sign == 1.0 { isa.fma(a, b, c) } else { isa.fnma(a, b, c) };
                    isa.store_floats(lanes[3].as_mut_ptr(), sum);
                }
                out.copy_from_slice(&lanes[3][..out.len()]);
            }
        }
    }

    /// `out[i] = a[i] * b[i] + c[i]` in the vectors of matrix products, with `fnma` for every other one; false, and nothing done,
    /// on the scalar level.
    pub fn fma_rows(cpu: Cpu, cases: &[[f32; 3]], out: &mut [f32]) -> bool {
        dispatch_simd(cpu, FmaRows(cases, out)).is_ok()
    }
}
