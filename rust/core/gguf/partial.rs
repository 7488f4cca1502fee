//! A file that appears under its name only when it is complete.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::mapped::{Identity, io_error, kind};
use crate::{Error, Result};

/// A file being written as `.NAME.partial-PID` beside its target. Dropping it unfinished removes it. It is locked while it
/// is written, which tells a later run that a partial file without lock is left over from a process that was killed.
pub(super) struct Partial {
    file: File,
    path: PathBuf,
    target: PathBuf,
    written: u64,
    total: u64,
    finished: bool,
}

impl Partial {
    /// Checks target and space and creates the file. `total` is the size it will have; `parts` must not be the target.
    pub(super) fn create(target: &Path, total: u64, parts: &[&Path]) -> Result<Partial> {
        let permissions = check_target(target, parts)?;
        let Some(name) = target.file_name() else {
            return Err(Error::Argument(format!("{}: expected the path of a file", target.display())));
        };
        let mut prefix = OsString::from(".");
        prefix.push(name);
        prefix.push(".partial-");
        let folder = folder_of(target);
        remove_leftovers(folder, &prefix);
        check_space(folder, target, total)?;
        prefix.push(std::process::id().to_string());
        let path = folder.join(prefix);
        let file = create_locked(&path)?;
        let partial = Partial { file, path, target: target.into(), written: 0, total, finished: false };
        if let Some(permissions) = permissions {
            partial.file.set_permissions(permissions).map_err(|error| partial.failed(error))?;
        }
        partial.reserve()?;
        Ok(partial)
    }

    /// Appends bytes.
    pub(super) fn write(&mut self, data: &[u8]) -> Result<()> {
        self.file.write_all(data).map_err(|error| self.failed(error))?;
        self.written += data.len() as u64;
        Ok(())
    }

    /// Syncs the file, gives it its name and syncs the folder.
    pub(super) fn finish(mut self) -> Result<()> {
        if self.written != self.total {
            let (written, total) = (self.written, self.total);
            return Err(Error::Internal(format!("{written} of {total} bytes were written")));
        }
        self.file.sync_all().map_err(|error| self.failed(error))?;
        std::fs::rename(&self.path, &self.target).map_err(|error| self.failed(error))?;
        self.finished = true;
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

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_file(&self.path); // nothing can be done about a failure; the next run tries again
        }
    }
}

/// The folder of a path; `.` for a bare name.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Permissions of the file that will be replaced, if any. Replacing a device or FIFO by a file is never what was meant.
fn check_target(target: &Path, parts: &[&Path]) -> Result<Option<std::fs::Permissions>> {
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
    let same = |part: &&Path| std::fs::metadata(part).is_ok_and(|part| Identity::of(&part).same_file(&identity));
    if parts.iter().any(same) {
        let target = target.display();
        return Err(Error::Argument(format!(
            "{target}: would replace a part of the split model that is copied; name another file"
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
        // Removed while locked: a process that creates the same name at this moment notices that its file lost the name.
        if let Ok(file) = File::options().append(true).open(entry.path())
            && file.try_lock().is_ok()
        {
            let _ = std::fs::remove_file(entry.path()); // a leftover costs space, but does not stop the work
        }
    }
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
        let ours = file.metadata().map_err(|error| io_error(path, error))?;
        match std::fs::metadata(path) {
            Ok(there) if !cfg!(unix) || Identity::of(&there).same_file(&Identity::of(&ours)) => return Ok(file),
            _ => {} // it was taken for a leftover and removed; again
        }
    }
}

/// An error when the file system has less than `total` bytes free or the process may not write so large a file (which the
/// system would answer with a signal).
#[cfg(unix)]
fn check_space(folder: &Path, target: &Path, total: u64) -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let error = |kind: ErrorKind, what: String| Error::Io { path: target.into(), source: io::Error::new(kind, what) };
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit that the call fills in.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) } == 0;
    #[allow(clippy::useless_conversion, reason = "rlim_t is not u64 everywhere")]
    let most = u64::try_from(limit.rlim_cur).unwrap_or(u64::MAX);
    if known && limit.rlim_cur != libc::RLIM_INFINITY && most < total {
        let what = format!("needs {total} bytes, but this process may only write files of {most} (ulimit -f)");
        return Err(error(ErrorKind::FileTooLarge, what));
    }
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
