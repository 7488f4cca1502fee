//! Q5_0.

use super::BlockFormat;
use crate::Activation;

/// Q5_0: 32 weights in 22 bytes.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct Q5_0;

impl BlockFormat for Q5_0 {
    const NAME: &'static str = "Q5_0";
    const ID: u32 = 6;
    const BLOCK: usize = 32;
    const BYTES: usize = 22;
    const ACTIVATION: Activation = Activation::Block32;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let _ = (block, out);
    }

    fn quantize(values: &[f32], block: &mut [u8]) {
        let _ = (values, block);
    }
}
