//! Slices that border on memory nobody may touch.

use core::ffi::{c_int, c_void};
use core::ops::{Deref, DerefMut};
use core::ptr::null_mut;

/// `off_t`: 64 bits on every 64-bit unix and in musl, else a `long`.
#[cfg(any(target_pointer_width = "64", target_env = "musl"))]
type Offset = i64;
#[cfg(not(any(target_pointer_width = "64", target_env = "musl")))]
type Offset = core::ffi::c_long;

// The crate has no dependencies; these are POSIX.
unsafe extern "C" {
    fn getpagesize() -> c_int;
    fn mmap(
        address: *mut c_void,
        length: usize,
        protection: c_int,
        flags: c_int,
        file: c_int,
        offset: Offset,
    ) -> *mut c_void;
    fn mprotect(address: *mut c_void, length: usize, protection: c_int) -> c_int;
    fn munmap(address: *mut c_void, length: usize) -> c_int;
}

const PROT_NONE: c_int = 0;
const PROT_READ_WRITE: c_int = 1 | 2;
const MAP_PRIVATE: c_int = 2;
const MAP_ANONYMOUS: c_int = if cfg!(any(target_os = "linux", target_os = "android")) { 0x20 } else { 0x1000 };

/// The side of a [`Guarded`] slice on which the forbidden page lies without a gap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The slice begins where the forbidden page ends.
    Before,
    /// The slice ends where the forbidden page begins.
    After,
}

impl Side {
    /// Both sides.
    pub const ALL: [Side; 2] = [Side::Before, Side::After];
}

/// A copy of a slice right after or right before a page without access: a kernel that reads or writes beyond an end dies
/// there with a segmentation fault instead of passing by luck.
#[derive(Debug)]
pub struct Guarded<T: Copy> {
    /// Begin and length of the whole mapping, which includes a forbidden page on each side.
    mapping: *mut c_void,
    mapped: usize,
    values: *mut T,
    len: usize,
}

impl<T: Copy> Guarded<T> {
    /// Copies `values` next to a forbidden page.
    ///
    /// # Panics
    /// When the system gives no memory.
    pub fn new(values: &[T], side: Side) -> Guarded<T> {
        // SAFETY: takes and changes nothing.
        let page = unsafe { getpagesize() } as usize;
        let bytes = size_of_val(values);
        let inner = bytes.next_multiple_of(page).max(page);
        let mapped = inner + 2 * page;
        // SAFETY: an anonymous mapping at an address that the system chooses touches nothing that exists.
        let mapping = unsafe { mmap(null_mut(), mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) };
        assert!(mapping.addr() != usize::MAX, "no memory for {mapped} guarded bytes");
        // From here on `drop` unmaps.
        let mut guarded: Guarded<T> = Guarded { mapping, mapped, values: null_mut(), len: values.len() };
        let begin = mapping.wrapping_byte_add(page);
        // SAFETY: the pages lie inside the mapping made above.
        assert_eq!(unsafe { mprotect(begin, inner, PROT_READ_WRITE) }, 0, "guarded pages become accessible");
        let gap = if side == Side::After { inner - bytes } else { 0 };
        // Aligned: pages are, and the gap is a page multiple less a multiple of the size of `T`.
        guarded.values = begin.wrapping_byte_add(gap).cast();
        assert!(guarded.values.is_aligned(), "alignment above a page is not supported");
        // SAFETY: `gap + bytes <= inner`, the memory is accessible, aligned, and new, so it does not overlap `values`.
        unsafe { guarded.values.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
        guarded
    }
}

impl<T: Copy> Deref for Guarded<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `new` put `len` values there; the mapping lives as long as `self`.
        unsafe { core::slice::from_raw_parts(self.values, self.len) }
    }
}

impl<T: Copy> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; `self` is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.values, self.len) }
    }
}

impl<T: Copy> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` and nothing refers to it any more.
        let result = unsafe { munmap(self.mapping, self.mapped) };
        debug_assert_eq!(result, 0, "unmapping what was mapped");
    }
}
