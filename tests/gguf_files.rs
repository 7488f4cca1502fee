//! Files as the system has them: what is no file, changed files, split models.
#![cfg(unix)]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

#[path = "gguf/build.rs"]
mod build;
#[path = "gguf/files.rs"]
mod files;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use build::sample;
use fastq_core::gguf::{Gguf, OpenOptions, Writer};
use fastq_core::{Error, Never};
use files::{folder, make_fifo, open, part, put, split_model};

const MAPPED: OpenOptions<'static> = OpenOptions { mmap: true, interrupt: &Never };
const READ: OpenOptions<'static> = OpenOptions { mmap: false, interrupt: &Never };

#[track_caller]
fn message(result: Result<Gguf, Error>, part: &str) {
    let error = result.expect_err("an error");
    assert!(matches!(error, Error::ModelFile { .. }), "{error:?}");
    assert!(error.to_string().contains(part), "{error} does not contain {part:?}");
}

#[test]
fn mapped_and_read_files_are_the_same() {
    let folder = folder();
    let path = put(&folder, "m.gguf", &sample().bytes());
    let (mapped, read) = (open(&path), Gguf::open(&path, &READ).expect("a valid file"));
    assert_eq!(mapped.tensors(), read.tensors());
    // The memory plan counts the weights of a file that was read as being in memory already.
    assert!(mapped.is_mapped() && !read.is_mapped());
    for tensor in mapped.tensors() {
        assert_eq!(mapped.tensor_data(tensor), read.tensor_data(tensor));
        assert_eq!(read.tensor_data(tensor).as_ptr() as usize % 32, 0);
    }
}

#[test]
fn paths_that_are_no_files() {
    let folder = folder();
    let fifo = folder.path().join("fifo");
    make_fifo(&fifo);
    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    symlink("loop", folder.path().join("loop")).unwrap();
    for options in [MAPPED, READ] {
        message(Gguf::open(folder.path(), &options), "expected a regular file, found a folder");
        message(Gguf::open(&fifo, &options), "found a pipe");
        message(Gguf::open(Path::new("/dev/zero"), &options), "found a device");
        message(Gguf::open(&socket, &options), "found a socket");
        message(Gguf::open(&put(&folder, "empty", b""), &options), "found an empty file");
        let error = Gguf::open(&folder.path().join("loop"), &options).expect_err("a loop");
        assert!(matches!(error, Error::Io { .. }), "{error:?}");
        let error = Gguf::open(&folder.path().join("missing.gguf"), &options).expect_err("missing");
        assert!(matches!(&error, Error::NotFound(path) if path.ends_with("missing.gguf")), "{error:?}");
        let error = Gguf::open(&folder.path().join("empty/x.gguf"), &options).expect_err("not a folder");
        assert!(matches!(error, Error::Io { .. }), "{error:?}");
        let error = Gguf::open(Path::new("nul\0.gguf"), &options).expect_err("a NUL");
        assert!(matches!(error, Error::Io { .. }), "{error:?}");
    }
}

#[test]
fn a_file_without_permission() {
    let folder = folder();
    let path = put(&folder, "m.gguf", &sample().bytes());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&path).is_ok() {
        println!("skipped: this user may read every file");
        return;
    }
    let error = Gguf::open(&path, &MAPPED).expect_err("no permission");
    assert!(
        matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied),
        "{error:?}"
    );
}

#[test]
fn names_need_not_be_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let folder = folder();
    let path = folder.path().join(std::ffi::OsStr::from_bytes(b"m\xff.gguf"));
    if fs::write(&path, sample().bytes()).is_err() {
        println!("skipped: this file system wants UTF-8");
        return;
    }
    let copy = folder.path().join(std::ffi::OsStr::from_bytes(b"copy\xff.gguf"));
    Writer::copy_of(&open(&path)).unwrap().write(&copy, &Never).expect("write");
    assert_eq!(fs::read(&copy).unwrap(), fs::read(&path).unwrap());
}

#[test]
fn a_sparse_tebibyte_is_compared_with_the_memory() {
    let folder = folder();
    let path = put(&folder, "huge.gguf", &sample().bytes());
    if fs::File::options().write(true).open(&path).unwrap().set_len(1 << 40).is_err() {
        println!("skipped: no files of 1 TiB here");
        return;
    }
    let error = Gguf::open(&path, &READ).expect_err("more than the memory");
    assert!(matches!(error, Error::Memory(_)), "{error:?}");
    assert!(error.to_string().contains("1099511627776 bytes"), "{error}");
    if Path::new("/proc/meminfo").exists() {
        assert!(error.to_string().contains("are free"), "known before the system is asked: {error}");
    }
    assert_eq!(open(&path).tensors().len(), 3); // mapped it is only a file with something behind the last tensor
}

#[test]
fn reading_can_be_interrupted() {
    let folder = folder();
    let path = put(&folder, "m.gguf", &sample().bytes());
    let stop = || true;
    let error = Gguf::open(&path, &OpenOptions { mmap: false, interrupt: &stop }).expect_err("stopped");
    assert!(matches!(error, Error::Cancelled), "{error:?}");
}

