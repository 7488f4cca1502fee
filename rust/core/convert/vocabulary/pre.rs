//! How `tokenizer.json` says that words are cut, and what GGUF calls that.
//!
//! GGUF has names. llama.cpp's converter finds them by a hash of what a tokenizer makes of a text, one for every vocabulary; here
//! they follow from the structure: the steps of the pre-tokenizer and their expressions.

use serde_json::Value;

use super::Object;
use crate::gguf::Quoted;
use crate::tokenizer::pre_tokenizer_names;
use crate::{Error, Result};

/// Contractions, in the ways they are written.
const CONTRACTIONS: &[&str] = &[
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])",
    "'(?i:[sdmt]|ll|ve|re)",
];

/// What stands for [`CONTRACTIONS`] below.
const C: &str = "CONTRACTION";

/// A structure that has a name.
struct Known {
    /// The steps, as [`steps`] writes them.
    steps: &'static [&'static str],
    /// Whether words of the vocabulary are tokens whatever the merges say; `None` where that makes no difference to the name.
    ignore_merges: Option<bool>,
    /// Names for some architectures.
    by_architecture: &'static [(&'static str, &'static str)],
    /// The name for all others.
    name: &'static str,
}

const fn known(steps: &'static [&'static str], name: &'static str) -> Known {
    Known { steps, ignore_merges: None, by_architecture: &[], name }
}

const GPT2: &str = r"split:'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str =
    r"split:CONTRACTION|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"split:CONTRACTION|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK3: &str = r##"split:[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;

