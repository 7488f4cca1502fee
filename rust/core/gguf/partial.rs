//! A file that appears under its name only when it is complete.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::mapped::{Identity, io_error, kind};
use super::positioned::{read_exact_at, write_all_at};
use crate::{Error, Result};

/// What a partial file is called after its target: `.NAME.partial-` and the process, or this where another process may go on.
const DRAFT: &str = "draft";
/// The same of the journal of a draft.
const JOURNAL: &str = "journal";

/// A file being written as `.NAME.partial-PID` beside its target. Dropping it unfinished removes it. It is locked while it
/// is written, which tells a later run that a partial file without lock is left over from a process that was killed.
///
/// A draft is one that a later run goes on with: `.NAME.partial-draft`, with a journal of what is complete beside it.
pub(super) struct Partial {
    file: File,
    path: PathBuf,
    journal: Option<PathBuf>,
    target: PathBuf,
    written: u64,
    total: u64,
    /// Whether it has its name, or waits for another run: nothing is removed then.
    settled: bool,
}

impl Partial {
    /// Checks target and space and creates the file. `total` is the size it will have; `sources` must not be the target.
    pub(super) fn create(target: &Path, total: u64, sources: &[&Path]) -> Result<Partial> {
        let (permissions, prefix) = begin(target, sources)?;
        let folder = folder_of(target);
        let left = named(folder, &prefix, DRAFT);
        if unlock_and_remove(&left) || !left.exists() {
            let _ = std::fs::remove_file(named(folder, &prefix, JOURNAL)); // as below: costs space, does not stop the work
        }
        check_limit(target, total)?;
        check_space(folder, target, total)?;
        let path = named(folder, &prefix, &std::process::id().to_string());
        let file = create_locked(&path)?;
        Partial { file, path, journal: None, target: target.into(), written: 0, total, settled: false }
            .prepare(permissions)
    }

    /// As [`create`](Partial::create), of a draft. Also tells whether there was one, of the same size: its contents are those an earlier run left.
    /// `journal` is the most bytes its journal may have.
    pub(super) fn draft(target: &Path, total: u64, journal: u64, sources: &[&Path]) -> Result<(Partial, bool)> {
        let (permissions, prefix) = begin(target, sources)?;
        let folder = folder_of(target);
        let path = named(folder, &prefix, DRAFT);
        let (file, found) = open_locked(&path)?;
        let found = found && file.metadata().is_ok_and(|metadata| metadata.len() == total);
        let journal_path = named(folder, &prefix, JOURNAL);
        let partial = Partial {
            file,
            path,
            journal: Some(journal_path),
            target: target.into(),
            written: 0,
            total,
            settled: false,
        };
        if !found {
            partial.file.set_len(0).map_err(|error| partial.failed(error))?;
        }
        check_limit(target, total.max(journal))?;
        if !found {
            check_space(folder, target, total.saturating_add(journal))?;
        }
        Ok((partial.prepare(permissions)?, found))
    }

    fn prepare(self, permissions: Option<std::fs::Permissions>) -> Result<Partial> {
        if let Some(permissions) = permissions {
            self.file.set_permissions(permissions).map_err(|error| self.failed(error))?;
        }
        self.extend()?;
        Ok(self)
    }

    /// Forgets what a draft holds.
    pub(super) fn clear(&self) -> Result<()> {
        self.file.set_len(0).map_err(|error| self.failed(error))?;
        self.extend()
    }

    /// Gives the file its size. What is never written, the padding between tensors, reads as zeros.
    fn extend(&self) -> Result<()> {
        self.reserve()?;
        self.file.set_len(self.total).map_err(|error| self.failed(error))
    }

    /// Writes bytes at a place.
    pub(super) fn write_at(&mut self, data: &[u8], at: u64) -> Result<()> {
        write_all_at(&self.file, data, at).map_err(|error| self.failed(error))?;
        self.written += data.len() as u64;
        Ok(())
    }

    /// Reads back what was written; of a draft only.
    pub(super) fn read_at(&self, out: &mut [u8], at: u64) -> Result<()> {
        read_exact_at(&self.file, out, at).map_err(|error| io_error(&self.path, error))
    }

    /// Where the journal of a draft is.
    pub(super) fn journal(&self) -> Option<&Path> {
        self.journal.as_deref()
    }

    /// Leaves a draft for a later run.
    pub(super) fn leave(mut self) {
        self.settled = self.journal.is_some();
    }

    /// Syncs the file, gives it its name and syncs the folder.
    pub(super) fn finish(mut self) -> Result<()> {
        self.file.sync_all().map_err(|error| self.failed(error))?;
        std::fs::rename(&self.path, &self.target).map_err(|error| self.failed(error))?;
        self.settled = true;
        if let Some(journal) = &self.journal {
            let _ = std::fs::remove_file(journal); // without its draft, the next run knows that it is nothing
        }
        // The rename itself becomes durable with the folder. Some file systems cannot sync a folder; the file is complete then
        // all the same, so that is no error.
        #[cfg(unix)]
        if let Ok(folder) = File::open(folder_of(&self.target)) {
            let _ = folder.sync_all();
        }
        Ok(())
    }

