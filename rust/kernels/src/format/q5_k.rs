//! Q5_K: 256 weights in 8 sub-blocks of 32, `d * scale * q - dmin * min`, 5.5 bits per weight.
//!
//! ```text
//! byte  0        2           4               16           48                         176
//!       | d f16  | dmin f16  | scales: 12    | qh: 32     | qs: 128 bytes            |
//! bytes 4..16:        six-bit scales and minima, drawn at `scales_and_minima` in layout.rs
//! byte 16 + l:        bit j = weight 32 j + l bit 4                                                       (j < 8)
//! byte 48 + 32 c + l: bits 7-4 = weight 64 c + 32 + l bits 3-0,  bits 3-0 = weight 64 c + l bits 3-0      (c < 4, l < 32)
//! weight i = d * scale[i / 32] * bits - dmin * min[i / 32]
//! ```

use core::array;
use core::mem::offset_of;

use super::layout::{
    Half, SUPER, block, pack_planes, pack_scales_and_minima, pack_super_nibbles, planes, scales_and_minima, super_nibbles, unpack_scales_and_minima,
};
use super::search::minimum::MinimumSearch;
use super::search::quantize_packed;
use super::parts::{Grid, Levels, Minima, Parts, Precision, ScalarFormat, ScalarGrid};
use super::{BlockFormat, Quantizer, Scale};
use crate::{Activation, Cpu};
use crate::ahead::Head;
use crate::isa::integers::Integers;
use crate::unpack::{PlainSuperBlock, Rows, Sink, SuperBlocks, SuperScales, Visitor, Weights};

/// Q5_K: 256 weights in 176 bytes, 6-bit scales and minima of 8 sub-blocks.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct Q5_K;

block! { Q5_K {
    /// Scale of the scales.
    d: Half,
    /// Scale of the minima, which are subtracted.
    dmin: Half,
    /// Scales and minima of the sub-blocks of 32, as [`scales_and_minima`].
    scales: [u8; 12],
    /// Bit 4 of the weights, as [`planes`].
    qh: [u8; 32],
    /// Bits 3-0 of the weights, as [`super_nibbles`].
    qs: [u8; 128],
} }

impl Block {
    /// The scales and the minima of the sub-blocks, 0..64.
    #[inline(always)]
    pub(crate) fn scales_and_minima(&self) -> ([u8; 8], [u8; 8]) {
        scales_and_minima(&self.scales)
    }

    /// The integers, 0..32.
    #[inline(always)]
    pub(crate) fn quants(&self) -> [u8; SUPER] {
        let (low, high) = (super_nibbles(&self.qs), planes(&self.qh));
        core::array::from_fn(|i| low[i] | high[i] << 4)
    }
}

impl BlockFormat for Q5_K {
    const NAME: &'static str = "Q5_K";
    const ID: u32 = 13;
    const BLOCK: usize = SUPER;
    const BYTES: usize = 176;
    const ACTIVATION: Activation = Activation::Super256;
    const SCALAR: Option<ScalarFormat> = Some(ScalarFormat::of::<Self>());
    const SCALES: &'static [Scale] = &[Scale::Half(offset_of!(Block, d)), Scale::Half(offset_of!(Block, dmin))];
    const QUANTIZER: Quantizer = Quantizer::Row(Self::quantize);

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let block = Block::of(block);
        let (d, dmin) = (block.d.get(), block.dmin.get());
        let (scales, minima) = block.scales_and_minima();
        let quants = block.quants();
        for (j, (out, quants)) in out.chunks_exact_mut(32).zip(quants.chunks_exact(32)).enumerate() {
            let (scale, min) = (d * f32::from(scales[j]), dmin * f32::from(minima[j]));
            for (out, &q) in out.iter_mut().zip(quants) {
                *out = scale * f32::from(q) - min;
            }
        }
    }
}

impl Q5_K {
    /// The [`Quantizer`].
    fn quantize(cpu: Cpu, values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
        const PLAIN: MinimumSearch = MinimumSearch { limit: 31, first: -0.5, step: 0.1, steps: 15, absolute: false };
        let blocks = out.as_chunks_mut::<{ Self::BYTES }>().0;
        quantize_packed(cpu, PLAIN, values, importance, |i, scales, levels| {
            let block = Block::of_mut(&mut blocks[i]);
            (block.d, block.dmin, block.scales) = (scales.d, scales.dmin, scales.packed);
            block.qs = pack_super_nibbles(levels);
            block.qh = pack_planes(&levels.map(|q| q >> 4));
        });
    }
}

impl ScalarGrid for Q5_K {
    const GRID: Grid = Grid {
        block: SUPER,
        sub: 32,
        levels: Levels::Range(0, 31),
        scales: Some((0, 63)),
        minima: Minima::Steps(63),
        precision: Precision::Half,
    };

    fn assemble(parts: &Parts, block: &mut [u8]) {
        let block = Block::of_mut(block);
        let codes: [u8; SUPER] = parts.codes(0);
        block.d.set(parts.d);
        block.dmin.set(parts.dmin);
        block.scales = pack_scales_and_minima(&parts.stored_scales(0), &parts.stored_minima());
        block.qs = pack_super_nibbles(&codes);
        block.qh = pack_planes(&codes.map(|q| q >> 4));
    }
}

