//! Divides the logits by the temperature.

use super::candidates::Candidates;
use super::{SamplerOptions, Stage, check};
use crate::Result;

struct Temperature {
    temperature: f32,
}

/// Off at 1, where it changes nothing, and at 0, where the draw is greedy.
pub(super) fn stage(options: &SamplerOptions, _vocab: usize) -> Result<Option<Box<dyn Stage>>> {
    let temperature = options.temperature;
    check(temperature >= 0.0 && temperature.is_finite(), "temperature", temperature, "a finite number of at least 0")?;
    let on = temperature > 0.0 && temperature != 1.0;
    Ok(on.then(|| Box::new(Temperature { temperature }) as Box<dyn Stage>))
}

impl Stage for Temperature {
    fn apply(&mut self, candidates: &mut Candidates<'_>) {
        let list = candidates.list();
        let max = list.iter().fold(f32::NEG_INFINITY, |m, c| m.max(c.logit));
        for c in list {
            // Relative to the largest logit, so that a tiny temperature cannot overflow to infinity minus infinity.
            c.logit = (c.logit - max) / self.temperature;
        }
    }
}
