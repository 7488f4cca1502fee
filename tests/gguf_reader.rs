//! The rules for hostile files, one by one: what is refused, and that the message names the place and the thing.

#[path = "gguf/build.rs"]
mod build;

use std::path::Path;

use build::{File, array, sample, string};
use fastq_core::Error;
use fastq_core::gguf::{Gguf, MAX_PAIRS, MAX_TENSORS, TensorType, Value};
use fastq_kernels::Format;
use proptest::prelude::*;

fn parse(bytes: Vec<u8>) -> Result<Gguf, Error> {
    Gguf::parse(Path::new("m.gguf"), bytes.into())
}

/// Asserts that the file is refused with a message that has all `parts`, and returns the offset.
#[track_caller]
fn refused(file: &File, parts: &[&str]) -> u64 {
    let error = parse(file.bytes()).expect_err("the file should be refused");
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{message:?} does not contain {part:?}");
    }
    match error {
        Error::ModelFile { path, offset: Some(offset), .. } if path == Path::new("m.gguf") => offset,
        other => panic!("expected an error with the path and a place, found {other:?}"),
    }
}

#[test]
fn everything_in_a_valid_file_is_read() {
    let bytes = sample().bytes();
    let file = parse(bytes.clone()).expect("a valid file");
    assert_eq!((file.version(), file.alignment(), file.file_bytes()), (3, 32, bytes.len() as u64));
    assert_eq!(file.str("general.architecture").unwrap(), Some("llama"));
    assert_eq!(file.get("x.scalar3"), Some(&Value::I16(1)));
    assert_eq!(file.metadata().next().map(|pair| pair.0), Some("general.architecture"));
    assert_eq!(file.metadata().len(), 1 + 33 + 2);
    let tokens: Vec<&[u8]> = file.strings("tokenizer.ggml.tokens").unwrap().expect("tokens").iter().collect();
    assert_eq!(tokens, [b"a".as_slice(), b"", b"\xff\xfe"]);
    let tensor = file.tensor("b.weight").expect("a tensor");
    assert_eq!(
        (tensor.shape.as_slice(), tensor.ty, tensor.bytes, tensor.offset),
        (&[64, 2, 2][..], TensorType::Kernel(Format::Q8_0), 272, 64)
    );
    assert_eq!((tensor.k(), tensor.rows(), tensor.elements()), (64, 4, 256));
    assert_eq!(file.tensor_data(tensor), [7; 272]);
    assert_eq!(file.tensor_data(file.tensor("a.weight").unwrap()), (0..60).collect::<Vec<u8>>());
    assert!(file.tensor("d.weight").is_none() && file.get("x.missing").is_none());
    file.check_unchanged().expect("memory does not change");
}

#[test]
fn version_2_has_the_same_layout() {
    let file = parse(File { version: 2, ..sample() }.bytes()).expect("a valid file");
    assert_eq!((file.version(), file.tensors().len()), (2, 3));
}

