//! Calls as JSON: `{"name": …, "arguments": {…}}`, one or a list.

use super::call::{Event, Known, append};
use super::json_text::{JsonText, Step};
use super::tools::is_name;

/// Longest key of a call, with its quotes.
const MAX_KEY: usize = 64;
/// Longest name or id as it stands in JSON, with escapes and quotes.
const MAX_SHORT: usize = 512;

/// One call or a list of them.
#[derive(Clone, Debug)]
pub(super) struct JsonCalls {
    doubtful: bool,
    list: bool,
    state: Outer,
}

#[derive(Clone, Debug)]
enum Outer {
    /// Before `[` or `{`.
    Begin,
    /// Before `{` in a list; `true` where the list may end as well.
    Item(bool),
    Inside(Box<CallObject>),
    /// After a call in a list.
    Between,
}

impl JsonCalls {
    pub(super) fn new(doubtful: bool) -> JsonCalls {
        JsonCalls { doubtful, list: false, state: Outer::Begin }
    }

    pub(super) fn in_arguments(&self) -> bool {
        matches!(&self.state, Outer::Inside(call) if call.in_arguments())
    }

    pub(super) fn push(&mut self, character: char, known: &Known, events: &mut Vec<Event>) -> Step {
        match (&mut self.state, character) {
            (Outer::Begin | Outer::Item(_) | Outer::Between, ' ' | '\t' | '\n' | '\r') => Step::More,
            (Outer::Begin, '[') => {
                self.list = true;
                self.state = Outer::Item(!self.doubtful);
                Step::More
            }
            (Outer::Begin | Outer::Item(_), '{') => {
                self.state = Outer::Inside(Box::new(CallObject::new(self.doubtful)));
                Step::More
            }
            (Outer::Item(true) | Outer::Between, ']') => Step::Done,
            (Outer::Between, ',') => {
                self.state = Outer::Item(false);
                Step::More
            }
            (Outer::Inside(call), _) => match call.push(character, known, events) {
                Step::Done if self.list => {
                    self.state = Outer::Between;
                    Step::More
                }
                step => step,
            },
            _ => Step::Bad,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Key {
    Name,
    Arguments,
    Id,
    /// The call itself, as OpenAI nests it, or the name.
    Function,
    Type,
    Other,
}

#[derive(Clone, Debug)]
enum Inner {
    /// Before a key; `true` where the object may end instead.
    Key(bool),
    /// Inside a key.
    KeyText(JsonText),
    Colon(Key),
    Value(Key),
    /// A string whose text counts.
    Text(Key, JsonText),
    /// The object of the arguments.
    Arguments(JsonText),
    /// What does not count.
    Skip(JsonText),
    SkipNumber,
    /// After a value.
    Next,
}

/// One call after its `{`.
#[derive(Clone, Debug)]
struct CallObject {
    doubtful: bool,
    state: Inner,
    /// Inside the object of `function`.
    nested: bool,
    name: Option<String>,
    id: Option<String>,
    /// Arguments that came before the name, or as a string.
    waiting: Option<String>,
    announced: bool,
    /// The string that is being read.
    text: String,
}

impl CallObject {
    fn new(doubtful: bool) -> CallObject {
        CallObject {
            doubtful,
            state: Inner::Key(true),
            nested: false,
            name: None,
            id: None,
            waiting: None,
            announced: false,
            text: String::new(),
        }
    }

    fn in_arguments(&self) -> bool {
        self.announced && matches!(self.state, Inner::Arguments(_))
    }

    fn push(&mut self, character: char, known: &Known, events: &mut Vec<Event>) -> Step {
        let blank = matches!(character, ' ' | '\t' | '\n' | '\r');
        match &mut self.state {
            Inner::Key(_) | Inner::Colon(_) | Inner::Value(_) | Inner::Next if blank => Step::More,
            Inner::Key(_) if character == '"' => self.text_begins(Inner::KeyText),
            Inner::Key(true) | Inner::Next if character == '}' => self.object_ends(known, events),
            Inner::Next if character == ',' => self.goes_on(Inner::Key(false)),
            Inner::KeyText(json) => {
                let step = json.push(character, &mut self.text);
                match step {
                    Step::Done => self.key_ends(),
                    _ if self.text.len() > MAX_KEY => Step::Bad,
                    step => step,
                }
            }
            Inner::Colon(key) if character == ':' => {
                let key = *key;
                self.goes_on(Inner::Value(key))
            }
            Inner::Value(key) => {
                let key = *key;
                self.value_begins(key, character, known, events)
            }
            Inner::Text(key, json) => {
                let key = *key;
                match json.push(character, &mut self.text) {
                    Step::Done => self.text_ends(key, known, events),
                    _ if key != Key::Arguments && self.text.len() > MAX_SHORT => Step::Bad,
                    step => step,
                }
            }
            Inner::Arguments(json) => {
                let mut text = String::new();
                let step = json.push(character, &mut text);
                match self.announced {
                    true => append(events, &text),
                    false => self.waiting.get_or_insert_default().push_str(&text),
                }
                self.value_ends(step)
            }
            Inner::Skip(json) => {
                let step = json.push(character, &mut String::new());
                self.value_ends(step)
            }
            Inner::SkipNumber if matches!(character, '0'..='9' | '.' | '-' | '+' | 'e' | 'E') => Step::More,
            Inner::SkipNumber => {
                self.state = Inner::Next;
                self.push(character, known, events)
            }
            _ => Step::Bad,
        }
    }

    fn goes_on(&mut self, state: Inner) -> Step {
        self.state = state;
        Step::More
    }

    /// A string begins with its quote.
    fn text_begins(&mut self, state: impl FnOnce(JsonText) -> Inner) -> Step {
        self.text.clear();
        let mut json = JsonText::new();
        let step = json.push('"', &mut self.text);
        self.state = state(json);
        step
    }

    fn value_ends(&mut self, step: Step) -> Step {
        match step {
            Step::Done => self.goes_on(Inner::Next),
            step => step,
        }
    }

    fn key_ends(&mut self) -> Step {
        let key = match self.text.as_str() {
            "\"name\"" => Key::Name,
            "\"arguments\"" | "\"parameters\"" => Key::Arguments,
            "\"id\"" => Key::Id,
            "\"function\"" => Key::Function,
            "\"type\"" => Key::Type,
            _ => Key::Other,
        };
        let twice = match key {
            Key::Name => self.name.is_some(),
            Key::Arguments => self.announced || self.waiting.is_some(),
            _ => false,
        };
        if twice || (key == Key::Other && self.doubtful) {
            return Step::Bad;
        }
        self.goes_on(Inner::Colon(key))
    }

    fn value_begins(&mut self, key: Key, character: char, known: &Known, events: &mut Vec<Event>) -> Step {
        match (key, character) {
            (Key::Name | Key::Id | Key::Arguments | Key::Function, '"') => {
                self.text_begins(|json| Inner::Text(key, json))
            }
            (Key::Function, '{') if !self.nested => {
                self.nested = true;
                self.goes_on(Inner::Key(true))
            }
            (Key::Arguments, '{') => {
                if self.name.is_some() && !self.announce(known, events) {
                    return Step::Bad;
                }
                self.state = Inner::Arguments(JsonText::new());
                self.push(character, known, events)
            }
            // `null` means that there are none; it is read like what does not count.
            (Key::Arguments, 'n') => {
                self.waiting = Some(String::new());
                self.skip(character)
            }
            (Key::Name | Key::Arguments | Key::Function, _) => Step::Bad,
            (_, '0'..='9' | '-') => self.goes_on(Inner::SkipNumber),
            _ => self.skip(character),
        }
    }

    fn skip(&mut self, character: char) -> Step {
        let mut json = JsonText::new();
        let step = json.push(character, &mut String::new());
        self.state = Inner::Skip(json);
        step
    }

    /// A string that counts is complete.
    fn text_ends(&mut self, key: Key, known: &Known, events: &mut Vec<Event>) -> Step {
        let Ok(text) = serde_json::from_str::<String>(&self.text) else { return Step::Bad };
        self.state = Inner::Next;
        match key {
            Key::Name | Key::Function if !is_name(&text) => return Step::Bad,
            Key::Name | Key::Function => {
                self.name = Some(text);
                if self.waiting.is_some() && !self.announce(known, events) {
                    return Step::Bad;
                }
            }
            Key::Id => self.id = Some(text),
            _ => {
                let object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text);
                if object.is_err() && !text.trim().is_empty() {
                    return Step::Bad;
                }
                self.waiting = Some(text.trim().to_owned());
                if self.name.is_some() && !self.announce(known, events) {
                    return Step::Bad;
                }
            }
        }
        Step::More
    }

    /// Tells of the call and of arguments that came before; whether it may be one.
    fn announce(&mut self, known: &Known, events: &mut Vec<Event>) -> bool {
        let Some(name) = self.name.clone() else { return false };
        if self.doubtful && !known.allows(&name) {
            return false;
        }
        events.push(Event::Call { name, id: self.id.take() });
        self.announced = true;
        if let Some(arguments) = &self.waiting {
            append(events, if arguments.is_empty() { "{}" } else { arguments });
        }
        true
    }

    /// `}` after keys and values.
    fn object_ends(&mut self, known: &Known, events: &mut Vec<Event>) -> Step {
        if std::mem::take(&mut self.nested) {
            return self.goes_on(Inner::Next);
        }
        if self.announced {
            return Step::Done;
        }
        let complete = self.waiting.is_some() || !self.doubtful;
        self.waiting.get_or_insert_default();
        if complete && self.announce(known, events) { Step::Done } else { Step::Bad }
    }
}
