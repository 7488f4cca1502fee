//! Where a block keeps its floats.

use super::float4::{half_of_e8m0, half_of_ue4m3, ue4m3_of};
use crate::half::{f16_to_f32, f32_to_f16};

/// A scale or minimum in a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scale {
    /// A little-endian f16 from this byte on.
    Half(usize),
    /// An f16 in four nibbles, lowest first: the upper halves of this byte and of the second, fourth and sixth after it.
    Nibbles(usize),
    /// A byte `e` that stands for `2^(e - 128)`: half the value of an E8M0. Always finite, never zero.
    Exponent(usize),
    /// Half of an unsigned E4M3 in a byte. Always finite.
    SmallFloat(usize),
}

impl Scale {
    /// Its bits: those of an f16, or a byte.
    ///
    /// # Panics
    /// When `block` is shorter than a block of the scale's format.
    pub fn bits(self, block: &[u8]) -> u16 {
        match self {
            Scale::Half(at) => u16::from_le_bytes([block[at], block[at + 1]]),
            Scale::Exponent(at) | Scale::SmallFloat(at) => u16::from(block[at]),
            Scale::Nibbles(at) => (0..4).fold(0, |bits, i| bits | u16::from(block[at + 2 * i] >> 4) << (4 * i)),
        }
    }

    /// Replaces the bits (the lower byte of `bits` where it has but one); nothing else in the block changes.
    ///
    /// # Panics
    /// As for [`bits`](Scale::bits).
    pub fn set_bits(self, block: &mut [u8], bits: u16) {
        match self {
            Scale::Half(at) => block[at..at + 2].copy_from_slice(&bits.to_le_bytes()),
            Scale::Exponent(at) | Scale::SmallFloat(at) => block[at] = bits as u8,
            Scale::Nibbles(at) => {
                for i in 0..4 {
                    let byte = &mut block[at + 2 * i];
                    *byte = (*byte & 0x0f) | ((bits >> (4 * i)) as u8 & 0x0f) << 4;
                }
            }
        }
    }

    /// Its value.
    ///
    /// # Panics
    /// As for [`bits`](Scale::bits).
    pub fn get(self, block: &[u8]) -> f32 {
        match self {
            Scale::Half(_) | Scale::Nibbles(_) => f16_to_f32(self.bits(block)),
            Scale::Exponent(at) => half_of_e8m0(block[at]),
            Scale::SmallFloat(at) => half_of_ue4m3(block[at]),
        }
    }

    /// Stores the nearest f16; where there is no sign the magnitude: the power of two that it has reached, or the nearest small
    /// float.
    ///
    /// # Panics
    /// As for [`bits`](Scale::bits).
    pub fn set(self, block: &mut [u8], value: f32) {
        let bits = match self {
            Scale::Half(_) | Scale::Nibbles(_) => f32_to_f16(value),
            Scale::Exponent(_) => match value.abs().to_bits() {
                subnormal @ ..0x0080_0000 => (subnormal >> 22) as u16,
                // The exponent field has the bias 127.
                normal => (normal >> 23) as u16 + 1,
            }
            .min(0xff),
            Scale::SmallFloat(_) => u16::from(ue4m3_of(2.0 * value.abs())),
        };
        self.set_bits(block, bits);
    }

    /// Changes bits, if need be, so that the scale is finite and its products with the integers of a block are.
    pub(crate) fn make_finite(self, block: &mut [u8]) {
        let bits = self.bits(block);
        match self {
            // Clearing the lowest bit of an exponent of ones makes it finite.
            Scale::Half(_) | Scale::Nibbles(_) if bits & 0x7c00 == 0x7c00 => self.set_bits(block, bits & !0x0400),
            // 2^124 times 12 is finite.
            Scale::Exponent(_) if bits > 252 => self.set_bits(block, bits - 4),
            _ => {}
        }
    }
}
