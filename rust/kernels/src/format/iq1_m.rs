//! IQ1_M: 256 weights in 16 sub-blocks of 16, `d * (2 s + 1) / 8 * (8 q + 1 or - 1)` with points of a grid of 2048, 1.75 bits per weight.
//!
//! ```text
//! byte  0               32              48            56
//!       | qs: 32 bytes  | qh: 16        | scales: 4 u16 |
//! byte e:            bits 7-0 of the number of entry e                                               (e < 32)
//! nibble 64 + e:     bit 3 = whether 1 is subtracted,  bits 2-0 = bits 10-8 of the number of entry e
//! u16 48 + 2 i:      bits 15-12 = nibble i of d,  bits 3 j + 2, 3 j = s[4 i + j]                      (i < 4, j < 4)
//! weight 8 e + b = d / 8 * (2 s[e / 2] + 1) * (-8, 0 or 8 by code b of the entry, plus or minus 1)
//! ```

use core::mem::offset_of;
use std::sync::OnceLock;

use super::codebook::{Codebook, CodebookGrid, CodebookParts, EntrySigns};
use super::grid::{self, Grid, take_eights, write_group};
use super::layout::{Half, SUPER, block};
use super::points::Points;
use super::round::nearest;
use super::search::ternary::{TernaryFit, VALUES, fit_ternary};
use super::search::{squares, weigh};
use super::{BlockFormat, Quantizer, Scale};
use crate::{Activation, Cpu};
use crate::ahead::Head;
use crate::isa::integers::Integers;
use crate::unpack::{PlainSuperBlock, Rows, Sink, SuperBlocks, SuperScales, Visitor, Weights};

/// IQ1_M: 256 weights in 56 bytes, a scale of three bits per 16.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct IQ1_M;

block! { IQ1_M {
    /// Bits 7-0 of the numbers of entries.
    qs: [u8; 32],
    /// A nibble per entry: the rest of its number, and its shift.
    qh: [u8; 16],
    /// Scales of the sub-blocks, and the scale of the scales.
    scales: [u8; 8],
} }

/// The grid.
static GRID: &Grid<2048, 8> = &grid::IQ1;

impl Block {
    /// The integers.
    #[inline(always)]
    fn quants(&self) -> [i8; SUPER] {
        let mut quants = [0; SUPER];
        for (g, out) in quants.chunks_exact_mut(32).enumerate() {
            let nibble = |e: usize| self.qh[2 * g + e / 2] >> (4 * (e % 2)) & 15;
            let number = |e: usize| usize::from(self.qs[4 * g + e]) | usize::from(nibble(e) & 7) << 8;
            write_group(GRID, grid::SMALL_OFFSET, out, number, |e| if nibble(e) & 8 != 0 { 0xff } else { 0 });
        }
        quants
    }

    /// The scales of the sub-blocks of 16: `2 s + 1`.
    #[inline(always)]
    fn scales(&self) -> [i8; 16] {
        core::array::from_fn(|j| {
            let word = u16::from_le_bytes([self.scales[j / 4 * 2], self.scales[j / 4 * 2 + 1]]);
            2 * (word >> (3 * (j % 4)) & 7) as i8 + 1
        })
    }

    /// The scale of the scales.
    #[inline(always)]
    fn d(&self) -> f32 {
        SCALE.get(&self.scales) / 8.0
    }
}

/// Where `scales` keeps `d`.
const SCALE: Scale = Scale::Nibbles(1);

impl BlockFormat for IQ1_M {
    const NAME: &'static str = "IQ1_M";
    const ID: u32 = 29;
    const BLOCK: usize = SUPER;
    const BYTES: usize = 56;
    const ACTIVATION: Activation = Activation::Super256;
    const SCALES: &'static [Scale] = &[Scale::Nibbles(offset_of!(Block, scales) + 1)];
    const CODEBOOK: Option<Codebook> =
        Some(Codebook::of::<Self, 2048, 8>(&grid::IQ1, grid::SMALL_OFFSET, (16, 7), 0.125, EntrySigns::Shift(8)));
    const QUANTIZER: Quantizer = Quantizer::Row(Self::quantize);

