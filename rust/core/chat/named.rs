//! Calls as a name with JSON after it: `get_weather[ARGS]{…}`, `get_weather>{…}`.

use super::call::{Event, Known, append};
use super::json_call::JsonCalls;
use super::json_text::{JsonText, Step};
use super::tools::{MAX_TOOL_NAME, is_name, is_name_character};

/// Between the name and an id.
const CALL_ID: &str = "[CALL_ID]";
/// Before the arguments.
const ARGS: &str = "[ARGS]";

#[derive(Clone, Debug)]
enum State {
    /// Before the name, or JSON instead of it.
    Begin,
    Name,
    /// Inside a marker.
    Marker(String),
    /// After the name or the id.
    Id,
    /// Before `{`.
    Before,
    Arguments(JsonText),
    /// The form of older Mistral models.
    Json(JsonCalls),
}

/// One call.
#[derive(Clone, Debug)]
pub(super) struct NamedCall {
    /// What stands between name and arguments.
    end: &'static str,
    mistral: bool,
    state: State,
    name: String,
    id: Option<String>,
}

impl NamedCall {
    pub(super) fn new(end: &'static str) -> NamedCall {
        NamedCall { end, mistral: false, state: State::Begin, name: String::new(), id: None }
    }

    pub(super) fn mistral() -> NamedCall {
        NamedCall { mistral: true, ..NamedCall::new(ARGS) }
    }

    /// A call whose name was in a header.
    pub(super) fn headed(name: &str) -> NamedCall {
        NamedCall { state: State::Before, name: name.to_owned(), ..NamedCall::new("") }
    }

    pub(super) fn in_arguments(&self) -> bool {
        match &self.state {
            State::Arguments(_) => true,
            State::Json(calls) => calls.in_arguments(),
            _ => false,
        }
    }

    pub(super) fn push(&mut self, character: char, known: &Known, events: &mut Vec<Event>) -> Step {
        let blank = matches!(character, ' ' | '\t' | '\n' | '\r');
        match &mut self.state {
            State::Begin | State::Before if blank => Step::More,
            State::Begin if self.mistral && matches!(character, '[' | '{') => {
                let mut calls = JsonCalls::new(false);
                let step = calls.push(character, known, events);
                self.state = State::Json(calls);
                step
            }
            State::Json(calls) => calls.push(character, known, events),
            State::Begin | State::Name if is_name_character(character) && self.name.len() < MAX_TOOL_NAME => {
                self.name.push(character);
                self.state = State::Name;
                Step::More
            }
            State::Name if blank => {
                self.state = State::Id;
                Step::More
            }
            // Some leave the marker out.
            State::Name | State::Id if self.mistral && character == '{' => self.begin(known, events),
            State::Name => self.marker(String::new(), character),
            State::Marker(marker) => {
                let marker = std::mem::take(marker);
                self.marker(marker, character)
            }
            State::Id => match &mut self.id {
                Some(id) if character.is_ascii_alphanumeric() && id.len() < MAX_TOOL_NAME => {
                    id.push(character);
                    Step::More
                }
                _ if blank => Step::More,
                _ => self.marker(String::new(), character),
            },
            State::Before if character == '{' => self.begin(known, events),
            State::Arguments(json) => {
                let mut text = String::new();
                let step = json.push(character, &mut text);
                append(events, &text);
                step
            }
            State::Begin | State::Before => Step::Bad,
        }
    }

    /// More of a marker.
    fn marker(&mut self, mut marker: String, character: char) -> Step {
        marker.push(character);
        self.state = match &marker {
            marker if marker == self.end => State::Before,
            marker if marker == CALL_ID && self.mistral && self.id.is_none() => {
                self.id = Some(String::new());
                State::Id
            }
            marker if self.end.starts_with(marker) || (self.mistral && CALL_ID.starts_with(marker)) => {
                State::Marker(marker.clone())
            }
            _ => return Step::Bad,
        };
        Step::More
    }

    /// `{` of the arguments.
    fn begin(&mut self, known: &Known, events: &mut Vec<Event>) -> Step {
        if !is_name(&self.name) {
            return Step::Bad;
        }
        events.push(Event::Call { name: self.name.clone(), id: self.id.take() });
        self.state = State::Arguments(JsonText::new());
        self.push('{', known, events)
    }
}
