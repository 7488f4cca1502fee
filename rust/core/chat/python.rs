//! Calls as Python writes them: `[get_weather(city="Rome"), now()]`, as LFM2 and Gemma do.

use serde_json::{Map, Value};

use super::call::{Event, Known, append};
use super::json_call::JsonCalls;
use super::json_text::{MAX_ARGUMENTS_DEPTH, Step};
use super::tools::{is_name, is_name_character};

/// Most text before the first bracket, in bytes.
const MAX_BEFORE: usize = 256;

/// Waits for the end, then reads the whole.
#[derive(Clone, Debug)]
pub(super) struct PythonCalls {
    doubtful: bool,
    text: String,
    /// Open brackets.
    open: Vec<char>,
    /// The quote of the string that is being read.
    quote: Option<char>,
    escaped: bool,
    /// JSON instead: nothing but white space and `[` came before `{`.
    json: Option<JsonCalls>,
}

impl PythonCalls {
    pub(super) fn new(doubtful: bool) -> PythonCalls {
        PythonCalls { doubtful, text: String::new(), open: Vec::new(), quote: None, escaped: false, json: None }
    }

    pub(super) fn push(&mut self, character: char, known: &Known, events: &mut Vec<Event>) -> Step {
        if let Some(json) = &mut self.json {
            return json.push(character, known, events);
        }
        let before = if self.text.len() < MAX_BEFORE { self.text.trim() } else { "-" };
        if character == '{' && matches!(before, "" | "[") {
            let mut json = JsonCalls::new(self.doubtful);
            // The bracket of a list completes nothing.
            let list = before.chars().chain([character]);
            let step = list.fold(Step::More, |_, bracket| json.push(bracket, known, events));
            self.json = Some(json);
            return step;
        }
        self.text.push(character);
        if let Some(quote) = self.quote {
            match character {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                _ if character == quote => self.quote = None,
                _ => {}
            }
            return Step::More;
        }
        match character {
            '"' | '\'' if !self.open.is_empty() => self.quote = Some(character),
            '(' | '[' | '{' if self.open.len() < MAX_ARGUMENTS_DEPTH => self.open.push(character),
            ')' | ']' | '}' => {
                let opened = self.open.pop();
                if !matches!((opened, character), (Some('('), ')') | (Some('['), ']') | (Some('{'), '}')) {
                    return Step::Bad;
                }
                if self.open.is_empty() {
                    return self.finish(known, events);
                }
            }
            _ if !self.open.is_empty() => {}
            _ if self.text.len() > MAX_BEFORE => return Step::Bad,
            // Outside of brackets there is a name or nothing.
            _ if is_name_character(character) || character.is_whitespace() => {}
            _ => return Step::Bad,
        }
        Step::More
    }

    fn finish(&mut self, known: &Known, events: &mut Vec<Event>) -> Step {
        let mut text = self.text.trim();
        // `print(f())` is how some ask for the result.
        if let Some(inner) = text.strip_prefix("print(").and_then(|rest| rest.strip_suffix(')')) {
            text = inner.trim();
        }
        let mut reader = Expression { rest: text };
        let calls = match reader.calls() {
            Some(calls) if reader.rest.trim().is_empty() => calls,
            _ => return Step::Bad,
        };
        if self.doubtful && !calls.iter().all(|(name, _)| known.allows(name)) {
            return Step::Bad;
        }
        for (name, arguments) in calls {
            events.push(Event::Call { name, id: None });
            append(events, &Value::Object(arguments).to_string());
        }
        Step::Done
    }
}

/// What is left to read.
struct Expression<'a> {
    rest: &'a str,
}

impl<'a> Expression<'a> {
    /// Skips white space; whether `text` follows, which is then skipped, too.
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

