//! F32: a "block" is one IEEE binary32.
//!
//! ```text
//! four bytes, little-endian
//! ```

use super::{BlockFormat, Quantizer, Scale};
use crate::isa::floats::Floats;
use crate::{Activation, LANES};
use crate::unpack::{Dense, Visitor, Weights};

/// F32: one IEEE binary32.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct F32;

impl BlockFormat for F32 {
    const NAME: &'static str = "F32";
    const ID: u32 = 0;
    const BLOCK: usize = 1;
    const BYTES: usize = 4;
    const ACTIVATION: Activation = Activation::F32;
    const SCALES: &'static [Scale] = &[];
    const QUANTIZER: Quantizer = Quantizer::Block(Self::quantize);

    fn dequantize(block: &[u8], out: &mut [f32]) {
        out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
    }
}

impl F32 {
    /// The [`Quantizer`].
    fn quantize(values: &[f32], block: &mut [u8]) {
        block.copy_from_slice(&values[0].to_le_bytes());
    }
}

impl Weights for F32 {
    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.dense::<Self>()
    }
}

impl Dense for F32 {
    #[inline(always)]
    fn value(bytes: &[u8]) -> f32 {
        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
    #[inline(always)]
    unsafe fn load<I: Floats>(isa: I, p: *const u8) -> I::F {
        // SAFETY: sixteen weights are readable; the read asks for no alignment. Levels are little-endian, as files are.
        isa.load(&unsafe { p.cast::<[f32; LANES]>().read_unaligned() })
    }
}
