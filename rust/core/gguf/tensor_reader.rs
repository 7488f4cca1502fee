//! Reads tensor data piece by piece into memory of the caller.
//!
//! A map would do it without copying, but every page that was looked at counts as memory of the process until something else needs it, and a file that
//! another process shortens ends this one with a signal. Work that passes over a file once reads it.

use std::fs::File;

use super::mapped::{Identity, io_error, model_error, open};
use super::positioned::read_exact_at;
use super::{Gguf, TensorInfo};
use crate::Result;

/// Reads tensors of a file. Keeps one of the files of a split model open.
#[derive(Debug)]
pub struct TensorReader<'a> {
    gguf: &'a Gguf,
    open: Option<(usize, File)>,
}

impl Gguf {
    /// A reader of tensor data.
    pub fn reader(&self) -> TensorReader<'_> {
        TensorReader { gguf: self, open: None }
    }

    /// What tells this model from others and from what it is after a change: device, inode, size and time of every file. `None` when it was
    /// read into memory, which no longer depends on the files.
    pub fn identity(&self) -> Option<String> {
        self.shards.iter().map(|shard| shard.identity.map(|identity| format!("{identity:?}"))).collect()
    }
}

impl TensorReader<'_> {
    /// Fills `out` with the bytes of a tensor from `at` on.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound), [`Error::Io`](crate::Error::Io); [`Error::ModelFile`](crate::Error::ModelFile) when the file has
    /// changed since it was opened.
    ///
    /// # Panics
    /// When `tensor` is not of this file or has no such bytes.
    pub fn read(&mut self, tensor: &TensorInfo, at: u64, out: &mut [u8]) -> Result<()> {
        let end = at.checked_add(out.len() as u64).filter(|end| *end <= tensor.bytes);
        assert!(end.is_some(), "{} bytes at {at} of {}", out.len(), tensor.bytes);
        let shard = &self.gguf.shards[tensor.shard];
        let Some(identity) = &shard.identity else {
            let at = at as usize; // inside a tensor in memory
            out.copy_from_slice(&self.gguf.tensor_data(tensor)[at..at + out.len()]);
            return Ok(());
        };
        let file = match &mut self.open {
            Some((index, file)) if *index == tensor.shard => file,
            other => {
                let file = open(&shard.path)?;
                let now = file.metadata().map_err(|error| io_error(&shard.path, error))?;
                if let Some(difference) = identity.difference(&Identity::of(&now)) {
                    let what = format!("the file changed since it was opened: {difference}");
                    return Err(model_error(&shard.path, what));
                }
                &mut other.insert((tensor.shard, file)).1
            }
        };
        read_exact_at(file, out, self.gguf.tensor_range(tensor).start + at).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => model_error(&shard.path, "the file became shorter while it was read"),
            _ => io_error(&shard.path, error),
        })
    }
}
