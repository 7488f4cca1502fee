//! Merging neighbours: the loop that both kinds of BPE share. A text is a chain of symbols; of all neighbours that a model can merge,
//! those of the first order are merged first, of the same order the leftmost, until there are none. Takes O(n log n).

use std::collections::BinaryHeap;

use crate::{Error, Interrupt, Result};

/// No symbol, or no token.
pub(super) const NONE: u32 = u32::MAX;

/// Pairs and merges between two looks at the interrupt.
const STEPS_PER_CHECK: usize = 4096;

/// A run of bytes that is one symbol now: a link of the chain. Indices are those of the symbols at the beginning.
#[derive(Clone, Copy)]
pub(super) struct Symbol {
    pub(super) start: u32,
    /// 0 when the symbol before has swallowed this one.
    pub(super) length: u32,
    /// [`NONE`] at the ends of the chain.
    previous: u32,
    next: u32,
    /// The token it is, [`NONE`] when it is none.
    pub(super) id: u32,
}

/// What neighbours become.
pub(super) trait Merges {
    /// The order and the token of two neighbours in `text` together, when they can be merged. The smaller order comes first.
    fn merge(&self, text: &[u8], left: &Symbol, right: &Symbol) -> Option<(u32, u32)>;

    /// Whether two neighbours can be merged, of which is known that others with the same text can.
    fn still(&self, left: &Symbol, right: &Symbol) -> bool;
}

/// A possible merge of a symbol with its right neighbour.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Merge {
    /// The order, then the index of the symbol, with all bits inverted: the heap gives the largest.
    priority: u64,
    /// Bytes of both together. A merge is out of date when they have another length by now; when they have not, their text and so the
    /// token is the same.
    length: u32,
    id: u32,
}

/// The chain, kept from text to text for its memory.
#[derive(Default)]
pub(super) struct Chain {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Merge>,
    steps: usize,
}

impl Chain {
    /// Refuses what the indices cannot count.
    pub(super) fn check(text: &str) -> Result<()> {
        match text.len() < NONE as usize {
            true => Ok(()),
            false => Err(Error::Argument(format!("text must be shorter than 4 GiB, found {} bytes", text.len()))),
        }
    }

    /// Merges `text`, which is the given runs at first (their lengths in bytes and tokens), and gives what is left to `each`.
    pub(super) fn encode(
        &mut self,
        merges: &impl Merges,
        text: &[u8],
        runs: impl Iterator<Item = (usize, Option<u32>)>,
        interrupt: &dyn Interrupt,
        mut each: impl FnMut(&Symbol) -> Result<()>,
    ) -> Result<()> {
        self.symbols.clear();
        self.queue.clear();
        let mut start = 0;
        for (length, id) in runs {
            let index = self.symbols.len() as u32;
            let (previous, length) = (index.checked_sub(1).unwrap_or(NONE), length as u32);
            self.symbols.push(Symbol { start, length, previous, next: index + 1, id: id.unwrap_or(NONE) });
            start += length;
        }
        let Some(last) = self.symbols.last_mut() else { return Ok(()) };
        last.next = NONE;
        for right in 1..self.symbols.len() as u32 {
            self.step(interrupt)?;
            self.offer(merges, text, right - 1, right);
        }
        while let Some(Merge { priority, length, id }) = self.queue.pop() {
            self.step(interrupt)?;
            let left = !(priority as u32);
            let first = self.symbols[left as usize];
            // Swallowed since, or has become the end of the chain.
            if first.length == 0 || first.next == NONE {
                continue;
            }
            let second = self.symbols[first.next as usize];
            if first.length + second.length != length || !merges.still(&first, &second) {
                continue;
            }
            self.symbols[left as usize] = Symbol { length, next: second.next, id, ..first };
            self.symbols[first.next as usize].length = 0;
            if second.next != NONE {
                self.symbols[second.next as usize].previous = left;
            }
            self.offer(merges, text, first.previous, left);
            self.offer(merges, text, left, second.next);
        }
        let mut index = 0;
        while index != NONE {
            let symbol = self.symbols[index as usize];
            each(&symbol)?;
            index = symbol.next;
        }
        Ok(())
    }

    /// Queues the merge of two neighbours when there is one.
    fn offer(&mut self, merges: &impl Merges, text: &[u8], left: u32, right: u32) {
        if left == NONE || right == NONE {
            return;
        }
        let (first, second) = (&self.symbols[left as usize], &self.symbols[right as usize]);
        if let Some((order, id)) = merges.merge(text, first, second) {
            let length = first.length + second.length;
            self.queue.push(Merge { priority: u64::from(!order) << 32 | u64::from(!left), length, id });
        }
    }

    fn step(&mut self, interrupt: &dyn Interrupt) -> Result<()> {
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS_PER_CHECK) && interrupt.stop() { Err(Error::Cancelled) } else { Ok(()) }
    }
}
