//! Calls as Qwen3-Coder writes them: `<function=NAME>`, `<parameter=KEY>\nVALUE\n</parameter>` in turn, `</function>`.

use serde_json::{Map, Value};

use super::call::{Event, Known, append};
use super::json_text::{MAX_ARGUMENTS_DEPTH, Step};
use super::tools::{MAX_TOOL_NAME, is_name};

const FUNCTION: &str = "<function=";
const PARAMETER: &str = "<parameter=";
const END_PARAMETER: &str = "</parameter>";
const END_FUNCTION: &str = "</function>";

/// Most white space and tag between two values, in bytes.
const MAX_BETWEEN: usize = 256;

#[derive(Clone, Debug)]
enum State {
    /// Before and in `<function=`.
    Open(String),
    Name,
    /// Before `<parameter=` or `</function>`, with what came since the last value.
    Between(String),
    Key(String),
    Value,
}

/// One call.
#[derive(Clone, Debug)]
pub(super) struct XmlCall {
    state: State,
    name: String,
    /// Keys and values as written; the last one is being read.
    parameters: Vec<(String, String)>,
}

impl XmlCall {
    /// `outer`: `<function=` was not read yet.
    pub(super) fn new(outer: bool) -> XmlCall {
        let state = if outer { State::Open(String::new()) } else { State::Name };
        XmlCall { state, name: String::new(), parameters: Vec::new() }
    }

    pub(super) fn push(&mut self, character: char, known: &Known, events: &mut Vec<Event>) -> Step {
        match &mut self.state {
            State::Open(held) if held.is_empty() && character.is_whitespace() => Step::More,
            State::Open(held) => {
                held.push(character);
                match held.as_str() {
                    FUNCTION => self.goes_on(State::Name),
                    held if FUNCTION.starts_with(held) => Step::More,
                    _ => Step::Bad,
                }
            }
            State::Name if character == '>' && is_name(self.name.trim()) => {
                self.name = self.name.trim().to_owned();
                self.goes_on(State::Between(String::new()))
            }
            State::Name if self.name.len() <= MAX_TOOL_NAME => {
                self.name.push(character);
                Step::More
            }
            State::Name => Step::Bad,
            State::Key(key) if character == '>' && !key.is_empty() => {
                let key = std::mem::take(key);
                // A key that comes twice would be lost in an object.
                if self.parameters.iter().any(|(known, _)| *known == key) {
                    return Step::Bad;
                }
                self.parameters.push((key, String::new()));
                self.goes_on(State::Value)
            }
            State::Key(key) if key.len() <= 4 * MAX_TOOL_NAME && !matches!(character, '<' | '\n') => {
                key.push(character);
                Step::More
            }
            State::Key(_) => Step::Bad,
            State::Value => {
                let Some((_, value)) = self.parameters.last_mut() else { return Step::Bad };
                value.push(character);
                if character == '>' && value.ends_with(END_PARAMETER) {
                    value.truncate(value.len() - END_PARAMETER.len());
                    return self.goes_on(State::Between(String::new()));
                }
                Step::More
            }
            State::Between(held) => {
                held.push(character);
                let tag = held.trim_start();
                if tag == PARAMETER {
                    return self.goes_on(State::Key(String::new()));
                }
                if tag == END_FUNCTION {
                    return self.finish(known, events);
                }
                if held.len() <= MAX_BETWEEN && (PARAMETER.starts_with(tag) || END_FUNCTION.starts_with(tag)) {
                    return Step::More;
                }
                // The end tag was part of the value: code about this very format.
                let held = std::mem::take(held);
                let Some((_, value)) = self.parameters.last_mut() else { return Step::Bad };
                value.push_str(END_PARAMETER);
                value.push_str(&held);
                self.goes_on(State::Value)
            }
        }
    }

    fn goes_on(&mut self, state: State) -> Step {
        self.state = state;
        Step::More
    }

    fn finish(&mut self, known: &Known, events: &mut Vec<Event>) -> Step {
        let mut arguments = Map::new();
        for (key, text) in std::mem::take(&mut self.parameters) {
            let text = text.strip_prefix('\n').unwrap_or(&text);
            let text = text.strip_suffix('\n').unwrap_or(text);
            let value = typed(text, &known.types(&self.name, &key));
            arguments.insert(key, value);
        }
        events.push(Event::Call { name: std::mem::take(&mut self.name), id: None });
        append(events, &Value::Object(arguments).to_string());
        Step::Done
    }
}

/// The value that a text stands for: what the schema asks for, and without one JSON where it is JSON.
fn typed(text: &str, types: &[&str]) -> Value {
    let word = match text.trim() {
        "True" => "true",
        "False" => "false",
        "None" => "null",
        word => word,
    };
    let wanted = |value: &Value| match value {
        _ if types.is_empty() || types.contains(&"") => true,
        Value::Null => types.contains(&"null"),
        Value::Bool(_) => types.contains(&"boolean"),
        Value::Number(_) => types.contains(&"number") || types.contains(&"integer"),
        Value::String(_) => false,
        Value::Array(_) => types.contains(&"array"),
        Value::Object(_) => types.contains(&"object"),
    };
    // serde_json itself stops at 128 levels.
    match serde_json::from_str::<Value>(word) {
        Ok(value) if wanted(&value) && depth(&value) < MAX_ARGUMENTS_DEPTH => value,
        _ => Value::String(text.to_owned()),
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
