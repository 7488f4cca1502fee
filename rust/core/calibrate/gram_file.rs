//! Files of Gram matrices: what error feedback needs to know of a text, without the text.
//!
//! A GGUF file of the type `gram`. Matrices that share an input share its Gram matrix: `gram.tensors` lists the names of all matrices and
//! `gram.inputs`, in the same order, the names under which their inputs are. An input has two tensors of F32: `NAME.gram` `(experts, k, k)`, sums of
//! the products of its values, and `NAME.gram_counts` `(experts)`, the rows that were added up. Both lack the first dimension where there are no experts.

use std::collections::BTreeMap;
use std::path::Path;

use super::grams::{Gram, Grams};
use super::{Options, pieces};
use crate::gguf::{Array, Gguf, OpenOptions, Quoted, TensorInfo, TensorType, Value, Writer};
use crate::memory::human;
use crate::model::{Input, Observer};
use crate::{Error, Interrupt, Model, Progress, Result};
use fastq_kernels::Format;

const TYPE: &str = "gram";
const TENSORS: &str = "gram.tensors";
const INPUTS: &str = "gram.inputs";
const DATASETS: &str = "gram.datasets";
const CHUNK_COUNT: &str = "gram.chunk_count";
const CHUNK_SIZE: &str = "gram.chunk_size";
const SUMS: &str = ".gram";
const COUNTS: &str = ".gram_counts";

/// The most bytes of hidden states: all pieces go through a layer before the next one, so that one layer's matrices are in memory at a time.
const STATE_BYTES: u64 = 4 << 30;

/// What was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// Inputs, each with a matrix (or one per expert).
    pub inputs: usize,
    /// Pieces of text.
    pub chunks: usize,
    /// Bytes of the file.
    pub bytes: u64,
}

/// One input of a layer.
struct Place {
    k: usize,
    /// 0 where there are none.
    experts: usize,
    tensors: Vec<String>,
}

/// Learns which matrices share which input.
struct Names<'a> {
    file: &'a Gguf,
    found: BTreeMap<String, Place>,
}

impl Observer for Names<'_> {
    fn input(&mut self, input: &mut Input<'_>) -> Result<()> {
        let Some(first) = input.tensors.first() else { return Ok(()) };
        if !self.found.contains_key(*first) {
            let shape = self.file.tensor(first).map(|tensor| tensor.shape.clone()).unwrap_or_default();
            let experts = input.expert.map_or(0, |_| shape.get(2).map_or(0, |experts| *experts as usize));
            let tensors = input.tensors.iter().map(|name| (*name).to_owned()).collect();
            self.found.insert((*first).to_owned(), Place { k: input.k, experts, tensors });
        }
        Ok(())
    }
}

