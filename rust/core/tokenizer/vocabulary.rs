//! The pieces of a vocabulary: the bytes, kind and score of every id, and the id of every string.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;

use crate::Result;
use crate::gguf::{Gguf, StringArray};

/// The pieces, an array of strings.
pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
/// The kinds, an array of i32.
const TYPES: &str = "tokenizer.ggml.token_type";
/// The scores, an array of f32 (or, rarely, i32).
const SCORES: &str = "tokenizer.ggml.scores";

/// What a token is for; the numbers are those of `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// 0: nothing was said; decodes to nothing.
    Undefined,
    /// 1: text.
    Normal,
    /// 2: stands for text outside the vocabulary.
    Unknown,
    /// 3: steers the model; never in the text unless asked for.
    Control,
    /// 4: added text, always recognised as one token.
    UserDefined,
    /// 5: a place holder; decodes to nothing.
    Unused,
    /// 6: one byte, spelled `<0xXX>`.
    Byte,
}

impl Kind {
    fn from_number(number: i32) -> Option<Kind> {
        Some(match number {
            0 => Kind::Undefined,
            1 => Kind::Normal,
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            5 => Kind::Unused,
            6 => Kind::Byte,
            _ => return None,
        })
    }
}

/// Strings with their ids. The strings are copied out of the file once, into one block (2 MiB for 262,144 pieces): a mapped file
/// may change under us, and everything below relies on what was validated here.
pub(super) struct Vocabulary {
    bytes: Box<[u8]>,
    /// Where each piece ends in `bytes`; it starts where the one before ends.
    ends: Box<[u32]>,
    kinds: Box<[Kind]>,
    /// Empty when the file has none: all scores are 0.
    scores: Box<[f32]>,
    /// Open addressing: `hash << 32 | id + 1`, 0 for a free place. Half of the places stay free.
    places: Box<[u64]>,
    hasher: RandomState,
    longest: usize,
}

impl Vocabulary {
    /// Reads and validates the arrays of `file`.
    pub(super) fn from_gguf(file: &Gguf) -> Result<Vocabulary> {
        let Some(tokens) = file.strings(TOKENS)? else {
            return Err(file.error(format!("key `{TOKENS}` is missing: the file has no vocabulary")));
        };
        if tokens.is_empty() {
            return Err(file.key_error(TOKENS, format!("key `{TOKENS}` must have at least one token, found none")));
        }
        let kinds = kinds(file, tokens.len())?;
        let scores = scores(file, tokens.len())?;
        let (bytes, ends) = copy(file, tokens)?;
        let mut vocabulary = Vocabulary {
            places: vec![0; (tokens.len() * 2).next_power_of_two()].into(),
            longest: tokens.iter().map(<[u8]>::len).max().unwrap_or(0),
            hasher: RandomState::default(),
            bytes,
            ends,
            kinds,
            scores,
        };
        vocabulary.fill(file)?;
        Ok(vocabulary)
    }

    /// Enters every string into the table; refuses duplicates and byte tokens that name no byte.
    fn fill(&mut self, file: &Gguf) -> Result<()> {
        for id in 0..self.len() as u32 {
            if self.kind(id) == Kind::Byte && self.byte(id).is_none() {
                let found = String::from_utf8_lossy(self.piece(id)).into_owned();
                let what = format!("byte token {id} of `{TOKENS}` must be spelled <0xXX>, found {found:?}");
                return Err(file.key_error(TOKENS, what));
            }
            // Several ids may be left empty: no text ever gives them.
            if self.piece(id).is_empty() {
                continue;
            }
            match self.find(self.piece(id)) {
                Ok(other) => {
                    let found = String::from_utf8_lossy(self.piece(id)).into_owned();
                    let what = format!("key `{TOKENS}` must have each token once, found {found:?} at {other} and {id}");
                    return Err(file.key_error(TOKENS, what));
                }
                Err((place, hash)) => self.places[place] = u64::from(hash) << 32 | u64::from(id + 1),
            }
        }
        Ok(())
    }

    /// The id of `piece`, or the free place where it belongs and its hash.
    fn find(&self, piece: &[u8]) -> Result<u32, (usize, u32)> {
        // Keyed at random, so that no file can choose pieces that collide.
        let hash = self.hasher.hash_one(piece);
        let mask = self.places.len() - 1;
        let mut place = hash as usize & mask;
        let hash = (hash >> 32) as u32;
        loop {
            match self.places[place] {
                0 => return Err((place, hash)),
                entry if (entry >> 32) as u32 == hash && self.piece(entry as u32 - 1) == piece => {
                    return Ok(entry as u32 - 1);
                }
                _ => place = (place + 1) & mask,
            }
        }
    }

