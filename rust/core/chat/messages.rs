//! Conversations as the template of the model takes them.
//!
//! Callers write messages in the shape of OpenAI. Templates take them as Hugging Face gives them: arguments of calls as objects,
//! content as text. And where a template knows nothing of tools, they are described in the conversation itself.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::families::Body;
use super::probe::{self, Calls, Content};
use super::tools::{Tool, kind};
use super::{ChatFormat, is_nothing};
use crate::{Error, Result};

/// Most messages of one conversation.
pub const MAX_MESSAGES: usize = 100_000;

/// What the template is given.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// The messages.
    pub messages: Vec<Value>,
    /// A list of tools in the shape of OpenAI; `None` when there are none or the template does not take them.
    pub tools: Option<Value>,
}

type Message = Map<String, Value>;

impl ChatFormat {
    /// Makes a conversation in the shape of OpenAI one that the template of the model takes:
    ///
    /// * Arguments of calls that are JSON text become objects, unless the template wants text.
    /// * Content that is a list of texts becomes one text, a line each, unless the template takes lists; content that is missing
    ///   or null becomes empty.
    /// * Messages of tools get the name of the tool that their `tool_call_id` belongs to; `developer` becomes `system` where the
    ///   template does not know it.
    /// * Where the template does not describe tools, the system message does (or the first message, where the template refuses
    ///   system messages), calls become the text that the description asks for, and results messages of the user that begin
    ///   with `Result of NAME:`.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the message, when it is not an object, has a part that is not text or a call without a name, or
    /// when there are more than [`MAX_MESSAGES`].
    pub fn prepare(&self, messages: &[Value], tools: &[Tool]) -> Result<Prepared> {
        if messages.len() > MAX_MESSAGES {
            let found = messages.len();
            return Err(Error::Argument(format!("messages must be at most {MAX_MESSAGES}, found {found}")));
        }
        let mut prepared = Vec::with_capacity(messages.len());
        let mut names = HashMap::new();
        for (index, message) in messages.iter().enumerate() {
            let message =
                read(message, &mut names).map_err(|what| Error::Argument(format!("messages[{index}]{what}")))?;
            prepared.push(message);
        }
        let described = !tools.is_empty() && !self.describes_tools();
        let about_calls = prepared.iter().any(|message| message.contains_key("tool_calls") || role(message) == "tool");
        let calls = match &self.0.template {
            _ if described => Calls::No,
            Some(template) if about_calls => probe::calls(template, self.describes_tools()),
            _ => Calls::Objects,
        };
        match calls {
            Calls::Objects => {}
            Calls::Texts => prepared.iter_mut().for_each(arguments_as_text),
            Calls::No => prepared = self.as_text(prepared),
        }
        if described {
            self.describe(tools, &mut prepared);
        }
        if !tools.is_empty() && self.takes_tools_in_message() {
            let list: Value = tools.iter().map(Tool::function).collect();
            system_message(&mut prepared).insert("tools".into(), list.to_string().into());
        }
        self.shape(&mut prepared);
        let definitions = (!tools.is_empty() && self.uses("tools"))
            .then(|| tools.iter().map(|tool| tool.definition.clone()).collect::<Value>());
        Ok(Prepared { messages: prepared.into_iter().map(Value::Object).collect(), tools: definitions })
    }

