//! Q4_1: 32 weights `d * q + m` with four-bit integers, 5 bits per weight.
//!
//! ```text
//! byte  0        2        4                              20
//!       | d f16  | m f16  | qs: 16 bytes                 |
//! byte 4 + i:    bits 7-4 = weight 16 + i,  bits 3-0 = weight i          (i < 16)
//! weight = d * bits + m
//! ```

use core::mem::offset_of;

use super::layout::{Half, block, nibbles, pack_nibbles};
use super::round::{extremes, reciprocal, truncate};
use super::search::quantize_with_minimum;
use super::parts::{Grid, Levels, Minima, Parts, Precision, ScalarFormat, ScalarGrid};
use super::{BlockFormat, Quantizer, Scale};
use crate::{Activation, Cpu};
use crate::ahead::Head;
use crate::isa::integers::Integers;
use crate::unpack::{Blocks, PlainBlock, Rows, Sink, Visitor, Weights};

/// Q4_1: 32 weights in 20 bytes, one scale and one minimum.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct Q4_1;

block! { Q4_1 {
    /// Scale.
    d: Half,
    /// Minimum, added.
    m: Half,
    /// Weights as [`nibbles`].
    qs: [u8; 16],
} }

impl Block {
    /// The integers, 0..16.
    #[inline(always)]
    pub(crate) fn quants(&self) -> [u8; 32] {
        nibbles(&self.qs)
    }
}

impl BlockFormat for Q4_1 {
    const NAME: &'static str = "Q4_1";
    const ID: u32 = 3;
    const BLOCK: usize = 32;
    const BYTES: usize = 20;
    const ACTIVATION: Activation = Activation::Block32;
    const SCALAR: Option<ScalarFormat> = Some(ScalarFormat::of::<Self>());
    const SCALES: &'static [Scale] = &[Scale::Half(offset_of!(Block, d)), Scale::Half(offset_of!(Block, m))];
    const QUANTIZER: Quantizer = Quantizer::Row(Self::quantize);

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let block = Block::of(block);
        let (d, m) = (block.d.get(), block.m.get());
        for (out, q) in out.iter_mut().zip(block.quants()) {
            *out = d * f32::from(q) + m;
        }
    }
}

impl Q4_1 {
    /// A block of integers that are known: weights `d * level + m`, with `d` and `m` rounded to f16. Levels are below 16.
    ///
    /// # Panics
    /// When `block` does not have [`BYTES`](BlockFormat::BYTES) bytes.
    pub fn from_levels(levels: &[u8; 32], d: f32, m: f32, block: &mut [u8]) {
        let block = Block::of_mut(block);
        block.d.set(d);
        block.m.set(m);
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
        quantize_with_minimum(cpu, 15, values, importance, |i, fit, levels| {
            let block = Block::of_mut(&mut blocks[i]);
            block.d.set(fit.scale);
            block.m.set(-fit.min);
            block.qs = pack_nibbles(levels);
        });
    }

    fn quantize_plain(values: &[f32; 32], block: &mut Block) {
        let (min, max) = extremes(values);
        let d = (max - min) / 15.0;
        let inverse = reciprocal(d);
        block.d.set(d);
        block.m.set(min);
        let levels = values.map(|value| (truncate((value - min) * inverse + 0.5) as i8).min(15) as u8);
        block.qs = pack_nibbles(&levels);
    }
}

impl ScalarGrid for Q4_1 {
    const GRID: Grid = Grid {
        block: 32,
        sub: 32,
        levels: Levels::Range(0, 15),
        scales: None,
        minima: Minima::Free,
        precision: Precision::Half,
    };

    fn assemble(parts: &Parts, block: &mut [u8]) {
        let block = Block::of_mut(block);
        block.d.set(parts.d);
        block.m.set(-parts.dmin);
        block.qs = pack_nibbles(&parts.codes(0));
    }
}

impl Weights for Q4_1 {
    const WORDS: &'static [usize] = &[0];
    const BODY: usize = offset_of!(Block, qs);

    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.blocks::<Self>()
    }
}

impl Blocks for Q4_1 {
    const OFFSET: i32 = 0;
    const PEAK: u32 = 15;
    const MINIMUM: bool = true;

    fn decode(block: &[u8], _part: usize) -> PlainBlock {
        let block = Block::of(block);
        PlainBlock { quants: block.quants().map(|q| q as i8), d: block.d.get(), m: block.m.get() }
    }

    #[inline(always)]
    fn scales<I: Integers>(isa: I, head: Head<'_>, _part: usize) -> (I::Floats, I::Floats) {
        let halves = head.word(isa, 0);
        (isa.lower_halves(halves), isa.upper_halves(halves))
    }

    #[inline(always)]
    unsafe fn unpack<I: Integers>(isa: I, rows: Rows, _head: Head<'_>, _part: usize, sink: &mut impl Sink<I>) {
        // SAFETY: the nibbles are 16 bytes of each block.
        let packed = unsafe { isa.chunk(rows.at(offset_of!(Block, qs))) };
        sink.take(isa, 0, isa.low_nibbles(packed));
        sink.take_fields::<4, 0x0f>(isa, 1, packed);
    }
}
