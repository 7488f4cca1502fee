//! The unit itself: its configuration, and the products of tiles.

use core::arch::asm;

use super::{TOKENS, Tile, VECTOR};

/// The configured unit of this thread, for products over `K` weights at a time; released at the end, so that the operating system
/// has no tiles to save. Tiles 0 to 3 are sums, 4 and 5 activations, 6 and 7 weights.
pub(super) struct Unit<const K: usize>(());

/// The memory format of the tile configuration, palette 1.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    /// Bytes of a row, per tile.
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl<const K: usize> Unit<K> {
    /// # Safety
    /// The CPU has the level [`Amx`](crate::Level::Amx).
    #[inline(always)]
    pub(super) unsafe fn new() -> Unit<K> {
        const { assert!(K.is_multiple_of(4) && K <= 64, "a row of a tile has at most 64 bytes") };
        let (sums, x, weights) =
            ((VECTOR as u16, TOKENS as u8), (K as u16, TOKENS as u8), (VECTOR as u16, (K / 4) as u8));
        let tiles = [sums, sums, sums, sums, x, x, weights, weights];
        let mut c = Configuration { palette: 1, start: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        for (i, (row_bytes, rows)) in tiles.into_iter().enumerate() {
            (c.row_bytes[i], c.rows[i]) = (row_bytes, rows);
        }
        // SAFETY: the configuration is a valid one.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const c, options(readonly, nostack, preserves_flags)) };
        Unit(())
    }
}

impl<const K: usize> Drop for Unit<K> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: a unit exists only where the CPU has the level.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags)) };
    }
}

/// Where the activations of a tile are: 16 records, `stride` bytes apart.
#[derive(Clone, Copy)]
pub(super) struct Tokens {
    pub(super) x: *const u8,
    pub(super) stride: usize,
}

impl Tokens {
    /// The same tokens, `bytes` further on.
    #[inline(always)]
    pub(super) fn at(self, bytes: usize) -> Tokens {
        Tokens { x: self.x.wrapping_add(bytes), ..self }
    }
}

impl Unit<32> {
    /// The sums over four neighbouring parts of 32 weights each: the words of 16 rows of the first begin at `weights`, `stride` bytes
    /// apart, those of the others `part` bytes behind each other.
    ///
    /// # Safety
    /// The words are readable, and 128 activations from `x` on in each record.
    #[inline(always)]
    pub(super) unsafe fn four_parts(
        &self,
        x: Tokens,
        weights: *const u8,
        stride: usize,
        part: usize,
        sums: &mut [Tile<i32>; 4],
    ) {
        // SAFETY: by the contract.
        unsafe {
            asm!(
                "tileloadd tmm4, [{x} + {record}]",
                "tilezero tmm0",
                "tileloadd tmm6, [{a} + {stride}]",
                "tdpbssd tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{x} + {record} + 32]",
                "tilezero tmm1",
                "tileloadd tmm7, [{b} + {stride}]",
                "tdpbssd tmm1, tmm5, tmm7",
                "tileloadd tmm4, [{x} + {record} + 64]",
                "tilezero tmm2",
                "tileloadd tmm6, [{c} + {stride}]",
                "tdpbssd tmm2, tmm4, tmm6",
                "tileloadd tmm5, [{x} + {record} + 96]",
                "tilezero tmm3",
                "tileloadd tmm7, [{d} + {stride}]",
                "tdpbssd tmm3, tmm5, tmm7",
                "tilestored [{sums} + {vector}], tmm0",
                "tilestored [{sums} + {vector} + 1024], tmm1",
                "tilestored [{sums} + {vector} + 2048], tmm2",
                "tilestored [{sums} + {vector} + 3072], tmm3",
                x = in(reg) x.x, record = in(reg) x.stride,
                a = in(reg) weights, b = in(reg) weights.wrapping_add(part), c = in(reg) weights.wrapping_add(2 * part),
                d = in(reg) weights.wrapping_add(3 * part), stride = in(reg) stride,
                sums = in(reg) sums, vector = in(reg) VECTOR,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags)
            );
        }
    }

    /// As [`four_parts`](Unit::four_parts), one part.
    ///
    /// # Safety
    /// The words are readable, and 32 activations from `x` on in each record.
    #[inline(always)]
    pub(super) unsafe fn one_part(&self, x: Tokens, weights: *const u8, stride: usize, sums: &mut Tile<i32>) {
        // SAFETY: by the contract.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tileloadd tmm4, [{x} + {record}]",
                "tileloadd tmm6, [{weights} + {stride}]",
                "tdpbssd tmm0, tmm4, tmm6",
                "tilestored [{sums} + {vector}], tmm0",
                x = in(reg) x.x, record = in(reg) x.stride,
                weights = in(reg) weights, stride = in(reg) stride,
                sums = in(reg) sums, vector = in(reg) VECTOR,
                out("tmm0") _, out("tmm4") _, out("tmm6") _,
                options(nostack, preserves_flags)
            );
        }
    }
}