    /// Names of roles and attributes, and the shape of content, as the template knows them.
    fn shape(&self, messages: &mut [Message]) {
        let source = self.source();
        let parts = messages.iter().any(|message| message.get("content").is_some_and(Value::is_array));
        // What a template that looks at parts must contain.
        let looks = source.contains("'text'") || source.contains("\"text\"") || source.contains(".text");
        let content = match &self.0.template {
            Some(template) if parts || looks => probe::content(template),
            _ => Content::Text,
        };
        let thinking = ["thinking']", "thinking\"]", ".thinking"].iter().any(|text| source.contains(text));
        for message in messages {
            if role(message) == "developer" && !source.contains("developer") {
                message.insert("role".into(), "system".into());
            }
            // gpt-oss and LFM2 call it so; with content and calls, gpt-oss takes one of both.
            let both = message.contains_key("tool_calls") && message.get("content").is_some_and(|text| text != "");
            let wanted = thinking && !both && !message.contains_key("thinking");
            if let Some(reasoning) = message.get("reasoning_content").filter(|_| wanted).cloned() {
                message.insert("thinking".into(), reasoning);
            }
            let user = role(message) == "user";
            let Some(given) = message.get_mut("content") else { continue };
            match (content, &given) {
                (Content::Parts, Value::String(text)) => *given = json!([{"type": "text", "text": text}]),
                (Content::Both, Value::Array(_)) if user => {}
                (Content::Text | Content::Both, Value::Array(parts)) => *given = joined(parts).into(),
                _ => {}
            }
        }
    }

    /// Calls and results as text.
    fn as_text(&self, messages: Vec<Message>) -> Vec<Message> {
        let mut written: Vec<Message> = Vec::with_capacity(messages.len());
        // The last message holds results, so that what follows from the user goes there, too: roles must take turns.
        let mut results = false;
        for mut message in messages {
            if let Some(Value::Array(calls)) = message.remove("tool_calls") {
                let mut lines = vec![text(&message)];
                lines.extend(
                    calls.iter().map(|call| self.call_text(&call["function"]["name"], &call["function"]["arguments"])),
                );
                lines.retain(|line| !line.is_empty());
                message.insert("content".into(), lines.join("\n").into());
            }
            let result = role(&message) == "tool";
            if result {
                let name = message.get("name").and_then(Value::as_str).unwrap_or("the tool");
                let content = format!("Result of {name}:\n{}", text(&message));
                message = Map::from_iter([("role".into(), "user".into()), ("content".into(), content.into())]);
            }
            match written.last_mut() {
                Some(last) if results && role(&message) == "user" => {
                    let content = format!("{}\n\n{}", text(last), text(&message));
                    last.insert("content".into(), content.into());
                }
                _ => written.push(message),
            }
            results = result || (results && written.last().is_some_and(|last| role(last) == "user"));
        }
        written
    }

    /// A call as the description asks for it.
    fn call_text(&self, name: &Value, arguments: &Value) -> String {
        let key = self.family().arguments;
        let json = format!("{{\"name\": {name}, \"{key}\": {arguments}}}");
        match self.family().calls.first() {
            Some(syntax) if syntax.body == Body::Json && !syntax.open.is_empty() => {
                format!("{}{json}{}", syntax.open, syntax.close)
            }
            _ => json,
        }
    }

    /// What the model is told about its tools when its template says nothing.
    fn description(&self, tools: &[Tool]) -> String {
        let mut text = String::from(
            "You can use tools. Each of these lines describes one: its name, what it does, and the JSON schema of its arguments.\n",
        );
        for tool in tools {
            text.push_str(&tool.function().to_string());
            text.push('\n');
        }
        text.push_str("\nTo use a tool, answer with a line of this form and nothing else:\n");
        text.push_str(&self.call_text(&"NAME".into(), &json!({"ARGUMENT": "VALUE"})));
        text.push_str(
            "\nTo use several, write a line for each. The results come in the next message. When no tool is needed, answer in words.",
        );
        text
    }

    fn describe(&self, tools: &[Tool], messages: &mut Vec<Message>) {
        let text_of_tools = self.description(tools);
        let system = self.0.template.as_ref().is_none_or(probe::system);
        let first_user = messages.iter().position(|message| role(message) == "user");
        match first_user {
            Some(first) if !system => {
                let content = format!("{text_of_tools}\n\n{}", text(&messages[first]));
                messages[first].insert("content".into(), content.into());
            }
            _ => {
                let message = system_message(messages);
                let before = text(message);
                let gap = if before.is_empty() { "" } else { "\n\n" };
                message.insert("content".into(), format!("{before}{gap}{text_of_tools}").into());
            }
        }
    }
}

