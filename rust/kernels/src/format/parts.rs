//! Blocks of scalar formats in parts: scales and integers apart, as the quantizers that search and compensate make them.
//!
//! A weight of these formats is `d * scale * value - dmin * min`, where `value` comes from a list that all blocks share, and `scale` and
//! `min` are small integers of its sub-block (1 where the format has none). [`Grid`] says which values and integers there are,
//! `ScalarGrid::assemble` packs what was chosen.

use super::BlockFormat;

/// Most sub-blocks of a block.
pub const SUB_BLOCKS: usize = 16;

/// Most weights of a block.
pub const WEIGHTS: usize = 256;

/// The values that stand for weights, before scales.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Levels {
    /// All integers from the first to the last.
    Range(i32, i32),
    /// These, ascending.
    Table(&'static [i8]),
}

/// What is subtracted from the weights of a sub-block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Minima {
    /// Nothing.
    None,
    /// `dmin` times an integer of the sub-block, 0 to this.
    Steps(i32),
    /// `dmin` of the block, of either sign.
    Free,
}

/// What numbers `d` and `dmin` can be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    /// An f16.
    Half,
    /// A power of two.
    Exponent,
}

/// The grid that a format's weights lie on, given the scales.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grid {
    /// Weights per block.
    pub block: usize,
    /// Weights that share a scale.
    pub sub: usize,
    /// Values.
    pub levels: Levels,
    /// The least and the greatest integer scale of a sub-block; `None` where there is one scale per block.
    pub scales: Option<(i32, i32)>,
    /// Minima.
    pub minima: Minima,
    /// Of `d` and `dmin`.
    pub precision: Precision,
}

/// A block in parts. What a format does not have is not read.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// Scale of the scales; representable, see [`Grid::precision`].
    pub d: f32,
    /// Scale of the minima.
    pub dmin: f32,
    /// Integer scales of the sub-blocks.
    pub scales: [i32; SUB_BLOCKS],
    /// Integer minima of the sub-blocks.
    pub minima: [i32; SUB_BLOCKS],
    /// Values of the weights, from [`Grid::levels`].
    pub values: [i32; WEIGHTS],
}

impl Default for Parts {
    fn default() -> Parts {
        Parts { d: 0.0, dmin: 0.0, scales: [0; SUB_BLOCKS], minima: [0; SUB_BLOCKS], values: [0; WEIGHTS] }
    }
}

impl Parts {
    /// The values of `N` weights plus `zero`, as stored.
    pub(super) fn codes<const N: usize>(&self, zero: i32) -> [u8; N] {
        core::array::from_fn(|i| (self.values[i] + zero) as u8)
    }

    /// Integer scales plus `zero`, as stored.
    pub(super) fn stored_scales<const N: usize>(&self, zero: i32) -> [u8; N] {
        core::array::from_fn(|j| (self.scales[j] + zero) as u8)
    }

    /// Integer minima, as stored.
    pub(super) fn stored_minima<const N: usize>(&self) -> [u8; N] {
        core::array::from_fn(|j| self.minima[j] as u8)
    }
}

/// A format on a [`Grid`].
pub(crate) trait ScalarGrid: BlockFormat {
    /// Its grid.
    const GRID: Grid;

    /// Packs a block of `BYTES` bytes.
    fn assemble(parts: &Parts, block: &mut [u8]);
}

/// What a `ScalarGrid` is, as a value.
#[derive(Clone, Copy, Debug)]
pub struct ScalarFormat {
    /// The grid.
    pub grid: Grid,
    /// Packs a block.
    pub assemble: fn(&Parts, &mut [u8]),
}

impl ScalarFormat {
    /// That of the format `F`.
    pub(super) const fn of<F: ScalarGrid>() -> ScalarFormat {
        ScalarFormat { grid: F::GRID, assemble: F::assemble }
    }
}
