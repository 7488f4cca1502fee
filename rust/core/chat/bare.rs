//! Calls as FunctionGemma and Gemma 4 write them: `call:NAME{key:<escape>text<escape>,count:3}`.

use serde_json::{Map, Value};

use super::call::{Event, Known, append};
use super::json_text::{MAX_ARGUMENTS_DEPTH, Step};
use super::tools::is_name;

const CALL: &str = "call:";
/// Most text before the first brace, in bytes.
const MAX_BEFORE: usize = 256;

/// Waits for the end, then reads the whole.
#[derive(Clone, Debug)]
pub(super) struct BareCall {
    /// What stands around strings.
    quote: &'static str,
    text: String,
    open: Vec<char>,
    quoted: bool,
    /// Where the last quote ended: the next one does not overlap it.
    after_quote: usize,
}

impl BareCall {
    pub(super) fn new(quote: &'static str) -> BareCall {
        BareCall { quote, text: String::new(), open: Vec::new(), quoted: false, after_quote: 0 }
    }

    pub(super) fn push(&mut self, character: char, _known: &Known, events: &mut Vec<Event>) -> Step {
        self.text.push(character);
        if !self.open.is_empty() && self.text[self.after_quote..].ends_with(self.quote) {
            self.quoted = !self.quoted;
            self.after_quote = self.text.len();
            return Step::More;
        }
        if self.quoted {
            return Step::More;
        }
        match character {
            '{' | '[' if self.open.len() < MAX_ARGUMENTS_DEPTH => self.open.push(character),
            '{' | '[' => return Step::Bad,
            '}' | ']' => {
                let opened = self.open.pop();
                if !matches!((opened, character), (Some('{'), '}') | (Some('['), ']')) {
                    return Step::Bad;
                }
                if self.open.is_empty() {
                    return self.finish(events);
                }
            }
            _ if self.open.is_empty() && self.text.len() > MAX_BEFORE => return Step::Bad,
            _ if self.open.is_empty() => {
                let text = self.text.trim_start();
                let begins = CALL.starts_with(text)
                    || text.strip_prefix(CALL).is_some_and(|name| is_name(name.trim()) || name.trim().is_empty());
                return if begins { Step::More } else { Step::Bad };
            }
            _ => {}
        }
        Step::More
    }

    fn finish(&mut self, events: &mut Vec<Event>) -> Step {
        let call = self.text.trim().strip_prefix(CALL).and_then(|call| call.split_once('{'));
        let Some((name, rest)) = call.filter(|(name, _)| is_name(name.trim())) else { return Step::Bad };
        let mut reader = Bare { rest, quote: self.quote };
        match reader.object(MAX_ARGUMENTS_DEPTH) {
            Some(arguments) if reader.rest.is_empty() => {
                events.push(Event::Call { name: name.trim().to_owned(), id: None });
                append(events, &Value::Object(arguments).to_string());
                Step::Done
            }
            _ => Step::Bad,
        }
    }
}

/// What is left to read.
struct Bare<'a> {
    rest: &'a str,
    quote: &'static str,
}

impl Bare<'_> {
    fn take(&mut self, text: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// What follows `{`.
    fn object(&mut self, depth: usize) -> Option<Map<String, Value>> {
        let below = depth.checked_sub(1)?;
        let mut map = Map::new();
        while !self.take("}") {
            if !map.is_empty() && !self.take(",") {
                return None;
            }
            let key = match self.quoted()? {
                Some(key) => key,
                None => self.until(&[':']),
            };
            if key.is_empty() || !self.take(":") {
                return None;
            }
            let value = self.value(below)?;
            map.insert(key, value);
        }
        Some(map)
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        let below = depth.checked_sub(1)?;
        if let Some(text) = self.quoted()? {
            return Some(Value::String(text));
        }
        if self.take("{") {
            return self.object(depth).map(Value::Object);
        }
        if self.take("[") {
            let mut items = Vec::new();
            while !self.take("]") {
                if !items.is_empty() && !self.take(",") {
                    return None;
                }
                items.push(self.value(below)?);
            }
            return Some(Value::Array(items));
        }
        let word = self.until(&[',', '}', ']']);
        let value = serde_json::from_str(&word).ok().filter(|value: &Value| !value.is_array() && !value.is_object());
        match word.is_empty() {
            true => None,
            false => Some(value.unwrap_or(Value::String(word))),
        }
    }

    /// A string between quotes, if one follows; `None` when it does not end.
    fn quoted(&mut self) -> Option<Option<String>> {
        if !self.take(self.quote) {
            return Some(None);
        }
        let (text, rest) = self.rest.split_once(self.quote)?;
        self.rest = rest;
        Some(Some(text.to_owned()))
    }

    /// The text up to one of these, without white space around it.
    fn until(&mut self, ends: &[char]) -> String {
        let end = self.rest.find(ends).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        text.trim().to_owned()
    }
}
