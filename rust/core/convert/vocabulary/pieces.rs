//! Pieces, scores and merges from `tokenizer.json` and the older files beside it.
//!
//! BPE whose pieces are bytes is byte-level (`gpt2`); BPE with `byte_fallback` is what was made of a SentencePiece model (`llama`). There
//! are no scores in it, but the order of the merges: a piece has the rank of the first merge that gives it as score, and merging by
//! score is then merging by rank, because all merges that give one piece follow each other.

use std::collections::{HashMap, HashSet};

use base64::Engine;
use serde_json::Value;

use super::{Files, Kind, MAX_FILE, Notes, Object, Tokens, Wanted, json, pre, unknown};
use crate::gguf::{Array, Quoted, model_error};
use crate::{Error, Result};

/// Ids are below this.
const MAX_ID: u64 = 1 << 24;

/// Reads `tokenizer.json`.
pub(super) fn read(file: &Object, wanted: &Wanted<'_>, notes: &mut Notes) -> Result<Tokens> {
    let model = file.object("model")?.ok_or_else(|| file.missing(&["model"], "a vocabulary"))?;
    // Files of the first versions do not say that they are BPE.
    match model.str("type")?.unwrap_or("BPE") {
        "BPE" if model.bool("byte_fallback")?.unwrap_or(false) || !pre::is_byte_level(file) => {
            marked(file, &model, notes)
        }
        "BPE" => byte_level(file, &model, wanted, notes),
        "WordPiece" => word_piece(file, &model),
        "Unigram" => unigram(file, &model),
        other => Err(unknown(file, "a model of type", other)),
    }
}

/// An id in a file.
fn id(file: &Object, piece: &str, value: &Value) -> Result<usize> {
    value.as_u64().filter(|id| *id < MAX_ID).map(|id| id as usize).ok_or_else(|| {
        let (piece, found) = (Quoted(piece), json::describe(value));
        file.error(format!("the id of {piece} must be an integer below {MAX_ID}, found {found}"))
    })
}

/// The pieces of a vocabulary of ids by piece.
fn vocabulary(file: &Object, model: &Object) -> Result<Vec<Option<(String, Kind)>>> {
    let vocab = model.object("vocab")?.ok_or_else(|| model.missing(&["vocab"], "ids by piece"))?;
    by_id(file, &vocab)
}

fn by_id(file: &Object, vocab: &Object) -> Result<Vec<Option<(String, Kind)>>> {
    let mut pieces: Vec<Option<(String, Kind)>> = Vec::new();
    for (piece, value) in &vocab.map {
        let id = id(file, piece, value)?;
        if pieces.len() <= id {
            pieces.resize(id + 1, None);
        }
        if let Some((other, _)) = pieces[id].replace((piece.clone(), Kind::Normal)) {
            let (a, b) = (Quoted(&other), Quoted(piece));
            return Err(file.error(format!("pieces must have an id of their own, found {a} and {b} with {id}")));
        }
    }
    Ok(pieces)
}

/// Two pieces that become one; spaces in them are spelled as byte-level BPE spells them.
fn merges(model: &Object) -> Result<Vec<(String, String)>> {
    let Some(items) = model.array("merges")? else { return Ok(Vec::new()) };
    let pair = |item: &Value| -> Option<(String, String)> {
        match item {
            Value::String(text) => {
                let (left, right) = text.split_once(' ')?;
                Some((left.to_owned(), right.to_owned()))
            }
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(left), Value::String(right)] => Some((left.clone(), right.clone())),
                _ => None,
            },
            _ => None,
        }
    };
    items
        .iter()
        .map(|item| {
            pair(item).ok_or_else(|| {
                model.wrong("merges", format_args!("must hold two pieces each, found {}", json::describe(item)))
            })
        })
        .collect()
}

fn byte_level(file: &Object, model: &Object, wanted: &Wanted<'_>, notes: &mut Notes) -> Result<Tokens> {
    if let Some(text) = pre::normalizer(file)? {
        notes.add(
            "tokenizer",
            format!("its normalizer {text} has no place in GGUF: texts that it would change have other tokens"),
        );
    }
    if pre::adds_space(file) {
        notes.add("tokenizer", "the space that it puts in front of a text has no place in GGUF".into());
    }
    let ignore = model.bool("ignore_merges")?.unwrap_or(false);
    let spelled = |piece: &str| piece.replace(' ', "\u{120}");
    let merges = merges(model)?;
    Ok(Tokens {
        model: "gpt2",
        pieces: vocabulary(file, model)?,
        scores: None,
        merges: Some(merges.iter().map(|(left, right)| format!("{} {}", spelled(left), spelled(right))).collect()),
        pre: match wanted.pre {
            Some(name) => pre::named(name)?.to_owned(),
            None => pre::derived(file, ignore, wanted.architecture)?.to_owned(),
        },
        space_prefix: None,
        more: Vec::new(),
    })
}

