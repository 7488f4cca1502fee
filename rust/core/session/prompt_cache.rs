//! Beginnings of prompts on disk, so that another process need not compute them again.
//!
//! A folder with a session file for each beginning, named `MODEL-COUNT-HASH-VERSION.kv`: the fingerprint of the model, the number of tokens, a
//! hash of them, and the version of the format. There is no index that could be wrong: which files there are is what the folder says, and a file is believed for what it holds, not
//! for its name. Several processes may read, write and remove at once, since files appear whole and an open file outlives its name.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use serde_json::Value;

use super::file::{Stored, VERSION, hash_of, save};
use crate::generate::Kept;
use crate::gguf::{io_error, remove_abandoned};
use crate::{Error, Interrupt, Model, Result};

/// The most files of a cache; the oldest give way. Bounds how many a search opens.
pub const MAX_FILES: usize = 256;
/// Tokens that are worth a file: fewer are computed as fast as they are read.
pub const MIN_TOKENS: usize = 16;
/// Of a file that is read, at least this part must be of use: `1 / MAX_WASTE`.
const MAX_WASTE: usize = 4;
/// How a name ends.
const EXTENSION: &str = "kv";

/// A folder of beginnings of prompts. Share it by reference or in an `Arc`; any number of processes may have the same folder.
#[derive(Debug)]
pub struct PromptCache {
    folder: PathBuf,
    limit_bytes: u64,
    ignored: AtomicUsize,
}

/// A file of the cache by its name.
#[derive(Debug)]
struct Entry {
    path: PathBuf,
    model: String,
    tokens: usize,
    hash: String,
    version: u32,
}

impl Entry {
    /// Understands a name; `None` for one that is not of a cache.
    fn of(path: PathBuf) -> Option<Entry> {
        let name = path.file_name()?.to_str()?.strip_suffix(EXTENSION)?.strip_suffix('.')?;
        let mut parts = name.split('-');
        let (model, tokens, hash, version) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex =
            |text: &str| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
        let digits = |text: &str| (1..=10).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        if parts.next().is_some() || !hex(model) || !hex(hash) || !digits(tokens) || !digits(version) {
            return None;
        }
        let (model, hash) = (model.to_owned(), hash.to_owned());
        let (tokens, version) = (tokens.parse().ok()?, version.parse().ok()?);
        Some(Entry { path, model, tokens, hash, version })
    }
}

impl PromptCache {
    /// A cache in `folder`, which is made if it is not there (on Unix for its owner only: the files hold what was asked), of at most `limit_bytes`.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be made or is none; [`Error::Argument`] when the limit is 0.
    pub fn open(folder: &Path, limit_bytes: u64) -> Result<PromptCache> {
        if limit_bytes == 0 {
            return Err(Error::Argument("the limit of a prompt cache must be at least 1 byte, found 0".into()));
        }
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder).map_err(|source| io_error(folder, source))?;
        std::fs::read_dir(folder).map_err(|source| io_error(folder, source))?;
        Ok(PromptCache { folder: folder.into(), limit_bytes, ignored: AtomicUsize::new(0) })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The most bytes of all files.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// How many files were found to be damaged, or not what their name says, and passed over.
    pub fn ignored(&self) -> usize {
        self.ignored.load(Ordering::Relaxed)
    }

