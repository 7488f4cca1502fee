//! The bytes of a file: mapped, or read into memory that the process owns.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use memmap2::{Mmap, MmapMut};

use crate::machine::Machine;
use crate::{Error, Interrupt, Result};

/// Bytes per read call, so that an interrupt is noticed within milliseconds even on a slow disk.
const READ_CHUNK: usize = 4 << 20;

/// Immutable bytes, shared: cloning and slicing copy nothing.
#[derive(Clone)]
pub struct Bytes {
    storage: Arc<Storage>,
    range: Range<usize>,
}

enum Storage {
    Map(Mmap),
    Heap(Vec<u8>),
}

impl Bytes {
    /// A part of these bytes; `None` when it is not inside.
    pub fn slice(&self, range: Range<usize>) -> Option<Bytes> {
        self.get(range.clone())?;
        let start = self.range.start;
        Some(Bytes { storage: self.storage.clone(), range: start + range.start..start + range.end })
    }

    fn mapped(map: Mmap) -> Bytes {
        let range = 0..map.len();
        Bytes { storage: Arc::new(Storage::Map(map)), range }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        let range = 0..bytes.len();
        Bytes { storage: Arc::new(Storage::Heap(bytes)), range }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let all: &[u8] = match &*self.storage {
            Storage::Map(map) => map,
            Storage::Heap(bytes) => bytes,
        };
        &all[self.range.clone()]
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Bytes) -> bool {
        **self == **other
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{} bytes]", self.len())
    }
}

/// What tells whether a file is still the one that was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Identity {
    #[cfg(unix)]
    pub(super) fn of(metadata: &Metadata) -> Identity {
        use std::os::unix::fs::MetadataExt;
        Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    #[cfg(not(unix))]
    pub(super) fn of(metadata: &Metadata) -> Identity {
        let since = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let modified = since.map_or((0, 0), |time| (time.as_secs() as i64, i64::from(time.subsec_nanos())));
        Identity { device: 0, inode: 0, size: metadata.len(), modified }
    }

    /// Whether both are the same file, whatever happened to its contents.
    pub(super) fn same_file(&self, other: &Identity) -> bool {
        cfg!(unix) && (self.device, self.inode) == (other.device, other.inode)
    }

    /// What differs now, in words.
    pub(super) fn difference(&self, now: &Identity) -> Option<String> {
        if (self.device, self.inode) != (now.device, now.inode) {
            Some("another file has taken its place".into())
        } else if self.size != now.size {
            Some(format!("it had {} bytes and now has {}", self.size, now.size))
        } else if self.modified != now.modified {
            Some("its modification time changed".into())
        } else {
            None
        }
    }
}

/// Opens, checks and maps (or reads) a file.
pub(crate) fn load(path: &Path, mmap: bool, interrupt: &dyn Interrupt) -> Result<(Bytes, Identity)> {
    let file = open(path)?;
    let metadata = file.metadata().map_err(|source| io_error(path, source))?;
    regular(path, &metadata)?;
    let identity = Identity::of(&metadata);
    if identity.size == 0 {
        return Err(model_error(path, "expected a GGUF file, found an empty file; download it again"));
    }
    let size = length(path, identity.size, isize::MAX as usize)?;
    let machine = Machine::this();
    if let Some((left, bound)) = machine.address_space().filter(|(left, _)| *left < identity.size) {
        let what = format!("the file needs {size} bytes of address space, {left} are left ({bound})");
        return Err(Error::Memory(format!("{}: {what}; use a smaller file or another limit", path.display())));
    }
    let bytes = if mmap {
        // SAFETY: the map is only read. Other processes may still change the file; the engine reads it as plain bytes whose
        // values it never trusts (lengths are checked at every use), and `Gguf::check_unchanged` looks for a change before
        // every generation. A file that shrinks under the map ends the process with SIGBUS, which `mmap: false` avoids.
        unsafe { Mmap::map(&file) }.map_err(|source| match source.kind() {
            ErrorKind::OutOfMemory => {
                let what = format!("the system refused to map {size} bytes ({source})");
                Error::Memory(format!("{}: {what}; close other programs or use a smaller file", path.display()))
            }
            _ => io_error(path, source),
        })?
    } else {
        read(path, &file, size, &machine, interrupt)?
    };
    let after = file.metadata().map_err(|source| io_error(path, source))?;
    if let Some(difference) = identity.difference(&Identity::of(&after)) {
        return Err(model_error(path, format!("the file changed while it was opened: {difference}; open it again")));
    }
    Ok((Bytes::mapped(bytes), identity))
}

