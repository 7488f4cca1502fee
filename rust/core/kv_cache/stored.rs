//! A sequence as bytes: what a session file holds of the cache, and the way back.
//!
//! An [`Outline`] says which positions and states there are. All that is believed of a file are its numbers, and they are compared with the
//! cache before anything is allocated; what follows are values only, of which any bits will do.
//!
//! ```text
//! outline | length u64 | groups u32 | snapshots u32 | first page of each group u64 … | length at each snapshot u64 … |
//! data    | page after page of group after group: the positions in use | states: those of the snapshots, then the present one |
//! ```
//!
//! All numbers are little-endian. The present state is left out when the last snapshot is of it. Pages before the window and its slack are left out.

use std::sync::Arc;

use fastq_kernels::attention::TILE;

use super::state::{MAX_SNAPSHOTS, States, state_bytes};
use super::{GroupPages, KvCache, Page, Sequence};
use crate::model::spec::MAX_CONTEXT;
use crate::{Error, Result};

/// The most groups of layers in an outline: a model has one or two.
const MAX_GROUPS: usize = 64;

/// Takes bytes in their order.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;
/// Fills a buffer with the next bytes.
pub(crate) type Source<'a> = &'a mut dyn FnMut(&mut [u8]) -> Result<()>;

/// Which positions and states of a sequence are stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Outline {
    /// Number of positions.
    len: usize,
    /// First page of each group.
    first: Vec<usize>,
    /// Lengths at the snapshots of the recurrent state, the shortest first.
    snapshots: Vec<usize>,
}

impl Outline {
    /// The most bytes of an encoded outline.
    pub(crate) const MAX_BYTES: usize = 16 + 8 * (MAX_GROUPS + MAX_SNAPSHOTS);

    /// Number of positions.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// As bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Outline::MAX_BYTES);
        out.extend((self.len as u64).to_le_bytes());
        out.extend((self.first.len() as u32).to_le_bytes());
        out.extend((self.snapshots.len() as u32).to_le_bytes());
        out.extend(self.first.iter().chain(&self.snapshots).flat_map(|&number| (number as u64).to_le_bytes()));
        out
    }

    /// Reads the bytes of an outline and compares them with what the cache stores.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub(crate) fn decode(bytes: &[u8], cache: &KvCache) -> Result<Outline, String> {
        let layout = &cache.shared;
        let (head, rest) = bytes.split_first_chunk::<16>().ok_or("the outline of the sequence is too short")?;
        let [l0, l1, l2, l3, l4, l5, l6, l7, g0, g1, g2, g3, s0, s1, s2, s3] = *head;
        let len = u64::from_le_bytes([l0, l1, l2, l3, l4, l5, l6, l7]);
        let groups = u32::from_le_bytes([g0, g1, g2, g3]) as usize;
        let count = u32::from_le_bytes([s0, s1, s2, s3]) as usize;
        if groups != layout.groups.len() {
            let expected = layout.groups.len();
            return Err(format!("expected {expected} groups of layers, found {groups}"));
        }
        let most = if layout.state_len > 0 && len > 0 { MAX_SNAPSHOTS } else { 0 };
        if count > most {
            return Err(format!("expected at most {most} snapshots of the recurrent state, found {count}"));
        }
        let expected = (groups + count) * 8;
        if rest.len() != expected {
            return Err(format!("expected an outline of {} bytes, found {}", 16 + expected, bytes.len()));
        }
        // Sums of positions and windows then stay far from the largest number.
        let length = |value: u64| usize::try_from(value).ok().filter(|value| *value <= MAX_CONTEXT);
        let all = rest.as_chunks::<8>().0.iter().map(|bytes| length(u64::from_le_bytes(*bytes)));
        let all: Option<Vec<usize>> = all.collect();
        let (Some(len), Some(mut first)) = (length(len), all) else {
            return Err("the outline of the sequence has lengths beyond the longest context".into());
        };
        let snapshots = first.split_off(groups);
        for (found, group) in first.iter().zip(&layout.groups) {
            let range = group.first_page(len)..=group.start(len) / TILE;
            if !range.contains(found) {
                let (from, to) = range.into_inner();
                return Err(format!(
                    "expected a first page from {from} to {to} for {len} positions and a window of {:?}, found {found}",
                    group.window
                ));
            }
        }
        if !snapshots.is_sorted_by(|a, b| a < b) || snapshots.iter().any(|at| !(1..=len).contains(at)) {
            return Err(format!("expected snapshots at rising lengths from 1 to {len}, found {snapshots:?}"));
        }
        Ok(Outline { len, first, snapshots })
    }

    /// Number of states: those of the snapshots, and the present one unless it is one of them.
    fn states(&self, cache: &KvCache) -> usize {
        match cache.shared.state_len {
            0 => 0,
            _ if self.len == 0 => 0,
            _ => self.snapshots.len() + usize::from(self.snapshots.last() != Some(&self.len)),
        }
    }

    /// Group, number and positions in use of every page.
    fn pages(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let len = self.len;
        let of_group = move |(group, first): (usize, usize)| (first..len.div_ceil(TILE)).map(move |page| (group, page));
        let pages = self.first.clone().into_iter().enumerate().flat_map(of_group);
        pages.map(move |(group, page)| (group, page, TILE.min(len - page * TILE)))
    }

    /// Bytes of the data behind the outline.
    pub(crate) fn data_bytes(&self, cache: &KvCache) -> u64 {
        let positions = cache.shared.groups.iter().zip(&self.first).map(|(group, first)| {
            let positions = self.len.saturating_sub(first * TILE);
            (group.packed_len(1) as u64).saturating_mul(2).saturating_mul(positions as u64)
        });
        let states = state_bytes(cache.shared.state_len).saturating_mul(self.states(cache) as u64);
        positions.fold(states, u64::saturating_add)
    }

    /// The length, at most `len`, that the sequence can be cut to ([`Sequence::truncate`]); 0 when there is none.
    pub(crate) fn reachable(&self, cache: &KvCache, len: usize) -> usize {
        if len >= self.len {
            return self.len;
        }
        let len = match cache.shared.state_len {
            0 => len,
            _ => self.snapshots.iter().copied().rfind(|at| *at <= len).unwrap_or(0),
        };
        let kept = |(first, group): (&usize, &super::GroupLayout)| first * TILE <= group.start(len);
        if self.first.iter().zip(&cache.shared.groups).all(kept) { len } else { 0 }
    }
}

