//! The binary format from before GGUF, as llama-imatrix wrote it (`tools/imatrix` of llama.cpp, `save_imatrix_legacy`).
//!
//! All numbers are little-endian i32 or f32:
//!
//! ```text
//! entries | length, name | calls | values | f32 * values | length, name | ... | last call | length, dataset
//!                          once per entry                                       may be missing
//! ```
//!
//! The values are mean squares times `calls`. There is one number of calls for all experts, and no length of the chunks.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Entry, Imatrix, bad, floats};
use crate::gguf::{MAX_NAME, MAX_TENSORS, Quoted};
use crate::{Error, Result};

/// The shortest entry: an empty name and no values.
const SMALLEST_ENTRY: usize = 12;
/// The longest name of a dataset, a path.
const MAX_DATASET: usize = 1 << 16;

/// Takes numbers off the front of a file.
struct Cursor<'a> {
    path: &'a Path,
    file: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn error(&self, at: usize, what: String) -> Error {
        Error::ModelFile { path: self.path.into(), offset: Some(at as u64), what }
    }

    fn bytes(&mut self, len: usize, what: &str) -> Result<&'a [u8]> {
        let left = self.file.len() - self.at;
        if len > left {
            return Err(self.error(self.at, format!("{what} needs {len} bytes, the file has {left} more")));
        }
        self.at += len;
        Ok(&self.file[self.at - len..self.at])
    }

    /// A number from 0 to `limit`.
    fn count(&mut self, limit: usize, what: &str) -> Result<usize> {
        let at = self.at;
        let found = match self.bytes(4, what)? {
            &[a, b, c, d] => i32::from_le_bytes([a, b, c, d]),
            _ => return Err(Error::Internal("four bytes are not four".into())),
        };
        usize::try_from(found)
            .ok()
            .filter(|count| *count <= limit)
            .ok_or_else(|| self.error(at, format!("{what} must be from 0 to {limit}, found {found}")))
    }
}

/// Parses a file.
pub(super) fn read(path: &Path, file: &[u8]) -> Result<Imatrix> {
    let mut cursor = Cursor { path, file, at: 0 };
    let limit = (file.len() / SMALLEST_ENTRY).min(MAX_TENSORS as usize);
    let known = |error: Error| match error {
        Error::ModelFile { path, offset, what } => {
            Error::ModelFile { path, offset, what: format!("expected an imatrix (GGUF or imatrix.dat): {what}") }
        }
        other => other,
    };
    let count = cursor.count(limit, "the number of entries").map_err(known)?;
    if count == 0 {
        return Err(cursor.error(0, "the imatrix has no entries".into()));
    }
    let mut entries = BTreeMap::new();
    for index in 0..count {
        let len =
            cursor.count(MAX_NAME as usize, &format!("the length of the name of entry {index}")).map_err(known)?;
        let at = cursor.at;
        let name = cursor.bytes(len, &format!("the name of entry {index}"))?;
        let name = match std::str::from_utf8(name) {
            Ok(name) if !name.is_empty() => name,
            _ => return Err(cursor.error(at, format!("the name of entry {index} must be UTF-8 and not empty"))),
        };
        let calls = cursor.count(i32::MAX as usize, &format!("the calls of entry {}", Quoted(name)))?;
        let at_values = cursor.at;
        let values = cursor.count((file.len() - cursor.at) / 4, &format!("the values of entry {}", Quoted(name)))?;
        if values == 0 {
            return Err(cursor.error(at_values, format!("entry {} has no values", Quoted(name))));
        }
        let at_sums = cursor.at;
        let sums = floats(cursor.bytes(4 * values, &format!("the values of entry {}", Quoted(name)))?);
        if let Some(index) = bad(&sums) {
            let what = format!("must be finite numbers from 0, found {} at {index}", sums[index]);
            return Err(cursor.error(at_sums + 4 * index, format!("the values of entry {} {what}", Quoted(name))));
        }
        // Values without calls are taken as they are.
        let entry = Entry { sums, counts: vec![calls.max(1) as f32] };
        if entries.insert(name.to_owned(), entry).is_some() {
            return Err(cursor.error(at, format!("entry {} occurs twice", Quoted(name))));
        }
    }
    let (mut chunk_count, mut datasets) = (0, Vec::new());
    if cursor.at < file.len() {
        chunk_count = cursor.count(i32::MAX as usize, "the number of calls")? as u32;
    }
    if cursor.at < file.len() {
        let len = cursor.count(MAX_DATASET, "the length of the name of the dataset")?;
        datasets.push(String::from_utf8_lossy(cursor.bytes(len, "the name of the dataset")?).into_owned());
    }
    match file.len() - cursor.at {
        0 => Ok(Imatrix { entries, datasets, chunk_count, chunk_size: 0 }),
        left => Err(cursor.error(cursor.at, format!("expected the end of the imatrix, found {left} more bytes"))),
    }
}
