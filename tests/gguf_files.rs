//! Files as the system has them: what is no file, changed files, split models, writing.
#![cfg(unix)]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

#[path = "gguf/build.rs"]
mod build;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use build::{File, sample, string};
use fastq_core::gguf::{Array, Gguf, OpenOptions, TensorType, Value, Writer};
use fastq_core::{Error, Never};
use proptest::prelude::*;
use tempfile::TempDir;

const MAPPED: OpenOptions<'static> = OpenOptions { mmap: true, interrupt: &Never };
const READ: OpenOptions<'static> = OpenOptions { mmap: false, interrupt: &Never };

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn put(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, bytes).expect("write");
    path
}

fn open(path: &Path) -> Gguf {
    Gguf::open(path, &MAPPED).expect("a valid file")
}

#[track_caller]
fn message(result: Result<Gguf, Error>, part: &str) {
    let error = result.expect_err("an error");
    assert!(matches!(error, Error::ModelFile { .. }), "{error:?}");
    assert!(error.to_string().contains(part), "{error} does not contain {part:?}");
}

/// Names in the folder.
fn names(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).expect("read the folder");
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
}

#[test]
fn mapped_and_read_files_are_the_same() {
    let folder = folder();
    let path = put(&folder, "m.gguf", &sample().bytes());
    let (mapped, read) = (open(&path), Gguf::open(&path, &READ).expect("a valid file"));
    assert_eq!(mapped.tensors(), read.tensors());
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
    symlink("loop", folder.path().join("loop")).unwrap();
    for options in [MAPPED, READ] {
        message(Gguf::open(folder.path(), &options), "expected a regular file, found a folder");
        message(Gguf::open(&fifo, &options), "found a pipe");
        message(Gguf::open(Path::new("/dev/zero"), &options), "found a device");
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

/// Part `number` of `count`, with one tensor named after `tensor`.
fn part(number: u16, count: u16, total: i32, tensor: &str) -> Vec<u8> {
    let file =
        if number == 0 { File::default().pair("general.architecture", 8, string("llama")) } else { File::default() };
    file.pair("split.no", 2, number.to_le_bytes())
        .pair("split.count", 2, count.to_le_bytes())
        .pair("split.tensors.count", 5, total.to_le_bytes())
        .tensor(tensor, &[40], 24, vec![number as u8 + 1; 40])
        .bytes()
}

fn split_model(folder: &TempDir) -> [PathBuf; 3] {
    let put =
        |number: u16, tensor| put(folder, &format!("m-0000{}-of-00003.gguf", number + 1), &part(number, 3, 3, tensor));
    [put(0, "a"), put(1, "b"), put(2, "c")]
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

#[test]
fn an_unchanged_copy_has_the_same_bytes() {
    let folder = folder();
    for (alignment, version) in [(32u32, 3), (1, 2), (8, 3), (64, 3), (4096, 2)] {
        let mut file = File { version, ..sample() };
        if alignment != 32 {
            file = file.pair("general.alignment", 4, alignment.to_le_bytes());
            file.alignment = alignment as usize;
        }
        let path = put(&folder, "m.gguf", &file.bytes());
        let copy = folder.path().join("copy.gguf");
        let source = open(&path);
        let written = Writer::copy_of(&source).unwrap().write(&copy, &Never).expect("write");
        assert_eq!(written, fs::metadata(&path).unwrap().len());
        assert!(fs::read(&copy).unwrap() == fs::read(&path).unwrap(), "alignment {alignment}");
    }
    assert_eq!(names(&folder), ["copy.gguf", "m.gguf"]);
}

#[test]
fn real_models_are_copied_byte_for_byte() {
    let Some(models) = std::env::var_os("FASTQ_MODELS") else {
        println!("skipped: FASTQ_MODELS does not name a folder with smollm2.gguf and gemma3.gguf");
        return;
    };
    let folder = folder();
    for name in ["smollm2.gguf", "gemma3.gguf"] {
        let path = Path::new(&models).join(name);
        let start = std::time::Instant::now();
        let source = open(&path);
        println!("{name}: opened in {:.2} ms, {} tensors", start.elapsed().as_secs_f64() * 1e3, source.tensors().len());
        let copy = folder.path().join(name);
        Writer::copy_of(&source).unwrap().write(&copy, &Never).expect("write");
        assert!(fs::read(&copy).unwrap() == fs::read(&path).unwrap(), "{name}");
        fs::remove_file(&copy).unwrap();
    }
}

#[test]
fn metadata_can_be_changed() {
    let folder = folder();
    let source = open(&put(&folder, "m.gguf", &sample().bytes()));
    let path = folder.path().join("out.gguf");
    let mut writer = Writer::copy_of(&source).unwrap();
    writer.set("general.architecture", "gemma3").unwrap();
    writer.set("x.new", Array::from([1.5f32, -2.0].as_slice())).unwrap();
    writer.set("x.strings", Array::from_strings(["a", "bc"])).unwrap();
    writer.set("general.alignment", 128u32).unwrap();
    assert_eq!(writer.remove("x.scalar0"), Some(Value::U8(1)));
    writer.write(&path, &Never).unwrap();
    let file = open(&path);
    assert_eq!(file.metadata().next(), Some(("general.architecture", &Value::from("gemma3"))));
    assert_eq!(file.f32s("x.new").unwrap(), Some(vec![1.5, -2.0]));
    assert_eq!(file.strings("x.strings").unwrap().unwrap().iter().collect::<Vec<_>>(), [b"a".as_slice(), b"bc"]);
    assert!(file.get("x.scalar0").is_none());
    assert_eq!((file.alignment(), file.metadata().len()), (128, source.metadata().len() + 2));
    for (old, new) in source.tensors().iter().zip(file.tensors()) {
        assert_eq!(source.tensor_data(old), file.tensor_data(new));
    }
}

#[test]
fn a_split_model_is_merged() {
    let folder = folder();
    let parts = split_model(&folder);
    let model = open(&parts[0]);
    let path = folder.path().join("merged.gguf");
    Writer::copy_of(&model).unwrap().write(&path, &Never).unwrap();
    let merged = open(&path);
    assert_eq!(merged.metadata().map(|pair| pair.0).collect::<Vec<_>>(), ["general.architecture"]);
    assert_eq!(merged.tensor_data(merged.tensor("c").unwrap()), [3; 40]);
    let before = fs::read(&parts[1]).unwrap();
    let link = folder.path().join("link.gguf");
    symlink(&parts[1], &link).unwrap();
    for target in [&parts[1], &link] {
        let error = Writer::copy_of(&model).unwrap().write(target, &Never).expect_err("a part");
        assert!(matches!(&error, Error::Argument(what) if what.contains("a part of the split model")), "{error:?}");
    }
    assert_eq!(fs::read(&parts[1]).unwrap(), before);
}

#[test]
fn the_source_can_be_the_target() {
    let folder = folder();
    let bytes = sample().bytes();
    let path = put(&folder, "m.gguf", &bytes);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let source = open(&path);
    Writer::copy_of(&source).unwrap().write(&path, &Never).expect("write over the source");
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    assert_eq!(source.tensor_data(&source.tensors()[0]), (0..60).collect::<Vec<u8>>()); // the map holds the old file
    assert!(source.check_unchanged().is_err());
    // Links are replaced; what they lead to keeps its contents.
    let (hard, soft) = (folder.path().join("hard.gguf"), folder.path().join("soft.gguf"));
    fs::hard_link(&path, &hard).unwrap();
    symlink("m.gguf", &soft).unwrap();
    for link in [&hard, &soft] {
        let source = open(link);
        let mut writer = Writer::copy_of(&source).unwrap();
        writer.set("general.architecture", "changed").unwrap();
        writer.write(link, &Never).expect("write over a link");
        assert_eq!(open(link).str("general.architecture").unwrap(), Some("changed"));
        assert!(fs::symlink_metadata(link).unwrap().is_file());
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn nothing_remains_of_a_failed_write() {
    let folder = folder();
    let source = open(&put(&folder, "m.gguf", &sample().bytes()));
    let path = put(&folder, "out.gguf", b"precious");
    let add = |name: &str, give: usize| {
        let mut writer = Writer::copy_of(&source).unwrap();
        writer.tensor_from(name, &[10], TensorType::I8, move |output| output.write(&vec![0; give])).unwrap();
        writer.write(&path, &Never)
    };
    for (result, part) in [
        (add("n", 9), "tensor \"n\" has 10 bytes, its source gave 1 less"),
        (add("n", 11), "at most 10 further bytes, its source gave 11"),
        (add("a.weight", 10), "tensor \"a.weight\" occurs twice"),
    ] {
        let error = result.expect_err(part);
        assert!(matches!(&error, Error::Argument(what) if what.contains(part)), "{error:?}");
    }
    let mut writer = Writer::copy_of(&source).unwrap();
    writer.tensor_from("n", &[10], TensorType::I8, |_| Err(Error::NotFinite("x".into()))).unwrap();
    assert!(matches!(writer.write(&path, &Never), Err(Error::NotFinite(_))));
    let calls = AtomicUsize::new(0);
    let stop = || calls.fetch_add(1, Ordering::Relaxed) == 2;
    assert!(matches!(Writer::copy_of(&source).unwrap().write(&path, &stop), Err(Error::Cancelled)));
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    assert_eq!(names(&folder), ["m.gguf", "out.gguf"]);
    add("n", 10).expect("write");
    assert_eq!(open(&path).tensors().len(), 4);
}

#[test]
fn targets_that_are_no_files() {
    let folder = folder();
    let fifo = folder.path().join("fifo");
    make_fifo(&fifo);
    let link = folder.path().join("link");
    symlink("/dev/null", &link).unwrap();
    let source = open(&put(&folder, "m.gguf", &sample().bytes()));
    let write = |path: &Path| Writer::copy_of(&source).unwrap().write(path, &Never);
    for path in [folder.path(), &fifo, Path::new("/dev/null"), &link, Path::new("/")] {
        assert!(matches!(write(path), Err(Error::Argument(_))), "{}", path.display());
    }
    let missing = write(&folder.path().join("missing/out.gguf"));
    assert!(matches!(missing, Err(Error::NotFound(_))), "{missing:?}");
    let protected = put(&folder, "protected.gguf", b"precious");
    fs::set_permissions(&protected, fs::Permissions::from_mode(0o444)).unwrap();
    assert!(write(&protected).unwrap_err().to_string().contains("read-only"));
    assert_eq!(fs::read(&protected).unwrap(), b"precious");
    assert_eq!(names(&folder), ["fifo", "link", "m.gguf", "protected.gguf"]);
}

#[test]
fn too_little_space_is_noticed_before_writing() {
    let folder = folder();
    let path = folder.path().join("out.gguf");
    let mut writer = Writer::new();
    writer.tensor_from("huge", &[1 << 60], TensorType::I8, |_| panic!("the source must not be asked")).unwrap();
    let error = writer.write(&path, &Never).expect_err("no file system has so much");
    assert!(error.to_string().contains("needs 1152921504606847040 bytes"), "{error}");
    assert!(matches!(&error, Error::Io { path: named, .. } if *named == path), "{error:?}");
    assert!(names(&folder).is_empty());
}

/// Runs the ignored test `name` of this program in a shell after `before`, with the folder as `FASTQ_TEST_FOLDER`.
fn child(folder: &TempDir, before: &str, name: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{before} exec \"$0\" --exact --ignored --nocapture {name}"));
    command.arg(std::env::current_exe().unwrap()).env("FASTQ_TEST_FOLDER", folder.path());
    command
}

fn child_folder() -> PathBuf {
    PathBuf::from(std::env::var_os("FASTQ_TEST_FOLDER").expect("this test is run by another one"))
}

#[test]
#[ignore = "run by a_limit_of_file_sizes_is_an_error_not_a_signal"]
fn child_writes_beyond_the_limit() {
    let source = open(&child_folder().join("m.gguf"));
    let error = Writer::copy_of(&source).unwrap().write(&child_folder().join("out.gguf"), &Never).expect_err("a limit");
    let kind =
        |error: &Error| matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::FileTooLarge);
    assert!(kind(&error) && error.to_string().contains("needs 1824 bytes"), "{error:?}");
}

#[test]
fn a_limit_of_file_sizes_is_an_error_not_a_signal() {
    let folder = folder();
    put(&folder, "m.gguf", &sample().bytes());
    let output = child(&folder, "ulimit -f 1 &&", "child_writes_beyond_the_limit").output().expect("run");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
    assert_eq!(names(&folder), ["m.gguf"]);
}

#[test]
#[ignore = "run by killed_writers_leave_the_old_or_the_new_file"]
fn child_writes_for_ever() {
    let data = vec![1; 1 << 20];
    loop {
        let mut writer = Writer::new();
        writer.tensor("t", &[1 << 20], TensorType::I8, &data).unwrap();
        writer.write(&child_folder().join("out.gguf"), &Never).expect("write");
    }
}

#[test]
fn killed_writers_leave_the_old_or_the_new_file() {
    let folder = folder();
    let path = folder.path().join("out.gguf");
    let mut seen = 0;
    for round in 0..20 {
        let mut child =
            child(&folder, "", "child_writes_for_ever").stdout(std::process::Stdio::null()).spawn().expect("run");
        std::thread::sleep(std::time::Duration::from_millis(20 + 7 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        if path.exists() {
            let file = open(&path);
            assert!(file.tensor_data(&file.tensors()[0]).iter().all(|byte| *byte == 1));
            seen += 1;
        }
        let left: Vec<String> = names(&folder).into_iter().filter(|name| name != "out.gguf").collect();
        assert!(left.len() <= 1 && left.iter().all(|name| name.starts_with(".out.gguf.partial-")), "{left:?}");
    }
    assert!(seen > 0, "no writer lived long enough");
    Writer::new().write(&path, &Never).expect("write");
    assert_eq!(names(&folder), ["out.gguf"]);
}

#[test]
fn leftovers_of_killed_writers_are_removed_and_others_kept() {
    let folder = folder();
    let source = open(&put(&folder, "m.gguf", &sample().bytes()));
    put(&folder, ".out.gguf.partial-4000000000", b"left over");
    put(&folder, &format!(".out.gguf.partial-{}", std::process::id()), b"left over by a process of the same number");
    put(&folder, ".out.gguf.partial-text", b"not ours");
    let other = put(&folder, ".out.gguf.partial-77", b"being written");
    let lock = fs::File::open(&other).unwrap();
    lock.lock().unwrap();
    Writer::copy_of(&source).unwrap().write(&folder.path().join("out.gguf"), &Never).expect("write");
    assert_eq!(names(&folder), [".out.gguf.partial-77", ".out.gguf.partial-text", "m.gguf", "out.gguf"]);
}

#[test]
fn two_writers_of_one_file_do_not_mix() {
    let folder = folder();
    let source = open(&put(&folder, "m.gguf", &sample().bytes()));
    let path = folder.path().join("out.gguf");
    let mut outer = Writer::copy_of(&source).unwrap();
    outer
        .tensor_from("n", &[4], TensorType::I8, |output| {
            let error = Writer::copy_of(&source)?.write(&path, &Never).expect_err("it is being written");
            assert!(error.to_string().contains("being written elsewhere"), "{error}");
            output.write(&[1; 4])
        })
        .unwrap();
    outer.write(&path, &Never).expect("write");
    assert_eq!(open(&path).tensors().len(), 4);
}

#[test]
fn arguments_of_the_writer_are_checked() {
    let long = "k".repeat(65_536);
    for key in ["", "a\0b", &long] {
        assert!(matches!(Writer::new().set(key, 1u8), Err(Error::Argument(_))));
    }
    for value in [Value::U32(0), Value::U32(48), Value::U32(1 << 17), Value::U64(32)] {
        assert!(matches!(Writer::new().set("general.alignment", value), Err(Error::Argument(_))));
    }
    let tensor = |name: &str, shape: &[u64], bytes: usize| {
        Writer::new().tensor(name, shape, TensorType::Q8_0, vec![0; bytes].leak()).map(drop)
    };
    tensor("t", &[32, 2], 68).expect("a tensor");
    let long = "n".repeat(64);
    let wrong: [(&str, &[u64], usize); 8] = [
        ("t", &[32, 2], 67),
        ("t", &[31], 34),
        ("t", &[], 34),
        ("t", &[32, 0], 0),
        ("t", &[32, 1, 1, 1, 1], 34),
        ("t", &[32, u64::MAX], 34),
        ("", &[32], 34),
        (&long, &[32], 34),
    ];
    for (name, shape, bytes) in wrong {
        assert!(matches!(tensor(name, shape, bytes), Err(Error::Argument(_))), "{name:?} {shape:?} {bytes}");
    }
}

fn value() -> impl Strategy<Value = Value> {
    let bytes = prop::collection::vec(any::<u8>(), 0..20);
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i64>().prop_map(Value::I64),
        any::<f32>().prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        bytes.clone().prop_map(|bytes| Value::String(bytes.into())),
        prop::collection::vec(bytes, 0..9).prop_map(|items| Value::Array(Array::from_strings(items))),
        prop::collection::vec(any::<f64>(), 0..9).prop_map(|items| Value::Array(items.as_slice().into())),
        prop::collection::vec(any::<bool>(), 0..9).prop_map(|items| Value::Array(items.as_slice().into())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_and_written_again(
        pairs in prop::collection::btree_map("[a-z.]{1,20}", value(), 0..12),
        tensors in prop::collection::btree_map("[a-zé.]{1,12}", (1u64..70, prop::collection::vec(1u64..4, 0..3)), 0..8),
        alignment in 0u32..8,
    ) {
        let folder = folder();
        let data = vec![0xa5; 70 * 27];
        let mut writer = Writer::new();
        writer.set("general.alignment", 1u32 << alignment).unwrap();
        for (key, value) in &pairs {
            writer.set(key, value.clone()).unwrap();
        }
        for (name, (k, rest)) in &tensors {
            let shape = [&[*k][..], rest].concat();
            let bytes: u64 = shape.iter().product();
            writer.tensor(name, &shape, TensorType::I8, &data[..bytes as usize]).unwrap();
        }
        let (first, second) = (folder.path().join("1"), folder.path().join("2"));
        let size = writer.write(&first, &Never).unwrap();
        let file = Gguf::open(&first, &READ).unwrap();
        prop_assert_eq!(size, file.file_bytes());
        prop_assert_eq!(file.alignment(), 1 << alignment);
        for (key, value) in &pairs {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for (out, value) in [(&mut ours, Some(value)), (&mut theirs, file.get(key))] {
                out.push(format!("{value:?}")); // NaN is not equal to itself, its text is
                if let Some(Value::Array(array)) = value {
                    out.push(format!("{:?}", array.bytes()));
                }
            }
            prop_assert_eq!(ours, theirs);
        }
        for (name, (k, rest)) in &tensors {
            let tensor = file.tensor(name).expect("the tensor");
            prop_assert_eq!(&tensor.shape, &[&[*k][..], rest].concat());
            prop_assert!(file.tensor_data(tensor).iter().all(|byte| *byte == 0xa5));
        }
        Writer::copy_of(&file).unwrap().write(&second, &Never).unwrap();
        prop_assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap());
    }
}
