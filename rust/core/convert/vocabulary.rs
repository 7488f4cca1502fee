//! The tokenizer of a checkpoint as GGUF has it.
//!
//! `tokenizer.model` (SentencePiece) goes before `tokenizer.json`, because it has the scores themselves; `vocab.txt` is WordPiece and
//! `vocab.json` with `merges.txt` byte-level BPE of those that have nothing else. What was added later is in `tokenizer.json`,
//! `tokenizer_config.json` or `added_tokens.json`. The rows of the embedding decide how many tokens there are.

use std::collections::HashMap;
use std::path::Path;

use crate::gguf::{Array, Quoted, Value};
use crate::{Error, Result};

use super::Notes;
use super::json::{self, Object};

mod pieces;
mod pre;
mod sentencepiece;
mod special;

/// Largest `tokenizer.json`; that of Gemma 3 has 33 MB.
const MAX_TOKENIZER: u64 = 256 << 20;
/// Largest of the other files.
const MAX_FILE: u64 = 16 << 20;
/// Most rows of an embedding, which are tokens.
const MAX_TOKENS: usize = 1 << 24;

/// `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// What is known of the tokens before the keys are written.
struct Tokens {
    /// `tokenizer.ggml.model`.
    model: &'static str,
    /// Pieces by id; `None` where an id has none.
    pieces: Vec<Option<(String, Kind)>>,
    scores: Option<Vec<f32>>,
    merges: Option<Vec<String>>,
    /// `tokenizer.ggml.pre`.
    pre: String,
    space_prefix: Option<bool>,
    /// Further keys, without `tokenizer.ggml.`.
    more: Vec<(&'static str, Value)>,
}

impl Tokens {
    fn set(&mut self, id: usize, piece: &str, kind: Kind) {
        if self.pieces.len() <= id {
            self.pieces.resize(id + 1, None);
        }
        self.pieces[id] = Some((piece.to_owned(), kind));
    }
}

/// The files about the tokenizer.
struct Files<'a> {
    directory: &'a Path,
    /// `tokenizer.json`.
    tokenizer: Option<Object>,
    /// `tokenizer_config.json`.
    config: Object,
    /// `special_tokens_map.json`.
    map: Object,
    /// `generation_config.json`.
    generation: Object,
    /// `config.json`.
    model: &'a Object,
}

/// What the tokenizer is for.
pub(super) struct Wanted<'a> {
    /// Rows of the embedding.
    pub(super) rows: usize,
    /// `tokenizer.ggml.pre`, when the caller knows it.
    pub(super) pre: Option<&'a str>,
    /// The architecture in GGUF.
    pub(super) architecture: &'a str,
    /// `config.json`, with what is nested in it for text.
    pub(super) config: &'a Object,
}

/// The keys `tokenizer.*`, in order.
pub(super) fn keys(directory: &Path, wanted: &Wanted<'_>, notes: &mut Notes) -> Result<Vec<(String, Value)>> {
    let optional = |name: &str| -> Result<Object> {
        let path = directory.join(name);
        Ok(Object::open(&path, MAX_FILE)?.unwrap_or_else(|| Object::empty(&path)))
    };
    let files = Files {
        directory,
        tokenizer: Object::open(&directory.join("tokenizer.json"), MAX_TOKENIZER)?,
        config: optional("tokenizer_config.json")?,
        map: optional("special_tokens_map.json")?,
        generation: optional("generation_config.json")?,
        model: wanted.config,
    };
    if wanted.rows > MAX_TOKENS {
        let found = wanted.rows;
        return Err(wanted.config.error(format!("the embedding must have at most {MAX_TOKENS} rows, found {found}")));
    }
    let mut tokens = read(&files, wanted, notes)?;
    pieces::add(&files, &mut tokens, notes)?;
    let ids: HashMap<String, u32> = tokens
        .pieces
        .iter()
        .enumerate()
        .filter_map(|(id, piece)| piece.as_ref().map(|(text, _)| (text.clone(), id as u32)))
        .collect();
    let mut special = special::Special::find(&files, &ids)?;
    special.within(wanted.rows as u32, notes);
    fit(&mut tokens, wanted.rows, notes);
    write(tokens, &files, special)
}

