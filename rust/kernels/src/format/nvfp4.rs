//! NVFP4: 64 four-bit floats with an eight-bit float as scale for each 16, 4.5 bits per weight.
//!
//! ```text
//! byte  0             4                                    36
//!       | s UE4M3: 4  | qs: 32 bytes                       |
//! byte 4 + 8 j + i:   bits 7-4 = weight 16 j + 8 + i,  bits 3-0 = weight 16 j + i         (j < 4, i < 8)
//! weight i = half(s[i / 16]) * LEVELS[bits]
//! ```

use core::mem::offset_of;

use super::float4::{PEAK, UNSIGNED, ZERO, decode, half_of_ue4m3, nearest_level, ue4m3_of};
use super::layout::block;
use super::round::peak;
use super::{BlockFormat, Quantizer, Scale};
use crate::Activation;
use crate::ahead::Head;
use crate::isa::integers::Integers;
use crate::unpack::{Blocks, PlainBlock, Rows, Sink, Visitor, Weights};

/// NVFP4: 64 weights in 36 bytes, four scales.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct NVFP4;

block! { NVFP4 {
    /// Twice the scales of the sub-blocks of 16, as unsigned E4M3.
    s: [u8; 4],
    /// E2M1 floats, eight bytes for each sub-block.
    qs: [u8; 32],
} }

impl Block {
    /// The scale of sub-block `j`.
    #[inline(always)]
    pub(crate) fn d(&self, j: usize) -> f32 {
        half_of_ue4m3(self.s[j])
    }

    /// The doubled weights of sub-block `j`, -12..=12.
    #[inline(always)]
    pub(crate) fn quants(&self, j: usize) -> [i8; 16] {
        decode(core::array::from_fn(|i| (self.qs[8 * j + i % 8] >> (4 * (i / 8))) & 15))
    }
}

impl BlockFormat for NVFP4 {
    const NAME: &'static str = "NVFP4";
    const ID: u32 = 40;
    const BLOCK: usize = 64;
    const BYTES: usize = 36;
    const ACTIVATION: Activation = Activation::Block32;
    const SCALES: &'static [Scale] =
        &[Scale::SmallFloat(0), Scale::SmallFloat(1), Scale::SmallFloat(2), Scale::SmallFloat(3)];
    const QUANTIZER: Quantizer = Quantizer::Block(Self::quantize);

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let block = Block::of(block);
        for (j, out) in out.chunks_exact_mut(16).enumerate() {
            let d = block.d(j);
            for (out, q) in out.iter_mut().zip(block.quants(j)) {
                *out = d * f32::from(q);
            }
        }
    }
}

impl NVFP4 {
    /// The [`Quantizer`].
    fn quantize(values: &[f32], block: &mut [u8]) {
        let block = Block::of_mut(block);
        for (j, x) in values.as_chunks::<16>().0.iter().enumerate() {
            // 6 is the largest E2M1.
            block.s[j] = ue4m3_of(peak(x).abs() / 6.0);
            let d = block.d(j);
            for i in 0..8 {
                block.qs[8 * j + i] = nearest_level(x[i], d) | nearest_level(x[8 + i], d) << 4;
            }
        }
    }
}

impl Weights for NVFP4 {
    const WORDS: &'static [usize] = &[offset_of!(Block, s)];

    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.blocks::<Self>()
    }
}

impl Blocks for NVFP4 {
    const OFFSET: i32 = ZERO as i32;
    const PEAK: u32 = PEAK;
    const SPLIT: bool = true;

    fn decode(block: &[u8], part: usize) -> PlainBlock {
        let block = Block::of(block);
        let j = 2 * part;
        let (low, high) = (block.quants(j), block.quants(j + 1));
        PlainBlock {
            quants: core::array::from_fn(|i| if i < 16 { low[i] } else { high[i - 16] }),
            d: block.d(j),
            m: block.d(j + 1),
        }
    }

    #[inline(always)]
    fn scales<I: Integers>(isa: I, head: Head<'_>, part: usize) -> (I::Floats, I::Floats) {
        let s = head.word(isa, 0);
        (isa.small_floats(s, 2 * part), isa.small_floats(s, 2 * part + 1))
    }

    #[inline(always)]
    unsafe fn unpack<I: Integers>(isa: I, rows: Rows, _head: Head<'_>, part: usize, sink: &mut impl Sink<I>) {
        let table = isa.table(&UNSIGNED);
        // SAFETY: the nibbles are 32 bytes of each block.
        let packed = unsafe { isa.chunk(rows.at(offset_of!(Block, qs) + 16 * part)) };
        let [first, second] =
            isa.halves(isa.look_up_each::<0>(table, packed), isa.look_up_each::<4>(table, packed));
        sink.take(isa, 0, first);
        sink.take(isa, 1, second);
    }
}
