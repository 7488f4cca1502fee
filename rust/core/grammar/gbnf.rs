//! GBNF, the grammars of llama.cpp, translated to Lark.
//!
//! A GBNF grammar is read character by character; llguidance reads lexemes, and each takes as many characters as it can. So that both
//! mean the same, everything that is regular becomes one lexeme: a rule that does not lead back to itself is a terminal,
//! and so are neighbours and alternatives in rules that do. What is left are lexemes between recursive rules. Where one of these could
//! take characters that the next should begin with ([`overlap`]), it is split into single characters: exact, but slower.

mod ast;
mod overlap;
mod parse;
mod plan;
mod translate;

use std::collections::HashSet;

use plan::Plan;

use super::regex::{MAX_TEXT, MAX_WRITTEN_OUT};
use crate::{Error, Result};

/// The Lark grammar that means the same as a GBNF grammar. `token` gives the id of a token by how the vocabulary spells it.
///
/// # Errors
/// [`Error::Grammar`] with line and column.
pub(super) fn to_lark(text: &str, token: &dyn Fn(&str) -> Option<u32>) -> Result<String> {
    let grammar = parse::parse(text, token).map_err(|what| Error::Grammar(format!("gbnf: {what}")))?;
    if let Some(rule) = plan::endless(&grammar) {
        let what = "a rule matches no text: each of its alternatives leads back to it";
        return Err(Error::Grammar(format!("gbnf: {}: {what}", parse::place(text, grammar.rules[rule].position))));
    }
    let order = plan::regular(&grammar);
    if plan::written_out(&grammar, &order) > MAX_WRITTEN_OUT {
        let what = "characters at most are supported with all rules and repetitions written out, and texts of at most";
        return Err(Error::Grammar(format!("gbnf: {MAX_WRITTEN_OUT} {what} {MAX_TEXT} bytes")));
    }
    let mut regular = vec![false; grammar.rules.len()];
    order.iter().for_each(|rule| regular[*rule] = true);
    let mut split = HashSet::new();
    loop {
        let plan = Plan::new(&grammar, &regular, &split);
        let more = overlap::to_split(&grammar, &plan);
        // Every round splits lexemes of which there are fewer and fewer, until all are characters.
        if more.is_empty() {
            return Ok(translate::to_lark(&grammar, &plan));
        }
        split.extend(more);
    }
}
