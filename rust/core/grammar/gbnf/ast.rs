//! What a GBNF grammar consists of.

use std::ops::RangeInclusive;

/// A grammar: rules, of which groups are some, too, so that nothing is nested.
pub(super) struct Grammar {
    /// All rules.
    pub(super) rules: Vec<Rule>,
    /// The rule that a text must match.
    pub(super) root: usize,
}

/// Alternatives, each a sequence.
pub(super) struct Rule {
    /// Where it came up first, in bytes.
    pub(super) position: usize,
    pub(super) alternatives: Vec<Vec<Item>>,
}

/// Something, `least` to `most` times (`None`: as often as wanted).
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Item {
    pub(super) atom: Atom,
    pub(super) least: u32,
    pub(super) most: Option<u32>,
}

/// What may be repeated.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Atom {
    /// A text.
    Text(String),
    /// One character of a class.
    Class(Class),
    /// What a rule derives.
    Rule(usize),
    /// One token, or any other than it.
    Token { id: u32, negated: bool },
}

/// A set of characters.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Class {
    /// In the order in which they are written.
    pub(super) ranges: Vec<RangeInclusive<char>>,
    /// All others.
    pub(super) negated: bool,
}

impl Item {
    /// The rule that it refers to.
    pub(super) fn rule(&self) -> Option<usize> {
        match self.atom {
            Atom::Rule(rule) => Some(rule),
            _ => None,
        }
    }
}

impl Rule {
    /// The rules that this one refers to.
    pub(super) fn references(&self) -> impl Iterator<Item = usize> {
        self.alternatives.iter().flatten().filter_map(Item::rule)
    }
}
