//! Q6_K: 256 weights in 16 sub-blocks of 16, `d * scale * q`, 6.5625 bits per weight.
//!
//! ```text
//! byte  0                          128             192              208      210
//!       | ql: 128 bytes            | qh: 64        | scales: 16 i8  | d f16  |
//! byte 64 h + b:       bits 7-4 = weight 128 h + 64 + b bits 3-0,  bits 3-0 = weight 128 h + b bits 3-0   (h < 2, b < 64)
//! byte 128 + 32 h + l: bits 2 s + 1, 2 s = weight 128 h + 32 s + l bits 5-4                        (h < 2, s < 4, l < 32)
//! weight i = d * scale[i / 16] * (bits - 32)
//! ```

use core::mem::offset_of;

use super::layout::{Half, SUPER, block, crumbs, pack_crumbs};
use super::round::{nearest, peak};
use super::search::TINY;
use super::search::signed::{SignedFit, round_signed};
use super::parts::{Grid, Levels, Minima, Parts, Precision, ScalarFormat, ScalarGrid};
use super::{BlockFormat, Quantizer, Scale};
use crate::{Activation, Cpu};
use crate::ahead::Head;
use crate::isa::integers::Integers;
use crate::unpack::{PlainSuperBlock, Rows, Sink, SuperBlocks, SuperScales, Visitor, Weights};

/// Q6_K: 256 weights in 210 bytes, signed 8-bit scales of 16 sub-blocks.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct Q6_K;

block! { Q6_K {
    /// Bits 3-0 of the weights: weight `128 h + 64 n + b` is nibble `n` of byte `64 h + b`.
    ql: [u8; 128],
    /// Bits 5-4 of the weights, as [`crumbs`].
    qh: [u8; 64],
    /// Scales of the sub-blocks of 16.
    scales: [i8; 16],
    /// Scale of the scales.
    d: Half,
} }

/// The stored weight that stands for zero.
pub(crate) const ZERO: i8 = 32;

impl Block {
    /// The integers, -32..32.
    #[inline(always)]
    pub(crate) fn quants(&self) -> [i8; SUPER] {
        let high = crumbs(&self.qh);
        core::array::from_fn(|i| {
            let low = (self.ql[64 * (i / 128) + i % 64] >> (4 * (i % 128 / 64))) & 15;
            (low | high[i] << 4) as i8 - ZERO
        })
    }
}

impl BlockFormat for Q6_K {
    const NAME: &'static str = "Q6_K";
    const ID: u32 = 14;
    const BLOCK: usize = SUPER;
    const BYTES: usize = 210;
    const ACTIVATION: Activation = Activation::Super256;
    const SCALAR: Option<ScalarFormat> = Some(ScalarFormat::of::<Self>());
    const SCALES: &'static [Scale] = &[Scale::Half(offset_of!(Block, d))];
    const QUANTIZER: Quantizer = Quantizer::Row(Self::quantize);

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let block = Block::of(block);
        let d = block.d.get();
        let quants = block.quants();
        for ((out, quants), scale) in out.chunks_exact_mut(16).zip(quants.chunks_exact(16)).zip(block.scales) {
            let scale = d * f32::from(scale);
            for (out, &q) in out.iter_mut().zip(quants) {
                *out = scale * f32::from(q);
            }
        }
    }
}

impl Q6_K {
    /// The [`Quantizer`].
    fn quantize(cpu: Cpu, values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
        for (i, (values, out)) in values.chunks_exact(SUPER).zip(out.chunks_exact_mut(Self::BYTES)).enumerate() {
            let importance = importance.map(|importance| &importance[SUPER * i..][..SUPER]);
            Self::quantize_block(cpu, values, importance, out);
        }
    }