    fn name(&mut self) -> Option<&'a str> {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|character| !is_name_character(character)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(name).filter(|name| is_name(name))
    }

    fn calls(&mut self) -> Option<Vec<(String, Map<String, Value>)>> {
        if !self.take("[") {
            return Some(vec![self.call()?]);
        }
        let mut calls = Vec::new();
        while !self.take("]") {
            if !calls.is_empty() && !self.take(",") {
                return None;
            }
            calls.push(self.call()?);
        }
        Some(calls)
    }

    fn call(&mut self) -> Option<(String, Map<String, Value>)> {
        let name = self.name()?.to_owned();
        if !self.take("(") {
            return None;
        }
        let mut arguments = Map::new();
        while !self.take(")") {
            if !arguments.is_empty() && !self.take(",") {
                return None;
            }
            if self.take(")") {
                break;
            }
            let key = self.name()?.to_owned();
            if !self.take("=") {
                return None;
            }
            let value = self.value(MAX_ARGUMENTS_DEPTH)?;
            if arguments.insert(key, value).is_some() {
                return None;
            }
        }
        Some((name, arguments))
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        let below = depth.checked_sub(1)?;
        self.rest = self.rest.trim_start();
        match self.rest.chars().next()? {
            '"' | '\'' => self.string().map(Value::String),
            '[' | '(' => {
                let close = if self.take("[") { "]" } else { ")" };
                self.take("(");
                let mut items = Vec::new();
                while !self.take(close) {
                    if !items.is_empty() && !self.take(",") {
                        return None;
                    }
                    if self.take(close) {
                        break;
                    }
                    items.push(self.value(below)?);
                }
                Some(Value::Array(items))
            }
            '{' => {
                self.take("{");
                let mut map = Map::new();
                while !self.take("}") {
                    if !map.is_empty() && !self.take(",") {
                        return None;
                    }
                    if self.take("}") {
                        break;
                    }
                    self.rest = self.rest.trim_start();
                    let key = self.string()?;
                    if !self.take(":") {
                        return None;
                    }
                    let value = self.value(below)?;
                    map.insert(key, value);
                }
                Some(Value::Object(map))
            }
            _ => {
                let end = |character: char| {
                    !(character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '+' | '_'))
                };
                let end = self.rest.find(end).unwrap_or(self.rest.len());
                let (word, rest) = self.rest.split_at(end);
                self.rest = rest;
                match word {
                    "True" | "true" => Some(Value::Bool(true)),
                    "False" | "false" => Some(Value::Bool(false)),
                    "None" | "null" => Some(Value::Null),
                    word => serde_json::from_str(word).ok().filter(Value::is_number),
                }
            }
        }
    }

    /// A string in single or double quotes with the escapes of Python.
    fn string(&mut self) -> Option<String> {
        let mut characters = self.rest.char_indices();
        let (_, quote) = characters.next().filter(|(_, quote)| matches!(quote, '"' | '\''))?;
        let mut text = String::new();
        while let Some((at, character)) = characters.next() {
            match character {
                _ if character == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Some(text);
                }
                '\\' => match characters.next()?.1 {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    '\n' => {}
                    kind @ ('x' | 'u' | 'U') => {
                        let digits = match kind {
                            'x' => 2,
                            'u' => 4,
                            _ => 8,
                        };
                        let mut code = 0;
                        for _ in 0..digits {
                            code = (code << 4) | characters.next()?.1.to_digit(16)?;
                        }
                        // Halves of surrogate pairs come from JSON habits; together they are a character.
                        if (0xd800..0xdc00).contains(&code) {
                            let low =
                                ['\\', 'u'].iter().all(|wanted| characters.next().is_some_and(|(_, c)| c == *wanted));
                            let mut second = 0;
                            for _ in 0..4 {
                                second = (second << 4) | characters.next()?.1.to_digit(16)?;
                            }
                            if !low || !(0xdc00..0xe000).contains(&second) {
                                return None;
                            }
                            code = 0x10000 + ((code - 0xd800) << 10) + (second - 0xdc00);
                        }
                        text.push(char::from_u32(code)?);
                    }
                    same @ ('\\' | '"' | '\'' | '/') => text.push(same),
                    other => {
                        text.push('\\');
                        text.push(other);
                    }
                },
                _ => text.push(character),
            }
        }
        None
    }
}
