//! IQ3_XXS: 256 weights in 8 groups of 32, `d * (2 s + 1) / 4 * q` with points of a grid of 256, 3.0625 bits per weight.
//!
//! ```text
//! byte  0        2                              66                     98
//!       | d f16  | qs: 64 bytes                 | words: 8 words       |
//! byte 2 + e:        number of entry e                                                      (e < 64)
//! word 66 + 4 g:     bits 31-28 = s[g],  bits 7 p + 6, 7 p = signs of entries 8 g + 2 p and the next, the eighth makes
//!                    their number even                                                      (g < 8, p < 4)
//! weight 4 e + b = d / 4 * (2 s[e / 8] + 1) * (4, 12, ... 52 or 62 by code b of the entry, negative with its sign)
//! ```

use core::mem::offset_of;
use std::sync::OnceLock;

use super::codebook::{Codebook, CodebookGrid, CodebookParts, EntrySigns};
use super::grid::{self, Grid, SIGNS, odd_scales, take_fours, write_group};
use super::layout::{Half, SUPER, block};
use super::points::Points;
use super::search::grid::{GridFits, GridSearch, Refinement};
use super::{BlockFormat, Quantizer, Scale};
use crate::{Activation, Cpu};
use crate::ahead::Head;
use crate::isa::integers::Integers;
use crate::unpack::{PlainSuperBlock, Rows, Sink, SuperBlocks, SuperScales, Visitor, Weights};

/// IQ3_XXS: 256 weights in 98 bytes, a scale of four bits per 32.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct IQ3_XXS;

block! { IQ3_XXS {
    /// Scale of the scales.
    d: Half,
    /// Numbers of entries.
    qs: [u8; 64],
    /// Signs and scales of the groups.
    words: [u8; 32],
} }

/// The grid.
static GRID: &Grid<256, 4> = &grid::IQ3_XXS;

impl Block {
    /// The integers.
    #[inline(always)]
    fn quants(&self) -> [i8; SUPER] {
        let mut quants = [0; SUPER];
        for (g, out) in quants.chunks_exact_mut(32).enumerate() {
            let signs = self.word(g);
            write_group(GRID, grid::OFFSET, out, |e| usize::from(self.qs[8 * g + e]), |p| SIGNS.of(signs, p));
        }
        quants
    }

    /// The scales of the sub-blocks of 16: `2 s + 1`.
    #[inline(always)]
    fn scales(&self) -> [i8; 16] {
        core::array::from_fn(|j| 2 * (self.word(j / 2) >> 28) as i8 + 1)
    }

    /// The scale of the scales.
    #[inline(always)]
    fn d(&self) -> f32 {
        self.d.get() / 4.0
    }
}

impl Block {
    /// The signs and the scale of group `g`.
    #[inline(always)]
    fn word(&self, g: usize) -> u32 {
        u32::from_le_bytes(core::array::from_fn(|i| self.words[4 * g + i]))
    }
}

impl BlockFormat for IQ3_XXS {
    const NAME: &'static str = "IQ3_XXS";
    const ID: u32 = 18;
    const BLOCK: usize = SUPER;
    const BYTES: usize = 98;
    const ACTIVATION: Activation = Activation::Super256;
    const SCALES: &'static [Scale] = &[Scale::Half(offset_of!(Block, d))];
    const CODEBOOK: Option<Codebook> =
        Some(Codebook::of::<Self, 256, 4>(&grid::IQ3_XXS, grid::OFFSET, (32, 15), 0.25, EntrySigns::Even));
    const QUANTIZER: Quantizer = Quantizer::Row(Self::quantize);

    fn dequantize(block: &[u8], out: &mut [f32]) {
        Self::decode(block).write(out);
    }
}

impl IQ3_XXS {
    /// The [`Quantizer`].
    fn quantize(_: Cpu, values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
        for (i, (values, out)) in values.chunks_exact(SUPER).zip(out.chunks_exact_mut(Self::BYTES)).enumerate() {
            Block::of_mut(out).quantize(values, importance.map(|importance| &importance[SUPER * i..][..SUPER]));
        }
    }
}

