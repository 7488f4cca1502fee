//! The vocabulary of a model in the form that masks are computed from: a trie of the bytes of all tokens.

use std::sync::Arc;

use llguidance::ParserFactory;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{INVALID_TOKEN, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Bytes of the longest token that a grammar may choose; longer ones are never allowed. The trie counts depth in ten bits.
const MAX_TOKEN: usize = 1 << 10;

/// Nodes of the trie at most, which counts them in 22 bits (Gemma's 262,144 tokens need 0.9 million).
const MAX_NODES: usize = (1 << 22) - 2;

/// Tokens at most, which the trie counts in 24 bits.
const MAX_TOKENS: usize = (1 << 24) - 2;

/// A vocabulary that grammars are compiled for. Built once per model, when its first grammar is made.
pub struct GrammarVocabulary {
    factory: ParserFactory,
    tokenizer: Arc<Tokenizer>,
}

impl GrammarVocabulary {
    /// Builds the trie.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the vocabulary is larger than a trie can be.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Result<GrammarVocabulary> {
        let words = words(&tokenizer)?;
        let ends = tokenizer.end_of_generation();
        let info = TokRxInfo::new(words.len() as u32, ends.first().copied().unwrap_or(INVALID_TOKEN));
        let mut trie = TokTrie::from(&info, &words);
        if ends.len() > 1 {
            trie = trie.with_eos_tokens(ends);
        }
        let environment: TokEnv = Arc::new(Environment { trie, tokenizer: Arc::clone(&tokenizer) });
        let slices = SlicedBiasComputer::json_slices();
        let factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices)
            .map_err(|error| Error::Internal(format!("no trie of the vocabulary: {error}")))?;
        Ok(GrammarVocabulary { factory, tokenizer })
    }

    pub(super) fn factory(&self) -> &ParserFactory {
        &self.factory
    }

    /// The id of the token that the vocabulary spells `name`.
    pub(super) fn token(&self, name: &str) -> Option<u32> {
        self.tokenizer.token_id(name)
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        self.tokenizer.vocab_size()
    }

    /// The tokens that end an answer, in order.
    pub(super) fn ends(&self) -> &[u32] {
        self.tokenizer.end_of_generation()
    }
}

impl std::fmt::Debug for GrammarVocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrammarVocabulary").field("tokens", &self.len()).finish_non_exhaustive()
    }
}

/// The bytes that each token adds to a text; empty for those that no grammar may choose. Control tokens begin with a byte that
/// no text holds, so that only their name in a grammar allows them.
fn words(tokenizer: &Tokenizer) -> Result<Vec<Vec<u8>>> {
    let count = tokenizer.vocab_size();
    if count > MAX_TOKENS {
        let what = format!("grammars need a vocabulary of at most {MAX_TOKENS} tokens, found {count}");
        return Err(Error::Tokenizer(what));
    }
    let mut words = Vec::with_capacity(count);
    for id in 0..count as u32 {
        let text = tokenizer.token_bytes(id, false)?;
        let word = if tokenizer.is_control(id) || tokenizer.is_end_of_generation(id) {
            [&[TokTrie::SPECIAL_TOKEN_MARKER], &*tokenizer.token_bytes(id, true)?].concat()
        } else {
            text.into_owned()
        };
        words.push(if word.len() > MAX_TOKEN { Vec::new() } else { word });
    }
    let nodes: usize = words.iter().map(Vec::len).sum();
    if nodes > MAX_NODES {
        let what = format!("grammars need a vocabulary of at most {MAX_NODES} bytes, found {nodes}");
        return Err(Error::Tokenizer(what));
    }
    Ok(words)
}

/// The trie and the tokenizer, which writes text that a grammar forces as the model is used to read it.
struct Environment {
    trie: TokTrie,
    tokenizer: Arc<Tokenizer>,
}

impl Environment {
    /// Appends the tokens of `text`. Where the tokenizer changes a text or leaves bytes out, the longest tokens that fit.
    fn append(&self, text: &str, tokens: &mut Vec<TokenId>) {
        let encoded = self.tokenizer.encode_inside(text).unwrap_or_default();
        let words = encoded.iter().flat_map(|id| self.trie.token(*id));
        match words.eq(text.as_bytes()) {
            true => tokens.extend(encoded),
            false => tokens.extend(self.trie.greedy_tokenize(text.as_bytes())),
        }
    }
}

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let mut tokens = Vec::new();
        for chunk in bytes.utf8_chunks() {
            self.append(chunk.valid(), &mut tokens);
            if !chunk.invalid().is_empty() {
                tokens.extend(self.trie.greedy_tokenize(chunk.invalid()));
            }
        }
        tokens
    }
}
