//! Generation options from Python.

use std::collections::HashMap;
use std::sync::Arc;

use fastq_core::generate::{Overflow, Speculation};
use fastq_core::grammar::GrammarSource;
use fastq_core::sampler::StageName;
use fastq_core::{Error, GenerationOptions};
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString};

use crate::engine::Engine;
use crate::error::to_python;
use crate::processor::{PyProcessor, Raised};

/// The options of one call. Types are checked here, ranges by the engine.
#[pyclass(frozen, module = "fastq._fastq")]
pub(crate) struct Options {
    pub(crate) inner: GenerationOptions,
    pub(crate) seed: Option<u64>,
    /// Asked with the text so far whether the answer ends.
    pub(crate) stop_when: Option<Py<PyAny>>,
    /// What one of the processors raised.
    pub(crate) raised: Raised,
    /// What the answer must match; compiled when the model is known.
    pub(crate) grammar: Option<GrammarSource>,
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
        } else {
            named(value.py(), &error, name)
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

/// A `TypeError` of a conversion with the name of the argument.
fn named(py: Python<'_>, error: &PyErr, name: &str) -> PyErr {
    if error.is_instance_of::<PyTypeError>(py) {
        PyTypeError::new_err(format!("{name}: {}", error.value(py)))
    } else {
        error.clone_ref(py)
    }
}

/// A value of any other type.
fn plain<'py, T>(value: &Bound<'py, PyAny>, name: &str) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py, Error = PyErr>,
{
    value.extract().map_err(|error: PyErr| named(value.py(), &error, name))
}

/// `None` is the same as to leave the option out.
fn given<'a, 'py>(value: &'a Bound<'py, PyAny>) -> Option<&'a Bound<'py, PyAny>> {
    (!value.is_none()).then_some(value)
}

