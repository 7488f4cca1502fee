//! Importance matrices: both formats, what is written, what is refused.

#[path = "gguf/build.rs"]
mod build;

use std::path::{Path, PathBuf};

use build::{File, array, string};
use fastq_core::gguf::Gguf;
use fastq_core::imatrix::{Entry, Imatrix};
use fastq_core::{Error, Never};

/// A file with two matrices, one of them of three experts.
fn file() -> File {
    let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    File::default()
        .pair("general.type", 8, string("imatrix"))
        .pair("imatrix.datasets", 9, array(8, 1, &string("a.txt")))
        .pair("imatrix.chunk_count", 4, 7u32.to_le_bytes())
        .pair("imatrix.chunk_size", 4, 64u32.to_le_bytes())
        .tensor("blk.0.attn_q.weight.in_sum2", &[4, 1], 0, floats(&[8.0, 0.0, 2.0, 4.0]))
        .tensor("blk.0.attn_q.weight.counts", &[1, 1], 0, floats(&[4.0]))
        .tensor("blk.0.ffn_up_exps.weight.in_sum2", &[2, 3], 0, floats(&[1.0, 2.0, 0.0, 0.0, 3.0, 9.0]))
        .tensor("blk.0.ffn_up_exps.weight.counts", &[1, 3], 0, floats(&[2.0, 0.0, 3.0]))
        .tensor("blk.0.attn_q.weight.in_sum", &[4, 1], 0, floats(&[-8.0, 0.0, 2.0, 4.0]))
}

fn parse(file: &File) -> Result<Imatrix, Error> {
    Imatrix::from_gguf(&Gguf::parse(Path::new("m.gguf"), file.bytes().into())?)
}

fn put(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("imatrix");
    std::fs::write(&path, bytes).expect("write");
    (folder, path)
}

#[test]
fn reads_what_llama_imatrix_writes() {
    let imatrix = parse(&file()).expect("an imatrix");
    assert_eq!((imatrix.chunk_count, imatrix.chunk_size, &imatrix.datasets[..]), (7, 64, &["a.txt".to_owned()][..]));
    assert_eq!(imatrix.entries.len(), 2, "sums without squares are left out");
    let query = &imatrix.entries["blk.0.attn_q.weight"];
    assert_eq!(query.importance(0), [2.0, 0.0, 0.5, 1.0]);
    let experts = &imatrix.entries["blk.0.ffn_up_exps.weight"];
    assert_eq!((experts.k(), experts.counts.len()), (2, 3));
    assert_eq!(experts.importance(0), [0.5, 1.0]);
    assert_eq!(experts.importance(1), [1.0, 1.0], "no row has met it");
    assert_eq!(experts.importance(2), [1.0, 3.0]);
}

#[test]
fn what_is_written_is_read() {
    let imatrix = parse(&file()).expect("an imatrix");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("out.gguf");
    let bytes = imatrix.write(&path, &Never).expect("written");
    assert_eq!(bytes, std::fs::metadata(&path).expect("a file").len());
    assert_eq!(Imatrix::open(&path, &Never).expect("read"), imatrix);
}

/// The files that llama-imatrix has made come out of the writer byte for byte.
#[test]
fn files_of_llama_cpp_are_reproduced() {
    let Some(shared) = std::env::var_os("FASTQ_SHARED") else {
        #[allow(clippy::print_stderr, reason = "what is not tested is told")]
        {
            eprintln!("NOT TESTED: imatrix files of llama.cpp (FASTQ_SHARED is not set)");
        }
        return;
    };
    for (name, entries, width) in [("smollm2", 210, 768), ("gemma3", 126, 768)] {
        let path = Path::new(&shared).join("quality").join(format!("{name}.imatrix.gguf"));
        let imatrix = Imatrix::open(&path, &Never).expect("an imatrix");
        assert_eq!((imatrix.entries.len(), imatrix.chunk_count, imatrix.chunk_size), (entries, 40, 512));
        let entry = &imatrix.entries["blk.0.attn_q.weight"];
        assert_eq!((entry.k(), entry.counts[0]), (width, 20_480.0));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let out = folder.path().join("out.gguf");
        imatrix.write(&out, &Never).expect("written");
        assert!(std::fs::read(&out).expect("read") == std::fs::read(&path).expect("read"), "{name}");
    }
}

