//! Regular expressions and lists of choices as Lark grammars of one terminal.

use std::fmt::Write;

use regex_syntax::hir::{Hir, HirKind, Look};

use super::{MAX_SOURCE, check_size};
use crate::{Error, Result};

/// Choices at most.
const MAX_CHOICES: usize = 10_000;

/// Groups and repetitions inside one another at most.
const MAX_NESTING: u32 = 100;

/// The syntax and the places where it may look around, which must be known: masks are computed byte by byte, forward.
///
/// # Errors
/// A message that names the place and what is wrong.
pub(super) fn check(expression: &str) -> Result<Hir, String> {
    let parsed = regex_syntax::ParserBuilder::new().nest_limit(MAX_NESTING).build().parse(expression);
    let hir = parsed.map_err(|error| {
        // The rendered form repeats the expression, with a caret under the place.
        let told = error.to_string();
        let reason = told.rsplit("error: ").next().unwrap_or(&told).trim().to_owned();
        let start = match &error {
            regex_syntax::Error::Parse(error) => error.span().start.column,
            regex_syntax::Error::Translate(error) => error.span().start.column,
            _ => 1,
        };
        format!("{reason} at column {start} of {}", shown(expression))
    })?;
    look_around(&hir, expression)?;
    Ok(hir)
}

/// Refuses word boundaries and the ends of lines, which the compiler below does not know. `^` and `$` it knows at the ends only.
fn look_around(hir: &Hir, expression: &str) -> Result<(), String> {
    // Depth is bounded by the parser.
    match hir.kind() {
        HirKind::Look(Look::Start | Look::End) => Ok(()),
        HirKind::Look(_) => {
            Err(format!("\\b, \\B and multi-line ^ and $ are not supported, found in {}", shown(expression)))
        }
        // A name that means something else to llguidance.
        HirKind::Capture(group) if group.name.as_deref() == Some("stop") => {
            Err(format!("a group must not be named `stop`, found in {}", shown(expression)))
        }
        kind => kind.subs().iter().try_for_each(|sub| look_around(sub, expression)),
    }
}

/// The expression, shortened, in quotes.
fn shown(expression: &str) -> String {
    let mut text: String = expression.chars().take(80).collect();
    if text.len() < expression.len() {
        text.push('…');
    }
    format!("{text:?}")
}

/// A grammar of the texts that `expression` matches as a whole.
///
/// # Errors
/// [`Error::Grammar`] for wrong syntax (that of Rust's `regex` crate), look-around, or too large an expression.
pub(super) fn to_lark(expression: &str) -> Result<String> {
    let hir = check(check_size("regex", expression)?).map_err(|what| Error::Grammar(format!("regex: {what}")))?;
    // As the parser understood it, without flags and comments.
    let mut printed = Bounded(String::new());
    if write!(printed, "{hir}").is_err() {
        let what = format!(
            "regex must have at most {MAX_SOURCE} bytes with its classes written out; use [a-z] instead of \\w"
        );
        return Err(Error::Grammar(what));
    }
    Ok(format!("start: {}\n", literal(&printed.0)))
}

/// A regular expression between the slashes of Lark.
pub(super) fn literal(expression: &str) -> String {
    let mut lark = String::with_capacity(expression.len() + 8);
    lark.push_str("/(?:");
    let mut escaped = false;
    for char in expression.chars() {
        match char {
            '/' if escaped => lark.push('/'),
            '/' => lark.push_str("\\/"),
            // Behind a backslash they stand for themselves, too.
            '\n' if escaped => lark.push('n'),
            '\n' => lark.push_str("\\n"),
            '\r' if escaped => lark.push('r'),
            '\r' => lark.push_str("\\r"),
            char => lark.push(char),
        }
        escaped = char == '\\' && !escaped;
    }
    lark.push_str(")/");
    lark
}

/// A grammar of exactly these texts.
///
/// # Errors
/// [`Error::Grammar`] when there are none, or too many.
pub(super) fn choices_to_lark(choices: &[String]) -> Result<String> {
    if choices.is_empty() || choices.len() > MAX_CHOICES {
        return Err(Error::Grammar(format!("choices must be 1 to {MAX_CHOICES} texts, found {}", choices.len())));
    }
    let bytes: usize = choices.iter().map(String::len).sum();
    if bytes > MAX_SOURCE {
        return Err(Error::Grammar(format!("choices must have at most {MAX_SOURCE} bytes, found {bytes}")));
    }
    let mut lark = "start: CHOICE\nCHOICE: ".to_owned();
    for (index, choice) in choices.iter().enumerate() {
        if index > 0 {
            lark.push_str(" | ");
        }
        string(choice, &mut lark);
    }
    lark.push('\n');
    Ok(lark)
}

/// Appends a text as a string of Lark.
pub(super) fn string(text: &str, lark: &mut String) {
    lark.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => lark.extend(['\\', char]),
            '\0'..' ' | '\x7f' => {
                // Writing to a string does not fail.
                let _ = write!(lark, "\\u{:04x}", char as u32);
            }
            char => lark.push(char),
        }
    }
    lark.push('"');
}

/// A text that refuses to grow beyond [`MAX_SOURCE`].
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        if self.0.len() + text.len() > MAX_SOURCE {
            return Err(std::fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}
