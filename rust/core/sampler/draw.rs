//! The end of the chain: one token of those that are left.

use super::SamplerOptions;
use super::candidates::Candidates;
use super::philox::uniform;

/// How the last choice is made.
pub(super) enum Draw {
    /// The largest logit, the smallest id among equals.
    Greedy,
    /// By probability, with the random number of (seed, position).
    Random {
        /// Key of the random numbers.
        seed: u64,
    },
}

impl Draw {
    /// Greedy at temperature 0.
    pub(super) fn new(options: &SamplerOptions) -> Draw {
        if options.temperature == 0.0 { Draw::Greedy } else { Draw::Random { seed: options.seed } }
    }

    /// The token for `position` and its probability among those that are left; `None` when all are masked.
    pub(super) fn choose(&self, candidates: &mut Candidates<'_>, position: u64) -> Option<(u32, f64)> {
        let Draw::Random { seed } = *self else { return candidates.best().map(|token| (token, 1.0)) };
        let threshold = uniform(seed, position);
        let mut reached = 0.0;
        let mut chosen = None;
        for c in candidates.softmax().iter().filter(|c| c.probability > 0.0) {
            reached += c.probability;
            chosen = Some((c.id, c.probability));
            if reached > threshold {
                break;
            }
        }
        // Should rounding keep the sum at or below the threshold, the last token with a probability is the one.
        chosen
    }
}
