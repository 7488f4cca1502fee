//! IQ4_XS: 256 weights in 8 sub-blocks of 32, `d * scale * level` with the levels of IQ4_NL, 4.25 bits per weight.
//!
//! ```text
//! byte  0        2               4              8                               136
//!       | d f16  | scales_h: 2   | scales_l: 4  | qs: 128 bytes                 |
//! byte 2 + j:         bits 2 t + 1, 2 t = scale[4 j + t] bits 5-4                             (j < 2, t < 4)
//! byte 4 + j:         bits 7-4 = scale[2 j + 1] bits 3-0,  bits 3-0 = scale[2 j] bits 3-0     (j < 4)
//! byte 8 + 16 j + i:  bits 7-4 = weight 32 j + 16 + i,  bits 3-0 = weight 32 j + i            (j < 8, i < 16)
//! weight i = d * (scale[i / 32] - 32) * LEVELS[bits]
//! ```

use core::mem::offset_of;

use super::layout::{Half, SUPER, block, nibbles, pack_nibbles};
use super::nonlinear::{LEVELS, codes, decode, encode, signed_table};
use super::round::{nearest, peak, reciprocal};
use super::search::nonlinear::fit_scales;
use super::search::squares;
use super::parts::{Grid, Levels, Minima, Parts, Precision, ScalarFormat, ScalarGrid};
use super::{BlockFormat, Quantizer, Scale};
use crate::{Activation, Cpu, LANES};
use crate::ahead::Head;
use crate::isa::integers::Integers;
use crate::unpack::{PlainSuperBlock, Rows, SIGNED, Sink, SuperBlocks, SuperScales, Visitor, Weights};

/// IQ4_XS: 256 weights in 136 bytes, signed 6-bit scales of 8 sub-blocks.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct IQ4_XS;

block! { IQ4_XS {
    /// Scale of the scales.
    d: Half,
    /// Bits 5-4 of the scales.
    scales_h: [u8; 2],
    /// Bits 3-0 of the scales.
    scales_l: [u8; 4],
    /// Numbers of levels: of each 32 weights 16 bytes, as [`nibbles`].
    qs: [u8; 128],
} }

/// The stored scale that stands for zero.
const SCALE_ZERO: i8 = 32;

impl Block {
    /// The scales of the sub-blocks of 32, -32..32.
    #[inline(always)]
    pub(crate) fn scales(&self) -> [i8; 8] {
        core::array::from_fn(|j| {
            let low = (self.scales_l[j / 2] >> (4 * (j % 2))) & 15;
            let high = (self.scales_h[j / 4] >> (2 * (j % 4))) & 3;
            (low | high << 4) as i8 - SCALE_ZERO
        })
    }

    /// The levels, -127..=113.
    #[inline(always)]
    pub(crate) fn quants(&self) -> [i8; SUPER] {
        let mut quants = [0; SUPER];
        for (quants, qs) in quants.as_chunks_mut().0.iter_mut().zip(self.qs.as_chunks().0) {
            *quants = decode(nibbles(qs));
        }
        quants
    }
}

impl BlockFormat for IQ4_XS {
    const NAME: &'static str = "IQ4_XS";
    const ID: u32 = 23;
    const BLOCK: usize = SUPER;
    const BYTES: usize = 136;
    const ACTIVATION: Activation = Activation::Super256;
    const SCALAR: Option<ScalarFormat> = Some(ScalarFormat::of::<Self>());
    const SCALES: &'static [Scale] = &[Scale::Half(offset_of!(Block, d))];
    const QUANTIZER: Quantizer = Quantizer::Row(Self::quantize);

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let block = Block::of(block);
        let d = block.d.get();
        let (scales, quants) = (block.scales(), block.quants());
        for ((out, quants), scale) in out.chunks_exact_mut(32).zip(quants.chunks_exact(32)).zip(scales) {
            let scale = d * f32::from(scale);
            for (out, &q) in out.iter_mut().zip(quants) {
                *out = scale * f32::from(q);
            }
        }
    }
}

impl IQ4_XS {
    /// The [`Quantizer`].
    fn quantize(cpu: Cpu, values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
        let importance = importance.map(|importance| importance.as_chunks::<32>().0);
        let pairs = values.chunks(2 * SUPER).zip(out.chunks_mut(2 * Self::BYTES));
        for (pair, (values, out)) in pairs.enumerate() {
            let x = values.as_chunks::<32>().0;
            let importance = importance.map(|importance| &importance[LANES * pair..][..x.len()]);
            let mut spreads = [0.0; 2];
            for (spread, values) in spreads.iter_mut().zip(values.chunks_exact(SUPER)) {
                *spread = squares(values) * (2.0 / SUPER as f32);
            }
            let fitted = fit_scales(cpu, x, importance, |j| spreads[j / 8]);
            let blocks = x.as_chunks::<8>().0.iter().zip(fitted.as_chunks().0);
            for ((x, fitted), out) in blocks.zip(out.chunks_exact_mut(Self::BYTES)) {
                Block::of_mut(out).set(x, fitted);
            }
        }
    }
}