/// Writes the Gram matrices of the inputs of all layers on some texts to `path`, whole or not at all; with
/// [`process_output`](Options::process_output) that of the output matrix, too. In memory are the hidden states of the texts and the matrices of one layer.
///
/// # Errors
/// As [`pieces`] and [`Model::advance`]; [`Error::Memory`] when the states of all pieces exceed 4 GiB: take fewer chunks.
pub fn write_grams<T: AsRef<str>>(
    model: &Model,
    texts: &[T],
    datasets: &[String],
    options: Options,
    path: &Path,
    interrupt: &dyn Interrupt,
    progress: &dyn Progress,
) -> Result<Written> {
    let pieces = pieces(model, texts, options, interrupt)?;
    let rows: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
    let bytes = rows.saturating_mul(model.spec().width as u64 * 4);
    if bytes > STATE_BYTES {
        return Err(Error::Memory(format!(
            "the hidden states of {} chunks take {}, more than {}; take fewer chunks",
            pieces.len(),
            human(bytes),
            human(STATE_BYTES)
        )));
    }
    let layers = model.spec().layers.len();
    let output = options.process_output && model.has_logits();
    let mut names = Names { file: model.gguf(), found: BTreeMap::new() };
    // One token shows the names.
    let mut state = model.embed_states(&[pieces[0][..1].to_vec()], interrupt)?;
    for layer in 0..layers {
        model.advance(&mut state, layer, Some(&mut names), interrupt)?;
    }
    if output {
        model.logits_of(&state, 0..1, &mut Vec::new(), Some(&mut names), interrupt)?;
    }
    let places = names.found;
    let writer = header(&places, datasets, pieces.len(), options.chunk_size)?;
    let mut draft = writer.draft(path, None, interrupt)?;
    let index: BTreeMap<&str, usize> = places.keys().enumerate().map(|(at, name)| (name.as_str(), 2 * at)).collect();

    let mut states = model.embed_states(&pieces, interrupt)?;
    let steps = (layers + usize::from(output)) as u64;
    for layer in 0..layers + usize::from(output) {
        progress.report("calibrating", layer as u64, steps);
        let mut grams = Grams::new(&|_| true);
        if layer < layers {
            model.advance(&mut states, layer, Some(&mut grams), interrupt)?;
        } else {
            let (at_once, mut logits) = ((super::STATE_VALUES / 4 / model.vocabulary()).max(1), Vec::new());
            for start in (0..states.rows()).step_by(at_once) {
                let rows = start..states.rows().min(start + at_once);
                model.logits_of(&states, rows, &mut logits, Some(&mut grams), interrupt)?;
            }
        }
        grams.finish();
        for name in grams.shared().into_keys() {
            let (Some(&at), Some(place)) = (index.get(name.as_str()), places.get(&name)) else {
                return Err(Error::Internal(format!("the input of {name} was not announced")));
            };
            let size = place.k * place.k * 4;
            let mut counts = Vec::new();
            for number in 0..place.experts.max(1) {
                // An expert that no row has met has zeros.
                let gram = grams.take(&name, (place.experts > 0).then_some(number));
                let (sums, count) = gram.map_or_else(|| (vec![0.0; place.k * place.k], 0), |g| (g.sums, g.count));
                if !sums.iter().all(|sum| sum.is_finite()) {
                    return Err(Error::NotFinite(format!(
                        "the inputs of tensor {name} overflow: the weights are damaged"
                    )));
                }
                let bytes: Vec<u8> = sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
                draft.write_at(at, (number * size) as u64, &bytes, interrupt)?;
                counts.extend((count as f32).to_le_bytes());
            }
            draft.write_at(at + 1, 0, &counts, interrupt)?;
            draft.complete(at, "", interrupt)?;
            draft.complete(at + 1, "", interrupt)?;
        }
    }
    progress.report("calibrating", steps, steps);
    Ok(Written { inputs: places.len(), chunks: pieces.len(), bytes: draft.finish()? })
}

fn header(
    places: &BTreeMap<String, Place>,
    datasets: &[String],
    chunks: usize,
    chunk_size: usize,
) -> Result<Writer<'static>> {
    let mut writer = Writer::new();
    let number =
        |value: usize| u32::try_from(value).map_err(|_| Error::Argument("chunks must be fewer than 2^32".into()));
    writer.set("general.type", TYPE)?;
    writer.set(DATASETS, Value::Array(Array::from_strings(datasets)))?;
    writer.set(CHUNK_COUNT, number(chunks)?)?;
    writer.set(CHUNK_SIZE, number(chunk_size)?)?;
    let (mut tensors, mut inputs) = (Vec::new(), Vec::new());
    for (name, place) in places {
        for tensor in &place.tensors {
            tensors.push(tensor.clone());
            inputs.push(name.clone());
        }
    }
    writer.set(TENSORS, Value::Array(Array::from_strings(&tensors)))?;
    writer.set(INPUTS, Value::Array(Array::from_strings(&inputs)))?;
    for (name, place) in places {
        let (k, experts) = (place.k as u64, place.experts as u64);
        let shape = if experts > 0 { vec![k, k, experts] } else { vec![k, k] };
        writer.tensor_later(&format!("{name}{SUMS}"), &shape, Format::F32.into())?;
        writer.tensor_later(&format!("{name}{COUNTS}"), &[experts.max(1)], Format::F32.into())?;
    }
    Ok(writer)
}

/// A file of Gram matrices.
#[derive(Debug)]
pub struct GramFile {
    file: Gguf,
    /// Of each matrix, the name of its input.
    inputs: BTreeMap<String, String>,
}

