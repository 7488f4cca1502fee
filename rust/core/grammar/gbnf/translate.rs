//! Plans as Lark grammars, and lexemes as regular expressions.

use std::fmt::Write;

use super::ast::{Atom, Class, Grammar, Item};
use super::plan::{Lexeme, Plan, Symbol};
use crate::grammar::regex;

/// Rules inside one another, and bytes, of a lexeme that is written as one expression.
const MAX_DEPTH: usize = 100;
const MAX_EXPRESSION: usize = 1 << 16;

/// The plan in Lark: rules `n0`, `n1` …, lexemes `L0`, `L1` … and the regular rules that they refer to, `R0`, `R1` ….
pub(super) fn to_lark(grammar: &Grammar, plan: &Plan) -> String {
    let mut lark = "start: n0\n".to_owned();
    for (index, alternatives) in plan.rules.iter().enumerate() {
        let written: Vec<String> = alternatives
            .iter()
            .map(|parts| {
                let parts = parts.iter().map(|part| {
                    let symbol = match part.symbol {
                        Symbol::Lexeme(lexeme) => format!("L{lexeme}"),
                        Symbol::Rule(rule) => format!("n{rule}"),
                        Symbol::Token { id, negated: false } => format!("<[{id}]>"),
                        Symbol::Token { id, negated: true } => format!("<[^{id}]>"),
                    };
                    repeated(symbol, part.least, part.most)
                });
                sequence(parts)
            })
            .collect();
        // Writing to a string does not fail.
        let _ = writeln!(lark, "n{index}: {}", written.join(" | "));
    }
    let mut needed = vec![false; grammar.rules.len()];
    let mut pending = Vec::new();
    for (index, lexeme) in plan.lexemes.iter().enumerate() {
        let _ = writeln!(lark, "L{index}: {}", terminal(lexeme));
        pending.extend(lexeme.iter().flatten().filter_map(Item::rule));
    }
    while let Some(rule) = pending.pop() {
        if std::mem::replace(&mut needed[rule], true) {
            continue;
        }
        let _ = writeln!(lark, "R{rule}: {}", terminal(&grammar.rules[rule].alternatives));
        pending.extend(grammar.rules[rule].references());
    }
    lark
}

fn sequence(parts: impl Iterator<Item = String>) -> String {
    let written: Vec<String> = parts.collect();
    if written.is_empty() { "\"\"".to_owned() } else { written.join(" ") }
}

fn terminal(alternatives: &[Vec<Item>]) -> String {
    let items = |item: &Item| {
        let atom = match &item.atom {
            Atom::Text(text) => {
                let mut quoted = String::new();
                regex::string(text, &mut quoted);
                quoted
            }
            Atom::Class(class) => format!("/{}/", of_class(class)),
            Atom::Rule(rule) => format!("R{rule}"),
            // Not in what is regular.
            Atom::Token { .. } => return String::new(),
        };
        repeated(atom, item.least, item.most)
    };
    alternatives.iter().map(|alternative| sequence(alternative.iter().map(items))).collect::<Vec<_>>().join(" | ")
}

fn repeated(symbol: String, least: u32, most: Option<u32>) -> String {
    match (least, most) {
        (1, Some(1)) => symbol,
        (0, Some(1)) => symbol + "?",
        (0, None) => symbol + "*",
        (1, None) => symbol + "+",
        (_, Some(0)) => "\"\"".to_owned(),
        (least, None) => format!("{symbol}~{least} {symbol}*"),
        (least, Some(most)) => format!("{symbol}~{least}..{most}"),
    }
}

/// A class as a regular expression.
fn of_class(class: &Class) -> String {
    if class.ranges.is_empty() {
        return "(?s:.)".to_owned();
    }
    let mut expression = if class.negated { "[^" } else { "[" }.to_owned();
    for range in &class.ranges {
        let (first, last) = (*range.start() as u32, *range.end() as u32);
        let _ = write!(expression, "\\u{{{first:x}}}-\\u{{{last:x}}}");
    }
    expression.push(']');
    expression
}

/// A lexeme as one regular expression; `None` when that would be too large.
pub(super) fn expression(grammar: &Grammar, lexeme: &Lexeme) -> Option<String> {
    let mut written = String::new();
    inline(grammar, lexeme, 0, &mut written)?;
    Some(written)
}

fn inline(grammar: &Grammar, alternatives: &[Vec<Item>], depth: usize, written: &mut String) -> Option<()> {
    if depth > MAX_DEPTH {
        return None;
    }
    written.push_str("(?:");
    for (index, items) in alternatives.iter().enumerate() {
        if index > 0 {
            written.push('|');
        }
        for item in items {
            match &item.atom {
                Atom::Text(text) => {
                    written.push_str("(?:");
                    for char in text.chars() {
                        let _ = write!(written, "\\u{{{:x}}}", char as u32);
                    }
                    written.push(')');
                }
                Atom::Class(class) => written.push_str(&of_class(class)),
                Atom::Rule(rule) => inline(grammar, &grammar.rules[*rule].alternatives, depth + 1, written)?,
                Atom::Token { .. } => return None,
            }
            let _ = match (item.least, item.most) {
                (1, Some(1)) => Ok(()),
                (least, None) => write!(written, "{{{least},}}"),
                (least, Some(most)) => write!(written, "{{{least},{most}}}"),
            };
            if written.len() > MAX_EXPRESSION {
                return None;
            }
        }
    }
    written.push(')');
    Some(())
}
