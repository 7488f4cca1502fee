//! TQ1_0: 256 weights `d * q` with q of -1, 0 and 1, five to a byte, 1.6875 bits per weight.
//!
//! ```text
//! byte  0                       48          52       54
//!       | qs: 48 bytes          | qh: 4     | d f16  |
//! byte l:      digits n < 5 = weight 32 n + l               (l < 32)
//! byte 32 + l: digits n < 5 = weight 160 + 16 n + l         (l < 16)
//! byte 48 + l: digits n < 4 = weight 240 + 4 n + l          (l < 4)
//! weight = d * (digit - 1)
//! ```
//!
//! A byte is a fraction of 256 in base 3: digit `n` is the integer part of `3 * (byte * 3^n mod 256) / 256`.

use core::mem::offset_of;

use super::layout::{Half, SUPER, block};
use super::{BlockFormat, Quantizer, Scale, ternary};
use crate::Activation;
use crate::ahead::Head;
use crate::isa::integers::Integers;
use crate::unpack::{PlainSuperBlock, Rows, Sink, SuperBlocks, SuperScales, Visitor, Weights};

/// TQ1_0: 256 weights in 54 bytes, one scale.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct TQ1_0;

block! { TQ1_0 {
    /// Weights 0 to 239, plus one.
    qs: [u8; 48],
    /// Weights 240 to 255, plus one.
    qh: [u8; 4],
    /// Scale.
    d: Half,
} }

/// Where a weight is: its byte of the 52, and its digit.
#[inline(always)]
const fn place(weight: usize) -> (usize, usize) {
    match weight {
        ..160 => (weight % 32, weight / 32),
        160..240 => (32 + weight % 16, (weight - 160) / 16),
        _ => (48 + weight % 4, (weight - 240) / 4),
    }
}

impl Block {
    /// The integers, -1..=1.
    #[inline(always)]
    pub(crate) fn quants(&self) -> [i8; SUPER] {
        const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
        core::array::from_fn(|i| {
            let (at, digit) = place(i);
            let byte = if at < 48 { self.qs[at] } else { self.qh[at - 48] };
            let rest = byte.wrapping_mul(POWERS[digit]);
            ((u16::from(rest) * 3) >> 8) as i8 - 1
        })
    }
}

impl BlockFormat for TQ1_0 {
    const NAME: &'static str = "TQ1_0";
    const ID: u32 = 34;
    const BLOCK: usize = SUPER;
    const BYTES: usize = 54;
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

impl TQ1_0 {
    /// The [`Quantizer`].
    fn quantize(values: &[f32], block: &mut [u8]) {
        let block = Block::of_mut(block);
        let (d, digits) = ternary::encode(values);
        block.d.set(d);
        // Bytes of four digits have a fifth, 0.
        let mut numbers = [0u16; 52];
        for n in 0..5 {
            numbers.iter_mut().for_each(|number| *number *= 3);
            for (i, &digit) in digits.iter().enumerate() {
                let (at, place) = place(i);
                if place == n {
                    numbers[at] += u16::from(digit);
                }
            }
        }
        // Rounded up, so that the digits come out again as integer parts.
        let bytes = numbers.map(|number| (number * 256).div_ceil(243) as u8);
        block.qs.copy_from_slice(&bytes[..48]);
        block.qh.copy_from_slice(&bytes[48..]);
    }
}

impl Weights for TQ1_0 {
    // `d` is the upper half of the second: nothing follows it.
    const WORDS: &'static [usize] = &[offset_of!(Block, qh), offset_of!(Block, d) - 2];

    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.super_blocks::<Self>()
    }
}

impl SuperBlocks for TQ1_0 {
    const OFFSET: i32 = 1;
    const PEAK: u32 = 2;
    const MINIMA: bool = false;
    const SCALE_PEAK: u32 = 1;

    fn decode(block: &[u8]) -> PlainSuperBlock {
        let block = Block::of(block);
        PlainSuperBlock::without_minima(block.quants(), [1; 16], block.d.get())
    }

    #[inline(always)]
    unsafe fn scales<I: Integers>(isa: I, _rows: Rows, head: Head<'_>) -> SuperScales<I> {
        ternary::scales(isa, isa.upper_halves(head.word(isa, 1)))
    }

    #[inline(always)]
    unsafe fn unpack<I: Integers>(isa: I, rows: Rows, head: Head<'_>, sink: &mut impl Sink<I>) {
        for i in 0..3 {
            // SAFETY: the first digits are 48 bytes of each block.
            let [a, b, c, d] = unsafe { isa.chunk(rows.at(offset_of!(Block, qs) + 16 * i)) };
            let (a, b, c, d) = (isa.trits(a), isa.trits(b), isa.trits(c), isa.trits(d));
            for n in 0..5 {
                let j = if i < 2 { 2 * n + i } else { 10 + n };
                sink.take(isa, j, [a[n], b[n], c[n], d[n]]);
            }
        }
        let [a, b, c, d, _] = isa.trits(head.word(isa, 0));
        sink.take(isa, 15, isa.turn([a, b, c, d]));
    }
}
