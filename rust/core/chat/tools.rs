//! The tools that a caller offers: what is accepted, and how large they may be.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use crate::{Error, Result};

/// Most tools of one request.
pub const MAX_TOOLS: usize = 128;
/// Longest name of a tool, in characters.
pub const MAX_TOOL_NAME: usize = 64;
/// All texts of the tools of one request together, in bytes.
pub const MAX_TOOLS_BYTES: usize = 1 << 20;
/// Deepest nesting of a tool; templates take [`crate::template::MAX_DEPTH`] with the list around it.
pub const MAX_TOOL_DEPTH: usize = 48;

/// A function that the model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// 1 to [`MAX_TOOL_NAME`] of `a-z A-Z 0-9 _ . -`.
    pub name: String,
    /// What it does; empty when nothing was said.
    pub description: String,
    /// The JSON schema of the arguments, an object.
    pub parameters: Map<String, Value>,
    /// As given, in the shape of OpenAI: what templates expect.
    pub definition: Value,
}

impl Tool {
    /// The name, description and parameters, without what else was given.
    pub fn function(&self) -> Value {
        json!({"name": self.name, "description": self.description, "parameters": self.parameters})
    }

    /// The schema with what may be left out filled in: the type, and that there are no other arguments.
    pub(super) fn schema(&self) -> Value {
        let mut schema = self.parameters.clone();
        schema.entry("type").or_insert("object".into());
        schema.entry("properties").or_insert_with(|| json!({}));
        let open = ["additionalProperties", "patternProperties", "anyOf", "oneOf", "allOf", "$ref"];
        if !open.iter().any(|key| schema.contains_key(*key)) {
            schema.insert("additionalProperties".into(), false.into());
        }
        Value::Object(schema)
    }
}

/// Whether `name` may be the name of a tool.
pub(super) fn is_name(name: &str) -> bool {
    (1..=MAX_TOOL_NAME).contains(&name.len()) && name.chars().all(is_name_character)
}

/// Characters of names.
pub(super) fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '.' | '-')
}

/// Reads tools in the shape of OpenAI, `{"type": "function", "function": {"name", "description", "parameters"}}`, or the inner
/// object alone.
///
/// # Errors
/// [`Error::Argument`] naming the tool and what is wrong with it, or a limit.
pub fn read_tools(tools: &[Value]) -> Result<Vec<Tool>> {
    if tools.len() > MAX_TOOLS {
        return Err(Error::Argument(format!("tools must be at most {MAX_TOOLS}, found {}", tools.len())));
    }
    let (mut names, mut bytes) = (HashSet::new(), 0);
    let mut read = Vec::with_capacity(tools.len());
    for (index, tool) in tools.iter().enumerate() {
        measure(tool, MAX_TOOL_DEPTH, &mut bytes).map_err(|what| wrong(index, &what))?;
        let tool = read_tool(tool).map_err(|what| wrong(index, &what))?;
        if !names.insert(tool.name.clone()) {
            return Err(wrong(index, &format!("the name {:?} comes twice", tool.name)));
        }
        read.push(tool);
    }
    Ok(read)
}

fn wrong(index: usize, what: &str) -> Error {
    Error::Argument(format!("tools[{index}]: {what}"))
}

fn read_tool(tool: &Value) -> Result<Tool, String> {
    let Some(given) = tool.as_object() else {
        return Err(format!("expected an object with a function, found {}", kind(tool)));
    };
    match given.get("type") {
        None => {}
        Some(Value::String(kind)) if kind == "function" => {}
        Some(other) => return Err(format!("type must be \"function\", found {other:.60}")),
    }
    let function = match given.get("function") {
        None => given,
        Some(Value::Object(function)) => function,
        Some(other) => return Err(format!("function must be an object, found {}", kind(other))),
    };
    let name = match function.get("name") {
        Some(Value::String(name)) if is_name(name) => name.clone(),
        Some(Value::String(name)) => {
            let found: String = name.chars().take(80).collect();
            return Err(format!("name must be 1 to {MAX_TOOL_NAME} letters, digits, '_', '.' or '-', found {found:?}"));
        }
        Some(other) => return Err(format!("name must be a string, found {}", kind(other))),
        None => return Err("name is missing".to_owned()),
    };
    let description = match function.get("description") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => return Err(format!("{name}: description must be a string, found {}", kind(other))),
    };
    let parameters = match function.get("parameters") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(schema)) => schema.clone(),
        Some(other) => return Err(format!("{name}: parameters must be a JSON schema, found {}", kind(other))),
    };
    match parameters.get("type") {
        None => {}
        Some(Value::String(kind)) if kind == "object" => {}
        Some(other) => return Err(format!("{name}: parameters must have the type \"object\", found {other:.60}")),
    }
    if let Some(properties) = parameters.get("properties").filter(|properties| !properties.is_object()) {
        return Err(format!("{name}: parameters.properties must be an object, found {}", kind(properties)));
    }
    if let Some(required) = parameters.get("required") {
        let strings = required.as_array().is_some_and(|names| names.iter().all(Value::is_string));
        if !strings {
            return Err(format!("{name}: parameters.required must be a list of strings"));
        }
    }
    let definition = match given.contains_key("function") {
        true if given.contains_key("type") => tool.clone(),
        true => json!({"type": "function", "function": function}),
        false => {
            let mut function = function.clone();
            function.shift_remove("type");
            json!({"type": "function", "function": function})
        }
    };
    Ok(Tool { name, description, parameters, definition })
}

/// Adds up texts and numbers, and refuses what nests too deep or is too long.
fn measure(value: &Value, depth: usize, bytes: &mut usize) -> Result<(), String> {
    let Some(below) = depth.checked_sub(1) else {
        return Err(format!("it must not nest deeper than {MAX_TOOL_DEPTH}"));
    };
    *bytes += 8;
    match value {
        Value::String(text) => *bytes += text.len(),
        Value::Array(items) => items.iter().try_for_each(|item| measure(item, below, bytes))?,
        Value::Object(map) => {
            for (key, item) in map {
                *bytes += key.len();
                measure(item, below, bytes)?;
            }
        }
        _ => {}
    }
    match *bytes <= MAX_TOOLS_BYTES {
        true => Ok(()),
        false => Err(format!("tools must have at most {MAX_TOOLS_BYTES} bytes together")),
    }
}

/// What JSON calls a value.
pub(super) const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
