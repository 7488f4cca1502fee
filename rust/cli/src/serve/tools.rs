//! Functions that the model may call, and telling calls and reasoning from text.

use serde_json::{Value, json};

use super::error::{ApiError, ApiResult};
use super::fields::{Fields, wrong};

/// The most functions of a request.
const MAX_TOOLS: usize = 128;

/// The functions of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Tools {
    /// As templates take them: `{"type": "function", "function": {"name": …, "description": …, "parameters": …}}`.
    pub(super) list: Vec<Value>,
    /// Which of them the answer shall call.
    pub(super) choice: Choice,
}

/// `tool_choice`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Choice {
    /// The model decides.
    #[default]
    Auto,
    /// None.
    None,
    /// Any of them.
    Required,
    /// This one.
    Function(String),
}

/// What came of a piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Delta {
    /// Text for the user.
    Content(String),
}

/// The name of a function: OpenAI's rule.
fn name<'a>(fields: &Fields<'a>) -> ApiResult<&'a str> {
    let valid = |name: &&str| {
        (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    let expected = "1 to 64 letters, digits, underscores and hyphens";
    fields.text("name")?.filter(valid).ok_or_else(|| fields.wrong("name", expected))
}

/// One function. In `/v1/chat/completions` it is an object of its own, in `/v1/responses` (`flat`) its fields stand beside `type`.
fn tool(fields: &Fields<'_>, flat: bool) -> ApiResult<Value> {
    fields.one_of("type", &["function"])?.ok_or_else(|| fields.wrong("type", "\"function\""))?;
    let function = if flat {
        fields.clone()
    } else {
        fields.object("function")?.ok_or_else(|| fields.wrong("function", "an object"))?
    };
    let mut tool = json!({ "name": name(&function)? });
    if let Some(description) = function.text("description")? {
        tool["description"] = description.into();
    }
    function.object("parameters")?;
    tool["parameters"] =
        function.get("parameters").cloned().unwrap_or_else(|| json!({ "type": "object", "properties": {} }));
    Ok(json!({ "type": "function", "function": tool }))
}

/// The functions of a request; `None` when there are none, or none may be called.
///
/// # Errors
/// 400 naming the field.
pub(super) fn read(fields: &Fields<'_>, flat: bool) -> ApiResult<Option<Tools>> {
    let tools = fields.objects("tools", MAX_TOOLS)?;
    let list = tools.iter().map(|fields| tool(fields, flat)).collect::<ApiResult<Vec<_>>>()?;
    let choice = choice(fields, flat)?;
    if let Choice::Function(name) = &choice
        && !list.iter().any(|tool| tool["function"]["name"] == *name)
    {
        let message = format!("tool_choice names {name:?}, which is not among tools");
        return Err(ApiError::field(fields.path("tool_choice"), message));
    }
    if list.is_empty() && choice == Choice::Required {
        return Err(ApiError::field(fields.path("tool_choice"), "tool_choice is \"required\", but there are no tools"));
    }
    Ok((!list.is_empty() && choice != Choice::None).then_some(Tools { list, choice }))
}

fn choice(fields: &Fields<'_>, flat: bool) -> ApiResult<Choice> {
    let expected = "\"none\", \"auto\", \"required\" or an object that names a function";
    match fields.get("tool_choice") {
        None => Ok(Choice::Auto),
        Some(Value::String(text)) => match text.as_str() {
            "auto" => Ok(Choice::Auto),
            "none" => Ok(Choice::None),
            "required" | "any" => Ok(Choice::Required),
            _ => Err(fields.wrong("tool_choice", expected)),
        },
        Some(value) => {
            let path = fields.path("tool_choice");
            let Value::Object(_) = value else { return Err(wrong(&path, expected, value)) };
            let choice = Fields::of(value, &path)?;
            let function = if flat { Some(choice) } else { choice.object("function")? };
            let function = function.ok_or_else(|| wrong(&path, expected, value))?;
            Ok(Choice::Function(name(&function)?.to_owned()))
        }
    }
}
