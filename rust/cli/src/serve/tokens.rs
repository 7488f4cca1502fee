//! Texts and token ids in requests.

use fastq_core::Prompt;
use serde_json::Value;

use super::error::{ApiError, ApiResult};
use super::fields::{Fields, wrong};

/// The most texts of a request.
const MAX_TEXTS: usize = 2048;

/// The token ids of a list.
///
/// # Errors
/// 400 for what is no token.
pub(super) fn ids(values: &[Value], path: &str, vocabulary: usize) -> ApiResult<Vec<u32>> {
    let id = |value: &Value| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|&id| (id as usize) < vocabulary);
        id.ok_or_else(|| wrong(path, &format!("token ids from 0 to {}", vocabulary - 1), value))
    };
    values.iter().map(id).collect()
}

/// OpenAI's four forms: a text, a list of texts, a list of token ids, a list of those.
///
/// # Errors
/// 400 naming the field.
pub(super) fn prompts(fields: &Fields<'_>, name: &str, vocabulary: usize) -> ApiResult<Vec<Prompt>> {
    let expected =
        format!("a string, a list of 1 to {MAX_TEXTS} strings, a list of token ids, or a list of such lists");
    let path = fields.path(name);
    let list = match fields.get(name) {
        Some(Value::String(text)) => return Ok(vec![Prompt::Text(text.clone())]),
        Some(Value::Array(list)) if !list.is_empty() => list,
        _ => return Err(fields.wrong(name, &expected)),
    };
    if list[0].is_number() {
        return Ok(vec![Prompt::Tokens(ids(list, &path, vocabulary)?)]);
    }
    if list.len() > MAX_TEXTS {
        return Err(fields.wrong(name, &expected));
    }
    let each = |(at, value): (usize, &Value)| {
        let path = format!("{path}[{at}]");
        match value {
            Value::String(text) => Ok(Prompt::Text(text.clone())),
            Value::Array(list) if !list.is_empty() => Ok(Prompt::Tokens(ids(list, &path, vocabulary)?)),
            Value::Array(_) => Err(ApiError::field(&path, format!("{path} is an empty list of tokens"))),
            other => Err(wrong(&path, "a string or a list of token ids", other)),
        }
    };
    list.iter().enumerate().map(each).collect()
}
