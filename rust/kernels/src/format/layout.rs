//! Blocks as structs over the bytes of a file, and the bit positions that several formats share.

use crate::half::{f16_to_f32, f32_to_f16};
use crate::isa::integers::Integers;

/// A little-endian f16 in a block.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Half([u8; 2]);

impl Half {
    /// The f16 nearest to `value`.
    pub(crate) fn of(value: f32) -> Half {
        let mut half = Half([0; 2]);
        half.set(value);
        half
    }

    /// The value.
    #[inline(always)]
    pub(crate) fn get(self) -> f32 {
        f16_to_f32(u16::from_le_bytes(self.0))
    }

    /// Stores the nearest f16.
    pub(crate) fn set(&mut self, value: f32) {
        // The sign of a NaN that arithmetic makes depends on the processor: this is the one of x86, and so of the reference.
        self.0 = if value.is_nan() { 0xfe00 } else { f32_to_f16(value) }.to_le_bytes();
    }
}

/// What a field of a block may be: bytes of which every pattern is valid, with alignment 1.
///
/// # Safety
/// The type has alignment 1, no padding, and every bit pattern is a value.
pub(super) unsafe trait Bytes: Copy {}
// SAFETY: two bytes.
unsafe impl Bytes for Half {}
// SAFETY: bytes.
unsafe impl<const N: usize> Bytes for [u8; N] {}
// SAFETY: bytes.
unsafe impl<const N: usize> Bytes for [i8; N] {}