    fn dequantize(block: &[u8], out: &mut [f32]) {
        Self::decode(block).write(out);
    }
}

impl IQ1_M {
    /// The [`Quantizer`].
    fn quantize(_: Cpu, values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
        for (i, (values, out)) in values.chunks_exact(SUPER).zip(out.chunks_exact_mut(Self::BYTES)).enumerate() {
            Block::of_mut(out).quantize(values, importance.map(|importance| &importance[SUPER * i..][..SUPER]));
        }
    }
}

/// The points of the grid, made when they are first needed.
fn points() -> &'static Points<8> {
    static POINTS: OnceLock<Points<8>> = OnceLock::new();
    POINTS.get_or_init(|| Points::new(GRID, 3, 3))
}

/// Sub-blocks below this magnitude are zeros.
const TINY: f32 = 1e-7;

impl Block {
    fn quantize(&mut self, values: &[f32], importance: Option<&[f32]>) {
        let spread = 2.0 * squares(values) / SUPER as f32;
        let x = values.as_chunks::<16>().0;
        let weights: [[f32; 16]; 16] = core::array::from_fn(|j| match importance {
            Some(importance) => weigh(&x[j], &importance.as_chunks().0[j], spread),
            None => x[j].map(|x| x * x),
        });
        let fits: [TernaryFit; 16] =
            core::array::from_fn(|j| fit_ternary::<16, true>(points(), &x[j], &weights[j], TINY));
        let top = fits.iter().fold(0.0, |top, fit| if top > fit.scale { top } else { fit.scale });
        self.qs = core::array::from_fn(|e| fits[e / 2].numbers[e % 2] as u8);
        self.qh = core::array::from_fn(|j| {
            let nibble = |e: usize| (fits[j].numbers[e] >> 8) as u8 | u8::from(top != 0.0 && fits[j].minus[e]) << 3;
            nibble(0) | nibble(1) << 4
        });
        self.scales = [0; 8];
        if top == 0.0 {
            return;
        }
        let mut d = top / 15.0;
        let inverse = 1.0 / d;
        let (mut xq, mut qq) = (0.0, 0.0);
        let mut words = [0u16; 4];
        for (j, fit) in fits.iter().enumerate() {
            let s = nearest(0.5 * (inverse * fit.scale - 1.0)).clamp(0, 7);
            words[j / 4] |= (s as u16) << (3 * (j % 4));
            for (i, (&x, &w)) in x[j].iter().zip(&weights[j]).enumerate() {
                let code = points().codes(usize::from(fit.numbers[i / 8]))[i % 8];
                let q = VALUES[usize::from(fit.minus[i / 8])][usize::from(code)] * (2 * s + 1) as f32;
                xq += w * q * x;
                qq += w * q * q;
            }
        }
        if qq > 0.0 {
            d = xq / qq;
        }
        for (out, word) in self.scales.as_chunks_mut().0.iter_mut().zip(words) {
            *out = word.to_le_bytes();
        }
        // The factor is the reference's, found by trying.
        SCALE.set(&mut self.scales, Half::of(d * 1.1125).get());
    }
}

impl CodebookGrid for IQ1_M {
    fn assemble(parts: &CodebookParts, block: &mut [u8]) {
        let block = Block::of_mut(block);
        block.qs = parts.low();
        let nibble = |e: usize| (parts.numbers[e] >> 8) as u8 | (parts.signs[e] & 1) << 3;
        block.qh = core::array::from_fn(|j| nibble(2 * j) | nibble(2 * j + 1) << 4);
        for (i, out) in block.scales.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            *out = (0..4).fold(0, |word, j| word | u16::from(parts.scales[4 * i + j]) << (3 * j)).to_le_bytes();
        }
        SCALE.set(&mut block.scales, parts.d);
    }
}

