//! How far a quantized model is from its base: the Kullback-Leibler divergence of the distributions of the next token, and what goes with it.

use std::cell::RefCell;

use fastq_kernels::elementwise::{argmax, divergence, log_sum_exp};
use serde_json::{Value, json};

use super::perplexity::cpu_of;
use super::rows::{Rows, each_scored};
use super::{Estimate, Options, Sums, chunks, exponential};
use crate::{Error, Interrupt, Model, Progress, Result};

/// What separates two models. Divergences are in nats, differences of probability and agreement are shares from 0 to 1.
#[derive(Clone, PartialEq, Debug)]
pub struct Divergence {
    /// Mean divergence, with the standard error.
    pub mean: Estimate,
    /// The divergence that half of the tokens are below.
    pub median: f64,
    /// That 90 % are below.
    pub p90: f64,
    /// That 99 % are below.
    pub p99: f64,
    /// That 99.9 % are below.
    pub p999: f64,
    /// The largest.
    pub max: f64,
    /// Share of the positions for which both have the same likeliest token.
    pub same_top: Estimate,
    /// Perplexity of the base.
    pub ppl_base: Estimate,
    /// Perplexity of the other one.
    pub ppl: Estimate,
    /// `ppl / ppl_base`. The error takes into account that both go up and down together.
    pub ppl_ratio: Estimate,
    /// Root mean square of the difference of the probabilities of the true token.
    pub rms_delta_p: Estimate,
    /// Mean of that difference: below 0 where the other one is less sure of the truth.
    pub mean_delta_p: Estimate,
    /// Number of chunks.
    pub chunks: usize,
    /// Tokens of a chunk.
    pub context: usize,
    /// Number of tokens that were scored.
    pub tokens: usize,
}

impl Divergence {
    /// One object, as for `--json`.
    pub fn to_json(&self) -> Value {
        json!({
            "mean": self.mean.value, "mean_error": self.mean.error, "median": self.median, "p90": self.p90, "p99": self.p99,
            "p999": self.p999, "max": self.max, "same_top": self.same_top.value, "same_top_error": self.same_top.error,
            "ppl_base": self.ppl_base.value, "ppl_base_error": self.ppl_base.error, "ppl": self.ppl.value,
            "ppl_error": self.ppl.error, "ppl_ratio": self.ppl_ratio.value, "ppl_ratio_error": self.ppl_ratio.error,
            "rms_delta_p": self.rms_delta_p.value, "rms_delta_p_error": self.rms_delta_p.error,
            "mean_delta_p": self.mean_delta_p.value, "mean_delta_p_error": self.mean_delta_p.error,
            "chunks": self.chunks, "context": self.context, "tokens": self.tokens,
        })
    }
}

/// What the positions give.
#[derive(Default)]
struct Scores {
    divergences: Vec<f64>,
    kld: Sums,
    same: Sums,
    base: Sums,
    other: Sums,
    /// Sum of the products of the negative log-probabilities of both.
    products: f64,
    delta: Sums,
    /// Of the squares of `delta`.
    squares: Sums,
}

impl Scores {
    fn add(&mut self, kld: f64, same: bool, base: f64, other: f64) {
        self.divergences.push(kld);
        self.kld.add(kld);
        self.same.add(if same { 1.0 } else { 0.0 });
        self.base.add(base);
        self.other.add(other);
        self.products += base * other;
        let delta = (-other).exp() - (-base).exp();
        self.delta.add(delta);
        self.squares.add(delta * delta);
    }

    fn result(mut self, chunks: usize, context: usize) -> Divergence {
        self.divergences.sort_unstable_by(f64::total_cmp);
        let sorted = &self.divergences;
        // Between two values in proportion, as llama.cpp has it.
        let quantile = |share: f64| {
            let at = share * (sorted.len() - 1) as f64;
            let (low, part) = (at as usize, at.fract());
            match sorted.get(low + 1) {
                Some(next) => (1.0 - part) * sorted[low] + part * next,
                None => sorted[low],
            }
        };
        let (base, other) = (self.base.estimate(), self.other.estimate());
        let count = self.kld.count;
        let covariance =
            if count > 1.0 { (self.products / count - base.value * other.value) / (count - 1.0) } else { 0.0 };
        let ratio = Estimate {
            value: other.value - base.value,
            error: (self.base.variance() + self.other.variance() - 2.0 * covariance).max(0.0).sqrt(),
        };
        let square = self.squares.estimate();
        let rms = square.value.sqrt();
        Divergence {
            mean: self.kld.estimate(),
            median: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: quantile(1.0),
            same_top: self.same.estimate(),
            ppl_base: exponential(base),
            ppl: exponential(other),
            ppl_ratio: exponential(ratio),
            rms_delta_p: Estimate { value: rms, error: if rms > 0.0 { 0.5 * square.error / rms } else { 0.0 } },
            mean_delta_p: self.delta.estimate(),
            chunks,
            context,
            tokens: count as usize,
        }
    }
}

