//! How a call is ended from outside.

use std::sync::atomic::{AtomicBool, Ordering};

use fastq_core::Interrupt;

/// A flag that ends the calls it was given to. Any number of calls can share one.
pub struct fastq_cancel {
    flag: AtomicBool,
}

/// A new flag, not set. End it with fastq_cancel_free.
#[unsafe(no_mangle)]
pub extern "C" fn fastq_cancel_new() -> *mut fastq_cancel {
    Box::into_raw(Box::new(fastq_cancel { flag: AtomicBool::new(false) }))
}

/// Sets the flag: calls that have it end with FASTQ_STATUS_CANCELLED, normally within 100 ms, and those that are still to begin end
/// at once, until it is cleared. May be called from any thread and from a signal handler. NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastq_cancel_set(cancel: *mut fastq_cancel) {
    // SAFETY: null, or a flag that is not freed, as the caller grants.
    if let Some(cancel) = unsafe { cancel.as_ref() } {
        cancel.flag.store(true, Ordering::Relaxed);
    }
}

/// Clears the flag for the next calls. NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastq_cancel_clear(cancel: *mut fastq_cancel) {
    // SAFETY: null, or a flag that is not freed, as the caller grants.
    if let Some(cancel) = unsafe { cancel.as_ref() } {
        cancel.flag.store(false, Ordering::Relaxed);
    }
}

/// Frees the flag, which no call has any more. NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastq_cancel_free(cancel: *mut fastq_cancel) {
    if !cancel.is_null() {
        // SAFETY: from `fastq_cancel_new`, freed once, as the caller grants.
        drop(unsafe { Box::from_raw(cancel) });
    }
}

/// The flag of a call, which may have none.
pub(crate) struct Flag<'a>(pub(crate) Option<&'a fastq_cancel>);

impl Interrupt for Flag<'_> {
    fn stop(&self) -> bool {
        self.0.is_some_and(|cancel| cancel.flag.load(Ordering::Relaxed))
    }
}
