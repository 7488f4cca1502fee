//! Q5_0: 32 weights `d * q` with five-bit integers, 5.5 bits per weight.
//!
//! ```text
//! byte  0        2             6                         22
//!       | d f16  | qh: 4 bytes | qs: 16 bytes            |
//! byte 6 + i:    bits 7-4 = weight 16 + i bits 3-0,  bits 3-0 = weight i bits 3-0          (i < 16)
//! byte 2 + j:    bit b = weight 8 j + b bit 4                                              (j < 4)
//! weight = d * (bits - 16)
//! ```

use core::mem::offset_of;

use super::layout::{Half, block, fifth_bits, nibbles, pack_fifth_bits, pack_nibbles};
use super::round::{peak, reciprocal, truncate};
use super::search::quantize_signed;
use super::parts::{Grid, Levels, Minima, Parts, Precision, ScalarFormat, ScalarGrid};
use super::{BlockFormat, Quantizer, Scale};
use crate::{Activation, Cpu};
use crate::ahead::Head;
use crate::isa::integers::Integers;
use crate::unpack::{Blocks, PlainBlock, Rows, Sink, Visitor, Weights};

/// Q5_0: 32 weights in 22 bytes, one scale.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct Q5_0;

block! { Q5_0 {
    /// Scale.
    d: Half,
    /// Bit 4 of the weights, as [`fifth_bits`].
    qh: [u8; 4],
    /// Bits 3-0 of the weights, as [`nibbles`].
    qs: [u8; 16],
} }

/// The stored value that stands for zero.
pub(crate) const ZERO: i8 = 16;

impl Block {
    /// The integers, -16..16.
    #[inline(always)]
    pub(crate) fn quants(&self) -> [i8; 32] {
        let (low, high) = (nibbles(&self.qs), fifth_bits(&self.qh));
        core::array::from_fn(|i| (low[i] | high[i]) as i8 - ZERO)
    }
}

impl BlockFormat for Q5_0 {
    const NAME: &'static str = "Q5_0";
    const ID: u32 = 6;
    const BLOCK: usize = 32;
    const BYTES: usize = 22;
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

impl Q5_0 {
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
            block.qh = pack_fifth_bits(levels);
        });
    }

    fn quantize_plain(values: &[f32; 32], block: &mut Block) {
        let d = peak(values) / -16.0;
        let inverse = reciprocal(d);
        block.d.set(d);
        let levels = values.map(|value| (truncate(value * inverse + 16.5) as i8).min(31) as u8);
        block.qs = pack_nibbles(&levels);
        block.qh = pack_fifth_bits(&levels);
    }
}

impl ScalarGrid for Q5_0 {
    const GRID: Grid = Grid {
        block: 32,
        sub: 32,
        levels: Levels::Range(-16, 15),
        scales: None,
        minima: Minima::None,
        precision: Precision::Half,
    };

    fn assemble(parts: &Parts, block: &mut [u8]) {
        let block = Block::of_mut(block);
        let codes = parts.codes(16);
        block.d.set(parts.d);
        block.qh = pack_fifth_bits(&codes);
        block.qs = pack_nibbles(&codes);
    }
}

impl Weights for Q5_0 {
    const WORDS: &'static [usize] = &[0, offset_of!(Block, qh)];

    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.blocks::<Self>()
    }
}

impl Blocks for Q5_0 {
    const OFFSET: i32 = ZERO as i32;
    const PEAK: u32 = 31;

    fn decode(block: &[u8], _part: usize) -> PlainBlock {
        let block = Block::of(block);
        PlainBlock { quants: block.quants(), d: block.d.get(), m: 0.0 }
    }

    #[inline(always)]
    fn scales<I: Integers>(isa: I, head: Head<'_>, _part: usize) -> (I::Floats, I::Floats) {
        let d = isa.lower_halves(head.word(isa, 0));
        (d, d)
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
