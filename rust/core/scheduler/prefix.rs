//! Beginnings of texts that were computed before: a prompt that begins as an earlier one goes on from there.

use crate::generate::common;
use crate::{Model, Sequence};

/// The shortest beginning that is worth a look.
pub(super) const SHORTEST: usize = 32;
/// The most texts that are kept.
const MAX_ENTRIES: usize = 32;

/// A text and its keys and values.
struct Entry {
    tokens: Vec<u32>,
    sequence: Sequence,
    /// When it was of use last.
    used: u64,
}

/// The texts that were computed lately, together no longer than the context. They share their pages with the sequences that go on from them.
#[derive(Default)]
pub(super) struct Prefixes {
    entries: Vec<Entry>,
    clock: u64,
}

impl Prefixes {
    /// A sequence with as much of the beginning of `tokens` as is known, never all of them.
    pub(super) fn find(&mut self, tokens: &[u32]) -> Option<Sequence> {
        let mut order: Vec<(usize, usize)> =
            self.entries.iter().enumerate().map(|(at, entry)| (common(&entry.tokens, tokens), at)).collect();
        order.retain(|(common, _)| *common >= SHORTEST);
        order.sort_by_key(|&(common, _)| std::cmp::Reverse(common));
        let mut best: Option<(Sequence, usize)> = None;
        for (common, at) in order {
            if best.as_ref().is_some_and(|(best, _)| best.len() >= common) {
                break;
            }
            let mut sequence = self.entries[at].sequence.fork();
            // Layers with a window or a state may not have it any more.
            if sequence.truncate(common).is_ok_and(|len| len >= SHORTEST)
                && best.as_ref().is_none_or(|(best, _)| best.len() < sequence.len())
            {
                best = Some((sequence, at));
            }
        }
        let (sequence, at) = best?;
        self.clock += 1;
        self.entries[at].used = self.clock;
        Some(sequence)
    }

    /// Keeps a text that was computed.
    pub(super) fn store(&mut self, model: &Model, tokens: &[u32], sequence: Sequence) {
        let tokens = &tokens[..sequence.len()];
        if tokens.len() < SHORTEST {
            return;
        }
        self.clock += 1;
        // From a longer text a shorter one can be cut, unless layers forget.
        let plain = model.remembers();
        if let Some(entry) = self.entries.iter_mut().find(|entry| match plain {
            true => entry.tokens.starts_with(tokens),
            false => entry.tokens == tokens,
        }) {
            entry.used = self.clock;
            return;
        }
        if plain {
            self.entries.retain(|entry| !tokens.starts_with(&entry.tokens));
        }
        self.entries.push(Entry { tokens: tokens.to_vec(), sequence, used: self.clock });
        let positions = |entries: &[Entry]| entries.iter().map(|entry| entry.tokens.len()).sum::<usize>();
        while self.entries.len() > MAX_ENTRIES || positions(&self.entries) > model.context() {
            self.give_way();
        }
    }

    /// Gives up the text that was of no use for the longest time; whether there was one.
    pub(super) fn give_way(&mut self) -> bool {
        let oldest = self.entries.iter().enumerate().min_by_key(|(_, entry)| entry.used).map(|(at, _)| at);
        oldest.map(|at| self.entries.swap_remove(at)).is_some()
    }
}