/// Entries of the binary format: name, calls, values.
fn binary(entries: &[(&str, i32, &[f32])], tail: &[u8]) -> Vec<u8> {
    let mut out = (entries.len() as i32).to_le_bytes().to_vec();
    for (name, calls, values) in entries {
        out.extend((name.len() as i32).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend(calls.to_le_bytes());
        out.extend((values.len() as i32).to_le_bytes());
        out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    out.extend_from_slice(tail);
    out
}

#[test]
fn reads_the_binary_format() {
    let entries: &[(&str, i32, &[f32])] = &[("a.weight", 4, &[8.0, 2.0]), ("e.weight", 2, &[2.0, 4.0, 6.0, 8.0])];
    let tail = [&9i32.to_le_bytes()[..], &4i32.to_le_bytes(), b"data"].concat();
    let (_folder, path) = put(&binary(entries, &tail));
    let imatrix = Imatrix::open(&path, &Never).expect("an imatrix");
    assert_eq!((imatrix.chunk_count, imatrix.chunk_size, &imatrix.datasets[..]), (9, 0, &["data".to_owned()][..]));
    assert_eq!(imatrix.entries["a.weight"].importance(0), [2.0, 0.5]);
    let experts = imatrix.entry("e.weight", 2).expect("fits").expect("is there");
    assert_eq!((experts.importance(0), experts.importance(1)), (vec![1.0, 2.0], vec![3.0, 4.0]));
    let message = imatrix.entry("e.weight", 3).expect_err("does not fit").to_string();
    assert!(message.contains("e.weight") && message.contains("rows of 3"), "{message}");
    assert_eq!(imatrix.entry("other", 3).expect("nothing to check"), None);

    let (_folder, path) = put(&binary(entries, b""));
    assert_eq!(Imatrix::open(&path, &Never).expect("without the end").entries, imatrix.entries);
}

#[test]
fn hostile_files_are_named() {
    let refused = |file: &File| parse(file).expect_err("refused").to_string();
    let without = |key: &str| {
        let mut file = file();
        file.pairs.retain(|pair| pair.0 != key.as_bytes());
        file
    };
    let with = |name: &str, shape: &[u64], ty: u32, data: Vec<u8>| {
        let mut file = file();
        file.tensors.retain(|tensor| tensor.name != name.as_bytes());
        file.tensor(name, shape, ty, data)
    };
    let sums = "blk.0.attn_q.weight.in_sum2";
    let float = |value: f32| [1.0, value, 1.0, 1.0].iter().flat_map(|v: &f32| v.to_le_bytes()).collect::<Vec<u8>>();
    let mut only_counts = file();
    only_counts.tensors.retain(|tensor| tensor.name != sums.as_bytes());
    let mut no_counts = file();
    no_counts.tensors.retain(|tensor| tensor.name != b"blk.0.attn_q.weight.counts");
    let mut empty = file();
    empty.tensors.clear();
    let model = File::default().pair("general.architecture", 8, string("llama"));
    let other = File::default().pair("general.type", 8, string("adapter"));
    let cases: &[(File, &str)] = &[
        (without("imatrix.chunk_count"), "\"imatrix.chunk_count\" is missing"),
        (without("imatrix.chunk_size"), "\"imatrix.chunk_size\" is missing"),
        (with(sums, &[4, 1], 0, float(f32::NAN)), "finite numbers from 0, found NaN at 1"),
        (with(sums, &[4, 1], 0, float(-1.0)), "found -1 at 1"),
        (with(sums, &[4, 1], 0, float(f32::INFINITY)), "found inf at 1"),
        (with(sums, &[4, 1], 1, vec![0; 8]), "must be F32, found F16"),
        (with("blk.0.attn_q.weight.counts", &[3], 0, float(1.0)[..12].to_vec()), "4 sums and 3 counts"),
        (only_counts, "\"blk.0.attn_q.weight.counts\" has no sums"),
        (no_counts, "\"blk.0.attn_q.weight.in_sum2\" has no counts"),
        (empty, "no tensors NAME.in_sum2"),
        (model, "found a model of architecture \"llama\""),
        (other, "found a file of type \"adapter\""),
        (File::default(), "found a file without the key"),
    ];
    for (file, part) in cases {
        let message = refused(file);
        assert!(message.contains("m.gguf") && message.contains(part), "{message:?} does not contain {part:?}");
    }

    let good = binary(&[("a.weight", 4, &[8.0, 2.0])], b"");
    let huge = |at: usize, value: i32| {
        let mut file = good.clone();
        file[at..at + 4].copy_from_slice(&value.to_le_bytes());
        file
    };
    let cases: &[(Vec<u8>, &str)] = &[
        (b"hello, world".to_vec(), "expected an imatrix"),
        (huge(0, i32::MAX), "the number of entries must be from 0 to 2"),
        (huge(0, -1), "the number of entries"),
        (huge(0, 0), "no entries"),
        (huge(4, i32::MAX), "the length of the name of entry 0"),
        (huge(16, -5), "the calls of entry \"a.weight\""),
        (huge(20, 1 << 30), "the values of entry \"a.weight\""),
        (huge(20, 0), "has no values"),
        (huge(24, f32::NAN.to_bits() as i32), "found NaN at 0"),
        (binary(&[("a", 1, &[1.0]), ("a", 1, &[1.0])], b""), "occurs twice"),
        (binary(&[("a", 1, &[1.0])], &[1]), "the number of calls needs 4 bytes"),
        (binary(&[("a", 1, &[1.0])], &[1, 0, 0, 0, 9, 0, 0, 0, 65]), "the name of the dataset needs 9 bytes"),
        (binary(&[("a", 1, &[1.0])], &[1, 0, 0, 0, 1, 0, 0, 0, 65, 66]), "found 1 more bytes"),
    ];
    for (bytes, part) in cases {
        let (_folder, path) = put(bytes);
        let message = Imatrix::open(&path, &Never).expect_err("refused").to_string();
        assert!(message.contains(part), "{message:?} does not contain {part:?}");
    }
    for len in 1..good.len() {
        let (_folder, path) = put(&good[..len]);
        assert!(Imatrix::open(&path, &Never).is_err(), "cut at {len}");
    }
}

#[test]
fn an_entry_without_values_has_no_rows() {
    assert_eq!(Entry::default().k(), 0);
}