/// What was made of a SentencePiece model of type BPE.
fn marked(file: &Object, model: &Object, notes: &mut Notes) -> Result<Tokens> {
    let mut pieces = vocabulary(file, model)?;
    let mut scores = vec![None; pieces.len()];
    let ids: HashMap<&str, usize> = pieces
        .iter()
        .enumerate()
        .filter_map(|(id, piece)| piece.as_ref().map(|piece| (piece.0.as_str(), id)))
        .collect();
    let merges = merges(model)?;
    for (rank, (left, right)) in merges.iter().enumerate() {
        let whole = format!("{left}{right}");
        let id = ids.get(whole.as_str()).ok_or_else(|| {
            let (left, right) = (Quoted(left), Quoted(right));
            model.wrong("merges", format_args!("must give pieces of the vocabulary, found {left} and {right}"))
        })?;
        scores[*id].get_or_insert(-(rank as f32));
    }
    // What no merge gives is met last.
    let last = -(merges.len() as f32) - 1.0;
    let unknown_piece = model.str("unk_token")?;
    let added = file.array("added_tokens")?.into_iter().flatten();
    let added: HashSet<&str> = added.filter_map(|token| token.get("content")?.as_str()).collect();
    let mut unreachable = 0;
    for (piece, score) in pieces.iter_mut().zip(&scores) {
        let Some((text, kind)) = piece else { continue };
        if is_byte(text) {
            *kind = Kind::Byte;
        } else if unknown_piece == Some(text.as_str()) {
            *kind = Kind::Unknown;
        } else if score.is_none() && text.chars().count() > 1 && !added.contains(text.as_str()) {
            unreachable += 1;
        }
    }
    if unreachable > 0 && !merges.is_empty() {
        let what = format!(
            "{unreachable} pieces come of no merge; llama.cpp and fastq merge to them last, the original never"
        );
        notes.add("tokenizer", what);
    }
    Ok(Tokens {
        model: "llama",
        pieces,
        scores: Some(scores.into_iter().map(|score| score.unwrap_or(last)).collect()),
        merges: None,
        pre: "default".into(),
        space_prefix: Some(pre::marks_beginning(file)),
        more: Vec::new(),
    })
}

/// `<0xXX>`.
fn is_byte(piece: &str) -> bool {
    let digits = piece.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

fn word_piece(file: &Object, model: &Object) -> Result<Tokens> {
    if let Some(prefix) = model.str("continuing_subword_prefix")?.filter(|prefix| *prefix != "##") {
        return Err(unknown(file, "a prefix of continuing pieces of", prefix));
    }
    let mut more = Vec::new();
    if let Some(normalizer) = file.object("normalizer")?
        && normalizer.str("type")? == Some("BertNormalizer")
    {
        let lowercase = normalizer.bool("lowercase")?.unwrap_or(true);
        more.push(("normalizer.lowercase", lowercase.into()));
        if let Some(strip) = normalizer.bool("strip_accents")? {
            more.push(("normalizer.strip_accents", strip.into()));
        }
    }
    Ok(bert(vocabulary(file, model)?, model.str("unk_token")?.unwrap_or("[UNK]"), more))
}

/// `vocab.txt`: a piece per line.
pub(super) fn word_pieces(files: &Files<'_>, bytes: &[u8]) -> Result<Tokens> {
    let path = files.directory.join("vocab.txt");
    let text = std::str::from_utf8(bytes).map_err(|error| model_error(&path, format!("expected UTF-8: {error}")))?;
    let pieces =
        text.strip_suffix('\n').unwrap_or(text).split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let pieces = pieces.map(|piece| Some((piece.to_owned(), Kind::Normal))).collect();
    let lowercase = files.config.bool("do_lower_case")?.unwrap_or(true);
    let mut tokens = bert(pieces, "[UNK]", vec![("normalizer.lowercase", lowercase.into())]);
    if let Some(strip) = files.config.bool("strip_accents")? {
        tokens.more.push(("normalizer.strip_accents", strip.into()));
    }
    Ok(tokens)
}

fn bert(
    mut pieces: Vec<Option<(String, Kind)>>,
    unknown: &str,
    more: Vec<(&'static str, crate::gguf::Value)>,
) -> Tokens {
    for (piece, kind) in pieces.iter_mut().flatten() {
        // Control tokens, all of them, in every file that others have converted.
        if piece == unknown || ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].contains(&piece.as_str()) {
            *kind = Kind::Control;
        }
    }
    Tokens { model: "bert", pieces, scores: None, merges: None, pre: "jina-v2-en".into(), space_prefix: None, more }
}

fn unigram(file: &Object, model: &Object) -> Result<Tokens> {
    let items = model.array("vocab")?.ok_or_else(|| model.missing(&["vocab"], "pieces with scores"))?;
    let unk = model.u32("unk_id")?;
    let (mut pieces, mut scores) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
    for (id, item) in items.iter().enumerate() {
        let pair = item.as_array().map(Vec::as_slice);
        let Some([Value::String(piece), score]) = pair else {
            return Err(
                model.wrong("vocab", format_args!("must hold pieces with scores, found {}", json::describe(item)))
            );
        };
        let score = score.as_f64().map(|score| score as f32).filter(|score| score.is_finite());
        let score = score.ok_or_else(|| model.wrong("vocab", format_args!("must have a finite score at {id}")))?;
        let kind = match unk == Some(id as u32) {
            true => Kind::Unknown,
            false if model.bool("byte_fallback")?.unwrap_or(false) && is_byte(piece) => Kind::Byte,
            false => Kind::Normal,
        };
        pieces.push(Some((piece.clone(), kind)));
        scores.push(score);
    }
    let mut more = vec![("remove_extra_whitespaces", pre::removes_spaces(file).into())];
    if let Some(map) = pre::charsmap(file) {
        let map = base64::engine::general_purpose::STANDARD
            .decode(map)
            .map_err(|error| file.error(format!("key \"normalizer.precompiled_charsmap\" must be base64: {error}")))?;
        more.push(("precompiled_charsmap", Array::from(map.as_slice()).into()));
    }
    Ok(Tokens {
        model: "t5",
        pieces,
        scores: Some(scores),
        merges: None,
        pre: "default".into(),
        space_prefix: Some(pre::marks_beginning(file)),
        more,
    })
}

/// `vocab.json` and `merges.txt`, which do not say how words are cut.
pub(super) fn byte_pairs(files: &Files<'_>, wanted: &Wanted<'_>) -> Result<Tokens> {
    let path = files.directory.join("vocab.json");
    let vocab = Object::open(&path, MAX_FILE)?.unwrap_or_else(|| Object::empty(&path));
    let path = files.directory.join("merges.txt");
    let bytes = json::read(&path, MAX_FILE)?.unwrap_or_default();
    let text = String::from_utf8(bytes).map_err(|error| model_error(&path, format!("expected UTF-8: {error}")))?;
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with("#version"));
    let Some(pre) = wanted.pre else {
        return Err(Error::Tokenizer(format!(
            "{}: vocab.json and merges.txt do not say how words are cut: name it (pre=, --pre), \"gpt-2\" for GPT-2's own",
            files.directory.display()
        )));
    };
    Ok(Tokens {
        model: "gpt2",
        pieces: by_id(&vocab, &vocab)?,
        scores: None,
        merges: Some(lines.map(str::to_owned).collect()),
        pre: pre::named(pre)?.to_owned(),
        space_prefix: None,
        more: Vec::new(),
    })
}

