//! How far weights are from what they became.

use crate::isa::{Isa, Kernel, dispatch_floats};
use crate::{Cpu, LANES};

/// What encoding did to some weights: sums, which can be added up.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Distortion {
    /// Sum of the squares of the weights, `‖w‖²`.
    pub power: f64,
    /// Sum of the squares of the differences, `‖w - q‖²`.
    pub error: f64,
    /// Largest difference.
    pub worst: f32,
}

impl Distortion {
    /// That of two sets of weights together.
    #[must_use]
    pub fn and(self, other: Distortion) -> Distortion {
        Distortion {
            power: self.power + other.power,
            error: self.error + other.error,
            worst: if other.worst > self.worst { other.worst } else { self.worst },
        }
    }

    /// `‖w - q‖² / ‖w‖²`; 0 where all is exact.
    pub fn relative(self) -> f64 {
        if self.error == 0.0 { 0.0 } else { self.error / self.power }
    }

    /// Signal to noise in decibels, `10 log10(‖w‖² / ‖w - q‖²)`; infinite where all is exact.
    pub fn snr_db(self) -> f64 {
        -10.0 * self.relative().log10()
    }
}

struct Compare<'a> {
    weights: &'a [f32],
    decoded: &'a [f32],
}

impl Kernel for Compare<'_> {
    type Output = Distortion;

    // Plain code, which the compiler turns into vectors of the level: every lane is a sum of its own, in the order of the weights.
    #[inline(always)]
    fn run<I: Isa>(self, _isa: I) -> Distortion {
        let (mut power, mut error, mut worst) = ([0f64; LANES], [0f64; LANES], [0f32; LANES]);
        let (weights, weights_rest) = self.weights.as_chunks::<LANES>();
        let (decoded, decoded_rest) = self.decoded.as_chunks::<LANES>();
        let mut add = |lane: usize, w: f32, q: f32| {
            let difference = w - q;
            power[lane] += f64::from(w) * f64::from(w);
            error[lane] += f64::from(difference) * f64::from(difference);
            let difference = difference.abs();
            worst[lane] = if difference > worst[lane] { difference } else { worst[lane] };
        };
        for (weights, decoded) in weights.iter().zip(decoded) {
            for lane in 0..LANES {
                add(lane, weights[lane], decoded[lane]);
            }
        }
        for (lane, (w, q)) in weights_rest.iter().zip(decoded_rest).enumerate() {
            add(lane, *w, *q);
        }
        let lane = |lane: usize| Distortion { power: power[lane], error: error[lane], worst: worst[lane] };
        (0..LANES).map(lane).fold(Distortion::default(), Distortion::and)
    }
}

/// What became of a row `(k)` of `weights` that reads as `decoded` now: the same bits on every level. Where a decoded weight is not finite, the error is
/// not, either.
///
/// # Panics
/// When the lengths differ.
pub fn distortion(cpu: Cpu, weights: &[f32], decoded: &[f32]) -> Distortion {
    assert_eq!(weights.len(), decoded.len(), "both rows must have the same length");
    dispatch_floats(cpu, Compare { weights, decoded })
}

struct AllFinite<'a>(&'a [f32]);

impl Kernel for AllFinite<'_> {
    type Output = bool;

    #[inline(always)]
    fn run<I: Isa>(self, _isa: I) -> bool {
        self.0.iter().fold(0u32, |largest, value| largest.max(value.to_bits() & 0x7fff_ffff)) < 0x7f80_0000
    }
}

/// Where the first NaN or infinity is.
pub fn first_not_finite(cpu: Cpu, values: &[f32]) -> Option<usize> {
    // Nearly always there is none, which a pass without branches finds out.
    if dispatch_floats(cpu, AllFinite(values)) { None } else { values.iter().position(|value| !value.is_finite()) }
}
