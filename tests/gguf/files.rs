//! Files and folders for the tests.
#![allow(dead_code, reason = "shared by several test programs, each of which uses a part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fastq_core::gguf::{Gguf, OpenOptions};
use tempfile::TempDir;

use crate::build::{File, string};

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

pub(crate) fn put(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, bytes).expect("write");
    path
}

pub(crate) fn open(path: &Path) -> Gguf {
    Gguf::open(path, &OpenOptions::default()).expect("a valid file")
}

/// Names in the folder.
pub(crate) fn names(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).expect("read the folder");
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub(crate) fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
}

/// Part `number` of `count`, with one tensor named after `tensor`.
pub(crate) fn part(number: u16, count: u16, total: i32, tensor: &str) -> Vec<u8> {
    let file =
        if number == 0 { File::default().pair("general.architecture", 8, string("llama")) } else { File::default() };
    file.pair("split.no", 2, number.to_le_bytes())
        .pair("split.count", 2, count.to_le_bytes())
        .pair("split.tensors.count", 5, total.to_le_bytes())
        .tensor(tensor, &[40], 24, vec![number as u8 + 1; 40])
        .bytes()
}

pub(crate) fn split_model(folder: &TempDir) -> [PathBuf; 3] {
    let put =
        |number: u16, tensor| put(folder, &format!("m-0000{}-of-00003.gguf", number + 1), &part(number, 3, 3, tensor));
    [put(0, "a"), put(1, "b"), put(2, "c")]
}