#[test]
fn getters_check_types() {
    let file = parse(sample().bytes()).unwrap();
    for key in
        ["x.scalar0", "x.scalar1", "x.scalar2", "x.scalar3", "x.scalar4", "x.scalar5", "x.scalar10", "x.scalar11"]
    {
        assert_eq!(file.u32(key).unwrap(), Some(1), "{key}");
        assert_eq!(file.usize(key).unwrap(), Some(1), "{key}");
        assert_eq!(file.u64(key).unwrap(), Some(1), "{key}");
        assert_eq!(file.i64(key).unwrap(), Some(1), "{key}");
    }
    assert_eq!(file.bool("x.scalar7").unwrap(), Some(true));
    assert_eq!(file.f32("x.scalar12").unwrap(), Some(0.0)); // 5e-324
    assert_eq!(file.i32s("x.array5").unwrap(), Some(vec![1, 1, 1]));
    assert_eq!(file.f32s("x.array6").unwrap(), Some(vec![f32::from_bits(1); 3]));
    assert_eq!(file.bools("x.array7").unwrap(), Some(vec![true; 3]));
    assert_eq!(file.usizes("x.array2").unwrap(), Some(vec![1; 3]));
    assert_eq!(file.usizes("x.empty2").unwrap(), Some(vec![]));
    assert_eq!(file.u32("x.missing").unwrap(), None);
    let errors = [
        (file.u32("x.scalar7").map(drop), "\"x.scalar7\" must be an integer", "found bool"),
        (file.u32("x.scalar6").map(drop), "must be an integer", "found f32"),
        (file.bool("x.scalar0").map(drop), "must be a bool", "found 1 (u8)"),
        (file.f32("x.scalar4").map(drop), "must be an f32", "found 1 (u32)"),
        (file.str("x.array0").map(drop), "must be a string", "found array of 3 u8"),
        (file.str("x.not_utf8").map(drop), "must be UTF-8", "invalid byte at 0"),
        (file.strings("x.array4").map(drop), "array of strings", "found array of 3 u32"),
        (file.strings("general.architecture").map(drop), "array of strings", "found string"),
        (file.f32s("x.array0").map(drop), "array of f32", "found array of 3 u8"),
        (file.i32s("x.array4").map(drop), "array of i32", "found array of 3 u32"),
        (file.usizes("tokenizer.ggml.tokens").map(drop), "array of integers", "found array of 3 string"),
    ];
    for (result, expected, found) in errors {
        let error = result.expect_err(expected);
        let message = error.to_string();
        assert!(message.contains(expected) && message.contains(found), "{message:?}: {expected:?}, {found:?}");
        assert!(matches!(error, Error::ModelFile { offset: Some(24..), .. }), "{error:?} has the place of the pair");
    }
    let negative = parse(File::default().pair("k", 5, (-1i32).to_le_bytes()).bytes()).unwrap();
    assert!(negative.u64("k").unwrap_err().to_string().contains("found -1 (i32)"));
    assert_eq!(negative.i64("k").unwrap(), Some(-1));
}

#[test]
fn versions() {
    for (version, part) in
        [(1, "version 1 is not supported"), (0, "version 0"), (4, "version 4"), (3 << 24, "big-endian")]
    {
        assert_eq!(refused(&File { version, ..sample() }, &[part]), 4);
    }
}

#[test]
fn counts_are_compared_with_what_is_left() {
    for count in [u64::MAX, 1 << 63, 1 << 61, 1 << 32, 1 << 24] {
        assert_eq!(refused(&File { tensor_count: Some(count), ..sample() }, &["tensors, too many for the"]), 8);
        assert_eq!(refused(&File { pair_count: Some(count), ..sample() }, &["metadata pairs, too many"]), 16);
    }
    refused(&File { tensor_count: Some(4), ..sample() }, &[]);
    refused(
        &File { tensor_count: Some(2), ..sample() },
        &["expected zeros between the tensor table and the tensor data"],
    );
    for pair_count in [35, 37] {
        refused(&File { pair_count: Some(pair_count), ..sample() }, &[]);
    }
    let room = vec![0; (MAX_TENSORS as usize + 1) * 24];
    let file = File::default().pair("x", 9, array(0, room.len() as u64, &room));
    refused(&File { tensor_count: Some(MAX_TENSORS + 1), ..file.clone() }, &["expected at most 131072"]);
    let room = vec![0; (MAX_PAIRS as usize + 1) * 13];
    let file = File::default().pair("x", 9, array(0, room.len() as u64, &room));
    refused(&File { pair_count: Some(MAX_PAIRS + 1), ..file }, &["expected at most 262144"]);
}

#[test]
fn keys() {
    let with = |key: &[u8]| File::default().pair(key, 0, [1]);
    refused(&with(b""), &["the key of metadata pair 0", "not to be empty"]);
    refused(&with(b"\xff\xfe"), &["to be UTF-8"]);
    refused(&with(b"a\0b"), &["no NUL", r"a\0b"]);
    refused(&with(&[b'k'; 65_536]), &["65536 bytes", "at most 65535"]);
    parse(with(&[b'k'; 65_535]).bytes()).expect("the longest key");
    assert_eq!(refused(&with(b"a").pair("a", 4, [0; 4]), &["key \"a\" occurs twice"]), 24 + 8 + 1 + 4 + 1);
}

