//! IQ1_S: 256 weights in 8 groups of 32, `d * (2 s + 1) / 8 * (8 q + 1 or - 1)` with points of a grid of 2048, 1.5625 bits per weight.
//!
//! ```text
//! byte  0        2               34              50
//!       | d f16  | qs: 32 bytes  | qh: 8 u16     |
//! byte 2 + e:     bits 7-0 of the number of entry e                                        (e < 32)
//! u16 34 + 2 g:   bit 15 = whether 1 is subtracted,  bits 14-12 = s[g],
//!                 bits 3 e + 2, 3 e = bits 10-8 of the number of entry 4 g + e             (g < 8, e < 4)
//! weight 32 g + i = d / 8 * (2 s[g] + 1) * (-8, 0 or 8 by the code in its entry, plus or minus 1)
//! ```

use core::mem::offset_of;
use std::sync::OnceLock;

use super::codebook::{Codebook, CodebookGrid, CodebookParts, EntrySigns};
use super::grid::{self, Grid, take_eights, write_group};
use super::layout::{Half, SUPER, block};
use super::points::Points;
use super::round::nearest;
use super::search::ternary::{TernaryFit, fit_ternary};
use super::search::{squares, weigh};
use super::{BlockFormat, Quantizer, Scale};
use crate::{Activation, Cpu};
use crate::ahead::Head;
use crate::isa::integers::Integers;
use crate::unpack::{PlainSuperBlock, Rows, Sink, SuperBlocks, SuperScales, Visitor, Weights};

/// IQ1_S: 256 weights in 50 bytes, a scale of three bits per 32.
#[derive(Clone, Copy, Default, Debug)]
#[allow(non_camel_case_types, reason = "named as in GGUF files")]
pub struct IQ1_S;

block! { IQ1_S {
    /// Scale of the scales.
    d: Half,
    /// Bits 7-0 of the numbers of entries.
    qs: [u8; 32],
    /// The rest of the groups.
    qh: [u8; 16],
} }

/// The grid.
static GRID: &Grid<2048, 8> = &grid::IQ1;

impl Block {
    /// The integers.
    #[inline(always)]
    fn quants(&self) -> [i8; SUPER] {
        let mut quants = [0; SUPER];
        for (g, out) in quants.chunks_exact_mut(32).enumerate() {
            let word = self.word(g);
            let number = |e: usize| usize::from(self.qs[4 * g + e]) | usize::from(word >> (3 * e) & 7) << 8;
            write_group(GRID, grid::SMALL_OFFSET, out, number, |_| if word >> 15 == 1 { 0xff } else { 0 });
        }
        quants
    }

    /// The scales of the sub-blocks of 16: `2 s + 1`.
    #[inline(always)]
    fn scales(&self) -> [i8; 16] {
        core::array::from_fn(|j| 2 * (self.word(j / 2) >> 12 & 7) as i8 + 1)
    }

    /// The scale of the scales.
    #[inline(always)]
    fn d(&self) -> f32 {
        self.d.get() / 8.0
    }
}

impl Block {
    /// What group `g` has in `qh`.
    #[inline(always)]
    fn word(&self, g: usize) -> u16 {
        u16::from_le_bytes([self.qh[2 * g], self.qh[2 * g + 1]])
    }
}

impl BlockFormat for IQ1_S {
    const NAME: &'static str = "IQ1_S";
    const ID: u32 = 19;
    const BLOCK: usize = SUPER;
    const BYTES: usize = 50;
    const ACTIVATION: Activation = Activation::Super256;
    const SCALES: &'static [Scale] = &[Scale::Half(offset_of!(Block, d))];
    const CODEBOOK: Option<Codebook> =
        Some(Codebook::of::<Self, 2048, 8>(&grid::IQ1, grid::SMALL_OFFSET, (32, 7), 0.125, EntrySigns::Shift(32)));
    const QUANTIZER: Quantizer = Quantizer::Important(Self::quantize);

    fn dequantize(block: &[u8], out: &mut [f32]) {
        Self::decode(block).write(out);
    }
}

impl IQ1_S {
    /// The [`Quantizer`].
    fn quantize(_: Cpu, values: &[f32], importance: &[f32], out: &mut [u8]) {
        for (i, (values, out)) in values.chunks_exact(SUPER).zip(out.chunks_exact_mut(Self::BYTES)).enumerate() {
            Block::of_mut(out).quantize(values, &importance[SUPER * i..][..SUPER]);
        }
    }
}