/// Adds the tokens that were added to the vocabulary later.
pub(super) fn add(files: &Files<'_>, tokens: &mut Tokens, notes: &mut Notes) -> Result<()> {
    let mut added: Vec<(usize, String, bool)> = Vec::new();
    let path = files.directory.join("added_tokens.json");
    if let Some(file) = Object::open(&path, MAX_FILE)? {
        for (piece, value) in &file.map {
            added.push((id(&file, piece, value)?, piece.clone(), false));
        }
    }
    if let Some(decoder) = files.config.object("added_tokens_decoder")? {
        for number in decoder.map.keys() {
            let token = decoder.object(number)?.ok_or_else(|| decoder.missing(&[number], "a token"))?;
            let piece = token.str("content")?.ok_or_else(|| token.missing(&["content"], "a string"))?;
            let value = number.parse::<u64>().map_or(Value::Null, Value::from);
            added.push((id(&decoder, piece, &value)?, piece.to_owned(), token.bool("special")?.unwrap_or(false)));
        }
    }
    if let Some(file) = &files.tokenizer
        && let Some(items) = file.array("added_tokens")?
    {
        for item in items {
            let wrong = || file.wrong("added_tokens", format_args!("must hold tokens, found {}", json::describe(item)));
            let piece = item.get("content").and_then(Value::as_str).ok_or_else(wrong)?;
            let id = id(file, piece, item.get("id").unwrap_or(&Value::Null))?;
            added.push((id, piece.to_owned(), item.get("special").and_then(Value::as_bool).unwrap_or(false)));
        }
    }
    let mut replaced = 0;
    for (id, piece, special) in added {
        let old = tokens.pieces.get(id).cloned().flatten();
        replaced += usize::from(old.as_ref().is_some_and(|(old, _)| *old != piece));
        // Tokens that steer a model are often declared to be text.
        let kind = match old {
            Some((_, kind @ (Kind::Unknown | Kind::Byte))) => kind,
            _ if special || looks_special(&piece) => Kind::Control,
            Some((_, Kind::Control)) => Kind::Control,
            _ => Kind::UserDefined,
        };
        let marked = matches!(tokens.model, "llama" | "t5") && kind == Kind::UserDefined;
        let piece = if marked { piece.replace('\u{2581}', " ") } else { piece };
        tokens.set(id, &piece, kind);
        if let Some(scores) = &mut tokens.scores {
            scores.resize(tokens.pieces.len(), -1000.0);
        }
    }
    if replaced > 0 {
        notes.add("tokenizer", format!("{replaced} added tokens take the place of others"));
    }
    Ok(())
}

/// Spelled as what steers a model.
fn looks_special(piece: &str) -> bool {
    let between =
        |start: &str, end: &str| piece.len() > start.len() && piece.starts_with(start) && piece.ends_with(end);
    ["<pad>", "<mask>", "<2mass>", "[@BOS@]"].contains(&piece)
        || between("<|", "|>")
        || between("<｜", "｜>")
        || between("<unused", ">")
}
