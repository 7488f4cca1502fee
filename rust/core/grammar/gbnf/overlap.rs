//! Lexemes that take what the next one should begin with.
//!
//! A lexer is greedy and does not go back: after a text that the lexeme `a` matches, it goes on with the next byte as long as any lexeme
//! that may stand here allows it. That is wrong where the byte could also begin what follows `a`. So it is asked for all lexemes
//! that can stand at one place (those that can follow one and the same lexeme), with their automata, for all bytes that can follow.

use std::collections::HashSet;

use regex_automata::dfa::dense::{Config, DFA};
use regex_automata::dfa::{Automaton, StartKind};
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};

use super::ast::Grammar;
use super::plan::{Lexeme, Plan, Symbol, is_character};
use super::translate::expression;

/// Lexemes that are compared at most. Where there are more, they are split without a look.
const MAX_LEXEMES: usize = 400;

/// Bytes of one automaton.
const MAX_AUTOMATON: usize = 1 << 20;

/// Pairs of states that are visited for a grammar, and steps towards what follows what.
const MAX_STEPS: usize = 2_000_000;

/// The lexemes that must be split so that the others mean what the grammar says. Empty when the plan is right.
pub(super) fn to_split(grammar: &Grammar, plan: &Plan) -> HashSet<Lexeme> {
    let splittable = || plan.lexemes.iter().filter(|lexeme| !is_character(lexeme)).cloned().collect();
    if plan.lexemes.iter().all(is_character) {
        return HashSet::new();
    }
    if plan.lexemes.len() > MAX_LEXEMES {
        return splittable();
    }
    let automata: Vec<Option<Lexer>> = plan.lexemes.iter().map(|lexeme| Lexer::new(grammar, lexeme)).collect();
    let nullable: Vec<bool> = automata.iter().map(|lexer| lexer.as_ref().is_none_or(|lexer| lexer.nullable)).collect();
    let mut steps = MAX_STEPS;
    let Some(follows) = follows(plan, &nullable, &mut steps) else { return splittable() };
    let mut split = HashSet::new();
    let mut compared = HashSet::new();
    // Which lexemes can stand beside one another: those at the start, and those behind each lexeme. The last set is that of the start.
    for set in &follows {
        for one in set.iter() {
            for two in set.iter() {
                if !compared.insert((one, two)) || follows[one].is_empty() {
                    continue;
                }
                let after = follows[one].iter();
                let clash = match (&automata[one], &automata[two]) {
                    (Some(first), Some(second)) => {
                        let bytes = after.map(|next| automata[next].as_ref().map_or(ByteSet::ALL, |lexer| lexer.first));
                        first.clashes(second, bytes.fold(ByteSet::NONE, ByteSet::or), &mut steps)
                    }
                    // Too large to know.
                    _ => true,
                };
                if clash {
                    split.extend(
                        [one, two]
                            .map(|lexeme| &plan.lexemes[lexeme])
                            .into_iter()
                            .filter(|lexeme| !is_character(lexeme))
                            .cloned(),
                    );
                }
                if steps == 0 {
                    return splittable();
                }
            }
        }
    }
    split
}

/// A set of lexemes.
#[derive(Clone, PartialEq, Default)]
struct Set(Vec<u64>);

