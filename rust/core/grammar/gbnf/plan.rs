//! A grammar over lexemes: what is regular is one lexeme, or is split into characters.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use super::ast::{Atom, Grammar, Item, Rule};
use crate::grammar::regex;

/// Alternatives of regular items, which are read as a whole.
pub(super) type Lexeme = Vec<Vec<Item>>;

/// What a rule of the plan consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Symbol {
    /// A lexeme, by its index.
    Lexeme(usize),
    /// A rule of the plan, by its index.
    Rule(usize),
    /// One token, or any other.
    Token { id: u32, negated: bool },
}

/// A symbol and how often.
pub(super) struct Part {
    pub(super) symbol: Symbol,
    pub(super) least: u32,
    pub(super) most: Option<u32>,
}

/// Rules over lexemes. The first rule is the root.
pub(super) struct Plan {
    pub(super) rules: Vec<Vec<Vec<Part>>>,
    pub(super) lexemes: Vec<Lexeme>,
}

/// The rules that are regular because they do not lead back to themselves, nor to a rule that does, nor to a token. Each
/// comes behind those that it refers to.
pub(super) fn regular(grammar: &Grammar) -> Vec<usize> {
    // A rule is known to be regular when all that it refers to are: from the leaves up. What is on a cycle, or above one, never is.
    let rules = &grammar.rules;
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); rules.len()];
    let mut open = vec![0usize; rules.len()];
    for (index, rule) in rules.iter().enumerate() {
        for used in rule.references() {
            users[used].push(index);
            open[index] += 1;
        }
        // A token is not text; it keeps the rule open for ever.
        open[index] +=
            usize::from(rule.alternatives.iter().flatten().any(|item| matches!(item.atom, Atom::Token { .. })));
    }
    let mut regular = Vec::new();
    let mut pending: Vec<usize> = (0..rules.len()).filter(|rule| open[*rule] == 0).collect();
    while let Some(rule) = pending.pop() {
        regular.push(rule);
        for &user in &users[rule] {
            open[user] -= 1;
            if open[user] == 0 {
                pending.push(user);
            }
        }
    }
    regular
}

/// Characters of the largest regular rule with everything that is repeated, and every rule that is referred to, written out.
pub(super) fn written_out(grammar: &Grammar, order: &[usize]) -> u64 {
    let mut sizes = vec![0u64; grammar.rules.len()];
    for &rule in order {
        for item in grammar.rules[rule].alternatives.iter().flatten() {
            sizes[rule] = sizes[rule].saturating_add(item.written_out(&sizes));
        }
    }
    let of_run = |items: &Vec<Item>| items.iter().map(|item| item.written_out(&sizes)).fold(0, u64::saturating_add);
    grammar.rules.iter().flat_map(|rule| &rule.alternatives).map(of_run).max().unwrap_or(0)
}

impl Item {
    /// Characters; 0 of rules that are not regular.
    fn written_out(&self, sizes: &[u64]) -> u64 {
        let size = match &self.atom {
            // A text that is too long counts as too much.
            Atom::Text(text) if text.len() > regex::MAX_TEXT => return u64::MAX,
            Atom::Text(text) => text.len() as u64,
            Atom::Class(_) => 1,
            Atom::Rule(rule) => sizes[*rule],
            Atom::Token { .. } => 0,
        };
        size.saturating_mul(u64::from(self.most.unwrap_or(self.least).max(1)))
    }
}

/// A rule that matches no text, since each of its alternatives leads back to it.
pub(super) fn endless(grammar: &Grammar) -> Option<usize> {
    // From the leaves up, as above, but one alternative is enough.
    let rules = &grammar.rules;
    let mut users: Vec<Vec<(usize, usize)>> = vec![Vec::new(); rules.len()];
    let mut open: Vec<Vec<usize>> = Vec::with_capacity(rules.len());
    let mut finite = vec![false; rules.len()];
    let mut pending = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        open.push(vec![0; rule.alternatives.len()]);
        for (alternative, items) in rule.alternatives.iter().enumerate() {
            for used in items.iter().filter(|item| item.least > 0).filter_map(Item::rule) {
                users[used].push((index, alternative));
                open[index][alternative] += 1;
            }
        }
        if open[index].contains(&0) {
            pending.push(index);
        }
    }
    while let Some(rule) = pending.pop() {
        if std::mem::replace(&mut finite[rule], true) {
            continue;
        }
        for &(user, alternative) in &users[rule] {
            open[user][alternative] -= 1;
            if open[user][alternative] == 0 {
                pending.push(user);
            }
        }
    }
    finite.iter().position(|finite| !finite)
}

impl Plan {
    /// The plan in which the lexemes of `split` are single characters.
    pub(super) fn new(grammar: &Grammar, regular: &[bool], split: &HashSet<Lexeme>) -> Plan {
        let mut planner = Planner {
            grammar,
            regular,
            split,
            lexemes: Numbered::default(),
            rules: Numbered::default(),
            plan: Vec::new(),
        };
        planner.rules.number(Wanted::Rule(grammar.root));
        while let Some(wanted) = planner.rules.items.get(planner.plan.len()).cloned() {
            let rule = planner.rule(&wanted);
            planner.plan.push(rule);
        }
        Plan { rules: planner.plan, lexemes: planner.lexemes.items }
    }
}

