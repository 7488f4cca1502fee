//! The tensors of a checkpoint: one `model.safetensors`, or several files with an index.
//!
//! Format: <https://huggingface.co/docs/safetensors>. Headers are checked by the `safetensors` crate (offsets without holes or overlaps,
//! sizes that are those of the shapes) and against the length of the file. Data are read as they are needed, never mapped: a file
//! that shrinks meanwhile is an error, not a signal.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::json::Object;
use crate::gguf::{Quoted, io_error, kind, model_error};
use crate::{Error, Result};

const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Largest index; that of a model of 100,000 tensors has 10 MB.
const MAX_INDEX: u64 = 64 << 20;
/// Largest header; the `safetensors` crate has the same.
const MAX_HEADER: u64 = 100_000_000;
/// Most tensors; the same as in a GGUF file would be too few, because experts are tensors of their own here.
const MAX_TENSORS: usize = 1 << 20;

/// One file.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    file: Mutex<File>,
}

/// Where a tensor is.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    part: usize,
    pub(super) dtype: Dtype,
    /// As in PyTorch: the contiguous dimension last.
    pub(super) shape: Vec<usize>,
    start: u64,
    pub(super) bytes: u64,
}

/// A folder with weights.
#[derive(Debug)]
pub(super) struct Checkpoint {
    parts: Vec<Part>,
    pub(super) tensors: BTreeMap<String, Stored>,
}

impl Checkpoint {
    /// Reads the headers of all files in `directory`.
    pub(super) fn open(directory: &Path) -> Result<Checkpoint> {
        let mut checkpoint = Checkpoint { parts: Vec::new(), tensors: BTreeMap::new() };
        let whole = directory.join(WHOLE);
        // A whole file goes before an index, as in transformers.
        if whole.exists() {
            checkpoint.add(&whole)?;
        } else if let Some(index) = Object::open(&directory.join(INDEX), MAX_INDEX)? {
            checkpoint.add_indexed(directory, &index)?;
        } else {
            return Err(nothing(directory));
        }
        match checkpoint.tensors.is_empty() {
            true => Err(model_error(&checkpoint.parts[0].path, "expected tensors, found none")),
            false => Ok(checkpoint),
        }
    }

    fn add_indexed(&mut self, directory: &Path, index: &Object) -> Result<()> {
        let map = index.object("weight_map")?.ok_or_else(|| index.missing(&["weight_map"], "files by tensor"))?;
        let mut files: Vec<&str> = Vec::new();
        for tensor in map.map.keys() {
            let file = map.str(tensor)?.ok_or_else(|| map.missing(&[tensor], "the name of a file"))?;
            let mut components = Path::new(file).components();
            let plain =
                matches!(components.next(), Some(std::path::Component::Normal(_))) && components.next().is_none();
            if !plain || file.contains(['/', '\\', '\0']) {
                let found = Quoted(file);
                return Err(map.wrong(tensor, format_args!("must name a file in the same folder, found {found}")));
            }
            files.push(file);
        }
        files.sort_unstable();
        files.dedup();
        for file in files {
            let path = directory.join(file);
            if !path.exists() {
                return Err(index.error(format!("key \"weight_map\" names {}, which is not there", Quoted(file))));
            }
            self.add(&path)?;
        }
        for (tensor, stored) in &self.tensors {
            let file = self.parts[stored.part].path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match map.str(tensor)? {
                Some(named) if named == file => {}
                Some(named) => {
                    let what = format!("says that tensor {} is in {named:?}, found it in {file:?}", Quoted(tensor));
                    return Err(index.error(what));
                }
                None => return Err(index.error(format!("must list tensor {} of {file:?}, does not", Quoted(tensor)))),
            }
        }
        match map.map.keys().find(|tensor| !self.tensors.contains_key(*tensor)) {
            Some(tensor) => {
                let (name, file) = (Quoted(tensor), map.str(tensor)?.unwrap_or_default());
                Err(index.error(format!("says that tensor {name} is in {file:?}, where it is not")))
            }
            None => Ok(()),
        }
    }

