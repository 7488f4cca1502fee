//! Answers that are given piece by piece, and how calls are ended from outside.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use fastq_core::{Error, Model};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::answer::Answer;
use crate::interrupt::detached;

/// Ends calls that were given it, from any thread.
#[pyclass(frozen, module = "fastq._fastq")]
#[derive(Default)]
pub(crate) struct Cancel {
    flag: Arc<AtomicBool>,
}

impl Cancel {
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flag)
    }
}

#[pymethods]
impl Cancel {
    #[new]
    fn new() -> Cancel {
        Cancel::default()
    }

    /// Never waits.
    fn set(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }
}

/// One answer that advances while it is asked for pieces.
#[pyclass(frozen, module = "fastq._fastq")]
pub(crate) struct Stream {
    answer: Mutex<Answer>,
    cancel: Arc<AtomicBool>,
    model: Model,
}

impl Stream {
    pub(crate) fn new(answer: Answer, cancel: Arc<AtomicBool>, model: Model) -> Stream {
        Stream { answer: Mutex::new(answer), cancel, model }
    }

    fn answer(&self) -> MutexGuard<'_, Answer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Stream {
    /// The next piece that has text; `None` at the end.
    fn next_piece(&self, py: Python<'_>) -> PyResult<Option<String>> {
        detached(py, Some(&self.cancel), |interrupt| {
            let mut answer = self.answer();
            loop {
                if answer.finished() {
                    return Ok(None);
                }
                if self.cancel.load(Ordering::Relaxed) {
                    answer.cancel();
                    continue;
                }
                let pieces = match answer.step(interrupt) {
                    // A request of the caller ends the stream; Ctrl-C is raised by `detached`.
                    Err(Error::Cancelled) if self.cancel.load(Ordering::Relaxed) => continue,
                    other => other?,
                };
                let text: String = pieces.into_iter().map(|piece| piece.text).collect();
                if !text.is_empty() {
                    return Ok(Some(text));
                }
            }
        })
    }

    /// What the next text adds to the message of a chat; `None` at the end.
    #[allow(clippy::type_complexity, reason = "the fields of `fastq.ChatDelta`")]
    fn next_deltas(&self, py: Python<'_>) -> PyResult<Option<Vec<(&'static str, String, usize, String, String)>>> {
        let text = self.next_piece(py)?;
        Ok(text.map(|text| vec![("content", text, 0, String::new(), String::new())]))
    }

    /// Never waits for a thread that is inside `next_piece`: that one ends the answer.
    fn cancel(&self, py: Python<'_>) {
        self.cancel.store(true, Ordering::Relaxed);
        py.detach(|| match self.answer.try_lock() {
            Ok(mut answer) => answer.cancel(),
            Err(TryLockError::Poisoned(answer)) => answer.into_inner().cancel(),
            Err(TryLockError::WouldBlock) => {}
        });
    }

    /// The record of an answer that ended or was cancelled.
    fn completion(&self, py: Python<'_>) -> PyResult<Py<PyDict>> {
        let record = py.detach(|| {
            let mut answer = self.answer();
            if self.cancel.load(Ordering::Relaxed) {
                answer.cancel();
            }
            answer.record()
        });
        match record {
            Some(record) => record.to_python(py, &self.model),
            None => Err(PyValueError::new_err("the stream has not ended: iterate to its end, or cancel() it")),
        }
    }
}