impl Set {
    fn insert(&mut self, lexeme: usize) -> bool {
        let (word, bit) = (lexeme / 64, 1 << (lexeme % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    /// Adds all of `other`; whether there were new ones.
    fn add(&mut self, other: &Set) -> bool {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        let mut new = false;
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            new |= *more & !*word != 0;
            *word |= more;
        }
        new
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        let bits = |(index, word): (usize, &u64)| {
            let word = *word;
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| index * 64 + bit)
        };
        self.0.iter().enumerate().flat_map(bits)
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

/// For each lexeme those that may follow it directly, and at last those that may begin a text. `None` when that takes too many steps.
fn follows(plan: &Plan, nullable: &[bool], steps: &mut usize) -> Option<Vec<Set>> {
    let rules = &plan.rules;
    // Whether each rule may be empty, what it begins with, and what may follow it.
    let mut empty = vec![false; rules.len()];
    let mut first = vec![Set::default(); rules.len()];
    let mut after = vec![Set::default(); rules.len()];
    let mut follows = vec![Set::default(); plan.lexemes.len()];
    loop {
        let mut changed = false;
        for (rule, alternatives) in rules.iter().enumerate() {
            for parts in alternatives {
                *steps = steps.checked_sub(1 + parts.len() * (1 + plan.lexemes.len() / 64))?;
                // From the end: what may follow what stands here.
                let mut behind = after[rule].clone();
                let (mut all_empty, mut begin) = (true, Set::default());
                for part in parts.iter().rev() {
                    let (own, own_empty) = match part.symbol {
                        Symbol::Lexeme(lexeme) => {
                            let mut own = Set::default();
                            own.insert(lexeme);
                            (own, nullable[lexeme])
                        }
                        Symbol::Rule(rule) => (first[rule].clone(), empty[rule]),
                        // No text.
                        Symbol::Token { .. } => (Set::default(), false),
                    };
                    let own_empty = own_empty || part.least == 0;
                    let mut next = behind.clone();
                    if part.most != Some(1) {
                        next.add(&own);
                    }
                    changed |= match part.symbol {
                        Symbol::Lexeme(lexeme) => follows[lexeme].add(&next),
                        Symbol::Rule(rule) => after[rule].add(&next),
                        Symbol::Token { .. } => false,
                    };
                    if !own_empty {
                        behind = Set::default();
                        begin = Set::default();
                    }
                    behind.add(&own);
                    begin.add(&own);
                    all_empty &= own_empty;
                }
                changed |= first[rule].add(&begin);
                changed |= all_empty && !std::mem::replace(&mut empty[rule], true);
            }
        }
        if !changed {
            break;
        }
    }
    follows.push(first.swap_remove(0));
    Some(follows)
}

/// A set of bytes.
#[derive(Clone, Copy)]
struct ByteSet([u64; 4]);

impl ByteSet {
    const NONE: ByteSet = ByteSet([0; 4]);
    const ALL: ByteSet = ByteSet([u64::MAX; 4]);

    fn or(self, other: ByteSet) -> ByteSet {
        ByteSet(std::array::from_fn(|index| self.0[index] | other.0[index]))
    }

    fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte / 64)] >> (byte % 64) & 1 == 1
    }
}

/// The automaton of a lexeme.
struct Lexer {
    dfa: DFA<Vec<u32>>,
    start: StateID,
    nullable: bool,
    /// The bytes that a match may begin with.
    first: ByteSet,
}

impl Lexer {
    /// `None` when it would be too large.
    fn new(grammar: &Grammar, lexeme: &Lexeme) -> Option<Lexer> {
        let config = Config::new()
            .start_kind(StartKind::Anchored)
            .match_kind(MatchKind::All)
            .dfa_size_limit(Some(MAX_AUTOMATON))
            .determinize_size_limit(Some(MAX_AUTOMATON));
        let nfa = regex_automata::nfa::thompson::Config::new().nfa_size_limit(Some(MAX_AUTOMATON));
        let mut builder = DFA::builder();
        let dfa = builder.configure(config).thompson(nfa).build(&expression(grammar, lexeme)?).ok()?;
        let start = dfa.start_state(&start::Config::new().anchored(Anchored::Yes)).ok()?;
        let mut first = ByteSet::NONE;
        for byte in 0..=u8::MAX {
            if !dfa.is_dead_state(dfa.next_state(start, byte)) {
                first.0[usize::from(byte / 64)] |= 1 << (byte % 64);
            }
        }
        let nullable = accepts(&dfa, start);
        Some(Lexer { dfa, start, nullable, first })
    }

    /// Whether behind a text that this matches, one of the bytes `after` may go on with what `other` matches. Each pair of states is
    /// a step.
    fn clashes(&self, other: &Lexer, after: ByteSet, steps: &mut usize) -> bool {
        let mut seen = HashSet::new();
        let mut pending = vec![(self.start, other.start)];
        let mut at_start = true;
        while let Some((one, two)) = pending.pop() {
            // The empty text is not read; it is left out.
            if !std::mem::take(&mut at_start) && accepts(&self.dfa, one) {
                let goes_on = |byte: u8| after.has(byte) && !other.dfa.is_dead_state(other.dfa.next_state(two, byte));
                if (0..=u8::MAX).any(goes_on) {
                    return true;
                }
            }
            for byte in 0..=u8::MAX {
                let next = (self.dfa.next_state(one, byte), other.dfa.next_state(two, byte));
                if !self.dfa.is_dead_state(next.0) && !other.dfa.is_dead_state(next.1) && seen.insert(next) {
                    pending.push(next);
                }
            }
            *steps = steps.saturating_sub(1 << 8);
            if *steps == 0 {
                return true;
            }
        }
        false
    }
}

/// Whether the text that led to `state` matches. Matches show one byte late.
fn accepts(dfa: &DFA<Vec<u32>>, state: StateID) -> bool {
    dfa.is_match_state(dfa.next_eoi_state(state))
}