/// A rule of the plan that something refers to.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Wanted {
    /// A rule of the grammar that is not regular (or the root).
    Rule(usize),
    /// A regular rule of the grammar, by characters.
    Characters(usize),
    /// A lexeme, by characters.
    Split(Lexeme),
}

/// Items and their numbers.
struct Numbered<T> {
    items: Vec<T>,
    numbers: HashMap<T, usize>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Numbered<T> {
        Numbered { items: Vec::new(), numbers: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> Numbered<T> {
    fn number(&mut self, item: T) -> usize {
        *self.numbers.entry(item).or_insert_with_key(|item| {
            self.items.push(item.clone());
            self.items.len() - 1
        })
    }
}

struct Planner<'g> {
    grammar: &'g Grammar,
    regular: &'g [bool],
    split: &'g HashSet<Lexeme>,
    lexemes: Numbered<Lexeme>,
    rules: Numbered<Wanted>,
    plan: Vec<Vec<Vec<Part>>>,
}

impl Planner<'_> {
    fn rule(&mut self, wanted: &Wanted) -> Vec<Vec<Part>> {
        let grammar = self.grammar;
        match wanted {
            Wanted::Rule(rule) => self.mixed(&grammar.rules[*rule]),
            Wanted::Characters(rule) => {
                grammar.rules[*rule].alternatives.iter().map(|items| self.characters(items)).collect()
            }
            Wanted::Split(lexeme) => lexeme.iter().map(|items| self.characters(items)).collect(),
        }
    }

    /// Alternatives that are regular are one lexeme, and so are neighbours in the others.
    fn mixed(&mut self, rule: &Rule) -> Vec<Vec<Part>> {
        let regular = self.regular;
        let is_regular = |item: &Item| match item.atom {
            Atom::Rule(rule) => regular[rule],
            Atom::Token { .. } => false,
            Atom::Text(_) | Atom::Class(_) => true,
        };
        let (whole, others): (Vec<_>, Vec<_>) = (rule.alternatives.iter())
            .filter(|items| !items.is_empty())
            .partition(|items| items.iter().all(&is_regular));
        let mut alternatives = Vec::new();
        for items in others {
            let mut parts = Vec::new();
            for run in items.chunk_by(|one, two| is_regular(one) && is_regular(two)) {
                parts.push(match is_regular(&run[0]) {
                    true => once(self.lexeme(vec![run.to_vec()])),
                    false => {
                        let symbol = match run[0].atom {
                            Atom::Token { id, negated } => Symbol::Token { id, negated },
                            Atom::Rule(rule) => Symbol::Rule(self.rules.number(Wanted::Rule(rule))),
                            // These are regular.
                            Atom::Text(_) | Atom::Class(_) => continue,
                        };
                        Part { symbol, least: run[0].least, most: run[0].most }
                    }
                });
            }
            alternatives.push(parts);
        }
        if !whole.is_empty() {
            alternatives.push(vec![once(self.lexeme(whole.into_iter().cloned().collect()))]);
        }
        if rule.alternatives.iter().any(Vec::is_empty) {
            alternatives.push(Vec::new());
        }
        alternatives
    }

    fn lexeme(&mut self, lexeme: Lexeme) -> Symbol {
        match self.split.contains(&lexeme) {
            true => Symbol::Rule(self.rules.number(Wanted::Split(lexeme))),
            false => Symbol::Lexeme(self.lexemes.number(lexeme)),
        }
    }

    /// Every character a lexeme of its own.
    fn characters(&mut self, items: &[Item]) -> Vec<Part> {
        let mut parts = Vec::new();
        for item in items {
            let symbol = match &item.atom {
                Atom::Text(text) => match (text.chars().count(), item.least, item.most) {
                    (1, ..) => self.character(item.atom.clone()),
                    // Repeated as a whole.
                    (_, least, most) if (least, most) != (1, Some(1)) => {
                        let whole = Item { least: 1, most: Some(1), ..item.clone() };
                        Symbol::Rule(self.rules.number(Wanted::Split(vec![vec![whole]])))
                    }
                    _ => {
                        let characters = text.chars().map(|char| Atom::Text(char.to_string()));
                        parts.extend(characters.map(|atom| once(self.character(atom))));
                        continue;
                    }
                },
                Atom::Class(_) => self.character(item.atom.clone()),
                Atom::Rule(rule) => Symbol::Rule(self.rules.number(Wanted::Characters(*rule))),
                // A rule with a token is not regular.
                Atom::Token { id, negated } => Symbol::Token { id: *id, negated: *negated },
            };
            parts.push(Part { symbol, least: item.least, most: item.most });
        }
        parts
    }

    fn character(&mut self, atom: Atom) -> Symbol {
        Symbol::Lexeme(self.lexemes.number(vec![vec![Item { atom, least: 1, most: Some(1) }]]))
    }
}

fn once(symbol: Symbol) -> Part {
    Part { symbol, least: 1, most: Some(1) }
}

/// Whether a lexeme is a single character, which cannot be split.
pub(super) fn is_character(lexeme: &Lexeme) -> bool {
    match &lexeme[..] {
        [items] => match &items[..] {
            [Item { atom: Atom::Class(_), least: 1, most: Some(1) }] => true,
            [Item { atom: Atom::Text(text), least: 1, most: Some(1) }] => text.chars().count() == 1,
            _ => false,
        },
        _ => false,
    }
}