#[test]
fn values() {
    for ty in [13, 255, u32::MAX] {
        refused(&File::default().pair("k", ty, [0; 16]), &["key \"k\"", &format!("value type {ty}"), "0 to 12"]);
    }
    for length in [2, 1 << 30, 1 << 63, u64::MAX] {
        let value = [&length.to_le_bytes()[..], b"a"].concat();
        let mut file = File::default().pair("k", 8, &value);
        file.alignment = 1;
        refused(&file, &["the string of key \"k\"", &format!("needs {length} bytes"), "found 1 until the end"]);
    }
    refused(&File::default().pair("k", 7, [2]), &["key \"k\" is a bool", "found 2"]);
    refused(&File::default().pair("k", 9, array(7, 2, &[1, 3])), &["element 1 of the bool array", "found 3"]);
    for ty in [0, 2, 4, 8, 9, 10] {
        let mut file = File::default().pair("k", ty, []);
        file.alignment = 1;
        refused(&file, &["key \"k\"", "damaged or not complete"]);
    }
}

#[test]
fn arrays() {
    refused(&File::default().pair("k", 9, array(13, 1, &[0; 8])), &["element type 13"]);
    refused(&File::default().pair("k", 9, array(9, 1, &array(0, 1, &[1]))), &["array of arrays"]);
    let deep = array(9, 1, b"").repeat(100_000);
    refused(&File::default().pair("k", 9, deep), &["array of arrays"]);
    for count in [u64::MAX, 1 << 62, (1 << 61) + 1, 1 << 32] {
        for element in [0, 2, 4, 8, 10] {
            refused(&File::default().pair("k", 9, array(element, count, &[0; 8])), &["key \"k\" has", "too many"]);
        }
    }
    let strings = [string("a"), u64::MAX.to_le_bytes().to_vec()].concat();
    refused(&File::default().pair("k", 9, array(8, 2, &strings)), &["string 1 of the array of key \"k\""]);
}

#[test]
fn alignments() {
    let with = |alignment: u32| File::default().pair("general.alignment", 4, alignment.to_le_bytes());
    for alignment in [0, 3, 13, 48, 1 << 17, 1 << 31, u32::MAX] {
        refused(&with(alignment), &["\"general.alignment\"", "a power of two", &format!("found {alignment}")]);
    }
    for (ty, bytes) in [(5, 4), (10, 8)] {
        refused(&File::default().pair("general.alignment", ty, &32u64.to_le_bytes()[..bytes]), &["must be a u32"]);
    }
    refused(&File::default().pair("general.alignment", 8, string("32")), &["found string"]);
    for alignment in [1u32, 8, 64, 4096, 65_536] {
        let mut file = with(alignment).tensor("a", &[3], 0, vec![1; 12]).tensor("b", &[3], 0, vec![2; 12]);
        file.alignment = alignment as usize;
        let file = parse(file.bytes()).expect("a valid file");
        assert_eq!(file.alignment(), u64::from(alignment));
        assert_eq!(file.tensor_data(file.tensor("b").unwrap()), [2; 12]);
    }
}

