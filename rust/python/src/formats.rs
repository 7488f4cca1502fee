//! Block formats on NumPy arrays.

use fastq_kernels::format::QuantizeError;
use fastq_kernels::{Cpu, Format};
use numpy::{Element, PyArray1, PyArrayMethods, PyReadonlyArray1, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

/// Name, id, weights per block, bytes per block, and whether its quantizer uses and needs importance, of every format.
#[pyfunction]
pub(crate) fn formats() -> Vec<(&'static str, u32, usize, usize, bool, bool)> {
    let facts = |format: &Format| {
        let info = format.info();
        (info.name, info.id, info.block, info.bytes, info.uses_importance, info.needs_importance)
    };
    Format::ALL.iter().map(facts).collect()
}

/// Rows of f32 to rows of blocks, with the importance of each value of a row.
#[pyfunction]
#[pyo3(signature = (values, format, importance))]
pub(crate) fn quantize_array<'py>(
    py: Python<'py>,
    values: PyReadonlyArrayDyn<'py, f32>,
    format: &str,
    importance: Option<PyReadonlyArray1<'py, f32>>,
) -> PyResult<Bound<'py, PyAny>> {
    let format = named(format)?;
    let cpu = Cpu::detect().map_err(|error| PyValueError::new_err(error.to_string()))?;
    let (leading, rows, k) = shape(values.shape())?;
    let row_bytes = format.row_bytes(k).ok_or_else(|| {
        PyValueError::new_err(format!(
            "rows of {k} values are not a multiple of {}'s block of {}",
            format.name(),
            format.info().block
        ))
    })?;
    let values = contiguous(&values);
    let importance: Option<Vec<f32>> = importance.map(|importance| importance.as_array().iter().copied().collect());
    if let Some(found) = importance.as_ref().map(Vec::len).filter(|&found| found != k) {
        return Err(PyValueError::new_err(format!("importance has {found} values, the rows have {k}")));
    }
    let out = py.detach(|| {
        let mut out = vec![0u8; rows * row_bytes];
        for (row, out) in values.chunks_exact(k.max(1)).zip(out.chunks_exact_mut(row_bytes.max(1))) {
            format.quantize_row(cpu, row, importance.as_deref(), out)?;
        }
        Ok(out)
    });
    let out = out.map_err(|error: QuantizeError| PyValueError::new_err(error.to_string()))?;
    array(py, out, leading, row_bytes)
}

/// Rows of blocks to rows of f32.
#[pyfunction]
pub(crate) fn dequantize_array<'py>(
    py: Python<'py>,
    data: PyReadonlyArrayDyn<'py, u8>,
    format: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let format = named(format)?;
    let info = format.info();
    let (leading, rows, row_bytes) = shape(data.shape())?;
    if row_bytes % info.bytes != 0 {
        return Err(PyValueError::new_err(format!(
            "rows of {row_bytes} bytes are not a multiple of {}'s block of {} bytes",
            info.name, info.bytes
        )));
    }
    let k = row_bytes / info.bytes * info.block;
    let data = contiguous(&data);
    let out = py.detach(|| {
        let mut out = vec![0f32; rows * k];
        format.dequantize(&data, &mut out);
        out
    });
    array(py, out, leading, k)
}

fn named(name: &str) -> PyResult<Format> {
    Format::from_name(name).ok_or_else(|| {
        let known: Vec<_> = Format::ALL.iter().map(|format| format.name()).collect();
        PyValueError::new_err(format!("unknown format {name:?} (known: {})", known.join(", ")))
    })
}

/// `(leading dimension if there is one, rows, row length)`.
fn shape(shape: &[usize]) -> PyResult<(Option<usize>, usize, usize)> {
    match *shape {
        [length] => Ok((None, 1, length)),
        [rows, length] => Ok((Some(rows), rows, length)),
        _ => Err(PyTypeError::new_err(format!("expected an array of 1 or 2 dimensions, found {}", shape.len()))),
    }
}

/// The values in C order: a copy, because the array may be strided, and may change while the GIL is free.
fn contiguous<T: Element + Copy>(array: &PyReadonlyArrayDyn<'_, T>) -> Vec<T> {
    array.as_array().iter().copied().collect()
}

fn array<'py, T: Element>(
    py: Python<'py>,
    values: Vec<T>,
    leading: Option<usize>,
    length: usize,
) -> PyResult<Bound<'py, PyAny>> {
    let flat = PyArray1::from_vec(py, values);
    Ok(match leading {
        Some(rows) => flat.reshape([rows, length])?.into_any(),
        None => flat.into_any(),
    })
}
