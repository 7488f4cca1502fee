//! Conversion of checkpoints.

use std::path::PathBuf;

use fastq_core::convert::{ConvertOptions, Dtype, convert as convert_checkpoint};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::to_python;
use crate::progress::watched;

/// A checkpoint of transformers as a GGUF file.
#[pyfunction]
pub(crate) fn convert<'py>(
    py: Python<'py>,
    directory: PathBuf,
    out: PathBuf,
    dtype: &str,
    pre: Option<String>,
    name: Option<String>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let dtype = Dtype::from_name(dtype).map_err(|error| to_python(py, error))?;
    let options = ConvertOptions { dtype, pre, name };
    let done = watched(py, progress.as_ref(), |interrupt, progress| {
        convert_checkpoint(&directory, &out, &options, interrupt, progress)
    })?;
    let record = PyDict::new(py);
    record.set_item("architecture", done.architecture)?;
    record.set_item("tensors", done.tensors)?;
    record.set_item("parameters", done.parameters)?;
    record.set_item("bytes", done.bytes)?;
    record.set_item("types", done.types)?;
    record.set_item("notes", done.notes.into_iter().map(|note| (note.subject, note.text)).collect::<Vec<_>>())?;
    Ok(record)
}
