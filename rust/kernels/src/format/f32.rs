//! F32.

use super::BlockFormat;
use crate::Activation;

/// F32: 1 weights in 4 bytes.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct F32;

impl BlockFormat for F32 {
    const NAME: &'static str = "F32";
    const ID: u32 = 0;
    const BLOCK: usize = 1;
    const BYTES: usize = 4;
    const ACTIVATION: Activation = Activation::F32;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let _ = (block, out);
    }

    fn quantize(values: &[f32], block: &mut [u8]) {
        let _ = (values, block);
    }
}
