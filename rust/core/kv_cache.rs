//! The paged, reference-counted KV cache.
//!
//! A page holds [`TILE`] positions of all layers of a group. Layers that see the whole text form one group, layers with a sliding
//! window another, whose pages are released as soon as they lie wholly before the window. Within a page, head follows head, each as its
//! [`HeadLayout`] says: f32, f16, or bytes with scales.
//!
//! A [`Sequence`] owns references to its pages. A fork shares them; the one page that both may still write, the partial last
//! one, is copied by whoever writes first. A forward call is a transaction: until it commits, a rollback restores the sequence,
//! window pages included.
//!
//! Layers with a recurrent state have no pages: what they carry from position to position lies beside them (`state.rs`).
//! A sequence can be written to a file and read back (`stored.rs`).

mod packing;
mod state;
mod stored;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastq_kernels::Cpu;
use fastq_kernels::attention::{HeadLayout, KvFormat, StoreScratch, TILE};

use crate::memory::{Zeroed, human};
use crate::{Error, Result};
use state::States;

pub use state::MAX_SNAPSHOTS;
pub(crate) use state::state_bytes_per_sequence;
pub(crate) use stored::Outline;

/// Released pages that a group keeps for its next page instead of giving them back to the system.
const IDLE_PAGES: usize = 8;

/// Positions before the window that layers with a sliding window keep, so that [`Sequence::truncate`] can go back by as many: a
/// draft that is not taken, or the end of an answer that a template writes otherwise the next time.
pub const WINDOW_SLACK: usize = 64;

/// What one layer stores per position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LayerKv {
    /// Key and value heads.
    pub kv_heads: usize,
    /// Length of a key.
    pub key_dim: usize,
    /// Length of a value.
    pub value_dim: usize,
    /// What keys and values are stored as.
    pub format: KvFormat,
}

impl LayerKv {
    /// What a head stores per page.
    fn head(self) -> HeadLayout {
        HeadLayout { format: self.format, key_dim: self.key_dim, value_dim: self.value_dim }
    }

    /// Length of a page in units of two bytes; the largest number when it does not fit the address space, which no allocation
    /// grants.
    fn page_len(self) -> usize {
        self.kv_heads.saturating_mul(self.head().page_len())
    }
}

/// The layers that share pages.
#[derive(Clone, Debug)]
pub struct GroupLayout {
    /// How many positions a query sees, itself included; `None` for all.
    pub window: Option<usize>,
    layers: Vec<(LayerKv, usize)>,
    page_len: usize,
}