impl GramFile {
    /// Opens a file and checks all of it but the numbers.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Io`], [`Error::ModelFile`] with what was expected and found, [`Error::Cancelled`].
    pub fn open(path: &Path, interrupt: &dyn Interrupt) -> Result<GramFile> {
        let file = Gguf::open(path, &OpenOptions { mmap: true, interrupt })?;
        match file.str("general.type")? {
            Some(TYPE) => {}
            found => {
                let found = found.map_or("none".into(), |ty| Quoted(ty).to_string());
                return Err(file.key_error("general.type", format!("expected {TYPE:?}, found {found}")));
            }
        }
        let list = |key| -> Result<Vec<String>> {
            let names = file.strings(key)?.ok_or_else(|| file.error(format!("key {} is missing", Quoted(key))))?;
            Ok(names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect())
        };
        let (tensors, names) = (list(TENSORS)?, list(INPUTS)?);
        if tensors.len() != names.len() {
            let what = format!("must have as many names as {TENSORS}, {}, found {}", tensors.len(), names.len());
            return Err(file.key_error(INPUTS, what));
        }
        for name in &names {
            let (sums, counts) = parts(&file, name)?;
            let square = matches!(sums.shape[..], [a, b] | [a, b, _] if a == b);
            let experts = sums.shape.get(2).copied().unwrap_or(1);
            let floats = [sums, counts].iter().all(|tensor| tensor.ty == TensorType::from(Format::F32));
            if !square || !floats || counts.shape != [experts] {
                let what = format!(
                    "tensor {} must be F32 (experts, k, k) with counts (experts), found {} {:?} and {:?}",
                    Quoted(&sums.name),
                    sums.ty.name(),
                    sums.shape,
                    counts.shape
                );
                return Err(file.tensor_error(sums, what));
            }
        }
        let inputs = tensors.into_iter().zip(names).collect();
        Ok(GramFile { file, inputs })
    }

    /// Whether a file is one, by its first bytes: text is not.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Io`].
    pub fn is_one(path: &Path) -> Result<bool> {
        use std::io::Read;
        let error = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound => Error::NotFound(path.to_owned()),
            _ => Error::Io { path: path.to_owned(), source },
        };
        let mut magic = [0; 4];
        let mut file = std::fs::File::open(path).map_err(error)?;
        match file.read_exact(&mut magic) {
            Ok(()) => Ok(&magic == b"GGUF"),
            Err(short) if short.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
            Err(other) => Err(error(other)),
        }
    }

    /// What tells it from other files, for resuming; `None` when it cannot be told.
    pub fn identity(&self) -> Option<String> {
        self.file.identity()
    }

    /// The Gram matrices of the inputs of `tensors`, each with rows of its length.
    ///
    /// # Errors
    /// [`Error::Argument`] when one is of another length: the file is of another model. [`Error::ModelFile`] for numbers that are none; [`Error::Io`],
    /// [`Error::Memory`].
    pub fn load<'t>(&self, tensors: impl IntoIterator<Item = (&'t str, u64)>) -> Result<Grams<'static>> {
        let mut grams = Grams::new(&|_| true);
        for (tensor, k) in tensors {
            let Some(name) = self.inputs.get(tensor) else { continue };
            let (sums, counts) = parts(&self.file, name)?;
            if sums.shape[0] != k {
                return Err(Error::Argument(format!(
                    "the Gram matrix for tensor {} is of {} inputs, but its rows have {k}: the file was made of another model",
                    Quoted(tensor),
                    sums.shape[0]
                )));
            }
            if !grams.name(tensor, name) {
                continue;
            }
            let k = usize::try_from(k).map_err(|_| Error::Memory(format!("{tensor} has rows of {k}")))?;
            let experts = sums.shape.get(2).copied();
            let counts = self.numbers(counts, 0, experts.unwrap_or(1) as usize)?;
            for (number, &count) in counts.iter().enumerate() {
                // What no row has met is not known.
                if count >= 1.0 {
                    let sums = self.numbers(sums, (number * k * k * 4) as u64, k * k)?;
                    grams.insert(name, experts.map(|_| number), Gram { k, sums, count: count as u64 });
                }
            }
        }
        Ok(grams)
    }

    fn numbers(&self, tensor: &TensorInfo, at: u64, count: usize) -> Result<Vec<f32>> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(count.saturating_mul(4)).map_err(|_| {
            Error::Memory(format!("the system refused memory for the Gram matrix {}", Quoted(&tensor.name)))
        })?;
        bytes.resize(count * 4, 0);
        self.file.reader().read(tensor, at, &mut bytes)?;
        let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(index) => {
                let what = format!("must hold finite numbers, found {} at {index}", values[index]);
                Err(self.file.tensor_error(tensor, format!("tensor {} {what}", Quoted(&tensor.name))))
            }
        }
    }
}

/// The two tensors of an input.
fn parts<'f>(file: &'f Gguf, name: &str) -> Result<(&'f TensorInfo, &'f TensorInfo)> {
    let find = |suffix: &str| {
        let name = format!("{name}{suffix}");
        file.tensor(&name).ok_or_else(|| file.error(format!("tensor {} is missing", Quoted(&name))))
    };
    Ok((find(SUMS)?, find(COUNTS)?))
}