    /// Adds the tensors of one file.
    fn add(&mut self, path: &Path) -> Result<()> {
        let metadata = std::fs::metadata(path).map_err(|error| io_error(path, error))?;
        if let Some(found) = kind(&metadata) {
            return Err(model_error(path, format!("expected a regular file, found {found}")));
        }
        let mut file = File::open(path).map_err(|error| io_error(path, error))?;
        let mut length = [0; 8];
        let size = metadata.len();
        let short =
            || model_error(path, format!("expected a safetensors file, found {size} bytes: damaged or not complete"));
        file.read_exact(&mut length).map_err(|_| short())?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER || length > size.saturating_sub(8) {
            let what = format!(
                "the header must have at most {} bytes, found {length} at the beginning: no safetensors file, damaged or not complete",
                MAX_HEADER.min(size.saturating_sub(8))
            );
            return Err(model_error(path, what));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(|error| io_error(path, error))?;
        let header: Metadata = serde_json::from_slice(&header)
            .map_err(|error| model_error(path, format!("the header is not that of a safetensors file: {error}")))?;
        let data = size - 8 - length;
        if header.data_len() as u64 != data {
            let expected = header.data_len();
            return Err(model_error(
                path,
                format!("expected {expected} bytes of tensors, found {data}: damaged or not complete"),
            ));
        }
        let part = self.parts.len();
        self.parts.push(Part { path: path.into(), file: Mutex::new(file) });
        for (name, info) in header.tensors() {
            let (start, end) = info.data_offsets;
            let stored = Stored {
                part,
                dtype: info.dtype,
                shape: info.shape.clone(),
                start: 8 + length + start as u64,
                bytes: (end - start) as u64,
            };
            if let Some(other) = self.tensors.insert(name.clone(), stored) {
                let other = self.parts[other.part].path.display();
                return Err(model_error(path, format!("tensor {} is also in {other}", Quoted(&name))));
            }
            if self.tensors.len() > MAX_TENSORS {
                return Err(model_error(path, format!("expected at most {MAX_TENSORS} tensors, found more")));
            }
        }
        Ok(())
    }

    /// Reads bytes of a tensor, from `from` on, into `out`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::ModelFile`] when the file became shorter.
    pub(super) fn read(&self, tensor: &Stored, from: u64, out: &mut [u8]) -> Result<()> {
        let part = &self.parts[tensor.part];
        let at = tensor.start + from;
        let mut file = part.file.lock().unwrap_or_else(PoisonError::into_inner);
        let read = file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(out));
        read.map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::ModelFile {
                path: part.path.clone(),
                offset: Some(at),
                what: format!("expected {} bytes, found less: the file changed while it was read", out.len()),
            },
            _ => io_error(&part.path, error),
        })
    }

    /// All bytes of a tensor.
    pub(super) fn read_all(&self, tensor: &Stored) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let needed = usize::try_from(tensor.bytes).ok().filter(|needed| bytes.try_reserve_exact(*needed).is_ok());
        let Some(needed) = needed else {
            let what =
                format!("{}: a tensor of {} bytes does not fit memory", self.path(tensor).display(), tensor.bytes);
            return Err(Error::Memory(what));
        };
        bytes.resize(needed, 0);
        self.read(tensor, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// The file that a tensor is in.
    pub(super) fn path(&self, tensor: &Stored) -> &Path {
        &self.parts[tensor.part].path
    }

    /// An error about a tensor.
    pub(super) fn error(&self, name: &str, tensor: &Stored, what: impl std::fmt::Display) -> Error {
        let what = format!("tensor {} {what}", Quoted(name));
        Error::ModelFile { path: self.path(tensor).into(), offset: Some(tensor.start), what }
    }
}

/// The error for a folder without weights that can be read.
fn nothing(directory: &Path) -> Error {
    if !directory.exists() {
        return Error::NotFound(directory.into());
    }
    let other = |name: &str| directory.join(name).exists();
    let found = if !directory.is_dir() {
        "a file: name the folder that it is in"
    } else if other("pytorch_model.bin") || other("pytorch_model.bin.index.json") {
        "weights as PyTorch pickles them: save the model with safe_serialization=True"
    } else if other("consolidated.safetensors") || other("consolidated.00.pth") {
        "weights under the names of their first publisher: use the version of the model for transformers"
    } else {
        "neither"
    };
    model_error(directory, format!("expected {WHOLE} or {INDEX}, found {found}"))
}
