//! Log-probabilities of the tokens of an answer.

use fastq_core::sampler::TokenLogprobs;
use fastq_core::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};

use super::error::ApiResult;
use super::fields::Fields;

/// The most alternatives per token (OpenAI's limit).
const MAX_TOP: u64 = 20;

/// `logprobs` and `top_logprobs` of a conversation: how many alternatives, when any are asked for.
///
/// # Errors
/// 400 naming the field.
pub(super) fn of_chat(fields: &Fields<'_>) -> ApiResult<Option<usize>> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    match top(fields)? {
        Some(_) if !wanted => Err(fields.wrong("top_logprobs", "left out unless logprobs is true")),
        top => Ok(wanted.then_some(top.unwrap_or(0))),
    }
}

/// `top_logprobs` alone.
///
/// # Errors
/// 400 naming the field.
pub(super) fn top(fields: &Fields<'_>) -> ApiResult<Option<usize>> {
    fields.count("top_logprobs", 0..=MAX_TOP)
}

/// `logprobs` of a text: how many alternatives.
///
/// # Errors
/// 400 naming the field.
pub(super) fn of_text(fields: &Fields<'_>) -> ApiResult<Option<usize>> {
    fields.count("logprobs", 0..=MAX_TOP)
}

/// What stands for a probability of zero, which JSON has no logarithm of (OpenAI's choice).
const IMPOSSIBLE: f32 = -9999.0;

fn number(logprob: f32) -> Value {
    logprob.max(IMPOSSIBLE).into()
}

/// The bytes of a token as it stands in a text.
fn bytes(tokenizer: &Tokenizer, token: u32) -> Vec<u8> {
    // Tokens of an answer are of the vocabulary.
    tokenizer.token_bytes(token, true).map(|bytes| bytes.into_owned()).unwrap_or_default()
}

/// The text of a token; a part of a character is written as its bytes, so that different tokens stay different.
fn text(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => {
            std::iter::once("bytes:".to_owned()).chain(bytes.iter().map(|byte| format!("\\x{byte:02x}"))).collect()
        }
    }
}

/// A token as conversations tell it, with its alternatives.
pub(super) fn token(tokenizer: &Tokenizer, logprobs: &TokenLogprobs) -> Value {
    let one = |token: u32, logprob: f32| {
        let bytes = bytes(tokenizer, token);
        json!({ "token": text(&bytes), "logprob": number(logprob), "bytes": bytes })
    };
    let mut token = one(logprobs.token, logprobs.logprob);
    token["top_logprobs"] = logprobs.top.iter().map(|&(token, logprob)| one(token, logprob)).collect();
    token
}

/// The tokens of a text as `/v1/completions` tells them: four lists of the same length.
#[derive(Default)]
pub(super) struct TextLogprobs {
    tokens: Vec<Value>,
    logprobs: Vec<Value>,
    top: Vec<Value>,
    offsets: Vec<usize>,
    /// Characters so far.
    offset: usize,
}

impl TextLogprobs {
    /// Behind `offset` characters.
    pub(super) fn after(offset: usize) -> TextLogprobs {
        TextLogprobs { offset, ..TextLogprobs::default() }
    }

    /// Adds a text of which nothing is known: the first token of a prompt.
    pub(super) fn push_text(&mut self, text: &str) {
        self.add(text.to_owned(), Value::Null, Value::Null);
    }

    /// Adds a token.
    pub(super) fn push(&mut self, tokenizer: &Tokenizer, logprobs: &TokenLogprobs) {
        let table: Map<String, Value> =
            logprobs.top.iter().map(|&(token, logprob)| (text(&bytes(tokenizer, token)), number(logprob))).collect();
        self.add(text(&bytes(tokenizer, logprobs.token)), number(logprobs.logprob), table.into());
    }

    fn add(&mut self, text: String, logprob: Value, top: Value) {
        self.offsets.push(self.offset);
        self.offset += text.chars().count();
        self.tokens.push(text.into());
        self.logprobs.push(logprob);
        self.top.push(top);
    }

    /// The lists so far, which begin anew.
    pub(super) fn take(&mut self) -> Value {
        json!({
            "tokens": std::mem::take(&mut self.tokens),
            "token_logprobs": std::mem::take(&mut self.logprobs),
            "top_logprobs": std::mem::take(&mut self.top),
            "text_offset": std::mem::take(&mut self.offsets),
        })
    }
}

/// The text of the first token of a prompt, of which `known` are the others.
pub(super) fn first_text<'a>(tokenizer: &Tokenizer, prompt: &'a str, known: &[Option<TokenLogprobs>]) -> &'a str {
    let others: usize = known.iter().flatten().map(|token| bytes(tokenizer, token.token).len()).sum();
    prompt.get(..prompt.len().saturating_sub(others)).unwrap_or("")
}
