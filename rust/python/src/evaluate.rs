//! Calibration and evaluation.

use std::path::PathBuf;

use fastq_core::{calibrate as calibration, evaluate};
use pyo3::prelude::*;

use crate::engine::Engine;
use crate::options::{natural, optional};
use crate::progress::watched;

/// Writes an importance matrix, or Gram matrices; gives the number of tensors or inputs, and of chunks.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "one parameter per option of the Python API")]
pub(crate) fn calibrate(
    py: Python<'_>,
    engine: &Bound<'_, Engine>,
    texts: Vec<String>,
    datasets: Vec<String>,
    output: PathBuf,
    chunks: Option<&Bound<'_, PyAny>>,
    chunk_size: &Bound<'_, PyAny>,
    chat: bool,
    process_output: bool,
    gram: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<(usize, usize)> {
    let model = engine.get().model()?;
    let (chunks, chunk_size) = (optional(chunks, "chunks")?, natural(chunk_size, "chunk_size")?);
    let options = calibration::Options { chunk_size, chunks, process_output, chat };
    watched(py, progress.as_ref(), move |interrupt, progress| {
        if gram {
            let written = calibration::write_grams(&model, &texts, &datasets, options, &output, interrupt, progress)?;
            return Ok((written.inputs, written.chunks));
        }
        let imatrix = calibration::calibrate(&model, &texts, datasets, options, interrupt, progress)?;
        imatrix.write(&output, interrupt)?;
        Ok((imatrix.entries.len(), imatrix.chunk_count as usize))
    })
}

/// Perplexity, as JSON.
#[pyfunction]
pub(crate) fn perplexity(
    py: Python<'_>,
    engine: &Bound<'_, Engine>,
    text: String,
    context: &Bound<'_, PyAny>,
    chunks: Option<&Bound<'_, PyAny>>,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let model = engine.get().model()?;
    let options = options(context, chunks)?;
    watched(py, progress.as_ref(), move |interrupt, progress| {
        Ok(evaluate::perplexity(&model, &text, options, interrupt, progress)?.to_json().to_string())
    })
}

/// Divergence of a model from its base, as JSON.
#[pyfunction]
pub(crate) fn kl_divergence(
    py: Python<'_>,
    base: &Bound<'_, Engine>,
    quant: &Bound<'_, Engine>,
    text: String,
    context: &Bound<'_, PyAny>,
    chunks: Option<&Bound<'_, PyAny>>,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let (base, quant) = (base.get().model()?, quant.get().model()?);
    let options = options(context, chunks)?;
    watched(py, progress.as_ref(), move |interrupt, progress| {
        Ok(evaluate::kl_divergence(&base, &quant, &text, options, interrupt, progress)?.to_json().to_string())
    })
}

fn options(context: &Bound<'_, PyAny>, chunks: Option<&Bound<'_, PyAny>>) -> PyResult<evaluate::Options> {
    Ok(evaluate::Options { context: natural(context, "context")?, chunks: optional(chunks, "chunks")? })
}
