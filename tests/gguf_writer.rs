//! Writing: the same bytes again, changes, all or nothing.
#![cfg(unix)]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

#[path = "gguf/build.rs"]
mod build;
#[path = "gguf/files.rs"]
mod files;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use build::{File, sample};
use fastq_core::gguf::{Array, Gguf, OpenOptions, Stored, TensorType, Value, Writer};
use fastq_core::{Error, Never};
use fastq_kernels::Format;
use files::{folder, make_fifo, names, open, put, split_model};
use proptest::prelude::*;
use tempfile::TempDir;

const READ: OpenOptions<'static> = OpenOptions { mmap: false, interrupt: &Never };

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
        assert!(matches!(&error, Error::Argument(what) if what.contains("which is being read")), "{error:?}");
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
        writer
            .tensor_from(name, &[10], TensorType::Stored(Stored::I8), move |output| output.write(&vec![0; give]))
            .unwrap();
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
    writer.tensor_from("n", &[10], TensorType::Stored(Stored::I8), |_| Err(Error::NotFinite("x".into()))).unwrap();
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
    symlink("fifo", &link).unwrap(); // no real device: a broken check would replace it
    let source = open(&put(&folder, "m.gguf", &sample().bytes()));
    let write = |path: &Path| Writer::copy_of(&source).unwrap().write(path, &Never);
    for path in [folder.path(), &fifo, &link, Path::new("/")] {
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
    writer
        .tensor_from("huge", &[1 << 60], TensorType::Stored(Stored::I8), |_| panic!("the source must not be asked"))
        .unwrap();
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
        writer.tensor("t", &[1 << 20], TensorType::Stored(Stored::I8), &data).unwrap();
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
        .tensor_from("n", &[4], TensorType::Stored(Stored::I8), |output| {
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
        Writer::new().tensor(name, shape, TensorType::Kernel(Format::Q8_0), vec![0; bytes].leak()).map(drop)
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
            writer.tensor(name, &shape, TensorType::Stored(Stored::I8), &data[..bytes as usize]).unwrap();
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