impl Sequence {
    /// Which positions and states [`Sequence::store`] writes.
    pub(crate) fn outline(&self) -> Outline {
        let first = self.groups.iter().zip(&self.shared.groups);
        let first = first.map(|(pages, layout)| pages.first.max(layout.first_page(self.len))).collect();
        let snapshots = if self.len == 0 { Vec::new() } else { self.states.lengths() };
        Outline { len: self.len, first, snapshots }
    }

    /// Writes the data of the [outline](Sequence::outline).
    ///
    /// # Errors
    /// Those of `sink`.
    pub(crate) fn store(&self, sink: Sink<'_>) -> Result<()> {
        let outline = self.outline();
        let mut buffer = Vec::new();
        for (group, page, slots) in outline.pages() {
            let pages = &self.groups[group];
            buffer.clear();
            self.shared.groups[group].pack(pages.pages[page - pages.first].values(), slots, &mut buffer);
            sink(&buffer)?;
        }
        if self.len == 0 { Ok(()) } else { self.states.store(self.len, sink) }
    }
}

impl Page {
    fn values(&self) -> &[u16] {
        self.buffer.as_ref().map_or(&[], |buffer| &**buffer)
    }
}

impl KvCache {
    /// A sequence from the data of an outline, which was [decoded](Outline::decode) for this cache.
    ///
    /// # Errors
    /// [`Error::Memory`] when the cache is full; those of `source`.
    pub(crate) fn load(&self, outline: &Outline, source: Source<'_>) -> Result<Sequence> {
        let refused = || Error::Memory("the system refused a buffer for a page of the kv cache".into());
        let mut groups: Vec<GroupPages> =
            outline.first.iter().map(|&first| GroupPages { first, ..GroupPages::default() }).collect();
        let mut buffer = Vec::new();
        for (group, _, slots) in outline.pages() {
            let layout = &self.shared.groups[group];
            let bytes = layout.packed_len(slots) * 2;
            buffer.try_reserve(bytes.saturating_sub(buffer.len())).map_err(|_| refused())?;
            buffer.resize(bytes, 0);
            let mut page = self.shared.allocate(group)?;
            let values = Arc::get_mut(&mut page).and_then(|page| page.buffer.as_mut());
            let values = values.ok_or_else(|| Error::Internal("a new page is shared".into()))?;
            source(&mut buffer)?;
            layout.unpack(&buffer, slots, values);
            groups[group].pages.push_back(page);
        }
        let states = match outline.states(self) {
            0 => States::default(),
            _ => States::load(&self.shared, outline.len, &outline.snapshots, source)?,
        };
        Ok(Sequence { shared: Arc::clone(&self.shared), len: outline.len, groups, states, begun: None })
    }
}