#[test]
fn changes_after_opening_are_noticed() {
    let folder = folder();
    let bytes = sample().bytes();
    let path = put(&folder, "m.gguf", &bytes);
    let (file, read) = (open(&path), Gguf::open(&path, &READ).unwrap());
    file.check_unchanged().expect("unchanged");
    let unchanged = |part: &str| {
        let error = file.check_unchanged().expect_err("changed");
        assert!(error.to_string().contains(part), "{error}");
    };
    fs::OpenOptions::new().append(true).open(&path).unwrap().set_len(bytes.len() as u64 + 1).unwrap();
    unchanged("bytes and now has");
    fs::OpenOptions::new().append(true).open(&path).unwrap().set_len(bytes.len() as u64).unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(9);
    fs::File::options().append(true).open(&path).unwrap().set_modified(later).unwrap();
    unchanged("modification time");
    fs::rename(put(&folder, "other", &bytes), &path).unwrap();
    unchanged("another file");
    fs::remove_file(&path).unwrap();
    assert!(matches!(file.check_unchanged(), Err(Error::NotFound(_))));
    read.check_unchanged().expect("memory does not change");
}

#[test]
fn split_models_are_followed() {
    let folder = folder();
    let parts = split_model(&folder);
    for options in [MAPPED, READ] {
        let model = Gguf::open(&parts[0], &options).expect("a split model");
        assert_eq!(model.paths().collect::<Vec<_>>(), parts.iter().collect::<Vec<_>>());
        assert_eq!(model.file_bytes(), parts.iter().map(|path| fs::metadata(path).unwrap().len()).sum::<u64>());
        for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
            let tensor = model.tensor(name).expect("a tensor");
            assert_eq!((tensor.shard, model.tensor_data(tensor)), (index, &[index as u8 + 1; 40][..]));
            assert!(model.tensor_error(tensor, "x").to_string().starts_with(parts[index].to_str().unwrap()));
        }
    }
    let model = open(&parts[0]);
    fs::remove_file(&parts[2]).unwrap();
    assert!(matches!(model.check_unchanged(), Err(Error::NotFound(path)) if path == parts[2]));
}

#[test]
fn incomplete_or_mixed_split_models_are_refused() {
    let folder = folder();
    let parts = split_model(&folder);
    let restore = || split_model(&folder);
    let first = || Gguf::open(&parts[0], &MAPPED);
    message(Gguf::open(&parts[1], &MAPPED), "part 2 of 3 of a split model; open the first part");
    message(Gguf::open(&parts[1], &MAPPED), "m-00001-of-00003.gguf");
    fs::remove_file(&parts[2]).unwrap();
    message(first(), "part 3 of 3 of the split model is missing");
    message(first(), "m-00003-of-00003.gguf");
    restore();
    fs::write(&parts[2], part(1, 3, 3, "c")).unwrap();
    message(first(), "expected part 3 of 3 (split.no = 2, split.count = 3), found split.no = 1");
    fs::write(&parts[2], sample().bytes()).unwrap();
    message(first(), "found split.no = nothing");
    fs::write(&parts[2], part(2, 3, 3, "a")).unwrap();
    message(first(), "tensor \"a\" occurs twice (also in");
    restore();
    fs::write(&parts[0], part(0, 3, 4, "a")).unwrap();
    message(first(), "counts 4 tensors, found 3");
    fs::write(&parts[2], b"GGUF").unwrap();
    message(first(), "m-00003-of-00003.gguf at byte 4");
    message(Gguf::open(&put(&folder, "renamed.gguf", &part(0, 3, 3, "a")), &MAPPED), "NAME-00001-of-00003.gguf");
    message(
        Gguf::open(&put(&folder, "n-00002-of-00003.gguf", &part(0, 3, 3, "a")), &MAPPED),
        "NAME-00001-of-00003.gguf",
    );
    message(Gguf::open(&put(&folder, "n.gguf", &part(9, 5, 3, "a")), &MAPPED), "\"split.no\" must be below");
    message(Gguf::open(&put(&folder, "n.gguf", &part(0, 65_535, 3, "a")), &MAPPED), "at most 4096");
    assert_eq!(open(&put(&folder, "one.gguf", &part(0, 1, 1, "a"))).tensors().len(), 1);
}

/// A file of more bytes than a process can address is named as that: 2 GiB for a slice of a 32-bit process.
#[test]
fn files_larger_than_32_bits() {
    let folder = folder();
    for size in [5u64 << 30, 5 << 29] {
        let path = put(&folder, "sparse.gguf", &sample().bytes());
        let file = fs::File::options().write(true).open(&path).unwrap();
        if file.set_len(size).is_err() {
            println!("NOT TESTED: this file system has no files of {size} bytes");
            return;
        }
        match Gguf::open(&path, &MAPPED) {
            Ok(file) => assert!(usize::BITS > 32 && file.file_bytes() == size),
            Err(Error::Memory(text)) => {
                let expected = format!("the file has {size} bytes, more than the 2147483647 that a 32-bit process");
                assert!(usize::BITS == 32 && text.contains(&expected) && text.contains("sparse.gguf"), "{text}");
                assert!(matches!(Gguf::open(&path, &READ), Err(Error::Memory(same)) if same == text));
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}