/// Reads the vocabulary from the best file there is.
fn read(files: &Files<'_>, wanted: &Wanted<'_>, notes: &mut Notes) -> Result<Tokens> {
    let path = files.directory.join("tokenizer.model");
    if let Some(bytes) = json::read(&path, MAX_TOKENIZER)? {
        return sentencepiece::read(&path, &bytes, files);
    }
    if let Some(tokenizer) = &files.tokenizer {
        return pieces::read(tokenizer, wanted, notes);
    }
    if let Some(bytes) = json::read(&files.directory.join("vocab.txt"), MAX_FILE)? {
        return pieces::word_pieces(files, &bytes);
    }
    if files.directory.join("vocab.json").exists() && files.directory.join("merges.txt").exists() {
        return pieces::byte_pairs(files, wanted);
    }
    let tekken = match files.directory.join("tekken.json").exists() {
        true => "tekken.json only: use the version of the model for transformers",
        false => "none of them",
    };
    Err(Error::Tokenizer(format!(
        "{}: expected tokenizer.json, tokenizer.model, vocab.txt, or vocab.json and merges.txt; found {tekken}",
        files.directory.display()
    )))
}

/// Makes as many tokens as the embedding has rows.
fn fit(tokens: &mut Tokens, rows: usize, notes: &mut Notes) {
    if tokens.pieces.len() > rows {
        let more = tokens.pieces.len() - rows;
        notes.add("vocabulary", format!("{more} tokens have no row in the embedding and are left out"));
        tokens.pieces.truncate(rows);
    }
    tokens.pieces.resize(rows, None);
    if let Some(scores) = &mut tokens.scores {
        scores.resize(rows, -10_000.0);
    }
}

/// Writes the keys.
fn write(tokens: Tokens, files: &Files<'_>, special: special::Special) -> Result<Vec<(String, Value)>> {
    let count = tokens.pieces.len();
    let taken: std::collections::HashSet<String> =
        tokens.pieces.iter().flatten().map(|(piece, _)| piece.clone()).collect();
    let (mut pieces, mut types) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for (id, piece) in tokens.pieces.into_iter().enumerate() {
        let (piece, kind) = piece.unwrap_or_else(|| {
            let mut free = format!("[PAD{id}]");
            while taken.contains(&free) {
                free.push('_');
            }
            (free, Kind::Unused)
        });
        pieces.push(if tokens.model == "bert" { phantom(piece, kind) } else { piece });
        types.push(kind as i32);
    }
    let mut keys: Vec<(String, Value)> = Vec::new();
    let mut key = |name: &str, value: Value| keys.push((format!("tokenizer.ggml.{name}"), value));
    key("model", tokens.model.into());
    key("pre", tokens.pre.as_str().into());
    key("tokens", Array::from_strings(&pieces).into());
    key("token_type", Array::from(types.as_slice()).into());
    if let Some(scores) = &tokens.scores {
        key("scores", Array::from(scores.as_slice()).into());
    }
    if let Some(merges) = &tokens.merges {
        key("merges", Array::from_strings(merges).into());
    }
    for (name, id) in special.ids() {
        key(name, id.into());
    }
    for (name, flag) in special.flags() {
        key(name, flag.into());
    }
    if let Some(flag) = tokens.space_prefix {
        key("add_space_prefix", flag.into());
    }
    for (name, value) in tokens.more {
        key(name, value);
    }
    for (name, template) in special::templates(files)? {
        let name = if name == "default" { String::new() } else { format!(".{name}") };
        keys.push((format!("tokenizer.chat_template{name}"), template.as_str().into()));
    }
    Ok(keys)
}

/// WordPiece as GGUF has it: what begins a word is marked, not what continues one.
fn phantom(piece: String, kind: Kind) -> String {
    match piece.strip_prefix("##") {
        _ if matches!(kind, Kind::Control | Kind::Unused) => piece,
        Some(end) => end.to_owned(),
        None => format!("\u{2581}{piece}"),
    }
}

/// The error for a value of `tokenizer.json` that GGUF has no word for.
fn unknown(file: &Object, what: &str, found: &str) -> Error {
    Error::Tokenizer(format!("{}: {what} {} is not supported", file.path.display(), Quoted(found)))
}
