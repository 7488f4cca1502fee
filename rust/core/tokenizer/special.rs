//! Tokens with a meaning: which end a generation, and which are found in a text before the rest of it is encoded.

use aho_corasick::{AhoCorasick, MatchKind};

use super::vocabulary::{Kind, TOKENS, Vocabulary};
use crate::gguf::Gguf;
use crate::{Error, Result};

/// Pieces that end a generation in every model that has them, as llama.cpp decides.
#[rustfmt::skip]
const ENDS: &[&str] = &[
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>", "<|endoftext|>",
    "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>",
    "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[",
];

/// Tokens that separate files in code models, by key and by piece (the first that the vocabulary has): going past one means that
/// the model has left the text it was asked to fill in.
const FILE_ENDS: &[(&str, &[&str])] = &[
    ("tokenizer.ggml.fim_pad_token_id", &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"]),
    ("tokenizer.ggml.fim_rep_token_id", &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"]),
    ("tokenizer.ggml.fim_sep_token_id", &["<|file_sep|>"]),
];

/// Pieces that files often declare as text, although they steer the model.
#[rustfmt::skip]
const FILL_IN: &[&[&str]] = &[
    &["<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>", "<|prefix|>"],
    &["<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>", "<|suffix|>"],
    &["<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>", "<|middle|>"],
];

/// Structure of an answer of gpt-oss, which a caller must see.
const SHOWN: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

pub(super) const BOS: &str = "tokenizer.ggml.bos_token_id";
pub(super) const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
/// Spelled so in every file.
pub(super) const SEPARATOR: &str = "tokenizer.ggml.seperator_token_id";

/// The tokens that a file names by key.
#[derive(Clone, Copy)]
pub(super) struct Named {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) unknown: Option<u32>,
    pub(super) padding: Option<u32>,
    pub(super) class: Option<u32>,
    pub(super) separator: Option<u32>,
    pub(super) mask: Option<u32>,
}

impl Named {
    pub(super) const NONE: Named =
        Named { bos: None, eos: None, unknown: None, padding: None, class: None, separator: None, mask: None };

    /// Those of `file`, or the default where it has no such key and the vocabulary such a token.
    pub(super) fn from_gguf(file: &Gguf, vocabulary: &Vocabulary, defaults: &Named) -> Result<Named> {
        let named = |key: &str, default: Option<u32>| match file.get(key) {
            Some(_) => id(file, key, vocabulary),
            None => Ok(default.filter(|id| (*id as usize) < vocabulary.len())),
        };
        Ok(Named {
            bos: named(BOS, defaults.bos)?,
            eos: named("tokenizer.ggml.eos_token_id", defaults.eos)?,
            unknown: named(UNKNOWN, defaults.unknown)?,
            padding: named("tokenizer.ggml.padding_token_id", defaults.padding)?,
            class: named("tokenizer.ggml.cls_token_id", defaults.class)?,
            separator: named(SEPARATOR, defaults.separator)?,
            mask: named("tokenizer.ggml.mask_token_id", defaults.mask)?,
        })
    }
}

/// The token under `key`, which this file cannot do without.
pub(super) fn needed(file: &Gguf, key: &str, token: Option<u32>) -> Result<u32> {
    token.ok_or_else(|| file.key_error(key, format!("key `{key}` must name a token, which texts need, found none")))
}

/// The id under `key`; `None` also for -1, which converters write for "none".
pub(super) fn id(file: &Gguf, key: &str, vocabulary: &Vocabulary) -> Result<Option<u32>> {
    match file.i64(key)? {
        None | Some(-1) => Ok(None),
        Some(id) if id == i64::from(u32::MAX) => Ok(None),
        Some(id) => match u32::try_from(id) {
            Ok(id) if (id as usize) < vocabulary.len() => Ok(Some(id)),
            _ => {
                let what =
                    format!("key `{key}` must be below the {} tokens of the vocabulary, found {id}", vocabulary.len());
                Err(file.key_error(key, what))
            }
        },
    }
}

/// The tokens that end a generation, in order. Declares them control tokens, whatever the file says.
pub(super) fn end_of_generation(file: &Gguf, vocabulary: &mut Vocabulary, eos: Option<u32>) -> Result<Vec<u32>> {
    let eot = id(file, "tokenizer.ggml.eot_token_id", vocabulary)?;
    let eom = id(file, "tokenizer.ggml.eom_token_id", vocabulary)?;
    let mut ends: Vec<u32> = Vec::new();
    for (key, pieces) in FILE_ENDS {
        let declared = id(file, key, vocabulary)?;
        ends.extend(declared.or_else(|| control(vocabulary, pieces)));
    }
    for pieces in FILL_IN {
        control(vocabulary, pieces);
    }
    for piece in ENDS {
        ends.extend(control(vocabulary, &[piece]));
    }
    for piece in SHOWN {
        if let Some(id) = vocabulary.id(piece.as_bytes()) {
            vocabulary.set_kind(id, Kind::UserDefined);
        }
    }
    ends.extend([eos, eot, eom].into_iter().flatten());
    // In gpt-oss and Solar `<|end|>` only ends a part of the answer; in Gemma 4 `</s>` is a tag of HTML.
    let has = |piece: &str| vocabulary.id(piece.as_bytes()).filter(|id| ends.contains(id));
    let call = has("<|call|>").or(has("<|calls|>"));
    let part = has("<|end|>").filter(|_| call.is_some() && (has("<|return|>").is_some() || has("<|flush|>").is_some()));
    let tag = has("</s>").filter(|_| has("<|tool_response>").is_some());
    if let Some(id) = part {
        vocabulary.set_kind(id, Kind::UserDefined);
    }
    if let Some(id) = tag {
        vocabulary.set_kind(id, Kind::Normal);
    }
    ends.retain(|id| Some(*id) != part && Some(*id) != tag);
    ends.sort_unstable();
    ends.dedup();
    Ok(ends)
}

/// Declares the first of `pieces` that exists a control token.
fn control(vocabulary: &mut Vocabulary, pieces: &[&str]) -> Option<u32> {
    let id = pieces.iter().find_map(|piece| vocabulary.id(piece.as_bytes()))?;
    vocabulary.set_kind(id, Kind::Control);
    Some(id)
}

/// Longest special token, in bytes. Building the automaton takes time that grows with the square of a repetitive piece.
const MAX_SPECIAL: usize = 256;
/// All special tokens together, in bytes; Gemma 3 has 6,400 with 75,000. The automaton takes some 30 times that.
const MAX_SPECIAL_TOTAL: usize = 2 << 20;

/// Finds special tokens in a text: of those that start first the longest.
pub(super) struct Finder {
    automaton: AhoCorasick,
    ids: Vec<u32>,
}

impl Finder {
    /// User-defined tokens are always found; control and unknown tokens only with `parse_special`, so that a text from outside
    /// cannot steer the model.
    pub(super) fn new(vocabulary: &Vocabulary, parse_special: bool) -> Result<Finder> {
        let wanted = |id: u32| match vocabulary.kind(id) {
            Kind::UserDefined => true,
            Kind::Control | Kind::Unknown => parse_special,
            Kind::Undefined | Kind::Normal | Kind::Unused | Kind::Byte => false,
        };
        // A piece that is not UTF-8 could match inside a character.
        let text = |id: &u32| !vocabulary.piece(*id).is_empty() && std::str::from_utf8(vocabulary.piece(*id)).is_ok();
        let ids: Vec<u32> = (0..vocabulary.len() as u32).filter(|id| wanted(*id)).filter(text).collect();
        let mut total = 0;
        for id in &ids {
            let length = vocabulary.piece(*id).len();
            total += length;
            if length > MAX_SPECIAL || total > MAX_SPECIAL_TOTAL {
                let what = format!(
                    "special tokens must have at most {MAX_SPECIAL} bytes, and {MAX_SPECIAL_TOTAL} together, found {length} and {total} at token {id} of key `{TOKENS}`"
                );
                return Err(Error::Tokenizer(what));
            }
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(ids.iter().map(|id| vocabulary.piece(*id)))
            .map_err(|error| Error::Tokenizer(format!("the special tokens of the vocabulary are too many: {error}")))?;
        Ok(Finder { automaton, ids })
    }

    /// Gives the parts of `text` in order: text between special tokens, never empty, and the tokens themselves.
    pub(super) fn parts<'t>(&self, text: &'t str, part: &mut dyn FnMut(Part<'t>) -> Result<()>) -> Result<()> {
        let mut start = 0;
        for found in self.automaton.find_iter(text) {
            if start < found.start() {
                part(Part::Text(&text[start..found.start()]))?;
            }
            part(Part::Token(self.ids[found.pattern().as_usize()]))?;
            start = found.end();
        }
        if start < text.len() { part(Part::Text(&text[start..])) } else { Ok(()) }
    }
}

/// A part of a text.
pub(super) enum Part<'t> {
    /// To be encoded.
    Text(&'t str),
    /// A special token.
    Token(u32),
}
