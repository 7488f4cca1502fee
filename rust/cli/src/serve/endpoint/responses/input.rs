//! The `input` of a request as messages that chat templates read.

use serde_json::{Value, json};

use crate::serve::error::ApiResult;
use crate::serve::fields::{Fields, wrong};
use crate::serve::message::{self, MAX_MESSAGES};

/// A text, or items: messages, calls of functions and what these gave.
///
/// # Errors
/// 400 naming the item and the field.
pub(super) fn messages(fields: &Fields<'_>) -> ApiResult<Vec<Value>> {
    let expected = format!("a string or a list of 1 to {MAX_MESSAGES} items");
    match fields.get("input") {
        Some(Value::String(text)) => Ok(vec![json!({ "role": "user", "content": text })]),
        Some(Value::Array(list)) if !list.is_empty() => {
            let mut messages: Vec<Value> = Vec::new();
            for item in fields.objects("input", MAX_MESSAGES)? {
                add(&mut messages, &item)?;
            }
            Ok(messages)
        }
        _ => Err(fields.wrong("input", &expected)),
    }
}

fn add(messages: &mut Vec<Value>, item: &Fields<'_>) -> ApiResult<()> {
    let text = |name: &str| item.text(name)?.ok_or_else(|| item.wrong(name, "a string"));
    match item.text("type")?.unwrap_or("message") {
        "message" => messages.push(message::message(item)?),
        "function_call" => {
            let arguments = message::arguments(item)?;
            let function = json!({ "name": text("name")?, "arguments": arguments });
            let call = json!({ "id": text("call_id")?, "type": "function", "function": function });
            // Calls of one turn are one message of the assistant.
            match messages.last_mut().filter(|last| last["role"] == "assistant") {
                Some(last) => match last.get_mut("tool_calls").and_then(Value::as_array_mut) {
                    Some(calls) => calls.push(call),
                    None => last["tool_calls"] = json!([call]),
                },
                None => messages.push(json!({ "role": "assistant", "content": "", "tool_calls": [call] })),
            }
        }
        "function_call_output" => {
            let output = item.get("output").ok_or_else(|| item.wrong("output", "a string"))?;
            let content = message::text(output, &item.path("output"))?;
            messages.push(json!({ "role": "tool", "tool_call_id": text("call_id")?, "content": content }));
        }
        // What a model thought is not read again.
        "reasoning" => {}
        _ => {
            let expected = "one of \"message\", \"function_call\", \"function_call_output\", \"reasoning\"";
            return Err(item
                .get("type")
                .map_or_else(|| item.wrong("type", expected), |found| wrong(&item.path("type"), expected, found)));
        }
    }
    Ok(())
}
