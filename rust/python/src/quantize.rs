//! Making files smaller.

use std::path::PathBuf;

use fastq_core::gguf::{Gguf, OpenOptions};
use fastq_core::quantize::{
    self, Calibration, Importance, Method, Options, Overrides, Point, Report, Size, Target, tensor_format,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::to_python;
use crate::options::optional;
use crate::progress::watched;

/// Quantizes a file, or says what would become of it. The result is a report in JSON.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "one parameter per option of the Python API")]
pub(crate) fn quantize_file(
    py: Python<'_>,
    source: PathBuf,
    output: PathBuf,
    target: &str,
    imatrix: Option<PathBuf>,
    calibration: Option<(PathBuf, Option<String>)>,
    own_text: Option<&Bound<'_, PyAny>>,
    size: Option<(String, String)>,
    method: &str,
    overrides: Vec<(String, String)>,
    output_type: Option<&str>,
    embedding_type: Option<&str>,
    pure: bool,
    allow_requantize: bool,
    threads: Option<&Bound<'_, PyAny>>,
    dry_run: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let convert = |error| to_python(py, error);
    let ty = |name: Option<&str>| name.map(tensor_format).transpose().map_err(convert);
    let mut options = Options {
        target: Target::from_name(target, pure).map_err(convert)?,
        method: Method::from_name(method).map_err(convert)?,
        importance: None,
        calibration: None,
        overrides: Overrides::new(overrides).map_err(convert)?,
        output_type: ty(output_type)?,
        embedding_type: ty(embedding_type)?,
        threads: optional(threads, "threads")?,
        allow_requantize,
    };
    let own_text: Option<usize> = optional(own_text, "own_text")?;
    let number = |text: &str| text.parse::<f64>().unwrap_or(f64::NAN); // out of range, which the engine says
    let size = match &size {
        None => None,
        Some((kind, value)) => Some(match kind.as_str() {
            "size" => Size::bytes(value).map_err(convert)?,
            "bpw" => Size::Bits(number(value)),
            _ => Size::Divergence(number(value)),
        }),
    };
    let report = watched(py, progress.as_ref(), move |interrupt, progress| {
        let given = match calibration {
            None => None,
            Some((label, Some(text))) => Some(Calibration::new(label.display().to_string(), text)),
            Some((path, None)) => Some(Calibration::open(&path, interrupt)?),
        };
        options.calibration = Calibration::chosen(given, own_text)?;
        options.importance = imatrix.map(|path| Importance::open(&path, interrupt)).transpose()?;
        let file = Gguf::open(&source, &OpenOptions { interrupt, ..OpenOptions::default() })?;
        let mut plan = quantize::plan(&file, &options)?;
        if let Some(size) = size {
            quantize::allocate(&mut plan, size, interrupt, progress)?;
        }
        if dry_run { plan.dry_run(interrupt) } else { quantize::run(&plan, &output, interrupt, progress) }
    })?;
    Ok(report.to_json().to_string())
}

/// Every preset by name: value of `general.file_type`, the type that most tensors get.
#[pyfunction]
pub(crate) fn presets() -> Vec<(&'static str, u32, &'static str)> {
    let facts = |preset: &quantize::Preset| (preset.name(), preset.file_type(), preset.format().name());
    quantize::Preset::ALL.iter().map(facts).collect()
}

/// The page of a report in JSON. With a path it is written there.
#[pyfunction]
pub(crate) fn report_html(
    py: Python<'_>,
    report: &str,
    points: Vec<(String, u64, f64)>,
    path: Option<PathBuf>,
) -> PyResult<String> {
    let report: Report =
        serde_json::from_str(report).map_err(|error| PyValueError::new_err(format!("not a report: {error}")))?;
    let points: Vec<_> = points.into_iter().map(|(label, bytes, mean_kld)| Point { label, bytes, mean_kld }).collect();
    if let Some(path) = path {
        quantize::write_html(&path, &report, &points).map_err(|error| to_python(py, error))?;
    }
    Ok(quantize::html(&report, &points))
}