/// The step of [`Unit::super_block`] for 64 weights from weight `$at` on, whose words begin at byte `$words`.
macro_rules! two_by_two {
    ($at:literal, $words:literal, $high:literal) => {
        concat!(
            "tileloadd tmm4, [{x} + {record} + ",
            $at,
            "]\n",
            "tileloadd tmm6, [{weights} + {vector} + ",
            $words,
            "]\n",
            "tdpbssd tmm0, tmm4, tmm6\n",
            "tileloadd tmm7, [{weights} + {vector} + ",
            $high,
            "]\n",
            "tdpbssd tmm1, tmm4, tmm7\n",
            "tileloadd tmm5, [{y} + {record} + ",
            $at,
            "]\n",
            "tdpbssd tmm2, tmm5, tmm6\n",
            "tdpbssd tmm3, tmm5, tmm7\n",
        )
    };
}

/// As [`two_by_two`], with one pass.
macro_rules! two_by_one {
    ($at:literal, $words:literal) => {
        concat!(
            "tileloadd tmm4, [{x} + {record} + ",
            $at,
            "]\n",
            "tileloadd tmm6, [{weights} + {vector} + ",
            $words,
            "]\n",
            "tdpbssd tmm0, tmm4, tmm6\n",
            "tileloadd tmm5, [{y} + {record} + ",
            $at,
            "]\n",
            "tdpbssd tmm2, tmm5, tmm6\n",
        )
    };
}

impl Unit<64> {
    /// The sums over a super-block of two times 16 tokens, `[low, high]` of each: `weights` has 64 words of 16 rows for each pass, one
    /// behind the other. Without a second pass the high sums are left alone.
    ///
    /// # Safety
    /// The words are readable, and 256 activations from `x` and `y` on in each record; their strides are the same.
    #[inline(always)]
    pub(super) unsafe fn super_block<const PASSES: usize>(
        &self,
        x: Tokens,
        y: Tokens,
        weights: *const u8,
        sums: &mut [[Tile<i32>; 2]; 2],
    ) {
        const { assert!(PASSES == 1 || PASSES == 2, "one or two bytes per weight") };
        let [[x_low, x_high], [y_low, y_high]] = sums;
        // SAFETY: by the contract.
        unsafe {
            if PASSES == 2 {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    two_by_two!(0, 0, 4096),
                    two_by_two!(64, 1024, 5120),
                    two_by_two!(128, 2048, 6144),
                    two_by_two!(192, 3072, 7168),
                    "tilestored [{x_low} + {vector}], tmm0",
                    "tilestored [{x_high} + {vector}], tmm1",
                    "tilestored [{y_low} + {vector}], tmm2",
                    "tilestored [{y_high} + {vector}], tmm3",
                    x = in(reg) x.x, y = in(reg) y.x, record = in(reg) x.stride,
                    weights = in(reg) weights, vector = in(reg) VECTOR,
                    x_low = in(reg) x_low, x_high = in(reg) x_high, y_low = in(reg) y_low, y_high = in(reg) y_high,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, preserves_flags)
                );
            } else {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm2",
                    two_by_one!(0, 0),
                    two_by_one!(64, 1024),
                    two_by_one!(128, 2048),
                    two_by_one!(192, 3072),
                    "tilestored [{x_low} + {vector}], tmm0",
                    "tilestored [{y_low} + {vector}], tmm2",
                    x = in(reg) x.x, y = in(reg) y.x, record = in(reg) x.stride,
                    weights = in(reg) weights, vector = in(reg) VECTOR,
                    x_low = in(reg) x_low, y_low = in(reg) y_low,
                    out("tmm0") _, out("tmm2") _, out("tmm4") _, out("tmm5") _, out("tmm6") _,
                    options(nostack, preserves_flags)
                );
            }
        }
    }
}
