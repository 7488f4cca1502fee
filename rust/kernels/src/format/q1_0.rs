//! Q1_0: 128 weights `d` or `-d`, 1.125 bits per weight.
//!
//! ```text
//! byte  0        2                                       18
//!       | d f16  | qs: 16 bytes                          |
//! byte 2 + i:    bit b = weight 8 i + b                  (i < 16, b < 8)
//! weight = d * (2 bit - 1)
//! ```

use core::mem::offset_of;

use super::layout::{Half, block};
use super::{BlockFormat, Quantizer, Scale};
use crate::Activation;
use crate::ahead::Head;
use crate::isa::integers::Integers;
use crate::unpack::{Blocks, PlainBlock, Rows, Sink, Visitor, Weights};

/// Q1_0: 128 weights in 18 bytes, one scale.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct Q1_0;

block! { Q1_0 {
    /// Scale.
    d: Half,
    /// The bits of the weights, lowest first.
    qs: [u8; 16],
} }

impl Block {
    /// Weight `i` without its scale, -1 or 1.
    #[inline(always)]
    pub(crate) fn quant(&self, i: usize) -> i8 {
        ((self.qs[i / 8] >> (i % 8)) & 1) as i8 * 2 - 1
    }
}

impl BlockFormat for Q1_0 {
    const NAME: &'static str = "Q1_0";
    const ID: u32 = 41;
    const BLOCK: usize = 128;
    const BYTES: usize = 18;
    const ACTIVATION: Activation = Activation::Block32;
    const SCALES: &'static [Scale] = &[Scale::Half(offset_of!(Block, d))];
    const QUANTIZER: Quantizer = Quantizer::Block(Self::quantize);

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let block = Block::of(block);
        let d = block.d.get();
        for (i, out) in out.iter_mut().enumerate() {
            *out = d * f32::from(block.quant(i));
        }
    }
}

impl Q1_0 {
    /// The [`Quantizer`]: the mean magnitude, and the signs.
    fn quantize(values: &[f32], block: &mut [u8]) {
        let block = Block::of_mut(block);
        block.d.set(values.iter().fold(0.0, |sum, x| sum + x.abs()) / 128.0);
        block.qs = core::array::from_fn(|i| {
            let eight = &values[8 * i..8 * i + 8];
            eight.iter().rev().fold(0, |byte, &x| byte << 1 | u8::from(x >= 0.0))
        });
    }
}

impl Weights for Q1_0 {
    const WORDS: &'static [usize] = &[0, 2, 6, 10, 14];

    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.blocks::<Self>()
    }
}

impl Blocks for Q1_0 {
    const OFFSET: i32 = 1;
    const PEAK: u32 = 2;

    fn decode(block: &[u8], part: usize) -> PlainBlock {
        let block = Block::of(block);
        PlainBlock { quants: core::array::from_fn(|i| block.quant(32 * part + i)), d: block.d.get(), m: 0.0 }
    }

    #[inline(always)]
    fn scales<I: Integers>(isa: I, head: Head<'_>, _part: usize) -> (I::Floats, I::Floats) {
        let d = isa.lower_halves(head.word(isa, 0));
        (d, d)
    }

    #[inline(always)]
    unsafe fn unpack<I: Integers>(isa: I, _rows: Rows, head: Head<'_>, part: usize, sink: &mut impl Sink<I>) {
        let bits = head.word(isa, 1 + part);
        sink.take(isa, 0, isa.sixteen_bits::<2>(bits, 0));
        sink.take(isa, 1, isa.sixteen_bits::<2>(bits, 1));
    }
}