impl Block {
    /// Encodes eight sub-blocks, of which the best scales are `fitted`.
    fn set(&mut self, x: &[[f32; 32]; 8], fitted: &[f32; 8]) {
        // The scale of largest magnitude becomes -32, so `d` has the opposite sign.
        let d = -peak(fitted) / 32.0;
        let inverse = reciprocal(d);
        self.d.set(d);
        (self.scales_h, self.scales_l) = ([0; 2], [0; 4]);
        for (j, (x, qs)) in x.iter().zip(self.qs.as_chunks_mut().0).enumerate() {
            let scale = nearest(inverse * fitted[j]).clamp(-32, 31);
            // With `d` as it was found, not as it is stored: as the reference.
            *qs = pack_nibbles(&encode(x, d * scale as f32));
            let stored = (scale + i32::from(SCALE_ZERO)) as u8;
            self.scales_l[j / 2] |= (stored & 15) << (4 * (j % 2));
            self.scales_h[j / 4] |= (stored >> 4) << (2 * (j % 4));
        }
    }
}

impl ScalarGrid for IQ4_XS {
    const GRID: Grid = Grid {
        block: SUPER,
        sub: 32,
        levels: Levels::Table(&LEVELS),
        scales: Some((-32, 31)),
        minima: Minima::None,
        precision: Precision::Half,
    };

    fn assemble(parts: &Parts, block: &mut [u8]) {
        let block = Block::of_mut(block);
        block.d.set(parts.d);
        (block.scales_h, block.scales_l) = ([0; 2], [0; 4]);
        for (j, (values, qs)) in parts.values.as_chunks::<32>().0.iter().zip(block.qs.as_chunks_mut().0).enumerate() {
            let stored = (parts.scales[j] + i32::from(SCALE_ZERO)) as u8;
            block.scales_l[j / 2] |= (stored & 15) << (4 * (j % 2));
            block.scales_h[j / 4] |= (stored >> 4) << (2 * (j % 4));
            *qs = pack_nibbles(&codes(values));
        }
    }
}

impl Weights for IQ4_XS {
    const WORDS: &'static [usize] = &[0, offset_of!(Block, scales_l)];

    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.super_blocks::<Self>()
    }
}

impl SuperBlocks for IQ4_XS {
    const OFFSET: i32 = 0;
    const PEAK: u32 = SIGNED;
    const WIDE: bool = true;
    const MINIMA: bool = false;
    const SCALE_PEAK: u32 = 32;

    fn decode(block: &[u8]) -> PlainSuperBlock {
        let block = Block::of(block);
        let scales = block.scales();
        PlainSuperBlock::without_minima(block.quants(), core::array::from_fn(|j| i32::from(scales[j / 2])), block.d.get())
    }

    #[inline(always)]
    unsafe fn scales<I: Integers>(isa: I, _rows: Rows, head: Head<'_>) -> SuperScales<I> {
        // `d` and the upper bits of the scales.
        let first = head.word(isa, 0);
        let nibbles = head.word(isa, 1);
        let (low, high) = (isa.spread::<4, 0>(nibbles), isa.spread::<4, 16>(nibbles));
        let (low, high) = (isa.double_bytes(low), isa.double_bytes(high));
        let top = [isa.spread::<2, 16>(first), isa.spread::<2, 24>(first)];
        let top = [isa.double_bytes(top[0]), isa.double_bytes(top[1])];
        let bits = isa.or_each(
            [low.0, low.1, high.0, high.1],
            [
                isa.field_up::<4, 0x30>(top[0].0),
                isa.field_up::<4, 0x30>(top[0].1),
                isa.field_up::<4, 0x30>(top[1].0),
                isa.field_up::<4, 0x30>(top[1].1),
            ],
        );
        let zero = isa.splat(i32::from_ne_bytes([SCALE_ZERO as u8; 4]));
        let scales = [
            isa.sub_bytes(bits[0], zero),
            isa.sub_bytes(bits[1], zero),
            isa.sub_bytes(bits[2], zero),
            isa.sub_bytes(bits[3], zero),
        ];
        let d = isa.lower_halves(first);
        SuperScales::without_minima(scales, d)
    }

    #[inline(always)]
    unsafe fn unpack<I: Integers>(isa: I, rows: Rows, _head: Head<'_>, sink: &mut impl Sink<I>) {
        let table = isa.table(const { &signed_table::<I>() });
        for j in 0..8 {
            // SAFETY: the nibbles are 128 bytes of each block.
            let packed = unsafe { isa.chunk(rows.at(offset_of!(Block, qs) + 16 * j)) };
            sink.take_two(isa, 2 * j, [isa.look_up_each::<0>(table, packed), isa.look_up_each::<4>(table, packed)]);
        }
    }
}