    /// Number of ids.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of the longest piece.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// The id of a non-empty string.
    pub(super) fn id(&self, piece: &[u8]) -> Option<u32> {
        // Nothing longer is in the table; without this, long texts would be hashed in vain.
        (!piece.is_empty() && piece.len() <= self.longest).then(|| self.find(piece).ok()).flatten()
    }

    /// The string of `id`, which must be below [`Vocabulary::len`].
    pub(super) fn piece(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let start = if id == 0 { 0 } else { self.ends[id - 1] as usize };
        &self.bytes[start..self.ends[id] as usize]
    }

    /// The kind of `id`, which must be below [`Vocabulary::len`].
    pub(super) fn kind(&self, id: u32) -> Kind {
        self.kinds[id as usize]
    }

    /// Corrects what the file says about `id`.
    pub(super) fn set_kind(&mut self, id: u32, kind: Kind) {
        self.kinds[id as usize] = kind;
    }

    /// The score of `id`, which must be below [`Vocabulary::len`]; never NaN.
    pub(super) fn score(&self, id: u32) -> f32 {
        self.scores.get(id as usize).copied().unwrap_or(0.0)
    }

    /// The token spelled `<0xXX>` for `byte`.
    pub(super) fn byte_token(&self, byte: u8) -> Option<u32> {
        self.id(format!("<0x{byte:02X}>").as_bytes())
    }

    /// The byte that a piece spelled `<0xXX>` stands for.
    pub(super) fn byte(&self, id: u32) -> Option<u8> {
        let [b'<', b'0', b'x', digits @ .., b'>'] = self.piece(id) else { return None };
        let &[high, low] = digits else { return None };
        let digit = |byte: u8| (byte as char).to_digit(16);
        Some((digit(high)? * 16 + digit(low)?) as u8)
    }
}

/// All strings in one block, and their ends.
type Strings = (Box<[u8]>, Box<[u32]>);

/// Copies the strings.
fn copy(file: &Gguf, tokens: StringArray<'_>) -> Result<Strings> {
    let total: usize = tokens.iter().map(<[u8]>::len).sum();
    // Ids and ends are u32, and the table keeps id + 1.
    if u32::try_from(total).is_err() || u32::try_from(tokens.len() * 2).is_err() {
        let what = format!("key `{TOKENS}` must hold less than 4 GiB and 2^31 tokens, found {total} bytes");
        return Err(file.key_error(TOKENS, what));
    }
    let (mut bytes, mut ends) = (Vec::with_capacity(total), Vec::with_capacity(tokens.len()));
    for token in tokens {
        bytes.extend_from_slice(token);
        ends.push(bytes.len() as u32);
    }
    if ends.len() != tokens.len() {
        return Err(file.key_error(TOKENS, format!("key `{TOKENS}` changed while it was read")));
    }
    Ok((bytes.into(), ends.into()))
}

/// One kind per token; all normal when the file says nothing.
fn kinds(file: &Gguf, tokens: usize) -> Result<Box<[Kind]>> {
    let Some(numbers) = file.i32s(TYPES)? else { return Ok(vec![Kind::Normal; tokens].into()) };
    check_length(file, TYPES, numbers.len(), tokens)?;
    let kind = |(id, number): (usize, &i32)| {
        Kind::from_number(*number).ok_or_else(|| {
            file.key_error(TYPES, format!("key `{TYPES}` must hold 0 to 6, found {number} for token {id}"))
        })
    };
    numbers.iter().enumerate().map(kind).collect()
}

/// One score per token, or none at all.
fn scores(file: &Gguf, tokens: usize) -> Result<Box<[f32]>> {
    let Some(array) = file.array(SCORES)? else { return Ok(Box::default()) };
    let scores = match file.f32s(SCORES) {
        Ok(scores) => scores.unwrap_or_default(),
        // Some converters write whole numbers.
        Err(error) => match file.i32s(SCORES) {
            Ok(scores) => scores.unwrap_or_default().into_iter().map(|score| score as f32).collect(),
            Err(_) => return Err(error),
        },
    };
    check_length(file, SCORES, array.len(), tokens)?;
    if let Some(id) = scores.iter().position(|score| score.is_nan()) {
        return Err(file.key_error(SCORES, format!("key `{SCORES}` must hold numbers, found NaN for token {id}")));
    }
    Ok(scores.into())
}

fn check_length(file: &Gguf, key: &str, found: usize, tokens: usize) -> Result<()> {
    if found == tokens {
        return Ok(());
    }
    let what = format!("key `{key}` must have as many items as `{TOKENS}` ({tokens}), found {found}");
    Err(file.key_error(key, what))
}
