//! Cutting text into the words that byte-level BPE merges inside: the table of pre-tokenizers.
//!
//! The expressions are those of llama.cpp (`llama-vocab.cpp`), which names them in `tokenizer.ggml.pre`; several are applied one
//! after the other, each inside the pieces of the one before. What an expression leaves between its matches is a piece too.
//!
//! Most end in `\s+(?!\S)|\s+`: white space, of which the last character is left to a word that follows. Look-ahead needs a
//! backtracking engine, which takes quadratic time or gives up on some texts, so such rules are kinds of [`Stage`] here and
//! everything else runs on finite automata: time is linear in the text for every text.
//!
//! All names of llama.cpp 0.3.36 are here but `whitespace`, which belongs to a `tokenizer.ggml.model` of its own.
//!
//! Where llama.cpp deviates from a published tokenizer, this follows llama.cpp: classes of letters by case are all letters
//! (`\p{Lu}` in `youtu` and `tiny_aya`), what is in front of a long number stays with its first digits (`afmoe`, `tiny_aya`), and white
//! space beyond ASCII is in no range of characters.

use regex_automata::meta::Regex;
use regex_automata::{Anchored, Input, PatternID};

use crate::gguf::Gguf;
use crate::{Error, Result};

const PRE: &str = "tokenizer.ggml.pre";

