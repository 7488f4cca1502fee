//! Models split over several files by llama.cpp's gguf-split: `NAME-00001-of-00003.gguf` and so on.
//!
//! Each file has `split.no` (from 0), `split.count` and `split.tensors.count` (over all files); only the first has the
//! model's metadata. Source: llama.cpp, tools/gguf-split/gguf-split.cpp.

use std::ffi::OsString;
use std::path::Path;

use super::Gguf;
use crate::{Error, Result};

/// Most files of a split model; each is mapped, and a process has some 65,000 maps.
pub const MAX_SHARDS: u64 = 4096;

/// Completes a model that may be the first file of a split one; `open` opens one of the others.
pub(super) fn follow(mut model: Gguf, open: impl Fn(&Path, usize) -> Result<Gguf>) -> Result<Gguf> {
    let count = model.u64("split.count")?.unwrap_or(1);
    if count <= 1 {
        return Ok(model);
    }
    if count > MAX_SHARDS {
        return Err(
            model.key_error("split.count", format!("key \"split.count\" must be at most {MAX_SHARDS}, found {count}"))
        );
    }
    let number = number(&model, count)?;
    let path = model.path().to_owned();
    let Some(prefix) = prefix(&path, number, count) else {
        let expected = name("NAME".into(), number, count);
        let what = format!(
            "the file is part {} of {count} of a split model, expected it to be named {}; give all parts their names back or \
             merge them with llama-gguf-split",
            number + 1,
            expected.display()
        );
        return Err(model.key_error("split.count", what));
    };
    if number != 0 {
        let first = path.with_file_name(name(prefix, 0, count));
        let what = format!(
            "the file is part {} of {count} of a split model; open the first part, {}",
            number + 1,
            first.display()
        );
        return Err(model.key_error("split.no", what));
    }
    let expected = model.u64("split.tensors.count")?;
    for index in 1..count {
        let path = path.with_file_name(name(prefix.clone(), index, count));
        let part = open(&path, index as usize).map_err(|error| match error {
            Error::NotFound(path) => {
                let what =
                    format!("part {} of {count} of the split model is missing: expected {}", index + 1, path.display());
                model.error(what)
            }
            other => other,
        })?;
        add(&mut model, part, index, count)?;
    }
    let found = model.tensors.len() as u64;
    if let Some(expected) = expected.filter(|expected| *expected != found) {
        let what = format!(
            "key \"split.tensors.count\" counts {expected} tensors, found {found} in the {count} parts; they are not of one model"
        );
        return Err(model.key_error("split.tensors.count", what));
    }
    Ok(model)
}

/// `split.no`, checked.
fn number(file: &Gguf, count: u64) -> Result<u64> {
    match file.u64("split.no")? {
        Some(number) if number < count => Ok(number),
        Some(number) => {
            let what = format!("key \"split.no\" must be below \"split.count\", which is {count}; found {number}");
            Err(file.key_error("split.no", what))
        }
        None => {
            Err(file.key_error("split.count", format!("\"split.count\" is {count}, expected also a key \"split.no\"")))
        }
    }
}

/// Adds file `index` to the model.
fn add(model: &mut Gguf, mut part: Gguf, index: u64, count: u64) -> Result<()> {
    let found = (part.u64("split.no")?, part.u64("split.count")?);
    if found != (Some(index), Some(count)) {
        let show = |number: Option<u64>| number.map_or("nothing".into(), |number| number.to_string());
        let what = format!(
            "expected part {} of {count} (split.no = {index}, split.count = {count}), found split.no = {}, split.count = {}",
            index + 1,
            show(found.0),
            show(found.1)
        );
        return Err(part.key_error("split.no", what));
    }
    model.shards.append(&mut part.shards);
    // The records' places are gone with the part; a duplicate names both files instead.
    model.add_tensors(part.tensors, &[], index as usize)
}

/// What stands before `-00001-of-00003.gguf` in the name of file `number` of `count`.
fn prefix(path: &Path, number: u64, count: u64) -> Option<OsString> {
    let file = path.file_name()?.as_encoded_bytes();
    let suffix = name(OsString::new(), number, count);
    let prefix = file.strip_suffix(suffix.as_encoded_bytes())?;
    // SAFETY: cut from encoded bytes directly before the ASCII text of the suffix, which is where they may be split.
    Some(unsafe { std::ffi::OsStr::from_encoded_bytes_unchecked(prefix) }.to_owned())
}

/// File name of part `number` (from 0) of `count`.
fn name(mut prefix: OsString, number: u64, count: u64) -> OsString {
    prefix.push(format!("-{:05}-of-{count:05}.gguf", number + 1));
    prefix
}
