//! Blocks of codebook formats in parts, as the quantizers that search and compensate make them.
//!
//! A weight of these formats is `d * unit * (2 s + 1) * value`: `s` is a small integer of its sub-block, and `value` belongs to an entry
//! of a grid, a list of points of four or eight weights that all blocks share. [`Codebook`] says which points
//! and signs there are, `assemble` packs what was chosen.

use super::BlockFormat;
use super::grid::Grid;
use super::layout::SUPER;

/// What signs the weights of an entry can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntrySigns {
    /// Any.
    Free,
    /// Those with an even number of negative weights in each eight.
    Even,
    /// Entries hold negative values themselves; what has a sign is by how much they are shifted, together in so many weights.
    Shift(usize),
}

/// The points that a format's weights lie on, given the scales.
#[derive(Clone, Copy, Debug)]
pub struct Codebook {
    /// Weights of an entry.
    pub width: usize,
    /// Weights that share a scale.
    pub sub: usize,
    /// The greatest `s`.
    pub top: u8,
    /// See the module.
    pub unit: f32,
    /// Signs.
    pub signs: EntrySigns,
    /// Codes of the lower and of the upper half of the weights of each entry.
    pub planes: [&'static [u8]; 2],
    /// Number of codes that entries have.
    pub(crate) codes: usize,
    /// The value of each code without and with a sign, above `offset`.
    values: &'static [u8; 64],
    offset: i32,
    /// Packs a block.
    pub assemble: fn(&CodebookParts, &mut [u8]),
}

/// A block in parts.
#[derive(Clone, Copy, Debug)]
pub struct CodebookParts {
    /// Scale of the scales, an f16.
    pub d: f32,
    /// `s` of the sub-blocks.
    pub scales: [u8; SUPER / 16],
    /// Numbers of the entries.
    pub numbers: [u16; SUPER / 4],
    /// The signs of each eight weights, the first in the lowest bit; of a shift, all or none.
    pub signs: [u8; SUPER / 8],
}

impl Default for CodebookParts {
    fn default() -> CodebookParts {
        CodebookParts { d: 0.0, scales: [0; SUPER / 16], numbers: [0; SUPER / 4], signs: [0; SUPER / 8] }
    }
}

impl CodebookParts {
    /// Seven signs of each of four eights, from number `first` on; the eighth makes their number even.
    pub(super) fn sevens(&self, first: usize) -> u32 {
        (0..4).fold(0, |word, k| word | u32::from(self.signs[first + k] & 127) << (7 * k))
    }

    /// The scales as nibbles in turn.
    pub(super) fn nibbles<const N: usize>(&self) -> [u8; N] {
        core::array::from_fn(|i| self.scales[2 * i] | self.scales[2 * i + 1] << 4)
    }

    /// The lower eight bits of the numbers.
    pub(super) fn low<const N: usize>(&self) -> [u8; N] {
        core::array::from_fn(|e| self.numbers[e] as u8)
    }
}

/// A format on a [`Codebook`].
pub(super) trait CodebookGrid: BlockFormat {
    /// Packs a block of `BYTES` bytes.
    fn assemble(parts: &CodebookParts, block: &mut [u8]);
}

impl Codebook {
    /// That of the format `F`, with values above `offset`.
    pub(super) const fn of<F: CodebookGrid, const N: usize, const WIDTH: usize>(
        grid: &'static Grid<N, WIDTH>,
        offset: i32,
        (sub, top): (usize, u8),
        unit: f32,
        signs: EntrySigns,
    ) -> Codebook {
        let codes = if WIDTH == 8 { 3 } else { 8 };
        let planes: [&'static [u8]; 2] = [&grid.planes[0], &grid.planes[1]];
        Codebook {
            width: WIDTH,
            sub,
            top,
            unit,
            signs,
            planes,
            codes,
            values: &grid.bytes,
            offset,
            assemble: F::assemble,
        }
    }

    /// Bits of a code.
    pub(crate) fn bits(&self) -> usize {
        if self.width == 8 { 2 } else { 3 }
    }

    /// The value of a code.
    pub fn value(&self, code: usize, negative: bool) -> f32 {
        (i32::from(self.values[code | usize::from(negative) << self.bits()]) - self.offset) as f32
    }

    /// The code of weight `b` of an entry.
    pub fn code(&self, number: usize, b: usize) -> usize {
        let half = self.width / 2;
        usize::from(self.planes[b / half][number]) >> (self.bits() * (b % half)) & ((1 << self.bits()) - 1)
    }

    /// The weights whose signs depend on each other, or whose entry is one.
    pub(crate) fn unit_weights(&self) -> usize {
        if self.signs == EntrySigns::Even { 8 } else { self.width }
    }
}
