//! BF16: a "block" is one bfloat16, the upper half of a binary32.
//!
//! ```text
//! sign (bit 15), exponent (14-7), fraction (6-0); little-endian
//! ```

use super::{BlockFormat, Quantizer, Scale};
use crate::isa::floats::Floats;
use crate::{Activation, LANES};
use crate::unpack::{Dense, Visitor, Weights};
use crate::half::{bf16_to_f32, f32_to_bf16};

/// BF16: one bfloat16, the upper half of a binary32.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct BF16;

impl BlockFormat for BF16 {
    const NAME: &'static str = "BF16";
    const ID: u32 = 30;
    const BLOCK: usize = 1;
    const BYTES: usize = 2;
    const ACTIVATION: Activation = Activation::F32;
    const SCALES: &'static [Scale] = &[];
    const QUANTIZER: Quantizer = Quantizer::Block(Self::quantize);

    fn dequantize(block: &[u8], out: &mut [f32]) {
        out[0] = bf16_to_f32(u16::from_le_bytes([block[0], block[1]]));
    }
}

impl BF16 {
    /// The [`Quantizer`].
    fn quantize(values: &[f32], block: &mut [u8]) {
        block.copy_from_slice(&f32_to_bf16(values[0]).to_le_bytes());
    }
}

impl Weights for BF16 {
    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.dense::<Self>()
    }
}

impl Dense for BF16 {
    #[inline(always)]
    fn value(bytes: &[u8]) -> f32 {
        bf16_to_f32(u16::from_le_bytes([bytes[0], bytes[1]]))
    }
    #[inline(always)]
    unsafe fn load<I: Floats>(isa: I, p: *const u8) -> I::F {
        // SAFETY: sixteen weights are readable; the read asks for no alignment. Levels are little-endian, as files are.
        isa.load_bf16(&unsafe { p.cast::<[u16; LANES]>().read_unaligned() })
    }
}
