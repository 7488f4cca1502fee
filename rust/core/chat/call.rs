//! The inside of a tool call, read character by character: what all ways to write one have in common.

use std::sync::Arc;

use super::bare::BareCall;
use super::families::{Body, Syntax};
use super::json_call::JsonCalls;
use super::json_text::Step;
use super::named::NamedCall;
use super::python::PythonCalls;
use super::tools::Tool;
use super::xml::XmlCall;

/// What was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// A call begins, with the id that the model gave it, if any.
    Call { name: String, id: Option<String> },
    /// More of the JSON text of its arguments.
    Arguments(String),
}

/// Adds `text` to the arguments of the last call.
pub(super) fn append(events: &mut Vec<Event>, text: &str) {
    match events.last_mut() {
        _ if text.is_empty() => {}
        Some(Event::Arguments(arguments)) => arguments.push_str(text),
        _ => events.push(Event::Arguments(text.to_owned())),
    }
}

/// The tools that a call may name; `None` when they are not known, and any name goes.
#[derive(Clone, Debug, Default)]
pub(super) struct Known(Option<Arc<[Tool]>>);

impl Known {
    pub(super) fn new(tools: Vec<Tool>) -> Known {
        Known(Some(tools.into()))
    }

    pub(super) fn allows(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|tools| tools.iter().any(|tool| tool.name == name))
    }

    /// The JSON types of an argument; empty when nothing is known.
    pub(super) fn types(&self, tool: &str, argument: &str) -> Vec<&str> {
        let tool = self.0.as_ref().and_then(|tools| tools.iter().find(|known| known.name == tool));
        let schema = tool.and_then(|tool| tool.parameters.get("properties")?.get(argument));
        let mut types = Vec::new();
        if let Some(schema) = schema {
            types_of(schema, &mut types);
        }
        types
    }
}

fn types_of<'a>(schema: &'a serde_json::Value, types: &mut Vec<&'a str>) {
    match &schema["type"] {
        serde_json::Value::String(name) => types.push(name),
        serde_json::Value::Array(names) => types.extend(names.iter().filter_map(serde_json::Value::as_str)),
        _ => {}
    }
    for key in ["anyOf", "oneOf"] {
        for branch in schema[key].as_array().into_iter().flatten() {
            // One level: what pydantic writes for `int | None`.
            match &branch["type"] {
                serde_json::Value::String(name) => types.push(name),
                _ => types.push(""),
            }
        }
    }
    if types.is_empty() && schema["enum"].as_array().is_some_and(|values| values.iter().all(|value| value.is_string()))
    {
        types.push("string");
    }
}

/// The state of what stands between two markers.
#[derive(Clone, Debug)]
pub(super) enum Reader {
    Json(JsonCalls),
    Named(NamedCall),
    Xml(XmlCall),
    Python(PythonCalls),
    Bare(BareCall),
}

impl Reader {
    pub(super) fn new(syntax: &Syntax) -> Reader {
        match syntax.body {
            Body::Json => Reader::Json(JsonCalls::new(syntax.doubtful)),
            Body::Named(end) => Reader::Named(NamedCall::new(end)),
            Body::Mistral => Reader::Named(NamedCall::mistral()),
            Body::Xml(opened) => Reader::Xml(XmlCall::new(opened)),
            Body::Python => Reader::Python(PythonCalls::new(syntax.doubtful)),
            Body::Bare(quote) => Reader::Bare(BareCall::new(quote)),
        }
    }

    /// Takes one character. Events tell of what can no longer turn out to be something else.
    pub(super) fn push(&mut self, character: char, known: &Known, events: &mut Vec<Event>) -> Step {
        match self {
            Reader::Json(reader) => reader.push(character, known, events),
            Reader::Named(reader) => reader.push(character, known, events),
            Reader::Xml(reader) => reader.push(character, known, events),
            Reader::Python(reader) => reader.push(character, known, events),
            Reader::Bare(reader) => reader.push(character, known, events),
        }
    }

    /// Whether the next character may belong to arguments that were begun.
    pub(super) fn in_arguments(&self) -> bool {
        match self {
            Reader::Json(reader) => reader.in_arguments(),
            Reader::Named(reader) => reader.in_arguments(),
            Reader::Xml(_) | Reader::Python(_) | Reader::Bare(_) => false,
        }
    }
}
