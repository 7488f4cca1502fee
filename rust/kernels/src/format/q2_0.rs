//! Q2_0: 64 weights `d * q` with q from -1 to 2, 2.25 bits per weight.
//!
//! ```text
//! byte  0        2                                       18
//!       | d f16  | qs: 16 bytes                          |
//! byte 2 + i:    bits 2 s + 1, 2 s = weight 4 i + s      (i < 16, s < 4)
//! weight = d * (bits - 1)
//! ```

use core::mem::offset_of;

use super::layout::{Half, block};
use super::round::{peak, reciprocal, truncate};
use super::{BlockFormat, Quantizer, Scale};
use crate::Activation;
use crate::ahead::Head;
use crate::isa::integers::Integers;
use crate::unpack::{Blocks, PlainBlock, Rows, Sink, Visitor, Weights};

/// Q2_0: 64 weights in 18 bytes, one scale.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct Q2_0;

block! { Q2_0 {
    /// Scale.
    d: Half,
    /// Weights plus one, four to a byte.
    qs: [u8; 16],
} }

impl Block {
    /// Weight `i` without its scale, -1..=2.
    #[inline(always)]
    pub(crate) fn quant(&self, i: usize) -> i8 {
        ((self.qs[i / 4] >> (2 * (i % 4))) & 3) as i8 - 1
    }
}

impl BlockFormat for Q2_0 {
    const NAME: &'static str = "Q2_0";
    const ID: u32 = 42;
    const BLOCK: usize = 64;
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

impl Q2_0 {
    /// The [`Quantizer`]. The scale is the largest magnitude, so it never uses 2.
    fn quantize(values: &[f32], block: &mut [u8]) {
        let block = Block::of_mut(block);
        let d = peak(values).abs();
        let inverse = reciprocal(d);
        block.d.set(d);
        // Half away from zero.
        let level = |x: f32| truncate((x * inverse).round()).saturating_add(1).clamp(0, 3) as u8;
        block.qs = core::array::from_fn(|i| {
            let four = &values[4 * i..4 * i + 4];
            four.iter().rev().fold(0, |byte, &x| byte << 2 | level(x))
        });
    }
}

impl Weights for Q2_0 {
    const WORDS: &'static [usize] = &[0, 2, 6, 10, 14];

    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.blocks::<Self>()
    }
}

impl Blocks for Q2_0 {
    const OFFSET: i32 = 1;
    const PEAK: u32 = 3;

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
        for half in 0..2 {
            let packed = head.word(isa, 1 + 2 * part + half);
            let bytes = [
                isa.spread::<2, 0>(packed),
                isa.spread::<2, 8>(packed),
                isa.spread::<2, 16>(packed),
                isa.spread::<2, 24>(packed),
            ];
            sink.take(isa, half, isa.turn(bytes));
        }
    }
}
