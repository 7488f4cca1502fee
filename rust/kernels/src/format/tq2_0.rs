//! TQ2_0: 256 weights `d * q` with two bits each, meant for -1, 0 and 1, 2.0625 bits per weight.
//!
//! ```text
//! byte  0                               64       66
//!       | qs: 64 bytes                  | d f16  |
//! byte 32 h + l: bits 2 s + 1, 2 s = weight 128 h + 32 s + l              (h < 2, s < 4, l < 32)
//! weight = d * (bits - 1)
//! ```

use core::mem::offset_of;

use super::layout::{Half, SUPER, block, crumbs, pack_crumbs};
use super::{BlockFormat, Quantizer, Scale, ternary};
use crate::Activation;
use crate::ahead::Head;
use crate::isa::integers::Integers;
use crate::unpack::{PlainSuperBlock, Rows, Sink, SuperBlocks, SuperScales, Visitor, Weights};

/// TQ2_0: 256 weights in 66 bytes, one scale.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct TQ2_0;

block! { TQ2_0 {
    /// Weights plus one, as [`crumbs`]. The quantizer uses 0 to 2, a file may hold 3.
    qs: [u8; 64],
    /// Scale.
    d: Half,
} }

impl Block {
    /// The integers, -1..=2.
    #[inline(always)]
    pub(crate) fn quants(&self) -> [i8; SUPER] {
        crumbs(&self.qs).map(|q| q as i8 - 1)
    }
}

impl BlockFormat for TQ2_0 {
    const NAME: &'static str = "TQ2_0";
    const ID: u32 = 35;
    const BLOCK: usize = SUPER;
    const BYTES: usize = 66;
    const ACTIVATION: Activation = Activation::Super256;
    const SCALES: &'static [Scale] = &[Scale::Half(offset_of!(Block, d))];
    const QUANTIZER: Quantizer = Quantizer::Block(Self::quantize);

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let block = Block::of(block);
        let d = block.d.get();
        for (out, q) in out.iter_mut().zip(block.quants()) {
            *out = d * f32::from(q);
        }
    }
}

impl TQ2_0 {
    /// The [`Quantizer`].
    fn quantize(values: &[f32], block: &mut [u8]) {
        let block = Block::of_mut(block);
        let (d, digits) = ternary::encode(values);
        block.d.set(d);
        block.qs = pack_crumbs(&digits);
    }
}

impl Weights for TQ2_0 {
    // `d` is the upper half: nothing follows it.
    const WORDS: &'static [usize] = &[offset_of!(Block, d) - 2];

    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.super_blocks::<Self>()
    }
}

impl SuperBlocks for TQ2_0 {
    const OFFSET: i32 = 1;
    const PEAK: u32 = 3;
    const MINIMA: bool = false;
    const SCALE_PEAK: u32 = 1;

    fn decode(block: &[u8]) -> PlainSuperBlock {
        let block = Block::of(block);
        PlainSuperBlock::without_minima(block.quants(), [1; 16], block.d.get())
    }

    #[inline(always)]
    unsafe fn scales<I: Integers>(isa: I, _rows: Rows, head: Head<'_>) -> SuperScales<I> {
        ternary::scales(isa, isa.upper_halves(head.word(isa, 0)))
    }

    #[inline(always)]
    unsafe fn unpack<I: Integers>(isa: I, rows: Rows, _head: Head<'_>, sink: &mut impl Sink<I>) {
        for i in 0..4 {
            let (h, l) = (i / 2, i % 2);
            // SAFETY: the crumbs are 64 bytes of each block.
            let packed = unsafe { isa.chunk(rows.at(offset_of!(Block, qs) + 16 * i)) };
            sink.take_fields::<0, 0x03>(isa, 8 * h + l, packed);
            sink.take_fields::<2, 0x03>(isa, 8 * h + 2 + l, packed);
            sink.take_fields::<4, 0x03>(isa, 8 * h + 4 + l, packed);
            sink.take_fields::<6, 0x03>(isa, 8 * h + 6 + l, packed);
        }
    }
}
