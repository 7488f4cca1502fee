//! The grids of the I-quants: lists of points, of which a block stores numbers.
//!
//! A grid has entries of `WIDTH` weights, each weight a code of [`Grid::BITS`] bits: eight of two bits, or four of three.
//! What a code means is a table of the format, in which the sign counts too. The lists are facts of the file format; they are
//! checked against the grids of the `gguf` package.

use crate::isa::integers::Integers;
use crate::unpack::Sink;

mod iq1_s;
mod iq2_s;
mod iq2_xs;
mod iq2_xxs;
mod iq3_s;
mod iq3_xxs;

/// `N` entries of `WIDTH` weights, in the forms that the levels look them up in.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Grid<const N: usize, const WIDTH: usize> {
    /// Codes of the lower and of the upper half of the weights of each entry, the first in the lowest bits.
    pub(crate) planes: [[u8; N]; 2],
    /// Entries as words. Of eight weights: the first four in the lower nibbles of the bytes, the others in the upper ones. Of
    /// four weights: one in each byte.
    pub(crate) words: [u32; N],
    /// The byte of a weight by `code | sign << BITS`, repeated to the end.
    pub(crate) bytes: [u8; 64],
}

impl<const N: usize, const WIDTH: usize> Grid<N, WIDTH> {
    /// Bits of a code.
    pub const BITS: u32 = match WIDTH {
        8 => 2,
        4 => 3,
        _ => panic!("entries have eight or four weights"),
    };

    /// Bits of half an entry.
    const HALF: u32 = Self::BITS * (WIDTH as u32 / 2);

    const fn new(codes: &[u16; N], bytes: &[u8]) -> Grid<N, WIDTH> {
        assert!(N.is_multiple_of(256) && N.is_power_of_two(), "numbers of whole bytes");
        assert!(bytes.len() == 2 << Self::BITS, "a byte for every code and sign");
        let mut grid = Grid { planes: [[0; N]; 2], words: [0; N], bytes: [0; 64] };
        let mut i = 0;
        while i < N {
            let code = codes[i] as u32;
            grid.planes[0][i] = (code & ((1 << Self::HALF) - 1)) as u8;
            grid.planes[1][i] = (code >> Self::HALF) as u8;
            let mut b = 0;
            while b < WIDTH as u32 {
                let one = code >> (Self::BITS * b) & ((1 << Self::BITS) - 1);
                grid.words[i] |= one << (8 * (b % 4) + 4 * (b / 4));
                b += 1;
            }
            i += 1;
        }
        let mut i = 0;
        while i < 64 {
            grid.bytes[i] = bytes[i % bytes.len()];
            i += 1;
        }
        grid
    }

    /// The bytes of entry `number`, with the signs of `signs` from the lowest bit on.
    ///
    /// # Panics
    /// When there is no such entry.
    #[inline(always)]
    pub fn entry(&self, number: usize, signs: u8) -> [u8; WIDTH] {
        let word = self.words[number];
        core::array::from_fn(|b| {
            let code = word >> (8 * (b % 4) + 4 * (b / 4)) & ((1 << Self::BITS) - 1);
            let sign = u32::from(signs) >> b & 1;
            self.bytes[(code | sign << Self::BITS) as usize]
        })
    }
}

/// `offset` plus, then minus the magnitudes.
const fn signed<const M: usize, const TWICE: usize>(magnitudes: [u8; M], offset: u8) -> [u8; TWICE] {
    assert!(TWICE == 2 * M, "a byte for every code and sign");
    let mut bytes = [0; TWICE];
    let mut i = 0;
    while i < M {
        bytes[i] = offset + magnitudes[i];
        bytes[M + i] = offset - magnitudes[i];
        i += 1;
    }
    bytes
}

/// What the bytes of IQ2 and of IQ3_XXS stand above.
pub const OFFSET: i32 = 64;
/// What the bytes of IQ3_S and of IQ1 stand above.
pub const SMALL_OFFSET: i32 = 16;
/// The largest byte of IQ2.
pub const IQ2_PEAK: u32 = OFFSET as u32 + 43;
/// The largest byte of IQ3_XXS.
pub const IQ3_XXS_PEAK: u32 = OFFSET as u32 + 62;
/// The largest byte of IQ3_S.
pub const IQ3_S_PEAK: u32 = SMALL_OFFSET as u32 + 15;
/// The largest byte of IQ1.
pub const IQ1_PEAK: u32 = SMALL_OFFSET as u32 + 9;

/// Magnitudes of the codes of IQ2; the last code is not used.
const IQ2_BYTES: [u8; 8] = signed([8, 25, 43, 0], OFFSET as u8);

