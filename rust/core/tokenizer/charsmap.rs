//! The normaliser of SentencePiece as files carry it: a table of strings, and what stands for each.
//!
//! It is a double array in the layout of Darts-clone, XOR-compressed (Kanda 2018): 32 bits per node, and the child of a node by a byte is
//! at the node's own place XOR its offset XOR the byte. Behind the array are the replacements, each ended by a zero byte.
//! All of it comes from an untrusted file: no place is read that was not compared with the length.

use crate::gguf::{Gguf, ValueType};
use crate::{Error, Result};

const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";

/// The table.
pub(super) struct CharsMap {
    units: Box<[u32]>,
    replacements: Box<[u8]>,
}

impl CharsMap {
    /// The table of `file`, when it has one.
    pub(super) fn from_gguf(file: &Gguf) -> Result<Option<CharsMap>> {
        let Some(array) = file.array(CHARSMAP)? else { return Ok(None) };
        let wrong = |expected: &str| file.key_error(CHARSMAP, format!("key `{CHARSMAP}` must {expected}"));
        if !matches!(array.element(), ValueType::U8 | ValueType::I8) {
            return Err(wrong("be an array of bytes"));
        }
        let bytes = array.bytes();
        let Some((size, rest)) = bytes.split_first_chunk() else {
            return Err(wrong("begin with the size of its array"));
        };
        let split = usize::try_from(u32::from_le_bytes(*size)).ok().and_then(|size| rest.split_at_checked(size));
        // Without a last zero some replacement would have no end.
        match split {
            Some((units, replacements)) if replacements.last() == Some(&0) => Ok(Some(CharsMap {
                units: units.as_chunks().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect(),
                replacements: replacements.into(),
            })),
            _ => Err(wrong("hold an array of the size it says, and replacements that end in a zero byte")),
        }
    }

    /// What stands for the longest string of the table that `text` begins with, and the length of that string.
    pub(super) fn replace(&self, text: &[u8]) -> Result<Option<(&[u8], usize)>> {
        let Some(root) = self.units.first() else { return Ok(None) };
        let mut index = offset(*root);
        let mut longest = None;
        for (length, byte) in (1..).zip(text.iter().take_while(|byte| **byte != 0)) {
            index ^= u32::from(*byte);
            let unit = self.unit(index)?;
            if label(unit) != u32::from(*byte) {
                break;
            }
            index ^= offset(unit);
            if has_value(unit) {
                longest = Some((self.unit(index)? & !VALUE, length));
            }
        }
        longest.map(|(start, length)| Ok((self.replacement(start)?, length))).transpose()
    }

    fn unit(&self, index: u32) -> Result<u32> {
        self.units.get(index as usize).copied().ok_or_else(damaged)
    }

    fn replacement(&self, start: u32) -> Result<&[u8]> {
        let rest = self.replacements.get(start as usize..).ok_or_else(damaged)?;
        rest.split(|byte| *byte == 0).next().ok_or_else(damaged)
    }
}

/// Set where a unit is a value and no node.
const VALUE: u32 = 1 << 31;

/// The byte that leads to a node; never that of a value.
fn label(unit: u32) -> u32 {
    unit & (VALUE | 0xff)
}

/// Whether a node's child by the zero byte is a value: the string up to here is in the table.
fn has_value(unit: u32) -> bool {
    unit >> 8 & 1 == 1
}

/// 21 bits, in units of 1 or of 256.
fn offset(unit: u32) -> u32 {
    unit >> 10 << ((unit & 1 << 9) >> 6)
}

fn damaged() -> Error {
    Error::Tokenizer(format!("key `{CHARSMAP}` points outside of itself"))
}
