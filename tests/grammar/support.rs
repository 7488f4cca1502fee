//! Vocabularies, and a driver that writes random texts under a grammar.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use fastq_core::Result;
use fastq_core::gguf::{Gguf, OpenOptions};
use fastq_core::grammar::{Grammar, GrammarSource, GrammarVocabulary, Matcher};
use fastq_core::tokenizer::Tokenizer;

use crate::tokenizer_support::{bpe, spm};

/// A vocabulary and its tokenizer.
pub(crate) struct Model {
    pub(crate) name: &'static str,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) vocabulary: Arc<GrammarVocabulary>,
    /// The token of each byte.
    bytes: Vec<u32>,
    /// Whether a token is one byte.
    single: Vec<bool>,
}

impl Model {
    fn new(name: &'static str, tokenizer: Tokenizer) -> Model {
        let tokenizer = Arc::new(tokenizer);
        let vocabulary = Arc::new(GrammarVocabulary::new(Arc::clone(&tokenizer)).unwrap());
        let (mut bytes, mut single) = (vec![u32::MAX; 256], Vec::new());
        for id in 0..tokenizer.vocab_size() as u32 {
            let text = tokenizer.token_bytes(id, false).unwrap();
            single.push(text.len() == 1);
            if let [byte] = *text {
                bytes[usize::from(byte)] = id;
            }
        }
        Model { name, tokenizer, vocabulary, bytes, single }
    }

    pub(crate) fn compile(&self, source: &GrammarSource) -> Result<Grammar> {
        self.vocabulary.compile(source)
    }
}

/// The vocabulary of a real model, when it is there.
#[allow(clippy::print_stderr, reason = "a skipped test must be loud")]
pub(crate) fn real(name: &'static str) -> Option<Model> {
    let file = std::env::var_os("FASTQ_MODELS").map(|folder| PathBuf::from(folder).join(format!("{name}.gguf")));
    let Some(file) = file.filter(|file| file.is_file()) else {
        eprintln!("SKIPPED: FASTQ_MODELS must name a folder with {name}.gguf");
        return None;
    };
    let gguf = Gguf::open(&file, &OpenOptions::default()).unwrap();
    Some(Model::new(name, Tokenizer::from_gguf(&gguf).unwrap()))
}

static TINY: LazyLock<[Model; 2]> = LazyLock::new(|| {
    [Model::new("bpe", bpe("gpt-2").tokenizer().unwrap()), Model::new("spm", spm().tokenizer().unwrap())]
});
static REAL: LazyLock<Vec<Model>> = LazyLock::new(|| ["smollm2", "gemma3"].into_iter().filter_map(real).collect());

/// Some hundred tokens each: bytes and a few pieces.
pub(crate) fn tiny() -> &'static [Model] {
    &*TINY
}

/// SmolLM2 (49,152 tokens) and Gemma 3 (262,144), where they are there.
pub(crate) fn reals() -> &'static [Model] {
    &REAL
}

/// Splitmix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ bits >> 31
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn chance(&mut self, of_hundred: u64) -> bool {
        self.next() % 100 < of_hundred
    }

    pub(crate) fn pick<'t, T>(&mut self, items: &'t [T]) -> &'t T {
        &items[self.below(items.len())]
    }
}

/// Whether the grammar takes the whole text, written byte by byte and as the tokenizer writes it, which must say the same.
pub(crate) fn accepts(model: &Model, grammar: &Grammar, text: &str) -> bool {
    let whole =
        accepts_tokens(model, grammar, &text.bytes().map(|byte| model.bytes[usize::from(byte)]).collect::<Vec<_>>());
    let encoded = model.tokenizer.encode(text, false, false, &fastq_core::Never).unwrap();
    // What SentencePiece puts in front belongs to no text.
    if !model.tokenizer.add_space_prefix() && model.tokenizer.decode(&encoded, false).unwrap() == text {
        assert_eq!(accepts_tokens(model, grammar, &encoded), whole, "{} {text:?}", model.name);
    }
    whole
}

