//! Files whose tensors are written in any order, and completed by a later run.
#![cfg(unix)]

#[path = "gguf/build.rs"]
mod build;
#[path = "gguf/files.rs"]
mod files;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use fastq_core::gguf::{Draft, Stored, TensorType, Writer};
use fastq_core::{Error, Never};
use files::{folder, names, open, put};
use tempfile::TempDir;

const BYTES: TensorType = TensorType::Stored(Stored::I8);

/// The data of tensor `index`, 100 bytes more for each.
fn data(index: usize) -> Vec<u8> {
    (0..100 * (index + 1)).map(|at| (at * (index + 3)) as u8).collect()
}

fn writer(tensors: usize) -> Writer<'static> {
    let mut writer = Writer::new();
    writer.set("general.architecture", "test").unwrap();
    for index in 0..tensors {
        writer.tensor_later(&format!("t{index}"), &[data(index).len() as u64], BYTES).unwrap();
    }
    writer
}

/// The same file written in one go.
fn expected(folder: &TempDir, tensors: usize) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.set("general.architecture", "test").unwrap();
    for index in 0..tensors {
        writer.tensor(&format!("t{index}"), &[data(index).len() as u64], BYTES, data(index).leak()).unwrap();
    }
    let path = folder.path().join("expected.gguf");
    writer.write(&path, &Never).unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(path).unwrap();
    bytes
}

fn fill(draft: &mut Draft, tensor: usize) {
    // Back to front, in pieces.
    for (at, piece) in data(tensor).chunks(33).enumerate().collect::<Vec<_>>().into_iter().rev() {
        draft.write_at(tensor, 33 * at as u64, piece, &Never).unwrap();
    }
    draft.complete(tensor, &format!("note {tensor}"), &Never).unwrap();
}

fn resume(path: &Path, key: &str) -> Draft {
    writer(3).draft(path, Some(key), &Never).unwrap()
}

#[test]
fn tensors_in_any_order() {
    let folder = folder();
    let path = folder.path().join("out.gguf");
    for key in [None, Some("key")] {
        let mut draft = writer(3).draft(&path, key, &Never).unwrap();
        for tensor in [2, 0, 1] {
            fill(&mut draft, tensor);
        }
        assert_eq!(draft.note(1), Some("note 1"));
        assert_eq!(draft.finish().unwrap(), fs::metadata(&path).unwrap().len());
        assert_eq!(fs::read(&path).unwrap(), expected(&folder, 3));
        assert_eq!(names(&folder), ["out.gguf"]);
    }
}

#[test]
fn a_later_run_goes_on() {
    let folder = folder();
    let path = folder.path().join("out.gguf");
    let mut draft = resume(&path, "key");
    fill(&mut draft, 1);
    draft.write_at(2, 0, &[9; 77], &Never).unwrap();
    draft.leave();
    assert_eq!(names(&folder), [".out.gguf.partial-draft", ".out.gguf.partial-journal"]);

    let mut draft = resume(&path, "key");
    assert_eq!((draft.resumed(), draft.note(1), draft.note(2)), (1, Some("note 1"), None));
    fill(&mut draft, 0);
    std::mem::forget(draft); // as when the process is killed; the lock is this process's own, so it is broken by hand
    let copy = folder.path().join("copy");
    fs::copy(folder.path().join(".out.gguf.partial-draft"), &copy).unwrap();
    fs::rename(&copy, folder.path().join(".out.gguf.partial-draft")).unwrap();

    let mut draft = resume(&path, "key");
    assert_eq!((draft.resumed(), draft.note(0)), (2, Some("note 0")));
    fill(&mut draft, 2);
    draft.finish().unwrap();
    assert_eq!(fs::read(&path).unwrap(), expected(&folder, 3));
    assert_eq!(names(&folder), ["out.gguf"]);
}

