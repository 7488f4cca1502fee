//! BF16.

use super::BlockFormat;
use crate::Activation;

/// BF16: 1 weights in 2 bytes.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct BF16;

impl BlockFormat for BF16 {
    const NAME: &'static str = "BF16";
    const ID: u32 = 30;
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
