//! Q5_1: 32 weights `d * q + m` with five-bit integers, 6 bits per weight.
//!
//! ```text
//! byte  0        2        4             8                24
//!       | d f16  | m f16  | qh: 4 bytes | qs: 16 bytes   |
//! byte 8 + i:    bits 7-4 = weight 16 + i bits 3-0,  bits 3-0 = weight i bits 3-0          (i < 16)
//! byte 4 + j:    bit b = weight 8 j + b bit 4                                              (j < 4)
//! weight = d * bits + m
//! ```

use core::mem::offset_of;

use super::layout::{Half, block, fifth_bits, nibbles, pack_fifth_bits, pack_nibbles};
use super::round::{extremes, reciprocal, truncate};
use super::search::quantize_with_minimum;
use super::parts::{Grid, Levels, Minima, Parts, Precision, ScalarFormat, ScalarGrid};
use super::{BlockFormat, Quantizer, Scale};
use crate::{Activation, Cpu};
use crate::ahead::Head;
use crate::isa::integers::Integers;
use crate::unpack::{Blocks, PlainBlock, Rows, Sink, Visitor, Weights};

/// Q5_1: 32 weights in 24 bytes, one scale and one minimum.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct Q5_1;

block! { Q5_1 {
    /// Scale.
    d: Half,
    /// Minimum, added.
    m: Half,
    /// Bit 4 of the weights, as [`fifth_bits`].
    qh: [u8; 4],
    /// Bits 3-0 of the weights, as [`nibbles`].
    qs: [u8; 16],
} }

impl Block {
    /// The integers, 0..32.
    #[inline(always)]
    pub(crate) fn quants(&self) -> [u8; 32] {
        let (low, high) = (nibbles(&self.qs), fifth_bits(&self.qh));
        core::array::from_fn(|i| low[i] | high[i])
    }
}

impl BlockFormat for Q5_1 {
    const NAME: &'static str = "Q5_1";
    const ID: u32 = 7;
    const BLOCK: usize = 32;
    const BYTES: usize = 24;
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

impl Q5_1 {
    /// The [`Quantizer`].
    fn quantize(cpu: Cpu, values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
        let blocks = out.as_chunks_mut::<{ Self::BYTES }>().0;
        let Some(importance) = importance else {
            for (values, block) in values.as_chunks().0.iter().zip(blocks) {
                Self::quantize_plain(values, Block::of_mut(block));
            }
            return;
        };
        quantize_with_minimum(cpu, 31, values, importance, |i, fit, levels| {
            let block = Block::of_mut(&mut blocks[i]);
            block.d.set(fit.scale);
            block.m.set(-fit.min);
            block.qs = pack_nibbles(levels);
            block.qh = pack_fifth_bits(levels);
        });
    }

    fn quantize_plain(values: &[f32; 32], block: &mut Block) {
        let (min, max) = extremes(values);
        let d = (max - min) / 31.0;
        let inverse = reciprocal(d);
        block.d.set(d);
        block.m.set(min);
        let levels = values.map(|value| truncate((value - min) * inverse + 0.5) as u8);
        block.qs = pack_nibbles(&levels);
        block.qh = pack_fifth_bits(&levels);
    }
}

impl ScalarGrid for Q5_1 {
    const GRID: Grid = Grid {
        block: 32,
        sub: 32,
        levels: Levels::Range(0, 31),
        scales: None,
        minima: Minima::Free,
        precision: Precision::Half,
    };

    fn assemble(parts: &Parts, block: &mut [u8]) {
        let block = Block::of_mut(block);
        let codes = parts.codes(0);
        block.d.set(parts.d);
        block.m.set(-parts.dmin);
        block.qh = pack_fifth_bits(&codes);
        block.qs = pack_nibbles(&codes);
    }
}

impl Weights for Q5_1 {
    const WORDS: &'static [usize] = &[0, offset_of!(Block, qh)];

    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.blocks::<Self>()
    }
}

impl Blocks for Q5_1 {
    const OFFSET: i32 = 0;
    const PEAK: u32 = 31;
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
    unsafe fn unpack<I: Integers>(isa: I, rows: Rows, head: Head<'_>, _part: usize, sink: &mut impl Sink<I>) {
        let high = head.word(isa, 1);
        // SAFETY: the nibbles are 16 bytes of each block.
        let packed = unsafe { isa.chunk(rows.at(offset_of!(Block, qs))) };
        sink.take(isa, 0, isa.or_each(isa.low_nibbles(packed), isa.sixteen_bits::<16>(high, 0)));
        sink.take(isa, 1, isa.or_each(isa.high_nibbles(packed), isa.sixteen_bits::<16>(high, 1)));
    }
}
