//! IQ3_S: 256 weights in 8 groups of 32, `d * (2 s + 1) * q` with points of a grid of 512, 3.4375 bits per weight.
//!
//! ```text
//! byte  0        2                      66       74              106         110
//!       | d f16  | qs: 64 bytes         | qh: 8  | signs: 32     | scales: 4 |
//! byte 2 + e:    bits 7-0 of the number of entry e                                  (e < 64)
//! byte 66 + g:   bit e = bit 8 of the number of entry 8 g + e                       (g < 8, e < 8)
//! byte 74 + p:   bits 0-3 = signs of entry 2 p,  bits 4-7 = signs of entry 2 p + 1  (p < 32)
//! byte 106 + i:  bits 7-4 = s[2 i + 1],  bits 3-0 = s[2 i]                          (i < 4)
//! weight 4 e + b = d * (2 s[e / 8] + 1) * (1, 3, ... or 15 by code b of the entry, negative with its sign)
//! ```

use core::mem::offset_of;
use std::sync::OnceLock;

use super::codebook::{Codebook, CodebookGrid, CodebookParts, EntrySigns};
use super::grid::{self, Grid, odd_scales, take_fours, write_group};
use super::layout::{Half, SUPER, block};
use super::points::Points;
use super::search::grid::{GridFits, GridSearch, Refinement};
use super::{BlockFormat, Quantizer, Scale};
use crate::{Activation, Cpu};
use crate::ahead::Head;
use crate::isa::integers::Integers;
use crate::unpack::{PlainSuperBlock, Rows, Sink, SuperBlocks, SuperScales, Visitor, Weights};

/// IQ3_S: 256 weights in 110 bytes, a scale of four bits per 32.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct IQ3_S;

block! { IQ3_S {
    /// Scale of the scales.
    d: Half,
    /// Bits 7-0 of the numbers of entries.
    qs: [u8; 64],
    /// Bits 8 of the numbers, eight in a byte.
    qh: [u8; 8],
    /// Signs of the weights.
    signs: [u8; 32],
    /// Scales of the groups, nibbles in turn.
    scales: [u8; 4],
} }

/// The grid.
static GRID: &Grid<512, 4> = &grid::IQ3_S;

impl Block {
    /// The integers.
    #[inline(always)]
    fn quants(&self) -> [i8; SUPER] {
        let mut quants = [0; SUPER];
        for (g, out) in quants.chunks_exact_mut(32).enumerate() {
            let number = |e: usize| usize::from(self.qs[8 * g + e]) | usize::from(self.qh[g] >> e & 1) << 8;
            write_group(GRID, grid::SMALL_OFFSET, out, number, |p| self.signs[4 * g + p]);
        }
        quants
    }

    /// The scales of the sub-blocks of 16: `2 s + 1`.
    #[inline(always)]
    fn scales(&self) -> [i8; 16] {
        core::array::from_fn(|j| 2 * (self.scales[j / 4] >> (4 * (j / 2 % 2)) & 15) as i8 + 1)
    }

    /// The scale of the scales.
    #[inline(always)]
    fn d(&self) -> f32 {
        self.d.get()
    }
}

impl BlockFormat for IQ3_S {
    const NAME: &'static str = "IQ3_S";
    const ID: u32 = 21;
    const BLOCK: usize = SUPER;
    const BYTES: usize = 110;
    const ACTIVATION: Activation = Activation::Super256;
    const SCALES: &'static [Scale] = &[Scale::Half(offset_of!(Block, d))];
    const CODEBOOK: Option<Codebook> =
        Some(Codebook::of::<Self, 512, 4>(&grid::IQ3_S, grid::SMALL_OFFSET, (32, 15), 1.0, EntrySigns::Free));
    const QUANTIZER: Quantizer = Quantizer::Row(Self::quantize);

    fn dequantize(block: &[u8], out: &mut [f32]) {
        Self::decode(block).write(out);
    }
}

impl IQ3_S {
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
    POINTS.get_or_init(|| Points::new(GRID, 8, 3))
}

/// How it is encoded.
const SEARCH: GridSearch = GridSearch {
    codes: 8,
    even_signs: false,
    spread: 2.0,
    plain_spread: 0.0,
    tiny: 0.0,
    steps: 9,
    step: 0.2,
    refinement: Refinement::AllIfNeighbours,
    correction: 1.033,
};

