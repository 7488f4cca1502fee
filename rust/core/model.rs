//! A loaded model: a mapped file, what it computes, and the memory it computes in.

use std::path::Path;

use crate::{Interrupt, Result};

pub use crate::kv_cache::Sequence;

/// How to load a model.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Positions per sequence; by default what the model was trained for, or less if that does not fit the memory.
    pub context: Option<usize>,
    /// Threads; by default what the machine grants ([`Machine::threads`](crate::machine::Machine::threads)).
    pub threads: Option<usize>,
    /// Map the file (the default) or read it into memory.
    pub mmap: bool,
    /// SIMD level; by default the best, or the one that `FASTQ_LEVEL` names.
    pub level: Option<fastq_kernels::Level>,
    /// Tokens that are computed at once.
    pub prefill_chunk: usize,
    /// Refuse what does not fit the free memory.
    pub check_memory: bool,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions { context: None, threads: None, mmap: true, level: None, prefill_chunk: 512, check_memory: true }
    }
}

/// Which logits a [`BatchItem`] wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Logits {
    /// None: the tokens only fill the cache.
    None,
    /// Those after the last token.
    Last,
    /// Those after every token.
    All,
}

/// The next tokens of one sequence.
#[derive(Debug)]
pub struct BatchItem<'a> {
    /// Where they are appended; positions continue from its length.
    pub sequence: &'a mut Sequence,
    /// The tokens.
    pub tokens: &'a [u32],
    /// Which logits to compute.
    pub logits: Logits,
    /// Receives `(rows, vocabulary)` logits; what was in it is replaced.
    pub out: &'a mut Vec<f32>,
}

/// A model. Cheap to clone, usable from any thread; concurrent calls take turns.
#[derive(Clone, Debug)]
pub struct Model {}

impl Model {
    /// Loads a model (being built).
    pub fn load(_path: &Path, _options: &LoadOptions, _interrupt: &dyn Interrupt) -> Result<Model> {
        Err(crate::Error::Internal("not built yet".into()))
    }

    /// Computes (being built).
    pub fn forward(&self, _batch: &mut [BatchItem<'_>], _interrupt: &dyn Interrupt) -> Result<()> {
        Err(crate::Error::Internal("not built yet".into()))
    }

    /// An empty sequence.
    pub fn new_sequence(&self) -> Sequence {
        crate::kv_cache::KvCache::new(Vec::new(), 0).sequence()
    }
}