    fn failed(&self, error: io::Error) -> Error {
        let (written, total) = (self.written, self.total);
        let what = format!("writing stopped after {written} of the {total} bytes needed: {error}");
        Error::Io { path: self.target.clone(), source: io::Error::new(error.kind(), what) }
    }

    /// Lets the file system set the space aside, so that a full disk or quota shows before hours of work.
    #[cfg(target_os = "linux")]
    fn reserve(&self) -> Result<()> {
        use std::os::fd::AsRawFd;
        let Ok(total) = libc::off_t::try_from(self.total) else { return Ok(()) };
        // SAFETY: a call without pointers on a descriptor that is open.
        let result = unsafe { libc::fallocate(self.file.as_raw_fd(), 0, 0, total.max(1)) };
        if result != 0 {
            let error = io::Error::last_os_error();
            let full = [libc::ENOSPC, libc::EDQUOT, libc::EFBIG];
            if error.raw_os_error().is_some_and(|code| full.contains(&code)) {
                return Err(self.failed(error));
            }
            // Anything else: the file system cannot do it, and writing will tell.
        }
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    fn reserve(&self) -> Result<()> {
        Ok(())
    }
}

/// Writes a small file of any kind: when it appears, or is replaced, it is whole.
pub(crate) fn write_whole(path: &Path, data: &[u8]) -> Result<()> {
    let mut partial = Partial::create(path, data.len() as u64, &[])?;
    partial.write_at(data, 0)?;
    partial.finish()
}

/// As [`write_whole`], for what is made piece by piece: `write` gives `total` bytes to its argument. `sources` must not be the target.
pub(crate) fn write_pieces(
    path: &Path,
    total: u64,
    sources: &[&Path],
    write: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>,
) -> Result<()> {
    let mut partial = Partial::create(path, total, sources)?;
    let mut at = 0;
    write(&mut |piece| {
        partial.write_at(piece, at)?;
        at += piece.len() as u64;
        Ok(())
    })?;
    if at != total {
        return Err(Error::Internal(format!("{at} bytes were written of {total} planned")));
    }
    partial.finish()
}

/// Removes partial files whose writer is gone, of targets in `folder` whose names `ours` accepts.
pub(crate) fn remove_abandoned(folder: &Path, ours: impl Fn(&str) -> bool) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let target = name.to_str().and_then(|name| name.strip_prefix('.')?.split_once(".partial-"));
        let abandoned = target
            .is_some_and(|(target, id)| ours(target) && !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()));
        if abandoned && entry.file_type().is_ok_and(|ty| ty.is_file()) {
            unlock_and_remove(&entry.path());
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.settled {
            let _ = std::fs::remove_file(&self.path); // nothing can be done about a failure; the next run tries again
            if let Some(journal) = &self.journal {
                let _ = std::fs::remove_file(journal);
            }
        }
    }
}

/// Checks the target and removes what processes that were killed have left. Gives the permissions of the file that will be replaced, and how the
/// names of its partial files begin.
fn begin(target: &Path, sources: &[&Path]) -> Result<(Option<std::fs::Permissions>, OsString)> {
    let permissions = check_target(target, sources)?;
    let Some(name) = target.file_name() else {
        return Err(Error::Argument(format!("{}: expected the path of a file", target.display())));
    };
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".partial-");
    remove_leftovers(folder_of(target), &prefix);
    Ok((permissions, prefix))
}

fn named(folder: &Path, prefix: &OsString, end: &str) -> PathBuf {
    let mut name = prefix.clone();
    name.push(end);
    folder.join(name)
}

/// The folder of a path; `.` for a bare name.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Permissions of the file that will be replaced, if any. Replacing a device or FIFO by a file is never what was meant.
fn check_target(target: &Path, sources: &[&Path]) -> Result<Option<std::fs::Permissions>> {
    let metadata = match std::fs::metadata(target) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None), // nothing, or a link to nothing
        Err(error) => return Err(io_error(target, error)),
    };
    if let Some(found) = kind(&metadata) {
        return Err(Error::Argument(format!("{}: expected a file to write, found {found}", target.display())));
    }
    if metadata.permissions().readonly() {
        // The rename would not need the permission, but the owner's wish is plain.
        let source = io::Error::new(ErrorKind::PermissionDenied, "the file exists and is read-only");
        return Err(Error::Io { path: target.into(), source });
    }
    let identity = Identity::of(&metadata);
    let same =
        |source: &&Path| std::fs::metadata(source).is_ok_and(|source| Identity::of(&source).same_file(&identity));
    if let Some(source) = sources.iter().find(|source| same(source)) {
        let (target, source) = (target.display(), source.display());
        return Err(Error::Argument(format!(
            "{target}: would replace {source}, which is being read; name another file"
        )));
    }
    Ok(Some(metadata.permissions()))
}

