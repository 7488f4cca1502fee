//! Parses the header, the metadata and the tensor table of one file.
//!
//! Nothing is believed: counts and lengths are compared with the bytes that are left before anything is allocated, sizes are
//! computed in 128 bits, every tensor lies inside the data section and overlaps no other. Time is linear in the bytes read
//! (and n log n in the tensors); nothing recurses.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::{self, Arguments};
use std::path::Path;
use std::sync::Arc;

use super::TensorInfo;
use super::mapped::Bytes;
use super::types::{self, TensorType};
use super::value::{Array, Value, ValueType, next_string};
use crate::{Error, Result};

/// Versions that can be read; 3 differs from 2 only in allowing big-endian files, which are refused.
pub const VERSIONS: std::ops::RangeInclusive<u32> = 2..=3;
/// Alignment of tensor data when the file does not say, from the specification.
pub const DEFAULT_ALIGNMENT: u64 = 32;
/// Largest alignment: a page of the largest page size in use (64 KiB); more only makes files larger.
pub const MAX_ALIGNMENT: u64 = 1 << 16;
/// Longest key in bytes, from the specification.
pub const MAX_KEY: u64 = 65_535;
/// Longest tensor name in bytes: ggml keeps 64 with the final NUL.
pub const MAX_NAME: u64 = 63;
/// Most dimensions of a tensor (ggml's `GGML_MAX_DIMS`).
pub const MAX_DIMENSIONS: u32 = 4;
/// Most metadata pairs. Real files have below 100; parsed pairs take about 200 bytes each, so that this many stay below
/// 64 MiB however small they are in the file.
pub const MAX_PAIRS: u64 = 1 << 18;
/// Most tensors. Real files have below 3,000; parsed tensors take about 250 bytes each.
pub const MAX_TENSORS: u64 = 1 << 17;

/// Smallest pair: key length (8), an empty key, type (4), a value of one byte.
const SMALLEST_PAIR: u64 = 13;
/// Smallest tensor record: name length (8), an empty name, number of dimensions (4), no dimension, type (4), offset (8).
const SMALLEST_TENSOR: u64 = 24;

/// A metadata pair.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) key: Arc<str>,
    pub(super) value: Value,
    /// Where the pair begins in the file.
    pub(super) at: u64,
}

/// The parsed metadata and tensor table of one file.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) alignment: u64,
    pub(super) pairs: Vec<Pair>,
    /// Position in `pairs` by key.
    pub(super) keys: HashMap<Arc<str>, usize>,
    pub(super) tensors: Vec<TensorInfo>,
    /// Where each tensor's record begins in the file.
    pub(super) records: Vec<u64>,
    pub(super) data_start: u64,
}

/// Shows a name from a file in quotes, escaped and at most 80 characters of it.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(80) {
            Some((end, _)) => write!(f, "{:?}…", &self.0[..end]),
            None => write!(f, "{:?}", self.0),
        }
    }
}

