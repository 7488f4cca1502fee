//! Generation options from Python.

use std::collections::HashMap;

use fastq_core::GenerationOptions;
use fastq_core::sampler::SamplerOptions;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;

/// Types are checked here, ranges by the engine.
#[pyclass(frozen, module = "fastq._fastq")]
pub(crate) struct Options {
    pub(crate) inner: GenerationOptions,
    pub(crate) seed: Option<u64>,
}

/// A number that is not negative. What does not fit is a `ValueError` that names the argument, as every other value out of
/// range, not the `OverflowError` of the bare conversion.
pub(crate) fn natural<'py, T>(value: &Bound<'py, PyAny>, name: &str) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py, Error = PyErr>,
{
    value.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(value.py()) {
            let fault = if value.lt(0).unwrap_or(false) { "must not be negative" } else { "is too large" };
            PyValueError::new_err(format!("{name} {fault}: {value}"))
        } else if error.is_instance_of::<PyTypeError>(value.py()) {
            PyTypeError::new_err(format!("{name}: {}", error.value(value.py())))
        } else {
            error
        }
    })
}

/// [`natural`] where `None` is allowed.
pub(crate) fn optional<'py, T>(value: Option<&Bound<'py, PyAny>>, name: &str) -> PyResult<Option<T>>
where
    T: for<'a> FromPyObject<'a, 'py, Error = PyErr>,
{
    value.map(|value| natural(value, name)).transpose()
}

/// One stop string or several.
#[derive(FromPyObject)]
enum Stop {
    One(String),
    Many(Vec<String>),
}

#[pymethods]
impl Options {
    #[new]
    #[allow(clippy::too_many_arguments, reason = "one parameter per option of the Python API")]
    fn new(
        max_tokens: Option<&Bound<'_, PyAny>>,
        temperature: f32,
        top_k: &Bound<'_, PyAny>,
        top_p: f32,
        min_p: f32,
        typical_p: f32,
        repeat_penalty: f32,
        repeat_last_n: i64,
        presence_penalty: f32,
        frequency_penalty: f32,
        logit_bias: Option<HashMap<i64, f32>>,
        seed: Option<&Bound<'_, PyAny>>,
        stop: Option<Stop>,
        ignore_eos: bool,
    ) -> PyResult<Options> {
        let mut biases = Vec::new();
        for (token, bias) in logit_bias.unwrap_or_default() {
            let id = u32::try_from(token);
            biases.push((id.map_err(|_| PyValueError::new_err(format!("logit_bias: {token} is no token id")))?, bias));
        }
        biases.sort_by_key(|&(token, _)| token);
        let repeat_last_n = match repeat_last_n {
            // A convention of llama.cpp that callers bring along.
            -1 => usize::MAX,
            n => usize::try_from(n).map_err(|_| {
                PyValueError::new_err(format!("repeat_last_n must be at least 0, or -1 for all, found {n}"))
            })?,
        };
        Ok(Options {
            inner: GenerationOptions {
                max_tokens: optional(max_tokens, "max_tokens")?,
                stop: match stop {
                    None => Vec::new(),
                    Some(Stop::One(text)) => vec![text],
                    Some(Stop::Many(texts)) => texts,
                },
                ignore_eos,
                sampler: SamplerOptions {
                    temperature,
                    top_k: natural(top_k, "top_k")?,
                    top_p,
                    min_p,
                    typical_p,
                    repeat_penalty,
                    repeat_last_n,
                    presence_penalty,
                    frequency_penalty,
                    logit_bias: biases,
                    ..SamplerOptions::default()
                },
                ..GenerationOptions::default()
            },
            seed: optional(seed, "seed")?,
        })
    }
}
