//! Q3_K: 256 weights in 16 sub-blocks of 16, `d * scale * q`, 3.4375 bits per weight.
//!
//! ```text
//! byte  0                32                              96              108      110
//!       | hmask: 32      | qs: 64 bytes                  | scales: 12    | d f16  |
//! byte l:             bit j = weight 32 j + l bit 2                                         (l < 32, j < 8)
//! byte 32 + 32 h + l: bits 2 s + 1, 2 s = weight 128 h + 32 s + l bits 1-0                  (h < 2, s < 4, l < 32)
//! byte 96 + j:        bits 7-4 = scale[8 + j] bits 3-0,  bits 3-0 = scale[j] bits 3-0       (j < 8)
//! byte 104 + j:       bits 2 t + 1, 2 t = scale[4 t + j] bits 5-4                           (j < 4, t < 4)
//! weight i = d * (scale[i / 16] - 32) * (bits - 4)
//! ```

use core::mem::offset_of;

use super::layout::{Half, SUPER, block, crumbs, pack_crumbs, pack_planes, planes};
use super::round::{nearest, peak};
use super::search::signed::{SignedFit, fit_signed_by_descent, round_signed, scales_by_descent};
use super::search::{squares, sum, weigh};
use super::parts::{Grid, Levels, Minima, Parts, Precision, ScalarFormat, ScalarGrid};
use super::{BlockFormat, Quantizer, Scale};
use crate::{Activation, Cpu};
use crate::ahead::Head;
use crate::isa::integers::Integers;
use crate::unpack::{PlainSuperBlock, Rows, Sink, SuperBlocks, SuperScales, Visitor, Weights};

/// Q3_K: 256 weights in 110 bytes, signed 6-bit scales of 16 sub-blocks.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct Q3_K;

block! { Q3_K {
    /// Bit 2 of the weights, as [`planes`].
    hmask: [u8; 32],
    /// Bits 1-0 of the weights, as [`crumbs`].
    qs: [u8; 64],
    /// 16 six-bit scales (see [`Block::scales`]).
    scales: [u8; 12],
    /// Scale of the scales.
    d: Half,
} }

/// The stored weight that stands for zero.
pub(crate) const ZERO: i8 = 4;

/// The stored scale that stands for zero.
pub(crate) const SCALE_ZERO: i8 = 32;

impl Block {
    /// The scales of the sub-blocks, -32..32.
    #[inline(always)]
    pub(crate) fn scales(&self) -> [i8; 16] {
        core::array::from_fn(|j| {
            let low = (self.scales[j % 8] >> (4 * (j / 8))) & 15;
            let high = (self.scales[8 + j % 4] >> (2 * (j / 4))) & 3;
            (low | high << 4) as i8 - SCALE_ZERO
        })
    }

    /// The integers, -4..4.
    #[inline(always)]
    pub(crate) fn quants(&self) -> [i8; SUPER] {
        let (low, high) = (crumbs(&self.qs), planes(&self.hmask));
        core::array::from_fn(|i| (low[i] | high[i] << 2) as i8 - ZERO)
    }
}

/// The inverse of [`Block::scales`], for stored scales below 64.
fn pack_scales(stored: &[u8; 16]) -> [u8; 12] {
    let mut packed = [0; 12];
    for (j, &scale) in stored.iter().enumerate() {
        packed[j % 8] |= (scale & 15) << (4 * (j / 8));
        packed[8 + j % 4] |= (scale >> 4) << (2 * (j / 4));
    }
    packed
}

impl BlockFormat for Q3_K {
    const NAME: &'static str = "Q3_K";
    const ID: u32 = 11;
    const BLOCK: usize = SUPER;
    const BYTES: usize = 110;
    const ACTIVATION: Activation = Activation::Super256;
    const SCALAR: Option<ScalarFormat> = Some(ScalarFormat::of::<Self>());
    const SCALES: &'static [Scale] = &[Scale::Half(offset_of!(Block, d))];
    const QUANTIZER: Quantizer = Quantizer::Row(Self::quantize);

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let block = Block::of(block);
        let d = block.d.get();
        let (scales, quants) = (block.scales(), block.quants());
        for ((out, quants), scale) in out.chunks_exact_mut(16).zip(quants.chunks_exact(16)).zip(scales) {
            let scale = d * f32::from(scale);
            for (out, &q) in out.iter_mut().zip(quants) {
                *out = scale * f32::from(q);
            }
        }
    }
}

impl Q3_K {
    /// The [`Quantizer`].
    fn quantize(cpu: Cpu, values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
        for (i, (values, out)) in values.chunks_exact(SUPER).zip(out.chunks_exact_mut(Self::BYTES)).enumerate() {
            let block = Block::of_mut(out);
            let x = values.as_chunks::<16>().0;
            match importance {
                Some(importance) => block.quantize_weighted(cpu, values, &importance[SUPER * i..][..SUPER]),
                None => block.quantize_plain(cpu, x),
            }
        }
    }
}

impl Block {
    fn quantize_plain(&mut self, cpu: Cpu, x: &[[f32; 16]]) {
        let limit = i32::from(ZERO);
        let scales = scales_by_descent(cpu, x, limit);
        // The scale of largest magnitude becomes -32, so `d` has the opposite sign.
        let top = peak(&scales);
        let zero = i32::from(SCALE_ZERO);
        if top == 0.0 {
            self.scales = [0; 12];
            self.d.set(0.0);
        } else {
            let inverse = -(zero as f32) / top;
            let stored = scales.map(|scale| (i32::from(nearest(inverse * scale) as i8).clamp(-zero, zero - 1) + zero) as u8);
            self.scales = pack_scales(&stored);
            self.d.set(1.0 / inverse);
        }
        self.set_levels(x, |j| fit_signed_by_descent(&x[j], limit).1);
    }