/// The points of the grid, made when they are first needed.
fn points() -> &'static Points<8> {
    static POINTS: OnceLock<Points<8>> = OnceLock::new();
    POINTS.get_or_init(|| Points::new(GRID, 3, 3))
}

/// Groups below this magnitude are zeros.
const TINY: f32 = 1e-12;

impl Block {
    fn quantize(&mut self, values: &[f32], importance: &[f32]) {
        let spread = 2.0 * squares(values) / SUPER as f32;
        let importance = importance.as_chunks::<32>().0;
        let mut fits = [TernaryFit::ZEROS; 8];
        for ((fit, x), importance) in fits.iter_mut().zip(values.as_chunks::<32>().0).zip(importance) {
            *fit = fit_ternary::<32, false>(points(), x, &weigh(x, importance, spread), TINY);
        }
        let top = fits.iter().fold(0.0, |top, fit| if top > fit.scale { top } else { fit.scale });
        let d = top / 15.0;
        let inverse = 1.0 / d;
        self.qs = core::array::from_fn(|e| fits[e / 4].numbers[e % 4] as u8);
        for (out, fit) in self.qh.as_chunks_mut::<2>().0.iter_mut().zip(&fits) {
            let mut word = (0..4).fold(0, |word, e| word | (fit.numbers[e] >> 8) << (3 * e));
            if top != 0.0 {
                let s = nearest(0.5 * (inverse * fit.scale - 1.0)).clamp(0, 7) as u16;
                word |= s << 12 | u16::from(fit.minus[0]) << 15;
            }
            *out = word.to_le_bytes();
        }
        // The factor is the reference's, found by trying.
        self.d.set(if top == 0.0 { 0.0 } else { d * 1.125 });
    }
}

impl CodebookGrid for IQ1_S {
    fn assemble(parts: &CodebookParts, block: &mut [u8]) {
        let block = Block::of_mut(block);
        block.d.set(parts.d);
        block.qs = parts.low();
        for (g, out) in block.qh.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let numbers = (0..4).fold(0, |word, e| word | (parts.numbers[4 * g + e] >> 8) << (3 * e));
            let minus = u16::from(parts.signs[4 * g] & 1);
            *out = (numbers | u16::from(parts.scales[g]) << 12 | minus << 15).to_le_bytes();
        }
    }
}

impl Weights for IQ1_S {
    const WORDS: &'static [usize] = &[offset_of!(Block, d)];

    #[inline(always)]
    fn accept<V: Visitor>(visitor: V) -> V::Output {
        visitor.super_blocks::<Self>()
    }
}

impl SuperBlocks for IQ1_S {
    const OFFSET: i32 = grid::SMALL_OFFSET;
    const PEAK: u32 = grid::IQ1_PEAK;
    const MINIMA: bool = false;

    fn decode(block: &[u8]) -> PlainSuperBlock {
        let block = Block::of(block);
        PlainSuperBlock::without_minima(block.quants(), block.scales().map(i32::from), block.d())
    }

    #[inline(always)]
    unsafe fn scales<I: Integers>(isa: I, rows: Rows, head: Head<'_>) -> SuperScales<I> {
        // SAFETY: `qh` is 16 bytes of each block.
        let mut scales = unsafe { isa.words(rows.at(offset_of!(Block, qh))) };
        for scales in &mut scales {
            let bits = isa.field::<3, 0x0e>(isa.pick(*scales, *scales, [1, 1, 3, 3]));
            *scales = isa.or(bits, isa.splat(0x0101_0101));
        }
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
    // SAFETY: the numbers are 32 bytes of each block, `qh` 16.
    let (low, words) =
        unsafe { (isa.words(rows.at(offset_of!(Block, qs) + 16 * H)), isa.words(rows.at(offset_of!(Block, qh)))) };
    let (first, second) = (words[2 * H], words[2 * H + 1]);
    let high = [
        isa.spread::<3, 0>(first),
        isa.spread::<3, 16>(first),
        isa.spread::<3, 0>(second),
        isa.spread::<3, 16>(second),
    ];
    let [a, b, c, d] = isa.entries(GRID, low, high);
    take_eights(isa, sink, 8 * H, GRID, a, isa.bit_everywhere::<15>(first));
    take_eights(isa, sink, 8 * H + 2, GRID, b, isa.bit_everywhere::<31>(first));
    take_eights(isa, sink, 8 * H + 4, GRID, c, isa.bit_everywhere::<15>(second));
    take_eights(isa, sink, 8 * H + 6, GRID, d, isa.bit_everywhere::<31>(second));
}
