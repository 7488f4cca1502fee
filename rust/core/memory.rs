//! What a model will need, what the machine has free, and the comparison of the two before anything is allocated.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use fastq_kernels::attention::KvFormat;
use memmap2::{MmapMut, MmapOptions};

use crate::kv_cache::GroupLayout;
use crate::machine::FreeMemory;
use crate::{Error, Result};

/// The memory a model needs for one sequence of a full context.
#[derive(Clone, PartialEq, Debug)]
pub struct MemoryPlan {
    /// Bytes of the weights in the file.
    pub weights_bytes: u64,
    /// The weights are mapped: they are file cache that the system may drop and read again, so they need not be free.
    pub weights_mapped: bool,
    /// What the cache stores keys and values as.
    pub kv_format: KvFormat,
    /// The cache, by kind of layer.
    pub kv: Vec<KvPlan>,
    /// Bytes of the cache for one sequence of `context` positions.
    pub kv_bytes: u64,
    /// Bytes of the recurrent states of one sequence, with its snapshots; they do not depend on `context`.
    pub state_bytes: u64,
    /// Bytes of working memory.
    pub scratch_bytes: u64,
    /// Bytes that must be free: cache, recurrent states, working memory, and the weights unless they are mapped.
    pub total_bytes: u64,
    /// Bytes that are free; `None` where the system does not tell.
    pub available_bytes: Option<u64>,
    /// What is wrong with the plan although it is possible: the mapped weights do not fit beside the rest.
    pub warning: Option<String>,
    /// Positions per sequence.
    pub context: usize,
    /// Positions that the model was trained for.
    pub trained_context: usize,
}

/// The cache of the layers of one kind.
#[derive(Clone, PartialEq, Debug)]
pub struct KvPlan {
    /// Positions that the layers see; `None` for all.
    pub window: Option<usize>,
    /// Number of layers.
    pub layers: usize,
    /// The most pages that one sequence holds.
    pub pages: usize,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Bytes of the pages.
    pub bytes: u64,
}

/// What a plan is made of.
#[derive(Clone, Copy, Debug)]
pub struct Needs<'a> {
    /// Bytes of the weights.
    pub weights_bytes: u64,
    /// They are mapped.
    pub weights_mapped: bool,
    /// What the cache stores keys and values as.
    pub kv_format: KvFormat,
    /// The cache.
    pub groups: &'a [GroupLayout],
    /// Bytes of the recurrent states of a sequence.
    pub state_bytes: u64,
    /// Working memory in bytes.
    pub scratch_bytes: u64,
    /// Tokens that are computed at once.
    pub chunk: usize,
    /// Positions that the model was trained for.
    pub trained_context: usize,
}

/// Contexts are rounded down to a multiple of this when they are chosen to fit.
const CONTEXT_STEP: usize = 64;

