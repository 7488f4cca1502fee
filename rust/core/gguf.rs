//! GGUF files: reading (v2, v3, split), mapping, writing.
//!
//! Specification: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
//!
//! ```no_run
//! # use fastq_core::gguf::{Gguf, OpenOptions};
//! let file = Gguf::open("model.gguf".as_ref(), &OpenOptions::default())?;
//! let architecture = file.str("general.architecture")?.unwrap_or("unknown");
//! for tensor in file.tensors() {
//!     println!("{architecture} {} {:?} {}", tensor.name, tensor.shape, tensor.ty);
//! }
//! # Ok::<(), fastq_core::Error>(())
//! ```

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod draft;
mod getters;
mod journal;
mod mapped;
mod partial;
mod positioned;
mod reader;
mod split;
mod tensor_reader;
pub mod types;
pub mod value;
pub mod writer;
mod wrong;

pub use draft::Draft;
pub use mapped::Bytes;
pub(crate) use mapped::{io_error, kind, load as load_bytes, model_error};
pub(crate) use partial::{remove_abandoned, write_pieces, write_whole};
pub(crate) use reader::Quoted;
pub use reader::{
    DEFAULT_ALIGNMENT, MAX_ALIGNMENT, MAX_DIMENSIONS, MAX_KEY, MAX_NAME, MAX_PAIRS, MAX_TENSORS, VERSIONS,
};
pub use split::MAX_SHARDS;
pub use tensor_reader::TensorReader;
pub use types::{Stored, TensorType};
pub use value::{Array, StringArray, Value, ValueType};
pub use writer::{Output, Writer};

use crate::{Error, Interrupt, Never, Result};
use mapped::Identity;
use reader::{Header, Pair};

/// How to open a file.
#[derive(Clone, Copy)]
pub struct OpenOptions<'a> {
    /// Map the file (the default: instant, and processes share the memory) or read it into memory of its own, which makes the
    /// model independent of what happens to the file afterwards.
    pub mmap: bool,
    /// Asked while reading without mmap.
    pub interrupt: &'a dyn Interrupt,
}

impl Default for OpenOptions<'_> {
    fn default() -> Self {
        OpenOptions { mmap: true, interrupt: &Never }
    }
}

impl std::fmt::Debug for OpenOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenOptions").field("mmap", &self.mmap).finish_non_exhaustive()
    }
}

/// A tensor's entry in the table of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorInfo {
    /// Its name, at most [`MAX_NAME`] bytes.
    pub name: String,
    /// 1 to 4 dimensions in ggml's order: `shape[0]` is the length of a row (k), which is contiguous.
    pub shape: Vec<u64>,
    /// Type of its blocks.
    pub ty: TensorType,
    /// Where its data begins, in bytes from the beginning of the data section of its file.
    pub offset: u64,
    /// Bytes of its data.
    pub bytes: u64,
    /// Which file of a split model it is in, from 0.
    pub shard: usize,
}

impl TensorInfo {
    /// Number of weights; below 2^63.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Length of a row.
    pub fn k(&self) -> u64 {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Number of rows: the product of all dimensions but the first.
    pub fn rows(&self) -> u64 {
        self.shape.iter().skip(1).product()
    }
}

/// One file of a model.
#[derive(Debug)]
struct Shard {
    path: PathBuf,
    bytes: Bytes,
    data_start: u64,
    /// Of files that are mapped: what they were when they were opened.
    identity: Option<Identity>,
}

/// A parsed model file, or all files of a split model. Metadata come from the first file.
pub struct Gguf {
    shards: Vec<Shard>,
    version: u32,
    alignment: u64,
    pairs: Vec<Pair>,
    keys: HashMap<Arc<str>, usize>,
    tensors: Vec<TensorInfo>,
    names: HashMap<Box<str>, usize>,
}

impl std::fmt::Debug for Gguf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (pairs, tensors) = (self.pairs.len(), self.tensors.len());
        write!(f, "Gguf({}, {pairs} pairs, {tensors} tensors)", self.path().display())
    }
}

impl Gguf {
    /// Opens and checks a model file, and the other files of a split model when it is the first of them.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Io`], [`Error::ModelFile`] for anything that is not a well-formed GGUF file,
    /// [`Error::Memory`] and [`Error::Cancelled`] when reading without mmap.
    pub fn open(path: &Path, options: &OpenOptions<'_>) -> Result<Gguf> {
        let first = Gguf::open_one(path, options, 0)?;
        split::follow(first, |path, shard| Gguf::open_one(path, options, shard))
    }

    /// Parses one file that is in memory; `path` is for messages. Of a split model, that is one file without the others.
    ///
    /// # Errors
    /// [`Error::ModelFile`] with the place, what was expected and what was found.
    pub fn parse(path: &Path, bytes: Bytes) -> Result<Gguf> {
        Gguf::parse_one(path, bytes, None, 0)
    }

    fn open_one(path: &Path, options: &OpenOptions<'_>, shard: usize) -> Result<Gguf> {
        let (bytes, identity) = mapped::load(path, options.mmap, options.interrupt)?;
        Gguf::parse_one(path, bytes, options.mmap.then_some(identity), shard)
    }

