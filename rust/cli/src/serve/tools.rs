//! Functions that the model may call.

use fastq_core::chat::{MAX_TOOL_NAME, MAX_TOOLS, Tool, ToolChoice, read_tools};
use serde_json::{Value, json};

use super::error::{ApiError, ApiResult};
use super::fields::{Fields, wrong};

/// The functions of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Tools {
    /// What there is to call.
    pub(super) list: Vec<Tool>,
    /// Which of them the answer shall call.
    pub(super) choice: ToolChoice,
    /// Whether a call must have exactly the arguments of its schema, although the model decides whether it calls.
    pub(super) strict: bool,
}

impl Tools {
    /// Whether the answer is held to the grammar of calls.
    pub(super) fn constrain(&self) -> bool {
        !self.list.is_empty() && (self.strict || matches!(self.choice, ToolChoice::Required | ToolChoice::Named(_)))
    }
}

/// The name of a function.
fn name<'a>(fields: &Fields<'a>) -> ApiResult<&'a str> {
    let valid = |name: &&str| {
        (1..=MAX_TOOL_NAME).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
    };
    let expected = &format!("1 to {MAX_TOOL_NAME} letters, digits, underscores, hyphens and dots");
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

/// The functions of a request, without any when none may be called.
///
/// # Errors
/// 400 naming the field.
pub(super) fn read(fields: &Fields<'_>, flat: bool) -> ApiResult<Tools> {
    let tools = fields.objects("tools", MAX_TOOLS)?;
    let list = tools.iter().map(|fields| tool(fields, flat)).collect::<ApiResult<Vec<_>>>()?;
    let strict = |fields: &Fields<'_>| match flat {
        true => fields.boolean("strict"),
        false => fields.object("function")?.map_or(Ok(None), |function| function.boolean("strict")),
    };
    let strict = tools.iter().map(strict).collect::<ApiResult<Vec<_>>>()?.contains(&Some(true));
    let list = read_tools(&list).map_err(|error| ApiError::field(fields.path("tools"), error.to_string()))?;
    // Whether there may be several calls in an answer is left to the model and its format.
    fields.boolean("parallel_tool_calls")?;
    let choice = choice(fields, flat)?;
    if let ToolChoice::Named(name) = &choice
        && !list.iter().any(|tool| tool.name == *name)
    {
        let message = format!("tool_choice names {name:?}, which is not among tools");
        return Err(ApiError::field(fields.path("tool_choice"), message));
    }
    if list.is_empty() && choice == ToolChoice::Required {
        return Err(ApiError::field(fields.path("tool_choice"), "tool_choice is \"required\", but there are no tools"));
    }
    let list = if choice == ToolChoice::None { Vec::new() } else { list };
    Ok(Tools { list, choice, strict })
}

fn choice(fields: &Fields<'_>, flat: bool) -> ApiResult<ToolChoice> {
    let expected = "\"none\", \"auto\", \"required\" or an object that names a function";
    match fields.get("tool_choice") {
        None => Ok(ToolChoice::Auto),
        Some(Value::String(text)) => match text.as_str() {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            "required" | "any" => Ok(ToolChoice::Required),
            _ => Err(fields.wrong("tool_choice", expected)),
        },
        Some(value) => {
            let path = fields.path("tool_choice");
            let Value::Object(_) = value else { return Err(wrong(&path, expected, value)) };
            let choice = Fields::of(value, &path)?;
            let function = if flat { Some(choice) } else { choice.object("function")? };
            let function = function.ok_or_else(|| wrong(&path, expected, value))?;
            Ok(ToolChoice::Named(name(&function)?.to_owned()))
        }
    }
}
