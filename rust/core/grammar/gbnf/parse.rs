//! Reads GBNF: <https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md>.

use std::collections::HashMap;

use super::ast::{Atom, Class, Grammar, Item, Rule};

/// Groups inside one another at most.
const MAX_DEPTH: usize = 100;

/// Rules and groups at most.
const MAX_RULES: usize = 20_000;

/// What a repetition may count to.
const MAX_REPEAT: u32 = 10_000;

/// Reads a grammar.
///
/// # Errors
/// A message with line and column.
pub(super) fn parse(text: &str, token: &dyn Fn(&str) -> Option<u32>) -> Result<Grammar, String> {
    let mut parser = Parser { rest: text, text, token, rules: Vec::new(), names: HashMap::new(), defined: Vec::new() };
    parser.space(true);
    while !parser.rest.is_empty() {
        parser.rule()?;
        parser.space(true);
    }
    let missing = (0..parser.rules.len()).find(|&rule| !parser.defined[rule]);
    if let Some(rule) = missing {
        let name = parser.names.iter().find(|(_, id)| **id == rule).map_or("", |(name, _)| *name);
        return Err(parser.error_at(parser.rules[rule].position, &format!("rule `{name}` is not defined")));
    }
    match parser.names.get("root") {
        Some(&root) => Ok(Grammar { rules: parser.rules, root }),
        None => Err("a grammar must have a rule `root`, found none".to_owned()),
    }
}

struct Parser<'t> {
    text: &'t str,
    /// What is not read yet.
    rest: &'t str,
    token: &'t dyn Fn(&str) -> Option<u32>,
    rules: Vec<Rule>,
    names: HashMap<&'t str, usize>,
    /// Whether the alternatives of a rule were read.
    defined: Vec<bool>,
}

impl<'t> Parser<'t> {
    fn rule(&mut self) -> Result<(), String> {
        let start = self.position();
        let name = self.name().ok_or_else(|| self.expected("the name of a rule (letters, digits and `-`)"))?;
        let rule = self.named(name)?;
        self.space(false);
        if !self.eat("::=") {
            return Err(self.expected(&format!("`::=` behind the name `{name}`")));
        }
        if self.defined[rule] {
            return Err(self.error_at(start, &format!("rule `{name}` is defined twice")));
        }
        self.space(true);
        self.alternatives(rule, 0)?;
        if self.rest.is_empty() || self.rest.starts_with(['\n', '\r']) {
            return Ok(());
        }
        Err(self.expected("a new line, `|`, or something to match"))
    }

