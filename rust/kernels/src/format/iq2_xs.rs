//! IQ2_XS: 256 weights in 16 sub-blocks of 16, `d * (2 s + 1) / 8 * q` with points of a grid of 512, 2.3125 bits per weight.
//!
//! ```text
//! byte  0        2                                     66            74
//!       | d f16  | qs: 32 u16                          | scales: 8   |
//! u16 2 + 2 e:  bits 15-9 = signs of entry e, the eighth makes their number even,  bits 8-0 = its number    (e < 32)
//! byte 66 + i:  bits 7-4 = s[2 i + 1],  bits 3-0 = s[2 i]                                                   (i < 8)
//! weight 8 e + b = d / 8 * (2 s[e / 2] + 1) * (8, 25 or 43 by code b of the entry, negative with its sign)
//! ```

use core::mem::offset_of;
use std::sync::OnceLock;

use super::codebook::{Codebook, CodebookGrid, CodebookParts, EntrySigns};
use super::grid::{self, Grid, SIGNS, odd_nibble_scales, take_eights, write_group};
use super::layout::{Half, SUPER, block};
use super::points::Points;
use super::search::grid::{GridFits, GridSearch, Refinement, ZEROS};
use super::{BlockFormat, Quantizer, Scale};
use crate::{Activation, Cpu};
use crate::ahead::Head;
use crate::isa::integers::Integers;
use crate::unpack::{PlainSuperBlock, Rows, Sink, SuperBlocks, SuperScales, Visitor, Weights};

/// IQ2_XS: 256 weights in 74 bytes, a scale of four bits per 16.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct IQ2_XS;

block! { IQ2_XS {
    /// Scale of the scales.
    d: Half,
    /// Numbers and signs of entries.
    qs: [u8; 64],
    /// Scales of the sub-blocks, nibbles in turn.
    scales: [u8; 8],
} }

/// The grid.
static GRID: &Grid<512, 8> = &grid::IQ2_XS;

impl Block {
    /// The integers.
    #[inline(always)]
    fn quants(&self) -> [i8; SUPER] {
        let mut quants = [0; SUPER];
        for (g, out) in quants.chunks_exact_mut(32).enumerate() {
            let word = |e: usize| u16::from_le_bytes([self.qs[8 * g + 2 * e], self.qs[8 * g + 2 * e + 1]]);
            write_group(
                GRID,
                grid::OFFSET,
                out,
                |e| usize::from(word(e) & 511),
                |e| SIGNS.of(u32::from(word(e) >> 9), 0),
            );
        }
        quants
    }

    /// The scales of the sub-blocks of 16: `2 s + 1`.
    #[inline(always)]
    fn scales(&self) -> [i8; 16] {
        core::array::from_fn(|j| 2 * (self.scales[j / 2] >> (4 * (j % 2)) & 15) as i8 + 1)
    }

    /// The scale of the scales.
    #[inline(always)]
    fn d(&self) -> f32 {
        self.d.get() / 8.0
    }
}

impl BlockFormat for IQ2_XS {
    const NAME: &'static str = "IQ2_XS";
    const ID: u32 = 17;
    const BLOCK: usize = SUPER;
    const BYTES: usize = 74;
    const ACTIVATION: Activation = Activation::Super256;
    const SCALES: &'static [Scale] = &[Scale::Half(offset_of!(Block, d))];
    const CODEBOOK: Option<Codebook> =
        Some(Codebook::of::<Self, 512, 8>(&grid::IQ2_XS, grid::OFFSET, (16, 15), 0.125, EntrySigns::Even));
    const QUANTIZER: Quantizer = Quantizer::Important(Self::quantize);

    fn dequantize(block: &[u8], out: &mut [f32]) {
        Self::decode(block).write(out);
    }
}

impl IQ2_XS {
    /// The [`Quantizer`].
    fn quantize(_: Cpu, values: &[f32], importance: &[f32], out: &mut [u8]) {
        for (i, (values, out)) in values.chunks_exact(SUPER).zip(out.chunks_exact_mut(Self::BYTES)).enumerate() {
            Block::of_mut(out).quantize(values, Some(&importance[SUPER * i..][..SUPER]));
        }
    }
}

/// The points of the grid, made when they are first needed.
fn points() -> &'static Points<8> {
    static POINTS: OnceLock<Points<8>> = OnceLock::new();
    POINTS.get_or_init(|| Points::new(GRID, 3, 2))
}