/// IQ2_XXS: 64 plus or minus 8, 25, 43.
pub static IQ2_XXS: Grid<256, 8> = Grid::new(&iq2_xxs::CODES, &IQ2_BYTES);
/// IQ2_XS: as [`IQ2_XXS`].
pub static IQ2_XS: Grid<512, 8> = Grid::new(&iq2_xs::CODES, &IQ2_BYTES);
/// IQ2_S: as [`IQ2_XXS`].
pub static IQ2_S: Grid<1024, 8> = Grid::new(&iq2_s::CODES, &IQ2_BYTES);
/// IQ1_S and IQ1_M: 16 plus eight times -1, 0 or 1, plus 1 or (where the sign is set) minus 1.
pub static IQ1: Grid<2048, 8> = Grid::new(&iq1_s::CODES, &[9, 17, 25, 16, 7, 15, 23, 16]);
/// IQ3_XXS: 64 plus or minus 4, 12, 20, 28, 36, 44, 52, 62.
pub static IQ3_XXS: Grid<256, 4> =
    Grid::new(&iq3_xxs::CODES, &signed::<8, 16>([4, 12, 20, 28, 36, 44, 52, 62], OFFSET as u8));
/// IQ3_S: 16 plus or minus the odd numbers.
pub static IQ3_S: Grid<512, 4> =
    Grid::new(&iq3_s::CODES, &signed::<8, 16>([1, 3, 5, 7, 9, 11, 13, 15], SMALL_OFFSET as u8));

/// Seven sign bits and the eighth, which makes the number of set ones even.
pub static SIGNS: Signs = Signs::new();

/// See [`SIGNS`].
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Signs(pub [u8; 128]);

impl Signs {
    const fn new() -> Signs {
        let mut signs = [0; 128];
        let mut i = 0u8;
        while i < 128 {
            signs[i as usize] = i | (i.count_ones() as u8 & 1) << 7;
            i += 1;
        }
        Signs(signs)
    }

    /// The eight signs of field `e` of seven bits in a word.
    #[inline(always)]
    pub fn of(&self, word: u32, e: usize) -> u8 {
        self.0[(word >> (7 * e) & 127) as usize]
    }
}

/// Writes the integers of four entries of eight weights, or eight entries of four, to the 32 weights of a group.
#[inline(always)]
pub(crate) fn write_group<const N: usize, const WIDTH: usize>(
    grid: &Grid<N, WIDTH>,
    offset: i32,
    out: &mut [i8],
    number: impl Fn(usize) -> usize,
    signs: impl Fn(usize) -> u8,
) {
    for (e, out) in out.chunks_exact_mut(WIDTH).enumerate() {
        let at = WIDTH * e;
        let bytes = grid.entry(number(e), signs(at / 8) >> (at % 8));
        for (out, byte) in out.iter_mut().zip(bytes) {
            *out = (i32::from(byte) - offset) as i8;
        }
    }
}

/// Scales `2 s + 1`, with `s` the upper nibbles.
#[inline(always)]
pub(super) fn odd_scales<I: Integers>(isa: I, nibbles: I::Words) -> I::Words {
    isa.or(isa.field::<3, 0x1e>(nibbles), isa.splat(0x0101_0101))
}

/// Scales `2 s + 1` of 16 sub-blocks, with `s` the nibbles of eight bytes in turn.
#[inline(always)]
pub(super) fn odd_nibble_scales<I: Integers>(isa: I, words: [I::Words; 2]) -> [I::Words; 4] {
    let mut scales = [words[0]; 4];
    for (i, word) in words.into_iter().enumerate() {
        let (low, high) = (isa.field_up::<4, 0xf0>(word), word);
        scales[2 * i] = odd_scales(isa, isa.pick(low, high, [0, 4, 1, 5]));
        scales[2 * i + 1] = odd_scales(isa, isa.pick(low, high, [2, 6, 3, 7]));
    }
    scales
}

/// Gives `sink` sub-blocks `j` and `j + 1`: four entries of eight weights.
#[inline(always)]
pub(super) fn take_eights<I: Integers, const N: usize>(
    isa: I,
    sink: &mut impl Sink<I>,
    j: usize,
    grid: &'static Grid<N, 8>,
    entries: I::Entries,
    signs: I::Words,
) {
    sink.take(isa, j, isa.grid_weights::<N, 8, 0>(grid, entries, signs));
    sink.take(isa, j + 1, isa.grid_weights::<N, 8, 1>(grid, entries, signs));
}

/// Gives `sink` sub-blocks `j` and `j + 1`: twice four entries of four weights.
#[inline(always)]
pub(super) fn take_fours<I: Integers, const N: usize>(
    isa: I,
    sink: &mut impl Sink<I>,
    j: usize,
    grid: &'static Grid<N, 4>,
    [low, high]: [I::Entries; 2],
    signs: I::Words,
) {
    sink.take(isa, j, isa.grid_weights::<N, 4, 0>(grid, low, signs));
    sink.take(isa, j + 1, isa.grid_weights::<N, 4, 1>(grid, high, signs));
}