/// Compares a model with its base on a text, scored as by [`perplexity`](super::perplexity()). The two compute in turns, and no more logits are
/// held than a few rows of both.
///
/// # Errors
/// As [`chunks()`](super::chunks()) and [`Model::forward`]; [`Error::Argument`] when the two do not have the same tokens.
pub fn kl_divergence(
    base: &Model,
    other: &Model,
    text: &str,
    options: Options,
    interrupt: &dyn Interrupt,
    progress: &dyn Progress,
) -> Result<Divergence> {
    let cpu = cpu_of(base)?;
    let vocabulary = base.vocabulary();
    if vocabulary != other.vocabulary() {
        let found = other.vocabulary();
        return Err(Error::Argument(format!(
            "both models must have the same tokens, found {vocabulary} in the base and {found} in the other one"
        )));
    }
    let pieces = chunks(base, text, options.context, options.chunks, interrupt)?;
    if pieces != chunks(other, text, options.context, options.chunks, interrupt)? {
        let what = "both models must have the same tokens, but they take the text apart in different ones";
        return Err(Error::Argument(what.into()));
    }
    let both = RefCell::new([Rows::new(base), Rows::new(other)]);
    let mut scores = Scores::default();
    for (done, piece) in pieces.iter().enumerate() {
        progress.report("divergence", done as u64, pieces.len() as u64);
        each_scored(
            piece,
            Rows::step(vocabulary),
            |tokens, scored| {
                both.borrow_mut().iter_mut().try_for_each(|rows| match scored {
                    true => rows.next(tokens, interrupt),
                    false => rows.begin(tokens, interrupt),
                })
            },
            |row, token| {
                if interrupt.stop() {
                    return Err(Error::Cancelled);
                }
                let both = both.borrow();
                let [p, q] = both.each_ref().map(|rows| &rows.logits[row * vocabulary..(row + 1) * vocabulary]);
                let nll = |logits: &[f32]| log_sum_exp(cpu, logits) - f64::from(logits[token]);
                let top = |logits: &[f32]| argmax(cpu, logits).map(|(index, _)| index);
                scores.add(divergence(cpu, p, q), top(p) == top(q), nll(p), nll(q));
                Ok(())
            },
        )?;
    }
    progress.report("divergence", pieces.len() as u64, pieces.len() as u64);
    Ok(scores.result(pieces.len(), options.context))
}

#[cfg(test)]
mod tests {
    use super::Scores;

    /// Divergence, whether the first choice is the same, and the negative log likelihoods of base and other.
    type Row = (f64, bool, f64, f64);

    /// Against the definitions, in another form.
    #[test]
    fn figures_are_those_of_their_definitions() {
        let rows: Vec<Row> = (0..101)
            .map(|i| (f64::from(i), i % 4 == 0, 1.0 + f64::from(i % 7) / 10.0, 1.1 + f64::from(i % 5) / 10.0))
            .collect();
        let mut scores = Scores::default();
        rows.iter().for_each(|&(kld, same, base, other)| scores.add(kld, same, base, other));
        let found = scores.result(3, 8);
        let n = rows.len() as f64;
        let mean = |f: &dyn Fn(&Row) -> f64| rows.iter().map(f).sum::<f64>() / n;
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9 * (1.0 + b.abs()), "{a} for {b}");
        close(found.mean.value, 50.0);
        close(found.mean.error, (mean(&|r| (r.0 - 50.0).powi(2)) / (n - 1.0)).sqrt());
        close(found.median, 50.0);
        close(found.p90, 90.0);
        close(found.p99, 99.0);
        close(found.p999, 99.9);
        close(found.max, 100.0);
        close(found.same_top.value, 26.0 / n);
        let difference = mean(&|r| r.3 - r.2);
        close(found.ppl_ratio.value, difference.exp());
        let spread = mean(&|r| (r.3 - r.2 - difference).powi(2));
        close(found.ppl_ratio.error, difference.exp() * (spread / (n - 1.0)).sqrt());
        close(found.ppl.value / found.ppl_base.value, found.ppl_ratio.value);
        close(found.rms_delta_p.value, mean(&|r| ((-r.3).exp() - (-r.2).exp()).powi(2)).sqrt());
        assert_eq!((found.chunks, found.context, found.tokens), (3, 8, 101));
    }
}
