//! Q5_K.

use super::BlockFormat;
use crate::Activation;

/// Q5_K: 256 weights in 176 bytes.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct Q5_K;

impl BlockFormat for Q5_K {
    const NAME: &'static str = "Q5_K";
    const ID: u32 = 13;
    const BLOCK: usize = 256;
    const BYTES: usize = 176;
    const ACTIVATION: Activation = Activation::Super256;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let _ = (block, out);
    }

    fn quantize(values: &[f32], block: &mut [u8]) {
        let _ = (values, block);
    }
}
