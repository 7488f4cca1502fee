//! Calibration: what the inputs of a model's matrices are like on some text.
//!
//! A text is cut as llama-imatrix cuts it, and its pieces go through the model layer by layer; the sums are then those of llama-imatrix.

mod gram_file;
mod grams;
mod texts;

use std::collections::BTreeMap;

use fastq_kernels::gram::add_squares;

pub use gram_file::{GramFile, Written, write_grams};
pub use grams::{Gram, Grams};
pub use texts::conversations;

use crate::evaluate::chunks::cut;
use crate::gguf::Gguf;
use crate::imatrix::{Entry, Imatrix};
use crate::model::{Input, Observer};
use crate::{Error, Interrupt, Model, Progress, Result};

/// The most values of hidden states that are in memory at once: 256 MiB.
const STATE_VALUES: usize = 64 << 20;

/// What to calibrate with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Tokens of a chunk.
    pub chunk_size: usize,
    /// The most chunks; all by default.
    pub chunks: Option<usize>,
    /// Look at the output matrix, too. It has the name of its tensor: `token_embd.weight` where that is both (llama-imatrix leaves that
    /// one out).
    pub process_output: bool,
    /// The texts are conversations ([`conversations`]).
    pub chat: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { chunk_size: 512, chunks: None, process_output: false, chat: false }
    }
}

/// Collects squares.
struct Squares<'a> {
    file: &'a Gguf,
    process_output: bool,
    entries: BTreeMap<String, Entry>,
}

impl Observer for Squares<'_> {
    fn input(&mut self, input: &mut Input<'_>) -> Result<()> {
        for name in input.tensors {
            if !self.process_output && !name.starts_with("blk.") {
                continue;
            }
            let experts = match (input.expert, self.file.tensor(name)) {
                (Some(_), Some(tensor)) => tensor.shape.get(2).map_or(1, |experts| *experts as usize),
                _ => 1,
            };
            if !self.entries.contains_key(*name) {
                let entry = Entry { sums: vec![0.0; experts * input.k], counts: vec![0.0; experts] };
                self.entries.insert((*name).to_owned(), entry);
            }
            let Some(Entry { sums, counts }) = self.entries.get_mut(*name) else { continue };
            let expert = input.expert.unwrap_or(0);
            let sums = &mut sums[expert * input.k..(expert + 1) * input.k];
            add_squares(input.cpu, input.x, sums);
            counts[expert] += (input.x.len() / input.k) as f32;
            if !sums.iter().all(|sum| sum.is_finite()) {
                return Err(Error::NotFinite(format!("the inputs of tensor {name} overflow: the weights are damaged")));
            }
        }
        Ok(())
    }
}

/// The pieces of some texts, which are put behind each other.
///
/// # Errors
/// As [`chunks()`](crate::evaluate::chunks()); of conversations, as [`conversations`].
pub fn pieces<T: AsRef<str>>(
    model: &Model,
    texts: &[T],
    options: Options,
    interrupt: &dyn Interrupt,
) -> Result<Vec<Vec<u32>>> {
    let tokens = match options.chat {
        true => {
            let mut tokens = Vec::new();
            for text in texts {
                tokens.extend(conversations(model, text.as_ref(), interrupt)?);
            }
            tokens
        }
        false => {
            let text: String = texts.iter().map(AsRef::as_ref).collect();
            model.tokenizer().encode(&text, true, false, interrupt)?
        }
    };
    cut(model, tokens, options.chunk_size, options.chunks)
}

/// Shows an observer every input of every matrix of all layers, and of the output matrix where `output` is set.
///
/// # Errors
/// As [`Model::advance`]; the observer's.
pub fn observe(
    model: &Model,
    pieces: &[Vec<u32>],
    output: bool,
    observer: &mut dyn Observer,
    interrupt: &dyn Interrupt,
    progress: &dyn Progress,
) -> Result<()> {
    let layers = model.spec().layers.len();
    let longest = pieces.iter().map(Vec::len).max().unwrap_or(1).max(1);
    let at_once = (STATE_VALUES / model.spec().width / longest).max(1);
    // Logits are made and dropped: the output matrix is observed with them.
    let (rows_at_once, mut logits) = ((STATE_VALUES / 4 / model.vocabulary()).max(1), Vec::new());
    let steps = (layers * pieces.len()) as u64;
    let mut done = 0;
    for group in pieces.chunks(at_once) {
        let mut states = model.embed_states(group, interrupt)?;
        for layer in 0..layers {
            progress.report("calibrating", done, steps);
            model.advance(&mut states, layer, Some(observer), interrupt)?;
            done += group.len() as u64;
        }
        if output && model.has_logits() {
            for start in (0..states.rows()).step_by(rows_at_once) {
                let rows = start..states.rows().min(start + rows_at_once);
                model.logits_of(&states, rows, &mut logits, Some(observer), interrupt)?;
            }
        }
    }
    progress.report("calibrating", steps, steps);
    Ok(())
}

/// The importance matrix of a model on some texts; `datasets` says where they are from.
///
/// # Errors
/// As [`pieces`] and [`observe`].
pub fn calibrate<T: AsRef<str>>(
    model: &Model,
    texts: &[T],
    datasets: Vec<String>,
    options: Options,
    interrupt: &dyn Interrupt,
    progress: &dyn Progress,
) -> Result<Imatrix> {
    let pieces = pieces(model, texts, options, interrupt)?;
    calibrate_on(model, &pieces, datasets, options, interrupt, progress)
}

/// The same of pieces that are tokens already; of the options, the size of a chunk and whether the output matrix is looked at count.
///
/// # Errors
/// As [`observe`].
pub fn calibrate_on(
    model: &Model,
    pieces: &[Vec<u32>],
    datasets: Vec<String>,
    options: Options,
    interrupt: &dyn Interrupt,
    progress: &dyn Progress,
) -> Result<Imatrix> {
    let file = model.gguf();
    let mut squares = Squares { file, process_output: options.process_output, entries: BTreeMap::new() };
    observe(model, pieces, options.process_output, &mut squares, interrupt, progress)?;
    let (count, size) = (u32::try_from(pieces.len()), u32::try_from(options.chunk_size));
    let (Ok(chunk_count), Ok(chunk_size)) = (count, size) else {
        return Err(Error::Argument("chunks must be fewer than 2^32".into()));
    };
    Ok(Imatrix { entries: squares.entries, datasets, chunk_count, chunk_size })
}
