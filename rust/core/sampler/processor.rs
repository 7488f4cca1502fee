//! The user's own changes of the logits.

use std::sync::Arc;

use crate::{Error, Result};

/// Changes the logits of the next token before the chain sees them. Called on the thread that generates, once per token, so what it
/// takes is added to every token.
pub trait LogitsProcessor: Send + Sync {
    /// `tokens` are those of the prompt and of the answer so far, `logits` (vocabulary) are by token id. Negative infinity forbids a
    /// token.
    ///
    /// # Errors
    /// Whatever should end the generation.
    fn process(&self, tokens: &[u32], logits: &mut [f32]) -> Result<()>;
}

impl std::fmt::Debug for dyn LogitsProcessor + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogitsProcessor")
    }
}

/// Two are equal when they are the same one.
impl PartialEq for dyn LogitsProcessor + '_ {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::addr_eq(self, other)
    }
}

/// Runs all of them, in order; nothing at all when there are none.
///
/// # Errors
/// What a processor gives; [`Error::Argument`] when one leaves a logit that is NaN or positive infinity, which would
/// otherwise look like damaged weights.
pub fn process(processors: &[Arc<dyn LogitsProcessor>], tokens: &[u32], logits: &mut [f32]) -> Result<()> {
    for (which, processor) in processors.iter().enumerate() {
        processor.process(tokens, logits)?;
        // False for NaN, too; without an early end, so that it is vectorised.
        if !logits.iter().fold(true, |good, &logit| good & (logit < f32::INFINITY)) {
            let at = logits.iter().position(|&logit| logit.is_nan() || logit == f32::INFINITY).unwrap_or(0);
            return Err(Error::Argument(format!(
                "processors[{which}] set the logit of token {at} to {}; it must be a finite number or negative infinity",
                logits[at]
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Add(u32, f32);

    impl LogitsProcessor for Add {
        fn process(&self, tokens: &[u32], logits: &mut [f32]) -> Result<()> {
            if tokens.len() > 3 {
                return Err(Error::Argument("enough".into()));
            }
            logits[self.0 as usize] += self.1 * tokens.len() as f32;
            Ok(())
        }
    }

    #[test]
    fn run_in_order_and_are_named_when_they_fail() {
        let processors: Vec<Arc<dyn LogitsProcessor>> =
            vec![Arc::new(Add(0, 1.0)), Arc::new(Add(1, f32::NEG_INFINITY))];
        let mut logits = [0.0; 3];
        process(&processors, &[5, 6], &mut logits).unwrap();
        assert_eq!(logits, [2.0, f32::NEG_INFINITY, 0.0]);
        // No tokens: 0 times infinity is NaN.
        let error = process(&processors, &[], &mut [0.0; 3]).unwrap_err().to_string();
        assert!(error.contains("processors[1] set the logit of token 1 to NaN"), "{error}");
        assert_eq!(process(&processors, &[0; 4], &mut logits).unwrap_err().to_string(), "enough");
        process(&[], &[0; 4], &mut [f32::NAN]).unwrap();
        assert_eq!(processors, processors.clone());
        assert_ne!(processors[..1], processors[1..]);
    }
}
