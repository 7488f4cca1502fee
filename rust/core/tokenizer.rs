//! Tokenizers from GGUF metadata: text to tokens and back.
//!
//! The kinds are told apart by `tokenizer.ggml.model`: `gpt2` (byte-level BPE, cut into words by the pre-tokenizer that
//! `tokenizer.ggml.pre` names), `gemma4` (BPE over the characters of SentencePiece), `llama` (the BPE of SentencePiece with byte
//! fallback: Llama 2, Gemma), `bert` (WordPiece) and `t5` (unigram). Everything is validated when a file is opened; the encoder is built
//! when it is first used. Tokens are those of llama.cpp for the same file (of WordPiece those of BERT).

use std::borrow::Cow;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::OnceLock;

use crate::gguf::Gguf;
use crate::{Error, Interrupt, Never, Result};

mod bpe;
mod chain;
mod charsmap;
mod detokenize;
mod family;
mod prefixes;
mod pretokenize;
mod special;
mod spm;
mod unigram;
mod vocabulary;
mod wordpiece;

pub use detokenize::Detokenizer;

use bpe::Bpe;
use family::{Algorithm, Family};
use pretokenize::PreTokenizer;
use special::{BOS, Finder, Named, Part, SEPARATOR};
use spm::Spm;
use unigram::Unigram;
use vocabulary::{Kind, Vocabulary};
use wordpiece::WordPiece;

/// What `tokenizer.ggml.pre` may name.
pub(crate) fn pre_tokenizer_names() -> impl Iterator<Item = &'static str> {
    PreTokenizer::names()
}

const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
const ADD_SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";

/// Phi-3 drops white space after its special tokens, except after these.
const PHI3_KEEPS_SPACE: &[&str] = &["<unk>", "<s>", "<|endoftext|>"];

/// The tokenizer of a model. Used from any number of threads at once.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    kind: String,
    encoder: Box<dyn Encoder>,
    /// Finds special tokens without and with `parse_special`.
    finders: [OnceLock<Result<Finder, String>>; 2],
    named: Named,
    /// Sorted.
    ends: Vec<u32>,
    /// What `add_special` puts before and behind a text.
    first: Option<u32>,
    last: Option<u32>,
    add_space_prefix: bool,
    /// Whether the first space of a decoded text is none of the text.
    drop_first_space: bool,
    strip_after_special: bool,
}

/// One algorithm with its tables.
trait Encoder: Send + Sync + UnwindSafe + RefUnwindSafe {
    /// Appends the tokens of a text without special tokens, which begins a text or stands behind a special token when it is
    /// `after_special`.
    fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        after_special: bool,
        ids: &mut Vec<u32>,
        interrupt: &dyn Interrupt,
    ) -> Result<()>;

    /// The text of a normal piece.
    fn decode_piece<'p>(&self, piece: &'p [u8]) -> Cow<'p, [u8]>;
}

impl Tokenizer {
    /// Reads and validates the vocabulary of `file`.
    ///
    /// # Errors
    /// [`Error::UnsupportedModel`] for a tokenizer or pre-tokenizer that is not known; [`Error::ModelFile`] naming the key when
    /// something is missing, has a wrong type or length, or does not fit the rest.
    pub fn from_gguf(file: &Gguf) -> Result<Tokenizer> {
        let family = Family::from_gguf(file)?;
        let mut vocabulary = Vocabulary::from_gguf(file)?;
        let named = Named::from_gguf(file, &vocabulary, &family.named)?;
        let ends = special::end_of_generation(file, &mut vocabulary, named.eos)?;
        let add_space_prefix = file.bool(ADD_SPACE_PREFIX)?.unwrap_or(family.add_space_prefix);
        let (mut kind, mut add_bos, mut always_bos) = (family.kind.to_owned(), family.add_bos, false);
        let mut last = added(file, ADD_EOS, named.eos, family.add_eos)?;
        let encoder: Box<dyn Encoder> = match family.algorithm {
            Algorithm::Bpe => {
                let (name, pre) = PreTokenizer::from_gguf(file, family.pre)?;
                kind = format!("{kind}/{name}");
                (add_bos, always_bos) = (pre.add_bos, pre.always_bos);
                Box::new(Bpe::from_gguf(file, &vocabulary, pre)?)
            }
            Algorithm::Spm => Box::new(Spm::new(&vocabulary, named.unknown, add_space_prefix)),
            Algorithm::Unigram => Box::new(Unigram::from_gguf(file, &vocabulary, named.unknown, add_space_prefix)?),
            Algorithm::WordPiece => {
                // BERT knows no text without them, whatever the flags say.
                always_bos = true;
                last = Some(special::needed(file, SEPARATOR, named.separator)?);
                Box::new(WordPiece::from_gguf(file, &vocabulary, named.unknown)?)
            }
        };
        let first = match always_bos {
            true => Some(special::needed(file, BOS, named.bos)?),
            false => added(file, ADD_BOS, named.bos, add_bos)?,
        };
        let name = file.bytes("general.name").ok().flatten().unwrap_or_default().to_ascii_lowercase();
        let phi3 =
            |name: &[u8]| name.windows(4).any(|part| part == b"phi3") || name.windows(5).any(|part| part == b"phi-3");
        Ok(Tokenizer {
            first,
            last,
            add_space_prefix,
            drop_first_space: add_space_prefix || family.algorithm == Algorithm::WordPiece,
            strip_after_special: phi3(&name),
            finders: Default::default(),
            vocabulary,
            kind,
            encoder,
            named,
            ends,
        })
    }

