//! BPE (Sennrich et al. 2016): neighbours are merged in the order of the merge list. In the form of GPT-2 every byte of a word is written
//! as one printable character; in that of Gemma 4 words are the characters of SentencePiece. The `tokenizers` crate gives the same tokens (a test compares them), but
//! needs ten times as long for its tables of strings, and the first text waits for them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::OnceLock;

use foldhash::quality::RandomState;

use super::Encoder;
use super::chain::{Chain, Merges, NONE, Symbol};
use super::pretokenize::{PreTokenizer, Spelling, Splitter};
use super::spm::{escape, unescape};
use super::vocabulary::{TOKENS, Vocabulary};
use crate::gguf::Gguf;
use crate::{Error, Interrupt, Result};

const MERGES: &str = "tokenizer.ggml.merges";

/// Words between two looks at the interrupt.
const WORDS_PER_CHECK: usize = 1024;

/// The merge list: left, right, and both together.
type MergeList = Vec<(u32, u32, u32)>;

/// Reads and validates the merge list: `left right`, both and their concatenation in the vocabulary.
fn merges(file: &Gguf, vocabulary: &Vocabulary) -> Result<MergeList> {
    let Some(lines) = file.strings(MERGES)? else {
        return Err(file.error(format!("key `{MERGES}` is missing: a `gpt2` vocabulary needs it")));
    };
    let mut merges = Vec::with_capacity(lines.len());
    let mut whole = Vec::new();
    for (rank, line) in lines.iter().enumerate() {
        let wrong = |expected: &str| {
            let found = String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned();
            file.key_error(MERGES, format!("merge {rank} of `{MERGES}` must be {expected}, found {found:?}"))
        };
        let mut parts = line.split(|byte| *byte == b' ');
        let (Some(left), Some(right), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong("two tokens separated by one space"));
        };
        whole.clear();
        whole.extend_from_slice(left);
        whole.extend_from_slice(right);
        let ids = (vocabulary.id(left), vocabulary.id(right), vocabulary.id(&whole));
        let (Some(left), Some(right), Some(whole)) = ids else {
            return Err(wrong(&format!("two tokens whose parts and concatenation are in `{TOKENS}`")));
        };
        merges.push((left, right, whole));
    }
    Ok(merges)
}

/// The characters that GPT-2 writes the bytes 0 to 255 as: printable Latin-1 as it is, the others from U+0100 on.
const ALPHABET: [char; 256] = {
    let mut alphabet = ['\0'; 256];
    let (mut byte, mut next) = (0, 0x100);
    while byte < 256 {
        alphabet[byte] = match byte as u8 {
            printable @ (b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) => printable as char,
            _ => {
                next += 1;
                match char::from_u32(next - 1) {
                    Some(character) => character,
                    None => '\0',
                }
            }
        };
        byte += 1;
    }
    alphabet
};

