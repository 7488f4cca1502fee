//! IQ2_S: 256 weights in 16 sub-blocks of 16, `d * (2 s + 1) / 8 * q` with points of a grid of 1024, 2.5625 bits per weight.
//!
//! ```text
//! byte  0        2               34              66       74          82
//!       | d f16  | qs: 32 bytes  | signs: 32     | qh: 8  | scales: 8 |
//! byte 2 + e:   bits 7-0 of the number of entry e                                   (e < 32)
//! byte 34 + e:  bit b = sign of weight b of entry e                                 (b < 8)
//! byte 66 + g:  bits 2 e + 1, 2 e = bits 9-8 of the number of entry 4 g + e         (g < 8, e < 4)
//! byte 74 + i:  bits 7-4 = s[2 i + 1],  bits 3-0 = s[2 i]                           (i < 8)
//! weight 8 e + b = d / 8 * (2 s[e / 2] + 1) * (8, 25 or 43 by code b of the entry, negative with its sign)
//! ```

use core::mem::offset_of;
use std::sync::OnceLock;

use super::codebook::{Codebook, CodebookGrid, CodebookParts, EntrySigns};
use super::grid::{self, Grid, odd_nibble_scales, take_eights, write_group};
use super::layout::{Half, SUPER, block};
use super::points::Points;
use super::search::grid::{GridFits, GridSearch, Refinement};
use super::{BlockFormat, Quantizer, Scale};
use crate::{Activation, Cpu};
use crate::ahead::Head;
use crate::isa::integers::Integers;
use crate::unpack::{PlainSuperBlock, Rows, Sink, SuperBlocks, SuperScales, Visitor, Weights};

/// IQ2_S: 256 weights in 82 bytes, a scale of four bits per 16.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct IQ2_S;

block! { IQ2_S {
    /// Scale of the scales.
    d: Half,
    /// Bits 7-0 of the numbers of entries.
    qs: [u8; 32],
    /// Signs, a byte per entry.
    signs: [u8; 32],
    /// Bits 9-8 of the numbers, four in a byte.
    qh: [u8; 8],
    /// Scales of the sub-blocks, nibbles in turn.
    scales: [u8; 8],
} }

/// The grid.
static GRID: &Grid<1024, 8> = &grid::IQ2_S;

impl Block {
    /// The integers.
    #[inline(always)]
    fn quants(&self) -> [i8; SUPER] {
        let mut quants = [0; SUPER];
        for (g, out) in quants.chunks_exact_mut(32).enumerate() {
            let number = |e: usize| usize::from(self.qs[4 * g + e]) | usize::from(self.qh[g] >> (2 * e) & 3) << 8;
            write_group(GRID, grid::OFFSET, out, number, |e| self.signs[4 * g + e]);
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

impl BlockFormat for IQ2_S {
    const NAME: &'static str = "IQ2_S";
    const ID: u32 = 22;
    const BLOCK: usize = SUPER;
    const BYTES: usize = 82;
    const ACTIVATION: Activation = Activation::Super256;
    const SCALES: &'static [Scale] = &[Scale::Half(offset_of!(Block, d))];
    const CODEBOOK: Option<Codebook> =
        Some(Codebook::of::<Self, 1024, 8>(&grid::IQ2_S, grid::OFFSET, (16, 15), 0.125, EntrySigns::Free));
    const QUANTIZER: Quantizer = Quantizer::Row(Self::quantize);

    fn dequantize(block: &[u8], out: &mut [f32]) {
        Self::decode(block).write(out);
    }
}

impl IQ2_S {
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
    POINTS.get_or_init(|| Points::new(GRID, 3, 1))
}

/// How it is encoded.
const SEARCH: GridSearch = GridSearch {
    codes: 3,
    even_signs: false,
    spread: 2.0,
    plain_spread: 0.25,
    tiny: 1e-8,
    steps: 9,
    step: 0.1,
    refinement: Refinement::Neighbours,
    correction: 0.9875,
};

impl Block {
    fn quantize(&mut self, values: &[f32], importance: Option<&[f32]>) {
        let GridFits::<16> { groups, d, scales } = SEARCH.super_block::<16, 16, 8>(points(), values, importance);
        let number = |e: usize| groups[e / 2].numbers[e % 2];
        self.d.set(d);
        self.qs = core::array::from_fn(|e| number(e) as u8);
        self.signs = core::array::from_fn(|e| groups[e / 2].signs[e % 2]);
        self.qh = core::array::from_fn(|g| (0..4).fold(0, |byte, e| byte | ((number(4 * g + e) >> 8) as u8) << (2 * e)));
        self.scales = core::array::from_fn(|i| scales[2 * i] | scales[2 * i + 1] << 4);
    }
}

impl CodebookGrid for IQ2_S {
    fn assemble(parts: &CodebookParts, block: &mut [u8]) {
        let high = |e: usize| (parts.numbers[e] >> 8) as u8;
        let block = Block::of_mut(block);
        block.d.set(parts.d);
        block.qs = parts.low();
        block.signs = parts.signs;
        block.qh = core::array::from_fn(|g| (0..4).fold(0, |byte, e| byte | high(4 * g + e) << (2 * e)));
        block.scales = parts.nibbles();
    }
}

impl Weights for IQ2_S {
    const WORDS: &'static [usize] = &[offset_of!(Block, d)];

    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.super_blocks::<Self>()
    }
}

impl SuperBlocks for IQ2_S {
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
    // SAFETY: the fields are 32 bytes of each block, and its last 16 bytes.
    let (low, signs, upper) = unsafe {
        (
            isa.words(rows.at(offset_of!(Block, qs) + 16 * H)),
            isa.words(rows.at(offset_of!(Block, signs) + 16 * H)),
            isa.words(rows.at(offset_of!(Block, qh)))[H],
        )
    };
    let high =
        [isa.spread::<2, 0>(upper), isa.spread::<2, 8>(upper), isa.spread::<2, 16>(upper), isa.spread::<2, 24>(upper)];
    let [a, b, c, d] = isa.entries(GRID, low, high);
    take_eights(isa, sink, 8 * H, GRID, a, signs[0]);
    take_eights(isa, sink, 8 * H + 2, GRID, b, signs[1]);
    take_eights(isa, sink, 8 * H + 4, GRID, c, signs[2]);
    take_eights(isa, sink, 8 * H + 6, GRID, d, signs[3]);
}