impl GroupLayout {
    /// A group of `layers` that see `window` positions.
    pub fn new(window: Option<usize>, layers: impl IntoIterator<Item = LayerKv>) -> GroupLayout {
        let mut page_len = 0usize;
        let layers = layers
            .into_iter()
            .map(|layer| {
                let start = page_len;
                page_len = page_len.saturating_add(layer.page_len());
                (layer, start)
            })
            .collect();
        GroupLayout { window, layers, page_len }
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Bytes of a page.
    pub fn page_bytes(&self) -> u64 {
        self.page_len as u64 * size_of::<u16>() as u64
    }

    /// The most pages that one sequence of `context` positions holds when a forward call takes chunks of `chunk` tokens: all of
    /// the text, or the window of the next chunk and the window that a rollback needs, each with the [slack](WINDOW_SLACK).
    pub fn pages(&self, context: usize, chunk: usize) -> usize {
        // `span` neighbouring positions touch at most this many pages.
        let touched = |span: usize| if span == 0 { 0 } else { (span - 1).div_ceil(TILE) + 1 };
        let all = context.div_ceil(TILE);
        match self.window {
            None => all,
            Some(window) => {
                let chunk = chunk.min(context).max(1);
                let before = (window.min(context).max(1) - 1).saturating_add(WINDOW_SLACK);
                all.min(touched(before.saturating_add(chunk)) + touched(before))
            }
        }
    }

    /// First position that a query at `position` sees.
    pub fn start(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// First page of a sequence of `len` positions that is not released.
    fn first_page(&self, len: usize) -> usize {
        self.start(len.saturating_sub(WINDOW_SLACK)) / TILE
    }

    /// The layout of a head, and where it starts in a page.
    fn head(&self, layer: usize, head: usize) -> (HeadLayout, usize) {
        let (kv, start) = self.layers[layer];
        assert!(head < kv.kv_heads, "kv head {head} of {}", kv.kv_heads);
        (kv.head(), start + head * kv.head().page_len())
    }
}

/// The memory of all sequences of a model.
#[derive(Clone, Debug)]
pub struct KvCache {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    groups: Vec<GroupLayout>,
    /// Values of the recurrent state of a sequence.
    state_len: usize,
    limit: u64,
    used: AtomicU64,
    idle: Vec<Mutex<Vec<Zeroed<u16>>>>,
}

impl KvCache {
    /// A cache for the groups, and recurrent states of `state_len` values, that never holds more than `limit` bytes.
    pub fn new(groups: Vec<GroupLayout>, state_len: usize, limit: u64) -> KvCache {
        let idle = groups.iter().map(|_| Mutex::new(Vec::new())).collect();
        KvCache { shared: Arc::new(Shared { groups, state_len, limit, used: AtomicU64::new(0), idle }) }
    }

    /// The groups.
    pub fn groups(&self) -> &[GroupLayout] {
        &self.shared.groups
    }

    /// Bytes allocated now, idle pages and recurrent states included.
    pub fn used_bytes(&self) -> u64 {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// The most bytes it may hold.
    pub fn limit_bytes(&self) -> u64 {
        self.shared.limit
    }

    /// An empty sequence; allocates nothing yet.
    pub fn sequence(&self) -> Sequence {
        let groups = self.shared.groups.iter().map(|_| GroupPages::default()).collect();
        Sequence { shared: Arc::clone(&self.shared), len: 0, groups, states: States::default(), begun: None }
    }
}

fn lock(mutex: &Mutex<Vec<Zeroed<u16>>>) -> MutexGuard<'_, Vec<Zeroed<u16>>> {
    // A list of free buffers is whole after every operation.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Counts bytes that are about to be allocated.
    fn reserve(&self, bytes: u64) -> Result<()> {
        let fits = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Ok(()),
            Err(used) => Err(Error::Memory(format!(
                "the kv cache is full: {} of {} in use; free or shorten other sequences, or load the model with a larger context",
                human(used),
                human(self.limit)
            ))),
        }
    }

    /// A page of zeros.
    fn allocate(self: &Arc<Self>, group: usize) -> Result<Arc<Page>> {
        let idle = lock(&self.idle[group]).pop();
        let buffer = match idle {
            Some(mut buffer) => {
                buffer.fill(0);
                buffer
            }
            None => {
                let bytes = self.groups[group].page_bytes();
                self.reserve(bytes)?;
                Zeroed::in_huge_pages(self.groups[group].page_len).ok_or_else(|| {
                    self.used.fetch_sub(bytes, Ordering::Relaxed);
                    Error::Memory(format!("the system refused {} for the kv cache", human(bytes)))
                })?
            }
        };
        Ok(Arc::new(Page { buffer: Some(buffer), group, shared: Arc::clone(self) }))
    }
}

/// [`TILE`] positions of one group; goes back to the cache when the last sequence lets go of it.
#[derive(Debug)]
struct Page {
    /// Present until the page is dropped.
    buffer: Option<Zeroed<u16>>,
    group: usize,
    shared: Arc<Shared>,
}

impl Page {
    fn pointer(&self) -> *mut u16 {
        self.buffer.as_ref().map_or(std::ptr::null_mut(), Zeroed::pointer)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let Some(buffer) = self.buffer.take() else { return };
        let mut idle = lock(&self.shared.idle[self.group]);
        if idle.len() < IDLE_PAGES {
            idle.push(buffer);
        } else {
            drop(idle);
            drop(buffer);
            self.shared.used.fetch_sub(self.shared.groups[self.group].page_bytes(), Ordering::Relaxed);
        }
    }
}

/// The pages of one sequence in one group.
#[derive(Clone, Default, Debug)]
struct GroupPages {
    /// Index of `pages[0]`: pages before it were released.
    first: usize,
    pages: VecDeque<Arc<Page>>,
    /// First and end page at the start of the open transaction.
    begun: (usize, usize),
    /// Pages that the open transaction released and a rollback puts back in front, oldest first.
    held: Vec<Arc<Page>>,
}

impl GroupPages {
    fn end(&self) -> usize {
        self.first + self.pages.len()
    }
}

/// One text in the cache. Dropping it frees its pages.
#[derive(Debug)]
pub struct Sequence {
    shared: Arc<Shared>,
    len: usize,
    groups: Vec<GroupPages>,
    states: States,
    /// The length at the start of the open transaction.
    begun: Option<usize>,
}

impl Sequence {
    /// Number of positions.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was computed yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A second sequence with the same content. Pages are shared until one of the two writes into them.
    pub fn fork(&self) -> Sequence {
        let (groups, states) = (self.groups.clone(), self.states.fork());
        Sequence { shared: Arc::clone(&self.shared), len: self.len, groups, states, begun: None }
    }

