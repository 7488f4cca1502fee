//! Q8_0: 32 weights `d * q` with bytes, 8.5 bits per weight.
//!
//! ```text
//! byte  0        2                                       34
//!       | d f16  | qs: 32 signed bytes                   |
//! weight i = d * byte 2 + i
//! ```

use core::mem::offset_of;

use super::layout::{Half, block};
use super::round::{peak, reciprocal, truncate};
use super::parts::{Grid, Levels, Minima, Parts, Precision, ScalarFormat, ScalarGrid};
use super::{BlockFormat, Quantizer, Scale};
use crate::Activation;
use crate::ahead::Head;
use crate::isa::integers::Integers;
use crate::unpack::{Blocks, PlainBlock, Rows, SIGNED, Sink, Visitor, Weights};

/// Q8_0: 32 weights in 34 bytes, one scale.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct Q8_0;

block! { Q8_0 {
    /// Scale.
    d: Half,
    /// The integers; the quantizer uses -127..=127, a file may hold -128.
    qs: [i8; 32],
} }

impl BlockFormat for Q8_0 {
    const NAME: &'static str = "Q8_0";
    const ID: u32 = 8;
    const BLOCK: usize = 32;
    const BYTES: usize = 34;
    const ACTIVATION: Activation = Activation::Block32;
    const SCALAR: Option<ScalarFormat> = Some(ScalarFormat::of::<Self>());
    const SCALES: &'static [Scale] = &[Scale::Half(offset_of!(Block, d))];
    const QUANTIZER: Quantizer = Quantizer::Block(Self::quantize);

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let block = Block::of(block);
        let d = block.d.get();
        for (out, q) in out.iter_mut().zip(block.qs) {
            *out = d * f32::from(q);
        }
    }
}

impl Q8_0 {
    /// The [`Quantizer`].
    fn quantize(values: &[f32], block: &mut [u8]) {
        let block = Block::of_mut(block);
        let d = peak(values).abs() / 127.0;
        let inverse = reciprocal(d);
        block.d.set(d);
        for (q, value) in block.qs.iter_mut().zip(values) {
            // Half away from zero, unlike the activations.
            *q = truncate((value * inverse).round()) as i8;
        }
    }
}

impl ScalarGrid for Q8_0 {
    const GRID: Grid = Grid {
        block: 32,
        sub: 32,
        levels: Levels::Range(-127, 127),
        scales: None,
        minima: Minima::None,
        precision: Precision::Half,
    };

    fn assemble(parts: &Parts, block: &mut [u8]) {
        let block = Block::of_mut(block);
        block.d.set(parts.d);
        block.qs = parts.codes(0).map(|code: u8| code as i8);
    }
}

impl Weights for Q8_0 {
    const WORDS: &'static [usize] = &[0];
    const BODY: usize = offset_of!(Block, qs);

    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.blocks::<Self>()
    }
}

impl Blocks for Q8_0 {
    const OFFSET: i32 = 0;
    const PEAK: u32 = SIGNED;

    fn decode(block: &[u8], _part: usize) -> PlainBlock {
        let block = Block::of(block);
        PlainBlock { quants: block.qs, d: block.d.get(), m: 0.0 }
    }

    #[inline(always)]
    fn scales<I: Integers>(isa: I, head: Head<'_>, _part: usize) -> (I::Floats, I::Floats) {
        let d = head.half(isa, 0);
        (d, d)
    }

    #[inline(always)]
    unsafe fn unpack<I: Integers>(isa: I, rows: Rows, _head: Head<'_>, _part: usize, sink: &mut impl Sink<I>) {
        for half in 0..2 {
            // SAFETY: the integers are 32 bytes of each block.
            let [a, b, c, d] = unsafe { isa.chunk(rows.at(offset_of!(Block, qs) + 16 * half)) };
            let bytes = [isa.signed_bytes(a), isa.signed_bytes(b), isa.signed_bytes(c), isa.signed_bytes(d)];
            sink.take(isa, half, bytes);
        }
    }
}
