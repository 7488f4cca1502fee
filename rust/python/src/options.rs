//! Generation options from Python.

use std::collections::HashMap;

use fastq_core::GenerationOptions;
use fastq_core::sampler::SamplerOptions;
use pyo3::prelude::*;

/// Types are checked here, ranges by the engine.
#[pyclass(frozen, module = "fastq._fastq")]
pub(crate) struct Options {
    pub(crate) inner: GenerationOptions,
    pub(crate) seed: Option<u64>,
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
        max_tokens: Option<usize>,
        temperature: f32,
        top_k: usize,
        top_p: f32,
        min_p: f32,
        typical_p: f32,
        repeat_penalty: f32,
        repeat_last_n: i64,
        presence_penalty: f32,
        frequency_penalty: f32,
        logit_bias: Option<HashMap<u32, f32>>,
        seed: Option<u64>,
        stop: Option<Stop>,
        ignore_eos: bool,
    ) -> Options {
        let mut logit_bias: Vec<(u32, f32)> = logit_bias.unwrap_or_default().into_iter().collect();
        logit_bias.sort_by_key(|&(token, _)| token);
        Options {
            inner: GenerationOptions {
                max_tokens,
                stop: match stop {
                    None => Vec::new(),
                    Some(Stop::One(text)) => vec![text],
                    Some(Stop::Many(texts)) => texts,
                },
                ignore_eos,
                sampler: SamplerOptions {
                    temperature,
                    top_k,
                    top_p,
                    min_p,
                    typical_p,
                    repeat_penalty,
                    // -1, "all", is a convention of llama.cpp that callers bring along.
                    repeat_last_n: usize::try_from(repeat_last_n).unwrap_or(usize::MAX),
                    presence_penalty,
                    frequency_penalty,
                    logit_bias,
                    ..SamplerOptions::default()
                },
                ..GenerationOptions::default()
            },
            seed,
        }
    }
}
