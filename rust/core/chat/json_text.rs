//! JSON that arrives piece by piece: accepts a value character by character and passes its text on.

/// Deepest nesting of the arguments of a call.
pub const MAX_ARGUMENTS_DEPTH: usize = 64;

/// What a character did to something that is read piece by piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// It is not complete.
    More,
    /// The character completed it.
    Done,
    /// The character does not belong to it.
    Bad,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum State {
    /// A value begins; `true` right after `[`, where the array may end instead.
    Value(bool),
    /// A key begins; `true` right after `{`, where the object may end instead.
    Key(bool),
    Colon,
    /// After a value inside an array or object.
    Next,
    Text,
    Escape,
    /// Digits of `\uXXXX` so far, and their value.
    Unicode(u8, u16),
    /// A high surrogate must be followed by `\` and `u` (RFC 8259, section 7).
    LowSurrogate(u8),
    Number(Number),
    /// The rest of `true`, `false` or `null`.
    Word(&'static str),
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Number {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

/// The state of one JSON value (RFC 8259) of which the end shows: an object, an array or a string.
///
/// What it passes on is the text as it came, with one repair: control characters inside strings, which models write and JSON
/// forbids, become escapes. So the text is valid JSON when the last character is [`Step::Done`].
#[derive(Clone, Debug)]
pub(super) struct JsonText {
    /// Open containers; `true` for an object.
    stack: Vec<bool>,
    state: State,
    /// The string that is being read is a key.
    in_key: bool,
    /// The last `\uXXXX` was a high surrogate.
    high: bool,
}

impl JsonText {
    pub(super) fn new() -> JsonText {
        JsonText { stack: Vec::new(), state: State::Value(false), in_key: false, high: false }
    }

    /// Takes one character, and appends to `out` what it stands for. After [`Step::Bad`] and [`Step::Done`] it must not be used.
    pub(super) fn push(&mut self, character: char, out: &mut String) -> Step {
        if let State::Number(number) = self.state {
            return match number_step(number, character) {
                Some(next) => self.accept(State::Number(next), character, out),
                None if matches!(number, Number::Zero | Number::Whole | Number::Fraction | Number::Exponent) => {
                    self.state = State::Next;
                    self.push(character, out)
                }
                None => Step::Bad,
            };
        }
        let inside_string =
            matches!(self.state, State::Text | State::Escape | State::Unicode(..) | State::LowSurrogate(_));
        if !inside_string && matches!(character, ' ' | '\t' | '\n' | '\r') {
            return match self.state {
                State::Word(_) => Step::Bad,
                state => self.accept(state, character, out),
            };
        }
        match (self.state, character) {
            (State::Value(_), '{') => self.open(true, State::Key(true), character, out),
            (State::Value(_), '[') => self.open(false, State::Value(true), character, out),
            (State::Value(true), ']') | (State::Key(true), '}') => self.close(character, out),
            (State::Value(_), '"') => {
                self.in_key = false;
                self.accept(State::Text, character, out)
            }
            (State::Value(_), 't') => self.accept(State::Word("rue"), character, out),
            (State::Value(_), 'f') => self.accept(State::Word("alse"), character, out),
            (State::Value(_), 'n') => self.accept(State::Word("ull"), character, out),
            (State::Value(_), '-') => self.accept(State::Number(Number::Minus), character, out),
            (State::Value(_), '0') => self.accept(State::Number(Number::Zero), character, out),
            (State::Value(_), '1'..='9') => self.accept(State::Number(Number::Whole), character, out),
            (State::Key(_), '"') => {
                self.in_key = true;
                self.accept(State::Text, character, out)
            }
            (State::Colon, ':') => self.accept(State::Value(false), character, out),
            (State::Next, ',') => match self.stack.last() {
                Some(true) => self.accept(State::Key(false), character, out),
                Some(false) => self.accept(State::Value(false), character, out),
                None => Step::Bad,
            },
            (State::Next, '}') if self.stack.last() == Some(&true) => self.close(character, out),
            (State::Next, ']') if self.stack.last() == Some(&false) => self.close(character, out),
            (State::Text, '"') => {
                out.push(character);
                if self.in_key {
                    self.state = State::Colon;
                    return Step::More;
                }
                self.value_ended()
            }
            (State::Text, '\\') => self.accept(State::Escape, character, out),
            (State::Text, '\0'..='\x1f') => {
                match character {
                    '\n' => out.push_str("\\n"),
                    '\r' => out.push_str("\\r"),
                    '\t' => out.push_str("\\t"),
                    _ => out.push_str(&format!("\\u{:04x}", u32::from(character))),
                }
                Step::More
            }
            (State::Text, _) => self.accept(State::Text, character, out),
            (State::Escape, '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't') => self.accept(State::Text, character, out),
            (State::Escape, 'u') => {
                self.high = false;
                self.accept(State::Unicode(0, 0), character, out)
            }
            (State::LowSurrogate(0), '\\') => self.accept(State::LowSurrogate(1), character, out),
            (State::LowSurrogate(1), 'u') => self.accept(State::Unicode(0, 0), character, out),
            (State::Unicode(digits, value), _) => match character.to_digit(16) {
                None => Step::Bad,
                Some(digit) => {
                    let value = (value << 4) | digit as u16;
                    let next = match (digits, value, self.high) {
                        (3, 0xdc00..=0xdfff, true) => State::Text,
                        (3, _, true) | (3, 0xdc00..=0xdfff, false) => return Step::Bad,
                        (3, 0xd800..=0xdbff, false) => {
                            self.high = true;
                            State::LowSurrogate(0)
                        }
                        (3, _, false) => State::Text,
                        _ => State::Unicode(digits + 1, value),
                    };
                    self.accept(next, character, out)
                }
            },
            (State::Word(rest), _) if rest.starts_with(character) => {
                out.push(character);
                self.state = State::Word(&rest[1..]);
                if rest.len() > 1 { Step::More } else { self.value_ended() }
            }
            _ => Step::Bad,
        }
    }

    fn accept(&mut self, next: State, character: char, out: &mut String) -> Step {
        out.push(character);
        self.state = next;
        Step::More
    }

    fn open(&mut self, object: bool, next: State, character: char, out: &mut String) -> Step {
        if self.stack.len() == MAX_ARGUMENTS_DEPTH {
            return Step::Bad;
        }
        self.stack.push(object);
        self.accept(next, character, out)
    }

    fn close(&mut self, character: char, out: &mut String) -> Step {
        self.stack.pop();
        out.push(character);
        self.value_ended()
    }

    fn value_ended(&mut self) -> Step {
        self.state = State::Next;
        if self.stack.is_empty() { Step::Done } else { Step::More }
    }
}

/// The state after one more character of a number, `None` when it is not part of one.
fn number_step(number: Number, character: char) -> Option<Number> {
    Some(match (number, character) {
        (Number::Minus, '0') => Number::Zero,
        (Number::Minus, '1'..='9') | (Number::Whole, '0'..='9') => Number::Whole,
        (Number::Zero | Number::Whole, '.') => Number::Point,
        (Number::Point | Number::Fraction, '0'..='9') => Number::Fraction,
        (Number::Zero | Number::Whole | Number::Fraction, 'e' | 'E') => Number::E,
        (Number::E, '+' | '-') => Number::Sign,
        (Number::E | Number::Sign | Number::Exponent, '0'..='9') => Number::Exponent,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{JsonText, Step};

    /// The text that was passed on and the last step.
    fn run(text: &str) -> (String, Step) {
        let (mut json, mut out, mut step) = (JsonText::new(), String::new(), Step::More);
        for character in text.chars() {
            assert_ne!(step, Step::Done, "{text}");
            step = json.push(character, &mut out);
            if step == Step::Bad {
                break;
            }
        }
        (out, step)
    }

    #[test]
    fn agrees_with_serde_json() {
        let valid = [
            r#"{}"#,
            r#"[]"#,
            r#"{"a":1,"b":[true,false,null,-0.5e+10,0,{"c":"\u00e9\\\"}{"}]}"#,
            " [ 1 , 2 ] ",
            r#"{"smile":"\ud83d\ude00","x":"é"}"#,
        ];
        for text in valid {
            let (out, step) = run(text.trim_end());
            assert_eq!((out.as_str(), step), (text.trim_end(), Step::Done));
            serde_json::from_str::<serde_json::Value>(&out).unwrap();
        }
        let invalid = [
            "{a",
            "{]",
            "[}",
            "[1,]",
            r#"{"a":1,}"#,
            r#"{"a" 1}"#,
            "[01]",
            "[-]",
            "[1.]",
            "[1e]",
            "[tru e]",
            "[nul]",
            r#"["\x"]"#,
            r#"["\u12g4"]"#,
            r#"["\ud83d"]"#,
            r#"["\ud83dx"]"#,
            r#"["\ude00"]"#,
            r#"["\ud83d\ud83d"]"#,
            "['a']",
            "[True]",
            "[NaN]",
            "[+1]",
        ];
        for text in invalid {
            assert_eq!(run(text).1, Step::Bad, "{text}");
            assert!(serde_json::from_str::<serde_json::Value>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn control_characters_in_strings_become_escapes() {
        let (out, step) = run("{\"a\":\"x\ny\t\u{1}\"}");
        assert_eq!((out.as_str(), step), (r#"{"a":"x\ny\t\u0001"}"#, Step::Done));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap()["a"], "x\ny\t\u{1}");
    }

    #[test]
    fn nesting_is_limited() {
        assert_eq!(run(&"[".repeat(super::MAX_ARGUMENTS_DEPTH)).1, Step::More);
        assert_eq!(run(&"[".repeat(super::MAX_ARGUMENTS_DEPTH + 1)).1, Step::Bad);
    }

    proptest! {
        /// Whatever is complete is JSON, and nothing that serde_json takes is refused.
        #[test]
        fn the_same_language(text in r#"[\[{]([\[\]{},:"\\truefalsn0-9.eE+ u-]|"[a-z]*"){0,24}"#) {
            let parsed = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            let (mut json, mut out, mut step, mut count) = (JsonText::new(), String::new(), Step::More, 0);
            for character in text.chars() {
                step = json.push(character, &mut out);
                count += 1;
                if step != Step::More { break; }
            }
            if step == Step::Done {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{}", out);
            }
            let rest = text.chars().skip(count).collect::<String>();
            prop_assert_eq!(parsed, step == Step::Done && rest.trim().is_empty());
        }
    }
}
