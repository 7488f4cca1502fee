//! Linear quantization of NumPy arrays.

use fastq_kernels::affine::{self as linear, Grid};
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

type Integers<'py> = (Bound<'py, PyArray1<u8>>, Bound<'py, PyArray1<f32>>, Bound<'py, PyArray1<i16>>);

/// Groups of `size` values to integers (as bytes), scales and zeros.
#[pyfunction]
pub(crate) fn affine<'py>(
    py: Python<'py>,
    values: PyReadonlyArray1<'py, f32>,
    size: usize,
    bits: u32,
    signed: bool,
    symmetric: bool,
    half_scales: bool,
) -> PyResult<Integers<'py>> {
    // A copy, because the array may change while the GIL is free.
    let values: Vec<f32> = values.as_array().iter().copied().collect();
    if size == 0 || !values.len().is_multiple_of(size) {
        return Err(PyValueError::new_err(format!("groups of {size} do not divide {} values", values.len())));
    }
    let groups = values.len() / size;
    let (mut scales, mut zeros, mut out) = (vec![0.0; groups], vec![0; groups], vec![0; values.len()]);
    let grid = Grid { bits, signed, symmetric, half_scales };
    let done = py.detach(|| linear::affine(&values, size, grid, &mut scales, &mut zeros, &mut out));
    done.map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok((PyArray1::from_vec(py, out), PyArray1::from_vec(py, scales), PyArray1::from_vec(py, zeros)))
}
