//! Messages of a conversation: from what clients send to what chat templates read.

use serde_json::{Map, Value, json};

use super::error::ApiResult;
use super::fields::{Fields, wrong};

/// The most messages of a request.
pub(super) const MAX_MESSAGES: usize = 4096;

/// The roles that OpenAI knows.
const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];

/// Types of parts of a message that are text, with the field that holds it.
const TEXT_PARTS: [(&str, &str); 5] = [
    ("text", "text"),
    ("input_text", "text"),
    ("output_text", "text"),
    ("refusal", "refusal"),
    ("summary_text", "text"),
];

/// The messages of a request, checked.
///
/// # Errors
/// 400 naming the message and the field.
pub(super) fn messages(fields: &Fields<'_>) -> ApiResult<Vec<Value>> {
    let messages = fields.objects("messages", MAX_MESSAGES)?;
    if messages.is_empty() {
        return Err(fields.wrong("messages", "a list of at least one message"));
    }
    messages.iter().map(message).collect()
}

/// One message: role, content and what belongs to calls of tools.
pub(super) fn message(fields: &Fields<'_>) -> ApiResult<Value> {
    let role = fields.one_of("role", &ROLES)?.ok_or_else(|| fields.wrong("role", "a string"))?;
    let mut message = Map::new();
    // What OpenAI's newer models call the system message; templates do not know the name.
    message.insert("role".into(), if role == "developer" { "system" } else { role }.into());
    let content = fields.get("content").map(|content| text(content, &fields.path("content"))).transpose()?;
    let calls = fields.objects("tool_calls", MAX_MESSAGES)?;
    if content.is_none() && (role != "assistant" || calls.is_empty()) {
        return Err(fields.wrong("content", "a string or a list of parts"));
    }
    message.insert("content".into(), content.unwrap_or_default().into());
    for name in ["name", "tool_call_id", "reasoning_content"] {
        if let Some(text) = fields.text(name)? {
            message.insert(name.into(), text.into());
        }
    }
    if !calls.is_empty() {
        message.insert("tool_calls".into(), calls.iter().map(call).collect::<ApiResult<Vec<_>>>()?.into());
    }
    Ok(message.into())
}

/// A call of a tool that the assistant made before.
fn call(fields: &Fields<'_>) -> ApiResult<Value> {
    let function = fields.object("function")?.ok_or_else(|| fields.wrong("function", "an object"))?;
    let name = function.text("name")?.ok_or_else(|| function.wrong("name", "a string"))?;
    let arguments = arguments(&function)?;
    let id = fields.text("id")?.unwrap_or_default();
    Ok(json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } }))
}

/// Arguments of a call: the text of a JSON object.
///
/// # Errors
/// 400 for anything else.
pub(super) fn arguments<'a>(fields: &Fields<'a>) -> ApiResult<&'a str> {
    let text = fields.text("arguments")?.filter(|text| !text.trim().is_empty()).unwrap_or("{}");
    match serde_json::from_str::<Map<String, Value>>(text) {
        Ok(_) => Ok(text),
        Err(_) => Err(fields.wrong("arguments", "the text of a JSON object")),
    }
}

/// The text of a content, which may be in parts.
///
/// # Errors
/// 400 for parts that are not text.
pub(super) fn text(content: &Value, path: &str) -> ApiResult<String> {
    match content {
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let mut whole = String::new();
            for (at, part) in parts.iter().enumerate() {
                let fields = Fields::of(part, &format!("{path}[{at}]"))?;
                let kind = fields.text("type")?.ok_or_else(|| fields.wrong("type", "a string"))?;
                let (_, field) = TEXT_PARTS
                    .iter()
                    .find(|(known, _)| *known == kind)
                    .ok_or_else(|| fields.wrong("type", "text: this model reads nothing else"))?;
                whole += fields.text(field)?.ok_or_else(|| fields.wrong(field, "a string"))?;
            }
            Ok(whole)
        }
        other => Err(wrong(path, "a string or a list of parts", other)),
    }
}
