//! A file whose tensors are written in any order, and which a later run can complete.

use std::path::Path;

use super::journal::{self, Fingerprint, Fold, Journal};
use super::partial::Partial;
use super::reader::Quoted;
use crate::{Error, Interrupt, Result};

/// Bytes between two looks at the interrupt: a few milliseconds of reading or writing.
const CHUNK: usize = 4 << 20;

/// A GGUF file being written: its header is there, its tensors follow in any order. Until [`finish`](Draft::finish) the target is as it was.
///
/// Made by [`Writer::draft`](super::Writer::draft). Dropped, it leaves nothing behind; [`leave`](Draft::leave) lets a later run go on, as does the
/// death of the process.
pub struct Draft {
    partial: Partial,
    journal: Option<Journal>,
    places: Vec<Place>,
    total: u64,
    resumed: usize,
}

/// Where a tensor goes, and how far it is.
pub(super) struct Place {
    pub(super) name: String,
    pub(super) start: u64,
    pub(super) bytes: u64,
    pub(super) note: Option<String>,
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let done = self.places.iter().filter(|place| place.note.is_some()).count();
        write!(f, "Draft({done} of {} tensors, {} bytes)", self.places.len(), self.total)
    }
}

/// What a draft is written to and for.
pub(super) struct Plan<'a> {
    pub(super) path: &'a Path,
    pub(super) header: &'a [u8],
    pub(super) places: Vec<Place>,
    pub(super) total: u64,
    /// Files that must not be replaced.
    pub(super) sources: &'a [&'a Path],
}

impl Draft {
    /// A file that nobody goes on with.
    pub(super) fn create(plan: Plan<'_>) -> Result<Draft> {
        let partial = Partial::create(plan.path, plan.total, plan.sources)?;
        let mut draft = Draft { partial, journal: None, places: plan.places, total: plan.total, resumed: 0 };
        draft.partial.write_at(plan.header, 0)?;
        Ok(draft)
    }

    /// A file that another run may have begun: what it completed of the same header and `key` is kept.
    pub(super) fn resume(plan: Plan<'_>, key: &str, interrupt: &dyn Interrupt) -> Result<Draft> {
        let count = plan.places.len();
        let (partial, found) = Partial::draft(plan.path, plan.total, journal::most_bytes(count), plan.sources)?;
        let Some(path) = partial.journal() else { return Err(Error::Internal("a draft without a journal".into())) };
        let fingerprint = Fingerprint::of(plan.header, key);
        let (journal, entries) = Journal::open(path, &fingerprint, count, found)?;
        let mut draft = Draft { partial, journal: Some(journal), places: plan.places, total: plan.total, resumed: 0 };
        if found && entries.is_none() {
            draft.partial.clear()?;
        }
        draft.partial.write_at(plan.header, 0)?;
        for entry in entries.into_iter().flatten() {
            match draft.hash(entry.tensor, interrupt) {
                Ok(hash) if hash == entry.hash => draft.places[entry.tensor].note = Some(entry.note),
                Ok(_) => {}
                Err(error) => {
                    if matches!(error, Error::Cancelled) {
                        draft.partial.leave();
                    }
                    return Err(error);
                }
            }
        }
        draft.resumed = draft.places.iter().filter(|place| place.note.is_some()).count();
        Ok(draft)
    }

    /// Bytes the file will have.
    pub fn file_bytes(&self) -> u64 {
        self.total
    }

    /// How many tensors an earlier run had completed.
    pub fn resumed(&self) -> usize {
        self.resumed
    }

    /// What was noted when tensor number `tensor` was completed, in this run or before; `None` while it is not.
    pub fn note(&self, tensor: usize) -> Option<&str> {
        self.places.get(tensor)?.note.as_deref()
    }

    /// Writes a part of a tensor, `at` bytes from its beginning. Every part has to be written.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Cancelled`]; [`Error::Argument`] when there is no such tensor or it has no such bytes.
    pub fn write_at(&mut self, tensor: usize, at: u64, data: &[u8], interrupt: &dyn Interrupt) -> Result<()> {
        let place = self.place(tensor)?;
        let end = at.checked_add(data.len() as u64);
        if end.is_none_or(|end| end > place.bytes) {
            let (name, bytes, found) = (Quoted(&place.name), place.bytes, data.len());
            return Err(Error::Argument(format!("tensor {name} has {bytes} bytes, found {found} at {at}")));
        }
        let mut at = place.start + at;
        for chunk in data.chunks(CHUNK) {
            if interrupt.stop() {
                return Err(Error::Cancelled);
            }
            self.partial.write_at(chunk, at)?;
            at += chunk.len() as u64;
        }
        Ok(())
    }

    /// Says that all of a tensor is written, so that no later run does it again. `note` is what that run wants to know of it: one short
    /// line.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Cancelled`]; [`Error::Argument`] when there is no such tensor.
    pub fn complete(&mut self, tensor: usize, note: &str, interrupt: &dyn Interrupt) -> Result<()> {
        self.place(tensor)?;
        if self.journal.is_some() {
            let hash = self.hash(tensor, interrupt)?;
            if let Some(journal) = &mut self.journal {
                journal.complete(tensor, hash, note)?;
            }
        }
        self.places[tensor].note = Some(note.into());
        Ok(())
    }

    /// Gives the file its name. Returns its size in bytes.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Internal`] when a tensor is not complete.
    pub fn finish(self) -> Result<u64> {
        if let Some(place) = self.places.iter().find(|place| place.note.is_none()) {
            return Err(Error::Internal(format!("tensor {} was not completed", Quoted(&place.name))));
        }
        self.partial.finish()?;
        Ok(self.total)
    }

    /// Keeps what is complete for a later run, when there is something to keep.
    pub fn leave(self) {
        if self.places.iter().any(|place| place.note.is_some()) {
            self.partial.leave();
        }
    }

    fn place(&self, tensor: usize) -> Result<&Place> {
        let count = self.places.len();
        self.places
            .get(tensor)
            .ok_or_else(|| Error::Argument(format!("there are {count} tensors, found number {tensor}")))
    }

    /// A hash of a tensor's bytes as the file has them.
    fn hash(&self, tensor: usize, interrupt: &dyn Interrupt) -> Result<u64> {
        let place = self.place(tensor)?;
        let mut hash = Fold::new(3);
        let mut buffer = vec![0; CHUNK.min(usize::try_from(place.bytes).unwrap_or(CHUNK))];
        let mut done = 0;
        while done < place.bytes {
            if interrupt.stop() {
                return Err(Error::Cancelled);
            }
            let count = (place.bytes - done).min(buffer.len() as u64) as usize;
            self.partial.read_at(&mut buffer[..count], place.start + done)?;
            hash.write(&buffer[..count]);
            done += count as u64;
        }
        Ok(hash.finish())
    }
}