/// The byte that `character` stands for.
fn byte_of(character: char) -> Option<u8> {
    match character as u32 {
        code @ 0..=0xff if ALPHABET[code as usize] == character => Some(code as u8),
        // 68 bytes are written as U+0100 to U+0143: 0x00 to 0x20, 0x7f to 0xa0, 0xad.
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// The text of a normal token: bytes for characters, or the piece as it is when a character is none of the alphabet.
fn decode_piece(piece: &[u8]) -> Vec<u8> {
    let decoded = std::str::from_utf8(piece).ok().and_then(|text| text.chars().map(byte_of).collect());
    decoded.unwrap_or_else(|| piece.to_vec())
}

/// The encoder.
pub(super) struct Bpe {
    pre: &'static PreTokenizer,
    merges: MergeList,
    tables: OnceLock<Result<Tables, String>>,
}

impl Bpe {
    /// Reads and validates the merges of `file`.
    pub(super) fn from_gguf(file: &Gguf, vocabulary: &Vocabulary, pre: &'static PreTokenizer) -> Result<Bpe> {
        Ok(Bpe { pre, merges: merges(file, vocabulary)?, tables: OnceLock::new() })
    }

    /// `word` as the vocabulary writes it; in `spelled` where that is not as it stands.
    fn spell<'w>(&self, word: &'w str, spelled: &'w mut String) -> &'w [u8] {
        if self.pre.spelling != Spelling::Bytes {
            return word.as_bytes();
        }
        spelled.clear();
        spelled.extend(word.bytes().map(|byte| ALPHABET[byte as usize]));
        spelled.as_bytes()
    }
}

impl Encoder for Bpe {
    /// Bytes that the vocabulary has no token for are left out; nothing is merged across them.
    fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        _: bool,
        ids: &mut Vec<u32>,
        interrupt: &dyn Interrupt,
    ) -> Result<()> {
        let build = || Tables::new(vocabulary, &self.merges, self.pre).map_err(|error| error.to_string());
        let tables = self.tables.get_or_init(build).as_ref().map_err(|error| Error::Tokenizer(error.clone()))?;
        let (mut chain, mut spelled, mut words) = (Chain::default(), String::new(), 0_usize);
        let text = match self.pre.spelling {
            Spelling::Marked => Cow::Owned(escape(text, false)),
            Spelling::Bytes => Cow::Borrowed(text),
        };
        Chain::check(&text)?;
        tables.splitter.split(&text, &mut |word| {
            words += 1;
            if words.is_multiple_of(WORDS_PER_CHECK) && interrupt.stop() {
                return Err(Error::Cancelled);
            }
            let may_be_whole = self.pre.ignore_merges || self.pre.whole_lines && word.starts_with('\n');
            if may_be_whole && let Some(id) = vocabulary.id(self.spell(word, &mut spelled)) {
                ids.push(id);
                return Ok(());
            }
            let mut each = |symbol: &Symbol| {
                match symbol.id {
                    NONE => {
                        let bytes = word[symbol.start as usize..][..symbol.length as usize].bytes();
                        ids.extend(bytes.filter_map(|byte| tables.bytes[byte as usize]));
                    }
                    id => ids.push(id),
                }
                Ok(())
            };
            match self.pre.spelling {
                Spelling::Bytes => {
                    let bytes = word.bytes().map(|byte| (1, tables.bytes[byte as usize]));
                    chain.encode(tables, word.as_bytes(), bytes, interrupt, &mut each)
                }
                Spelling::Marked => {
                    let characters = word.split_inclusive(|_| true).map(|c| (c.len(), vocabulary.id(c.as_bytes())));
                    chain.encode(tables, word.as_bytes(), characters, interrupt, &mut each)
                }
            }
        })
    }

    fn decode_piece<'p>(&self, piece: &'p [u8]) -> Cow<'p, [u8]> {
        match self.pre.spelling {
            Spelling::Bytes => Cow::Owned(decode_piece(piece)),
            Spelling::Marked => unescape(piece),
        }
    }
}

/// What the encoder needs, made on first use.
struct Tables {
    splitter: Splitter,
    /// The tokens of the bytes, where there are any; in vocabularies of characters those for what has no other.
    bytes: [Option<u32>; 256],
    /// The order and the token of pairs.
    pairs: HashMap<(u32, u32), (u32, u32), RandomState>,
}

impl Tables {
    fn new(vocabulary: &Vocabulary, merges: &MergeList, pre: &PreTokenizer) -> Result<Tables> {
        let mut pairs = HashMap::with_capacity_and_hasher(merges.len(), RandomState::default());
        for (order, &(left, right, whole)) in (0..).zip(merges) {
            // Of equal merges the first counts.
            pairs.entry((left, right)).or_insert((order, whole));
        }
        let bytes = match pre.spelling {
            Spelling::Bytes => ALPHABET.map(|character| vocabulary.id(character.encode_utf8(&mut [0; 4]).as_bytes())),
            Spelling::Marked => std::array::from_fn(|byte| vocabulary.byte_token(byte as u8)),
        };
        Ok(Tables { splitter: pre.splitter()?, bytes, pairs })
    }
}

impl Merges for Tables {
    fn merge(&self, _: &[u8], left: &Symbol, right: &Symbol) -> Option<(u32, u32)> {
        self.pairs.get(&(left.id, right.id)).copied()
    }

    /// Other neighbours with the same text need not be on the list.
    fn still(&self, left: &Symbol, right: &Symbol) -> bool {
        self.pairs.contains_key(&(left.id, right.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alphabet_is_a_bijection() {
        for byte in 0..=255u8 {
            assert_eq!(byte_of(ALPHABET[byte as usize]), Some(byte));
        }
        assert_eq!((0..0x400).filter_map(char::from_u32).filter(|c| byte_of(*c).is_some()).count(), 256);
        assert_eq!(ALPHABET[b' ' as usize], 'Ġ');
        assert_eq!(ALPHABET[b'\n' as usize], 'Ċ');
        assert_eq!(decode_piece("Ġcaf\u{c3}\u{a9}".as_bytes()), " café".as_bytes());
        assert_eq!(decode_piece("▁a".as_bytes()), "▁a".as_bytes());
        assert_eq!(decode_piece(b"\xff\xfe"), b"\xff\xfe");
    }
}