    /// The tokens of `text`. `add_special` adds the beginning and end tokens that the file asks for; `parse_special` finds control
    /// tokens spelled in the text (user-defined tokens are always found), which only texts that are trusted should be allowed.
    ///
    /// Bytes that a byte-level vocabulary has no token for (SmolLM2 lacks a few that valid text hardly holds) are left out, as
    /// llama.cpp does.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when a SentencePiece vocabulary has neither a token for a character, nor tokens for its bytes, nor
    /// an unknown token; [`Error::Cancelled`].
    pub fn encode(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
        interrupt: &dyn Interrupt,
    ) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        ids.extend(self.first.filter(|_| add_special));
        let mut after_special = true;
        let mut strip = false;
        self.finder(parse_special)?.parts(text, &mut |part| {
            match part {
                Part::Token(id) => {
                    ids.push(id);
                    after_special = true;
                    strip = self.strip_after_special
                        && !PHI3_KEEPS_SPACE.iter().any(|kept| kept.as_bytes() == self.vocabulary.piece(id));
                }
                Part::Text(text) => {
                    let text =
                        if strip { text.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']) } else { text };
                    if !text.is_empty() {
                        self.encoder.encode(&self.vocabulary, text, after_special, &mut ids, interrupt)?;
                        after_special = false;
                    }
                }
            }
            Ok(())
        })?;
        ids.extend(self.last.filter(|_| add_special));
        Ok(ids)
    }