    /// Keeps the recurrent state, so that [`truncate`](Sequence::truncate) can come back to the present length: for the end of a
    /// message, after which a conversation may go on otherwise. The newest [`MAX_SNAPSHOTS`] are kept, fewer where memory is
    /// short. Without recurrent layers, or for an empty sequence, there is nothing to keep.
    pub fn snapshot(&mut self) {
        self.states.snapshot(self.len);
    }

    /// Forgets the positions from `len` on, and gives the number of positions that are left: with recurrent layers, whose state does not
    /// say what it was earlier, those up to the last [`snapshot`](Sequence::snapshot) before; else `len`.
    ///
    /// # Errors
    /// [`Error::Argument`] when the sequence is shorter, or when layers with a sliding window no longer have the positions
    /// before `len`. The sequence is then unchanged.
    pub fn truncate(&mut self, len: usize) -> Result<usize> {
        if len > self.len {
            return Err(Error::Argument(format!("cannot truncate a sequence of {} positions to {len}", self.len)));
        }
        if len == self.len {
            return Ok(len);
        }
        let len = self.states.reachable(len);
        if len > 0 {
            for (pages, layout) in self.groups.iter().zip(&self.shared.groups) {
                let kept = pages.first * TILE;
                if kept > layout.start(len) {
                    return Err(Error::Argument(format!(
                        "cannot truncate to {len} positions: layers with a sliding window of {} keep only positions from {kept} on; \
                         start again from an empty sequence or from a fork made earlier",
                        layout.window.unwrap_or(0)
                    )));
                }
            }
        }
        self.len = len;
        self.states.rewind(len);
        for pages in &mut self.groups {
            let keep = len.div_ceil(TILE).saturating_sub(pages.first);
            pages.pages.truncate(keep);
            if len == 0 {
                pages.first = 0;
            }
        }
        Ok(len)
    }

    /// Number of pages held in each group.
    pub fn pages(&self) -> Vec<usize> {
        self.groups.iter().map(|group| group.pages.len() + group.held.len()).collect()
    }

    /// Bytes of the pages and recurrent states that it holds; those that it shares with other sequences count, too.
    pub fn bytes(&self) -> u64 {
        let of_group = |(pages, group): (usize, &GroupLayout)| (pages as u64).saturating_mul(group.page_bytes());
        let pages: u64 = self.pages().into_iter().zip(&self.shared.groups).map(of_group).sum();
        pages.saturating_add(self.states.bytes())
    }

    /// Whether the sequence belongs to `cache`.
    pub fn belongs_to(&self, cache: &KvCache) -> bool {
        Arc::ptr_eq(&self.shared, &cache.shared)
    }

    /// Starts a transaction.
    pub(crate) fn begin(&mut self) {
        self.begun = Some(self.len);
        self.states.begin();
        for group in &mut self.groups {
            group.begun = (group.first, group.end());
        }
    }

    /// Makes room for the next `count` positions: releases pages before the window, copies a shared partial page, allocates pages and
    /// states. Where memory is short, snapshots give way.
    pub(crate) fn prepare(&mut self, count: usize) -> Result<()> {
        loop {
            match self.make_room(count) {
                Err(Error::Memory(_)) if self.states.give_way() => {}
                result => return result,
            }
        }
    }

    /// As [`Sequence::prepare`]; after an error, what it has done stays and a second call goes on from there.
    fn make_room(&mut self, count: usize) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        self.release();
        self.states.prepare(&self.shared)?;
        let (page, partial) = (self.len / TILE, !self.len.is_multiple_of(TILE));
        for (index, group) in self.groups.iter_mut().enumerate() {
            if partial
                && let Some(last) = group.pages.get_mut(page - group.first)
                && Arc::get_mut(last).is_none()
            {
                let copy = self.shared.allocate(index)?;
                // SAFETY: both pages have the length of the group; the new one is not shared yet, and a page is only written
                // by its sole owner, so nobody writes the old one.
                unsafe { copy.pointer().copy_from_nonoverlapping(last.pointer(), self.shared.groups[index].page_len) };
                *last = copy;
            }
            let end = (self.len + count).div_ceil(TILE);
            if group.pages.is_empty() {
                group.first = page.max(group.first);
            }
            while group.end() < end {
                group.pages.push_back(self.shared.allocate(index)?);
            }
        }
        Ok(())
    }

