//! Log-probabilities of the tokens of a text.

use fastq_kernels::elementwise::log_sum_exp;

use super::perplexity::cpu_of;
use super::rows::Rows;
use crate::{Error, Interrupt, Model, Result};

/// The natural logarithm of the probability of each token, given those before it, at temperature 1; the first has none. A few rows of logits are held at
/// once.
///
/// # Errors
/// As [`Model::forward`].
pub fn score(model: &Model, tokens: &[u32], interrupt: &dyn Interrupt) -> Result<Vec<f32>> {
    let cpu = cpu_of(model)?;
    let vocabulary = model.vocabulary();
    // The last one is only looked up, which `forward` would not see.
    if let Some(bad) = tokens.iter().find(|token| **token as usize >= vocabulary) {
        return Err(Error::Argument(format!("tokens must be below the vocabulary {vocabulary}, found {bad}")));
    }
    let mut rows = Rows::new(model);
    let mut scores = Vec::with_capacity(tokens.len().saturating_sub(1));
    let predicted = &tokens[tokens.len().min(1)..];
    for part in predicted.chunks(Rows::step(vocabulary)) {
        let start = scores.len();
        rows.next(&tokens[start..start + part.len()], interrupt)?;
        for (logits, token) in rows.logits.chunks_exact(vocabulary).zip(part) {
            scores.push((f64::from(logits[*token as usize]) - log_sum_exp(cpu, logits)) as f32);
        }
    }
    Ok(scores)
}
