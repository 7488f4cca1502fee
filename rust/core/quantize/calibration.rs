//! Text that shows what the inputs of a model's layers are.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use crate::calibrate::{self, GramFile, pieces};
use crate::model::Model;
use crate::{Error, Interrupt, Result};

/// Tokens of a piece of text that is computed at once.
pub(super) const CHUNK: usize = 512;
/// Pieces that are used, unless more are asked for: 20,480 tokens.
pub(super) const CHUNKS: usize = 40;
/// Every so many pieces are what encodings are compared on, not what they are made with.
const TEST: usize = 5;

/// What shows the inputs of the layers.
#[derive(Clone, Debug)]
pub struct Calibration {
    /// What it is called in the file that it helped to make.
    pub label: String,
    /// What it is.
    pub source: Source,
}

/// Where the inputs of the layers come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Text, of the kind that the model will meet, and not what it is measured with. Inputs are those behind the quantized layers, and
    /// a part of the text is kept for comparing encodings.
    Text {
        /// The text.
        text: String,
        /// The most pieces of 512 tokens that are used.
        chunks: usize,
    },
    /// Gram matrices that [`write_grams`](crate::calibrate::write_grams) collected, of the inputs of the source's own layers.
    Grams(Arc<GramFile>),
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
        Calibration { label: label.into(), source: Source::Text { text: text.into(), chunks: CHUNKS } }
    }

    /// A file: text, or Gram matrices.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Io`] (also for what is no UTF-8), those of [`GramFile::open`].
    pub fn open(path: &Path, interrupt: &dyn Interrupt) -> Result<Calibration> {
        let label = path.display().to_string();
        if GramFile::is_one(path)? {
            return Ok(Calibration { label, source: Source::Grams(Arc::new(GramFile::open(path, interrupt)?)) });
        }
        let text = std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        Ok(Calibration::new(label, text))
    }

    /// The text and how many pieces of it are used.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is none.
    pub(super) fn text(&self) -> Result<(&str, usize)> {
        match &self.source {
            Source::Text { text, chunks } => Ok((text, *chunks)),
            Source::Grams(_) => Err(Error::Argument(format!(
                "{}: expected text, for divergences are measured on it; found Gram matrices",
                self.label
            ))),
        }
    }

    /// The text in pieces, as the model reads them.
    pub(super) fn pieces(&self, model: &Model, interrupt: &dyn Interrupt) -> Result<Pieces> {
        let chunk_size = CHUNK.min(model.context());
        let (text, chunks) = self.text()?;
        let options = calibrate::Options { chunk_size, chunks: Some(chunks), ..calibrate::Options::default() };
        let all = pieces(model, &[text], options, interrupt)?;
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

    /// Tells it from others; `None` when that cannot be told.
    pub(super) fn hash(&self) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        match &self.source {
            Source::Text { text, chunks } => (text, chunks).hash(&mut hasher),
            Source::Grams(file) => file.identity()?.hash(&mut hasher),
        }
        Some(hasher.finish())
    }
}
