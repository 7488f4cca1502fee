//! Divides the logits by the temperature, which is one number or goes with the entropy of the candidates (dynamic temperature:
//! llama.cpp pull request 4972, <https://github.com/ggml-org/llama.cpp/pull/4972>).

use fastq_kernels::math::{ln64, pow64};

use super::candidates::Candidates;
use super::{Setup, Stage, StageName, check};
use crate::Result;

struct Temperature {
    temperature: f32,
    /// Dynamic: how far the temperature goes down and up; 0 is off.
    range: f32,
    exponent: f64,
    /// Whether a later stage asks for the sign of a logit.
    signed: bool,
}

/// Off at 1, where it changes nothing, unless it is dynamic; and at 0, where the draw is greedy.
pub(super) fn stage(setup: &Setup<'_>) -> Result<Option<Box<dyn Stage>>> {
    let (temperature, range) = (setup.options.temperature, setup.options.dynatemp_range);
    let exponent = setup.options.dynatemp_exponent;
    check(temperature >= 0.0 && temperature.is_finite(), "temperature", temperature, "a finite number of at least 0")?;
    check(range >= 0.0 && range.is_finite(), "dynatemp_range", range, "a finite number of at least 0")?;
    check(exponent >= 0.0 && exponent.is_finite(), "dynatemp_exponent", exponent, "a finite number of at least 0")?;
    let on = temperature > 0.0 && (temperature != 1.0 || range > 0.0);
    let mut later = setup.options.order().skip_while(|&name| name != StageName::Temperature);
    let signed = later.any(|name| name == StageName::Penalties);
    let exponent = f64::from(exponent);
    Ok(on.then(|| Box::new(Temperature { temperature, range, exponent, signed }) as Box<dyn Stage>))
}

impl Temperature {
    /// Between the ends of the range: the low one when one token has all the probability, the high one when all have the same.
    fn dynamic(&self, candidates: &mut Candidates<'_>) -> f32 {
        let list = candidates.softmax();
        let entropy: f64 =
            list.iter().filter(|c| c.probability > 0.0).map(|c| -c.probability * ln64(c.probability)).sum();
        let largest = ln64(list.len() as f64);
        // A single token has no entropy to compare with, and any temperature leaves it.
        let share = if largest > 0.0 { (entropy / largest).clamp(0.0, 1.0) } else { 0.0 };
        let power = if share > 0.0 { pow64(share, self.exponent) } else { f64::from(u8::from(self.exponent == 0.0)) };
        let (low, high) = ((self.temperature - self.range).max(0.0), self.temperature + self.range);
        (f64::from(low) + (f64::from(high) - f64::from(low)) * power).min(f64::from(f32::MAX)) as f32
    }
}

impl Stage for Temperature {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _position: u64) {
        let temperature = if self.range > 0.0 { self.dynamic(candidates) } else { self.temperature };
        if temperature == 0.0 {
            return candidates.keep_best(1);
        }
        let list = candidates.list();
        let max = list.iter().fold(f32::NEG_INFINITY, |m, c| m.max(c.logit));
        for c in list {
            c.logit = match self.signed {
                // Relative to the largest logit, so that a tiny temperature cannot overflow to infinity minus infinity.
                false => (c.logit - max) / temperature,
                true => (c.logit / temperature).clamp(f32::MIN, f32::MAX),
            };
        }
    }
}