/// The size of a file as a length in memory, of which there are at most `longest`: half of the address space, because a Rust slice
/// is not longer.
fn length(path: &Path, size: u64, longest: usize) -> Result<usize> {
    usize::try_from(size).ok().filter(|size| *size <= longest).ok_or_else(|| {
        let bits = usize::BITS;
        let what =
            format!("the file has {size} bytes, more than the {longest} that a {bits}-bit process can use at once");
        let advice = "use a 64-bit system, a smaller file, or one that is split into several";
        Error::Memory(format!("{}: {what}; {advice}", path.display()))
    })
}

/// Opens a file for reading. The type is looked at first: opening a device can have effects, opening a FIFO waits for a
/// writer. `O_NONBLOCK` covers the moment between the look and the opening.
pub(super) fn open(path: &Path) -> Result<File> {
    let metadata = std::fs::metadata(path).map_err(|source| io_error(path, source))?;
    regular(path, &metadata)?;
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    }
    options.open(path).map_err(|source| io_error(path, source))
}

/// An error unless it is a regular file.
fn regular(path: &Path, metadata: &Metadata) -> Result<()> {
    let found = match kind(metadata) {
        None => return Ok(()),
        Some("a folder") => "a folder; name the model file inside it",
        Some(other) => other,
    };
    Err(model_error(path, format!("expected a regular file, found {found}")))
}

/// What it is instead of a regular file.
pub(crate) fn kind(metadata: &Metadata) -> Option<&'static str> {
    let ty = metadata.file_type();
    if ty.is_file() {
        return None;
    }
    if ty.is_dir() {
        return Some("a folder");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if ty.is_fifo() {
            return Some("a pipe (FIFO)");
        }
        if ty.is_socket() {
            return Some("a socket");
        }
        if ty.is_block_device() || ty.is_char_device() {
            return Some("a device");
        }
    }
    Some("something else")
}

/// Reads a whole file into anonymous pages: aligned like a mapped file, and a failed allocation is an error, not an abort.
fn read(path: &Path, mut file: &File, size: usize, machine: &Machine, interrupt: &dyn Interrupt) -> Result<Mmap> {
    let too_large = |available: String| {
        let what = format!("reading the file with mmap=false needs {size} bytes of memory, {available}");
        Error::Memory(format!("{}: {what}; map it instead", path.display()))
    };
    if let Some(free) = machine.free_memory().filter(|free| free.bytes < size as u64) {
        return Err(too_large(format!("{} are free ({})", free.bytes, free.bound)));
    }
    let mut memory = MmapMut::map_anon(size).map_err(|source| too_large(format!("the system refused: {source}")))?;
    let mut filled = 0;
    while filled < size {
        if interrupt.stop() {
            return Err(Error::Cancelled);
        }
        let end = size.min(filled + READ_CHUNK);
        match file.read(&mut memory[filled..end]) {
            Ok(0) => {
                let what = format!("the file became shorter while it was read: expected {size} bytes, found {filled}");
                return Err(Error::ModelFile { path: path.into(), offset: Some(filled as u64), what });
            }
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(io_error(path, error)),
        }
    }
    memory.make_read_only().map_err(|source| io_error(path, source))
}

/// [`Error::NotFound`] or [`Error::Io`].
pub(crate) fn io_error(path: &Path, source: std::io::Error) -> Error {
    match source.kind() {
        ErrorKind::NotFound => Error::NotFound(path.into()),
        _ => Error::Io { path: path.into(), source },
    }
}

/// [`Error::ModelFile`] without a place.
pub(crate) fn model_error(path: &Path, what: impl Into<String>) -> Error {
    Error::ModelFile { path: path.into(), offset: None, what: what.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As on a 32-bit machine, whatever this one is.
    #[test]
    fn a_file_longer_than_memory_can_be_is_refused() {
        let longest = i32::MAX as usize;
        let of = |size: u64| length(Path::new("m.gguf"), size, longest).map_err(|error| error.to_string());
        assert_eq!((of(1), of(longest as u64)), (Ok(1), Ok(longest)));
        for size in [longest as u64 + 1, 1 << 32, 5 << 30, u64::MAX] {
            let message = of(size).expect_err("too long");
            assert!(
                message.starts_with(&format!("m.gguf: the file has {size} bytes, more than the 2147483647")),
                "{message}"
            );
            assert!(message.contains("split"), "{message}");
        }
    }
}
