//! Writes GGUF files: completely or not at all.
//!
//! The file is written under another name in the same folder, synced, and renamed: whatever happens (error, interrupt,
//! power cut, `kill -9`), the target is what it was before or the complete new file. That also makes it safe to write over a
//! file that is being read or mapped, the source of the tensors included: readers keep the old file until they close it. A
//! target that is a symbolic or hard link is itself replaced; what it shares with other names stays as it was.

use std::path::Path;

use super::draft::{Draft, Place, Plan};
use super::reader::{self, DEFAULT_ALIGNMENT, MAX_ALIGNMENT, MAX_DIMENSIONS, MAX_KEY, MAX_NAME, VERSIONS};
use super::types::TensorType;
use super::value::Value;
use super::wrong::MAGIC;
use super::{Gguf, Quoted, TensorInfo};
use crate::{Error, Interrupt, Result};

/// Gives a tensor's data, piece by piece.
type Source<'a> = Box<dyn FnOnce(&mut Output<'_>) -> Result<()> + 'a>;

struct Tensor<'a> {
    name: String,
    shape: Vec<u64>,
    ty: TensorType,
    bytes: u64,
    /// `None` when the data come later, see [`Writer::draft`].
    source: Option<Source<'a>>,
}

/// Collects what goes into a file, then writes it. Tensor data are laid out in the order of the tensors, each padded to the
/// alignment, the last one too, as ggml does: a file laid out so is reproduced byte for byte from its [`Gguf`].
pub struct Writer<'a> {
    version: u32,
    pairs: Vec<(String, Value)>,
    tensors: Vec<Tensor<'a>>,
    /// Files that must not be replaced.
    sources: Vec<&'a Path>,
}

impl std::fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer({} pairs, {} tensors)", self.pairs.len(), self.tensors.len())
    }
}

impl Default for Writer<'_> {
    fn default() -> Self {
        Writer::new()
    }
}