/// Removes partial files of the same target whose writer is gone.
fn remove_leftovers(folder: &Path, prefix: &OsString) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let process = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        let is_partial = process.is_some_and(|id| !id.is_empty() && id.iter().all(u8::is_ascii_digit));
        if !is_partial || !entry.file_type().is_ok_and(|ty| ty.is_file()) {
            continue;
        }
        unlock_and_remove(&entry.path());
    }
}

/// Removes a partial file unless somebody is writing it. Whether it did.
fn unlock_and_remove(path: &Path) -> bool {
    // Removed while locked: a process that creates the same name at this moment notices that its file lost the name. That a
    // leftover cannot be removed costs space, but does not stop the work.
    File::options()
        .append(true)
        .open(path)
        .is_ok_and(|file| file.try_lock().is_ok() && std::fs::remove_file(path).is_ok())
}

/// Creates and locks the partial file.
fn create_locked(path: &Path) -> Result<File> {
    loop {
        let file = match File::options().write(true).create_new(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let what =
                    "the same file is being written elsewhere in this process (or a partial file could not be removed)";
                return Err(Error::Io { path: path.into(), source: io::Error::new(error.kind(), what) });
            }
            Err(error) => return Err(io_error(path, error)),
        };
        // Waits only for `remove_leftovers` of another process, which holds the lock for a moment. A file system without locks
        // works too; leftovers then stay.
        match file.try_lock() {
            Ok(()) | Err(TryLockError::Error(_)) => {}
            Err(TryLockError::WouldBlock) => drop(file.lock()),
        }
        if is_at(&file, path)? {
            return Ok(file);
        } // else it was taken for a leftover and removed; again
    }
}

/// Opens or creates and locks a draft; whether there was one.
fn open_locked(path: &Path) -> Result<(File, bool)> {
    loop {
        let (file, found) = match File::options().read(true).write(true).create_new(true).open(path) {
            Ok(file) => (file, false),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => match open_own(path) {
                Ok(file) => (file, true),
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(io_error(path, error)),
            },
            Err(error) => return Err(io_error(path, error)),
        };
        match file.try_lock() {
            Ok(()) | Err(TryLockError::Error(_)) => {}
            Err(TryLockError::WouldBlock) => {
                let source = io::Error::new(ErrorKind::WouldBlock, "the same file is being written by another run");
                return Err(Error::Io { path: path.into(), source });
            }
        }
        if is_at(&file, path)? {
            return Ok((file, found));
        } // else another run has just finished or removed it; again
    }
}

/// Opens a file that an earlier run left, for reading and writing. Its name is known beforehand, so it may be a trap: links are not followed, and
/// only a regular file will do.
pub(super) fn open_own(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path)?;
    match kind(&file.metadata()?) {
        None => Ok(file),
        Some(found) => {
            Err(io::Error::new(ErrorKind::InvalidInput, format!("expected what an earlier run left, found {found}")))
        }
    }
}

/// Whether the open file is the one at `path`.
fn is_at(file: &File, path: &Path) -> Result<bool> {
    let ours = file.metadata().map_err(|error| io_error(path, error))?;
    Ok(std::fs::metadata(path).is_ok_and(|there| !cfg!(unix) || Identity::of(&there).same_file(&Identity::of(&ours))))
}

/// An error when the process may not write a file of `total` bytes, which the system would answer with a signal.
#[cfg(unix)]
fn check_limit(target: &Path, total: u64) -> Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit that the call fills in.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) } == 0;
    #[allow(clippy::useless_conversion, reason = "rlim_t is not u64 everywhere")]
    let most = u64::try_from(limit.rlim_cur).unwrap_or(u64::MAX);
    if known && limit.rlim_cur != libc::RLIM_INFINITY && most < total {
        let what = format!("needs {total} bytes, but this process may only write files of {most} (ulimit -f)");
        return Err(Error::Io { path: target.into(), source: io::Error::new(ErrorKind::FileTooLarge, what) });
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_limit(_target: &Path, _total: u64) -> Result<()> {
    Ok(())
}

/// An error when the file system has less than `total` bytes free.
#[cfg(unix)]
fn check_space(folder: &Path, target: &Path, total: u64) -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let error = |kind: ErrorKind, what: String| Error::Io { path: target.into(), source: io::Error::new(kind, what) };
    let Ok(path) = std::ffi::CString::new(folder.as_os_str().as_bytes()) else {
        return Err(error(ErrorKind::InvalidInput, "the path contains a NUL".into()));
    };
    let mut system = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` is a C string and `system` has room for what the call fills in.
    if unsafe { libc::statvfs(path.as_ptr(), system.as_mut_ptr()) } != 0 {
        return Err(io_error(folder, io::Error::last_os_error()));
    }
    // SAFETY: the call succeeded and has filled it in.
    let system = unsafe { system.assume_init() };
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "the fields are not u64 everywhere")]
    let free = u128::from(system.f_bavail as u64) * u128::from(system.f_frsize as u64);
    if free < u128::from(total) {
        return Err(error(ErrorKind::StorageFull, format!("needs {total} bytes, {free} are free on the file system")));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_space(_folder: &Path, _target: &Path, _total: u64) -> Result<()> {
    Ok(())
}
