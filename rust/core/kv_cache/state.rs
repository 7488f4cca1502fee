//! The recurrent state of a sequence: what layers without a cache carry from position to position.
//!
//! A state that a forward call has committed is never changed again: the next call writes another buffer, which it begins as a copy. So
//! a rollback is to forget that buffer, forks and snapshots share states, and two buffers that take turns are enough for the rest.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Shared;
use super::stored::{Sink, Source};
use crate::memory::{Zeroed, human};
use crate::{Error, Result};

/// The most snapshots of a sequence.
pub const MAX_SNAPSHOTS: usize = 3;

/// Values that are written or read at once.
const STORED_AT_ONCE: usize = 1 << 16;

/// The most bytes that one sequence takes for a state of `len` values: two that take turns, and the snapshots.
pub(crate) fn state_bytes_per_sequence(len: usize) -> u64 {
    state_bytes(len).saturating_mul(2 + MAX_SNAPSHOTS as u64)
}

pub(super) fn state_bytes(len: usize) -> u64 {
    (len as u64).saturating_mul(size_of::<f32>() as u64)
}

/// A state, counted as the pages are.
#[derive(Debug)]
struct State {
    values: Zeroed<f32>,
    shared: Arc<Shared>,
}

impl State {
    /// The state before the first position: zeros.
    fn new(shared: &Arc<Shared>) -> Result<State> {
        let bytes = state_bytes(shared.state_len);
        shared.reserve(bytes)?;
        let values = Zeroed::in_huge_pages(shared.state_len).ok_or_else(|| {
            shared.used.fetch_sub(bytes, Ordering::Relaxed);
            Error::Memory(format!("the system refused {} for the recurrent state", human(bytes)))
        })?;
        Ok(State { values, shared: Arc::clone(shared) })
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.shared.used.fetch_sub(state_bytes(self.shared.state_len), Ordering::Relaxed);
    }
}

/// The states of one sequence; empty where no layer has any.
#[derive(Default, Debug)]
pub(super) struct States {
    /// After the last position that was committed; none before the first call.
    now: Option<Arc<State>>,
    /// What the open transaction writes; not shared from [`States::prepare`] on.
    next: Option<Arc<State>>,
    /// The open transaction has written all of `next`.
    written: bool,
    /// Length and state, the shortest first.
    snapshots: Vec<(usize, Arc<State>)>,
}

impl States {
    pub(super) fn fork(&self) -> States {
        States { now: self.now.clone(), next: None, written: false, snapshots: self.snapshots.clone() }
    }

    /// Keeps the state after `len` positions; the oldest snapshot makes room.
    pub(super) fn snapshot(&mut self, len: usize) {
        let Some(now) = self.now.as_ref().filter(|_| self.snapshots.last().is_none_or(|(last, _)| *last < len)) else {
            return;
        };
        if self.snapshots.len() == MAX_SNAPSHOTS {
            self.snapshots.remove(0);
        }
        self.snapshots.push((len, Arc::clone(now)));
    }

    /// The lengths of the snapshots, the shortest first.
    pub(super) fn lengths(&self) -> Vec<usize> {
        self.snapshots.iter().map(|(at, _)| *at).collect()
    }

    /// Bytes of all that differ.
    pub(super) fn bytes(&self) -> u64 {
        let mut all: Vec<&Arc<State>> =
            self.now.iter().chain(&self.next).chain(self.snapshots.iter().map(|(_, s)| s)).collect();
        all.sort_by_key(|state| Arc::as_ptr(state));
        all.dedup_by(|a, b| Arc::ptr_eq(a, b));
        all.iter().fold(0, |sum, state| sum.saturating_add(state_bytes(state.values.len())))
    }

