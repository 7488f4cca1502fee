//! Cutting text into the words that byte-level BPE merges inside: the table of pre-tokenizers.
//!
//! The expressions are those of llama.cpp (`llama-vocab.cpp`), which names them in `tokenizer.ggml.pre`; several are applied one
//! after the other, each inside the pieces of the one before. What an expression leaves between its matches is a piece too.
//!
//! Most end in `\s+(?!\S)|\s+`: white space, of which the last character is left to a word that follows. Look-ahead needs a
//! backtracking engine, which takes quadratic time or gives up on some texts, so that rule is [`Stage::Words`] here and
//! everything else runs on finite automata: time is linear in the text for every text.

use regex_automata::meta::Regex;
use regex_automata::{Anchored, Input, PatternID};

use crate::{Error, Result};

/// One step of a pre-tokenizer.
enum Stage {
    /// Only matches of the expression are cut out.
    Cut(&'static str),
    /// `expression|\s+(?!\S)|\s+`: together these must match at every place.
    Words(&'static str),
}
use Stage::{Cut, Words};

/// A pre-tokenizer by its names.
pub(super) struct PreTokenizer {
    names: &'static [&'static str],
    stages: &'static [Stage],
    /// A word that is in the vocabulary is one token, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// The default of `tokenizer.ggml.add_bos_token`.
    pub(super) add_bos: bool,
}

const DIGIT: Stage = Cut(r"\p{N}");
const GPT2: Stage = Words(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+");
const LLAMA3: Stage = Words(concat!(
    r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
));
const QWEN2: Stage = Words(concat!(
    r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
));
// Upper and lower case as llama.cpp tells them apart: any letter but a-z, any letter but A-Z.
const TEKKEN: Stage = Words(concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{L}--a-z]*[\p{L}--A-Z]+|[^\r\n\p{L}\p{N}]?[\p{L}--a-z]+[\p{L}--A-Z]*|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+",
));
const GPT4O: Stage = Words(concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{L}--a-z]*[\p{L}--A-Z]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
    r"|[^\r\n\p{L}\p{N}]?[\p{L}--a-z]+[\p{L}--A-Z]*(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+",
));