impl Needs<'_> {
    fn kv(&self, context: usize) -> Vec<KvPlan> {
        let plan = |group: &GroupLayout| {
            let pages = group.pages(context, self.chunk);
            let bytes = (pages as u64).saturating_mul(group.page_bytes());
            KvPlan { window: group.window, layers: group.layers(), pages, page_bytes: group.page_bytes(), bytes }
        };
        self.groups.iter().map(plan).collect()
    }

    fn total(&self, context: usize) -> u64 {
        let owned = if self.weights_mapped { 0 } else { self.weights_bytes };
        let kv = self.kv(context).iter().fold(0, |sum: u64, group| sum.saturating_add(group.bytes));
        [owned, self.scratch_bytes, self.state_bytes, kv].into_iter().fold(0, u64::saturating_add)
    }

    /// The largest context, up to the trained one and in steps, whose total is at most `bytes`.
    fn fitting(&self, bytes: u64) -> Option<usize> {
        if self.total(self.trained_context) <= bytes {
            return Some(self.trained_context);
        }
        let (mut low, mut high) = (0, self.trained_context / CONTEXT_STEP + 1);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.total(middle * CONTEXT_STEP) <= bytes { low = middle } else { high = middle }
        }
        (low > 0).then_some(low * CONTEXT_STEP)
    }

    /// What to say when mapped weights do not fit `memory` beside the `total` that is allocated, `kv` of it by and by. The system then
    /// drops parts of the file and reads them again, in every pass.
    fn crowded(&self, total: u64, kv: u64, memory: u64) -> Option<String> {
        let beside = |bytes: u64| self.weights_bytes.saturating_add(bytes) > memory;
        if !self.weights_mapped || !beside(total) {
            return None;
        }
        let when = if beside(total - kv) { "" } else { "with a full context " };
        Some(format!(
            "{when}the weights ({}) and {} beside them exceed the {} of memory that are free: parts of the file will be read again for \
             every token, which is slow; use a smaller model{}, or free memory",
            human(self.weights_bytes),
            human(total),
            human(memory),
            if when.is_empty() { "" } else { ", a shorter context" },
        ))
    }

    /// The plan for `context` positions, or by default for as many as the model was trained for and the memory holds (pages are
    /// only allocated when they are written, so a long context costs nothing until it is used). By default the weights
    /// should fit beside the cache even when they are mapped: dropping and reading them again is slow.
    ///
    /// # Errors
    /// [`Error::Memory`] when the plan needs more than `free`; the message says which context would fit.
    pub fn plan(&self, context: Option<usize>, free: Option<FreeMemory>) -> Result<MemoryPlan> {
        let chosen = match (context, free) {
            (Some(context), _) => context,
            (None, None) => self.trained_context,
            (None, Some(free)) => {
                let beside =
                    if self.weights_mapped { free.bytes.saturating_sub(self.weights_bytes) } else { free.bytes };
                let enough = 512.min(self.trained_context);
                match self.fitting(beside).filter(|context| *context >= enough) {
                    Some(context) => context,
                    None => self.fitting(free.bytes).unwrap_or(self.trained_context.min(CONTEXT_STEP)),
                }
            }
        };
        let kv = self.kv(chosen);
        let kv_bytes = kv.iter().fold(0, |sum: u64, group| sum.saturating_add(group.bytes));
        let total_bytes = self.total(chosen);
        if let Some(free) = free
            && total_bytes > free.bytes
        {
            let further = |what: &str, bytes: u64| match bytes {
                0 => String::new(),
                bytes => format!(", {what} {}", human(bytes)),
            };
            let states = further("recurrent state", self.state_bytes);
            let weights = further("weights", if self.weights_mapped { 0 } else { self.weights_bytes });
            let advice = match self.fitting(free.bytes).filter(|fitting| *fitting < chosen) {
                Some(fitting) => format!("context={fitting} would fit"),
                None if !self.weights_mapped => {
                    "no context fits; map the file instead of reading it (mmap=True)".into()
                }
                None => "no context fits; use a smaller prefill chunk or free memory".into(),
            };
            return Err(Error::Memory(format!(
                "kv cache needs {} for context={chosen}, working memory {}{states}{weights}, available {} ({}); {advice}",
                human(kv_bytes),
                human(self.scratch_bytes),
                human(free.bytes),
                free.bound,
            )));
        }
        let warning = free.and_then(|free| self.crowded(total_bytes, kv_bytes, free.with_cache?));
        Ok(MemoryPlan {
            warning,
            weights_bytes: self.weights_bytes,
            weights_mapped: self.weights_mapped,
            kv_format: self.kv_format,
            kv,
            kv_bytes,
            state_bytes: self.state_bytes,
            scratch_bytes: self.scratch_bytes,
            total_bytes,
            available_bytes: free.map(|free| free.bytes),
            context: chosen,
            trained_context: self.trained_context,
        })
    }
}

/// `3.2 GiB`. A value that rounding would show as 1024.0 is written in the next unit.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Types that any bytes are a value of.
///
/// # Safety
/// All-zero bytes are a value, and the type has no destructor.
pub(crate) unsafe trait Plain: Copy {}
// SAFETY: zero is a number.
unsafe impl Plain for u8 {}
// SAFETY: zero is a number.
unsafe impl Plain for u16 {}
// SAFETY: zero is a number.
unsafe impl Plain for usize {}
// SAFETY: zero is a number.
unsafe impl Plain for f32 {}

/// A fixed buffer of zeros at a multiple of 64 bytes. Refusal by the system is reported, not an abort; pages that are never
/// touched cost nothing.
#[derive(Debug)]
pub(crate) struct Zeroed<T: Plain> {
    _memory: Memory,
    pointer: NonNull<T>,
    len: usize,
}

/// Where a [`Zeroed`] lies; held until it is dropped.
#[derive(Debug)]
enum Memory {
    Heap(NonNull<u8>, Layout),
    /// Anonymous pages of its own.
    Mapped(MmapMut),
}

impl Memory {
    /// Buffers from this size on have pages of their own, which go back to the system with them. Allocators keep what they are given
    /// back and cut it up: the cache pages of a server came and went for hours, and its memory grew although as many were in use.
    const MAPPED: usize = 128 << 10;

