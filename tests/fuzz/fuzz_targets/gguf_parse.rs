//! Any bytes as a model file: parsed, and if they are one, everything in it is looked at.
#![no_main]

use std::path::Path;

use fastq_core::Error;
use fastq_core::gguf::{Gguf, Value};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let file = match Gguf::parse(Path::new("fuzz.gguf"), bytes.to_vec().into()) {
        Ok(file) => file,
        Err(Error::ModelFile { what, .. }) => return assert!(!what.is_empty()),
        Err(other) => panic!("expected a model file error, found {other:?}"),
    };
    for (key, value) in file.metadata() {
        assert_eq!(file.get(key).map(Value::ty), Some(value.ty()));
        let _ = (file.str(key), file.bool(key), file.u32(key), file.usize(key), file.i64(key), file.f32(key));
        let _ = (file.i32s(key), file.f32s(key), file.bools(key), file.usizes(key));
        if let Value::Array(array) = value {
            assert_eq!(array.iter().count(), array.len());
            assert!(array.strings().is_none_or(|strings| strings.iter().count() == array.len()));
        }
    }
    let mut total = 0;
    for tensor in file.tensors() {
        let data = file.tensor_data(tensor);
        assert_eq!(data.len() as u64, tensor.bytes);
        assert_eq!(tensor.ty.row_bytes(tensor.k()).and_then(|row| row.checked_mul(tensor.rows())), Some(tensor.bytes));
        assert_eq!(file.tensor(&tensor.name), Some(tensor));
        total += data.len();
        std::hint::black_box((data.first(), data.last()));
    }
    assert!(total <= bytes.len(), "tensors overlap");
});
