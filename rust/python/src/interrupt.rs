//! Ctrl-C and `cancel()`: what the engine polls while the GIL is free.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use fastq_core::{Error, Interrupt};
use pyo3::prelude::*;

use crate::error::to_python;

/// How often Python's signal handlers are given the chance to run. Two orders below the 200 ms that users are promised,
/// and rare enough that taking the GIL for it costs nothing.
const SIGNAL_INTERVAL_MS: u64 = 20;

/// Polled by the engine on the calling thread.
pub(crate) struct PyInterrupt<'a> {
    cancel: Option<&'a AtomicBool>,
    start: Instant,
    next_check_ms: AtomicU64,
    raised: Mutex<Option<PyErr>>,
}

impl<'a> PyInterrupt<'a> {
    pub(crate) fn new(cancel: Option<&'a AtomicBool>) -> PyInterrupt<'a> {
        PyInterrupt {
            cancel,
            start: Instant::now(),
            next_check_ms: AtomicU64::new(SIGNAL_INTERVAL_MS),
            raised: Mutex::new(None),
        }
    }

    /// Keeps an exception of the caller's own function until [`error`](Self::error) raises it.
    pub(crate) fn raise(&self, error: PyErr) -> Error {
        *self.raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        Error::Cancelled
    }

    /// The exception for an error: what a signal handler raised, if one stopped the work.
    pub(crate) fn error(self, py: Python<'_>, error: Error) -> PyErr {
        match self.raised.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(raised) if matches!(error, Error::Cancelled) => raised,
            _ => to_python(py, error),
        }
    }
}

impl Interrupt for PyInterrupt<'_> {
    fn stop(&self) -> bool {
        if self.cancel.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return true;
        }
        let now = self.start.elapsed().as_millis() as u64;
        if now < self.next_check_ms.load(Ordering::Relaxed) {
            return false;
        }
        self.next_check_ms.store(now + SIGNAL_INTERVAL_MS, Ordering::Relaxed);
        // Without an interpreter to return to (it is shutting down), the work has no purpose.
        Python::try_attach(|py| match py.check_signals() {
            Ok(()) => false,
            Err(error) => {
                self.raise(error);
                true
            }
        })
        .unwrap_or(true)
    }
}

/// Runs `work` without the GIL, with Ctrl-C (and `cancel`) reaching it.
pub(crate) fn detached<T, F>(py: Python<'_>, cancel: Option<&AtomicBool>, work: F) -> PyResult<T>
where
    T: Send,
    F: Send + FnOnce(&PyInterrupt<'_>) -> fastq_core::Result<T>,
{
    let interrupt = PyInterrupt::new(cancel);
    let result = py.detach(|| work(&interrupt));
    result.map_err(|error| interrupt.error(py, error))
}
