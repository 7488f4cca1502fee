//! F16.

use super::BlockFormat;
use crate::Activation;

/// F16: 1 weights in 2 bytes.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct F16;

impl BlockFormat for F16 {
    const NAME: &'static str = "F16";
    const ID: u32 = 1;
    const BLOCK: usize = 1;
    const BYTES: usize = 2;
    const ACTIVATION: Activation = Activation::F32;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let _ = (block, out);
    }

    fn quantize(values: &[f32], block: &mut [u8]) {
        let _ = (values, block);
    }
}
