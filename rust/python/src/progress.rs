//! Progress of long work for a Python callable.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use fastq_core::{Error, Interrupt, Progress};
use pyo3::prelude::*;

use crate::interrupt::PyInterrupt;

/// Shortest time between two calls within a stage: a callable may draw something.
const INTERVAL: Duration = Duration::from_millis(50);

/// Calls `callback(stage, done, total)` with the GIL. What it raises stops the work.
struct PyProgress<'a> {
    callback: Option<&'a Py<PyAny>>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    stage: String,
    last: Option<Instant>,
    raised: Option<PyErr>,
}

impl Progress for PyProgress<'_> {
    fn report(&self, stage: &str, done: u64, total: u64) {
        let Some(callback) = self.callback else { return };
        {
            let mut state = self.state.borrow_mut();
            let soon = state.last.is_some_and(|last| last.elapsed() < INTERVAL);
            if state.raised.is_some() || (soon && state.stage == stage && done < total) {
                return;
            }
            stage.clone_into(&mut state.stage);
            state.last = Some(Instant::now());
        }
        let called = Python::try_attach(|py| callback.call1(py, (stage, done, total)).map(drop));
        if let Some(Err(error)) = called {
            self.state.borrow_mut().raised = Some(error);
        }
    }
}

/// Runs `work` without the GIL, with Ctrl-C reaching it and its progress reaching `callback`.
pub(crate) fn watched<T, F>(py: Python<'_>, callback: Option<&Py<PyAny>>, work: F) -> PyResult<T>
where
    T: Send,
    F: Send + FnOnce(&dyn Interrupt, &dyn Progress) -> fastq_core::Result<T>,
{
    let interrupt = PyInterrupt::new(None);
    let (result, raised) = py.detach(|| {
        let progress = PyProgress { callback, state: RefCell::default() };
        let stop = || interrupt.stop() || progress.state.borrow().raised.is_some();
        let result = work(&stop, &progress);
        (result, progress.state.into_inner().raised)
    });
    match (result, raised) {
        // Also what the last report raised, when nothing was left to stop: an exception does not vanish.
        (Ok(_) | Err(Error::Cancelled), Some(raised)) => Err(raised),
        (result, _) => result.map_err(|error| interrupt.error(py, error)),
    }
}
