//! Python functions that change logits.

use std::sync::{Arc, Mutex, PoisonError};

use fastq_core::sampler::LogitsProcessor;
use fastq_core::{Error, Result};
use numpy::{PyArray1, PyArrayMethods, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// What a function of the caller raised on the thread that computed, until the thread that waits raises it.
pub(crate) type Raised = Arc<Mutex<Option<PyErr>>>;

/// A function of token ids and logits, a NumPy array that it changes or replaces.
pub(crate) struct PyProcessor {
    function: Py<PyAny>,
    /// Its name in messages.
    name: String,
    raised: Raised,
}

impl PyProcessor {
    pub(crate) fn new(function: Py<PyAny>, name: String, raised: Raised) -> PyProcessor {
        PyProcessor { function, name, raised }
    }

    fn call(&self, py: Python<'_>, tokens: &[u32], logits: &mut [f32]) -> PyResult<()> {
        let array = PyArray1::from_slice(py, logits);
        let given = self.function.bind(py).call1((tokens.to_vec(), &array))?;
        let values: PyReadonlyArray1<'_, f32> = if given.is_none() {
            array.readonly()
        } else {
            let options = PyDict::new(py);
            options.set_item("dtype", "float32")?;
            py.import("numpy")?.call_method("asarray", (given,), Some(&options))?.extract()?
        };
        if values.len()? != logits.len() {
            let (name, expected, found) = (&self.name, logits.len(), values.len()?);
            return Err(PyValueError::new_err(format!("{name} must give {expected} logits, found {found}")));
        }
        logits.iter_mut().zip(values.as_array()).for_each(|(logit, value)| *logit = *value);
        Ok(())
    }
}

impl LogitsProcessor for PyProcessor {
    fn process(&self, tokens: &[u32], logits: &mut [f32]) -> Result<()> {
        // The thread that computes may be one of another caller: the exception goes to whom the answer belongs.
        let result = Python::try_attach(|py| self.call(py, tokens, logits));
        result.unwrap_or(Ok(())).map_err(|error| {
            let what = format!("{} raised {error}", self.name);
            *self.raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            Error::Argument(what)
        })
    }
}