fn accepts_tokens(model: &Model, grammar: &Grammar, tokens: &[u32]) -> bool {
    let mut matcher = grammar.matcher();
    for token in tokens {
        let finished = matcher.finished();
        if matcher.accept(*token).is_err() {
            return false;
        }
        assert!(!finished);
    }
    let complete = matcher.accept(model.tokenizer.end_of_generation()[0]).is_ok();
    assert!(complete || !matcher.finished());
    complete
}

/// A text of random tokens that the masks allow, and whether it came to an end within `most` tokens. Behind some forty tokens
/// it prefers what leads to the end: closing brackets and quotes.
pub(crate) fn draw(model: &Model, grammar: &Grammar, seed: u64, most: usize) -> (String, bool) {
    draw_with(model, grammar, seed, most, &mut |matcher, logits| matcher.mask(logits).unwrap())
}

/// As [`draw`] with another way to set the mask.
pub(crate) fn draw_with(
    model: &Model,
    grammar: &Grammar,
    seed: u64,
    most: usize,
    mask: &mut dyn FnMut(&mut Matcher, &mut [f32]),
) -> (String, bool) {
    let mut random = Random(seed);
    let mut matcher = grammar.matcher();
    let mut detokenizer = model.tokenizer.continuation(false);
    let (mut text, mut logits) = (String::new(), Vec::new());
    let hurry = 20 + random.below(30);
    for count in 0..most {
        if matcher.finished() {
            break;
        }
        let forced = if random.chance(30) { matcher.forced() } else { Vec::new() };
        logits.clear();
        logits.resize(model.tokenizer.vocab_size(), 0.0f32);
        mask(&mut matcher, &mut logits);
        let allowed: Vec<u32> = (0..).zip(&logits).filter(|(_, logit)| **logit == 0.0).map(|(id, _)| id).collect();
        assert!(!allowed.is_empty());
        if let Some(token) = forced.first() {
            assert_eq!(allowed, [*token], "{text:?}: what is forced is the only possibility");
        }
        // A number with a long exponent is right, but nobody can read it.
        let exponent = text.trim_end_matches(|char: char| char.is_ascii_digit()).trim_end_matches(['+', '-']);
        let long = exponent.ends_with(['e', 'E']) && text.len() > exponent.len() + 1;
        let token = choose(model, &allowed, &mut random, long || count >= hurry);
        matcher.accept(token).unwrap();
        if model.tokenizer.is_end_of_generation(token) {
            break;
        }
        text.push_str(&detokenizer.push(token).unwrap());
    }
    text.push_str(&detokenizer.finish());
    (text, matcher.finished())
}

fn choose(model: &Model, allowed: &[u32], random: &mut Random, hurry: bool) -> u32 {
    if hurry {
        if let Some(end) = model.tokenizer.end_of_generation().iter().find(|id| allowed.binary_search(id).is_ok()) {
            return *end;
        }
        let may = |byte: &u8| allowed.binary_search(&model.bytes[usize::from(*byte)]).is_ok();
        // Inside a text brackets lead nowhere.
        let inside = (b'a'..=b'z').chain(b'A'..=b'Z').filter(may).count() > 5;
        for closing in if inside { &b"@/\""[..] } else { b"}],\"0" } {
            let token = model.bytes[usize::from(*closing)];
            let likely = if matches!(closing, b'@' | b'/') { 10 } else { 90 };
            if may(closing) && random.chance(likely) {
                return token;
            }
        }
    }
    // Single characters are rare among all tokens, but most of what has a structure.
    let singles: Vec<u32> = allowed.iter().filter(|id| model.single[**id as usize]).copied().collect();
    if singles.is_empty() || random.chance(40) { *random.pick(allowed) } else { *random.pick(&singles) }
}