/// The points of the grid, made when they are first needed.
fn points() -> &'static Points<4> {
    static POINTS: OnceLock<Points<4>> = OnceLock::new();
    POINTS.get_or_init(|| Points::new(GRID, 8, 2))
}

/// How it is encoded.
const SEARCH: GridSearch = GridSearch {
    codes: 8,
    even_signs: true,
    spread: 2.0,
    plain_spread: 0.0,
    tiny: 1e-8,
    steps: 15,
    step: 0.2,
    refinement: Refinement::Neighbours,
    correction: 1.0125,
};

impl Block {
    fn quantize(&mut self, values: &[f32], importance: Option<&[f32]>) {
        let GridFits::<8> { groups, d, scales } = SEARCH.super_block::<8, 32, 4>(points(), values, importance);
        (self.d, self.qs, self.words) = (Half::of(d), [0; 64], [0; 32]);
        if d == 0.0 {
            return;
        }
        self.qs = core::array::from_fn(|e| groups[e / 8].numbers[e % 8] as u8);
        for ((out, group), s) in self.words.as_chunks_mut::<4>().0.iter_mut().zip(&groups).zip(scales) {
            *out = (group.sevens() | u32::from(s) << 28).to_le_bytes();
        }
    }
}

impl CodebookGrid for IQ3_XXS {
    fn assemble(parts: &CodebookParts, block: &mut [u8]) {
        let block = Block::of_mut(block);
        block.d.set(parts.d);
        block.qs = parts.low();
        for (g, out) in block.words.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *out = (parts.sevens(4 * g) | u32::from(parts.scales[g]) << 28).to_le_bytes();
        }
    }
}

impl Weights for IQ3_XXS {
    const WORDS: &'static [usize] = &[offset_of!(Block, d)];

    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.super_blocks::<Self>()
    }
}

impl SuperBlocks for IQ3_XXS {
    const OFFSET: i32 = grid::OFFSET;
    const PEAK: u32 = grid::IQ3_XXS_PEAK;
    const MINIMA: bool = false;

    fn decode(block: &[u8]) -> PlainSuperBlock {
        let block = Block::of(block);
        PlainSuperBlock::without_minima(block.quants(), block.scales().map(i32::from), block.d())
    }

    #[inline(always)]
    unsafe fn scales<I: Integers>(isa: I, rows: Rows, head: Head<'_>) -> SuperScales<I> {
        let words = rows.at(offset_of!(Block, words));
        // SAFETY: the words are 32 bytes of each block.
        let (low, high) = unsafe { (isa.words(words), isa.words(words.at(16))) };
        let scales = [
            odd_scales(isa, isa.pick(low[0], low[1], [3, 3, 7, 7])),
            odd_scales(isa, isa.pick(low[2], low[3], [3, 3, 7, 7])),
            odd_scales(isa, isa.pick(high[0], high[1], [3, 3, 7, 7])),
            odd_scales(isa, isa.pick(high[2], high[3], [3, 3, 7, 7])),
        ];
        let d = isa.mul(isa.lower_halves(head.word(isa, 0)), isa.splat_float(0.25));
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
    // SAFETY: the numbers are 64 bytes of each block, the words 32.
    let (numbers, words) = unsafe {
        (
            isa.words(rows.at(offset_of!(Block, qs) + 16 * C)),
            isa.words(rows.at(offset_of!(Block, words) + 16 * (C / 2))),
        )
    };
    let [a, b, c, d] = isa.entries(GRID, numbers, [isa.splat(0); 4]);
    let (first, second) = (words[C % 2 * 2], words[C % 2 * 2 + 1]);
    take_fours(isa, sink, 4 * C, GRID, [a, b], isa.with_parity(isa.spread::<7, 0>(first)));
    take_fours(isa, sink, 4 * C + 2, GRID, [c, d], isa.with_parity(isa.spread::<7, 0>(second)));
}
