//! Log-probabilities of tokens, with the most likely alternatives.

use std::sync::OnceLock;

use fastq_kernels::elementwise::log_sum_exp;
use fastq_kernels::math::{exp64, ln64};
use fastq_kernels::{Cpu, Level};

use super::candidates::best_of;
use crate::{Error, Result};

/// The most alternatives per token.
pub const MAX_LOGPROBS: usize = 128;

/// How likely a token was to the model.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// The token.
    pub token: u32,
    /// Natural logarithm of its probability; negative infinity for a token that is masked or not in the row.
    pub logprob: f32,
    /// The most likely tokens and theirs, most likely first, the smaller id first among equals.
    pub top: Vec<(u32, f32)>,
}

impl TokenLogprobs {
    /// Of `token` and the `top` (at most [`MAX_LOGPROBS`]) most likely tokens, in the softmax of `logits` (vocabulary). These are the
    /// model's own, before any stage of a chain, so that they do not depend on how tokens are chosen. NaN where a logit is.
    ///
    /// One pass over the row adds up exponentials, one finds the best: 0.1 ms each for 262,144 tokens.
    pub fn of(logits: &[f32], token: u32, top: usize) -> TokenLogprobs {
        let sum = log_sum(logits);
        let logprob = |logit: f32| match logit == f32::NEG_INFINITY && !sum.is_nan() {
            true => logit,
            false => (f64::from(logit) - sum) as f32,
        };
        let mut best = Vec::new();
        if top > 0 {
            best_of(logits, top.min(MAX_LOGPROBS), &mut best);
        }
        TokenLogprobs {
            token,
            logprob: logits.get(token as usize).map_or(f32::NEG_INFINITY, |&logit| logprob(logit)),
            top: best.iter().map(|c| (c.id, logprob(c.logit))).collect(),
        }
    }

    /// Whether so many alternatives can be asked for; `option` is what the number is called.
    ///
    /// # Errors
    /// [`Error::Argument`] above [`MAX_LOGPROBS`].
    pub fn check(option: &str, top: usize) -> Result<()> {
        if top <= MAX_LOGPROBS {
            return Ok(());
        }
        Err(Error::Argument(format!("{option} must be at most {MAX_LOGPROBS}, got {top}")))
    }
}

/// Values that are added up as f32; these sums are added up as f64. Four per lane of the kernel keep seven digits.
const BLOCK: usize = 1024;

/// `ln Σ e^x` in a fixed order; negative infinity when all are masked.
fn log_sum(logits: &[f32]) -> f64 {
    let cpu = cpu();
    // Of a block that is masked as a whole the kernel says NaN.
    let masked = |block: &[f32]| block.iter().all(|&logit| logit == f32::NEG_INFINITY);
    let sums: Vec<f64> = logits
        .chunks(BLOCK)
        .map(|block| match log_sum_exp(cpu, block) {
            sum if sum.is_nan() && masked(block) => f64::NEG_INFINITY,
            sum => sum,
        })
        .collect();
    if sums.iter().any(|sum| sum.is_nan()) {
        return f64::NAN;
    }
    let max = sums.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY {
        return max;
    }
    max + ln64(sums.iter().map(|sum| exp64(sum - max)).sum())
}

/// The level does not matter, because all give the same bits; so one that does not exist, which loading a model refuses, is no
/// error here.
fn cpu() -> Cpu {
    static CPU: OnceLock<Cpu> = OnceLock::new();
    *CPU.get_or_init(|| Cpu::detect().or_else(|_| Cpu::new(Level::Scalar)).expect("plain code runs everywhere"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn are_the_logarithms_of_the_softmax(
            mut row in prop::collection::vec(prop_oneof![4 => -30.0f32..30.0, 2 => (-3i32..3).prop_map(|v| v as f32),
                1 => Just(f32::NEG_INFINITY)], 1..5000),
            first in -9.0f32..9.0, masked in 0usize..4000, top in 0usize..200, token: prop::sample::Index,
        ) {
            // A masked stretch that covers whole blocks, and at least one token that is not masked.
            let end = masked.min(row.len());
            row[..end].fill(f32::NEG_INFINITY);
            row[token.index(end.max(1))] = first;
            let token = token.index(row.len());
            let got = TokenLogprobs::of(&row, token as u32, top);
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum = row.iter().map(|&l| (f64::from(l) - f64::from(max)).exp()).sum::<f64>().ln() + f64::from(max);
            let near = |logprob: f32, id: usize| {
                let expected = f64::from(row[id]) - sum;
                f64::from(logprob) == expected || (f64::from(logprob) - expected).abs() < 4e-6
            };
            prop_assert!(near(got.logprob, token), "{} of {}", got.logprob, row[token]);
            let mut order: Vec<usize> = (0..row.len()).filter(|&i| row[i] > f32::NEG_INFINITY).collect();
            order.sort_by(|&a, &b| row[b].partial_cmp(&row[a]).unwrap().then(a.cmp(&b)));
            order.truncate(top.min(MAX_LOGPROBS));
            prop_assert_eq!(got.top.iter().map(|t| t.0 as usize).collect::<Vec<_>>(), order);
            prop_assert!(got.top.iter().all(|t| near(t.1, t.0 as usize)));
        }
    }

    #[test]
    fn rows_that_are_none() {
        let masked = TokenLogprobs::of(&[f32::NEG_INFINITY; 3], 1, 2);
        assert!(masked.top.is_empty());
        assert_eq!(masked.logprob, f32::NEG_INFINITY);
        assert_eq!(TokenLogprobs::of(&[0.0; 3], 3, 0).logprob, f32::NEG_INFINITY, "not in the row");
        assert!(TokenLogprobs::of(&[0.0, f32::NAN], 0, 0).logprob.is_nan());
        assert_eq!(TokenLogprobs::of(&[5.0], 0, 9), TokenLogprobs { token: 0, logprob: 0.0, top: vec![(0, 0.0)] });
        assert!(
            TokenLogprobs::check("logprobs", MAX_LOGPROBS + 1).unwrap_err().to_string().starts_with("logprobs must")
        );
        TokenLogprobs::check("logprobs", MAX_LOGPROBS).unwrap();
    }
}
