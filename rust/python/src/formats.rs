//! Block formats on NumPy arrays.

use fastq_kernels::Format;
use fastq_kernels::format::NoQuantizer;
use numpy::{Element, PyArray1, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

/// Name, id, weights per block, bytes per block and whether there is a quantizer of every format.
#[pyfunction]
pub(crate) fn formats() -> Vec<(&'static str, u32, usize, usize, bool)> {
    let facts = |format: &Format| {
        let info = format.info();
        (info.name, info.id, info.block, info.bytes, info.quantizes)
    };
    Format::ALL.iter().map(facts).collect()
}

/// Rows of f32 to rows of blocks.
#[pyfunction]
pub(crate) fn quantize_array<'py>(
    py: Python<'py>,
    values: PyReadonlyArrayDyn<'py, f32>,
    format: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let format = named(format)?;
    let (leading, rows, k) = shape(values.shape())?;
    let row_bytes = format.row_bytes(k).ok_or_else(|| {
        PyValueError::new_err(format!(
            "rows of {k} values are not a multiple of {}'s block of {}",
            format.name(),
            format.info().block
        ))
    })?;
    let values = contiguous(&values);
    let out = py.detach(|| {
        let mut out = vec![0u8; rows * row_bytes];
        for (row, out) in values.chunks_exact(k.max(1)).zip(out.chunks_exact_mut(row_bytes.max(1))) {
            format.quantize(row, out)?;
        }
        Ok(out)
    });
    let out = out.map_err(|error: NoQuantizer| PyValueError::new_err(error.to_string()))?;
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
