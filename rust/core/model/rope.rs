//! Rotations by position: what the file says of them, and their tables.

use fastq_kernels::elementwise::RopeStyle;
use fastq_kernels::math::{exp64, ln64, sin_cos64};

/// A rotation by position.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSpec {
    /// How values are paired.
    pub style: RopeStyle,
    /// Values rotated per head, an even number; the rest stays.
    pub dims: usize,
    /// Base of the frequencies.
    pub base: f32,
    /// How frequencies are stretched to a longer context.
    pub scaling: Scaling,
    /// The factors of the file apply.
    pub factors: bool,
    /// Pairs that turn with time, height, width and something else (interleaved multimodal rope); `None` where all turn with time.
    pub sections: Option<[usize; 4]>,
}

/// Whether a pair turns with the position in a text, which is that of the first three axes.
fn turns([time, height, width, other]: [usize; 4], pair: usize) -> bool {
    let at = pair % (time + height + width + other);
    at < 3 * [time, height, width][at % 3]
}

/// Stretching of rope to contexts longer than trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    /// None.
    None,
    /// Positions divided by `factor`.
    Linear {
        /// How much longer.
        factor: f32,
        /// Factor of the rotated values.
        magnitude: f32,
    },
    /// YaRN (arXiv 2309.00071).
    Yarn {
        /// How much longer.
        factor: f32,
        /// Context before stretching.
        original: usize,
        /// Factor of the rotated values, on top of YaRN's own.
        magnitude: f32,
        /// How much of YaRN's own factor of the rotated values is taken back; 0 for nothing.
        log_multiplier: f32,
        /// How much of the extrapolated frequency is kept.
        mix: f32,
        /// Turns in the original context from which a frequency is kept.
        fast: f32,
        /// Turns in the original context up to which a frequency is fully interpolated.
        slow: f32,
    },
}

/// The frequencies of a rotation, in f64, so that cosine and sine are exact to f32 at any position.
#[derive(Clone, Debug)]
pub struct RopeTable {
    frequencies: Vec<f64>,
    magnitude: f64,
}

impl RopeTable {
    pub(super) fn new(spec: &RopeSpec, factors: Option<&[f32]>) -> RopeTable {
        let (pairs, dims) = (spec.dims / 2, spec.dims as f64);
        let log_base = ln64(f64::from(spec.base));
        let mut frequencies: Vec<f64> = (0..pairs).map(|i| exp64(-2.0 * i as f64 / dims * log_base)).collect();
        if let (true, Some(factors)) = (spec.factors, factors) {
            for (frequency, factor) in frequencies.iter_mut().zip(factors) {
                *frequency /= f64::from(*factor);
            }
        }
        if let Some(sections) = spec.sections {
            let still = frequencies.iter_mut().enumerate().filter(|(pair, _)| !turns(sections, *pair));
            still.for_each(|(_, frequency)| *frequency = 0.0);
        }
        let mut magnitude = 1.0;
        match spec.scaling {
            Scaling::None => {}
            Scaling::Linear { factor, magnitude: of_file } => {
                frequencies.iter_mut().for_each(|f| *f /= f64::from(factor));
                magnitude = f64::from(of_file);
            }
            Scaling::Yarn { factor, original, magnitude: of_file, log_multiplier, mix, fast, slow } => {
                let factor = f64::from(factor);
                // The pair whose wave fits `turns` times into the original context.
                let pair = |turns: f32| {
                    dims * ln64(original as f64 / (f64::from(turns) * std::f64::consts::TAU)) / (2.0 * log_base)
                };
                let low = pair(fast).floor().max(0.0);
                let high = pair(slow).ceil().min(dims - 1.0);
                for (i, frequency) in frequencies.iter_mut().enumerate() {
                    let ramp = ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                    let keep = (1.0 - ramp) * f64::from(mix);
                    *frequency = *frequency / factor * (1.0 - keep) + *frequency * keep;
                }
                let own = |of: f64| 1.0 + 0.1 * of * ln64(factor.max(1.0));
                magnitude = f64::from(of_file) * own(1.0) / own(f64::from(log_multiplier));
            }
        }
        RopeTable { frequencies, magnitude }
    }

    /// Number of pairs.
    pub fn pairs(&self) -> usize {
        self.frequencies.len()
    }

    /// Cosines and sines of a position.
    pub fn fill(&self, position: usize, cos: &mut [f32], sin: &mut [f32]) {
        for ((frequency, cos), sin) in self.frequencies.iter().zip(cos).zip(sin) {
            let (s, c) = sin_cos64(position as f64 * frequency);
            *cos = (c * self.magnitude) as f32;
            *sin = (s * self.magnitude) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::turns;

    #[test]
    fn pairs_of_other_sections_stay() {
        let turning = |sections, pairs| (0..pairs).filter(|&pair| turns(sections, pair)).collect::<Vec<usize>>();
        // As in Qwen 3.5: ordinary rope.
        assert_eq!(turning([11, 11, 10, 0], 32), (0..32).collect::<Vec<_>>());
        // Every third pair is of one axis, as long as its section lasts; the rest is of the fourth.
        assert_eq!(turning([2, 1, 1, 2], 12), [0, 1, 2, 3, 6, 7, 8, 9]);
        assert_eq!(turning([0, 0, 2, 2], 8), [2, 6]);
    }
}
