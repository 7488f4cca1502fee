//! Exclude top choices: with some probability drops all tokens that are likely enough but the least likely of them, so that a
//! sensible token other than the most likely ones is taken (Weidmann 2024,
//! <https://github.com/oobabooga/text-generation-webui/pull/6335>; llama.cpp pull request 9742).

use super::candidates::{Candidates, by_logit};
use super::philox::uniform_of;
use super::{Setup, Stage, check};
use crate::Result;

/// The stream of random numbers that decides whether a position is changed.
const STREAM: u32 = 1;

struct Xtc {
    probability: f64,
    threshold: f64,
    seed: u64,
}

/// Off at `xtc_probability` = 0, and at thresholds above one half, which no two tokens reach.
pub(super) fn stage(setup: &Setup<'_>) -> Result<Option<Box<dyn Stage>>> {
    let (probability, threshold) = (setup.options.xtc_probability, setup.options.xtc_threshold);
    check((0.0..=1.0).contains(&probability), "xtc_probability", probability, "between 0 and 1")?;
    check((0.0..=1.0).contains(&threshold), "xtc_threshold", threshold, "between 0 and 1")?;
    let on = setup.options.temperature > 0.0 && probability > 0.0 && threshold <= 0.5;
    let (probability, threshold, seed) = (f64::from(probability), f64::from(threshold), setup.options.seed);
    Ok(on.then(|| Box::new(Xtc { probability, threshold, seed }) as Box<dyn Stage>))
}

impl Stage for Xtc {
    fn apply(&mut self, candidates: &mut Candidates<'_>, position: u64) {
        // The number is below 1: probability 1 is always.
        if uniform_of(STREAM, self.seed, position) >= self.probability {
            return;
        }
        let list = candidates.softmax();
        // A probability that underflowed is no choice, not even at threshold 0.
        let likely = list.iter().filter(|c| c.probability >= self.threshold && c.probability > 0.0);
        let Some(last) = likely.copied().max_by(by_logit) else { return };
        // Those before it are at least as likely, so they reach the threshold, too.
        list.retain(|c| by_logit(c, &last).is_ge());
    }
}
