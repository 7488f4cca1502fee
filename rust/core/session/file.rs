//! The file of a session: tokens, what the caller adds, and the sequence of the cache.
//!
//! ```text
//! 0  magic "fastq-kv"        | 8  version u32        | 12 tokens u32
//! 16 fingerprint of the model u128
//! 32 bytes of the outline u32 | 36 bytes of the extra u32 | 40 bytes of the data u64
//! 48 hash u128 of bytes 0 to 47 and of what follows up to the data
//! 64 outline | tokens u32 … | extra (JSON) | data | hash u128 of all before
//! ```
//!
//! All numbers are little-endian, hashes are XXH3 of 128 bits (<https://github.com/Cyan4973/xxHash>): against accidents, not against somebody who
//! writes files on purpose, whose numbers are therefore checked all the same. With a hash of its own, the front can be believed without reading
//! the data, of which there may be gigabytes.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde_json::Value;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

use crate::generate::Kept;
use crate::gguf::{io_error, kind, write_pieces};
use crate::kv_cache::{KvCache, Outline};
use crate::memory::human;
use crate::model::spec::MAX_CONTEXT;
use crate::{Error, Interrupt, Model, Result};

/// What a session file begins with.
const MAGIC: &[u8; 8] = b"fastq-kv";
/// Grows when the file, the pages of the cache, or the bits of keys and values become other ones.
pub(super) const VERSION: u32 = 1;
/// Bytes before the outline.
const HEADER: usize = 64;
/// Where in the header the hash of the front is.
const HASH_AT: usize = 48;
/// Bytes of a hash.
const HASH: usize = 16;
/// The most bytes of what the caller adds, as JSON.
pub const MAX_EXTRA: usize = 16 << 20;
/// Bytes of data between two looks at the interrupt: a page of a large model has as many.
const PIECE: usize = 4 << 20;

/// Whether the file at `path` begins as a session does. Says nothing about whether it is whole.
pub fn is_session(path: &Path) -> bool {
    let mut magic = [0; MAGIC.len()];
    // Another kind of file is none, whatever it would do when it is opened.
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
        && File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok()
        && magic == *MAGIC
}

/// Writes a kept sequence to `path`; when the file appears, or is replaced, it is whole. `extra` is for the caller.
///
/// # Errors
/// [`Error::Argument`] when the sequence is one of another model, `extra` is larger than [`MAX_EXTRA`], or the target is the model's file;
/// [`Error::ModelFile`] when that was changed; [`Error::Io`]; [`Error::Cancelled`].
pub fn save(kept: &Kept, model: &Model, path: &Path, extra: &Value, interrupt: &dyn Interrupt) -> Result<()> {
    let sequence = kept.sequence();
    if !sequence.belongs_to(model.cache()) {
        return Err(Error::Argument("the sequence belongs to another model".into()));
    }
    let extra = serde_json::to_vec(extra).map_err(|error| Error::Argument(format!("extra cannot be JSON: {error}")))?;
    if extra.len() > MAX_EXTRA {
        let found = extra.len();
        return Err(Error::Argument(format!("extra may have {MAX_EXTRA} bytes as JSON, found {found}")));
    }
    model.check_unchanged()?;
    let tokens = kept.tokens();
    let outline = sequence.outline();
    let data = outline.data_bytes(model.cache());
    let outline = outline.encode();
    let mut front = Vec::with_capacity(HEADER + outline.len() + tokens.len() * 4 + extra.len());
    front.extend(MAGIC);
    front.extend(VERSION.to_le_bytes());
    front.extend((tokens.len() as u32).to_le_bytes());
    front.extend(model.fingerprint().0.to_le_bytes());
    front.extend((outline.len() as u32).to_le_bytes());
    front.extend((extra.len() as u32).to_le_bytes());
    front.extend(data.to_le_bytes());
    front.extend([0; HASH]);
    front.extend(&outline);
    front.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
    front.extend(&extra);
    let hash = front_hash(&front);
    front[HASH_AT..HEADER].copy_from_slice(&hash.to_le_bytes());

    let total = (front.len() as u64).saturating_add(data).saturating_add(HASH as u64);
    let sources: Vec<&Path> = model.gguf().paths().collect();
    write_pieces(path, total, &sources, |out| {
        let mut hash = Xxh3Default::new();
        let mut put = |bytes: &[u8]| {
            for piece in bytes.chunks(PIECE) {
                if interrupt.stop() {
                    return Err(Error::Cancelled);
                }
                hash.update(piece);
                out(piece)?;
            }
            Ok(())
        };
        put(&front)?;
        sequence.store(&mut put)?;
        out(&hash.digest128().to_le_bytes())
    })
}

