//! `tokenizer.model`: a message of Protocol Buffers, of which a few fields matter.
//!
//! Fields are those of sentencepiece_model.proto in <https://github.com/google/sentencepiece>; the encoding is
//! <https://protobuf.dev/programming-guides/encoding>.

use std::path::Path;

use super::{Files, Kind, Tokens};
use crate::gguf::{Array, model_error};
use crate::{Error, Result};

/// Most pieces.
const MAX_PIECES: usize = 1 << 24;

/// The value of a field.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Float(f32),
}

/// Reads the fields of a message.
struct Message<'a> {
    bytes: &'a [u8],
}

impl<'a> Message<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, count: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(usize::try_from(count).ok()?)?;
        self.bytes = rest;
        Some(taken)
    }

    /// The next field and its number; `Err` for bytes that are no message.
    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>, ()> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let mut field = || {
            let tag = self.varint()?;
            let value = match tag & 7 {
                0 => Field::Number(self.varint()?),
                1 => {
                    self.take(8)?;
                    Field::Number(0)
                }
                2 => {
                    let count = self.varint()?;
                    Field::Bytes(self.take(count)?)
                }
                5 => Field::Float(f32::from_le_bytes(self.take(4)?.try_into().ok()?)),
                _ => return None,
            };
            Some((tag >> 3, value))
        };
        field().map(Some).ok_or(())
    }
}

/// What the file says.
struct Model {
    pieces: Vec<(String, f32, u64)>,
    /// 1 for unigram, 2 for BPE.
    kind: u64,
    charsmap: Vec<u8>,
    dummy_prefix: bool,
    remove_spaces: bool,
}

fn parse(bytes: &[u8]) -> Result<Model, String> {
    let mut model =
        Model { pieces: Vec::new(), kind: 1, charsmap: Vec::new(), dummy_prefix: true, remove_spaces: true };
    let broken = |()| "is no SentencePiece model: damaged or not complete".to_owned();
    let mut message = Message { bytes };
    while let Some((number, field)) = message.next().map_err(broken)? {
        let Field::Bytes(bytes) = field else { continue };
        let mut inner = Message { bytes };
        let (mut piece, mut score, mut kind) = (None, 0.0, 1);
        while let Some(field) = inner.next().map_err(broken)? {
            match (number, field) {
                (1, (1, Field::Bytes(text))) => piece = Some(text),
                (1, (2, Field::Float(value))) => score = value,
                (1, (3, Field::Number(value))) => kind = value,
                (2, (3, Field::Number(value))) => model.kind = value,
                (3, (2, Field::Bytes(map))) => model.charsmap = map.to_vec(),
                (3, (3, Field::Number(flag))) => model.dummy_prefix = flag != 0,
                (3, (4, Field::Number(flag))) => model.remove_spaces = flag != 0,
                _ => {}
            }
        }
        if number == 1 {
            let at = model.pieces.len();
            let text = std::str::from_utf8(piece.unwrap_or_default())
                .map_err(|_| format!("piece {at} must be UTF-8, found other bytes"))?;
            if score.is_nan() || !(1..=6).contains(&kind) || at == MAX_PIECES {
                return Err(format!(
                    "piece {at} must have a number as score and a type from 1 to 6, found {score} and {kind}"
                ));
            }
            model.pieces.push((text.to_owned(), score, kind));
        }
    }
    match model.pieces.is_empty() {
        true => Err("is no SentencePiece model: it has no pieces".into()),
        false => Ok(model),
    }
}

/// Reads the model in `bytes`, the file at `path`.
pub(super) fn read(path: &Path, bytes: &[u8], files: &Files<'_>) -> Result<Tokens> {
    let model = parse(bytes).map_err(|what| model_error(path, what))?;
    let unigram = match model.kind {
        1 => true,
        2 => false,
        other => {
            let path = path.display();
            return Err(Error::Tokenizer(format!("{path}: a model of type {other} is not supported; 1 and 2 are")));
        }
    };
    let kind = |number: u64| match number {
        2 => Kind::Unknown,
        3 => Kind::Control,
        4 => Kind::UserDefined,
        5 => Kind::Unused,
        6 => Kind::Byte,
        _ => Kind::Normal,
    };
    let mut more = Vec::new();
    if unigram {
        more.push(("remove_extra_whitespaces", model.remove_spaces.into()));
        if !model.charsmap.is_empty() {
            more.push(("precompiled_charsmap", Array::from(model.charsmap.as_slice()).into()));
        }
    }
    Ok(Tokens {
        model: if unigram { "t5" } else { "llama" },
        scores: Some(model.pieces.iter().map(|piece| piece.1).collect()),
        pieces: model.pieces.into_iter().map(|(piece, _, number)| Some((piece, kind(number)))).collect(),
        merges: None,
        pre: "default".into(),
        space_prefix: Some(files.config.bool("add_prefix_space")?.unwrap_or(model.dummy_prefix)),
        more,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of bytes.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
    }

    #[test]
    fn fields_that_matter_are_found_among_others() {
        let piece = [field(1, "▁a".as_bytes()), vec![0x15, 0, 0, 0x80, 0xbf], vec![0x18, 4], vec![0x20, 9]].concat();
        let trainer = [vec![0x18, 2], vec![0x21, 1, 2, 3, 4, 5, 6, 7, 8]].concat();
        let normalizer = [field(2, b"map"), vec![0x18, 0]].concat();
        let bytes = [field(1, &piece), field(2, &trainer), field(3, &normalizer), field(1, &field(1, b"b"))].concat();
        let model = parse(&bytes).unwrap();
        assert_eq!(model.pieces, [("▁a".to_owned(), -1.0, 4), ("b".to_owned(), 0.0, 1)]);
        assert_eq!((model.kind, model.charsmap.as_slice(), model.dummy_prefix), (2, b"map".as_slice(), false));
        // Every file that was cut off is an error or a shorter model, never a panic.
        for end in 0..bytes.len() {
            if let Ok(model) = parse(&bytes[..end]) {
                assert!(model.pieces.len() < 3);
            }
        }
        assert!(parse(&[0xff; 40]).is_err());
        assert!(parse(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).is_err());
    }
}
