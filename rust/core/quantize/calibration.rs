//! Text that shows what the inputs of a model's layers are.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::calibrate::{self, pieces};
use crate::model::Model;
use crate::{Error, Interrupt, Result};

/// Tokens of a piece of text that is computed at once.
pub(super) const CHUNK: usize = 512;
/// Pieces that are used, unless more are asked for: 20,480 tokens.
pub(super) const CHUNKS: usize = 40;
/// Every so many pieces are what encodings are compared on, not what they are made with.
const TEST: usize = 5;

/// Text to calibrate with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Calibration {
    /// What it is called in the file that it helped to make.
    pub label: String,
    /// The text: of the kind that the model will meet, and not what it is measured with.
    pub text: String,
    /// The most pieces of 512 tokens that are used.
    pub chunks: usize,
}

/// The pieces of a text.
pub(super) struct Pieces {
    /// What encodings are made with.
    pub(super) train: Vec<Vec<u32>>,
    /// What they are compared on.
    pub(super) test: Vec<Vec<u32>>,
}

impl Calibration {
    /// A text.
    pub fn new(label: impl Into<String>, text: impl Into<String>) -> Calibration {
        Calibration { label: label.into(), text: text.into(), chunks: CHUNKS }
    }

    /// The text in pieces, as the model reads them.
    pub(super) fn pieces(&self, model: &Model, interrupt: &dyn Interrupt) -> Result<Pieces> {
        let chunk_size = CHUNK.min(model.context());
        let options = calibrate::Options { chunk_size, chunks: Some(self.chunks), ..calibrate::Options::default() };
        let all = pieces(model, &[&self.text], options, interrupt)?;
        if all.len() < 2 {
            let label = &self.label;
            return Err(Error::Argument(format!(
                "{label}: expected text of at least {} tokens, to make the integers with and to compare them on",
                2 * chunk_size
            )));
        }
        let (mut train, mut test) = (Vec::new(), Vec::new());
        for (index, piece) in all.into_iter().enumerate() {
            // The second piece is one of the test: there are at least two.
            if index % TEST == 1 { test.push(piece) } else { train.push(piece) }
        }
        Ok(Pieces { train, test })
    }

    /// Tells it from others.
    pub(super) fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.text, self.chunks).hash(&mut hasher);
        hasher.finish()
    }
}
