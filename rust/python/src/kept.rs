//! Computed tokens that outlive an answer: for the next turn of a conversation, and in files.

use std::sync::{Mutex, MutexGuard, PoisonError};

use fastq_core::generate;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// A sequence and its tokens. Whoever goes on with it takes it.
#[pyclass(frozen, module = "fastq._fastq")]
pub(crate) struct Kept {
    inner: Mutex<Option<generate::Kept>>,
}

impl Kept {
    pub(crate) fn new(kept: generate::Kept) -> Kept {
        Kept { inner: Mutex::new(Some(kept)) }
    }

    fn inner(&self) -> MutexGuard<'_, Option<generate::Kept>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take(&self) -> Option<generate::Kept> {
        self.inner().take()
    }

    /// A copy that shares memory.
    ///
    /// # Errors
    /// `ValueError` when it was taken.
    pub(crate) fn forked(&self) -> PyResult<generate::Kept> {
        let inner = self.inner();
        let kept = inner.as_ref().ok_or_else(|| PyValueError::new_err("what was kept has been used"))?;
        Ok(kept.fork())
    }
}

#[pymethods]
impl Kept {
    fn fork(&self) -> PyResult<Kept> {
        Ok(Kept::new(self.forked()?))
    }

    fn __len__(&self) -> usize {
        self.inner().as_ref().map_or(0, |kept| kept.tokens().len())
    }
}