impl Weights for Q5_K {
    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.super_blocks::<Self>()
    }
}

impl SuperBlocks for Q5_K {
    const OFFSET: i32 = 0;
    const PEAK: u32 = 31;
    const WIDE: bool = true;
    const MINIMA: bool = true;

    fn decode(block: &[u8]) -> PlainSuperBlock {
        let block = Block::of(block);
        let (scales, minima) = block.scales_and_minima();
        PlainSuperBlock {
            quants: block.quants().map(|q| q as i8),
            scales: array::from_fn(|j| i32::from(scales[j / 2])),
            minima: array::from_fn(|j| i32::from(minima[j / 2])),
            d: block.d.get(),
            dmin: block.dmin.get(),
        }
    }

    #[inline(always)]
    unsafe fn scales<I: Integers>(isa: I, rows: Rows, _head: Head<'_>) -> SuperScales<I> {
        // SAFETY: the first 16 bytes of each block: `d`, `dmin`, and the scales.
        let [halves, packed @ ..] = unsafe { isa.words(rows) };
        let (scales, minima) = unpack_scales_and_minima(isa, packed);
        SuperScales { scales, minima, d: isa.lower_halves(halves), dmin: isa.upper_halves(halves) }
    }

    #[inline(always)]
    unsafe fn unpack<I: Integers>(isa: I, rows: Rows, _head: Head<'_>, sink: &mut impl Sink<I>) {
        if I::JOINS {
            // SAFETY: by the contract.
            return unsafe { unpack_joined(isa, rows, sink) };
        }
        for l in 0..2 {
            // SAFETY: the fields are 32 and 128 bytes of each block.
            let (high, packed) = unsafe {
                let qs = rows.at(offset_of!(Block, qs) + 16 * l);
                let packed = [isa.chunk(qs), isa.chunk(qs.at(32)), isa.chunk(qs.at(64)), isa.chunk(qs.at(96))];
                (isa.chunk(rows.at(offset_of!(Block, qh) + 16 * l)), packed)
            };
            // Bit s of a byte becomes bit 4 of a weight of the sub-block of 32 s.
            sink.take(isa, l, isa.or_each(isa.low_nibbles(packed[0]), isa.fields_up::<4, 0x10>(high)));
            sink.take(isa, 2 + l, isa.or_each(isa.high_nibbles(packed[0]), isa.fields_up::<3, 0x10>(high)));
            sink.take(isa, 4 + l, isa.or_each(isa.low_nibbles(packed[1]), isa.fields_up::<2, 0x10>(high)));
            sink.take(isa, 6 + l, isa.or_each(isa.high_nibbles(packed[1]), isa.fields_up::<1, 0x10>(high)));
            sink.take(isa, 8 + l, isa.or_each(isa.low_nibbles(packed[2]), isa.fields::<0, 0x10>(high)));
            sink.take(isa, 10 + l, isa.or_each(isa.high_nibbles(packed[2]), isa.fields::<1, 0x10>(high)));
            sink.take(isa, 12 + l, isa.or_each(isa.low_nibbles(packed[3]), isa.fields::<2, 0x10>(high)));
            sink.take(isa, 14 + l, isa.or_each(isa.high_nibbles(packed[3]), isa.fields::<3, 0x10>(high)));
        }
    }
}

/// Gives `sink` sub-blocks of 32 weights.
///
/// # Safety
/// As for [`SuperBlocks::unpack`].
#[inline(always)]
unsafe fn unpack_joined<I: Integers>(isa: I, rows: Rows, sink: &mut impl Sink<I>) {
    let high = rows.at(offset_of!(Block, qh));
    // SAFETY: the fields are 32 and 128 bytes of each block.
    let mut high = unsafe { [isa.chunk(high), isa.chunk(high.at(16))] };
    for c in 0..4 {
        let qs = rows.at(offset_of!(Block, qs) + 32 * c);
        // SAFETY: as above.
        let (a, b) = unsafe { (isa.chunk(qs), isa.chunk(qs.at(16))) };
        // Bits 0 and 1 of what is left of the upper bits become bit 4 of the weights.
        let join = |low: [I::Words; 4], top: [I::Words; 4]| isa.or_each(low, top);
        let low = [
            join(isa.low_nibbles(a), isa.fields_up::<4, 0x10>(high[0])),
            join(isa.low_nibbles(b), isa.fields_up::<4, 0x10>(high[1])),
        ];
        sink.take_two(isa, 4 * c, low);
        let upper = [
            join(isa.high_nibbles(a), isa.fields_up::<3, 0x10>(high[0])),
            join(isa.high_nibbles(b), isa.fields_up::<3, 0x10>(high[1])),
        ];
        sink.take_two(isa, 4 * c + 2, upper);
        high = [isa.fields::<2, 0x3f>(high[0]), isa.fields::<2, 0x3f>(high[1])];
    }
}
