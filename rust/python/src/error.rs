//! The only place that turns errors of the engine into Python exceptions.

use fastq_core::Error;
use pyo3::exceptions::{PyFileNotFoundError, PyMemoryError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyType;

/// The exception for an error of the engine.
pub(crate) fn to_python(py: Python<'_>, error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::NotFound(path) => {
            // errno, text and path as attributes, as `open` raises it.
            PyFileNotFoundError::new_err((2, "no such file", path.display().to_string()))
        }
        Error::Io { path, source } => match source.raw_os_error() {
            Some(code) => PyOSError::new_err((code, strip_code(&source.to_string()), path.display().to_string())),
            None => PyOSError::new_err(message),
        },
        Error::ModelFile { path, offset, what } => {
            own(py, "ModelFileError", (message, path.display().to_string(), offset, what))
        }
        Error::Session { .. } => own(py, "SessionError", (message,)),
        Error::NotFinite(_) => own(py, "ModelFileError", (message,)),
        Error::UnsupportedModel(_) => own(py, "UnsupportedModelError", (message,)),
        Error::Tokenizer(_) => own(py, "TokenizerError", (message,)),
        Error::Template(_) => own(py, "TemplateError", (message,)),
        Error::Grammar(_) => own(py, "GrammarError", (message,)),
        Error::ContextOverflow(_) => own(py, "ContextOverflowError", (message,)),
        Error::Cancelled => own(py, "Cancelled", (message,)),
        Error::Memory(_) => PyMemoryError::new_err(message),
        Error::Argument(_) => PyValueError::new_err(message),
        _ => PyRuntimeError::new_err(message),
    }
}

/// `std::io::Error` appends the code that `OSError` carries as an attribute.
fn strip_code(text: &str) -> String {
    text.split(" (os error").next().unwrap_or(text).to_owned()
}

/// An exception class of `fastq.errors`. It is looked up when raised: errors are rare, and the module is then loaded.
fn own<A>(py: Python<'_>, name: &str, arguments: A) -> PyErr
where
    A: pyo3::PyErrArguments + Send + Sync + 'static,
{
    match py
        .import("fastq.errors")
        .and_then(|module| module.getattr(name))
        .and_then(|class| class.cast_into::<PyType>().map_err(PyErr::from))
    {
        Ok(class) => PyErr::from_type(class, arguments),
        Err(error) => error,
    }
}