/// One string or several.
fn texts(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Vec<String>> {
    match given(value) {
        None => Ok(Vec::new()),
        Some(value) if value.is_instance_of::<PyString>() => Ok(vec![plain(value, name)?]),
        Some(value) => plain(value, name),
    }
}

/// Tokens that the penalties look back at.
fn window(value: &Bound<'_, PyAny>, name: &str) -> PyResult<usize> {
    match plain::<i64>(value, name)? {
        // A convention of llama.cpp that callers bring along.
        -1 => Ok(usize::MAX),
        n => usize::try_from(n)
            .map_err(|_| PyValueError::new_err(format!("{name} must be at least 0, or -1 for all, found {n}"))),
    }
}

fn callable(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Py<PyAny>> {
    if value.is_callable() {
        return Ok(value.clone().unbind());
    }
    Err(PyTypeError::new_err(format!("{name}: expected a function, found {}", value.get_type().qualname()?)))
}

/// Stores one option.
type Setter = fn(&mut Options, &Bound<'_, PyAny>, &str) -> PyResult<()>;

fn set<T>(option: &mut T, value: T) -> PyResult<()> {
    *option = value;
    Ok(())
}

/// Every option of the engine. A new one is one line here, one in `GenerateOptions` (python/fastq/options.py).
const OPTIONS: &[(&str, Setter)] = &[
    ("max_tokens", |o, v, n| set(&mut o.inner.max_tokens, optional(given(v), n)?)),
    ("temperature", |o, v, n| set(&mut o.inner.sampler.temperature, plain(v, n)?)),
    ("top_k", |o, v, n| set(&mut o.inner.sampler.top_k, natural(v, n)?)),
    ("top_p", |o, v, n| set(&mut o.inner.sampler.top_p, plain(v, n)?)),
    ("min_p", |o, v, n| set(&mut o.inner.sampler.min_p, plain(v, n)?)),
    ("typical_p", |o, v, n| set(&mut o.inner.sampler.typical_p, plain(v, n)?)),
    ("repeat_penalty", |o, v, n| set(&mut o.inner.sampler.repeat_penalty, plain(v, n)?)),
    ("repeat_last_n", |o, v, n| set(&mut o.inner.sampler.repeat_last_n, window(v, n)?)),
    ("presence_penalty", |o, v, n| set(&mut o.inner.sampler.presence_penalty, plain(v, n)?)),
    ("frequency_penalty", |o, v, n| set(&mut o.inner.sampler.frequency_penalty, plain(v, n)?)),
    ("dynatemp_range", |o, v, n| set(&mut o.inner.sampler.dynatemp_range, plain(v, n)?)),
    ("dynatemp_exponent", |o, v, n| set(&mut o.inner.sampler.dynatemp_exponent, plain(v, n)?)),
    ("top_n_sigma", |o, v, n| set(&mut o.inner.sampler.top_n_sigma, plain(v, n)?)),
    ("xtc_probability", |o, v, n| set(&mut o.inner.sampler.xtc_probability, plain(v, n)?)),
    ("xtc_threshold", |o, v, n| set(&mut o.inner.sampler.xtc_threshold, plain(v, n)?)),
    ("dry_multiplier", |o, v, n| set(&mut o.inner.sampler.dry_multiplier, plain(v, n)?)),
    ("dry_base", |o, v, n| set(&mut o.inner.sampler.dry_base, plain(v, n)?)),
    ("dry_allowed_length", |o, v, n| set(&mut o.inner.sampler.dry_allowed_length, natural(v, n)?)),
    ("dry_penalty_last_n", |o, v, n| set(&mut o.inner.sampler.dry_penalty_last_n, window(v, n)?)),
    ("dry_sequence_breakers", |o, v, n| set(&mut o.inner.sampler.dry_sequence_breakers, texts(v, n)?)),
    ("mirostat", |o, v, n| set(&mut o.inner.sampler.mirostat, natural(v, n)?)),
    ("mirostat_tau", |o, v, n| set(&mut o.inner.sampler.mirostat_tau, plain(v, n)?)),
    ("mirostat_eta", |o, v, n| set(&mut o.inner.sampler.mirostat_eta, plain(v, n)?)),
    ("samplers", |o, v, n| {
        let chain = given(v).map(|v| StageName::chain(texts(v, n)?).map_err(|error| to_python(v.py(), error)));
        set(&mut o.inner.sampler.chain, chain.transpose()?)
    }),
    ("logit_bias", |o, v, n| set(&mut o.inner.sampler.logit_bias, biases(v, n)?)),
    ("seed", |o, v, n| set(&mut o.seed, optional(given(v), n)?)),
    ("stop", |o, v, n| set(&mut o.inner.stop, texts(v, n)?)),
    ("stop_when", |o, v, n| set(&mut o.stop_when, given(v).map(|v| callable(v, n)).transpose()?)),
    ("ignore_eos", |o, v, n| set(&mut o.inner.ignore_eos, plain(v, n)?)),
    ("logits_processors", |o, v, n| processors(o, v, n)),
    ("banned_strings", |o, v, n| set(&mut o.inner.banned, texts(v, n)?)),
    ("logprobs", |o, v, n| set(&mut o.inner.logprobs, alternatives(v, n)?)),
    ("prompt_logprobs", |o, v, n| set(&mut o.inner.prompt_logprobs, alternatives(v, n)?)),
    ("overflow", |o, v, n| {
        let name: String = plain(v, n)?;
        set(&mut o.inner.overflow, Overflow::from_name(&name).map_err(|error| to_python(v.py(), error))?)
    }),
    ("grammar", |o, v, n| set(&mut o.grammar, given(v).map(|v| grammar(v, n)).transpose()?)),
    ("speculate", |o, v, n| set(&mut o.inner.speculate, speculation(v, n)?)),
];

/// Options that the Python side takes out before: only for what to say about names that are not known.
const OF_PYTHON: &[&str] =
    &["n", "schema", "regex", "choices", "tools", "tool_choice", "run_tools", "max_rounds", "variables"];

/// Names of other libraries.
const ALIASES: &[(&str, &str)] = &[
    ("max_new_tokens", "max_tokens"),
    ("max_completion_tokens", "max_tokens"),
    ("n_predict", "max_tokens"),
    ("num_predict", "max_tokens"),
    ("temp", "temperature"),
    ("typical", "typical_p"),
    ("typ_p", "typical_p"),
    ("mirostat_mode", "mirostat"),
    ("repetition_penalty", "repeat_penalty"),
    ("penalty_repeat", "repeat_penalty"),
    ("penalty_last_n", "repeat_last_n"),
    ("penalty_present", "presence_penalty"),
    ("penalty_freq", "frequency_penalty"),
    ("stop_sequences", "stop"),
    ("stop_strings", "stop"),
];

/// How many alternatives to each token; `True` asks for none.
fn alternatives(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Option<usize>> {
    match value.cast::<PyBool>() {
        Ok(flag) => Ok(flag.is_true().then_some(0)),
        Err(_) => optional(given(value), name),
    }
}

fn processors(options: &mut Options, value: &Bound<'_, PyAny>, name: &str) -> PyResult<()> {
    let Some(value) = given(value) else { return Ok(()) };
    for (which, function) in plain::<Vec<Bound<'_, PyAny>>>(value, name)?.iter().enumerate() {
        let name = format!("{name}[{which}]");
        let processor = PyProcessor::new(callable(function, &name)?, name, Arc::clone(&options.raised));
        options.inner.processors.push(Arc::new(processor));
    }
    Ok(())
}

fn biases(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Vec<(u32, f32)>> {
    let Some(value) = given(value) else { return Ok(Vec::new()) };
    let mut biases = Vec::new();
    for (token, bias) in plain::<HashMap<i64, f32>>(value, name)? {
        let id = u32::try_from(token);
        biases.push((id.map_err(|_| PyValueError::new_err(format!("{name}: {token} is no token id")))?, bias));
    }
    biases.sort_by_key(|&(token, _)| token);
    Ok(biases)
}

/// What `fastq.schema.constrain` makes: a kind and its source.
fn grammar(value: &Bound<'_, PyAny>, name: &str) -> PyResult<GrammarSource> {
    let (kind, source): (String, Bound<'_, PyAny>) = plain(value, name)?;
    Ok(match kind.as_str() {
        "json_schema" => {
            let text: String = plain(&source, "schema")?;
            let schema = serde_json::from_str(&text);
            GrammarSource::JsonSchema(schema.map_err(|error| PyValueError::new_err(format!("schema: {error}")))?)
        }
        "regex" => GrammarSource::Regex(plain(&source, "regex")?),
        "choices" => GrammarSource::Choices(plain(&source, "choices")?),
        "gbnf" => GrammarSource::Gbnf(plain(&source, name)?),
        "lark" => GrammarSource::Lark(plain(&source, name)?),
        other => return Err(PyValueError::new_err(format!("{name}: unknown kind {other:?}"))),
    })
}

/// `"ngram"`, or the engine of a draft model.
fn speculation(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Option<Speculation>> {
    let Some(value) = given(value) else { return Ok(None) };
    if let Ok(engine) = value.cast::<Engine>() {
        return Ok(Some(Speculation::Draft(engine.get().model()?)));
    }
    match plain::<String>(value, name)?.as_str() {
        "ngram" => Ok(Some(Speculation::Ngram)),
        other => {
            let what = format!("{name} must be \"ngram\", a Model (draft) or None, found {other:?}");
            Err(to_python(value.py(), Error::Argument(what)))
        }
    }
}

/// What to say about a name that is not known: the most similar one that is.
fn unknown(py: Python<'_>, name: &str) -> PyErr {
    let names = OPTIONS.iter().map(|(name, _)| *name).chain(OF_PYTHON.iter().copied());
    let names = names.chain(ALIASES.iter().map(|(alias, _)| *alias));
    // Only on this way, so that it need not be quick.
    let similar = py
        .import("difflib")
        .and_then(|difflib| difflib.call_method1("get_close_matches", (name, names.collect::<Vec<_>>(), 1)))
        .and_then(|matches| matches.extract::<Vec<String>>());
    let hint = match similar.ok().and_then(|mut names| names.pop()) {
        Some(similar) => format!("did you mean {similar:?}?"),
        None => "fastq.GenerateOptions lists all".to_owned(),
    };
    PyTypeError::new_err(format!("unknown option {name:?}; {hint}"))
}

#[pymethods]
impl Options {
    /// `max_tokens` is what holds where the options do not name it.
    #[new]
    fn new(options: &Bound<'_, PyDict>, max_tokens: Option<usize>) -> PyResult<Options> {
        let inner = GenerationOptions { max_tokens, ..GenerationOptions::default() };
        let mut result = Options { inner, seed: None, stop_when: None, raised: Raised::default(), grammar: None };
        let mut seen: Vec<(&str, String)> = Vec::with_capacity(options.len());
        for (key, value) in options {
            let key: String = key.extract()?;
            let name = ALIASES.iter().find(|(alias, _)| *alias == key).map_or(key.as_str(), |(_, name)| *name);
            let Some((name, set)) = OPTIONS.iter().find(|(known, _)| *known == name) else {
                return Err(unknown(options.py(), &key));
            };
            if let Some((_, before)) = seen.iter().find(|(known, _)| known == name) {
                return Err(PyTypeError::new_err(format!("{before} and {key} are the same option; give one of them")));
            }
            set(&mut result, &value, &key)?;
            seen.push((name, key));
        }
        Ok(result)
    }

    /// Names of all options.
    #[staticmethod]
    fn names() -> Vec<&'static str> {
        OPTIONS.iter().map(|(name, _)| *name).collect()
    }
}