/// Reads what [`save`] has written: the sequence, in the cache of `model`, and the caller's value.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Io`]; [`Error::Session`] for a file that is none, is damaged or not complete, or comes from another model or
/// version; [`Error::ContextOverflow`] when the text is longer than the context; [`Error::Memory`] when the cache is full;
/// [`Error::ModelFile`] when the model's file was changed; [`Error::Cancelled`].
pub fn load(model: &Model, path: &Path, interrupt: &dyn Interrupt) -> Result<(Kept, Value)> {
    let mut stored = Stored::open(model, path)?;
    if stored.tokens.len() > model.context() {
        let (found, context) = (stored.tokens.len(), model.context());
        return Err(Error::ContextOverflow(format!(
            "{}: the session has {found} positions, but the context has room for {context}; load the model with a larger context",
            path.display()
        )));
    }
    let extra = stored.extra()?;
    Ok((stored.read(model, interrupt)?, extra))
}

fn front_hash(front: &[u8]) -> u128 {
    let mut hash = Xxh3Default::new();
    hash.update(&front[..HASH_AT]);
    hash.update(&front[HEADER..]);
    hash.digest128()
}

/// Numbers of the header.
struct Header<'a>(&'a [u8; HEADER]);

impl Header<'_> {
    fn number<const N: usize>(&self, at: usize) -> [u8; N] {
        std::array::from_fn(|i| self.0[at + i])
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.number(at))
    }

    fn u128(&self, at: usize) -> u128 {
        u128::from_le_bytes(self.number(at))
    }
}

/// A session file whose front was read and checked.
pub(super) struct Stored<'a> {
    path: &'a Path,
    file: File,
    front: Vec<u8>,
    outline: Outline,
    /// The tokens of the sequence.
    pub(super) tokens: Vec<u32>,
    /// Where in the front the caller's value begins.
    extra_at: usize,
    data_bytes: u64,
}

