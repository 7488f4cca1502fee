//! Adds a number to the logits of single tokens.

use super::candidates::Candidates;
use super::{Setup, Stage};
use crate::{Error, Result};

struct LogitBias {
    bias: Vec<(u32, f32)>,
}

/// Off when no token has a bias.
pub(super) fn stage(setup: &Setup<'_>) -> Result<Option<Box<dyn Stage>>> {
    for &(token, bias) in &setup.options.logit_bias {
        if token as usize >= setup.vocab {
            return Err(Error::Argument(format!(
                "logit_bias names token {token}, but the vocabulary has {} tokens (0 to {})",
                setup.vocab,
                setup.vocab.saturating_sub(1)
            )));
        }
        if bias.is_nan() || bias == f32::INFINITY {
            return Err(Error::Argument(format!(
                "logit_bias of token {token} must be a finite number or negative infinity, got {bias}"
            )));
        }
    }
    let bias = setup.options.logit_bias.clone();
    Ok((!bias.is_empty()).then(|| Box::new(LogitBias { bias }) as Box<dyn Stage>))
}

impl Stage for LogitBias {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _position: u64) {
        let logits = candidates.logits();
        for &(token, bias) in &self.bias {
            let logit = &mut logits[token as usize];
            // Two large finite numbers must not make an infinity that later stages subtract from itself.
            *logit = (*logit + bias).min(f32::MAX);
        }
    }
}
