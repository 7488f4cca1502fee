//! Where a block keeps its floats.

use crate::half::{f16_to_f32, f32_to_f16};

/// A scale or minimum in a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scale {
    /// A little-endian f16 from this byte on.
    Half(usize),
    /// An f16 in four nibbles, lowest first: the upper halves of this byte and of the second, fourth and sixth after it.
    Nibbles(usize),
}

impl Scale {
    /// Its f16 bits.
    ///
    /// # Panics
    /// When `block` is shorter than a block of the scale's format.
    pub fn bits(self, block: &[u8]) -> u16 {
        match self {
            Scale::Half(at) => u16::from_le_bytes([block[at], block[at + 1]]),
            Scale::Nibbles(at) => (0..4).fold(0, |bits, i| bits | u16::from(block[at + 2 * i] >> 4) << (4 * i)),
        }
    }

    /// Replaces the f16 bits; nothing else in the block changes.
    ///
    /// # Panics
    /// As for [`bits`](Scale::bits).
    pub fn set_bits(self, block: &mut [u8], bits: u16) {
        match self {
            Scale::Half(at) => block[at..at + 2].copy_from_slice(&bits.to_le_bytes()),
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
        f16_to_f32(self.bits(block))
    }

    /// Stores the nearest f16.
    ///
    /// # Panics
    /// As for [`bits`](Scale::bits).
    pub fn set(self, block: &mut [u8], value: f32) {
        self.set_bits(block, f32_to_f16(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_read_back_and_the_rest_of_the_block_stays() {
        for (scale, mask) in [
            (Scale::Half(3), [0, 0, 0, 0xff, 0xff, 0, 0, 0]),
            (Scale::Nibbles(1), [0, 0xf0, 0, 0xf0, 0, 0xf0, 0, 0xf0]),
        ] {
            for bits in 0..=u16::MAX {
                let mut block = [0xa5u8; 8];
                scale.set_bits(&mut block, bits);
                assert_eq!(scale.bits(&block), bits);
                assert!(block.iter().zip(mask).all(|(byte, mask)| byte & !mask == 0xa5 & !mask), "{scale:?}");
            }
        }
        let mut block = [0; 7];
        Scale::Nibbles(0).set_bits(&mut block, 0x4321);
        assert_eq!(block, [0x10, 0, 0x20, 0, 0x30, 0, 0x40]);
        Scale::Half(2).set(&mut block, -2.0);
        assert_eq!((Scale::Half(2).get(&block), block[3]), (-2.0, 0xc0));
    }
}
