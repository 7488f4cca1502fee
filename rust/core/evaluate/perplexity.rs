//! Perplexity: `e` to the mean of the negative log-probabilities that a model gives to the tokens of a text.

use fastq_kernels::Cpu;
use fastq_kernels::elementwise::log_sum_exp;
use serde_json::{Value, json};

use super::rows::{Rows, each_scored};
use super::{Estimate, Options, Sums, chunks, exponential};
use crate::{Error, Interrupt, Model, Progress, Result};

/// A perplexity.
#[derive(Clone, PartialEq, Debug)]
pub struct Perplexity {
    /// Over all tokens that were scored, with the standard error.
    pub ppl: Estimate,
    /// Mean negative log-probability of a token, in nats.
    pub nll: Estimate,
    /// After each chunk: the perplexity so far.
    pub by_chunk: Vec<f64>,
    /// Number of chunks.
    pub chunks: usize,
    /// Tokens of a chunk.
    pub context: usize,
    /// Number of tokens that were scored.
    pub tokens: usize,
}

impl Perplexity {
    /// One object, as for `--json`.
    pub fn to_json(&self) -> Value {
        json!({
            "ppl": self.ppl.value, "ppl_error": self.ppl.error, "nll": self.nll.value, "nll_error": self.nll.error,
            "by_chunk": self.by_chunk, "chunks": self.chunks, "context": self.context, "tokens": self.tokens,
        })
    }
}

/// The level that a model computes on, for what is computed of its logits.
pub(super) fn cpu_of(model: &Model) -> Result<Cpu> {
    Cpu::new(model.level()).map_err(|error| Error::Argument(error.to_string()))
}

/// The perplexity of a model on a text: of each chunk ([`chunks()`](super::chunks())) the tokens from the middle on are predicted, `context / 2
/// - 1` of them.
///
/// # Errors
/// As [`chunks()`](super::chunks()) and [`Model::forward`].
pub fn perplexity(
    model: &Model,
    text: &str,
    options: Options,
    interrupt: &dyn Interrupt,
    progress: &dyn Progress,
) -> Result<Perplexity> {
    let cpu = cpu_of(model)?;
    let pieces = chunks(model, text, options.context, options.chunks, interrupt)?;
    let vocabulary = model.vocabulary();
    let mut rows = Rows::new(model);
    let (mut sums, mut by_chunk) = (Sums::default(), Vec::with_capacity(pieces.len()));
    for (done, piece) in pieces.iter().enumerate() {
        progress.report("perplexity", done as u64, pieces.len() as u64);
        let rows = std::cell::RefCell::new(&mut rows);
        each_scored(
            piece,
            Rows::step(vocabulary),
            |tokens, scored| match scored {
                true => rows.borrow_mut().next(tokens, interrupt),
                false => rows.borrow_mut().begin(tokens, interrupt),
            },
            |row, token| {
                let logits = &rows.borrow().logits[row * vocabulary..(row + 1) * vocabulary];
                sums.add(log_sum_exp(cpu, logits) - f64::from(logits[token]));
                Ok(())
            },
        )?;
        by_chunk.push(sums.mean().exp());
    }
    progress.report("perplexity", pieces.len() as u64, pieces.len() as u64);
    let nll = sums.estimate();
    Ok(Perplexity {
        ppl: exponential(nll),
        nll,
        by_chunk,
        chunks: pieces.len(),
        context: options.context,
        tokens: sums.count as usize,
    })
}
