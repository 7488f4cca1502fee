//! Mirostat: keeps the surprise of the text, -log2 of the probabilities of its tokens, near a target by cutting more or less of the
//! candidates (Basu et al. 2021, <https://arxiv.org/abs/2007.14966>; with the constants of llama.cpp).

use std::f64::consts::LN_2;

use fastq_kernels::math::{exp64, ln64, pow64};

use super::candidates::Candidates;
use super::{Setup, Stage, check};
use crate::{Error, Result};

/// From how many of the most likely tokens version 1 estimates the exponent of Zipf's law.
const ESTIMATED_FROM: usize = 100;

struct Mirostat {
    /// 1: keeps a number of tokens that follows from Zipf's law; 2: keeps those with a surprise of at most `mu`.
    version: u32,
    tau: f64,
    eta: f64,
    /// The surprise, in bits, above which tokens are cut. Moves with every token that was drawn and accepted.
    mu: f64,
    vocab: usize,
}

/// Off at `mirostat` = 0 and at temperature 0.
pub(super) fn stage(setup: &Setup<'_>) -> Result<Option<Box<dyn Stage>>> {
    let (version, tau, eta) = (setup.options.mirostat, setup.options.mirostat_tau, setup.options.mirostat_eta);
    if version > 2 {
        return Err(Error::Argument(format!("mirostat must be 0 (off), 1 or 2, got {version}")));
    }
    check(tau >= 0.0 && tau.is_finite(), "mirostat_tau", tau, "a finite number of at least 0")?;
    check(eta >= 0.0 && eta.is_finite(), "mirostat_eta", eta, "a finite number of at least 0")?;
    let (tau, eta, vocab) = (f64::from(tau), f64::from(eta), setup.vocab);
    Ok(setup
        .options
        .is_mirostat()
        .then(|| Box::new(Mirostat { version, tau, eta, mu: 2.0 * tau, vocab }) as Box<dyn Stage>))
}

impl Mirostat {
    /// How many tokens to keep when probabilities fall as `rank^-s`: algorithm 1 of the paper, equations 8 to 10. At least 1.
    fn zipf(&self, candidates: &mut Candidates<'_>) -> usize {
        let (mut products, mut squares) = (0.0, 0.0);
        for (at, pair) in candidates.first(ESTIMATED_FROM).windows(2).enumerate() {
            // The logarithm of a quotient of probabilities.
            let fall = f64::from(pair[0].logit) - f64::from(pair[1].logit);
            if !fall.is_finite() {
                break;
            }
            let step = ln64((at + 2) as f64 / (at + 1) as f64);
            products += step * fall;
            squares += step * step;
        }
        let s = products / squares;
        let epsilon = s - 1.0;
        let n = self.vocab as f64;
        // Its limit where both parts of the fraction are 0.
        let scale = if epsilon == 0.0 { 1.0 / ln64(n) } else { epsilon / (1.0 - pow64(n, -epsilon)) };
        let k = exp64((ln64(scale) + self.mu * LN_2) / s);
        // NaN when there is a single candidate. The conversion ends at the largest number there is.
        if k >= 1.0 { k as usize } else { 1 }
    }
}

impl Stage for Mirostat {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _position: u64) {
        if self.version == 1 {
            let k = self.zipf(candidates);
            return candidates.keep_best(k);
        }
        let least = exp64(-self.mu * LN_2);
        let list = candidates.softmax();
        if list.iter().any(|c| c.probability >= least) {
            list.retain(|c| c.probability >= least);
        } else {
            candidates.keep_best(1);
        }
    }

    fn accept(&mut self, _token: u32, probability: Option<f64>) {
        // Tokens of the prompt, and those that something else than the draw chose, have no surprise.
        if let Some(probability) = probability {
            let surprise = -ln64(probability) / LN_2;
            self.mu -= self.eta * (surprise - self.tau);
        }
    }
}
