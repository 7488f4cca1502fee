//! Words of blocks that lie scattered, one in every row: read some blocks ahead of their use.
//!
//! A scale is a few bytes of each row. Copied by scalar instructions and loaded as one vector at once, it would wait until
//! all its parts have left the store buffer, a stall of some tens of cycles per block that nothing overlaps. Read a
//! chunk ahead, the copies are long done and cost only free slots of the scalar units; gathers of x86 are no faster on any CPU and
//! far slower on many. Levels that load single lanes well ([`AHEAD`](crate::isa::unpacking::Unpacking::AHEAD) is false) do so instead.

use crate::isa::integers::Integers;
use crate::unpack::{Rows, Weights};

/// Blocks that are read at a time.
pub(crate) const CHUNK: usize = 8;
/// Most words of a block: the scale and the 16 bytes of Q1_0 and Q2_0.
const MOST: usize = 5;
/// Most lanes of a level.
const LANES: usize = 16;

/// The words of two chunks of blocks: the one in use and the one after it.
#[repr(align(64))]
pub(crate) struct Ahead([[u32; CHUNK * MOST * LANES]; 2]);

/// The words of a block, by [`Weights::WORDS`].
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    /// The words that were read, without which they are read now.
    words: &'a [u32],
    /// The block.
    rows: Rows,
    /// Where in the block the words are.
    at: &'static [usize],
}

impl Head<'_> {
    /// The bytes at `WORDS[i]..WORDS[i] + 4` of the block in every row.
    #[inline(always)]
    pub(crate) fn word<I: Integers>(self, isa: I, i: usize) -> I::Words {
        if !I::AHEAD {
            // SAFETY: whoever made this has rows with a block each, and the words are inside the block.
            return unsafe { isa.scattered(self.rows.at(self.at[i])) };
        }
        let words = &self.words[i * I::ROWS..(i + 1) * I::ROWS];
        // SAFETY: the slice has `ROWS` words.
        unsafe { isa.load(words.as_ptr().cast()) }
    }

    /// The f16 at the beginning of word `i` in every row, as f32.
    #[inline(always)]
    pub(crate) fn half<I: Integers>(self, isa: I, i: usize) -> I::Floats {
        if I::AHEAD {
            isa.lower_halves(self.word(isa, i))
        } else {
            // SAFETY: as above.
            unsafe { isa.scattered_halves(self.rows.at(self.at[i])) }
        }
    }
}

impl Ahead {
    /// Nothing read yet.
    pub(crate) fn new() -> Ahead {
        Ahead([[0; CHUNK * MOST * LANES]; 2])
    }

    /// Reads the blocks `first..first + CHUNK` of the rows, as far as there are `blocks`. `first` is a multiple of [`CHUNK`].
    ///
    /// # Safety
    /// `rows` are `I::ROWS` readable rows of `blocks` blocks of the format, at their first block.
    #[inline(always)]
    pub(crate) unsafe fn read<I: Integers, F: Weights>(&mut self, rows: Rows, first: usize, blocks: usize) {
        const { assert!(F::WORDS.len() <= MOST && I::ROWS <= LANES, "room for the words") };
        if !I::AHEAD || F::WORDS.is_empty() || first >= blocks {
            return;
        }
        let out = &mut self.0[first / CHUNK % 2];
        let block = rows.at(first * F::BYTES);
        // SAFETY: by the contract.
        unsafe { read::<I, F>(block, CHUNK.min(blocks - first), out) };
    }

    /// The words of block `b`, of the chunk that was read last or the one before.
    ///
    /// # Safety
    /// `rows` are `I::ROWS` readable rows, at block `b`.
    #[inline(always)]
    pub(crate) unsafe fn head<I: Integers, F: Weights>(&self, rows: Rows, b: usize) -> Head<'_> {
        let words = F::WORDS.len() * I::ROWS;
        Head { words: &self.0[b / CHUNK % 2][b % CHUNK * words..][..words], rows, at: F::WORDS }
    }
}

/// Not inlined: nothing here is a vector, and the pointers would take the registers of the product around.
///
/// # Safety
/// `rows` are `I::ROWS` readable rows of `count` blocks.
#[inline(never)]
unsafe fn read<I: Integers, F: Weights>(rows: Rows, count: usize, out: &mut [u32; CHUNK * MOST * LANES]) {
    if count == CHUNK {
        for r in 0..I::ROWS {
            // SAFETY: by the contract.
            unsafe { read_row::<I, F>(rows.block.wrapping_add(r * rows.stride), CHUNK, r, out) };
        }
    } else {
        for r in 0..I::ROWS {
            // SAFETY: by the contract.
            unsafe { read_row::<I, F>(rows.block.wrapping_add(r * rows.stride), count, r, out) };
        }
    }
}

/// # Safety
/// `count` blocks are readable at `row`; that is row `r < I::ROWS`, and `count` at most [`CHUNK`].
#[inline(always)]
unsafe fn read_row<I: Integers, F: Weights>(
    row: *const u8,
    count: usize,
    r: usize,
    out: &mut [u32; CHUNK * MOST * LANES],
) {
    for b in 0..count {
        for (i, at) in F::WORDS.iter().enumerate() {
            // SAFETY: the words are inside the block, which is checked where they are declared.
            out[(b * F::WORDS.len() + i) * I::ROWS + r] =
                unsafe { row.add(b * F::BYTES + at).cast::<u32>().read_unaligned() };
        }
    }
}
