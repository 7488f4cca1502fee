//! What a block format brings to the matrix products: where its scales are, and how its integers become bytes.
//!
//! The drivers are written once for each of three classes, [`Blocks`], [`SuperBlocks`] and [`Dense`]; a format implements the
//! trait of its class, and [`Weights`] names the class. There is a plain decoder for the scalar level and an `unpack` over
//! [`Integers`] for all others.
//!
//! # Lanes are rows
//!
//! `unpack` sees the same block of `I::ROWS` rows at once. A [`Unpacking::Words`](crate::isa::unpacking::Unpacking::Words) holds four bytes of each row, so the shifts
//! and masks that take a block apart are the same in every lane, and the dot product of four weights per lane with four
//! broadcast activations adds up one output per lane: sums need no reduction across lanes, and GEMV, small batches and the
//! panels of GEMM share one unpacking.

use crate::ahead::Head;
use crate::format::BlockFormat;
use crate::isa::floats::Floats;
use crate::isa::integers::Integers;

/// A weight format, with its class.
pub(crate) trait Weights: BlockFormat {
    /// Where in a block the words are that its `scales` and `unpack` find in their [`Head`]: fields of less than 16 bytes,
    /// which are read ahead. All four bytes of a word are inside the block.
    const WORDS: &'static [usize] = &[];

    /// Where in a block the weights begin that follow the words, if any do.
    #[cfg_attr(not(target_arch = "aarch64"), allow(dead_code, reason = "rows move on by themselves on ARM alone"))]
    const BODY: usize = 0;

    /// Calls the method of the format's class.
    fn accept<V: Visitor>(visitor: V) -> V::Output;
}

/// Something to be done for a format by its class.
pub(crate) trait Visitor {
    /// What it returns.
    type Output;
    /// For a format of 32-blocks.
    fn blocks<F: Blocks>(self) -> Self::Output;
    /// For a format of super-blocks.
    fn super_blocks<F: SuperBlocks>(self) -> Self::Output;
    /// For a float type.
    fn dense<F: Dense>(self) -> Self::Output;
}

/// The same block in `I::ROWS` rows.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    /// The block in the first row. Every row up to the level's `ROWS`, `stride` bytes apart, has the block's bytes.
    pub(crate) block: *const u8,
    /// Bytes from a row to the next.
    pub(crate) stride: usize,
    /// The block in the second to fourth row.
    #[cfg(target_arch = "aarch64")]
    pub(crate) others: [*const u8; 3],
}

impl Rows {
    /// Rows that begin at `block`, `stride` bytes apart.
    #[inline(always)]
    pub(crate) fn new(block: *const u8, stride: usize) -> Rows {
        Rows {
            block,
            stride,
            #[cfg(target_arch = "aarch64")]
            others: [1, 2, 3].map(|r| block.wrapping_add(r * stride)),
        }
    }

    /// The same rows, `bytes` further on.
    #[inline(always)]
    pub(crate) fn at(self, bytes: usize) -> Rows {
        Rows {
            block: self.block.wrapping_add(bytes),
            stride: self.stride,
            #[cfg(target_arch = "aarch64")]
            others: self.others.map(|row| row.wrapping_add(bytes)),
        }
    }