/// Where two have the same steps, the first that fits counts.
const KNOWN: &[Known] = &[
    Known { by_architecture: &[("phi2", "phi-2"), ("olmoe", "olmo")], ..known(&[GPT2], "gpt-2") },
    Known {
        by_architecture: &[("granite", "refact"), ("granitemoe", "refact")],
        ..known(&["digits:1", GPT2], "smollm")
    },
    Known { ignore_merges: Some(true), by_architecture: &[("lfm2", "lfm2")], ..known(&[LLAMA3], "llama-bpe") },
    known(&[LLAMA3], "dbrx"),
    Known { by_architecture: &[("stablelm", "stablelm2")], ..known(&[QWEN2], "qwen2") },
    known(
        &[
            r"split:CONTRACTION|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        "qwen35",
    ),
    known(
        &[concat!(
            r"split:[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+CONTRACTION?",
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*CONTRACTION?",
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        "gpt-4o",
    ),
    known(
        &[concat!(
            r"split:[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
            r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        "tekken",
    ),
    known(&[r"split:\p{N}{1,3}", "split:[一-龥\u{3040}-ゟ゠-ヿ]+", DEEPSEEK3], "deepseek-v3"),
    known(&["punctuation:Contiguous", GPT2, "digits:all", "split:[0-9][0-9][0-9]"], "falcon"),
    known(&[r"split: ?[^(\s|[.,!?…。，、।۔،])]+"], "bloom"),
];

/// The name that a caller has given, if it is one.
pub(super) fn named(name: &str) -> Result<&str> {
    match pre_tokenizer_names().any(|known| known == name) {
        true => Ok(name),
        false => Err(Error::Argument(format!("pre must be one of {}, found {name:?}", names()))),
    }
}

fn names() -> String {
    pre_tokenizer_names().collect::<Vec<_>>().join(", ")
}

/// The name of what the file describes.
pub(super) fn derived(file: &Object, ignore_merges: bool, architecture: &str) -> Result<&'static str> {
    let steps = steps(file)?;
    let fits =
        |known: &&Known| known.steps == steps && known.ignore_merges.is_none_or(|wanted| wanted == ignore_merges);
    match KNOWN.iter().find(fits) {
        Some(known) => {
            let own = known.by_architecture.iter().find(|(of, _)| *of == architecture);
            Ok(own.map_or(known.name, |(_, name)| name))
        }
        None => Err(Error::Tokenizer(format!(
            "{}: the pre-tokenizer has no name that this version knows: {}; give the name that llama.cpp has for it (pre=, --pre): {}",
            file.path.display(),
            steps.iter().map(|step| Quoted(step).to_string()).collect::<Vec<_>>().join(", "),
            names()
        ))),
    }
}

/// The parts of a sequence, or the one that is no sequence.
fn parts<'a>(value: Option<&'a Value>, key: &str) -> Vec<&'a Value> {
    match value {
        None | Some(Value::Null) => Vec::new(),
        Some(value) => match value.get(key).and_then(Value::as_array) {
            // Sequences are not nested in sequences.
            Some(items) => items.iter().collect(),
            None => vec![value],
        },
    }
}

fn pre_tokenizers(file: &Object) -> Vec<&Value> {
    parts(file.get("pre_tokenizer"), "pretokenizers")
}

fn normalizers(file: &Object) -> Vec<&Value> {
    parts(file.get("normalizer"), "normalizers")
}

fn kind(value: &Value) -> &str {
    value.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn flag(value: &Value, key: &str) -> Option<bool> {
    value.get(key).and_then(Value::as_bool)
}

/// What the pre-tokenizer does, step by step.
fn steps(file: &Object) -> Result<Vec<String>> {
    let mut steps = Vec::new();
    for step in pre_tokenizers(file) {
        match kind(step) {
            "ByteLevel" if flag(step, "use_regex").unwrap_or(true) => steps.push(GPT2.to_owned()),
            // The spelling of bytes cuts nothing.
            "ByteLevel" => {}
            "Digits" => {
                steps.push(
                    if flag(step, "individual_digits").unwrap_or(false) { "digits:1" } else { "digits:all" }.into(),
                );
            }
            "Punctuation" => {
                let behavior = step.get("behavior").and_then(Value::as_str).unwrap_or("Isolated");
                steps.push(format!("punctuation:{behavior}"));
            }
            "Split" => {
                let pattern = step.get("pattern");
                let regex = pattern.and_then(|pattern| pattern.get("Regex")).and_then(Value::as_str);
                let behavior = step.get("behavior").and_then(Value::as_str).unwrap_or_default();
                match (regex, behavior, flag(step, "invert").unwrap_or(false)) {
                    // With an expression that matches everything both cut at every match.
                    (Some(regex), "Isolated", false) | (Some(regex), "Removed", true) => {
                        steps.push(format!("split:{}", canonical(regex)));
                    }
                    _ => steps.push(format!("split {pattern:?} {behavior}")),
                }
            }
            other => steps.push(other.to_owned()),
        }
    }
    Ok(steps)
}

/// An expression in the way that [`KNOWN`] writes it: possessive quantifiers match the same as greedy ones here.
fn canonical(regex: &str) -> String {
    let mut text = regex.to_owned();
    for contraction in CONTRACTIONS {
        text = text.replace(contraction, C);
    }
    for (possessive, greedy) in [("?+", "?"), ("++", "+"), ("*+", "*")] {
        text = text.replace(possessive, greedy);
    }
    text.replace(r"|\s*[\r\n]|", r"|\s*[\r\n]+|")
}

/// Whether pieces are spelled in bytes.
pub(super) fn is_byte_level(file: &Object) -> bool {
    let decoders = parts(file.get("decoder"), "decoders");
    pre_tokenizers(file).iter().chain(&decoders).any(|step| kind(step) == "ByteLevel")
}

/// The normalizer in a few words, where there is one.
pub(super) fn normalizer(file: &Object) -> Result<Option<String>> {
    let kinds: Vec<&str> = normalizers(file).into_iter().map(kind).collect();
    Ok((!kinds.is_empty()).then(|| kinds.join(", ")))
}

/// Whether byte-level BPE puts a space in front of a text.
pub(super) fn adds_space(file: &Object) -> bool {
    pre_tokenizers(file).iter().any(|step| kind(step) == "ByteLevel" && flag(step, "add_prefix_space") == Some(true))
}

/// Whether a text begins with U+2581.
pub(super) fn marks_beginning(file: &Object) -> bool {
    let marks = |step: &&Value| match kind(step) {
        "Prepend" => step.get("prepend").and_then(Value::as_str) == Some("\u{2581}"),
        "Metaspace" => match step.get("prepend_scheme").and_then(Value::as_str) {
            Some(scheme) => scheme != "never",
            None => flag(step, "add_prefix_space").unwrap_or(true),
        },
        _ => false,
    };
    normalizers(file).iter().chain(&pre_tokenizers(file)).any(marks)
}

/// Whether runs of spaces become one: a replacement of several, or cutting at white space.
pub(super) fn removes_spaces(file: &Object) -> bool {
    let replaces = |step: &&Value| {
        kind(step) == "Replace"
            && step.get("pattern").and_then(|pattern| pattern.get("Regex")).and_then(Value::as_str) == Some(" {2,}")
    };
    normalizers(file).iter().any(replaces) || pre_tokenizers(file).iter().any(|step| kind(step) == "WhitespaceSplit")
}

/// The map of characters of a SentencePiece model, in base64.
pub(super) fn charsmap(file: &Object) -> Option<&str> {
    normalizers(file).into_iter().find_map(|step| step.get("precompiled_charsmap").and_then(Value::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(pre_tokenizer: &Value) -> Object {
        let mut file = Object::empty("tokenizer.json".as_ref());
        file.map.insert("pre_tokenizer".into(), pre_tokenizer.clone());
        file
    }

    #[test]
    fn every_name_is_one_that_the_tokenizer_has() {
        for known in KNOWN {
            for name in known.by_architecture.iter().map(|(_, name)| *name).chain([known.name]) {
                assert_eq!(named(name).unwrap(), name);
            }
        }
    }

    #[test]
    fn published_tokenizers_have_their_names() {
        let split = |regex: &str| {
            serde_json::json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false},
                {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
            ]})
        };
        // Llama 3, OLMo 2 (as GPT-4 writes it), Qwen 2.
        let llama = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        let gpt4 = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
        let qwen = llama.replace("{1,3}", "");
        let smollm = serde_json::json!({"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true}, {"type": "ByteLevel", "use_regex": true}]});
        for (pre, ignore, architecture, name) in [
            (split(llama), true, "llama", "llama-bpe"),
            (split(llama), true, "lfm2", "lfm2"),
            (split(gpt4), false, "olmo2", "dbrx"),
            (split(&qwen), false, "qwen3", "qwen2"),
            (split(&qwen), false, "stablelm", "stablelm2"),
            (serde_json::json!({"type": "ByteLevel"}), false, "phi2", "phi-2"),
            (smollm.clone(), false, "llama", "smollm"),
            (smollm, false, "granite", "refact"),
        ] {
            assert_eq!(derived(&file(&pre), ignore, architecture).unwrap(), name);
        }
        let error = derived(&file(&split("x+")), false, "llama").unwrap_err().to_string();
        assert!(error.contains(r#""split:x+"; give the name that llama.cpp has for it (pre=, --pre)"#), "{error}");
    }
}
