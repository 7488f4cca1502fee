//! Which tensors of a draft are complete, so that a later run goes on where one was stopped.
//!
//! A line of text per tensor, appended after its data: number, hash of its bytes, a note of the caller. Nothing is synced on the way: a tensor whose
//! bytes do not have the hash any more, after a power cut for instance, is not complete. Only the first line, what the draft is of, has to fit.

use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::mapped::io_error;
use super::partial::open_own;
use crate::{Error, Result};

/// The most bytes of a line: a number, a hash, a short note.
const MAX_LINE: u64 = 512;
/// The first word of a journal.
const MAGIC: &str = "fastq-journal-1";

/// The journal of a draft that is being written.
pub(super) struct Journal {
    file: File,
    path: PathBuf,
}

/// A tensor that an earlier run completed, by its own account.
pub(super) struct Entry {
    pub(super) tensor: usize,
    pub(super) hash: u64,
    pub(super) note: String,
}

/// The most bytes of a journal for so many tensors.
pub(super) fn most_bytes(tensors: usize) -> u64 {
    (tensors as u64 + 1) * MAX_LINE
}

impl Journal {
    /// Opens the journal at `path` of a draft with the fingerprint `of` and this many tensors. There are entries when an earlier run has begun the same
    /// work; without `found` its journal counts for nothing.
    pub(super) fn open(
        path: &Path,
        of: &Fingerprint,
        tensors: usize,
        found: bool,
    ) -> Result<(Journal, Option<Vec<Entry>>)> {
        let title = format!("{MAGIC} {:016x}{:016x}\n", of.0, of.1);
        if found
            && let Ok(mut file) = open_own(path)
            && let Some((entries, end)) = read(&mut file, &title, tensors)
        {
            file.set_len(end).map_err(|error| io_error(path, error))?;
            return Ok((Journal { file, path: path.into() }, Some(entries)));
        }
        // Removed and created, not truncated: what is there may be a link to something.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io_error(path, error)),
            _ => {}
        }
        let file = File::options().append(true).create_new(true).open(path).map_err(|error| io_error(path, error))?;
        let mut journal = Journal { file, path: path.into() };
        journal.append(title.as_bytes())?;
        Ok((journal, None))
    }

    /// Adds a tensor whose bytes are in the draft. `note` has no line break.
    pub(super) fn complete(&mut self, tensor: usize, hash: u64, note: &str) -> Result<()> {
        let line = format!("{tensor} {hash:016x} {note}\n");
        if line.len() as u64 > MAX_LINE || note.contains('\n') {
            return Err(Error::Internal(format!("a note for the journal has {} bytes or lines", note.len())));
        }
        self.append(line.as_bytes())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        use std::io::{Seek, SeekFrom};
        let appended = self.file.seek(SeekFrom::End(0)).and_then(|_| self.file.write_all(bytes));
        appended.map_err(|error| io_error(&self.path, error))
    }
}

/// The entries of a journal and the byte behind the last whole line; `None` when it is not the one of `title`.
fn read(file: &mut File, title: &str, tensors: usize) -> Option<(Vec<Entry>, u64)> {
    let mut text = Vec::new();
    file.take(most_bytes(tensors)).read_to_end(&mut text).ok()?;
    let text = text.strip_prefix(title.as_bytes())?;
    let (mut entries, mut end) = (Vec::new(), title.len());
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let Some(entry) = entry(line, tensors) else { break };
        entries.push(entry);
        end += line.len();
    }
    Some((entries, end as u64))
}

fn entry(line: &[u8], tensors: usize) -> Option<Entry> {
    let mut parts = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?.splitn(3, ' ');
    let tensor = parts.next()?.parse().ok().filter(|tensor| *tensor < tensors)?;
    let hash = u64::from_str_radix(parts.next()?, 16).ok()?;
    Some(Entry { tensor, hash, note: parts.next()?.to_owned() })
}

/// What tells whether a draft is of the same work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fingerprint(u64, u64);

impl Fingerprint {
    /// Of the header of the file and whatever else its data depend on.
    pub(super) fn of(header: &[u8], key: &str) -> Fingerprint {
        let hash = |seed| {
            let mut hasher = Fold::new(seed);
            hasher.write(env!("CARGO_PKG_VERSION").as_bytes());
            hasher.write(header);
            hasher.write(key.as_bytes());
            hasher.finish()
        };
        Fingerprint(hash(1), hash(2))
    }
}

/// A hash of bytes, the same for the same pieces in the same process or another one of the same build.
pub(super) struct Fold(foldhash::quality::FoldHasher<'static>);

impl Fold {
    pub(super) fn new(seed: u64) -> Fold {
        Fold(foldhash::quality::FixedState::with_seed(seed).build_hasher())
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.0.write_usize(bytes.len());
        self.0.write(bytes);
    }

    pub(super) fn finish(&self) -> u64 {
        self.0.finish()
    }
}