impl<'a> Writer<'a> {
    /// An empty file of the newest version.
    pub fn new() -> Writer<'a> {
        Writer { version: *VERSIONS.end(), pairs: Vec::new(), tensors: Vec::new(), sources: Vec::new() }
    }

    /// Version and metadata of `file`, without tensors. A split model becomes one file: its `split.*` keys are left out.
    pub fn with_metadata_of(file: &'a Gguf) -> Writer<'a> {
        let split = file.paths().len() > 1;
        let pairs = file.metadata().filter(|(key, _)| !(split && key.starts_with("split.")));
        Writer {
            version: file.version(),
            pairs: pairs.map(|(key, value)| (key.to_owned(), value.clone())).collect(),
            tensors: Vec::new(),
            sources: if split { file.paths().collect() } else { Vec::new() },
        }
    }

    /// Everything in `file`, to be written again, changed or not.
    ///
    /// # Errors
    /// As [`tensor`](Writer::tensor); not for files that [`Gguf`] has read.
    pub fn copy_of(file: &'a Gguf) -> Result<Writer<'a>> {
        let mut writer = Writer::with_metadata_of(file);
        for tensor in file.tensors() {
            writer.tensor(&tensor.name, &tensor.shape, tensor.ty, file.tensor_data(tensor))?;
        }
        Ok(writer)
    }

    /// Sets a key: in its old place when there is one, else at the end.
    ///
    /// # Errors
    /// [`Error::Argument`] for a key that a file cannot have, and for a `general.alignment` that is not a u32, a power of two
    /// and at most [`MAX_ALIGNMENT`].
    pub fn set(&mut self, key: &str, value: impl Into<Value>) -> Result<&mut Self> {
        let value = value.into();
        check_name("key", key, MAX_KEY)?;
        if key == "general.alignment"
            && !matches!(value, Value::U32(v) if v.is_power_of_two() && u64::from(v) <= MAX_ALIGNMENT)
        {
            let found = value.integer().map_or_else(|| value.describe(), |number| format!("{number} ({})", value.ty()));
            return Err(Error::Argument(format!(
                "key \"general.alignment\" must be a u32, a power of two, at most {MAX_ALIGNMENT}; found {found}"
            )));
        }
        match self.pairs.iter_mut().find(|pair| pair.0 == key) {
            Some(pair) => pair.1 = value,
            None => self.pairs.push((key.to_owned(), value)),
        }
        Ok(self)
    }

    /// Removes a key and returns its value.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let index = self.pairs.iter().position(|pair| pair.0 == key)?;
        Some(self.pairs.remove(index).1)
    }

    /// Keys and values as they will be written.
    pub fn metadata(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.pairs.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Adds a tensor whose data are in memory.
    ///
    /// # Errors
    /// [`Error::Argument`] when a file cannot have such a tensor or `data` has another size than the shape and type say.
    pub fn tensor(&mut self, name: &str, shape: &[u64], ty: TensorType, data: &'a [u8]) -> Result<&mut Self> {
        let bytes = reader::size(shape, ty).unwrap_or(data.len() as u64); // tensor_from reports the shape
        if bytes != data.len() as u64 {
            let name = Quoted(name);
            let found = data.len();
            return Err(Error::Argument(format!("tensor {name}: {shape:?} of {ty} has {bytes} bytes, found {found}")));
        }
        self.tensor_from(name, shape, ty, |output| output.write(data))
    }

    /// Adds a tensor whose data are written into the [`draft`](Writer::draft).
    ///
    /// # Errors
    /// [`Error::Argument`] when a file cannot have such a tensor.
    pub fn tensor_later(&mut self, name: &str, shape: &[u64], ty: TensorType) -> Result<&mut Self> {
        self.add(name, shape, ty, None)
    }

    /// Refuses to replace any of the files of `file`: by default a file that is not split may be written over.
    pub fn protect(&mut self, file: &'a Gguf) -> &mut Self {
        self.sources.extend(file.paths());
        self
    }

    /// Adds a tensor whose data are made while writing, for example row by row: nothing but the current piece is in memory.
    ///
    /// # Errors
    /// [`Error::Argument`] when a file cannot have such a tensor.
    pub fn tensor_from(
        &mut self,
        name: &str,
        shape: &[u64],
        ty: TensorType,
        source: impl FnOnce(&mut Output<'_>) -> Result<()> + 'a,
    ) -> Result<&mut Self> {
        self.add(name, shape, ty, Some(Box::new(source)))
    }

    fn add(&mut self, name: &str, shape: &[u64], ty: TensorType, source: Option<Source<'a>>) -> Result<&mut Self> {
        check_name("tensor name", name, MAX_NAME)?;
        let quoted = Quoted(name);
        if shape.is_empty() || shape.len() > MAX_DIMENSIONS as usize {
            let found = shape.len();
            return Err(Error::Argument(format!(
                "tensor {quoted} has {found} dimensions, expected 1 to {MAX_DIMENSIONS}"
            )));
        }
        let bytes = reader::size(shape, ty).map_err(|what| Error::Argument(format!("tensor {quoted}: {what}")))?;
        self.tensors.push(Tensor { name: name.into(), shape: shape.into(), ty, bytes, source });
        Ok(self)
    }

    /// Alignment of the tensor data: the value of `general.alignment`, else the default.
    pub fn alignment(&self) -> u64 {
        match self.pairs.iter().find(|(key, _)| key == "general.alignment") {
            Some((_, Value::U32(value))) => u64::from(*value),
            _ => DEFAULT_ALIGNMENT,
        }
    }

    /// The file as readers will see it, without the data of its tensors, which must not be asked for: so that what is to be
    /// written can be checked before it takes hours. `path` is for messages.
    ///
    /// # Errors
    /// [`Error::Argument`] for a file that is too large; [`Error::ModelFile`] when two tensors have one name.
    pub(crate) fn preview(&self, path: &Path) -> Result<Gguf> {
        self.file_bytes()?;
        let alignment = self.alignment();
        let pairs =
            Writer { version: self.version, pairs: self.pairs.clone(), tensors: Vec::new(), sources: Vec::new() };
        let mut file = Gguf::parse(path, pairs.header(alignment).into())?;
        let mut offset = 0u64;
        let tensors = self.tensors.iter().map(|tensor| {
            let Tensor { name, shape, ty, bytes, .. } = tensor;
            let start = offset;
            offset += bytes.next_multiple_of(alignment); // file_bytes() has checked the sum
            TensorInfo { name: name.clone(), shape: shape.clone(), ty: *ty, offset: start, bytes: *bytes, shard: 0 }
        });
        let tensors = tensors.collect();
        file.add_tensors(tensors, &[], 0)?;
        Ok(file)
    }

    /// Bytes the file will have.
    ///
    /// # Errors
    /// [`Error::Argument`] when that is 2^63 or more.
    pub fn file_bytes(&self) -> Result<u64> {
        let alignment = u128::from(self.alignment());
        let header = u128::from(self.header_bytes()).next_multiple_of(alignment);
        let total =
            self.tensors.iter().fold(header, |sum, tensor| sum + u128::from(tensor.bytes).next_multiple_of(alignment));
        u64::try_from(total)
            .ok()
            .filter(|total| *total < 1 << 63)
            .ok_or_else(|| Error::Argument(format!("the file would have {total} bytes, expected less than 2^63")))
    }

    fn header_bytes(&self) -> u64 {
        let pairs: u64 = self.pairs.iter().map(|(key, value)| 8 + key.len() as u64 + 4 + value.encoded_bytes()).sum();
        let tensor = |tensor: &Tensor<'_>| 8 + tensor.name.len() as u64 + 4 + 8 * tensor.shape.len() as u64 + 4 + 8;
        24 + pairs + self.tensors.iter().map(tensor).sum::<u64>()
    }

    /// Everything before the tensor data, padded.
    fn header(&self, alignment: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.header_bytes() as usize + alignment as usize);
        let string = |out: &mut Vec<u8>, string: &str| {
            out.extend((string.len() as u64).to_le_bytes());
            out.extend_from_slice(string.as_bytes());
        };
        out.extend_from_slice(MAGIC);
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.pairs.len() as u64).to_le_bytes());
        for (key, value) in &self.pairs {
            string(&mut out, key);
            out.extend(value.ty().id().to_le_bytes());
            value.encode(&mut out);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            string(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            for dimension in &tensor.shape {
                out.extend(dimension.to_le_bytes());
            }
            out.extend(tensor.ty.id().to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += tensor.bytes.next_multiple_of(alignment); // file_bytes() has checked the sum
        }
        out.resize(out.len().next_multiple_of(alignment as usize), 0);
        out
    }

    /// Writes the file and returns its size in bytes. An existing file is replaced in one step, keeping its permissions.
    ///
    /// # Errors
    /// [`Error::Io`] with the bytes needed when the space does not suffice or the system refuses; [`Error::Argument`] when
    /// the target is not a regular file or is one that must not be replaced (a part of a split model, what is protected), when a tensor occurs twice or
    /// a source gives another number of bytes than its tensor has; [`Error::Cancelled`]; errors of the sources. The target is
    /// then as it was and nothing else remains.
    pub fn write(mut self, path: &Path, interrupt: &dyn Interrupt) -> Result<u64> {
        let sources: Vec<_> = self.tensors.iter_mut().map(|tensor| tensor.source.take()).collect();
        if let Some(index) = sources.iter().position(Option::is_none) {
            let name = Quoted(&self.tensors[index].name);
            return Err(Error::Argument(format!("tensor {name} has no data: it can only be written to a draft")));
        }
        let (header, places, total) = self.layout()?;
        let plan = Plan { path, header: &header, places, total, sources: &self.sources };
        let mut draft = Draft::create(plan)?;
        for (index, (tensor, source)) in self.tensors.iter().zip(sources).enumerate() {
            let mut output = Output {
                draft: &mut draft,
                interrupt,
                index,
                name: &tensor.name,
                bytes: tensor.bytes,
                left: tensor.bytes,
            };
            source.into_iter().try_for_each(|source| source(&mut output))?;
            if output.left != 0 {
                let (name, bytes, left) = (Quoted(&tensor.name), tensor.bytes, output.left);
                return Err(Error::Argument(format!("tensor {name} has {bytes} bytes, its source gave {left} less")));
            }
            draft.complete(index, "", interrupt)?;
        }
        draft.finish()
    }

    /// Begins to write the file, for data that come in any order. With a `key`, what an earlier run has completed of the same file is
    /// kept: one with the same metadata, tensors and `key`, in which everything goes that the data depend on.
    ///
    /// # Errors
    /// As [`write`](Writer::write); also [`Error::Io`] when another process is writing the same file.
    pub fn draft(&self, path: &Path, key: Option<&str>, interrupt: &dyn Interrupt) -> Result<Draft> {
        let (header, places, total) = self.layout()?;
        let plan = Plan { path, header: &header, places, total, sources: &self.sources };
        match key {
            Some(key) => Draft::resume(plan, key, interrupt),
            None => Draft::create(plan),
        }
    }

    /// The header, where the tensors go, and the size of the file.
    fn layout(&self) -> Result<(Vec<u8>, Vec<Place>, u64)> {
        let total = self.file_bytes()?;
        let mut names = std::collections::HashSet::new();
        if let Some(twice) = self.tensors.iter().find(|tensor| !names.insert(tensor.name.as_str())) {
            return Err(Error::Argument(format!("tensor {} occurs twice", Quoted(&twice.name))));
        }
        let alignment = self.alignment();
        let header = self.header(alignment);
        let mut start = header.len() as u64;
        let places = self.tensors.iter().map(|tensor| {
            let place = Place { name: tensor.name.clone(), start, bytes: tensor.bytes, note: None };
            start += tensor.bytes.next_multiple_of(alignment); // file_bytes() has checked the sum
            place
        });
        Ok((header, places.collect(), total))
    }
}

/// Where a source writes the data of its tensor.
pub struct Output<'a> {
    draft: &'a mut Draft,
    interrupt: &'a dyn Interrupt,
    index: usize,
    name: &'a str,
    bytes: u64,
    left: u64,
}

impl std::fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Output({}, {} bytes left)", Quoted(self.name), self.left)
    }
}

impl Output<'_> {
    /// Writes the next bytes.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Cancelled`]; [`Error::Argument`] when these are more bytes than the tensor has.
    pub fn write(&mut self, data: &[u8]) -> Result<()> {
        let Some(left) = self.left.checked_sub(data.len() as u64) else {
            let (name, left, found) = (Quoted(self.name), self.left, data.len());
            return Err(Error::Argument(format!(
                "tensor {name}: expected at most {left} further bytes, its source gave {found}"
            )));
        };
        self.draft.write_at(self.index, self.bytes - self.left, data, self.interrupt)?;
        self.left = left;
        Ok(())
    }

    /// Bytes that are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }
}

fn check_name(what: &str, name: &str, limit: u64) -> Result<()> {
    let problem = match name {
        "" => "must not be empty".into(),
        name if name.contains('\0') => "must not contain a NUL".into(),
        name if name.len() as u64 > limit => format!("has {} bytes, expected at most {limit}", name.len()),
        _ => return Ok(()),
    };
    Err(Error::Argument(format!("{what} {} {problem}", Quoted(name))))
}
