//! Text that a model writes itself, to calibrate with.
//!
//! A text that a user brings is of one kind, and integers that are made for it alone may be worse than plain rounding on another. What the
//! model itself writes has something of everything that it was trained on ("Self-calibration for language model quantization and
//! pruning", arXiv 2410.17170; the random first token is that of LLM-QAT, arXiv 2305.17888).

use crate::kv_cache::Sequence;
use crate::model::{BatchItem, Logits, Model};
use crate::sampler::philox::uniform;
use crate::sampler::{Sampler, SamplerOptions};
use crate::tokenizer::Tokenizer;
use crate::{Interrupt, Progress, Result};

/// Texts that are written at once.
const AT_ONCE: usize = 20;

/// A text that is being written.
struct Writing {
    tokens: Vec<u32>,
    sequence: Sequence,
    sampler: Sampler,
    seed: u64,
    logits: Vec<f32>,
}

impl Writing {
    fn begin(model: &Model, seed: u64) -> Result<Writing> {
        // As likely as the model says: nothing is cut off.
        let options =
            SamplerOptions { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed, ..SamplerOptions::default() };
        let sampler = Sampler::new(&options, model.vocabulary())?;
        let mut tokens: Vec<u32> = first_token(model.tokenizer()).into_iter().collect();
        tokens.push(any_token(model.tokenizer(), model.vocabulary(), seed, 0));
        Ok(Writing { tokens, sequence: model.new_sequence(), sampler, seed, logits: Vec::new() })
    }

    /// Takes the next token; where the model ends a text, another one begins.
    fn go_on(&mut self, model: &Model) -> Result<()> {
        let (tokenizer, position) = (model.tokenizer(), self.tokens.len());
        let (last, first) = (self.tokens[position - 1], first_token(tokenizer));
        let next = match tokenizer.is_end_of_generation(last) {
            _ if first == Some(last) => any_token(tokenizer, model.vocabulary(), self.seed, position as u64),
            true => first.unwrap_or_else(|| any_token(tokenizer, model.vocabulary(), self.seed, position as u64)),
            false => self.sampler.sample(&mut self.logits, position)?,
        };
        self.tokens.push(next);
        Ok(())
    }
}

/// What every text begins with, if there is something.
fn first_token(tokenizer: &Tokenizer) -> Option<u32> {
    tokenizer.bos().filter(|_| tokenizer.add_bos())
}

/// A random token that is text.
fn any_token(tokenizer: &Tokenizer, vocabulary: usize, seed: u64, position: u64) -> u32 {
    // Almost all tokens are text. A vocabulary without any gives some token.
    let draw = |attempt: u64| (uniform(!seed, position << 8 | attempt) * vocabulary as f64) as u32;
    (0..64).map(draw).find(|token| !tokenizer.is_control(*token)).unwrap_or(0)
}

/// `count` texts of `length` tokens, the same ones for the same weights on every machine. Stage of the progress: `"writing text"`, in tokens.
///
/// # Errors
/// As [`Model::forward`].
pub(super) fn write(
    model: &Model,
    count: usize,
    length: usize,
    interrupt: &dyn Interrupt,
    progress: &dyn Progress,
) -> Result<Vec<Vec<u32>>> {
    let (mut texts, total) = (Vec::with_capacity(count), (count * length) as u64);
    for first in (0..count).step_by(AT_ONCE) {
        let seeds = first..count.min(first + AT_ONCE);
        let mut all = seeds.map(|seed| Writing::begin(model, seed as u64)).collect::<Result<Vec<_>>>()?;
        let mut known = 0;
        while all[0].tokens.len() < length {
            let mut batch: Vec<BatchItem<'_>> = all
                .iter_mut()
                .map(|writing| BatchItem {
                    sequence: &mut writing.sequence,
                    tokens: &writing.tokens[known..],
                    logits: Logits::Last,
                    out: &mut writing.logits,
                })
                .collect();
            model.forward(&mut batch, interrupt)?;
            known = all[0].tokens.len();
            for writing in &mut all {
                writing.go_on(model)?;
            }
            progress.report("writing text", (first * length + all.len() * known) as u64, total);
        }
        texts.extend(all.into_iter().map(|mut writing| {
            writing.tokens.truncate(length);
            writing.tokens
        }));
    }
    progress.report("writing text", total, total);
    Ok(texts)
}