    /// The same rows, where the compiler does not know that they are at equal distances: it would add up every address from one
    /// pointer, where a pointer per row moves on as it is used.
    #[cfg(target_arch = "aarch64")]
    #[allow(clippy::pointers_in_nomem_asm_block, reason = "nothing is read; the values only pass through")]
    #[inline(always)]
    fn apart(mut self) -> Rows {
        let [second, third, fourth] = &mut self.others;
        // SAFETY: no instruction.
        unsafe {
            core::arch::asm!(
                "/* {} {} {} {} */", inout(reg) self.block, inout(reg) *second, inout(reg) *third, inout(reg) *fourth,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        self
    }

    /// The block in rows 0 and 8, from each of which eight rows are few multiples of the stride away. Where they come from is
    /// hidden from the compiler: it would keep a pointer to every row, more than there are registers, and count all of them up in
    /// memory from block to block.
    #[cfg(target_arch = "x86_64")]
    #[allow(clippy::pointers_in_nomem_asm_block, reason = "nothing is read; the values only pass through")]
    #[inline(always)]
    pub(crate) fn eighths(self) -> [*const u8; 2] {
        let mut first = self.block;
        let mut upper = self.block.wrapping_add(8 * self.stride);
        // SAFETY: no instruction.
        unsafe {
            core::arch::asm!("/* {} {} */", inout(reg) first, inout(reg) upper, options(pure, nomem, nostack, preserves_flags));
        }
        [first, upper]
    }
}

/// Goes along rows, block by block.
pub(crate) struct Walk {
    /// The first block; on ARM the next one.
    rows: Rows,
}

impl Walk {
    /// From the first block of `rows` on.
    #[inline(always)]
    pub(crate) fn new(rows: Rows) -> Walk {
        Walk { rows }
    }

    /// Block `b` of the format, which is the one after that of the call before: for reading its words, and for all else.
    #[cfg(not(target_arch = "aarch64"))]
    #[inline(always)]
    pub(crate) fn block<F: Weights>(&mut self, b: usize) -> [Rows; 2] {
        [self.rows.at(b * F::BYTES); 2]
    }

    /// Block `b` of the format, which is the one after that of the call before: for reading its words, and for all else. Between
    /// the two the pointers move past the words, in the instructions that read them.
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    pub(crate) fn block<F: Weights>(&mut self, _b: usize) -> [Rows; 2] {
        let words = self.rows.apart();
        let block = if F::BODY == 0 { words } else { words.at(F::BODY).apart().at(0usize.wrapping_sub(F::BODY)) };
        self.rows = block.at(F::BYTES);
        [words, block]
    }
}

/// Takes unpacked weights. A trait, not a closure: what a closure holds is compiled with the features of the level only if it
/// happens to be inlined.
pub(crate) trait Sink<I: Integers> {
    /// Sub-block `j` of 16 weights: byte `b` of lane `r` of `bytes[i]` is weight `16 j + 4 i + b` of row `r`. Implementations are
    /// `#[inline(always)]`.
    fn take(&mut self, isa: I, j: usize, bytes: [I::Words; 4]);

    /// As [`take`](Sink::take), of the weights `(packed >> SHIFT) & MASK` of each byte.
    #[inline(always)]
    fn take_fields<const SHIFT: u32, const MASK: u8>(&mut self, isa: I, j: usize, packed: [I::Words; 4]) {
        self.take(isa, j, isa.fields::<SHIFT, MASK>(packed));
    }

    /// As [`take`](Sink::take), of sub-blocks `j` and `j + 1`, which have the same scale.
    #[inline(always)]
    fn take_two(&mut self, isa: I, j: usize, bytes: [[I::Words; 4]; 2]) {
        self.take(isa, j, bytes[0]);
        self.take(isa, j + 1, bytes[1]);
    }
}

/// Formats with a scale for 32 or more weights, `weight = d * (byte - OFFSET)`, or `d * byte + m` with a minimum, or with two
/// scales for 16 weights each. A block is one or several parts of 32 weights.
pub(crate) trait Blocks: Weights {
    /// What is subtracted from the bytes of [`unpack`](Blocks::unpack), below 2^15.
    const OFFSET: i32;
    /// The largest byte of [`unpack`](Blocks::unpack), or [`SIGNED`] when the bytes are signed.
    const PEAK: u32;
    /// Whether there is an `m`.
    const MINIMUM: bool = false;
    /// Whether each half of a part has its own scale. Such formats have no minimum and a peak of at most 32.
    const SPLIT: bool = false;

    /// Part `part` of a block, plainly.
    fn decode(block: &[u8], part: usize) -> PlainBlock;

    /// `d` and `m` of each row for a part; with [`SPLIT`](Blocks::SPLIT) the `d` of both halves. Without either the second is
    /// unspecified.
    fn scales<I: Integers>(isa: I, head: Head<'_>, part: usize) -> (I::Floats, I::Floats);

    /// Gives `sink` the two halves of a part as sub-blocks 0 and 1.
    ///
    /// # Safety
    /// `rows` are `I::ROWS` readable rows with a block each.
    unsafe fn unpack<I: Integers>(isa: I, rows: Rows, head: Head<'_>, part: usize, sink: &mut impl Sink<I>);
}

/// A decoded part of a block, for the scalar level.
pub(crate) struct PlainBlock {
    /// The integers, after subtraction of the offset.
    pub(crate) quants: [i8; 32],
    /// Scale; with [`SPLIT`](Blocks::SPLIT) of the first half.
    pub(crate) d: f32,
    /// Minimum, which is added, or the scale of the second half; zero where there is neither.
    pub(crate) m: f32,
}

/// [`Blocks::PEAK`] of signed bytes.
pub(crate) const SIGNED: u32 = 128;

/// Formats of 256 weights in 16 sub-blocks, `weight = d * scale[j] * (byte - OFFSET) - dmin * min[j]`.
pub(crate) trait SuperBlocks: Weights {
    /// What is subtracted from the bytes of [`unpack`](SuperBlocks::unpack); zero for formats with minima and signed bytes.
    const OFFSET: i32;
    /// The largest byte of [`unpack`](SuperBlocks::unpack), or [`SIGNED`] when the bytes are signed, with scales within ±64 and
    /// no minima.
    const PEAK: u32;
    /// Whether sub-blocks `2 i` and `2 i + 1` have the same scale and minimum.
    const WIDE: bool = false;
    /// Whether there are minima.
    const MINIMA: bool;
    /// The largest magnitude of the scales of sub-blocks; that of all signed bytes where nothing smaller helps.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "the tile unit alone asks for it"))]
    const SCALE_PEAK: u32 = 128;

    /// A block, plainly.
    fn decode(block: &[u8]) -> PlainSuperBlock;

    /// The scales and minima of each row.
    ///
    /// # Safety
    /// `rows` are `I::ROWS` readable rows with a block each.
    unsafe fn scales<I: Integers>(isa: I, rows: Rows, head: Head<'_>) -> SuperScales<I>;

    /// Gives `sink` each of the 16 sub-blocks once, in any order.
    ///
    /// # Safety
    /// `rows` are `I::ROWS` readable rows with a block each.
    unsafe fn unpack<I: Integers>(isa: I, rows: Rows, head: Head<'_>, sink: &mut impl Sink<I>);
}

/// The scales of a super-block, one row per lane. Byte `j % 4` of word `j / 4` is that of sub-block `j`.
pub(crate) struct SuperScales<I: Integers> {
    /// Scales of the sub-blocks; signed without [`MINIMA`](SuperBlocks::MINIMA), else unsigned.
    pub(crate) scales: [I::Words; 4],
    /// Minima of the sub-blocks, unsigned; unspecified without [`MINIMA`](SuperBlocks::MINIMA).
    pub(crate) minima: [I::Words; 4],
    /// Scale of the scales.
    pub(crate) d: I::Floats,
    /// Scale of the minima; unspecified without [`MINIMA`](SuperBlocks::MINIMA).
    pub(crate) dmin: I::Floats,
}

impl<I: Integers> SuperScales<I> {
    /// The scales of a format without minima.
    #[inline(always)]
    pub(crate) fn without_minima(scales: [I::Words; 4], d: I::Floats) -> SuperScales<I> {
        SuperScales { scales, minima: scales, d, dmin: d }
    }
}

/// A decoded super-block, for the scalar level.
pub(crate) struct PlainSuperBlock {
    /// The integers, after subtraction of the offset.
    pub(crate) quants: [i8; 256],
    /// Scales of the sub-blocks of 16.
    pub(crate) scales: [i32; 16],
    /// Minima of the sub-blocks of 16; zero where there are none.
    pub(crate) minima: [i32; 16],
    /// Scale of the scales.
    pub(crate) d: f32,
    /// Scale of the minima, which are subtracted; zero where there are none.
    pub(crate) dmin: f32,
}

impl PlainSuperBlock {
    /// A block of a format without minima.
    #[inline(always)]
    pub(crate) fn without_minima(quants: [i8; 256], scales: [i32; 16], d: f32) -> PlainSuperBlock {
        PlainSuperBlock { quants, scales, minima: [0; 16], d, dmin: 0.0 }
    }

    /// Writes the weights of a block without minima.
    pub(crate) fn write(&self, out: &mut [f32]) {
        for ((out, quants), &scale) in out.chunks_exact_mut(16).zip(self.quants.chunks_exact(16)).zip(&self.scales) {
            let scale = self.d * scale as f32;
            for (out, &q) in out.iter_mut().zip(quants) {
                *out = scale * f32::from(q);
            }
        }
    }
}

/// Float types: no blocks, and f32 activations.
pub(crate) trait Dense: Weights {
    /// A weight from its bytes.
    fn value(bytes: &[u8]) -> f32;

    /// Sixteen weights.
    ///
    /// # Safety
    /// `16 BYTES` bytes are readable at `p`; no alignment.
    unsafe fn load<I: Floats>(isa: I, p: *const u8) -> I::F;
}
