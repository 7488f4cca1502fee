//! Slices that the workers of a run share.

use std::marker::PhantomData;
use std::ops::Range;

/// A slice that several workers write, each its own parts.
#[derive(Clone, Copy, Debug)]
pub struct Disjoint<'a, T> {
    pointer: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: access goes through `slice`, whose callers promise that no two live borrows overlap; a `T` may then be used from
// another thread because it is `Send`.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    /// Lends `slice` to the workers of a run.
    pub fn new(slice: &'a mut [T]) -> Disjoint<'a, T> {
        Disjoint { pointer: slice.as_mut_ptr(), len: slice.len(), lifetime: PhantomData }
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// While the result lives, no other borrow from this value, on any thread, overlaps `range`.
    ///
    /// # Panics
    /// When the range is outside the slice.
    #[allow(
        clippy::mut_from_ref,
        reason = "that several parts are borrowed at once is the purpose; the contract keeps them apart"
    )]
    pub unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {} elements", self.len);
        // SAFETY: inside the slice by the check, unaliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(range.start), range.end - range.start) }
    }

    /// One element.
    ///
    /// # Safety
    /// As for [`Disjoint::slice`].
    ///
    /// # Panics
    /// When the index is outside the slice.
    #[allow(clippy::mut_from_ref, reason = "as for `slice`")]
    pub unsafe fn item(&self, index: usize) -> &mut T {
        assert!(index < self.len, "{index} of {} elements", self.len);
        // SAFETY: inside the slice by the check, unaliased by the caller's promise.
        unsafe { &mut *self.pointer.add(index) }
    }
}