    /// Counts `count` positions that were written.
    pub(crate) fn advance(&mut self, count: usize) {
        self.len += count;
        self.states.advance();
    }

    /// Ends the transaction and keeps what it did.
    pub(crate) fn commit(&mut self) {
        self.begun = None;
        self.states.commit();
        for group in &mut self.groups {
            group.held.clear();
        }
        self.release();
    }

    /// Ends the transaction and restores the state at its start.
    pub(crate) fn rollback(&mut self) {
        let Some(len) = self.begun.take() else { return };
        self.len = len;
        for group in &mut self.groups {
            let (first, end) = group.begun;
            group.pages.truncate(end.saturating_sub(group.first));
            for page in group.held.drain(..).rev() {
                group.pages.push_front(page);
            }
            group.first = first;
        }
    }

    /// Lets go of pages that lie wholly before the window of the next position and its slack. Those that a rollback needs are held.
    fn release(&mut self) {
        for (group, layout) in self.groups.iter_mut().zip(&self.shared.groups) {
            let needed = layout.first_page(self.len);
            while group.first < needed {
                let Some(page) = group.pages.pop_front() else { break };
                if self.begun.is_some() && group.first < group.begun.1 {
                    group.held.push(page);
                }
                group.first += 1;
            }
        }
    }

    /// Part of the recurrent state, which [`Sequence::prepare`] made room for, to be changed from that before the next positions to
    /// that after them. A chunk asks for every part once.
    ///
    /// # Safety
    /// While the result lives, nobody asks for a part that overlaps.
    ///
    /// # Panics
    /// When the range is outside the state.
    #[allow(clippy::mut_from_ref, reason = "threads take parts of one state; the contract keeps them apart")]
    pub(crate) unsafe fn state(&self, range: Range<usize>) -> &mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { self.states.part(range) }
    }

    /// Writes the key and value of one head at a position that [`Sequence::prepare`] made room for.
    ///
    /// # Safety
    /// No other thread reads the group or writes the same position and head during the call.
    ///
    /// # Panics
    /// When the position has no page or a length differs from the layout.
    pub(crate) unsafe fn write(
        &self,
        cpu: Cpu,
        at: HeadIndex,
        position: usize,
        key: &[f32],
        value: &[f32],
        scratch: &mut StoreScratch,
    ) {
        let (head, start) = self.shared.groups[at.group].head(at.layer, at.head);
        let group = &self.groups[at.group];
        let page = group.pages[position / TILE - group.first].pointer();
        // SAFETY: the head is inside the page by construction of the layout; nobody else touches this slot of it.
        unsafe { head.store_at(cpu, key, value, page.add(start), position % TILE, scratch) };
    }

    /// Appends the pages of one head that hold `start..end`, and gives its layout and the index of the first page.
    ///
    /// # Safety
    /// Nobody writes to the group while the slices live.
    ///
    /// # Panics
    /// When a position has no page.
    pub(crate) unsafe fn head<'a>(
        &'a self,
        at: HeadIndex,
        start: usize,
        end: usize,
        pages: &mut Vec<&'a [u16]>,
    ) -> (HeadLayout, usize) {
        let (head, offset) = self.shared.groups[at.group].head(at.layer, at.head);
        let group = &self.groups[at.group];
        for page in group.pages.range(start / TILE - group.first..end.div_ceil(TILE) - group.first) {
            // SAFETY: the head is inside the page, which lives as long as `self`; nobody writes.
            pages.push(unsafe { std::slice::from_raw_parts(page.pointer().add(offset), head.page_len()) });
        }
        (head, start / TILE)
    }
}

/// A head in the cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HeadIndex {
    /// Group of the layer.
    pub(crate) group: usize,
    /// Layer within the group.
    pub(crate) layer: usize,
    /// Key/value head.
    pub(crate) head: usize,
}
