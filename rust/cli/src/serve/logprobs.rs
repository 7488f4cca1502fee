//! Log-probabilities of the tokens of an answer.

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