    /// `bytes` zeros; `None` when the system refuses.
    fn new(bytes: usize) -> Option<Memory> {
        if bytes >= Self::MAPPED {
            return MmapOptions::new().len(bytes).map_anon().ok().map(Memory::Mapped);
        }
        let layout = Layout::from_size_align(bytes.max(1), 16).ok()?;
        // SAFETY: the layout has at least one byte.
        NonNull::new(unsafe { alloc_zeroed(layout) }).map(|base| Memory::Heap(base, layout))
    }

    /// Its first byte.
    fn start(&mut self) -> NonNull<u8> {
        match self {
            Memory::Heap(base, _) => *base,
            Memory::Mapped(map) => NonNull::from(&mut **map).cast(),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Memory::Heap(base, layout) = self {
            // SAFETY: allocated in `new` with this layout.
            unsafe { dealloc(base.as_ptr(), *layout) };
        }
    }
}

// SAFETY: the buffer owns its memory, and numbers belong to no thread.
unsafe impl<T: Plain> Send for Zeroed<T> {}
// SAFETY: as above; shared access through `&self` only reads.
unsafe impl<T: Plain> Sync for Zeroed<T> {}

impl<T: Plain> Zeroed<T> {
    const ALIGN: usize = 64;

    /// A buffer of `len` zeros; `None` when the system refuses.
    pub(crate) fn new(len: usize) -> Option<Zeroed<T>> {
        Self::aligned(len, Self::ALIGN)
    }

    /// As [`Zeroed::new`], for memory in which is jumped about: as much of it as fills huge pages asks the system for them. Reading
    /// the cache at 4096 positions is a quarter faster with them, because the processor waits less for address translation.
    pub(crate) fn in_huge_pages(len: usize) -> Option<Zeroed<T>> {
        /// The huge page of most systems; where it is another one, the advice has no effect.
        const HUGE: usize = 2 << 20;
        let whole = len.checked_mul(size_of::<T>())? / HUGE * HUGE;
        if whole == 0 {
            return Self::new(len);
        }
        let buffer = Self::aligned(len, HUGE)?;
        // SAFETY: the range is inside the buffer, and advice does not change what memory holds. That it is refused does not matter.
        #[cfg(target_os = "linux")]
        unsafe {
            libc::madvise(buffer.pointer().cast(), whole, libc::MADV_HUGEPAGE)
        };
        Some(buffer)
    }

    /// A buffer of `len` zeros at a multiple of `align`, a power of two.
    fn aligned(len: usize, align: usize) -> Option<Zeroed<T>> {
        // The system zeroes lazily only for its natural alignment, so the aligned start is found by hand. What lies before it is never
        // touched and costs nothing.
        let bytes = len.checked_mul(size_of::<T>())?.checked_add(align)?;
        let mut memory = Memory::new(bytes)?;
        let base = memory.start();
        let skip = base.as_ptr().align_offset(align);
        // SAFETY: `skip` is below `align`, which was added to the size.
        let pointer = unsafe { base.add(skip) }.cast();
        Some(Zeroed { _memory: memory, pointer, len })
    }

    /// A buffer of `(rows, width)` zeros for working memory.
    pub(crate) fn scratch(rows: usize, width: usize) -> Result<Zeroed<T>> {
        rows.checked_mul(width).and_then(Zeroed::new).ok_or_else(|| {
            let bytes = (rows as u64).saturating_mul(width as u64).saturating_mul(size_of::<T>() as u64);
            Error::Memory(format!("the system refused {} of working memory", human(bytes)))
        })
    }

    /// Bytes in use for values.
    pub(crate) fn bytes(&self) -> u64 {
        (self.len * size_of::<T>()) as u64
    }

    /// Start of the values.
    pub(crate) fn pointer(&self) -> *mut T {
        self.pointer.as_ptr()
    }
}

impl<T: Plain> Deref for Zeroed<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: `len` values, initialised with zeros.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.len) }
    }
}

impl<T: Plain> DerefMut for Zeroed<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::Zeroed;

    #[test]
    fn buffers_are_zeros_where_they_should_be() {
        let mib = |n: usize| n << 20;
        for (bytes, align) in [(0, 64), (100, 64), (mib(2) - 2, 64), (mib(2), mib(2)), (mib(5) + 6, mib(2))] {
            let mut buffer = Zeroed::<u16>::in_huge_pages(bytes / 2).expect("a few MiB");
            assert_eq!((buffer.len(), buffer.bytes()), (bytes / 2, bytes as u64));
            assert!((buffer.pointer() as usize).is_multiple_of(align), "{bytes} bytes");
            assert!(buffer.iter().all(|&x| x == 0));
            buffer.fill(7);
        }
        assert!(Zeroed::<u16>::in_huge_pages(usize::MAX / 2).is_none());
        assert!(Zeroed::<u16>::in_huge_pages(usize::MAX / 4).is_none());
    }
}
