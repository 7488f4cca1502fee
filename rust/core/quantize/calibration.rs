//! Text that shows what the inputs of a model's layers are.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use super::own_text;
use crate::calibrate::{self, GramFile, pieces};
use crate::model::Model;
use crate::{Error, Interrupt, Progress, Result};

/// Tokens of a piece of text that is computed at once.
pub(super) const CHUNK: usize = 512;
/// Pieces that are used, unless more are asked for: 20,480 tokens.
pub(super) const CHUNKS: usize = 40;
/// The most tokens that a model is asked to write.
pub const OWN_TOKENS_LIMIT: usize = 1 << 20;
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
        /// Pieces of as many tokens that the model writes itself, beside them.
        own: usize,
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
    /// A text, and as much that the model writes itself.
    pub fn new(label: impl Into<String>, text: impl Into<String>) -> Calibration {
        Calibration { label: label.into(), source: Source::Text { text: text.into(), chunks: CHUNKS, own: CHUNKS } }
    }

    /// Nothing but what the model writes itself.
    pub fn own() -> Calibration {
        Calibration { label: "own text".into(), source: Source::Text { text: String::new(), chunks: 0, own: CHUNKS } }
    }

    /// What users choose: a calibration or none, and how many tokens the model writes itself; by default as many as a text has, and none
    /// without.
    ///
    /// # Errors
    /// As [`with_own`](Calibration::with_own).
    pub fn chosen(given: Option<Calibration>, own_tokens: Option<usize>) -> Result<Option<Calibration>> {
        match (given, own_tokens) {
            (given, None) => Ok(given),
            (Some(given), Some(tokens)) => given.with_own(tokens).map(Some),
            (None, Some(0)) => Ok(None),
            (None, Some(tokens)) => Calibration::own().with_own(tokens).map(Some),
        }
    }

    /// With `tokens` tokens that the model writes itself, in whole pieces of 512.
    ///
    /// # Errors
    /// [`Error::Argument`] beside Gram matrices, which are of a text that was, and for more than [`OWN_TOKENS_LIMIT`].
    pub fn with_own(mut self, tokens: usize) -> Result<Calibration> {
        if tokens > OWN_TOKENS_LIMIT {
            return Err(Error::Argument(format!("own_text must be at most {OWN_TOKENS_LIMIT} tokens, found {tokens}")));
        }
        match &mut self.source {
            Source::Text { own, .. } => *own = tokens.div_ceil(CHUNK),
            Source::Grams(_) if tokens > 0 => {
                let label = &self.label;
                return Err(Error::Argument(format!(
                    "own_text: {label} holds Gram matrices, to which no text can be added"
                )));
            }
            Source::Grams(_) => {}
        }
        Ok(self)
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

    /// The text, how many pieces of it are used, and how many of the model's own.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is none.
    pub(super) fn text(&self) -> Result<(&str, usize, usize)> {
        match &self.source {
            Source::Text { text, chunks, own } => Ok((text, *chunks, *own)),
            Source::Grams(_) => Err(Error::Argument(format!(
                "{}: expected text, for divergences are measured on it; found Gram matrices",
                self.label
            ))),
        }
    }

    /// The text in pieces, as `model` reads them, and those that the `writer` writes, which has the same tokens and is only made when
    /// there is something to write.
    pub(super) fn pieces(
        &self,
        model: &Model,
        writer: impl FnOnce() -> Result<Model>,
        interrupt: &dyn Interrupt,
        progress: &dyn Progress,
    ) -> Result<Pieces> {
        let chunk_size = CHUNK.min(model.context());
        let (text, chunks, own) = self.text()?;
        let options = calibrate::Options { chunk_size, chunks: Some(chunks), ..calibrate::Options::default() };
        let given = if chunks == 0 { Vec::new() } else { pieces(model, &[text], options, interrupt)? };
        let writes = model.has_logits() && model.spec().causal;
        if !writes && chunks == 0 {
            let name = &model.spec().name;
            return Err(Error::Argument(format!("own_text: a {name} model writes no text, so it needs calibration")));
        }
        let own = if writes { own } else { 0 };
        // What is given and cannot be used is an error, however much the model writes.
        if given.len() < 2 && (chunks > 0 || own < 2) {
            let label = &self.label;
            return Err(Error::Argument(format!(
                "{label}: expected text of at least {} tokens, to make the integers with and to compare them on",
                2 * chunk_size
            )));
        }
        let written =
            if own == 0 { Vec::new() } else { own_text::write(&writer()?, own, chunk_size, interrupt, progress)? };
        let (mut train, mut test) = (Vec::new(), Vec::new());
        let longest = given.len().max(written.len());
        let (mut given, mut written) = (given.into_iter(), written.into_iter());
        for index in 0..longest {
            // The second piece of each is one of the test: there are at least two. Where few are used, they are of both.
            let pieces = if index % TEST == 1 { &mut test } else { &mut train };
            pieces.extend(given.next().into_iter().chain(written.next()));
        }
        Ok(Pieces { train, test })
    }

    /// Tells it from others; `None` when that cannot be told.
    pub(super) fn hash(&self) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        match &self.source {
            Source::Text { text, chunks, own } => (text, chunks, own).hash(&mut hasher),
            Source::Grams(file) => file.identity()?.hash(&mut hasher),
        }
        Some(hasher.finish())
    }
}
