//! Importance matrices: what calibration learned of the inputs of linear layers, and the files that hold it.
//!
//! An entry has the sum of the squares of every input of a matrix, and of how many rows. Both formats of llama.cpp are read: GGUF files of
//! the type `imatrix`, and binary files from before (`imatrix.dat`), told apart by their first bytes. GGUF files are written.

mod binary;

use std::collections::BTreeMap;
use std::path::Path;

use fastq_kernels::Format;

use crate::gguf::{Array, Gguf, Quoted, TensorInfo, TensorType, Value, Writer, load_bytes};
use crate::{Error, Interrupt, Result};

/// Magic number of GGUF files.
const GGUF: &[u8] = b"GGUF";
const DATASETS: &str = "imatrix.datasets";
const CHUNK_COUNT: &str = "imatrix.chunk_count";
const CHUNK_SIZE: &str = "imatrix.chunk_size";
/// What follows the name of a matrix in the name of the tensor of its sums.
const SUMS: &str = ".in_sum2";
/// What follows it in that of its counts.
const COUNTS: &str = ".counts";

/// What is known of the inputs of a model's matrices.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Imatrix {
    /// By the names of the matrices.
    pub entries: BTreeMap<String, Entry>,
    /// The texts it was made of.
    pub datasets: Vec<String>,
    /// Pieces of text that were computed.
    pub chunk_count: u32,
    /// Tokens of each; 0 where a file does not say it.
    pub chunk_size: u32,
}

/// The inputs of one matrix, or of the matrices of all experts.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Entry {
    /// Sums of the squares of the inputs `(experts, k)`.
    pub sums: Vec<f32>,
    /// Rows of which the sums are `(experts)`; of binary files one for all experts, in calls instead of rows.
    pub counts: Vec<f32>,
}

impl Entry {
    /// Inputs of one expert.
    pub fn k(&self) -> usize {
        self.sums.len().checked_div(self.counts.len()).unwrap_or(0)
    }

    /// Mean squares `(k)` of the inputs of an expert, 0 of a matrix without experts: what llama-quantize weights errors by. An
    /// expert that no row has met has ones, since nothing is known of its inputs.
    ///
    /// # Panics
    /// When there is no such expert.
    pub fn importance(&self, expert: usize) -> Vec<f32> {
        let (k, count) = (self.k(), self.counts[expert]);
        let sums = &self.sums[expert * k..(expert + 1) * k];
        match count > 0.0 {
            true => sums.iter().map(|sum| sum / count).collect(),
            false => vec![1.0; k],
        }
    }

    /// The entry for matrices with rows of `k`: binary files do not say how many experts there are, and have one count for all.
    ///
    /// # Errors
    /// [`Error::Argument`] when the sums are not of so many inputs; `name` is for the message.
    pub fn for_rows(self, name: &str, k: usize) -> Result<Entry> {
        let (found, experts) = (self.k(), self.sums.len().checked_div(k).unwrap_or(0));
        match self.counts[..] {
            _ if found == k => Ok(self),
            [count] if experts > 0 && experts * k == self.sums.len() => {
                Ok(Entry { sums: self.sums, counts: vec![count; experts] })
            }
            _ => Err(Error::Argument(format!(
                "the imatrix has {found} inputs for tensor {}, which has rows of {k}: it was made of another model",
                Quoted(name)
            ))),
        }
    }
}

impl Imatrix {
    /// Reads a file of either format.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Io`]; [`Error::ModelFile`] with the place, what was expected and what was found;
    /// [`Error::Memory`], [`Error::Cancelled`].
    pub fn open(path: &Path, interrupt: &dyn Interrupt) -> Result<Imatrix> {
        // Read, not mapped: sums are copied anyway, and then nothing can change under us.
        let (bytes, _) = load_bytes(path, false, interrupt)?;
        match bytes.starts_with(GGUF) {
            true => Imatrix::from_gguf(&Gguf::parse(path, bytes)?),
            false => binary::read(path, &bytes),
        }
    }

