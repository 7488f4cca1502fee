//! A loaded model.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use fastq_core::chat::ChatFormat;
use fastq_core::model::arch::description::described;
use fastq_core::model::embed::{EmbedOptions, Pooling};
use fastq_core::model::{BatchItem, Logits, kv_format};
use fastq_core::sampler::random_seed;
use fastq_core::{Error, LoadOptions, Model, Prompt, Result, session};
use fastq_kernels::{Level, LevelError};
use numpy::{PyArray1, PyArrayMethods};
use pyo3::Borrowed;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyString};

use crate::answer::{self, Answer, Question};
use crate::chat::Chat;
use crate::error::to_python;
use crate::interrupt::{PyInterrupt, detached};
use crate::json;
use crate::kept::Kept;
use crate::options::{Options, natural, optional};
use crate::stream::{Cancel, Stream};

/// Most samples of one prompt.
const MAX_SAMPLES: usize = 1024;

/// Token ids: a sequence of integers, but no `bytes`, of which one is surely meant as text.
pub(crate) struct Tokens(Vec<u32>);

impl<'py> FromPyObject<'_, 'py> for Tokens {
    type Error = PyErr;

    fn extract(ids: Borrowed<'_, 'py, PyAny>) -> PyResult<Tokens> {
        if ids.is_instance_of::<PyBytes>() || ids.is_instance_of::<PyByteArray>() {
            return Err(wrong(ids, "token ids"));
        }
        natural(&ids, "token id").map(Tokens)
    }
}

/// A prompt: text, or token ids taken as they are.
pub(crate) struct PyPrompt(Prompt);

impl<'py> FromPyObject<'_, 'py> for PyPrompt {
    type Error = PyErr;

    fn extract(prompt: Borrowed<'_, 'py, PyAny>) -> PyResult<PyPrompt> {
        if let Ok(text) = prompt.cast::<PyString>() {
            return Ok(PyPrompt(Prompt::Text(text.to_str()?.to_owned())));
        }
        prompt.extract().map(|Tokens(tokens)| PyPrompt(Prompt::Tokens(tokens)))
    }
}

/// Prompts of one kind.
pub(crate) struct PyPrompts(Vec<Prompt>);

impl<'py> FromPyObject<'_, 'py> for PyPrompts {
    type Error = PyErr;

    fn extract(prompts: Borrowed<'_, 'py, PyAny>) -> PyResult<PyPrompts> {
        let prompts: Vec<Prompt> =
            prompts.extract::<Vec<PyPrompt>>()?.into_iter().map(|PyPrompt(prompt)| prompt).collect();
        let texts = prompts.iter().filter(|prompt| matches!(prompt, Prompt::Text(_))).count();
        if texts != 0 && texts != prompts.len() {
            return Err(PyTypeError::new_err("prompt must be a list of str or a list of lists of int, found both"));
        }
        Ok(PyPrompts(prompts))
    }
}

fn wrong(found: Borrowed<'_, '_, PyAny>, expected: &str) -> PyErr {
    match found.get_type().qualname() {
        Ok(name) => PyTypeError::new_err(format!("expected {expected}, found {name}")),
        Err(error) => error,
    }
}

/// A loaded model; `None` once closed.
#[pyclass(frozen, module = "fastq._fastq")]
pub(crate) struct Engine {
    model: RwLock<Option<Model>>,
    path: PathBuf,
    seed: Option<u64>,
    /// How it writes calls of tools and reasoning: found when the first conversation is answered.
    format: OnceLock<ChatFormat>,
}

fn count_of_samples(n: &Bound<'_, PyAny>) -> PyResult<usize> {
    let samples: usize = natural(n, "n")?;
    if !(1..=MAX_SAMPLES).contains(&samples) {
        return Err(PyValueError::new_err(format!("n must be from 1 to {MAX_SAMPLES}, found {samples}")));
    }
    Ok(samples)
}

impl Engine {
    /// A handle that keeps the model alive for the length of a call.
    pub(crate) fn model(&self) -> PyResult<Model> {
        let model = self.model.read().unwrap_or_else(PoisonError::into_inner);
        model.clone().ok_or_else(|| PyValueError::new_err(format!("model {} is closed", self.path.display())))
    }