#[test]
fn tensor_records() {
    let one = |change: fn(&mut build::Tensor)| {
        let mut file = File::default().tensor("t", &[64, 2], 8, vec![0; 136]);
        change(&mut file.tensors[0]);
        file
    };
    refused(&one(|t| t.name = vec![b'n'; 64]), &["64 bytes", "at most 63"]);
    refused(&one(|t| t.name.clear()), &["the name of tensor 0", "not to be empty"]);
    refused(&one(|t| t.name = b"\xff".to_vec()), &["UTF-8"]);
    for dimensions in [0, 5, 1 << 20, u32::MAX] {
        let mut file = one(|_| {});
        file.tensors[0].dimensions = Some(dimensions);
        refused(&file, &["tensor \"t\"", &format!("{dimensions} dimensions, expected 1 to 4")]);
    }
    for ty in [4, 5, 31, 32, 33, 36, 37, 38, 43, 1000, 1 << 31, u32::MAX] {
        let mut file = one(|_| {});
        file.tensors[0].ty = ty;
        refused(&file, &["tensor \"t\"", &format!("type {ty} is not known to this version")]);
    }
    refused(&one(|t| t.shape = vec![64, 0]), &["tensor \"t\"", "dimension of 0"]);
    refused(&one(|t| t.shape = vec![33, 2]), &["rows of 33 weights", "32 of a Q8_0 block"]);
    let overflows: [&[u64]; 5] =
        [&[1 << 32, 1 << 32], &[256, (1 << 56) + 1], &[256, 1 << 54, 2], &[256, 1 << 16, 1 << 16, 1 << 24], &[1 << 63]];
    for shape in overflows {
        let mut file = one(|_| {});
        file.tensors[0].shape = shape.to_vec();
        refused(&file, &["tensor \"t\"", "2^63 elements or more"]);
    }
    refused(&one(|t| (t.shape, t.ty) = (vec![1 << 62], 0)), &["2^64 bytes or more"]);
    refused(&one(|t| t.shape = vec![64, 3]), &["bytes 0 to 204 of the data section, which ends at 160"]);
    refused(&one(|t| t.offset = Some(1)), &["offset 1", "multiple of the alignment 32"]);
    for offset in [u64::MAX - 31, 1 << 63, 160] {
        let mut file = one(|_| {});
        file.tensors[0].offset = Some(offset);
        refused(&file, &["tensor \"t\"", "of the data section, which ends at 160"]);
    }
    refused(&one(|_| {}).tensor("t", &[1], 24, vec![0]), &["tensor \"t\" occurs twice"]);
    let mut overlapping = one(|_| {}).tensor("u", &[1], 24, vec![0]);
    overlapping.tensors[1].offset = Some(128);
    refused(&overlapping, &["tensor \"u\" begins at 128", "inside tensor \"t\", which ends at 136"]);
    refused(&File { padding: 1, ..one(|_| {}) }, &["expected zeros"]);
}

#[test]
fn every_truncation_is_an_error_or_leaves_all_tensors_whole() {
    let bytes = sample().bytes();
    let end = bytes.len() - 31; // the last tensor has one byte
    for length in 0..bytes.len() {
        assert_eq!(parse(bytes[..length].to_vec()).is_ok(), length >= end, "{length} bytes");
    }
}

#[test]
fn order_of_data_and_holes_do_not_matter() {
    let mut file = File::default().tensor("a", &[32], 24, vec![1; 32]).tensor("b", &[32], 24, vec![2; 32]);
    (file.tensors[0].offset, file.tensors[1].offset) = (Some(32), Some(0));
    let parsed = parse(file.bytes()).expect("a valid file");
    assert_eq!(parsed.tensor_data(parsed.tensor("a").unwrap()), [2; 32]);
    let mut file = File::default().tensor("a", &[1], 24, vec![1; 96]);
    file.tensors[0].offset = Some(64);
    parse(file.bytes()).expect("a hole is allowed");
}

#[test]
fn files_are_shared_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<Gguf>();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..2000), header in any::<bool>()) {
        if header && bytes.len() >= 24 {
            bytes[..4].copy_from_slice(b"GGUF");
            bytes[4..8].copy_from_slice(&[3, 0, 0, 0]);
            bytes[9..16].fill(0);
            bytes[17..24].fill(0);
        }
        let _ = parse(bytes);
    }

    #[test]
    fn changed_files_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = sample().bytes();
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if let Ok(file) = parse(bytes) {
            for (key, value) in file.metadata() {
                prop_assert!(file.get(key).is_some());
                if let Value::Array(array) = value {
                    prop_assert_eq!(array.iter().count(), array.len());
                }
            }
            for tensor in file.tensors() {
                prop_assert_eq!(file.tensor_data(tensor).len() as u64, tensor.bytes);
            }
        }
    }
}