    /// Reads the alternatives of `rule`, up to what cannot belong to them.
    fn alternatives(&mut self, rule: usize, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(self.error(&format!("groups must be nested at most {MAX_DEPTH} deep")));
        }
        let mut alternatives = Vec::new();
        loop {
            alternatives.push(self.sequence(depth)?);
            // An alternative may begin on the next line.
            let here = self.rest;
            self.space(true);
            if !self.eat("|") {
                if depth == 0 {
                    self.rest = here;
                }
                break;
            }
            self.space(true);
        }
        self.rules[rule].alternatives = alternatives;
        self.defined[rule] = true;
        Ok(())
    }

    fn sequence(&mut self, depth: usize) -> Result<Vec<Item>, String> {
        let mut items: Vec<Item> = Vec::new();
        loop {
            let start = self.position();
            let atom = match self.rest.chars().next() {
                Some('"') => Atom::Text(self.literal()?),
                Some('[') => Atom::Class(self.class()?),
                Some('.') => {
                    self.eat(".");
                    Atom::Class(Class { ranges: Vec::new(), negated: true })
                }
                Some('(') => {
                    self.eat("(");
                    self.space(true);
                    let group = self.new_rule(start)?;
                    self.alternatives(group, depth + 1)?;
                    if !self.eat(")") {
                        return Err(self.expected(&format!("`)` for the `(` at {}", place(self.text, start))));
                    }
                    Atom::Rule(group)
                }
                Some('<') | Some('!') => self.token()?,
                Some('*' | '+' | '?' | '{') => return Err(self.error("nothing stands before what says how often")),
                _ => match self.name() {
                    Some(name) => Atom::Rule(self.named(name)?),
                    None => return Ok(items),
                },
            };
            let (least, most) = self.repetition()?;
            items.push(Item { atom, least, most });
            self.space(depth > 0);
        }
    }

    /// How often; once where nothing is written. Several may follow one another only through groups.
    fn repetition(&mut self) -> Result<(u32, Option<u32>), String> {
        let here = self.rest;
        self.space(false);
        let counts = match self.rest.chars().next() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => return self.counts(),
            _ => {
                self.rest = here;
                return Ok((1, Some(1)));
            }
        };
        self.rest = &self.rest[1..];
        Ok(counts)
    }

    /// `{3}`, `{3,}` or `{3,5}`.
    fn counts(&mut self) -> Result<(u32, Option<u32>), String> {
        let start = self.position();
        self.eat("{");
        self.space(false);
        let least = self.number()?;
        self.space(false);
        let mut most = Some(least);
        if self.eat(",") {
            self.space(false);
            most = if self.rest.starts_with('}') { None } else { Some(self.number()?) };
            self.space(false);
        }
        if !self.eat("}") {
            return Err(self.expected("`,` or `}`"));
        }
        if most.is_some_and(|most| most < least) {
            return Err(self.error_at(start, "the second number must not be below the first"));
        }
        Ok((least, most))
    }

    fn number(&mut self) -> Result<u32, String> {
        let digits = self.rest.find(|char: char| !char.is_ascii_digit()).unwrap_or(self.rest.len());
        if digits == 0 {
            return Err(self.expected("a number"));
        }
        match self.rest[..digits].parse() {
            Ok(number) if number <= MAX_REPEAT => {
                self.rest = &self.rest[digits..];
                Ok(number)
            }
            _ => Err(self.error(&format!("what is repeated must be so at most {MAX_REPEAT} times"))),
        }
    }

    fn literal(&mut self) -> Result<String, String> {
        let start = self.position();
        self.eat("\"");
        let mut text = String::new();
        loop {
            match self.rest.chars().next() {
                Some('"') => break,
                None | Some('\n' | '\r') => return Err(self.error_at(start, "the text does not end: expected `\"`")),
                Some(_) => text.push(self.char()?),
            }
        }
        self.eat("\"");
        Ok(text)
    }

    fn class(&mut self) -> Result<Class, String> {
        let start = self.position();
        self.eat("[");
        let negated = self.eat("^");
        let mut ranges = Vec::new();
        while !self.rest.starts_with(']') {
            if self.rest.is_empty() || self.rest.starts_with(['\n', '\r']) {
                return Err(self.error_at(start, "the class does not end: expected `]`"));
            }
            let place = self.position();
            let first = self.char()?;
            let mut last = first;
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.eat("-");
                if self.rest.is_empty() || self.rest.starts_with(['\n', '\r']) {
                    return Err(self.error_at(start, "the class does not end: expected `]`"));
                }
                last = self.char()?;
            }
            if last < first {
                return Err(self.error_at(place, &format!("the range {first:?} to {last:?} is empty")));
            }
            ranges.push(first..=last);
        }
        self.eat("]");
        if ranges.is_empty() && !negated {
            return Err(self.error_at(start, "the class is empty, so nothing matches"));
        }
        Ok(Class { ranges, negated })
    }

    /// One character, escaped or not.
    fn char(&mut self) -> Result<char, String> {
        let start = self.position();
        let mut chars = self.rest.chars();
        let (first, second) = (chars.next(), chars.next());
        let first = first.ok_or_else(|| self.expected("a character"))?;
        self.rest = &self.rest[first.len_utf8()..];
        if first != '\\' {
            return Ok(first);
        }
        let unknown = "an escape must be one of \\n \\r \\t \\\\ \\\" \\[ \\] \\xHH \\uHHHH \\UHHHHHHHH";
        let Some(second) = second else { return Err(self.error_at(start, unknown)) };
        self.rest = &self.rest[second.len_utf8()..];
        let digits = match second {
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            '\\' | '"' | '[' | ']' => return Ok(second),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => return Err(self.error_at(start, unknown)),
        };
        let hexadecimal = self.rest.get(..digits).filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let code = hexadecimal.and_then(|text| u32::from_str_radix(text, 16).ok());
        let Some(code) = code else {
            return Err(self.error_at(start, &format!("\\{second} must be followed by {digits} hexadecimal digits")));
        };
        self.rest = &self.rest[digits..];
        char::from_u32(code).ok_or_else(|| self.error_at(start, &format!("U+{code:04X} is not a character")))
    }

    /// `<name>`, `<[id]>`, or `!` and one of them.
    fn token(&mut self) -> Result<Atom, String> {
        let start = self.position();
        let negated = self.eat("!");
        let end = self.rest.find('>').filter(|_| self.rest.starts_with('<'));
        let Some(end) = end else { return Err(self.expected("a token, such as <think> or <[1000]>")) };
        let name = &self.rest[..=end];
        let id = match name.strip_prefix("<[").and_then(|name| name.strip_suffix("]>")) {
            Some(number) => number.parse().ok(),
            None => (self.token)(name),
        };
        let Some(id) = id else {
            return Err(self.error_at(start, &format!("{name} is not a token of the vocabulary")));
        };
        self.rest = &self.rest[end + 1..];
        Ok(Atom::Token { id, negated })
    }

    fn name(&mut self) -> Option<&'t str> {
        let end = self.rest.find(|char: char| !char.is_ascii_alphanumeric() && char != '-' && char != '_');
        let (name, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        (!name.is_empty()).then_some(name)
    }

    fn named(&mut self, name: &'t str) -> Result<usize, String> {
        if let Some(rule) = self.names.get(name) {
            return Ok(*rule);
        }
        let rule = self.new_rule(self.position() - name.len())?;
        self.names.insert(name, rule);
        Ok(rule)
    }

    fn new_rule(&mut self, place: usize) -> Result<usize, String> {
        if self.rules.len() >= MAX_RULES {
            return Err(self.error(&format!("a grammar must have at most {MAX_RULES} rules and groups")));
        }
        self.rules.push(Rule { position: place, alternatives: Vec::new() });
        self.defined.push(false);
        Ok(self.rules.len() - 1)
    }

    /// Skips white space and comments, with `lines` also the ends of lines.
    fn space(&mut self, lines: bool) {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t']);
            if self.rest.starts_with('#') {
                self.rest = self.rest.trim_start_matches(|char| !matches!(char, '\n' | '\r'));
            } else if lines && self.rest.starts_with(['\n', '\r']) {
                self.rest = &self.rest[1..];
            } else {
                return;
            }
        }
    }

    fn eat(&mut self, expected: &str) -> bool {
        let rest = self.rest.strip_prefix(expected);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Where the rest begins, in bytes.
    fn position(&self) -> usize {
        self.text.len() - self.rest.len()
    }

    fn expected(&self, what: &str) -> String {
        let found = match self.rest.chars().next() {
            None => "the end".to_owned(),
            Some('\n' | '\r') => "the end of the line".to_owned(),
            Some(char) => format!("{char:?}"),
        };
        self.error(&format!("expected {what}, found {found}"))
    }

    fn error(&self, what: &str) -> String {
        self.error_at(self.position(), what)
    }

    fn error_at(&self, position: usize, what: &str) -> String {
        format!("{}: {what}", place(self.text, position))
    }
}

/// Line and column, from 1, of a position in bytes.
pub(super) fn place(text: &str, position: usize) -> String {
    let before = &text[..position];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}")
}
