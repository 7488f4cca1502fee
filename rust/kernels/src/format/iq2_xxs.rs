//! IQ2_XXS: 256 weights in 8 groups of 32, `d * (2 s + 1) / 8 * q` with points of a grid of 256, 2.0625 bits per weight.
//!
//! ```text
//! byte  0        2                                               66
//!       | d f16  | qs: 8 groups of two words                     |
//! byte 2 + 8 g + e:  number of entry e                                                     (g < 8, e < 4)
//! word 6 + 8 g:      bits 31-28 = s[g],  bits 7 e + 6, 7 e = signs of entry e, the eighth makes their number even
//! weight 32 g + 8 e + b = d / 8 * (2 s[g] + 1) * (8, 25 or 43 by code b of the entry, negative with its sign)
//! ```

use core::mem::offset_of;
use std::sync::OnceLock;

use super::codebook::{Codebook, CodebookGrid, CodebookParts, EntrySigns};
use super::grid::{self, Grid, SIGNS, odd_scales, take_eights, write_group};
use super::layout::{Half, SUPER, block};
use super::points::Points;
use super::search::grid::{GridFits, GridSearch, Refinement, ZEROS};
use super::{BlockFormat, Quantizer, Scale};
use crate::{Activation, Cpu};
use crate::ahead::Head;
use crate::isa::integers::Integers;
use crate::unpack::{PlainSuperBlock, Rows, Sink, SuperBlocks, SuperScales, Visitor, Weights};

/// IQ2_XXS: 256 weights in 66 bytes, a scale of four bits per 32.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct IQ2_XXS;

block! { IQ2_XXS {
    /// Scale of the scales.
    d: Half,
    /// Groups of eight bytes: four numbers of entries, then a word of signs and scale.
    qs: [u8; 64],
} }

/// The grid.
static GRID: &Grid<256, 8> = &grid::IQ2_XXS;

impl Block {
    /// The integers.
    #[inline(always)]
    fn quants(&self) -> [i8; SUPER] {
        let mut quants = [0; SUPER];
        for (g, out) in quants.chunks_exact_mut(32).enumerate() {
            let signs = self.word(g);
            write_group(GRID, grid::OFFSET, out, |e| usize::from(self.qs[8 * g + e]), |e| SIGNS.of(signs, e));
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
        self.d.get() / 8.0
    }
}

impl Block {
    /// The signs and the scale of group `g`.
    #[inline(always)]
    fn word(&self, g: usize) -> u32 {
        u32::from_le_bytes(core::array::from_fn(|i| self.qs[8 * g + 4 + i]))
    }
}

impl BlockFormat for IQ2_XXS {
    const NAME: &'static str = "IQ2_XXS";
    const ID: u32 = 16;
    const BLOCK: usize = SUPER;
    const BYTES: usize = 66;
    const ACTIVATION: Activation = Activation::Super256;
    const SCALES: &'static [Scale] = &[Scale::Half(offset_of!(Block, d))];
    const CODEBOOK: Option<Codebook> =
        Some(Codebook::of::<Self, 256, 8>(&grid::IQ2_XXS, grid::OFFSET, (32, 15), 0.125, EntrySigns::Even));
    const QUANTIZER: Quantizer = Quantizer::Important(Self::quantize);

    fn dequantize(block: &[u8], out: &mut [f32]) {
        Self::decode(block).write(out);
    }
}

impl IQ2_XXS {
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
    steps: 6,
    step: 0.1,
    refinement: Refinement::All,
    correction: 1.0,
};

impl Block {
    fn quantize(&mut self, values: &[f32], importance: Option<&[f32]>) {
        let GridFits::<8> { groups, d, scales } = SEARCH.super_block::<8, 32, 8>(points(), values, importance);
        (self.d, self.qs) = (Half::of(d), [0; 64]);
        if d == 0.0 {
            return;
        }
        for ((out, group), s) in self.qs.as_chunks_mut::<8>().0.iter_mut().zip(&groups).zip(scales) {
            out[..4].copy_from_slice(&core::array::from_fn::<_, 4, _>(|e| group.numbers[e] as u8));
            out[4..].copy_from_slice(&(group.sevens() | u32::from(s) << 28).to_le_bytes());
        }
    }
}

impl CodebookGrid for IQ2_XXS {
    fn assemble(parts: &CodebookParts, block: &mut [u8]) {
        let block = Block::of_mut(block);
        block.d.set(parts.d);
        for (g, out) in block.qs.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            out[..4].copy_from_slice(&core::array::from_fn::<_, 4, _>(|e| parts.numbers[4 * g + e] as u8));
            out[4..].copy_from_slice(&(parts.sevens(4 * g) | u32::from(parts.scales[g]) << 28).to_le_bytes());
        }
    }
}

impl Weights for IQ2_XXS {
    const WORDS: &'static [usize] = &[offset_of!(Block, d)];

    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.super_blocks::<Self>()
    }
}

impl SuperBlocks for IQ2_XXS {
    const OFFSET: i32 = grid::OFFSET;
    const PEAK: u32 = grid::IQ2_PEAK;
    const MINIMA: bool = false;

    fn decode(block: &[u8]) -> PlainSuperBlock {
        let block = Block::of(block);
        PlainSuperBlock::without_minima(block.quants(), block.scales().map(i32::from), block.d())
    }

    #[inline(always)]
    unsafe fn scales<I: Integers>(isa: I, rows: Rows, head: Head<'_>) -> SuperScales<I> {
        let mut scales = [isa.splat(0); 4];
        for (c, scales) in scales.iter_mut().enumerate() {
            // SAFETY: the groups are 64 bytes of each block.
            let [_, a, _, b] = unsafe { isa.words(rows.at(offset_of!(Block, qs) + 16 * c)) };
            *scales = odd_scales(isa, isa.pick(a, b, [3, 3, 7, 7]));
        }
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
    // SAFETY: the groups are 64 bytes of each block.
    let [a, a_signs, b, b_signs] = unsafe { isa.words(rows.at(offset_of!(Block, qs) + 16 * C)) };
    let [a, b] = isa.entries(GRID, [a, b], [isa.splat(0); 2]);
    take_eights(isa, sink, 4 * C, GRID, a, isa.with_parity(isa.spread::<7, 0>(a_signs)));
    take_eights(isa, sink, 4 * C + 2, GRID, b, isa.with_parity(isa.spread::<7, 0>(b_signs)));
}