/// Declares the struct `Block` of a format. Its fields are [`Bytes`], so any bytes of the right length are a block.
macro_rules! block {
    ($format:ident { $( $(#[$doc:meta])* $field:ident: $type:ty, )* }) => {
        /// One block as it lies in a file.
        #[derive(Clone, Copy, Debug)]
        #[repr(C)]
        pub(crate) struct Block { $( $(#[$doc])* pub(crate) $field: $type, )* }

        const _: () = {
            const fn bytes<T: $crate::format::layout::Bytes>() {}
            $( bytes::<$type>(); )*
            assert!(size_of::<Block>() == <$format as $crate::format::BlockFormat>::BYTES);
            assert!(align_of::<Block>() == 1);
        };

        impl Block {
            /// The block in `bytes`.
            ///
            /// # Panics
            /// When `bytes` is not one block long.
            #[inline(always)]
            pub(crate) fn of(bytes: &[u8]) -> &Block {
                assert_eq!(bytes.len(), size_of::<Block>(), "one block");
                // SAFETY: the length is right, the alignment is 1, and every bit pattern of the fields is valid.
                unsafe { &*bytes.as_ptr().cast() }
            }

            /// As [`Block::of`], for writing.
            pub(crate) fn of_mut(bytes: &mut [u8]) -> &mut Block {
                assert_eq!(bytes.len(), size_of::<Block>(), "one block");
                // SAFETY: as in `of`; the struct has no padding, so writing a field leaves initialised bytes.
                unsafe { &mut *bytes.as_mut_ptr().cast() }
            }
        }
    };
}
pub(super) use block;

/// Weights of a K-quant super-block.
pub(crate) const SUPER: usize = 256;

/// The 32 nibbles of a 32-block: weight `i` is in byte `i % 16`, the lower nibble for `i < 16`, the upper one after.
#[inline(always)]
pub fn nibbles(qs: &[u8; 16]) -> [u8; 32] {
    core::array::from_fn(|i| (qs[i % 16] >> (4 * (i / 16))) & 15)
}

/// The inverse of [`nibbles`]; takes the lower four bits of each value.
pub fn pack_nibbles(values: &[u8; 32]) -> [u8; 16] {
    core::array::from_fn(|i| (values[i] & 15) | (values[i + 16] << 4))
}

/// The fifth bits of a 32-block, as 0 or 16: weight `i` has bit `i` of the little-endian word.
#[inline(always)]
pub fn fifth_bits(qh: &[u8; 4]) -> [u8; 32] {
    let word = u32::from_le_bytes(*qh);
    core::array::from_fn(|i| ((word >> i) as u8 & 1) << 4)
}

/// The inverse of [`fifth_bits`]; takes bit 4 of each value.
pub fn pack_fifth_bits(values: &[u8; 32]) -> [u8; 4] {
    let word = values.iter().enumerate().fold(0u32, |word, (i, q)| word | u32::from(q >> 4 & 1) << i);
    word.to_le_bytes()
}

/// The two-bit fields of Q2_K, Q3_K and (as the upper bits) Q6_K: weight `128 h + 32 s + l` has bits `2 s` and `2 s + 1`
/// of byte `32 h + l`.
#[inline(always)]
pub fn crumbs(bytes: &[u8; 64]) -> [u8; SUPER] {
    core::array::from_fn(|i| (bytes[32 * (i / 128) + i % 32] >> (2 * (i % 128 / 32))) & 3)
}

/// The inverse of [`crumbs`]; takes the lower two bits of each value.
pub fn pack_crumbs(values: &[u8; SUPER]) -> [u8; 64] {
    core::array::from_fn(|b| {
        let first = 128 * (b / 32) + b % 32;
        (0..4).fold(0, |byte, s| byte | (values[first + 32 * s] & 3) << (2 * s))
    })
}

/// The bit planes of Q3_K and Q5_K: weight `32 j + l` has bit `j` of byte `l`. The result is 0 or 1.
#[inline(always)]
pub fn planes(bytes: &[u8; 32]) -> [u8; SUPER] {
    core::array::from_fn(|i| (bytes[i % 32] >> (i / 32)) & 1)
}

/// The inverse of [`planes`]; takes the lowest bit of each value.
pub fn pack_planes(values: &[u8; SUPER]) -> [u8; 32] {
    core::array::from_fn(|l| (0..8).fold(0, |byte, j| byte | (values[32 * j + l] & 1) << j))
}

/// The nibbles of Q4_K and Q5_K: weight `64 c + 32 n + l` is nibble `n` of byte `32 c + l`.
#[inline(always)]
pub fn super_nibbles(qs: &[u8; 128]) -> [u8; SUPER] {
    core::array::from_fn(|i| (qs[32 * (i / 64) + i % 32] >> (4 * (i / 32 % 2))) & 15)
}

/// The inverse of [`super_nibbles`]; takes the lower four bits of each value.
pub fn pack_super_nibbles(values: &[u8; SUPER]) -> [u8; 128] {
    core::array::from_fn(|b| {
        let low = 64 * (b / 32) + b % 32;
        (values[low] & 15) | (values[low + 32] << 4)
    })
}

/// The scales and minima (0..64) of the eight sub-blocks of Q4_K and Q5_K.
///
/// ```text
/// byte      bits 7-6              bits 5-0            byte       bits 7-4              bits 3-0
/// j         scale[4 + j] 5-4      scale[j]            8 + j      min[4 + j] 3-0        scale[4 + j] 3-0      (j < 4)
/// 4 + j     min[4 + j] 5-4        min[j]
/// ```
#[inline(always)]
pub fn scales_and_minima(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let (mut scales, mut minima) = ([0; 8], [0; 8]);
    for j in 0..4 {
        let (a, b, c) = (packed[j], packed[4 + j], packed[8 + j]);
        scales[j] = a & 63;
        minima[j] = b & 63;
        scales[4 + j] = (c & 15) | (a >> 6 << 4);
        minima[4 + j] = (c >> 4) | (b >> 6 << 4);
    }
    (scales, minima)
}

/// The inverse of [`scales_and_minima`], for values below 64.
pub fn pack_scales_and_minima(scales: &[u8; 8], minima: &[u8; 8]) -> [u8; 12] {
    let mut packed = [0; 12];
    for j in 0..4 {
        packed[j] = scales[j] | (scales[4 + j] >> 4 << 6);
        packed[4 + j] = minima[j] | (minima[4 + j] >> 4 << 6);
        packed[8 + j] = (scales[4 + j] & 15) | (minima[4 + j] << 4);
    }
    packed
}

/// [`scales_and_minima`] of several rows at once, from the words of the 12 bytes; each scale and minimum twice, because a
/// sub-block of 32 counts as two of 16.
#[inline(always)]
pub(super) fn unpack_scales_and_minima<I: Integers>(
    isa: I,
    [a, b, c]: [I::Words; 3],
) -> ([I::Words; 4], [I::Words; 4]) {
    let (scales, minima) = (isa.field::<0, 0x3f>(a), isa.field::<0, 0x3f>(b));
    let upper_scales = isa.or(isa.field::<0, 0x0f>(c), isa.field::<2, 0x30>(a));
    let upper_minima = isa.or(isa.field::<4, 0x0f>(c), isa.field::<2, 0x30>(b));
    (twice(isa, scales, upper_scales), twice(isa, minima, upper_minima))
}

/// Every byte of `low`, then of `high`, twice.
#[inline(always)]
fn twice<I: Integers>(isa: I, low: I::Words, high: I::Words) -> [I::Words; 4] {
    let ((a, b), (c, d)) = (isa.double_bytes(low), isa.double_bytes(high));
    [a, b, c, d]
}