    /// Takes it from a GGUF file that is open.
    ///
    /// # Errors
    /// [`Error::ModelFile`].
    pub fn from_gguf(file: &Gguf) -> Result<Imatrix> {
        let ty = file.str("general.type")?;
        if ty.is_some_and(|ty| ty != "imatrix") || ty.is_none() && file.get(CHUNK_COUNT).is_none() {
            let found = match (ty, file.str("general.architecture")?) {
                (_, Some(architecture)) => format!("a model of architecture {}", Quoted(architecture)),
                (Some(ty), None) => format!("a file of type {}", Quoted(ty)),
                (None, None) => "a file without the key \"general.type\"".into(),
            };
            return Err(file.key_error("general.type", format!("expected an imatrix, found {found}")));
        }
        let number = |key| file.u32(key)?.ok_or_else(|| file.error(format!("key {} is missing", Quoted(key))));
        let (chunk_count, chunk_size) = (number(CHUNK_COUNT)?, number(CHUNK_SIZE)?);
        let datasets = file
            .strings(DATASETS)?
            .map(|names| names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect());
        let mut entries = BTreeMap::new();
        for tensor in file.tensors() {
            if let Some(name) = tensor.name.strip_suffix(COUNTS)
                && file.tensor(&format!("{name}{SUMS}")).is_none()
            {
                return Err(file.tensor_error(tensor, format!("tensor {} has no sums {SUMS}", Quoted(&tensor.name))));
            }
            let Some(name) = tensor.name.strip_suffix(SUMS) else { continue };
            let Some(counts) = file.tensor(&format!("{name}{COUNTS}")) else {
                return Err(
                    file.tensor_error(tensor, format!("tensor {} has no counts {COUNTS}", Quoted(&tensor.name)))
                );
            };
            let entry = Entry { sums: numbers(file, tensor)?, counts: numbers(file, counts)? };
            if entry.counts.is_empty() || entry.k() == 0 || entry.k() * entry.counts.len() != entry.sums.len() {
                let (sums, counts) = (entry.sums.len(), entry.counts.len());
                let what = format!("must have as many values for each count, found {sums} sums and {counts} counts");
                return Err(file.tensor_error(tensor, format!("tensor {} {what}", Quoted(&tensor.name))));
            }
            entries.insert(name.to_owned(), entry);
        }
        if entries.is_empty() {
            return Err(file.error(format!("the imatrix has no tensors NAME{SUMS}")));
        }
        Ok(Imatrix { entries, datasets: datasets.unwrap_or_default(), chunk_count, chunk_size })
    }

    /// Writes a GGUF file, whole or not at all, and returns its size in bytes.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn write(&self, path: &Path, interrupt: &dyn Interrupt) -> Result<u64> {
        let mut writer = Writer::new();
        writer.set("general.type", "imatrix")?;
        writer.set(DATASETS, Value::Array(Array::from_strings(&self.datasets)))?;
        writer.set(CHUNK_COUNT, self.chunk_count)?;
        writer.set(CHUNK_SIZE, self.chunk_size)?;
        let float = TensorType::from(Format::F32);
        for (name, entry) in &self.entries {
            // As ggml has it: a last dimension of one is left out.
            let shape = |row: usize| match entry.counts.len() {
                1 => vec![row as u64],
                experts => vec![row as u64, experts as u64],
            };
            let (sums, counts) = (format!("{name}{SUMS}"), format!("{name}{COUNTS}"));
            writer.tensor_from(&sums, &shape(entry.k()), float, |out| out.write(&bytes(&entry.sums)))?;
            writer.tensor_from(&counts, &shape(1), float, |out| out.write(&bytes(&entry.counts)))?;
        }
        writer.write(path, interrupt)
    }

    /// The entry for the rows of a matrix `(experts * rows, k)`, if there is one.
    ///
    /// # Errors
    /// [`Error::Argument`] when it is of rows of another length.
    pub fn entry(&self, name: &str, k: usize) -> Result<Option<Entry>> {
        self.entries.get(name).map(|entry| entry.clone().for_rows(name, k)).transpose()
    }
}

/// The values of a tensor of F32: sums of squares or counts, so none is negative.
fn numbers(file: &Gguf, tensor: &TensorInfo) -> Result<Vec<f32>> {
    let name = Quoted(&tensor.name);
    if tensor.ty != TensorType::from(Format::F32) {
        return Err(file.tensor_error(tensor, format!("tensor {name} must be F32, found {}", tensor.ty.name())));
    }
    let values = floats(file.tensor_data(tensor));
    match bad(&values) {
        None => Ok(values),
        Some(index) => {
            let what = format!("must hold finite numbers from 0, found {} at {index}", values[index]);
            Err(file.tensor_error(tensor, format!("tensor {name} {what}")))
        }
    }
}

/// Index of the first value that is no sum of squares.
fn bad(values: &[f32]) -> Option<usize> {
    values.iter().position(|value| !value.is_finite() || *value < 0.0)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