    /// Writes the states of the snapshots, then the present one, of `len` positions, unless the last snapshot is of it.
    pub(super) fn store(&self, len: usize, sink: Sink<'_>) -> Result<()> {
        let now = self.now.iter().filter(|_| self.snapshots.last().is_none_or(|(last, _)| *last != len));
        let mut buffer = Vec::new();
        for state in self.snapshots.iter().map(|(_, state)| state).chain(now) {
            for values in state.values.chunks(STORED_AT_ONCE) {
                buffer.clear();
                buffer.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                sink(&buffer)?;
            }
        }
        Ok(())
    }

    /// Reads what [`store`](States::store) has written for snapshots of these lengths.
    pub(super) fn load(shared: &Arc<Shared>, len: usize, snapshots: &[usize], source: Source<'_>) -> Result<States> {
        let mut buffer = vec![0; STORED_AT_ONCE.min(shared.state_len) * size_of::<f32>()];
        let mut read = || -> Result<Arc<State>> {
            let mut state = State::new(shared)?;
            for values in state.values.chunks_mut(STORED_AT_ONCE) {
                let bytes = &mut buffer[..size_of_val(values)];
                source(bytes)?;
                for (value, bytes) in values.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *value = f32::from_le_bytes(*bytes);
                }
            }
            Ok(Arc::new(state))
        };
        let snapshots = snapshots.iter().map(|&at| Ok((at, read()?))).collect::<Result<Vec<_>>>()?;
        let now = match snapshots.last() {
            Some((last, state)) if *last == len => Arc::clone(state),
            _ => read()?,
        };
        Ok(States { now: Some(now), next: None, written: false, snapshots })
    }

    /// The length, at most `len`, that a sequence of more positions can go back to.
    pub(super) fn reachable(&self, len: usize) -> usize {
        match &self.now {
            None => len,
            Some(_) => self.snapshots.iter().map(|(at, _)| *at).rfind(|at| *at <= len).unwrap_or(0),
        }
    }

    /// Goes back to a length that is reachable.
    pub(super) fn rewind(&mut self, len: usize) {
        self.snapshots.retain(|(at, _)| *at <= len);
        self.now = self.snapshots.last().map(|(_, state)| Arc::clone(state));
    }

    pub(super) fn begin(&mut self) {
        self.written = false;
    }

    /// Makes room for what the transaction writes.
    pub(super) fn prepare(&mut self, shared: &Arc<Shared>) -> Result<()> {
        if shared.state_len == 0 {
            return Ok(());
        }
        if self.now.is_none() {
            self.now = Some(Arc::new(State::new(shared)?));
        }
        if self.next.as_mut().and_then(Arc::get_mut).is_none() {
            self.next = None;
            self.next = Some(Arc::new(State::new(shared)?));
        }
        Ok(())
    }

    /// Gives up the oldest snapshot; whether there was one.
    pub(super) fn give_way(&mut self) -> bool {
        let found = !self.snapshots.is_empty();
        self.snapshots.drain(..usize::from(found));
        found
    }

    pub(super) fn advance(&mut self) {
        self.written = true;
    }

    pub(super) fn commit(&mut self) {
        if std::mem::take(&mut self.written) {
            std::mem::swap(&mut self.now, &mut self.next);
        }
    }

    /// As [`Sequence::state`](super::Sequence::state).
    ///
    /// # Safety
    /// The same.
    #[allow(clippy::mut_from_ref, reason = "threads take parts of one state; the contract keeps them apart")]
    pub(super) unsafe fn part(&self, range: Range<usize>) -> &mut [f32] {
        let (Some(now), Some(next)) = (&self.now, &self.next) else { panic!("no room was prepared for a state") };
        assert!(range.start <= range.end && range.end <= next.values.len(), "{range:?} of {}", next.values.len());
        // SAFETY: inside the buffer by the check. It is not shared with another sequence since `prepare`, and within this one the
        // caller keeps the parts apart.
        let part = unsafe { std::slice::from_raw_parts_mut(next.values.pointer().add(range.start), range.len()) };
        if !self.written {
            part.copy_from_slice(&now.values[range]);
        }
        part
    }
}