#[test]
fn other_work_starts_anew() {
    let folder = folder();
    let path = folder.path().join("out.gguf");
    let begin = || {
        let mut draft = resume(&path, "key");
        fill(&mut draft, 1);
        draft.leave();
    };
    begin();
    assert_eq!(resume(&path, "other key").resumed(), 0);
    begin();
    let mut draft = writer(4).draft(&path, Some("key"), &Never).unwrap();
    assert_eq!(draft.resumed(), 0, "another file of the same key");
    (0..4).for_each(|tensor| fill(&mut draft, tensor));
    draft.finish().unwrap();
    assert_eq!(fs::read(&path).unwrap(), expected(&folder, 4));
    // What an ordinary writer replaces, nobody goes on with.
    begin();
    Writer::new().write(&path, &Never).unwrap();
    assert_eq!(names(&folder), ["out.gguf"]);
}

#[test]
fn what_is_damaged_is_done_again() {
    let folder = folder();
    let path = folder.path().join("out.gguf");
    let (partial, journal) =
        (folder.path().join(".out.gguf.partial-draft"), folder.path().join(".out.gguf.partial-journal"));
    let begin = || {
        let mut draft = resume(&path, "key");
        (0..3)
            .filter(|tensor| draft.note(*tensor).is_none())
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|t| fill(&mut draft, t));
        assert_eq!(draft.note(2), Some("note 2"));
        draft.leave();
    };
    begin();
    let mut bytes = fs::read(&partial).unwrap();
    let last = bytes.len() - 40;
    bytes[last] ^= 1; // in tensor 2
    fs::write(&partial, &bytes).unwrap();
    assert_eq!(resume(&path, "key").resumed(), 2);
    begin();
    let text = fs::read_to_string(&journal).unwrap();
    fs::write(&journal, &text[..text.len() - 3]).unwrap(); // the last line is not whole
    let draft = resume(&path, "key");
    assert_eq!(draft.resumed(), 2);
    draft.leave();
    begin();
    fs::write(&journal, b"fastq-journal-1 nonsense\n\xff\xff").unwrap();
    assert_eq!(resume(&path, "key").resumed(), 0);
    begin();
    fs::File::options().write(true).open(&partial).unwrap().set_len(50).unwrap();
    assert_eq!(resume(&path, "key").resumed(), 0);
    // Dropped without anything complete, all of them leave nothing.
    assert_eq!(names(&folder), [""; 0]);
}

#[test]
fn faults_leave_nothing_and_replace_nothing() {
    let folder = folder();
    let path = folder.path().join("out.gguf");
    let mut draft = resume(&path, "key");
    assert!(matches!(draft.write_at(0, 90, &[0; 11], &Never), Err(Error::Argument(_))));
    assert!(matches!(draft.write_at(0, u64::MAX, &[0; 1], &Never), Err(Error::Argument(_))));
    assert!(matches!(draft.complete(3, "", &Never), Err(Error::Argument(_))));
    assert!(matches!(draft.write_at(0, 0, &[0; 1], &|| true), Err(Error::Cancelled)));
    let error = writer(3).draft(&path, Some("key"), &Never).expect_err("it is being written").to_string();
    assert!(error.contains("being written by another run"), "{error}");
    let error = draft.finish().expect_err("incomplete").to_string();
    assert!(error.contains("\"t0\" was not completed"), "{error}");
    assert_eq!(names(&folder), [""; 0]);

    let file = put(&folder, "source.gguf", &expected(&folder, 3));
    let source = open(&file);
    symlink(&file, folder.path().join("link.gguf")).unwrap();
    fs::hard_link(&file, folder.path().join("hard.gguf")).unwrap();
    for target in ["source.gguf", "link.gguf", "hard.gguf"] {
        let mut writer = Writer::with_metadata_of(&source);
        writer.protect(&source);
        let error = writer.draft(&folder.path().join(target), Some("key"), &Never).expect_err("the source").to_string();
        assert!(error.contains("is being read; name another file"), "{error}");
    }

    // A link where the draft would be does not lead anywhere.
    symlink(&file, folder.path().join(".out.gguf.partial-draft")).unwrap();
    let error = writer(3).draft(&path, Some("key"), &Never).expect_err("a trap");
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    assert_eq!(fs::read(&file).unwrap(), expected(&folder, 3));
}