/// How it is encoded.
const SEARCH: GridSearch = GridSearch {
    codes: 3,
    even_signs: true,
    spread: 1.0,
    plain_spread: 0.0,
    tiny: ZEROS,
    steps: 9,
    step: 0.1,
    refinement: Refinement::Neighbours,
    correction: 1.0,
};

impl Block {
    fn quantize(&mut self, values: &[f32], importance: Option<&[f32]>) {
        let GridFits::<16> { groups, d, scales } = SEARCH.super_block::<16, 16, 8>(points(), values, importance);
        (self.d, self.qs, self.scales) = (Half::of(d), [0; 64], [0; 8]);
        if d == 0.0 {
            return;
        }
        for (e, out) in self.qs.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let group = &groups[e / 2];
            *out = (group.numbers[e % 2] | u16::from(group.signs[e % 2] & 127) << 9).to_le_bytes();
        }
        self.scales = core::array::from_fn(|i| scales[2 * i] | scales[2 * i + 1] << 4);
    }
}

impl CodebookGrid for IQ2_XS {
    fn assemble(parts: &CodebookParts, block: &mut [u8]) {
        let block = Block::of_mut(block);
        block.d.set(parts.d);
        for (e, out) in block.qs.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            *out = (parts.numbers[e] | u16::from(parts.signs[e] & 127) << 9).to_le_bytes();
        }
        block.scales = parts.nibbles();
    }
}

impl Weights for IQ2_XS {
    const WORDS: &'static [usize] = &[offset_of!(Block, d)];

    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.super_blocks::<Self>()
    }
}

impl SuperBlocks for IQ2_XS {
    const OFFSET: i32 = grid::OFFSET;
    const PEAK: u32 = grid::IQ2_PEAK;
    const MINIMA: bool = false;

    fn decode(block: &[u8]) -> PlainSuperBlock {
        let block = Block::of(block);
        PlainSuperBlock::without_minima(block.quants(), block.scales().map(i32::from), block.d())
    }

    #[inline(always)]
    unsafe fn scales<I: Integers>(isa: I, rows: Rows, head: Head<'_>) -> SuperScales<I> {
        // SAFETY: the scales are the last eight bytes of each block.
        let [_, _, a, b] = unsafe { isa.words(rows.at(offset_of!(Block, scales) - 8)) };
        let scales = odd_nibble_scales(isa, [a, b]);
        let d = isa.mul(isa.lower_halves(head.word(isa, 0)), isa.splat_float(0.125));
        SuperScales::without_minima(scales, d)
    }

    #[inline(always)]
    unsafe fn unpack<I: Integers>(isa: I, rows: Rows, _head: Head<'_>, sink: &mut impl Sink<I>) {
        // Written out, not a loop: the shuffles of a sub-block's number have to be constants.
        // SAFETY: by the contract.
        unsafe {
            quarter::<I, 0>(isa, rows, sink);
            quarter::<I, 1>(isa, rows, sink);
            quarter::<I, 2>(isa, rows, sink);
            quarter::<I, 3>(isa, rows, sink);
        }
    }
}

/// Unpacks quarter `C` of a block.
///
/// # Safety
/// As for [`SuperBlocks::unpack`].
#[inline(always)]
unsafe fn quarter<I: Integers, const C: usize>(isa: I, rows: Rows, sink: &mut impl Sink<I>) {
    // SAFETY: the numbers are 64 bytes of each block.
    let [a, b, c, d] = unsafe { isa.words(rows.at(offset_of!(Block, qs) + 16 * C)) };
    let low = [isa.pick(a, b, [0, 2, 4, 6]), isa.pick(c, d, [0, 2, 4, 6])];
    let odd = [isa.pick(a, b, [1, 3, 5, 7]), isa.pick(c, d, [1, 3, 5, 7])];
    let [a, b] = isa.entries(GRID, low, [isa.field::<0, 0x01>(odd[0]), isa.field::<0, 0x01>(odd[1])]);
    take_eights(isa, sink, 4 * C, GRID, a, isa.with_parity(isa.field::<1, 0x7f>(odd[0])));
    take_eights(isa, sink, 4 * C + 2, GRID, b, isa.with_parity(isa.field::<1, 0x7f>(odd[1])));
}
