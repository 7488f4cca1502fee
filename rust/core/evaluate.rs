//! How good a model is: its perplexity on a text, how far its answers are from those of another one, and how likely it finds each token.
//!
//! The first two cut and score a text as llama.cpp's llama-perplexity does, so that figures can be compared.

pub mod chunks;
pub mod divergence;
pub mod perplexity;
mod rows;
pub mod score;

pub use chunks::chunks;
pub use divergence::{Divergence, kl_divergence};
pub use perplexity::{Perplexity, perplexity};
pub use score::score;

/// What of a text is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Tokens of a chunk, of which the second half is scored.
    pub context: usize,
    /// The most chunks; all by default.
    pub chunks: Option<usize>,
}

impl Default for Options {
    fn default() -> Options {
        Options { context: 512, chunks: None }
    }
}

/// A mean and its standard error.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// Its standard error.
    pub error: f64,
}

/// Sums of a quantity and its squares.
#[derive(Clone, Copy, Default, Debug)]
struct Sums {
    count: f64,
    sum: f64,
    squares: f64,
}

impl Sums {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        self.sum += value;
        self.squares += value * value;
    }

    fn mean(&self) -> f64 {
        self.sum / self.count
    }

    /// Variance of the mean, as llama.cpp has it; 0 of one value.
    fn variance(&self) -> f64 {
        let spread = self.squares / self.count - self.mean() * self.mean();
        if self.count > 1.0 { spread.max(0.0) / (self.count - 1.0) } else { 0.0 }
    }

    fn estimate(&self) -> Estimate {
        Estimate { value: self.mean(), error: self.variance().sqrt() }
    }
}

/// `e^x`, with the error that it has where `x` has one.
fn exponential(x: Estimate) -> Estimate {
    let value = x.value.exp();
    Estimate { value, error: value * x.error }
}
