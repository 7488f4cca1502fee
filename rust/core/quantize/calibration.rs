//! Text that shows what the inputs of a model's layers are.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::model::Model;
use crate::{Error, Interrupt, Result};

/// Tokens of a piece of text that is computed at once.
pub const CHUNK: usize = 512;
/// Pieces that are used, unless more are asked for: 40,960 tokens.
pub const CHUNKS: usize = 80;

/// Text to calibrate with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Calibration {
    /// What it is called in the file that it helped to make.
    pub label: String,
    /// The text: of the kind that the model will meet, and not what it is measured with.
    pub text: String,
    /// The most pieces of [`CHUNK`] tokens that are used.
    pub chunks: usize,
}

impl Calibration {
    /// A text.
    pub fn new(label: impl Into<String>, text: impl Into<String>) -> Calibration {
        Calibration { label: label.into(), text: text.into(), chunks: CHUNKS }
    }

    /// The text in pieces, as the model reads them.
    pub(super) fn pieces(&self, model: &Model, interrupt: &dyn Interrupt) -> Result<Vec<Vec<u32>>> {
        let tokenizer = model.tokenizer();
        let tokens = tokenizer.encode(&self.text, true, false, interrupt)?;
        let size = CHUNK.min(model.context());
        let mut pieces: Vec<Vec<u32>> = tokens.chunks_exact(size).take(self.chunks).map(<[u32]>::to_vec).collect();
        if pieces.is_empty() {
            let (label, found) = (&self.label, tokens.len());
            return Err(Error::Argument(format!("{label}: expected at least {size} tokens of text, found {found}")));
        }
        if let Some(first) = tokens.first().copied().filter(|first| tokenizer.bos() == Some(*first)) {
            pieces.iter_mut().for_each(|piece| piece[0] = first);
        }
        Ok(pieces)
    }

    /// Tells it from others.
    pub(super) fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.text, self.chunks).hash(&mut hasher);
        hasher.finish()
    }
}