/// One step of a pre-tokenizer.
enum Stage {
    /// Matches of the expression are cut out; what lies between them is left to the next step.
    Cut(&'static str),
    /// As `expression|\s+(?!\S)|\s+` is cut out.
    Words(&'static str),
    /// The same, but white space comes in runs of 512, 256 … 1: `expression|\s{512}(?!\S)|…|\s{1,2}(?!\S)|\s`.
    HalvedSpace(&'static str),
    /// Before every third character of a match, counted from its end.
    BeforeThrees(&'static str),
    /// After every third character of a match, counted from its end: what precedes a match stays with its first one to three.
    AfterThrees(&'static str),
}
use Stage::{AfterThrees, BeforeThrees, Cut, HalvedSpace, Words};

/// How the pieces of a vocabulary are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// Bytes, each as the character that GPT-2 has for it.
    Bytes,
    /// Characters, with U+2581 for spaces; bytes are `<0xXX>`.
    Marked,
}

/// A pre-tokenizer by its names.
pub(super) struct PreTokenizer {
    names: &'static [&'static str],
    stages: &'static [Stage],
    pub(super) spelling: Spelling,
    /// A word that is in the vocabulary is one token, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// The same, but only for words of nothing but line feeds.
    pub(super) whole_lines: bool,
    /// The default of `tokenizer.ggml.add_bos_token`.
    pub(super) add_bos: bool,
    /// That key says nothing: files have it wrong.
    pub(super) always_bos: bool,
}

/// `'s`, `'t`, `'re`, `'ve`, `'m`, `'ll`, `'d` in small and capital letters.
macro_rules! contraction {
    () => {
        "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
    };
}

/// Letters with one other character in front, numbers of so many digits, and other characters with line feeds behind.
macro_rules! letters_numbers_others {
    ($numbers:literal) => {
        concat!(contraction!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|", $numbers, r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+")
    };
}

/// Words that begin with capitals and go on with small letters, the way llama.cpp tells them apart: letters but a-z, letters but A-Z.
macro_rules! capitals_smalls {
    ($letter:literal, $behind:expr) => {
        concat!(
            r"[^\r\n\p{L}\p{N}]?[",
            $letter,
            r"--a-z]*[",
            $letter,
            r"--A-Z]+",
            $behind,
            r"|[^\r\n\p{L}\p{N}]?[",
            $letter,
            r"--a-z]+[",
            $letter,
            r"--A-Z]*",
            $behind,
        )
    };
}

const DIGIT: Stage = Cut(r"\p{N}");
const THREE_DIGITS: Stage = Cut(r"\p{N}{1,3}");
const LINE_FEEDS: Stage = Cut(r"\n+");
/// Chinese and kana, as DeepSeek cuts them out.
const CHINESE_KANA: Stage = Cut(r"[\x{4e00}-\x{9fa5}\x{3040}-\x{30ff}]+");
/// The letters that come in capital and small ones, as DeepSeek LLM lists them.
const CASED_LETTERS: &str = concat!(
    r"\s?[A-Za-z\x{b5}\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{1ba}\x{1bc}-\x{1bf}\x{1c4}-\x{293}\x{295}-\x{2af}",
    r"\x{370}-\x{373}\x{376}\x{377}\x{37b}-\x{37d}\x{37f}\x{386}\x{388}-\x{38a}\x{38c}\x{38e}-\x{3a1}",
    r"\x{3a3}-\x{3f5}\x{3f7}-\x{481}\x{48a}-\x{52f}\x{531}-\x{556}\x{10a0}-\x{10c5}\x{13a0}-\x{13f5}",
    r"\x{13f8}-\x{13fd}\x{1c90}-\x{1cba}\x{1cbd}-\x{1cbf}\x{1d00}-\x{1d2b}\x{1d6b}-\x{1d77}\x{1d79}-\x{1d9a}",
    r"\x{1e00}-\x{1f15}\x{1f18}-\x{1f1d}\x{1f20}-\x{1f45}\x{1f48}-\x{1f4d}\x{1f50}-\x{1f57}\x{1f59}\x{1f5b}",
    r"\x{1f5d}\x{1f5f}-\x{1f7d}\x{1f80}-\x{1fb4}\x{1fb6}-\x{1fbc}\x{1fbe}\x{1fc2}-\x{1fc4}\x{1fc6}-\x{1fcc}",
    r"\x{1fd0}-\x{1fd3}\x{1fd6}-\x{1fdb}\x{1fe0}-\x{1fec}\x{1ff2}-\x{1ff4}\x{1ff6}-\x{1ffc}\x{2102}\x{2107}",
    r"\x{210a}-\x{2113}\x{2115}\x{2119}-\x{211d}\x{2124}\x{2126}\x{2128}\x{212a}-\x{212d}\x{212f}-\x{2134}",
    r"\x{2139}\x{213c}-\x{213f}\x{2145}-\x{2149}\x{214e}\x{2183}\x{2184}\x{2c00}-\x{2c7b}\x{2c7e}-\x{2ce4}",
    r"\x{2ceb}-\x{2cee}\x{2cf2}\x{2cf3}\x{a640}-\x{a66d}\x{a680}-\x{a69b}\x{a722}-\x{a76f}\x{a771}-\x{a787}",
    r"\x{a78b}-\x{a78e}\x{ab70}-\x{abbf}\x{fb00}-\x{fb06}\x{fb13}-\x{fb17}\x{ff21}-\x{ff3a}\x{ff41}-\x{ff5a}",
    r"\x{10400}-\x{1044f}\x{104b0}-\x{104d3}\x{104d8}-\x{104fb}\x{10c80}-\x{10cb2}\x{10cc0}-\x{10cf2}",
    r"\x{118a0}-\x{118df}\x{1e900}-\x{1e943}]+",
);
/// Of its range, white space is none of the text in llama.cpp.
const EAST_ASIAN: Stage = Cut(r"[[\x{800}-\x{9fa5}\x{ac00}-\x{d7ff}]--\s]+");
const GPT2: Stage = Words(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+");
const LLAMA3: Stage = Words(letters_numbers_others!(r"\p{N}{1,3}"));
const QWEN2: Stage = Words(letters_numbers_others!(r"\p{N}"));
const DEEPSEEK3: Stage = Words(concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"##,
    r"|\s*[\r\n]+",
));
const GPT4O: Stage = Words(concat!(
    capitals_smalls!(r"\p{L}", concat!(contraction!(), "?")),
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+",
));
/// Words of any letters in any script, with their marks.
macro_rules! marked_words {
    ($numbers:literal) => {
        concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
            contraction!(),
            "?|",
            $numbers,
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+",
        )
    };
}
/// Everything up to white space and the punctuation of several scripts.
const BLOOM: Stage = Cut(r" ?[^(\s|.,!?…。，、।۔،)]+");
/// The blocks that Kimi counts as Chinese.
macro_rules! han {
    () => {
        r"\x{3400}-\x{4dbf}\x{4e00}-\x{9fff}\x{f900}-\x{faff}\x{20000}-\x{2a6df}\x{2a700}-\x{2ebef}\x{2f800}-\x{2fa1f}"
    };
}

const PRE_TOKENIZERS: &[PreTokenizer] = &[
    pre(&["default"], &[Cut(r"[\p{P}$+<=>^~|]+"), GPT2, Cut(r"\p{N}+"), Cut(r"[0-9][0-9][0-9]")]),
    pre(
        &[
            "gpt-2",
            "phi-2",
            "olmo",
            "mpt",
            "jais",
            "trillion",
            "granite-docling",
            "exaone4",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "roberta-bpe",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
        ],
        &[GPT2],
    ),
    pre(
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        &[DIGIT, GPT2],
    ),
    pre(&["falcon"], &[Cut(r"[\p{P}$+<=>^~|`]+"), GPT2, Cut(r"[0-9][0-9][0-9]")]),
    pre(
        &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"],
        &[LLAMA3],
    )
    .ignore_merges()
    .add_bos(),
    pre(&["dbrx", "smaug-bpe", "chatglm-bpe"], &[LLAMA3]),
    pre(&["glm4", "glm5"], &[LLAMA3]).ignore_merges(),
    pre(&["minicpm5"], &[THREE_DIGITS, Words(letters_numbers_others!(r"\p{N}+"))]).ignore_merges(),
    pre(&["jais-2"], &[HalvedSpace(letters_numbers_others!(r"\p{N}{1,3}"))]),
    pre(
        &["qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan", "kormo", "solar-open", "grok-2", "f2llmv2"],
        &[QWEN2],
    ),
    pre(
        &["qwen35"],
        &[Words(concat!(
            contraction!(),
            r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+",
        ))],
    ),
    pre(&["ufakzeka"], &[Words(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+")]),
    pre(&["laguna"], &[LINE_FEEDS, QWEN2]),
    pre(
        &["bailingmoe", "bailingmoe2", "llada-moe"],
        &[Words(concat!(contraction!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]"))],
    ),
    pre(
        &["seed-coder"],
        &[Words(concat!(contraction!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+"))],
    ),
    pre(
        &["exaone-moe"],
        &[Words(concat!(
            contraction!(),
            r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]",
        ))],
    ),
    pre(
        &["tekken"],
        &[Words(concat!(capitals_smalls!(r"\p{L}", ""), r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+"))],
    )
    .ignore_merges()
    .add_bos(),
    pre(&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], &[GPT4O]),
    pre(
        &["granite-embed-multi-97m"],
        &[Words(concat!(
            capitals_smalls!(r"[\p{L}\p{M}]", concat!(contraction!(), "?")),
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+",
        ))],
    )
    .ignore_merges(),
    pre(&["tiny_aya", "cohere2moe"], &[AfterThrees(r"\p{N}+"), Words(marked_words!(r"\p{N}{1,3}"))]),
    pre(
        &["youtu"],
        &[
            Cut(concat!(
                r"[\x{ac00}-\x{d7a3}\x{3131}-\x{318e}]+|[！…“”‘’—：；，\x{3001}-\x{303f}\x{fe30}-\x{fe4f}]+",
                r"|[\x{3105}-\x{312f}]+|[\x{4e00}-\x{9fa5}\x{3040}-\x{30ff}]+",
            )),
            Words(marked_words!(r"\p{N}")),
        ],
    )
    .ignore_merges(),
    pre(
        &["deepseek-llm"],
        &[
            Cut(r"[\r\n]"),
            Cut(CASED_LETTERS),
            Cut(r"\s?[!-/:-~！-／：-～‘-‟\x{3001}-\x{3002}]+"),
            Cut(r"\s+$"),
            EAST_ASIAN,
            Cut(r"\p{N}+"),
        ],
    ),
    pre(&["deepseek-coder"], &[Cut(r"[\r\n]"), Cut(r"\s?\p{L}+"), Cut(r"\s?\p{P}+"), EAST_ASIAN, DIGIT]),
    pre(&["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"], &[THREE_DIGITS, CHINESE_KANA, DEEPSEEK3]),
    pre(
        &["spark2_5"],
        &[
            THREE_DIGITS,
            CHINESE_KANA,
            Words(concat!(
                r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
                r"| ?[\p{P}\p{S}]+|[\r\n]",
            )),
            DIGIT,
        ],
    ),
    pre(
        &["afmoe"],
        &[
            AfterThrees(r"\p{N}+"),
            Cut(concat!(
                r"[\x{4e00}-\x{9fff}\x{3400}-\x{4dbf}\x{8c48}-\x{faff}\x{3040}-\x{30ff}\x{ff65}-\x{ff9f}\x{2f00}-\x{2fdf}",
                r"\x{e40}-\x{eff}\x{1780}-\x{17ff}\x{1000}-\x{109f}\x{aa60}-\x{aa7f}\x{a9e0}-\x{a9ff}\x{1100}-\x{11ff}]+",
            )),
            DEEPSEEK3,
        ],
    ),
    pre(
        &["kimi-k2"],
        &[Words(concat!(
            "[",
            han!(),
            r"]+|[^\r\n\p{L}\p{N}]?[\p{L}--[",
            han!(),
            "]]+",
            contraction!(),
            r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
        ))],
    ),
    pre(&["bloom", "poro-chat", "gpt3-finnish"], &[BLOOM]),
    pre(&["viking"], &[BLOOM, DIGIT]),
    pre(
        &["chameleon"],
        &[
            Cut("<sentinel:[0-9]+>"),
            Cut("IMGIMG[A-I]{1,4}Z"),
            Cut(r"[\t\n]|    |  "),
            DIGIT,
            Cut(r"[\p{P}!-/:-@\[-`{-~]"),
            GPT2,
        ],
    )
    .add_bos(),
    pre(&["superbpe"], &[Cut(r"\p{N}+"), BeforeThrees("[0-9]+")]),
    pre(&["gemma4", "granite-embed-multi-311m"], &[LINE_FEEDS]).spelled(Spelling::Marked).whole_lines().always_bos(),
    pre(&["sarvam-moe"], &[LINE_FEEDS]).spelled(Spelling::Marked),
];

/// A pre-tokenizer with nothing special.
const fn pre(names: &'static [&'static str], stages: &'static [Stage]) -> PreTokenizer {
    PreTokenizer {
        names,
        stages,
        spelling: Spelling::Bytes,
        ignore_merges: false,
        whole_lines: false,
        add_bos: false,
        always_bos: false,
    }
}

impl PreTokenizer {
    const fn ignore_merges(self) -> PreTokenizer {
        PreTokenizer { ignore_merges: true, ..self }
    }

    const fn whole_lines(self) -> PreTokenizer {
        PreTokenizer { whole_lines: true, ..self }
    }

    const fn add_bos(self) -> PreTokenizer {
        PreTokenizer { add_bos: true, ..self }
    }

    const fn always_bos(self) -> PreTokenizer {
        PreTokenizer { always_bos: true, ..self }
    }

    const fn spelled(self, spelling: Spelling) -> PreTokenizer {
        PreTokenizer { spelling, ..self }
    }
}

impl PreTokenizer {
    /// The name that is `given` or in `file`, and the pre-tokenizer that is called so.
    pub(super) fn from_gguf<'f>(file: &'f Gguf, given: Option<&'f str>) -> Result<(&'f str, &'static PreTokenizer)> {
        let name = given.or(file.str(PRE)?).unwrap_or("default");
        // Guessing would give other tokens than the model was trained on.
        let unknown = || {
            let known: Vec<_> = PreTokenizer::names().collect();
            let path = file.path().display();
            Error::UnsupportedModel(format!("{path}: key `{PRE}` must be one of {}, found {name:?}", known.join(" ")))
        };
        PreTokenizer::named(name).ok_or_else(unknown).map(|pre| (name, pre))
    }

    fn named(name: &str) -> Option<&'static PreTokenizer> {
        PRE_TOKENIZERS.iter().find(|pre| pre.names.contains(&name))
    }

    /// Every name.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        PRE_TOKENIZERS.iter().flat_map(|pre| pre.names).copied()
    }

    /// Compiles the expressions.
    pub(super) fn splitter(&self) -> Result<Splitter> {
        let build = |patterns: &[&str]| {
            Regex::new_many(patterns)
                .map_err(|error| Error::Internal(format!("pre-tokenizer {:?}: {error}", self.names)))
        };
        let compile = |stage: &Stage| {
            Ok(match stage {
                Cut(pattern) => (build(&[pattern])?, Rule::Matches),
                Words(pattern) => (build(&[pattern, r"\s+"])?, Rule::Words { halved_space: false }),
                HalvedSpace(pattern) => (build(&[pattern, r"\s+"])?, Rule::Words { halved_space: true }),
                BeforeThrees(pattern) => (build(&[pattern])?, Rule::Threes { before: true }),
                AfterThrees(pattern) => (build(&[pattern])?, Rule::Threes { before: false }),
            })
        };
        Ok(Splitter { stages: self.stages.iter().map(compile).collect::<Result<_>>()? })
    }
}

/// The second expression of [`Stage::Words`].
const SPACE: PatternID = PatternID::new_unchecked(1);

/// The most white space that is one word by [`Stage::HalvedSpace`].
const LONGEST_SPACE: usize = 512;

/// What is done with the matches of an expression.
#[derive(Clone, Copy)]
enum Rule {
    Matches,
    Words { halved_space: bool },
    Threes { before: bool },
}

/// A compiled pre-tokenizer.
pub(super) struct Splitter {
    stages: Vec<(Regex, Rule)>,
}

impl Splitter {
    /// Gives the words of `text` in order; together they are `text`.
    pub(super) fn split<'t>(&self, text: &'t str, word: &mut dyn FnMut(&'t str) -> Result<()>) -> Result<()> {
        split(&self.stages, text, word)
    }
}

fn split<'t>(stages: &[(Regex, Rule)], text: &'t str, word: &mut dyn FnMut(&'t str) -> Result<()>) -> Result<()> {
    let Some(((regex, rule), rest)) = stages.split_first() else { return word(text) };
    let mut start = 0;
    let mut cut = |end: usize| {
        let part = &text[start..end];
        start = end;
        if part.is_empty() { Ok(()) } else { split(rest, part, word) }
    };
    match *rule {
        Rule::Matches => cut_matches(regex, text, &mut cut)?,
        Rule::Words { halved_space } => cut_words(regex, halved_space, text, &mut cut)?,
        Rule::Threes { before } => cut_threes(regex, before, text, &mut cut)?,
    }
    cut(text.len())
}

/// Takes the places where a text is cut, in order; a place may come twice.
type Places<'c> = &'c mut dyn FnMut(usize) -> Result<()>;

fn cut_matches(regex: &Regex, text: &str, cut: Places<'_>) -> Result<()> {
    for found in regex.find_iter(text) {
        cut(found.start())?;
        cut(found.end())?;
    }
    Ok(())
}

fn cut_words(regex: &Regex, halved_space: bool, text: &str, cut: Places<'_>) -> Result<()> {
    let mut start = 0;
    while start < text.len() {
        let input = Input::new(text).range(start..);
        // Forward only: the start is known, so the search for it is saved.
        let Some(half) = regex.search_half(&input.clone().anchored(Anchored::Yes)) else {
            // What nothing matches is one word.
            start = regex.search(&input).map_or(text.len(), |found| found.start());
            cut(start)?;
            continue;
        };
        let end = half.offset();
        if half.pattern() != SPACE {
            start = end;
        } else if halved_space {
            start = cut_halved(text, start, end, cut)?;
        } else {
            start = space_end(text, start, end);
        }
        cut(start)?;
    }
    Ok(())
}

/// Where a word of the white space from `start` to `end` ends: the last one belongs to the word that follows, unless it is alone.
fn space_end(text: &str, start: usize, end: usize) -> usize {
    let last = text[start..end].chars().next_back().map_or(0, char::len_utf8);
    if end == text.len() || end - last == start { end } else { end - last }
}

/// Cuts all but the last of the words of the white space from `start` to `end`, and returns where that one ends.
fn cut_halved(text: &str, start: usize, end: usize, cut: Places<'_>) -> Result<usize> {
    let end = space_end(text, start, end);
    let mut left = text[start..end].chars().count();
    let mut word = left;
    for (at, _) in text[start..end].char_indices() {
        if left == word {
            cut(start + at)?;
            word -= 1 << word.ilog2().min(LONGEST_SPACE.ilog2());
        }
        left -= 1;
    }
    Ok(end)
}

fn cut_threes(regex: &Regex, before: bool, text: &str, cut: Places<'_>) -> Result<()> {
    for found in regex.find_iter(text) {
        let mut left = text[found.range()].chars().count();
        for (at, digit) in text[found.range()].char_indices() {
            let at = found.start() + at;
            if before && left.is_multiple_of(3) {
                cut(at)?;
            }
            left -= 1;
            if !before && left.is_multiple_of(3) {
                cut(at + digit.len_utf8())?;
            }
        }
    }
    Ok(())
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