    fn quantize_weighted(&mut self, cpu: Cpu, values: &[f32], importance: &[f32]) {
        let limit = i32::from(ZERO);
        let x = values.as_chunks::<16>().0;
        let importance = importance.as_chunks::<16>().0;
        let spread = 2.0 * squares(values) / SUPER as f32;
        let weights = core::array::from_fn(|j| weigh(&x[j], &importance[j], spread));
        let fits = SignedFit::of_each(cpu, x, &weights, limit);
        let (scales, sums) = (fits.map(|fit| fit.scale), weights.map(|weights| sum(&weights)));
        let zero = i32::from(SCALE_ZERO);
        let fit = SignedFit::of(&scales, &sums, zero);
        self.scales = pack_scales(&fit.levels(&scales, zero));
        self.d.set(fit.scale);
        self.set_levels(x, |j| fits[j].levels(&x[j], limit));
    }

    /// Encodes with the scales as they are stored; sub-blocks of which this is 0 get the integers that `fitted` returns.
    fn set_levels(&mut self, x: &[[f32; 16]], fitted: impl Fn(usize) -> [u8; 16]) {
        let (d, scales) = (self.d.get(), self.scales());
        let mut levels = [0; SUPER];
        for (j, levels) in levels.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let d = d * f32::from(scales[j]);
            *levels = if d == 0.0 { fitted(j) } else { round_signed(&x[j], d, i32::from(ZERO)) };
        }
        self.qs = pack_crumbs(&levels);
        self.hmask = pack_planes(&levels.map(|q| q >> 2));
    }
}

impl ScalarGrid for Q3_K {
    const GRID: Grid = Grid {
        block: SUPER,
        sub: 16,
        levels: Levels::Range(-4, 3),
        scales: Some((-32, 31)),
        minima: Minima::None,
        precision: Precision::Half,
    };

    fn assemble(parts: &Parts, block: &mut [u8]) {
        let block = Block::of_mut(block);
        let codes: [u8; SUPER] = parts.codes(i32::from(ZERO));
        block.d.set(parts.d);
        block.scales = pack_scales(&parts.stored_scales(i32::from(SCALE_ZERO)));
        block.qs = pack_crumbs(&codes);
        block.hmask = pack_planes(&codes.map(|q| q >> 2));
    }
}

impl Weights for Q3_K {
    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.super_blocks::<Self>()
    }
}

impl SuperBlocks for Q3_K {
    const OFFSET: i32 = ZERO as i32;
    const PEAK: u32 = 7;
    const MINIMA: bool = false;

    fn decode(block: &[u8]) -> PlainSuperBlock {
        let block = Block::of(block);
        PlainSuperBlock::without_minima(block.quants(), block.scales().map(i32::from), block.d.get())
    }

    #[inline(always)]
    unsafe fn scales<I: Integers>(isa: I, rows: Rows, _head: Head<'_>) -> SuperScales<I> {
        // SAFETY: the last 16 bytes of each block: two of `qs`, the 12 of the scales, `d`.
        let [a, b, c, end] = unsafe { isa.words(rows.at(offset_of!(Block, scales) - 2)) };
        let (low, high, top) = (isa.between(a, b), isa.between(b, c), isa.between(c, end));
        let bits = isa.or_each(
            [
                isa.field::<0, 0x0f>(low),
                isa.field::<0, 0x0f>(high),
                isa.field::<4, 0x0f>(low),
                isa.field::<4, 0x0f>(high),
            ],
            [
                isa.field_up::<4, 0x30>(top),
                isa.field_up::<2, 0x30>(top),
                isa.field::<0, 0x30>(top),
                isa.field::<2, 0x30>(top),
            ],
        );
        let zero = isa.splat(i32::from_ne_bytes([SCALE_ZERO as u8; 4]));
        let scales = [
            isa.sub_bytes(bits[0], zero),
            isa.sub_bytes(bits[1], zero),
            isa.sub_bytes(bits[2], zero),
            isa.sub_bytes(bits[3], zero),
        ];
        let d = isa.upper_halves(end);
        SuperScales::without_minima(scales, d)
    }

    #[inline(always)]
    unsafe fn unpack<I: Integers>(isa: I, rows: Rows, _head: Head<'_>, sink: &mut impl Sink<I>) {
        for l in 0..2 {
            // SAFETY: the masks are 32 bytes of each block.
            let mask = unsafe { isa.chunk(rows.at(offset_of!(Block, hmask) + 16 * l)) };
            for h in 0..2 {
                // SAFETY: the crumbs are 64 bytes of each block.
                let low = unsafe { isa.chunk(rows.at(offset_of!(Block, qs) + 32 * h + 16 * l)) };
                // Bit 4 h + s of the mask becomes bit 2 of the weights of field s.
                let mask = if h == 0 { mask } else { isa.high_nibbles(mask) };
                sink.take(isa, 8 * h + l, isa.or_each(isa.fields::<0, 0x03>(low), isa.fields_up::<2, 0x04>(mask)));
                sink.take(isa, 8 * h + 2 + l, isa.or_each(isa.fields::<2, 0x03>(low), isa.fields_up::<1, 0x04>(mask)));
                sink.take(isa, 8 * h + 4 + l, isa.or_each(isa.fields::<4, 0x03>(low), isa.fields::<0, 0x04>(mask)));
                sink.take(isa, 8 * h + 6 + l, isa.or_each(isa.fields::<6, 0x03>(low), isa.fields::<1, 0x04>(mask)));
            }
        }
    }
}