impl Block {
    fn quantize(&mut self, values: &[f32], importance: Option<&[f32]>) {
        let GridFits::<8> { groups, d, scales } = SEARCH.super_block::<8, 32, 4>(points(), values, importance);
        let number = |e: usize| groups[e / 8].numbers[e % 8];
        self.d.set(d);
        self.qh = core::array::from_fn(|g| (0..8).fold(0, |byte, e| byte | ((number(8 * g + e) >> 8) as u8) << e));
        // As the reference: numbers and signs of groups that are not zeros follow each other, so that after a group of zeros they
        // lie one group too early. Rows of which only the end is zeros are not affected.
        (self.qs, self.signs) = ([0; 64], [0; 32]);
        let present = values.as_chunks::<32>().0.iter().zip(&groups).filter(|(x, _)| x.iter().any(|&x| x != 0.0));
        let places = self.qs.as_chunks_mut::<8>().0.iter_mut().zip(self.signs.as_chunks_mut::<4>().0);
        for ((_, group), (qs, signs)) in present.zip(places) {
            *qs = group.numbers.map(|number| number as u8);
            *signs = group.signs;
        }
        self.scales = core::array::from_fn(|i| scales[2 * i] | scales[2 * i + 1] << 4);
    }
}

impl CodebookGrid for IQ3_S {
    fn assemble(parts: &CodebookParts, block: &mut [u8]) {
        let high = |e: usize| (parts.numbers[e] >> 8) as u8;
        let block = Block::of_mut(block);
        block.d.set(parts.d);
        block.qs = parts.low();
        block.qh = core::array::from_fn(|g| (0..8).fold(0, |byte, e| byte | high(8 * g + e) << e));
        block.signs = parts.signs;
        block.scales = parts.nibbles();
    }
}

impl Weights for IQ3_S {
    const WORDS: &'static [usize] = &[offset_of!(Block, d), offset_of!(Block, scales)];

    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.super_blocks::<Self>()
    }
}

impl SuperBlocks for IQ3_S {
    const OFFSET: i32 = grid::SMALL_OFFSET;
    const PEAK: u32 = grid::IQ3_S_PEAK;
    const MINIMA: bool = false;

    fn decode(block: &[u8]) -> PlainSuperBlock {
        let block = Block::of(block);
        PlainSuperBlock::without_minima(block.quants(), block.scales().map(i32::from), block.d())
    }

    #[inline(always)]
    unsafe fn scales<I: Integers>(isa: I, _rows: Rows, head: Head<'_>) -> SuperScales<I> {
        let (d, nibbles) = (isa.lower_halves(head.word(isa, 0)), head.word(isa, 1));
        let (low, high) = (isa.field_up::<4, 0xf0>(nibbles), nibbles);
        let scales = [
            odd_scales(isa, isa.pick(low, high, [0, 0, 4, 4])),
            odd_scales(isa, isa.pick(low, high, [1, 1, 5, 5])),
            odd_scales(isa, isa.pick(low, high, [2, 2, 6, 6])),
            odd_scales(isa, isa.pick(low, high, [3, 3, 7, 7])),
        ];
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
    // SAFETY: the numbers are 64 bytes of each block, the signs 32, and `qh` is not at its end.
    let (low, signs, upper) = unsafe {
        (
            isa.words(rows.at(offset_of!(Block, qs) + 16 * C)),
            isa.words(rows.at(offset_of!(Block, signs) + 16 * (C / 2))),
            isa.words(rows.at(offset_of!(Block, qh)))[C / 2],
        )
    };
    let high = if C.is_multiple_of(2) {
        [isa.spread::<1, 0>(upper), isa.spread::<1, 4>(upper), isa.spread::<1, 8>(upper), isa.spread::<1, 12>(upper)]
    } else {
        [isa.spread::<1, 16>(upper), isa.spread::<1, 20>(upper), isa.spread::<1, 24>(upper), isa.spread::<1, 28>(upper)]
    };
    let [a, b, c, d] = isa.entries(GRID, low, high);
    take_fours(isa, sink, 4 * C, GRID, [a, b], signs[C % 2 * 2]);
    take_fours(isa, sink, 4 * C + 2, GRID, [c, d], signs[C % 2 * 2 + 1]);
}