/// Reads numbers and strings off the front of a file.
struct Cursor<'a> {
    path: &'a Path,
    file: &'a Bytes,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn left(&self) -> u64 {
        (self.file.len() - self.at) as u64
    }

    fn error(&self, at: usize, what: impl fmt::Display) -> Error {
        Error::ModelFile { path: self.path.into(), offset: Some(at as u64), what: what.to_string() }
    }

    fn take(&mut self, count: u64, what: Arguments<'_>) -> Result<&'a [u8]> {
        if count > self.left() {
            let left = self.left();
            return Err(self.error(
                self.at,
                format_args!(
                    "{what} needs {count} bytes, found {left} until the end of the file: damaged or not complete"
                ),
            ));
        }
        let start = self.at;
        self.at += count as usize; // at most left(), hence a usize
        Ok(&self.file[start..self.at])
    }

    fn u32(&mut self, what: Arguments<'_>) -> Result<u32> {
        let bytes = self.take(4, what)?;
        Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte)))
    }

    fn u64(&mut self, what: Arguments<'_>) -> Result<u64> {
        let bytes = self.take(8, what)?;
        Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn string(&mut self, limit: u64, what: Arguments<'_>) -> Result<&'a [u8]> {
        let start = self.at;
        let length = self.u64(format_args!("the length of {what}"))?;
        if length > limit {
            return Err(
                self.error(start, format_args!("{what} has a length of {length} bytes, expected at most {limit}"))
            );
        }
        self.take(length, what)
    }

    /// A key or tensor name: UTF-8, not empty, no NUL.
    fn name(&mut self, limit: u64, what: Arguments<'_>) -> Result<&'a str> {
        let start = self.at;
        let bytes = self.string(limit, what)?;
        let Ok(name) = std::str::from_utf8(bytes) else {
            let found = Quoted(&String::from_utf8_lossy(bytes)).to_string();
            return Err(self.error(start, format_args!("expected {what} to be UTF-8, found {found}")));
        };
        if name.is_empty() {
            return Err(self.error(start, format_args!("expected {what} not to be empty")));
        }
        if name.contains('\0') {
            return Err(self.error(start, format_args!("expected no NUL in {what}, found {}", Quoted(name))));
        }
        Ok(name)
    }

    fn value(&mut self, key: &str) -> Result<Value> {
        let start = self.at;
        let key = Quoted(key);
        let id = self.u32(format_args!("the value type of key {key}"))?;
        let Some(ty) = ValueType::from_id(id) else {
            return Err(self.error(start, format_args!("key {key} has value type {id}, expected 0 to 12")));
        };
        let what = format_args!("the {ty} of key {key}");
        match ty {
            ValueType::String => Ok(Value::String(self.string(u64::MAX, what)?.into())),
            ValueType::Array => self.array(&key).map(Value::Array),
            _ => {
                let start = self.at;
                let bytes = self.take(ty.bytes().unwrap_or(0) as u64, what)?;
                if ty == ValueType::Bool && bytes[0] > 1 {
                    return Err(
                        self.error(start, format_args!("key {key} is a bool, expected 0 or 1, found {}", bytes[0]))
                    );
                }
                Value::scalar(ty, bytes).ok_or_else(|| Error::Internal(format!("a {ty} was not decoded")))
            }
        }
    }

    fn array(&mut self, key: &Quoted<'_>) -> Result<Array> {
        let start = self.at;
        let id = self.u32(format_args!("the element type of the array of key {key}"))?;
        let element = match ValueType::from_id(id) {
            None => {
                return Err(
                    self.error(start, format_args!("the array of key {key} has element type {id}, expected 0 to 12"))
                );
            }
            Some(ValueType::Array) => {
                return Err(self.error(start, format_args!("key {key} is an array of arrays, which is not supported")));
            }
            Some(element) => element,
        };
        let start = self.at;
        let count = self.u64(format_args!("the length of the array of key {key}"))?;
        let smallest = element.bytes().unwrap_or(8) as u64; // an empty string has 8
        if count > self.left() / smallest {
            let left = self.left();
            let what = format_args!(
                "the array of key {key} has {count} {element} elements, too many for the {left} bytes left"
            );
            return Err(self.error(start, what));
        }
        let begin = self.at;
        if element == ValueType::String {
            let mut rest = &self.file[begin..];
            for index in 0..count {
                let at = self.file.len() - rest.len();
                if next_string(&mut rest).is_none() {
                    let what = format_args!(
                        "string {index} of the array of key {key} does not end before the end of the file"
                    );
                    return Err(self.error(at, what));
                }
            }
            self.at = self.file.len() - rest.len();
        } else {
            let bytes = self.take(count * smallest, format_args!("the array of key {key}"))?; // cannot wrap: count <= left / smallest
            if element == ValueType::Bool
                && let Some(index) = bytes.iter().position(|byte| *byte > 1)
            {
                let found = bytes[index];
                let what = format_args!("element {index} of the bool array of key {key} must be 0 or 1, found {found}");
                return Err(self.error(begin + index, what));
            }
        }
        let bytes = self.file.slice(begin..self.at).ok_or_else(|| Error::Internal("an array left its file".into()))?;
        Ok(Array::new(element, count as usize, bytes))
    }

    /// A count of records in the header.
    fn count(&self, at: usize, count: u64, smallest: u64, limit: u64, what: &str) -> Result<usize> {
        let left = self.left();
        if count > left / smallest {
            let what = format_args!("the header counts {count} {what}, too many for the {left} bytes that follow");
            return Err(self.error(at, what));
        }
        if count > limit {
            return Err(self.error(at, format_args!("the header counts {count} {what}, expected at most {limit}")));
        }
        Ok(count as usize)
    }
}

/// Parses one file; `shard` goes into its tensors.
pub(super) fn read(path: &Path, file: &Bytes, shard: usize) -> Result<Header> {
    super::wrong::check(path, file)?;
    let mut cursor = Cursor { path, file, at: 4 };
    let version = cursor.u32(format_args!("the version"))?;
    if !VERSIONS.contains(&version) {
        let what = match version {
            1 => "GGUF version 1 is not supported (expected 2 or 3); convert the model again".into(),
            _ if VERSIONS.contains(&version.swap_bytes()) || version.swap_bytes() == 1 => {
                "this is a big-endian GGUF file, expected little-endian; convert it with gguf-convert-endian".into()
            }
            _ => format!("GGUF version {version} is not known to this version (expected 2 or 3)"),
        };
        return Err(cursor.error(4, what));
    }
    let tensor_count = cursor.u64(format_args!("the number of tensors"))?;
    let pair_count = cursor.u64(format_args!("the number of metadata pairs"))?;
    let pair_count = cursor.count(16, pair_count, SMALLEST_PAIR, MAX_PAIRS, "metadata pairs")?;
    let tensor_count = cursor.count(8, tensor_count, SMALLEST_TENSOR, MAX_TENSORS, "tensors")?;
    let (pairs, keys) = read_pairs(&mut cursor, pair_count)?;
    let alignment = alignment(&cursor, keys.get("general.alignment").and_then(|index| pairs.get(*index)))?;
    let (tensors, records) = read_tensors(&mut cursor, tensor_count, alignment, shard)?;

    let end = cursor.at;
    let data_start = (end as u64).next_multiple_of(alignment);
    if !tensors.is_empty() {
        let padding = cursor.take(data_start - end as u64, format_args!("the padding before the tensor data"))?;
        if let Some(index) = padding.iter().position(|byte| *byte != 0) {
            let what = format_args!(
                "expected zeros between the tensor table and the tensor data, found {}: the table does not end where the \
                 header says",
                padding[index]
            );
            return Err(cursor.error(end + index, what));
        }
    }
    check_spans(&cursor, &tensors, &records, data_start)?;
    Ok(Header { version, alignment, pairs, keys, tensors, records, data_start })
}

type Pairs = (Vec<Pair>, HashMap<Arc<str>, usize>);

fn read_pairs(cursor: &mut Cursor<'_>, count: usize) -> Result<Pairs> {
    let (mut pairs, mut keys) = (Vec::with_capacity(count), HashMap::with_capacity(count));
    for index in 0..count {
        let at = cursor.at;
        let key: Arc<str> = cursor.name(MAX_KEY, format_args!("the key of metadata pair {index}"))?.into();
        match keys.entry(key.clone()) {
            Entry::Occupied(_) => return Err(cursor.error(at, format_args!("key {} occurs twice", Quoted(&key)))),
            Entry::Vacant(entry) => entry.insert(index),
        };
        let value = cursor.value(&key)?;
        pairs.push(Pair { key, value, at: at as u64 });
    }
    Ok((pairs, keys))
}

fn alignment(cursor: &Cursor<'_>, pair: Option<&Pair>) -> Result<u64> {
    let Some(pair) = pair else { return Ok(DEFAULT_ALIGNMENT) };
    let found = match pair.value {
        Value::U32(value) if value.is_power_of_two() && u64::from(value) <= MAX_ALIGNMENT => return Ok(value.into()),
        Value::U32(value) => value.to_string(),
        ref other => other.describe(),
    };
    let what =
        format_args!("key \"general.alignment\" must be a u32, a power of two, at most {MAX_ALIGNMENT}; found {found}");
    Err(cursor.error(pair.at as usize, what))
}

fn read_tensors(
    cursor: &mut Cursor<'_>,
    count: usize,
    alignment: u64,
    shard: usize,
) -> Result<(Vec<TensorInfo>, Vec<u64>)> {
    let (mut tensors, mut records) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for index in 0..count {
        let at = cursor.at;
        let name = cursor.name(MAX_NAME, format_args!("the name of tensor {index}"))?;
        let quoted = Quoted(name);
        let dimensions = cursor.u32(format_args!("the number of dimensions of tensor {quoted}"))?;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            let what = format_args!("tensor {quoted} has {dimensions} dimensions, expected 1 to {MAX_DIMENSIONS}");
            return Err(cursor.error(at, what));
        }
        let mut shape = Vec::with_capacity(dimensions as usize);
        for _ in 0..dimensions {
            shape.push(cursor.u64(format_args!("the shape of tensor {quoted}"))?);
        }
        let id = cursor.u32(format_args!("the type of tensor {quoted}"))?;
        let Some(ty) = TensorType::from_id(id) else {
            return Err(cursor.error(at, format_args!("tensor {quoted}: {}", types::unknown(id))));
        };
        let offset = cursor.u64(format_args!("the offset of tensor {quoted}"))?;
        if !offset.is_multiple_of(alignment) {
            let what =
                format_args!("tensor {quoted} has offset {offset}, expected a multiple of the alignment {alignment}");
            return Err(cursor.error(at, what));
        }
        let bytes = size(&shape, ty).map_err(|what| cursor.error(at, format_args!("tensor {quoted}: {what}")))?;
        tensors.push(TensorInfo { name: name.into(), shape, ty, offset, bytes, shard });
        records.push(at as u64);
    }
    Ok((tensors, records))
}

/// Bytes of a tensor; the error says what is wrong with the shape.
pub(super) fn size(shape: &[u64], ty: TensorType) -> Result<u64, String> {
    if shape.contains(&0) {
        return Err(format!("shape {shape:?} has a dimension of 0"));
    }
    // Each step stays below 2^63 * 2^64.
    let elements = shape.iter().try_fold(1u128, |product, dimension| {
        let product = product * u128::from(*dimension);
        (product < 1 << 63).then_some(product)
    });
    let Some(elements) = elements else {
        return Err(format!("shape {shape:?} has 2^63 elements or more"));
    };
    let k = shape.first().copied().unwrap_or(1);
    if !k.is_multiple_of(ty.block()) {
        return Err(format!("rows of {k} weights are not a multiple of the {} of a {ty} block", ty.block()));
    }
    let bytes = elements / u128::from(ty.block()) * u128::from(ty.block_bytes());
    u64::try_from(bytes).map_err(|_| format!("shape {shape:?} of {ty} has 2^64 bytes or more"))
}

fn check_spans(cursor: &Cursor<'_>, tensors: &[TensorInfo], records: &[u64], data_start: u64) -> Result<()> {
    let data = (cursor.file.len() as u64).saturating_sub(data_start);
    let error = |index: usize, what: Arguments<'_>| cursor.error(records[index] as usize, what);
    for (index, tensor) in tensors.iter().enumerate() {
        let end = u128::from(tensor.offset) + u128::from(tensor.bytes);
        if end > u128::from(data) {
            let (name, start) = (Quoted(&tensor.name), tensor.offset);
            let what = format_args!(
                "tensor {name} has bytes {start} to {end} of the data section, which ends at {data}: damaged or not complete"
            );
            return Err(error(index, what));
        }
    }
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_unstable_by_key(|index| tensors[*index].offset);
    for pair in order.windows(2) {
        let (first, second) = (&tensors[pair[0]], &tensors[pair[1]]);
        if second.offset < first.offset + first.bytes {
            let (a, b) = (Quoted(&first.name), Quoted(&second.name));
            let end = first.offset + first.bytes;
            let what = format_args!(
                "tensor {b} begins at {} of the data section, inside tensor {a}, which ends at {end}",
                second.offset
            );
            return Err(error(pair[1], what));
        }
    }
    Ok(())
}
