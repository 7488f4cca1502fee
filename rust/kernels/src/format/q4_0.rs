//! Q4_0: 32 weights `d * q` with four-bit integers, 4.5 bits per weight.
//!
//! ```text
//! byte  0        2                                       18
//!       | d f16  | qs: 16 bytes                          |
//! byte 2 + i:    bits 7-4 = weight 16 + i,  bits 3-0 = weight i          (i < 16)
//! weight = d * (bits - 8)
//! ```

use core::mem::offset_of;

use super::layout::{Half, block, nibbles, pack_nibbles};
use super::round::{peak, reciprocal, truncate};
use super::search::quantize_signed;
use super::parts::{Grid, Levels, Minima, Parts, Precision, ScalarFormat, ScalarGrid};
use super::{BlockFormat, Quantizer, Scale};
use crate::{Activation, Cpu};
use crate::ahead::Head;
use crate::isa::integers::Integers;
use crate::unpack::{Blocks, PlainBlock, Rows, Sink, Visitor, Weights};

/// Q4_0: 32 weights in 18 bytes, one scale.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct Q4_0;

block! { Q4_0 {
    /// Scale.
    d: Half,
    /// Weights plus [`ZERO`], as [`nibbles`].
    qs: [u8; 16],
} }

/// The stored value that stands for zero.
pub(crate) const ZERO: i8 = 8;

impl Block {
    /// The integers, -8..8.
    #[inline(always)]
    pub(crate) fn quants(&self) -> [i8; 32] {
        nibbles(&self.qs).map(|q| q as i8 - ZERO)
    }
}

impl BlockFormat for Q4_0 {
    const NAME: &'static str = "Q4_0";
    const ID: u32 = 2;
    const BLOCK: usize = 32;
    const BYTES: usize = 18;
    const ACTIVATION: Activation = Activation::Block32;
    const SCALAR: Option<ScalarFormat> = Some(ScalarFormat::of::<Self>());
    const SCALES: &'static [Scale] = &[Scale::Half(offset_of!(Block, d))];
    const QUANTIZER: Quantizer = Quantizer::Row(Self::quantize);

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let block = Block::of(block);
        let d = block.d.get();
        for (out, q) in out.iter_mut().zip(block.quants()) {
            *out = d * f32::from(q);
        }
    }
}

impl Q4_0 {
    /// A block of integers that are known: weights `d * (level - 8)`, with `d` rounded to f16. Levels are below 16.
    ///
    /// # Panics
    /// When `block` does not have [`BYTES`](BlockFormat::BYTES) bytes.
    pub fn from_levels(levels: &[u8; 32], d: f32, block: &mut [u8]) {
        let block = Block::of_mut(block);
        block.d.set(d);
        block.qs = pack_nibbles(levels);
    }

    /// The [`Quantizer`].
    fn quantize(cpu: Cpu, values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
        let blocks = out.as_chunks_mut::<{ Self::BYTES }>().0;
        let Some(importance) = importance else {
            for (values, block) in values.as_chunks().0.iter().zip(blocks) {
                Self::quantize_plain(values, Block::of_mut(block));
            }
            return;
        };
        quantize_signed(cpu, i32::from(ZERO), values, importance, |i, d, levels| {
            let block = Block::of_mut(&mut blocks[i]);
            block.d.set(d);
            block.qs = pack_nibbles(levels);
        });
    }

    fn quantize_plain(values: &[f32; 32], block: &mut Block) {
        let d = peak(values) / -8.0;
        let inverse = reciprocal(d);
        block.d.set(d);
        let levels = values.map(|value| (truncate(value * inverse + 8.5) as i8).min(15) as u8);
        block.qs = pack_nibbles(&levels);
    }
}

impl ScalarGrid for Q4_0 {
    const GRID: Grid = Grid {
        block: 32,
        sub: 32,
        levels: Levels::Range(-8, 7),
        scales: None,
        minima: Minima::None,
        precision: Precision::Half,
    };

    fn assemble(parts: &Parts, block: &mut [u8]) {
        let block = Block::of_mut(block);
        block.d.set(parts.d);
        block.qs = pack_nibbles(&parts.codes(8));
    }
}

impl Weights for Q4_0 {
    const WORDS: &'static [usize] = &[0];
    const BODY: usize = offset_of!(Block, qs);

    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.blocks::<Self>()
    }
}

impl Blocks for Q4_0 {
    const OFFSET: i32 = ZERO as i32;
    const PEAK: u32 = 15;

    fn decode(block: &[u8], _part: usize) -> PlainBlock {
        let block = Block::of(block);
        PlainBlock { quants: block.quants(), d: block.d.get(), m: 0.0 }
    }

    #[inline(always)]
    fn scales<I: Integers>(isa: I, head: Head<'_>, _part: usize) -> (I::Floats, I::Floats) {
        let d = head.half(isa, 0);
        (d, d)
    }

    #[inline(always)]
    unsafe fn unpack<I: Integers>(isa: I, rows: Rows, _head: Head<'_>, _part: usize, sink: &mut impl Sink<I>) {
        // SAFETY: the nibbles are 16 bytes of each block.
        let packed = unsafe { isa.chunk(rows.at(offset_of!(Block, qs))) };
        sink.take(isa, 0, isa.low_nibbles(packed));
        sink.take_fields::<4, 0x0f>(isa, 1, packed);
    }
}
