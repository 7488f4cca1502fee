//! Answers that are given piece by piece, and how calls are ended from outside.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use fastq_core::chat::ChatParser;
use fastq_core::sampler::TokenLogprobs;
use fastq_core::{Error, Model, Result};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::answer::{Answer, PyLogprob, logprob};
use crate::chat::{PyDelta, Reader, delta};
use crate::interrupt::{PyInterrupt, detached};
use crate::kept::Kept;

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
    /// Takes the answer apart, of a chat; gone when it has ended.
    parser: Mutex<Option<ChatParser>>,
    /// Of the tokens of the pieces that were given out.
    logprobs: Mutex<Vec<TokenLogprobs>>,
    cancel: Arc<AtomicBool>,
    model: Model,
}

impl Stream {
    pub(crate) fn new(answer: Answer, cancel: Arc<AtomicBool>, model: Model) -> Stream {
        let parser = Mutex::new(answer.reader().map(Reader::parser));
        Stream { answer: Mutex::new(answer), parser, logprobs: Mutex::default(), cancel, model }
    }

    fn answer(&self) -> MutexGuard<'_, Answer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next text that is certain; `None` at the end.
    fn next_text(&self, answer: &mut Answer, interrupt: &PyInterrupt<'_>) -> Result<Option<String>> {
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
            let mut text = String::new();
            let mut logprobs = self.logprobs.lock().unwrap_or_else(PoisonError::into_inner);
            for piece in pieces {
                text.push_str(&piece.text);
                logprobs.extend(piece.logprobs);
            }
            drop(logprobs);
            if !text.is_empty() {
                return Ok(Some(text));
            }
        }
    }
}

#[pymethods]
impl Stream {
    /// The next piece that has text; `None` at the end.
    fn next_piece(&self, py: Python<'_>) -> PyResult<Option<String>> {
        detached(py, Some(&self.cancel), |interrupt| self.next_text(&mut self.answer(), interrupt))
    }

    /// What the next text adds to the message of a chat; `None` at the end.
    fn next_deltas(&self, py: Python<'_>) -> PyResult<Option<Vec<PyDelta>>> {
        let deltas = detached(py, Some(&self.cancel), |interrupt| {
            // In the order of the texts, whoever asks.
            let mut answer = self.answer();
            let mut slot = self.parser.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                let Some(parser) = slot.as_mut() else { return Ok(None) };
                let deltas = match self.next_text(&mut answer, interrupt)? {
                    Some(text) => parser.push(&text),
                    None => {
                        let last = parser.finish();
                        *slot = None;
                        last
                    }
                };
                if !deltas.is_empty() {
                    return Ok(Some(deltas));
                }
            }
        })?;
        Ok(deltas.map(|deltas| deltas.into_iter().map(delta).collect()))
    }

    /// Those of the tokens that were given out so far, from number `first` on.
    fn logprobs(&self, first: usize) -> Vec<PyLogprob> {
        let logprobs = self.logprobs.lock().unwrap_or_else(PoisonError::into_inner);
        logprobs.iter().skip(first).map(|of| logprob(&self.model, of)).collect()
    }

    /// What the next answer can go on from, of a stream that has ended.
    fn take_kept(&self, py: Python<'_>) -> Option<Kept> {
        py.detach(|| self.answer().take_kept()).map(Kept::new)
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