impl<'a> Stored<'a> {
    /// Opens a file of `model` and checks all before the data, and that these are there.
    pub(super) fn open(model: &Model, path: &'a Path) -> Result<Stored<'a>> {
        let error = |offset: Option<u64>, what: String| Error::Session { path: path.into(), offset, what };
        model.check_unchanged()?;
        let (mut file, size) = open(path)?;
        let mut header = [0; HEADER];
        let there = fill(&mut file, path, &mut header)?;
        if !header[..there].starts_with(MAGIC) {
            return Err(error(Some(0), "expected a session, found another kind of file".into()));
        }
        if there < HEADER {
            return Err(error(
                Some(there as u64),
                format!("expected a header of {HEADER} bytes, found {there}: not complete"),
            ));
        }
        let numbers = Header(&header);
        let version = numbers.u32(8);
        if version != VERSION {
            let what = format!(
                "expected version {VERSION} of the format, found {version}; save it again with this version of fastq"
            );
            return Err(error(Some(8), what));
        }
        let (expected, found) = (model.fingerprint().0, numbers.u128(16));
        if expected != found {
            let what = format!(
                "the session is one of another model, or of the same with another kv format or architecture: expected {expected:032x}, found {found:032x}"
            );
            return Err(error(Some(16), what));
        }
        let count = numbers.u32(12) as usize;
        let (outline_bytes, extra_bytes) = (numbers.u32(32) as usize, numbers.u32(36) as usize);
        let data_bytes = u64::from_le_bytes(numbers.number(40));
        for (at, name, found, most) in [
            (12, "tokens", count, MAX_CONTEXT),
            (32, "bytes of the outline", outline_bytes, Outline::MAX_BYTES),
            (36, "bytes of the extra", extra_bytes, MAX_EXTRA),
        ] {
            if found > most {
                return Err(error(Some(at), format!("expected at most {most} {name}, found {found}")));
            }
        }
        let front_bytes =
            [HEADER as u64, outline_bytes as u64, count as u64 * 4, extra_bytes as u64].iter().sum::<u64>();
        let total = front_bytes.checked_add(data_bytes).and_then(|sum| sum.checked_add(HASH as u64));
        if total != Some(size) {
            let expected = total.map_or("more than there can be".into(), |total| total.to_string());
            return Err(error(
                None,
                format!("expected a file of {expected} bytes, found {size}: damaged or not complete"),
            ));
        }
        // No more than the file has.
        let refused =
            || Error::Memory(format!("the system refused {} for the tokens of a session", human(front_bytes)));
        let length = usize::try_from(front_bytes).map_err(|_| refused())?;
        let mut front = Vec::new();
        front.try_reserve_exact(length).map_err(|_| refused())?;
        front.extend(header);
        front.resize(length, 0);
        let there = HEADER + fill(&mut file, path, &mut front[HEADER..])?;
        if there < length {
            return Err(error(Some(there as u64), "the file became shorter while it was read".into()));
        }
        if front_hash(&front) != numbers.u128(HASH_AT) {
            return Err(error(
                Some(0),
                format!("the first {length} bytes do not have the hash at byte {HASH_AT}: damaged"),
            ));
        }
        let (outline_at, tokens_at) = (HEADER, HEADER + outline_bytes);
        let extra_at = tokens_at + count * 4;
        let outline = Outline::decode(&front[outline_at..tokens_at], model.cache());
        let outline = outline.map_err(|what| error(Some(outline_at as u64), what))?;
        if (outline.len(), outline.data_bytes(model.cache())) != (count, data_bytes) {
            let (len, needed) = (outline.len(), outline.data_bytes(model.cache()));
            let what = format!("expected {len} tokens with {needed} bytes of data, found {count} with {data_bytes}");
            return Err(error(Some(outline_at as u64), what));
        }
        let tokens: Vec<u32> =
            front[tokens_at..extra_at].as_chunks::<4>().0.iter().map(|t| u32::from_le_bytes(*t)).collect();
        let vocabulary = model.vocabulary();
        if let Some(at) = tokens.iter().position(|&token| token as usize >= vocabulary) {
            let what = format!("expected a token below the vocabulary {vocabulary}, found {}", tokens[at]);
            return Err(error(Some((tokens_at + at * 4) as u64), what));
        }
        Ok(Stored { path, file, front, outline, tokens, extra_at, data_bytes })
    }

    /// The length, at most `len`, that the sequence can be cut to.
    pub(super) fn reachable(&self, cache: &KvCache, len: usize) -> usize {
        self.outline.reachable(cache, len)
    }

    /// What the caller has added.
    fn extra(&self) -> Result<Value> {
        serde_json::from_slice(&self.front[self.extra_at..]).map_err(|error| Error::Session {
            path: self.path.into(),
            offset: Some(self.extra_at as u64),
            what: format!("expected JSON: {error}"),
        })
    }

    /// Reads the data.
    pub(super) fn read(&mut self, model: &Model, interrupt: &dyn Interrupt) -> Result<Kept> {
        let Stored { path, file, front, outline, tokens, data_bytes, .. } = self;
        let front_bytes = front.len() as u64;
        let mut hash = Xxh3Default::new();
        hash.update(front);
        let mut done = 0;
        let mut take = |out: &mut [u8]| {
            for piece in out.chunks_mut(PIECE) {
                if interrupt.stop() {
                    return Err(Error::Cancelled);
                }
                let there = fill(file, path, piece)?;
                done += there as u64;
                if there < piece.len() {
                    let what = "the file became shorter while it was read".into();
                    return Err(Error::Session { path: path.to_path_buf(), offset: Some(front_bytes + done), what });
                }
            }
            Ok(())
        };
        let sequence = model.cache().load(outline, &mut |out| {
            take(out)?;
            hash.update(out);
            Ok(())
        })?;
        let mut expected = [0; HASH];
        take(&mut expected)?;
        if hash.digest128() != u128::from_le_bytes(expected) {
            let what = format!("the file does not have the hash at byte {}: damaged", front_bytes + *data_bytes);
            return Err(Error::Session { path: path.to_path_buf(), offset: Some(front_bytes), what });
        }
        Ok(Kept::from_parts(sequence, std::mem::take(tokens)))
    }
}

/// A hash of tokens, for names of files.
pub(super) fn hash_of(tokens: &[u32]) -> u128 {
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    xxh3_128(&bytes)
}

/// Opens a regular file and tells its size. The type is looked at first: opening a device can have effects, opening a FIFO waits for a
/// writer. `O_NONBLOCK` covers the moment between the look and the opening.
fn open(path: &Path) -> Result<(File, u64)> {
    let regular = |metadata: std::fs::Metadata| match kind(&metadata) {
        None => Ok(metadata.len()),
        Some(found) => {
            let what = format!("expected a session, found {found}");
            Err(Error::Session { path: path.into(), offset: None, what })
        }
    };
    regular(std::fs::metadata(path).map_err(|source| io_error(path, source))?)?;
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path).map_err(|source| io_error(path, source))?;
    let size = regular(file.metadata().map_err(|source| io_error(path, source))?)?;
    Ok((file, size))
}

/// Fills `out` as far as the file goes; gives the number of bytes.
fn fill(file: &mut File, path: &Path, out: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < out.len() {
        match file.read(&mut out[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(io_error(path, error)),
        }
    }
    Ok(filled)
}
