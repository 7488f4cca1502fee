//! Finds the weights that made a computation not finite. Only run after the fact: it reads every number it is asked about.

use super::logits::all_finite;
use crate::gguf::Gguf;

/// The first tensor whose name begins with `prefix` and that holds a NaN or an infinity.
pub(super) fn damaged_tensor<'a>(file: &'a Gguf, prefix: &str) -> Option<&'a str> {
    file.tensors().iter().filter(|tensor| tensor.name.starts_with(prefix)).find_map(|tensor| {
        let format = tensor.ty.kernel()?;
        let (block, bytes) = (format.info().block, format.info().bytes);
        // Many blocks at a time, so that the calls do not dominate.
        let mut values = vec![0.0; block * 256];
        let damaged = file.tensor_data(tensor).chunks(bytes * 256).any(|blocks| {
            let values = &mut values[..blocks.len() / bytes * block];
            format.dequantize(blocks, values);
            !all_finite(values)
        });
        damaged.then_some(tensor.name.as_str())
    })
}

/// What to say about values that are not finite after `place`, computed with the tensors of `prefixes`.
pub(super) fn diagnosis(file: &Gguf, position: usize, place: &str, prefixes: &[&str]) -> String {
    let path = file.path().display();
    match prefixes.iter().find_map(|prefix| damaged_tensor(file, prefix)) {
        Some(tensor) => format!(
            "{path}: tensor {tensor} holds values that are not finite (seen at position {position}, after {place}); fetch the file again"
        ),
        None => format!(
            "{path}: the values of position {position} overflow in {place}; the weights are damaged or badly quantized"
        ),
    }
}