    /// The stored sequence of `model` that has most in common with a prompt, if any is worth reading. What it holds beyond that is for the
    /// caller to cut ([`Generation::resume`](crate::Generation::resume) does). The last token of the prompt does not count: it is computed in any case.
    ///
    /// Files that are damaged or unreadable are passed over and [counted](PromptCache::ignored); those that are damaged are removed.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; [`Error::ModelFile`] when the file of the model was changed.
    pub fn find(&self, model: &Model, tokens: &[u32], interrupt: &dyn Interrupt) -> Result<Option<Kept>> {
        model.check_unchanged()?;
        let limit = tokens.len().saturating_sub(1);
        let name = model.fingerprint().to_string();
        let mut entries = self.entries();
        entries.retain(|entry| entry.version == VERSION && entry.model == name);
        entries.retain(|entry| (MIN_TOKENS..=model.context()).contains(&entry.tokens));
        entries.sort_by_key(|entry| Reverse(entry.tokens));
        entries.truncate(MAX_FILES);
        // What the prompt begins with as a whole shows in the name. The longest of them is a bound below which nothing need be opened.
        let whole =
            |entry: &Entry| entry.tokens <= limit && entry.hash == format!("{:032x}", hash_of(&tokens[..entry.tokens]));
        let bound = entries.iter().find(|entry| whole(entry)).map_or(MIN_TOKENS, |entry| entry.tokens);
        entries.retain(|entry| entry.tokens >= bound);
        let mut found = Vec::new();
        for entry in &entries {
            if interrupt.stop() {
                return Err(Error::Cancelled);
            }
            let Some(stored) = self.believed(Stored::open(model, &entry.path))? else { continue };
            let common = stored.tokens.iter().zip(&tokens[..limit]).take_while(|(a, b)| a == b).count();
            let useful = stored.reachable(model.cache(), common);
            if useful >= MIN_TOKENS && useful >= stored.tokens.len() / MAX_WASTE {
                found.push((useful, entry));
            }
        }
        // Of equal use the shortest, which is read fastest.
        found.sort_by_key(|(useful, entry)| (Reverse(*useful), entry.tokens));
        for (_, entry) in found {
            let Some(mut stored) = self.believed(Stored::open(model, &entry.path))? else { continue };
            match stored.read(model, interrupt) {
                // No room now; the prompt itself will say so if it must.
                Err(Error::Memory(_)) => return Ok(None),
                result => {
                    if let Some(kept) = self.believed(result)? {
                        touch(&entry.path);
                        return Ok(Some(kept));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Keeps a sequence for other processes; whether it is there afterwards. A text below [`MIN_TOKENS`], or a file above the limit of the
    /// cache, is not worth it. Above the limit the files that were used longest ago give way.
    ///
    /// # Errors
    /// As [`save`](super::save). The cache is then as before.
    pub fn store(&self, model: &Model, kept: &Kept, interrupt: &dyn Interrupt) -> Result<bool> {
        let tokens = kept.tokens();
        if tokens.len() < MIN_TOKENS {
            return Ok(false);
        }
        model.check_unchanged()?;
        let (count, hash) = (tokens.len(), hash_of(tokens));
        let name = format!("{}-{count}-{hash:032x}-{VERSION}.{EXTENSION}", model.fingerprint());
        let path = self.folder.join(name);
        if self.is_there(model, &path, tokens) {
            touch(&path);
            return Ok(true);
        }
        if kept.sequence().outline().data_bytes(model.cache()) > self.limit_bytes {
            return Ok(false);
        }
        match save(kept, model, &path, &Value::Null, interrupt) {
            // Another thread of this process is writing the same.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => return Ok(false),
            result => result?,
        }
        remove_abandoned(&self.folder, |target| Entry::of(target.into()).is_some());
        self.make_room(&path);
        Ok(path.exists())
    }

    /// Whether the file is there and its front is whole. One that is damaged is written again.
    fn is_there(&self, model: &Model, path: &Path, tokens: &[u32]) -> bool {
        path.exists() && Stored::open(model, path).is_ok_and(|stored| stored.tokens == tokens)
    }

    /// What came of a file; `None` when that is its own fault.
    fn believed<T>(&self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            // Another process has removed it.
            Err(Error::NotFound(_)) => Ok(None),
            Err(Error::Session { path, .. }) => {
                self.ignored.fetch_add(1, Ordering::Relaxed);
                // Of no use to anybody: without it, the prompt is stored anew.
                let _ = std::fs::remove_file(path);
                Ok(None)
            }
            Err(Error::Io { .. } | Error::Memory(_)) => {
                self.ignored.fetch_add(1, Ordering::Relaxed);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The files of the cache, in no order.
    fn entries(&self) -> Vec<Entry> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return Vec::new() };
        let files = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|ty| ty.is_file()));
        files.filter_map(|entry| Entry::of(entry.path())).collect()
    }

    /// Removes the files that were used longest ago until the rest is within the limits. `new` goes last.
    fn make_room(&self, new: &Path) {
        let facts = |entry: Entry| {
            let metadata = std::fs::metadata(&entry.path).ok()?;
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            Some((entry.path == new, used, metadata.len(), entry.path))
        };
        let mut files: Vec<_> = self.entries().into_iter().filter_map(facts).collect();
        files.sort();
        let (mut count, mut bytes) = (files.len(), files.iter().map(|file| file.2).fold(0, u64::saturating_add));
        for (_, _, size, path) in files {
            if bytes <= self.limit_bytes && count <= MAX_FILES {
                break;
            }
            // Another process may have been faster.
            let _ = std::fs::remove_file(path);
            (count, bytes) = (count - 1, bytes.saturating_sub(size));
        }
    }
}

/// Marks a file as used just now. Where that is not allowed, it gives way earlier.
fn touch(path: &Path) {
    let _ = std::fs::File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
}