    fn parse_one(path: &Path, bytes: Bytes, identity: Option<Identity>, shard: usize) -> Result<Gguf> {
        let header = reader::read(path, &bytes, shard)?;
        let Header { version, alignment, pairs, keys, tensors, records, data_start } = header;
        let shard = Shard { path: path.into(), bytes, data_start, identity };
        let mut file =
            Gguf { shards: vec![shard], version, alignment, pairs, keys, tensors: Vec::new(), names: HashMap::new() };
        file.add_tensors(tensors, &records, 0)?;
        Ok(file)
    }

    /// Adds the tensors of file `shard`, whose records begin at `records`.
    fn add_tensors(&mut self, tensors: Vec<TensorInfo>, records: &[u64], shard: usize) -> Result<()> {
        self.names.reserve(tensors.len());
        self.tensors.reserve(tensors.len());
        for (index, tensor) in tensors.into_iter().enumerate() {
            if let Some(first) = self.names.insert(tensor.name.as_str().into(), self.tensors.len()) {
                let elsewhere = match self.tensors.get(first) {
                    Some(first) if first.shard != tensor.shard => {
                        format!(" (also in {})", self.shards[first.shard].path.display())
                    }
                    _ => String::new(),
                };
                return Err(Error::ModelFile {
                    path: self.shards[shard].path.clone(),
                    offset: records.get(index).copied(),
                    what: format!("tensor {} occurs twice{elsewhere}", Quoted(&tensor.name)),
                });
            }
            self.tensors.push(tensor);
        }
        Ok(())
    }

    /// Path of the file, of the first one of a split model.
    pub fn path(&self) -> &Path {
        &self.shards[0].path
    }

    /// Paths of all files, one unless the model is split.
    pub fn paths(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.shards.iter().map(|shard| shard.path.as_path())
    }

    /// Version of the format, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Alignment of tensor data in bytes (of the first file).
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Size of all files in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes.len() as u64).sum()
    }

    /// Keys and values in the order of the file.
    pub fn metadata(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.pairs.iter().map(|pair| (&*pair.key, &pair.value))
    }

    /// The value of a key. The typed getters ([`str`](Gguf::str), [`usize`](Gguf::usize), …) also check its type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.pair(key).map(|pair| &pair.value)
    }

    fn pair(&self, key: &str) -> Option<&Pair> {
        self.pairs.get(*self.keys.get(key)?)
    }

    /// All tensors in the order of the files.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of a name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(*self.names.get(name)?)
    }

    /// The data of a tensor: `bytes` bytes, at an address that is a multiple of the file's alignment (up to the page size).
    ///
    /// # Panics
    /// When `tensor` is not of this file.
    pub fn tensor_data(&self, tensor: &TensorInfo) -> &[u8] {
        let range = self.tensor_range(tensor);
        // Every tensor was found to lie inside the bytes of its file, so its ends are lengths in memory.
        &self.shards[tensor.shard].bytes[range.start as usize..range.end as usize]
    }

    /// Where the data of a tensor is in its file, in bytes from the beginning.
    ///
    /// # Panics
    /// When `tensor` is not of this file.
    pub fn tensor_range(&self, tensor: &TensorInfo) -> std::ops::Range<u64> {
        let start = self.shards[tensor.shard].data_start + tensor.offset;
        start..start + tensor.bytes
    }

    /// The bytes of each file before the data of its tensors: all metadata and the table of tensors.
    pub(crate) fn headers(&self) -> impl Iterator<Item = &[u8]> {
        let header = |shard: &Shard| usize::try_from(shard.data_start).unwrap_or(usize::MAX).min(shard.bytes.len());
        self.shards.iter().map(move |shard| &shard.bytes[..header(shard)])
    }

    /// Whether the file is mapped, so that its bytes are file cache and not memory of this process.
    pub fn is_mapped(&self) -> bool {
        self.shards.iter().any(|shard| shard.identity.is_some())
    }

    /// Checks that no mapped file was changed, replaced or removed since it was opened. Without mmap there is nothing that
    /// could have changed.
    ///
    /// # Errors
    /// [`Error::ModelFile`] that says what changed, [`Error::NotFound`], [`Error::Io`].
    pub fn check_unchanged(&self) -> Result<()> {
        for shard in &self.shards {
            let Some(identity) = &shard.identity else { continue };
            let now = std::fs::metadata(&shard.path).map_err(|source| mapped::io_error(&shard.path, source))?;
            if let Some(difference) = identity.difference(&Identity::of(&now)) {
                let what = format!("the file changed since it was opened: {difference}; load the model again");
                return Err(mapped::model_error(&shard.path, what));
            }
        }
        Ok(())
    }

    /// An error about this file as a whole.
    pub fn error(&self, what: impl Into<String>) -> Error {
        mapped::model_error(self.path(), what)
    }

    /// An error about a key, with its place when the file has it. `what` should name the key.
    pub fn key_error(&self, key: &str, what: impl Into<String>) -> Error {
        Error::ModelFile { path: self.path().into(), offset: self.pair(key).map(|pair| pair.at), what: what.into() }
    }

    /// An error about the data of a tensor, with its place. `what` should name the tensor.
    ///
    /// # Panics
    /// When `tensor` is not of this file.
    pub fn tensor_error(&self, tensor: &TensorInfo, what: impl Into<String>) -> Error {
        let path = self.shards[tensor.shard].path.clone();
        Error::ModelFile { path, offset: Some(self.tensor_range(tensor).start), what: what.into() }
    }
}