    /// The tokens of `text` inside a text: without special tokens, and without the space that goes in front of texts.
    pub(crate) fn encode_inside(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        self.finder(false)?.parts(text, &mut |part| {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text("") => {}
                Part::Text(text) => self.encoder.encode(&self.vocabulary, text, false, &mut ids, &Never)?,
            }
            Ok(())
        })?;
        Ok(ids)
    }

    fn finder(&self, parse_special: bool) -> Result<&Finder> {
        let build = || Finder::new(&self.vocabulary, parse_special).map_err(|error| error.to_string());
        self.finders[usize::from(parse_special)]
            .get_or_init(build)
            .as_ref()
            .map_err(|error| Error::Tokenizer(error.clone()))
    }

    /// The text of a whole sequence of tokens. Control and unknown tokens are shown only with `special`. Bytes that are not UTF-8
    /// become U+FFFD. The space that encoding puts in front of a text (where the file asks for one) is taken off. What WordPiece
    /// changed, such as capitals and spaces around punctuation, is not restored.
    ///
    /// # Errors
    /// [`Error::Argument`] when an id is not in the vocabulary.
    pub fn decode(&self, ids: &[u32], special: bool) -> Result<String> {
        let mut bytes = Vec::new();
        let mut at_start = self.drop_first_space;
        for id in ids {
            let token = self.token_bytes(*id, special)?;
            let stripped = token.strip_prefix(b" ").filter(|_| at_start);
            at_start &= token.is_empty();
            bytes.extend_from_slice(stripped.unwrap_or(&token));
        }
        Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// The bytes of one token inside a text; not always UTF-8. Empty for control and unknown tokens unless `special` asks to see
    /// them, and for unused ones.
    ///
    /// # Errors
    /// [`Error::Argument`] when `id` is not in the vocabulary.
    pub fn token_bytes(&self, id: u32, special: bool) -> Result<Cow<'_, [u8]>> {
        if id as usize >= self.vocab_size() {
            let what = format!("token must be below the {} tokens of the vocabulary, found {id}", self.vocab_size());
            return Err(Error::Argument(what));
        }
        let piece = self.vocabulary.piece(id);
        Ok(match self.vocabulary.kind(id) {
            Kind::Undefined | Kind::Unused => Cow::default(),
            Kind::Control | Kind::Unknown if !special => Cow::default(),
            Kind::Control | Kind::Unknown | Kind::UserDefined => Cow::Borrowed(piece),
            Kind::Byte => self.vocabulary.byte(id).map(|byte| Cow::Owned(vec![byte])).unwrap_or_default(),
            Kind::Normal => self.encoder.decode_piece(piece),
        })
    }

    /// Turns tokens into text as they come; the pieces join to [`decode`](Tokenizer::decode) of all.
    pub fn detokenizer(&self, special: bool) -> Detokenizer<&Tokenizer> {
        Detokenizer::new(self, special, self.drop_first_space)
    }

    /// Like [`detokenizer`](Tokenizer::detokenizer) for tokens that continue a text: a leading space is kept.
    pub fn continuation(&self, special: bool) -> Detokenizer<&Tokenizer> {
        Detokenizer::new(self, special, false)
    }

    /// Whether every id is the same token in both.
    pub fn same_vocabulary(&self, other: &Tokenizer) -> bool {
        self.vocab_size() == other.vocab_size()
            && (0..self.vocab_size() as u32).all(|id| self.token_text(id) == other.token_text(id))
    }

    /// Number of tokens; ids are below it.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.named.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.named.eos
    }

    /// The token for what the vocabulary cannot express.
    pub fn unknown(&self) -> Option<u32> {
        self.named.unknown
    }

    /// The token that fills batches.
    pub fn padding(&self) -> Option<u32> {
        self.named.padding
    }

    /// Whether a generation ends with `id`: the tokens that the file names as ends of text, turn or message, and pieces known to be
    /// such (`<|im_end|>`, `<end_of_turn>`, `</s>` …), as llama.cpp decides.
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.ends.binary_search(&id).is_ok()
    }

    /// All tokens that end a generation, in order.
    pub fn end_of_generation(&self) -> &[u32] {
        &self.ends
    }

    /// The token that begins a text of BERT: the one named so, or else [`bos`](Tokenizer::bos).
    pub fn class(&self) -> Option<u32> {
        self.named.class.or(self.named.bos)
    }

    /// The token between two texts, and behind the last one, of BERT.
    pub fn separator(&self) -> Option<u32> {
        self.named.separator
    }

    /// The token for what a model is to guess.
    pub fn mask(&self) -> Option<u32> {
        self.named.mask
    }

    /// Whether `id` is a control token, which a text does not show.
    pub fn is_control(&self, id: u32) -> bool {
        (id as usize) < self.vocab_size() && self.vocabulary.kind(id) == Kind::Control
    }

    /// Whether [`encode`](Tokenizer::encode) with `add_special` begins with [`bos`](Tokenizer::bos).
    pub fn add_bos(&self) -> bool {
        self.first.is_some()
    }

    /// Whether [`encode`](Tokenizer::encode) with `add_special` ends with [`eos`](Tokenizer::eos), or with
    /// [`separator`](Tokenizer::separator) for BERT.
    pub fn add_eos(&self) -> bool {
        self.last.is_some()
    }

    /// Whether a space is put in front of texts before they are encoded.
    pub fn add_space_prefix(&self) -> bool {
        self.add_space_prefix
    }

    /// The string of `id` as the vocabulary spells it (`Ġthe`, `▁the`, `<0x0A>`), bytes that are not UTF-8 replaced.
    pub fn token_text(&self, id: u32) -> Option<Cow<'_, str>> {
        ((id as usize) < self.vocab_size()).then(|| String::from_utf8_lossy(self.vocabulary.piece(id)))
    }

    /// The id of a string as the vocabulary spells it.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.vocabulary.id(text.as_bytes())
    }

    /// `llama-spm`, `bert-wordpiece`, `t5-unigram`, or `gpt2/` and the pre-tokenizer.
    pub fn kind(&self) -> &str {
        &self.kind
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("kind", &self.kind)
            .field("tokens", &self.vocab_size())
            .finish_non_exhaustive()
    }
}

/// The token that `key` asks for.
fn added(file: &Gguf, key: &str, token: Option<u32>, default: bool) -> Result<Option<u32>> {
    let id = key.replace("add_", "").replace("_token", "_token_id");
    match file.bool(key)? {
        Some(true) => special::needed(file, &id, token).map(Some),
        Some(false) => Ok(None),
        None => Ok(token.filter(|_| default)),
    }
}
