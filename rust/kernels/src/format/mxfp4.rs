//! MXFP4: 32 four-bit floats with a power of two as scale (OCP Microscaling Formats 1.0), 4.25 bits per weight.
//!
//! ```text
//! byte  0        1                                       17
//!       | e E8M0 | qs: 16 bytes                          |
//! byte 1 + i:    bits 7-4 = weight 16 + i,  bits 3-0 = weight i          (i < 16)
//! weight = 2^(e - 128) * LEVELS[bits]
//! ```

use core::mem::offset_of;

use super::parts::{Grid, Levels, Minima, Parts, Precision, ScalarFormat, ScalarGrid};
use super::{BlockFormat, Quantizer, Scale};
use super::float4::{PEAK, UNSIGNED, ZERO, decode, e8m0_of, half_of_e8m0, nearest_level, VALUES};
use super::layout::{block, nibbles, pack_nibbles};
use super::round::peak;
use crate::Activation;
use crate::ahead::Head;
use crate::isa::integers::Integers;
use crate::unpack::{Blocks, PlainBlock, Rows, Sink, Visitor, Weights};

/// MXFP4: 32 weights in 17 bytes, one scale.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct MXFP4;

block! { MXFP4 {
    /// Twice the scale, as E8M0.
    e: [u8; 1],
    /// E2M1 floats, as [`nibbles`].
    qs: [u8; 16],
} }

impl Block {
    /// The scale.
    #[inline(always)]
    pub(crate) fn d(&self) -> f32 {
        half_of_e8m0(self.e[0])
    }

    /// The doubled weights, -12..=12.
    #[inline(always)]
    pub(crate) fn quants(&self) -> [i8; 32] {
        decode(nibbles(&self.qs))
    }
}

impl BlockFormat for MXFP4 {
    const NAME: &'static str = "MXFP4";
    const ID: u32 = 39;
    const BLOCK: usize = 32;
    const BYTES: usize = 17;
    const ACTIVATION: Activation = Activation::Block32;
    const SCALAR: Option<ScalarFormat> = Some(ScalarFormat::of::<Self>());
    const SCALES: &'static [Scale] = &[Scale::Exponent(offset_of!(Block, e))];
    const QUANTIZER: Quantizer = Quantizer::Block(Self::quantize);

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let block = Block::of(block);
        let d = block.d();
        for (out, q) in out.iter_mut().zip(block.quants()) {
            *out = d * f32::from(q);
        }
    }
}

impl MXFP4 {
    /// A block whose scale and 32 four-bit floats are known; the scale is E8M0 as in the specification, which is twice that of
    /// the doubled weights. Levels are below 16.
    ///
    /// # Panics
    /// When `block` does not have [`BYTES`](BlockFormat::BYTES) bytes.
    pub fn from_levels(levels: &[u8; 32], scale: u8, block: &mut [u8]) {
        let block = Block::of_mut(block);
        block.e = [scale];
        block.qs = pack_nibbles(levels);
    }

    /// The [`Quantizer`].
    fn quantize(values: &[f32], block: &mut [u8]) {
        let block = Block::of_mut(block);
        block.e = [e8m0_of(peak(values).abs())];
        let d = block.d();
        let levels: [u8; 32] = core::array::from_fn(|i| nearest_level(values[i], d));
        block.qs = pack_nibbles(&levels);
    }
}

impl ScalarGrid for MXFP4 {
    const GRID: Grid = Grid {
        block: 32,
        sub: 32,
        levels: Levels::Table(&VALUES),
        scales: None,
        minima: Minima::None,
        precision: Precision::Exponent,
    };

    fn assemble(parts: &Parts, block: &mut [u8]) {
        Scale::Exponent(offset_of!(Block, e)).set(block, parts.d);
        let block = Block::of_mut(block);
        block.qs = pack_nibbles(&core::array::from_fn(|i| nearest_level(parts.values[i] as f32, 1.0)));
    }
}

impl Weights for MXFP4 {
    const WORDS: &'static [usize] = &[offset_of!(Block, e)];

    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.blocks::<Self>()
    }
}

impl Blocks for MXFP4 {
    const OFFSET: i32 = ZERO as i32;
    const PEAK: u32 = PEAK;

    fn decode(block: &[u8], _part: usize) -> PlainBlock {
        let block = Block::of(block);
        PlainBlock { quants: block.quants(), d: block.d(), m: 0.0 }
    }

    #[inline(always)]
    fn scales<I: Integers>(isa: I, head: Head<'_>, _part: usize) -> (I::Floats, I::Floats) {
        let d = isa.exponents(head.word(isa, 0));
        (d, d)
    }

    #[inline(always)]
    unsafe fn unpack<I: Integers>(isa: I, rows: Rows, _head: Head<'_>, _part: usize, sink: &mut impl Sink<I>) {
        let table = isa.table(&UNSIGNED);
        // SAFETY: the nibbles are 16 bytes of each block.
        let packed = unsafe { isa.chunk(rows.at(offset_of!(Block, qs))) };
        sink.take(isa, 0, isa.look_up_each::<0>(table, packed));
        sink.take(isa, 1, isa.look_up_each::<4>(table, packed));
    }
}
