//! IQ4_NL: 32 weights `d * level` with four bits each for sixteen levels, 4.5 bits per weight.
//!
//! ```text
//! byte  0        2                                       18
//!       | d f16  | qs: 16 bytes                          |
//! byte 2 + i:    bits 7-4 = weight 16 + i,  bits 3-0 = weight i          (i < 16)
//! weight = d * LEVELS[bits]
//! ```

use core::mem::offset_of;

use super::parts::{Grid, Levels, Minima, Parts, Precision, ScalarFormat, ScalarGrid};
use super::{BlockFormat, Quantizer, Scale};
use super::layout::{Half, block, nibbles, pack_nibbles};
use super::nonlinear::{LEVELS, codes, decode, encode, signed_table};
use super::search::nonlinear::fit_scales;
use super::search::squares;
use crate::{Activation, Cpu, LANES};
use crate::ahead::Head;
use crate::isa::integers::Integers;
use crate::unpack::{Blocks, PlainBlock, Rows, SIGNED, Sink, Visitor, Weights};

/// IQ4_NL: 32 weights in 18 bytes, one scale.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct IQ4_NL;

block! { IQ4_NL {
    /// Scale.
    d: Half,
    /// Numbers of levels, as [`nibbles`].
    qs: [u8; 16],
} }

impl Block {
    /// The levels, -127..=113.
    #[inline(always)]
    pub(crate) fn quants(&self) -> [i8; 32] {
        decode(nibbles(&self.qs))
    }
}

impl BlockFormat for IQ4_NL {
    const NAME: &'static str = "IQ4_NL";
    const ID: u32 = 20;
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

impl IQ4_NL {
    /// The [`Quantizer`].
    fn quantize(cpu: Cpu, values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
        let importance = importance.map(|importance| importance.as_chunks::<32>().0);
        let groups = values.as_chunks::<32>().0.chunks(LANES).zip(out.chunks_mut(LANES * Self::BYTES));
        for (group, (x, out)) in groups.enumerate() {
            let importance = importance.map(|importance| &importance[LANES * group..][..x.len()]);
            let scales = fit_scales(cpu, x, importance, |j| squares(&x[j]) * (2.0 / 32.0));
            for ((x, d), out) in x.iter().zip(scales).zip(out.chunks_exact_mut(Self::BYTES)) {
                let block = Block::of_mut(out);
                block.d.set(d);
                // With the scale as it was found, not as it is stored: as the reference.
                block.qs = pack_nibbles(&encode(x, d));
            }
        }
    }
}

impl ScalarGrid for IQ4_NL {
    const GRID: Grid = Grid {
        block: 32,
        sub: 32,
        levels: Levels::Table(&LEVELS),
        scales: None,
        minima: Minima::None,
        precision: Precision::Half,
    };

    fn assemble(parts: &Parts, block: &mut [u8]) {
        let block = Block::of_mut(block);
        block.d.set(parts.d);
        block.qs = pack_nibbles(&codes(&parts.values));
    }
}

impl Weights for IQ4_NL {
    const WORDS: &'static [usize] = &[0];
    const BODY: usize = offset_of!(Block, qs);

    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.blocks::<Self>()
    }
}

impl Blocks for IQ4_NL {
    const OFFSET: i32 = 0;
    const PEAK: u32 = SIGNED;

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
        let table = isa.table(const { &signed_table::<I>() });
        // SAFETY: the nibbles are 16 bytes of each block.
        let packed = unsafe { isa.chunk(rows.at(offset_of!(Block, qs))) };
        sink.take(isa, 0, isa.look_up_each::<0>(table, packed));
        sink.take(isa, 1, isa.look_up_each::<4>(table, packed));
    }
}