    fn quantize_block(cpu: Cpu, values: &[f32], importance: Option<&[f32]>, block: &mut [u8]) {
        let limit = i32::from(ZERO);
        let x = values.as_chunks::<16>().0;
        let mut weights = [[0.0; 16]; 16];
        match importance {
            // Alone, without the magnitude of the value: as the reference.
            Some(importance) => weights.copy_from_slice(importance.as_chunks().0),
            None => weights.iter_mut().zip(x).for_each(|(weights, x)| *weights = x.map(|x| x * x)),
        }
        let fits = SignedFit::of_each(cpu, x, &weights, limit);
        let scales = fits.map(|fit| fit.scale);
        // The scale of largest magnitude becomes -128, so `d` has the opposite sign.
        let top = peak(&scales);
        if top.abs() < TINY {
            block.fill(0);
            return;
        }
        let block = Block::of_mut(block);
        let inverse = -128.0 / top;
        block.d.set(1.0 / inverse);
        block.scales = scales.map(|scale| nearest(inverse * scale).min(127) as i8);
        let d = block.d.get();
        let mut levels = [0; SUPER];
        for (j, levels) in levels.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let d = d * f32::from(block.scales[j]);
            *levels = if d == 0.0 { fits[j].levels(&x[j], limit) } else { round_signed(&x[j], d, limit) };
        }
        block.ql = core::array::from_fn(|b| {
            let low = 128 * (b / 64) + b % 64;
            (levels[low] & 15) | (levels[low + 64] << 4)
        });
        block.qh = pack_crumbs(&levels.map(|q| q >> 4));
    }
}

impl ScalarGrid for Q6_K {
    const GRID: Grid = Grid {
        block: SUPER,
        sub: 16,
        levels: Levels::Range(-32, 31),
        scales: Some((-128, 127)),
        minima: Minima::None,
        precision: Precision::Half,
    };

    fn assemble(parts: &Parts, block: &mut [u8]) {
        let block = Block::of_mut(block);
        let codes: [u8; SUPER] = parts.codes(i32::from(ZERO));
        block.d.set(parts.d);
        block.scales = parts.stored_scales(0).map(|scale: u8| scale as i8);
        block.ql = core::array::from_fn(|b| {
            let low = 128 * (b / 64) + b % 64;
            (codes[low] & 15) | (codes[low + 64] << 4)
        });
        block.qh = pack_crumbs(&codes.map(|q| q >> 4));
    }
}

impl Weights for Q6_K {
    // `d` is the upper half: nothing follows it.
    const WORDS: &'static [usize] = &[offset_of!(Block, d) - 2];

    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.super_blocks::<Self>()
    }
}

impl SuperBlocks for Q6_K {
    const OFFSET: i32 = ZERO as i32;
    const PEAK: u32 = 63;
    const MINIMA: bool = false;

    fn decode(block: &[u8]) -> PlainSuperBlock {
        let block = Block::of(block);
        PlainSuperBlock::without_minima(block.quants(), block.scales.map(i32::from), block.d.get())
    }

    #[inline(always)]
    unsafe fn scales<I: Integers>(isa: I, rows: Rows, head: Head<'_>) -> SuperScales<I> {
        // SAFETY: the scales are 16 bytes of each block.
        let scales = unsafe { isa.words(rows.at(offset_of!(Block, scales))) };
        let d = isa.upper_halves(head.word(isa, 0));
        SuperScales::without_minima(scales, d)
    }

    #[inline(always)]
    unsafe fn unpack<I: Integers>(isa: I, rows: Rows, _head: Head<'_>, sink: &mut impl Sink<I>) {
        for h in 0..2 {
            for l in 0..2 {
                // SAFETY: the fields are 128 and 64 bytes of each block.
                let (a, b, high) = unsafe {
                    (
                        isa.chunk(rows.at(offset_of!(Block, ql) + 64 * h + 16 * l)),
                        isa.chunk(rows.at(offset_of!(Block, ql) + 64 * h + 32 + 16 * l)),
                        isa.chunk(rows.at(offset_of!(Block, qh) + 32 * h + 16 * l)),
                    )
                };
                sink.take(isa, 8 * h + l, isa.or_each(isa.low_nibbles(a), isa.fields_up::<4, 0x30>(high)));
                sink.take(isa, 8 * h + 2 + l, isa.or_each(isa.low_nibbles(b), isa.fields_up::<2, 0x30>(high)));
                sink.take(isa, 8 * h + 4 + l, isa.or_each(isa.high_nibbles(a), isa.fields::<0, 0x30>(high)));
                // The upper bits stay where they are.
                let shifted = isa.or_each(isa.fields::<2, 0x3c>(b), isa.fields_in_place::<6, 0x03>(high));
                sink.take_fields::<2, 0x3f>(isa, 8 * h + 6 + l, shifted);
            }
        }
    }
}
