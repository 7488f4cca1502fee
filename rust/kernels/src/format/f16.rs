//! F16: a "block" is one IEEE binary16.
//!
//! ```text
//! sign (bit 15), exponent (14-10), fraction (9-0); little-endian
//! ```

use super::{BlockFormat, Quantizer, Scale};
use crate::isa::floats::Floats;
use crate::{Activation, LANES};
use crate::unpack::{Dense, Visitor, Weights};
use crate::half::{f16_to_f32, f32_to_f16};

/// F16: one IEEE binary16.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct F16;

impl BlockFormat for F16 {
    const NAME: &'static str = "F16";
    const ID: u32 = 1;
    const BLOCK: usize = 1;
    const BYTES: usize = 2;
    const ACTIVATION: Activation = Activation::F32;
    const SCALES: &'static [Scale] = &[];
    const QUANTIZER: Quantizer = Quantizer::Block(Self::quantize);

    fn dequantize(block: &[u8], out: &mut [f32]) {
        out[0] = f16_to_f32(u16::from_le_bytes([block[0], block[1]]));
    }
}

impl F16 {
    /// The [`Quantizer`].
    fn quantize(values: &[f32], block: &mut [u8]) {
        block.copy_from_slice(&f32_to_f16(values[0]).to_le_bytes());
    }
}

impl Weights for F16 {
    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.dense::<Self>()
    }
}

impl Dense for F16 {
    #[inline(always)]
    fn value(bytes: &[u8]) -> f32 {
        f16_to_f32(u16::from_le_bytes([bytes[0], bytes[1]]))
    }
    #[inline(always)]
    unsafe fn load<I: Floats>(isa: I, p: *const u8) -> I::F {
        // SAFETY: sixteen weights are readable; the read asks for no alignment. Levels are little-endian, as files are.
        isa.load_f16(&unsafe { p.cast::<[u16; LANES]>().read_unaligned() })
    }
}
