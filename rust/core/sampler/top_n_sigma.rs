//! Keeps the tokens whose logits are at most n standard deviations below the largest one (Tang et al. 2024, "Top-nσ",
//! <https://arxiv.org/abs/2411.07641>; llama.cpp pull request 11223). Temperature does not change what is kept.

use super::candidates::Candidates;
use super::{Setup, Stage, check};
use crate::Result;

struct TopNSigma {
    n: f64,
}

/// Off at `top_n_sigma` = 0 and below, of which llama.cpp's default is -1.
pub(super) fn stage(setup: &Setup<'_>) -> Result<Option<Box<dyn Stage>>> {
    let n = setup.options.top_n_sigma;
    check(n.is_finite(), "top_n_sigma", n, "a finite number (0 or less is off)")?;
    let on = setup.options.temperature > 0.0 && n > 0.0;
    Ok(on.then(|| Box::new(TopNSigma { n: f64::from(n) }) as Box<dyn Stage>))
}

/// Sums go in eight chains, because one would wait for each addition. Which value goes into which is fixed.
#[derive(Default)]
struct Sum {
    chains: [f64; 8],
    count: usize,
}

impl Sum {
    fn add(&mut self, value: f64) {
        self.chains[self.count % 8] += value;
        self.count += 1;
    }

    fn mean(&self) -> f64 {
        self.chains.iter().sum::<f64>() / self.count as f64
    }
}

impl Stage for TopNSigma {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _position: u64) {
        let mut sum = Sum::default();
        candidates.each_logit(|logit| sum.add(f64::from(logit)));
        let mean = sum.mean();
        let mut squares = Sum::default();
        candidates.each_logit(|logit| {
            let distance = f64::from(logit) - mean;
            squares.add(distance * distance);
        });
        // NaN when all are masked, which keeps none of none.
        candidates.keep_from(f64::from(candidates.largest()) - self.n * squares.mean().sqrt());
    }
}
