//! Lark grammars are llguidance's own; what is bounded elsewhere is bounded in them, too.

use std::fmt::Write;

use serde_json::Value;

use super::check_size;
use super::regex::{self, MAX_TEXT};
use super::schema::{self, Spaces};
use crate::{Error, Result};

/// Intersections (`&`) at most: automata are multiplied, and so is the work.
const MAX_INTERSECTIONS: usize = 8;

/// The grammar with its schemas (`%json {…}`) prepared as others are. Texts and regular expressions in it are checked; the rest is left to
/// the parser of llguidance.
///
/// # Errors
/// [`Error::Grammar`] with the line of what is wrong or too large.
pub(super) fn prepare(text: &str, spaces: Spaces) -> Result<String> {
    let mut prepared = String::with_capacity(text.len());
    let mut rest = check_size("lark", text)?;
    let mut intersections = 0;
    while let Some(char) = rest.chars().next() {
        let wrong = |what: &str| {
            let line = text[..text.len() - rest.len()].matches('\n').count() + 1;
            Error::Grammar(format!("lark: line {line}: {what}"))
        };
        let length = if rest.starts_with('#') || rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if char == '"' {
            let length = quoted(rest, '"');
            if length > MAX_TEXT {
                return Err(wrong(&format!("a text must have at most {MAX_TEXT} bytes, found {length}")));
            }
            length
        } else if char == '/' {
            let length = quoted(rest, '/');
            let expression = rest[1..length].strip_suffix('/').unwrap_or(&rest[1..length]).replace("\\/", "/");
            // Whether an expression can be read depends on its flags; where it cannot, llguidance says so.
            let flags: String = rest[length..].chars().take_while(|char| "imsux".contains(*char)).collect();
            let flagged = if flags.is_empty() { expression } else { format!("(?{flags}){expression}") };
            regex::check(&flagged).map_err(|what| wrong(&what))?;
            length
        } else if let Some(json) = rest.strip_prefix("%json") {
            let mut values = serde_json::Deserializer::from_str(json).into_iter::<Value>();
            let Some(Ok(value)) = values.next() else {
                return Err(wrong("%json must be followed by a schema in JSON"));
            };
            let value = schema::prepare(&value, spaces).map_err(|error| wrong(&error.to_string()))?;
            // Writing to a string does not fail.
            let _ = write!(prepared, "%json {value}");
            rest = &json[values.byte_offset()..];
            continue;
        } else {
            intersections += usize::from(char == '&');
            if intersections > MAX_INTERSECTIONS {
                return Err(wrong(&format!("at most {MAX_INTERSECTIONS} `&` are supported")));
            }
            char.len_utf8()
        };
        prepared.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    Ok(prepared)
}

/// Bytes of what begins with a quote, up to the next one, or to the end.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, char)| {
        let ends = *char == quote && !escaped;
        escaped = *char == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |(index, _)| index + 1)
}
