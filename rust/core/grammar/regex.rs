//! Regular expressions and lists of choices as Lark grammars of one terminal.

use std::fmt::Write;

use regex_syntax::hir::{Hir, HirKind, Look};

use super::{MAX_SOURCE, check_size};
use crate::{Error, Result};

/// Choices at most.
const MAX_CHOICES: usize = 10_000;

/// Groups and repetitions inside one another at most.
const MAX_NESTING: u32 = 100;

/// Characters with everything that is repeated written out at most: `(a{1000}){1000}` has a million.
pub(super) const MAX_WRITTEN_OUT: u64 = 1 << 16;

/// Bytes of one text in an expression at most. Behind each byte the lexer keeps what is left of it: memory is its square.
pub(super) const MAX_TEXT: usize = 1 << 13;

/// Classes such as `\w`, of which each has hundreds of ranges, at most.
const MAX_CLASSES: usize = 1_000;

/// The syntax and the places where it may look around, which must be known: masks are computed byte by byte, forward.
///
/// # Errors
/// A message that names the place and what is wrong.
pub(super) fn check(expression: &str) -> Result<Hir, String> {
    let named =
        expression.as_bytes().windows(2).filter(|pair| pair[0] == b'\\' && b"wWdDsSpP".contains(&pair[1])).count();
    if named > MAX_CLASSES {
        return Err(format!("at most {MAX_CLASSES} classes such as \\w are supported, found {named}; use [a-z]"));
    }
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
    if written_out(&hir) > MAX_WRITTEN_OUT {
        let what = "characters at most are supported with all repetitions written out, found more in";
        return Err(format!("{MAX_WRITTEN_OUT} {what} {}", shown(expression)));
    }
    Ok(hir)
}

/// Characters with everything that is repeated written out.
fn written_out(hir: &Hir) -> u64 {
    // Depth is bounded by the parser.
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 0,
        HirKind::Class(_) => 1,
        // A text that is too long counts as too much.
        HirKind::Literal(text) if text.0.len() > MAX_TEXT => u64::MAX,
        HirKind::Literal(text) => text.0.len() as u64,
        HirKind::Repetition(repetition) => {
            let count = u64::from(repetition.max.unwrap_or(repetition.min).max(1));
            written_out(&repetition.sub).saturating_mul(count)
        }
        HirKind::Capture(group) => written_out(&group.sub),
        HirKind::Concat(all) | HirKind::Alternation(all) => all.iter().map(written_out).fold(0, u64::saturating_add),
    }
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
    if let Some(long) = choices.iter().map(String::len).find(|length| *length > MAX_TEXT) {
        return Err(Error::Grammar(format!("a choice must have at most {MAX_TEXT} bytes, found {long}")));
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