    /// The options of one answer, and how it is watched.
    fn question(&self, py: Python<'_>, options: &Options) -> Question {
        let mut engine = options.inner.clone();
        engine.sampler.seed = options.seed.or(self.seed).unwrap_or_else(random_seed);
        Question {
            options: engine,
            stop_when: options.stop_when.as_ref().map(|function| function.clone_ref(py)),
            raised: Arc::clone(&options.raised),
            reader: None,
        }
    }

    /// The prompt of a conversation; the question learns how the answer is read.
    fn ask(&self, model: &Model, chat: &Chat, question: &mut Question, interrupt: &PyInterrupt<'_>) -> Result<Prompt> {
        let format = self.format.get_or_init(|| ChatFormat::of(model));
        let options = std::mem::take(&mut question.options);
        let prepared = chat.prepare(model, format, options, interrupt)?;
        question.options = prepared.options;
        question.reader = Some(prepared.reader);
        Ok(Prompt::Tokens(prepared.tokens))
    }
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (path, *, context=None, threads=None, mmap=true, seed=None, level=None, prefill_chunk, kv, architecture=None, prompt_cache=None))]
    #[allow(clippy::too_many_arguments, reason = "one parameter per option of the Python API")]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        context: Option<&Bound<'_, PyAny>>,
        threads: Option<&Bound<'_, PyAny>>,
        mmap: bool,
        seed: Option<&Bound<'_, PyAny>>,
        level: Option<&str>,
        prefill_chunk: &Bound<'_, PyAny>,
        kv: &str,
        architecture: Option<&str>,
        prompt_cache: Option<(PathBuf, Bound<'_, PyAny>)>,
    ) -> PyResult<Engine> {
        let level = match level {
            None => None,
            Some(name) => Some(
                Level::from_name(name)
                    .ok_or_else(|| PyValueError::new_err(LevelError::Unknown(name.to_owned()).to_string()))?,
            ),
        };
        let options = LoadOptions {
            context: optional(context, "context")?,
            threads: optional(threads, "threads")?,
            mmap,
            level,
            prefill_chunk: natural(prefill_chunk, "prefill_chunk")?,
            kv: kv_format(kv).map_err(|error| to_python(py, error))?,
            prompt_cache: match prompt_cache {
                Some((folder, bytes)) => Some((folder, natural(&bytes, "prompt_cache_bytes")?)),
                None => None,
            },
            architecture: architecture.map(described).transpose().map_err(|error| to_python(py, error))?,
            ..LoadOptions::default()
        };
        let seed = optional(seed, "seed")?;
        let model = detached(py, None, |interrupt| Model::load(&path, &options, interrupt))?;
        Ok(Engine { model: RwLock::new(Some(model)), path, seed, format: OnceLock::new() })
    }

    /// Answers to every prompt, `samples` of each, whose seeds follow each other.
    fn generate(
        &self,
        py: Python<'_>,
        prompts: PyPrompts,
        options: PyRef<'_, Options>,
        samples: &Bound<'_, PyAny>,
        cancel: Option<PyRef<'_, Cancel>>,
    ) -> PyResult<Vec<Py<PyDict>>> {
        let model = self.model()?;
        let samples = count_of_samples(samples)?;
        let mut question = self.question(py, &options);
        let grammar = options.grammar.clone();
        let cancel = cancel.map(|cancel| cancel.flag());
        let handle = model.clone();
        let records = detached(py, cancel.as_deref(), move |interrupt| {
            question.compile(&model, grammar.as_ref())?;
            answer::all(&model, prompts.0, &question, samples, interrupt)
        })?;
        records.into_iter().map(|record| record.to_python(py, &handle)).collect()
    }

    fn stream(
        &self,
        py: Python<'_>,
        prompt: PyPrompt,
        options: PyRef<'_, Options>,
        cancel: Option<PyRef<'_, Cancel>>,
    ) -> PyResult<Stream> {
        let model = self.model()?;
        let mut question = self.question(py, &options);
        let grammar = options.grammar.clone();
        let handle = model.clone();
        let cancel = cancel.map(|cancel| cancel.flag()).unwrap_or_default();
        let flag = Arc::clone(&cancel);
        let answer = detached(py, Some(&flag), move |interrupt| {
            question.compile(&model, grammar.as_ref())?;
            Answer::new(&model, prompt.0, question, interrupt)
        })?;
        Ok(Stream::new(answer, cancel, handle))
    }

    /// Answers to a conversation, whose seeds follow each other.
    #[allow(clippy::too_many_arguments, reason = "one parameter per argument of the Python API")]
    fn chat(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyList>,
        tools: &Bound<'_, PyList>,
        choice: &str,
        variables: &Bound<'_, PyDict>,
        options: PyRef<'_, Options>,
        samples: &Bound<'_, PyAny>,
        cancel: Option<PyRef<'_, Cancel>>,
    ) -> PyResult<Vec<Py<PyDict>>> {
        let model = self.model()?;
        let samples = count_of_samples(samples)?;
        let chat = Chat::read(messages, tools, choice, variables)?;
        let mut question = self.question(py, &options);
        let grammar = options.grammar.clone();
        let cancel = cancel.map(|cancel| cancel.flag());
        let handle = model.clone();
        let records = detached(py, cancel.as_deref(), move |interrupt| {
            question.compile(&model, grammar.as_ref())?;
            let prompt = self.ask(&model, &chat, &mut question, interrupt)?;
            answer::all(&model, vec![prompt], &question, samples, interrupt)
        })?;
        records.into_iter().map(|record| record.to_python(py, &handle)).collect()
    }

    /// The answer to a conversation, piece by piece. With `keep`, it goes on from what was `kept`, and what it computes can be kept.
    #[allow(clippy::too_many_arguments, reason = "one parameter per argument of the Python API")]
    fn stream_chat(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyList>,
        tools: &Bound<'_, PyList>,
        choice: &str,
        variables: &Bound<'_, PyDict>,
        options: PyRef<'_, Options>,
        cancel: Option<PyRef<'_, Cancel>>,
        kept: Option<PyRef<'_, Kept>>,
        keep: bool,
    ) -> PyResult<Stream> {
        let model = self.model()?;
        let chat = Chat::read(messages, tools, choice, variables)?;
        let mut question = self.question(py, &options);
        let grammar = options.grammar.clone();
        let kept = kept.and_then(|kept| kept.take());
        let handle = model.clone();
        let cancel = cancel.map(|cancel| cancel.flag()).unwrap_or_default();
        let flag = Arc::clone(&cancel);
        let answer = detached(py, Some(&flag), move |interrupt| {
            question.compile(&model, grammar.as_ref())?;
            let prompt = self.ask(&model, &chat, &mut question, interrupt)?;
            match keep {
                true => Answer::resume(&model, kept, prompt, question, interrupt),
                false => Answer::new(&model, prompt, question, interrupt),
            }
        })?;
        Ok(Stream::new(answer, cancel, handle))
    }

    /// Writes what was kept, and a JSON-like value, to a file.
    fn save_kept(
        &self,
        py: Python<'_>,
        kept: Option<PyRef<'_, Kept>>,
        path: PathBuf,
        extra: &Bound<'_, PyDict>,
    ) -> PyResult<()> {
        let model = self.model()?;
        let extra = serde_json::Value::Object(json::object(extra, "messages")?);
        let kept = kept.map(|kept| kept.forked()).transpose()?;
        detached(py, None, move |interrupt| {
            let kept = kept.unwrap_or_else(|| fastq_core::generate::Kept::new(&model));
            session::save(&kept, &model, &path, &extra, interrupt)
        })
    }

    /// Reads what `save_kept` has written.
    fn load_kept<'py>(&self, py: Python<'py>, path: PathBuf) -> PyResult<(Kept, Bound<'py, PyAny>)> {
        let model = self.model()?;
        let (kept, extra) = detached(py, None, move |interrupt| session::load(&model, &path, interrupt))?;
        Ok((Kept::new(kept), json::to_python(py, &extra)?))
    }

    #[pyo3(signature = (messages, tools, add_generation_prompt, variables))]
    fn apply_template(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyList>,
        tools: Option<&Bound<'_, PyList>>,
        add_generation_prompt: bool,
        variables: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<String> {
        let model = self.model()?;
        let messages = json::objects(messages, "messages")?;
        let tools = tools.map(|tools| json::list(tools, "tools")).transpose()?.map(serde_json::Value::Array);
        let variables = variables.map(|v| json::object(v, "variables")).transpose()?.unwrap_or_default();
        detached(py, None, move |_| {
            let template = model.template().ok_or_else(|| {
                Error::Template(format!(
                    "{}: the file has no chat template (tokenizer.chat_template); write the prompt yourself and use generate",
                    model.gguf().path().display()
                ))
            })?;
            template.render(&messages, tools.as_ref(), add_generation_prompt, &variables)
        })
    }

    fn tokenize(&self, py: Python<'_>, text: String, bos: bool, special: bool) -> PyResult<Vec<u32>> {
        let model = self.model()?;
        detached(py, None, move |interrupt| model.tokenizer().encode(&text, bos, special, interrupt))
    }

    fn detokenize(&self, py: Python<'_>, ids: Tokens, special: bool) -> PyResult<String> {
        let model = self.model()?;
        detached(py, None, move |_| model.tokenizer().decode(&ids.0, special))
    }

    fn logits<'py>(&self, py: Python<'py>, ids: Tokens, all: bool) -> PyResult<Bound<'py, PyAny>> {
        let model = self.model()?;
        let Tokens(ids) = ids;
        let rows = ids.len();
        let logits = detached(py, None, move |interrupt| {
            let mut sequence = model.new_sequence();
            let mut out = Vec::new();
            let logits = if all { Logits::All } else { Logits::Last };
            model.forward(
                &mut [BatchItem { sequence: &mut sequence, tokens: &ids, logits, out: &mut out }],
                interrupt,
            )?;
            Ok(out)
        })?;
        let width = logits.len() / if all { rows.max(1) } else { 1 };
        let flat = PyArray1::from_vec(py, logits);
        Ok(if all { flat.reshape([rows, width])?.into_any() } else { flat.into_any() })
    }

    /// Log-probabilities of the tokens but the first.
    fn score<'py>(&self, py: Python<'py>, ids: Tokens) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let model = self.model()?;
        let scores = detached(py, None, move |interrupt| fastq_core::evaluate::score(&model, &ids.0, interrupt))?;
        Ok(PyArray1::from_vec(py, scores))
    }

    /// How well each document answers a query.
    fn rerank<'py>(
        &self,
        py: Python<'py>,
        query: String,
        documents: Vec<String>,
    ) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let model = self.model()?;
        let scores = detached(py, None, move |interrupt| model.rerank(&query, &documents, interrupt))?;
        Ok(PyArray1::from_vec(py, scores))
    }

    fn embed<'py>(
        &self,
        py: Python<'py>,
        texts: Vec<String>,
        pooling: Option<&str>,
        normalize: bool,
        truncate: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let model = self.model()?;
        let rows = texts.len();
        let width = model.info().width;
        let pooling = pooling.map(Pooling::from_name).transpose().map_err(|error| to_python(py, error))?;
        let options = EmbedOptions { pooling, normalize, truncate };
        let vectors = detached(py, None, move |interrupt| model.embed_texts(&texts, options, interrupt))?;
        Ok(PyArray1::from_vec(py, vectors).reshape([rows, width])?.into_any())
    }

    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let model = self.model()?;
        let info = model.info();
        let record = PyDict::new(py);
        record.set_item("path", self.path.as_os_str())?;
        record.set_item("architecture", &info.architecture)?;
        record.set_item("name", &info.name)?;
        record.set_item("parameters", info.parameters)?;
        record.set_item("file_bytes", info.file_bytes)?;
        record.set_item("bits_per_weight", info.bits_per_weight)?;
        record.set_item("layers", info.layers)?;
        record.set_item("width", info.width)?;
        record.set_item("heads", info.heads)?;
        record.set_item("kv_heads", info.kv_heads)?;
        record.set_item("experts", info.experts)?;
        record.set_item("experts_used", info.experts_used)?;
        record.set_item("head_dim", info.head_size)?;
        record.set_item("vocabulary", info.vocabulary)?;
        record.set_item("context_trained", info.trained_context)?;
        record.set_item("context", info.context)?;
        record.set_item("kv", info.kv.name())?;
        let types = PyDict::new(py);
        for (name, count) in &info.types {
            types.set_item(name, count)?;
        }
        record.set_item("types", types)?;
        record.set_item("tokenizer", &info.tokenizer)?;
        record.set_item("chat_template", info.has_template)?;
        record.set_item("level", info.level.name())?;
        record.set_item("threads", info.threads)?;
        record.set_item("load_seconds", info.load_seconds)?;
        Ok(record)
    }

    /// What the memory plan warns of.
    fn warning(&self) -> PyResult<Option<String>> {
        Ok(self.model()?.plan().warning.clone())
    }

    fn close(&self, py: Python<'_>) {
        // Dropping a model joins its threads and unmaps its file: not under the GIL.
        let model = self.model.write().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| drop(model));
    }
}