#[rustfmt::skip]
const PRE_TOKENIZERS: &[PreTokenizer] = &[
    PreTokenizer { names: &["default"], stages: &[Cut(r"[\p{P}$+<=>^~|]+"), GPT2, Cut(r"\p{N}+"), Cut(r"[0-9][0-9][0-9]")], ignore_merges: false, add_bos: false },
    PreTokenizer { names: &["gpt-2", "phi-2", "olmo", "mpt", "jais", "trillion", "granite-docling", "exaone4", "gigachat", "a.x-4.0", "mellum"], stages: &[GPT2], ignore_merges: false, add_bos: false },
    PreTokenizer { names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"], stages: &[DIGIT, GPT2], ignore_merges: false, add_bos: false },
    PreTokenizer { names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"], stages: &[LLAMA3], ignore_merges: true, add_bos: true },
    PreTokenizer { names: &["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], stages: &[LLAMA3], ignore_merges: false, add_bos: false },
    PreTokenizer { names: &["qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan", "kormo", "solar-open", "grok-2"], stages: &[QWEN2], ignore_merges: false, add_bos: false },
    PreTokenizer { names: &["tekken"], stages: &[TEKKEN], ignore_merges: true, add_bos: true },
    PreTokenizer { names: &["gpt-4o", "llama4", "kanana2", "minimax-m2"], stages: &[GPT4O], ignore_merges: false, add_bos: false },
];

impl PreTokenizer {
    /// The pre-tokenizer called `name`, or `None`: guessing would give other tokens than the model was trained on.
    pub(super) fn named(name: &str) -> Option<&'static PreTokenizer> {
        PRE_TOKENIZERS.iter().find(|pre| pre.names.contains(&name))
    }

    /// All names.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        PRE_TOKENIZERS.iter().flat_map(|pre| pre.names).copied()
    }

    /// Compiles the expressions.
    pub(super) fn splitter(&self) -> Result<Splitter> {
        let build = |patterns: &[&str]| {
            Regex::new_many(patterns)
                .map_err(|error| Error::Internal(format!("pre-tokenizer {:?}: {error}", self.names)))
        };
        let compile = |stage: &Stage| match stage {
            Cut(pattern) => Ok((build(&[pattern])?, false)),
            Words(pattern) => Ok((build(&[pattern, r"\s+"])?, true)),
        };
        Ok(Splitter { stages: self.stages.iter().map(compile).collect::<Result<_>>()? })
    }
}

/// The second expression of [`Stage::Words`].
const SPACE: PatternID = PatternID::new_unchecked(1);

/// A compiled pre-tokenizer.
pub(super) struct Splitter {
    /// The expressions, and whether each is [`Stage::Words`].
    stages: Vec<(Regex, bool)>,
}

impl Splitter {
    /// Gives the words of `text` in order; together they are `text`.
    pub(super) fn split<'t>(&self, text: &'t str, word: &mut dyn FnMut(&'t str) -> Result<()>) -> Result<()> {
        split(&self.stages, text, word)
    }
}

fn split<'t>(stages: &[(Regex, bool)], text: &'t str, word: &mut dyn FnMut(&'t str) -> Result<()>) -> Result<()> {
    let Some(((regex, words), rest)) = stages.split_first() else {
        return if text.is_empty() { Ok(()) } else { word(text) };
    };
    let mut start = 0;
    if *words {
        while start < text.len() {
            let end = word_end(regex, text, start);
            split(rest, &text[start..end], word)?;
            start = end;
        }
        return Ok(());
    }
    for found in regex.find_iter(text) {
        split(rest, &text[start..found.start()], word)?;
        split(rest, &text[found.range()], word)?;
        start = found.end();
    }
    split(rest, &text[start..], word)
}

/// Where the word that starts at `start` ends; always after `start`.
fn word_end(regex: &Regex, text: &str, start: usize) -> usize {
    let input = Input::new(text).range(start..).anchored(Anchored::Yes);
    // Forward only: the start is known, so the search for it is saved.
    match regex.search_half(&input) {
        Some(half) if half.offset() > start => {
            let end = half.offset();
            if half.pattern() != SPACE || end == text.len() {
                return end;
            }
            // The last white space belongs to the word that follows, unless it is alone.
            let last = text[start..end].chars().next_back().map_or(0, char::len_utf8);
            if end - last > start { end - last } else { end }
        }
        // Not reached with the table above: its expressions match at every place.
        _ => start + text[start..].chars().next().map_or(1, char::len_utf8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words<'t>(name: &str, text: &'t str) -> Vec<&'t str> {
        let mut words = Vec::new();
        let splitter = PreTokenizer::named(name).unwrap().splitter().unwrap();
        splitter
            .split(text, &mut |word| {
                words.push(word);
                Ok(())
            })
            .unwrap();
        words
    }

    #[test]
    fn every_name_once_and_every_expression_compiles() {
        let names: Vec<_> = PreTokenizer::names().collect();
        for (index, name) in names.iter().enumerate() {
            assert!(!names[..index].contains(name), "{name} twice");
            assert_eq!(words(name, "a b").concat(), "a b");
        }
        assert!(PreTokenizer::named("zzz").is_none());
    }

    #[test]
    fn words_as_defined() {
        #[rustfmt::skip]
        let cases: &[(&str, &str, &[&str])] = &[
            ("gpt-2", "I'll don't  go\n\nnow 123abc!?", &["I", "'ll", " don", "'t", " ", " go", "\n", "\n", "now", " 123", "abc", "!?"]),
            ("gpt-2", "x\u{3000}y \t ", &["x", "\u{3000}", "y", " \t "]),
            ("smollm", "a 12b", &["a", " ", "1", "2", "b"]),
            ("llama-bpe", "A'LL 12345 \n x(y)\r\n\n  z", &["A", "'LL", " ", "123", "45", " \n", " x", "(y", ")\r\n\n", " ", " z"]),
            ("qwen2", "12 \n\n  .\u{301}e", &["1", "2", " \n\n", " ", " .\u{301}", "e"]),
            ("tekken", "HelloWORLDabc a/\n/b", &["Hello", "WORLDabc", " a", "/\n/", "b"]),
            ("gpt-4o", "HelloWORLD's IT'S 1234", &["Hello", "WORLD's", " IT'S", " ", "123", "4"]),
            ("default", "a<=b 12345.6", &["a", "<=", "b", " ", "123", "45", ".", "6"]),
        ];
        for (name, text, expected) in cases {
            assert_eq!(words(name, text), *expected, "{name} {text:?}");
        }
    }
}