impl Weights for IQ1_M {
    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.super_blocks::<Self>()
    }
}

impl SuperBlocks for IQ1_M {
    const OFFSET: i32 = grid::SMALL_OFFSET;
    const PEAK: u32 = grid::IQ1_PEAK;
    const MINIMA: bool = false;

    fn decode(block: &[u8]) -> PlainSuperBlock {
        let block = Block::of(block);
        PlainSuperBlock::without_minima(block.quants(), block.scales().map(i32::from), block.d())
    }

    #[inline(always)]
    unsafe fn scales<I: Integers>(isa: I, rows: Rows, _head: Head<'_>) -> SuperScales<I> {
        // SAFETY: the scales are the last eight bytes of each block.
        let [_, _, a, b] = unsafe { isa.words(rows.at(offset_of!(Block, scales) - 8)) };
        let mut scales = isa.fields_up::<1, 0x0e>([
            isa.spread::<3, 0>(a),
            isa.spread::<3, 16>(a),
            isa.spread::<3, 0>(b),
            isa.spread::<3, 16>(b),
        ]);
        for scales in &mut scales {
            *scales = isa.or(*scales, isa.splat(0x0101_0101));
        }
        // The upper nibbles of bytes 1, 3, 5, 7 are those of an f16.
        let nibbles = isa.pick(a, b, [1, 3, 5, 7]);
        let (low, high) = (isa.field::<4, 0x0f>(nibbles), isa.field::<0, 0xf0>(nibbles));
        let half = isa.or(isa.pick(low, low, [0, 2, 0, 2]), isa.pick(high, high, [1, 3, 1, 3]));
        let d = isa.mul(isa.lower_halves(half), isa.splat_float(0.125));
        SuperScales::without_minima(scales, d)
    }

    #[inline(always)]
    unsafe fn unpack<I: Integers>(isa: I, rows: Rows, _head: Head<'_>, sink: &mut impl Sink<I>) {
        // Written out, not a loop: the shuffles of a sub-block's number have to be constants.
        // SAFETY: by the contract.
        unsafe {
            half::<I, 0>(isa, rows, sink);
            half::<I, 1>(isa, rows, sink);
        }
    }
}

/// Unpacks half `H` of a block.
///
/// # Safety
/// As for [`SuperBlocks::unpack`].
#[inline(always)]
unsafe fn half<I: Integers, const H: usize>(isa: I, rows: Rows, sink: &mut impl Sink<I>) {
    // SAFETY: the numbers are 32 bytes of each block, `qh` 16.
    let (low, words) =
        unsafe { (isa.words(rows.at(offset_of!(Block, qs) + 16 * H)), isa.words(rows.at(offset_of!(Block, qh)))) };
    let (first, second) = (words[2 * H], words[2 * H + 1]);
    let high = [
        isa.spread::<4, 0>(first),
        isa.spread::<4, 16>(first),
        isa.spread::<4, 0>(second),
        isa.spread::<4, 16>(second),
    ];
    let signs = [
        isa.negative_bytes(isa.field_up::<4, 0x80>(high[0])),
        isa.negative_bytes(isa.field_up::<4, 0x80>(high[1])),
        isa.negative_bytes(isa.field_up::<4, 0x80>(high[2])),
        isa.negative_bytes(isa.field_up::<4, 0x80>(high[3])),
    ];
    let [a, b, c, d] = isa.entries(GRID, low, isa.fields::<0, 0x07>(high));
    take_eights(isa, sink, 8 * H, GRID, a, signs[0]);
    take_eights(isa, sink, 8 * H + 2, GRID, b, signs[1]);
    take_eights(isa, sink, 8 * H + 4, GRID, c, signs[2]);
    take_eights(isa, sink, 8 * H + 6, GRID, d, signs[3]);
}