/// The system message, which is added when there is none.
fn system_message(messages: &mut Vec<Message>) -> &mut Message {
    if !messages.first().is_some_and(|message| matches!(role(message), "system" | "developer")) {
        messages.insert(0, Map::from_iter([("role".into(), "system".into()), ("content".into(), "".into())]));
    }
    &mut messages[0]
}

fn role(message: &Message) -> &str {
    message.get("role").and_then(Value::as_str).unwrap_or_default()
}

/// The content as one text.
fn text(message: &Message) -> String {
    match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => joined(parts),
        _ => String::new(),
    }
}

/// The texts of parts, a line each.
fn joined(parts: &[Value]) -> String {
    let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
    texts.join("\n")
}

fn arguments_as_text(message: &mut Message) {
    let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
    for call in calls.into_iter().flatten() {
        let arguments = &mut call["function"]["arguments"];
        if !arguments.is_string() {
            *arguments = arguments.to_string().into();
        }
    }
}

/// One message as given. `names` are those of the calls so far by their ids. The error begins with the path inside the message.
fn read(message: &Value, names: &mut HashMap<String, String>) -> Result<Message, String> {
    let Some(given) = message.as_object() else {
        return Err(format!(": expected an object with role and content, found {}", kind(message)));
    };
    let mut message = given.clone();
    message.retain(|key, value| key == "content" || !value.is_null());
    match message.get("content") {
        None | Some(Value::Null) => {
            message.insert("content".into(), "".into());
        }
        Some(Value::Array(parts)) => parts.iter().enumerate().try_for_each(|(index, part)| {
            let kind = part["type"].as_str().unwrap_or("text");
            match part["text"].is_string() && kind == "text" {
                true => Ok(()),
                false => Err(format!(
                    ".content[{index}]: expected {{\"type\": \"text\", \"text\": …}}, found the type {kind:?}; this model takes text only"
                )),
            }
        })?,
        Some(_) => {}
    }
    if message.get("tool_calls").is_some_and(is_nothing) {
        message.shift_remove("tool_calls");
    }
    if let Some(calls) = message.get_mut("tool_calls") {
        let Some(calls) = calls.as_array_mut() else {
            return Err(format!(".tool_calls: expected a list, found {}", kind(calls)));
        };
        for (index, call) in calls.iter_mut().enumerate() {
            *call = read_call(call).map_err(|what| format!(".tool_calls[{index}]: {what}"))?;
            if let (Some(id), Some(name)) = (call["id"].as_str(), call["function"]["name"].as_str()) {
                names.insert(id.to_owned(), name.to_owned());
            }
        }
    }
    if role(&message) == "tool" && !message.contains_key("name") {
        let name = message.get("tool_call_id").and_then(Value::as_str).and_then(|id| names.get(id));
        if let Some(name) = name {
            message.insert("name".into(), name.as_str().into());
        }
    }
    Ok(message)
}

/// A call with its arguments as an object, if they are one.
fn read_call(call: &Value) -> Result<Value, String> {
    let Some(given) = call.as_object() else {
        return Err(format!("expected an object with a function, found {}", kind(call)));
    };
    let function = given.get("function").unwrap_or(call);
    let Some(name) = function["name"].as_str() else {
        return Err("function.name must be a string".to_owned());
    };
    let arguments = match &function["arguments"] {
        Value::Null => json!({}),
        Value::String(text) if text.trim().is_empty() => json!({}),
        // What an answer that was cut off left behind stays text.
        Value::String(text) => match serde_json::from_str::<Value>(text) {
            Ok(object @ Value::Object(_)) => object,
            _ => Value::String(text.clone()),
        },
        given => given.clone(),
    };
    let mut read = if given.contains_key("function") { given.clone() } else { Map::new() };
    read.entry("type").or_insert("function".into());
    if let Some(id) = given.get("id") {
        read.insert("id".into(), id.clone());
    }
    read.insert("function".into(), json!({"name": name, "arguments": arguments}));
    Ok(Value::Object(read))
}
