//! Tokenizers from GGUF metadata: text to tokens and back.
//!
//! Two kinds, told apart by `tokenizer.ggml.model`: `gpt2` (byte-level BPE, cut into words by the pre-tokenizer that
//! `tokenizer.ggml.pre` names) and `llama` (SentencePiece BPE with byte fallback: Llama 2, Gemma). Everything is validated when a
//! file is opened; the encoder is built when it is first used. Tokens are those of llama.cpp for the same file.

use std::borrow::Cow;
use std::sync::OnceLock;

use crate::gguf::Gguf;
use crate::{Error, Interrupt, Result};

mod bpe;
mod chain;
mod detokenize;
mod pretokenize;
mod special;
mod spm;
mod vocabulary;

pub use detokenize::Detokenizer;

use bpe::{Bpe, MergeList};
use pretokenize::PreTokenizer;
use special::{Finder, Part};
use spm::{Fallback, Neighbours};
use vocabulary::{Kind, Vocabulary};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
const ADD_SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";

/// Phi-3 drops white space after its special tokens, except after these.
const PHI3_KEEPS_SPACE: &[&str] = &["<unk>", "<s>", "<|endoftext|>"];

/// The tokenizer of a model. Used from any number of threads at once.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    kind: String,
    encoder: Encoder,
    /// Finds special tokens without and with `parse_special`.
    finders: [OnceLock<Result<Finder, String>>; 2],
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
    padding: Option<u32>,
    /// Sorted.
    ends: Vec<u32>,
    add_bos: bool,
    add_eos: bool,
    add_space_prefix: bool,
    strip_after_special: bool,
}

enum Encoder {
    Bpe { pre: &'static PreTokenizer, merges: MergeList, built: Box<OnceLock<Result<Bpe, String>>> },
    Spm { fallback: Fallback, neighbours: OnceLock<Neighbours> },
}

impl Tokenizer {
    /// Reads and validates the vocabulary of `file`.
    ///
    /// # Errors
    /// [`Error::UnsupportedModel`] for a tokenizer or pre-tokenizer that is not known; [`Error::ModelFile`] naming the key when
    /// something is missing, has a wrong type or length, or does not fit the rest.
    pub fn from_gguf(file: &Gguf) -> Result<Tokenizer> {
        let Some(model) = file.str(MODEL)? else {
            return Err(file.error(format!("key `{MODEL}` is missing: the file has no tokenizer")));
        };
        let spm = match model {
            "llama" => true,
            "gpt2" => false,
            other => {
                let what = format!(
                    "{}: key `{MODEL}` must be \"llama\" or \"gpt2\" for this version, found {other:?}",
                    file.path().display()
                );
                return Err(Error::UnsupportedModel(what));
            }
        };
        let mut vocabulary = Vocabulary::from_gguf(file)?;
        let id = |name: &str, default: Option<u32>, vocabulary: &Vocabulary| {
            let key = format!("tokenizer.ggml.{name}_token_id");
            let default = default.filter(|id| spm && (*id as usize) < vocabulary.len() && file.get(&key).is_none());
            Ok::<_, Error>(special::id(file, &key, vocabulary)?.or(default))
        };
        // The defaults of SentencePiece.
        let bos = id("bos", Some(1), &vocabulary)?;
        let eos = id("eos", Some(2), &vocabulary)?;
        let unknown = id("unknown", Some(0), &vocabulary)?;
        let padding = id("padding", None, &vocabulary)?;
        let ends = special::end_of_generation(file, &mut vocabulary, eos)?;

        let (encoder, kind, add_bos_default) = if spm {
            let fallback = Fallback::new(&vocabulary, unknown);
            (Encoder::Spm { fallback, neighbours: OnceLock::new() }, "llama-spm".to_owned(), true)
        } else {
            let name = file.str(PRE)?.unwrap_or("default");
            let Some(pre) = PreTokenizer::named(name) else {
                let known: Vec<_> = PreTokenizer::names().collect();
                let path = file.path().display();
                let what = format!("{path}: key `{PRE}` must be one of {}, found {name:?}", known.join(" "));
                return Err(Error::UnsupportedModel(what));
            };
            let merges = bpe::merges(file, &vocabulary)?;
            (Encoder::Bpe { pre, merges, built: Box::default() }, format!("gpt2/{name}"), pre.add_bos)
        };
        let name = file.bytes("general.name").ok().flatten().unwrap_or_default().to_ascii_lowercase();
        let phi3 =
            |name: &[u8]| name.windows(4).any(|part| part == b"phi3") || name.windows(5).any(|part| part == b"phi-3");
        Ok(Tokenizer {
            add_bos: add(file, ADD_BOS, bos, add_bos_default && bos.is_some())?,
            add_eos: add(file, ADD_EOS, eos, false)?,
            add_space_prefix: file.bool(ADD_SPACE_PREFIX)?.unwrap_or(spm),
            strip_after_special: phi3(&name),
            finders: Default::default(),
            vocabulary,
            kind,
            encoder,
            bos,
            eos,
            unknown,
            padding,
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
        ids.extend(self.bos.filter(|_| add_special && self.add_bos));
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
                        self.encode_text(text, after_special, &mut ids, interrupt)?;
                        after_special = false;
                    }
                }
            }
            Ok(())
        })?;
        ids.extend(self.eos.filter(|_| add_special && self.add_eos));
        Ok(ids)
    }

    /// Appends the tokens of a text without special tokens.
    fn encode_text(
        &self,
        text: &str,
        after_special: bool,
        ids: &mut Vec<u32>,
        interrupt: &dyn Interrupt,
    ) -> Result<()> {
        match &self.encoder {
            Encoder::Spm { fallback, neighbours } => {
                let prefix = if self.add_space_prefix && after_special { spm::SPACE } else { "" };
                let mut escaped = String::with_capacity(prefix.len() + text.len() + text.len() / 2);
                escaped.push_str(prefix);
                for (index, word) in text.split(' ').enumerate() {
                    escaped.push_str(if index == 0 { "" } else { spm::SPACE });
                    escaped.push_str(word);
                }
                spm::encode(&self.vocabulary, neighbours, fallback, &escaped, ids, interrupt)
            }
            Encoder::Bpe { pre, merges, built } => {
                let build = || Bpe::new(&self.vocabulary, merges, pre).map_err(|error| error.to_string());
                let bpe = built.get_or_init(build).as_ref().map_err(|error| Error::Tokenizer(error.clone()))?;
                bpe.encode(&self.vocabulary, text, ids, interrupt)
            }
        }
    }

    fn finder(&self, parse_special: bool) -> Result<&Finder> {
        let build = || Finder::new(&self.vocabulary, parse_special).map_err(|error| error.to_string());
        self.finders[usize::from(parse_special)]
            .get_or_init(build)
            .as_ref()
            .map_err(|error| Error::Tokenizer(error.clone()))
    }

    /// The text of a whole sequence of tokens. Control and unknown tokens are shown only with `special`. Bytes that are not UTF-8
    /// become U+FFFD. The space that encoding puts in front of a text (where the file asks for one) is taken off.
    ///
    /// # Errors
    /// [`Error::Argument`] when an id is not in the vocabulary.
    pub fn decode(&self, ids: &[u32], special: bool) -> Result<String> {
        let mut bytes = Vec::new();
        let mut at_start = self.add_space_prefix;
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
        Ok(match (self.vocabulary.kind(id), &self.encoder) {
            (Kind::Undefined | Kind::Unused, _) => Cow::default(),
            (Kind::Control | Kind::Unknown, _) if !special => Cow::default(),
            (Kind::Control | Kind::Unknown | Kind::UserDefined, _) => Cow::Borrowed(piece),
            (Kind::Byte, _) => self.vocabulary.byte(id).map(|byte| Cow::Owned(vec![byte])).unwrap_or_default(),
            (Kind::Normal, Encoder::Bpe { .. }) => Cow::Owned(bpe::decode_piece(piece)),
            (Kind::Normal, Encoder::Spm { .. }) => spm::decode_piece(piece),
        })
    }

    /// Turns tokens into text as they come; the pieces join to [`decode`](Tokenizer::decode) of all.
    pub fn detokenizer(&self, special: bool) -> Detokenizer<&Tokenizer> {
        Detokenizer::new(self, special, self.add_space_prefix)
    }

    /// Like [`detokenizer`](Tokenizer::detokenizer) for tokens that continue a text: a leading space is kept.
    pub fn continuation(&self, special: bool) -> Detokenizer<&Tokenizer> {
        Detokenizer::new(self, special, false)
    }

    /// Number of tokens; ids are below it.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The token for what the vocabulary cannot express.
    pub fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    /// The token that fills batches.
    pub fn padding(&self) -> Option<u32> {
        self.padding
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

    /// Whether `id` is a control token, which a text does not show.
    pub fn is_control(&self, id: u32) -> bool {
        (id as usize) < self.vocab_size() && self.vocabulary.kind(id) == Kind::Control
    }

    /// Whether [`encode`](Tokenizer::encode) with `add_special` begins with [`bos`](Tokenizer::bos).
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// Whether [`encode`](Tokenizer::encode) with `add_special` ends with [`eos`](Tokenizer::eos).
    pub fn add_eos(&self) -> bool {
        self.add_eos
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

    /// `llama-spm`, or `gpt2/` and the pre-tokenizer.
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

/// A flag that needs a token.
fn add(file: &Gguf, key: &str, token: Option<u32>, default: bool) -> Result<bool> {
    let add = file.bool(key)?.unwrap_or(default);
    if add && token.is_none() {
        let id = key.replace("add_", "").replace("_token", "_token_id");
        return Err(file.key_error(key, format!("key `{key}` is true, so key `{id}` must name a token, found none")));
    }
    Ok(add)
}
