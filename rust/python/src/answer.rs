//! Answers under way, and what Python gets of them.

use std::sync::{Arc, PoisonError};

use fastq_core::generate::Kept;
use fastq_core::grammar::{Grammar, GrammarSource};
use fastq_core::sampler::TokenLogprobs;
use fastq_core::{Completion, Error, FinishReason, Generation, GenerationOptions, Model, Piece, Prompt, Result};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::chat::Reader;
use crate::interrupt::PyInterrupt;
use crate::json;
use crate::processor::Raised;

/// How prompts are answered.
pub(crate) struct Question {
    pub(crate) options: GenerationOptions,
    /// Asked with the text so far whether the answer ends.
    pub(crate) stop_when: Option<Py<PyAny>>,
    /// What one of its processors raised.
    pub(crate) raised: Raised,
    /// Takes the answer apart, of a chat.
    pub(crate) reader: Option<Reader>,
}

impl Question {
    /// Compiles what the answer must match for a model.
    ///
    /// # Errors
    /// As [`Grammar::new`].
    pub(crate) fn compile(&mut self, model: &Model, source: Option<&GrammarSource>) -> Result<()> {
        self.options.grammar = source.map(|source| Grammar::new(model, source)).transpose()?;
        Ok(())
    }
}

/// The answer to one prompt.
pub(crate) struct Answer {
    generation: Generation,
    seed: u64,
    stop_when: Option<Py<PyAny>>,
    raised: Raised,
    reader: Option<Reader>,
    /// What the pieces so far add up to, kept for `stop_when`: the engine may be ahead of them.
    text: String,
    tokens: Vec<u32>,
    /// `stop_when` ended it.
    stopped: bool,
}

impl Answer {
    /// Prepares an answer; computes nothing yet.
    ///
    /// # Errors
    /// As [`Generation::new`].
    pub(crate) fn new(
        model: &Model,
        prompt: Prompt,
        question: Question,
        interrupt: &PyInterrupt<'_>,
    ) -> Result<Answer> {
        let generation = Generation::new(model, vec![prompt], &question.options, interrupt)?;
        Ok(Answer::of(generation, question))
    }

    /// Prepares an answer that goes on from what was kept, and gives it back in the end.
    ///
    /// # Errors
    /// As [`Generation::resume`].
    pub(crate) fn resume(
        model: &Model,
        kept: Option<Kept>,
        prompt: Prompt,
        question: Question,
        interrupt: &PyInterrupt<'_>,
    ) -> Result<Answer> {
        let generation = Generation::resume(model, kept, prompt, &question.options, interrupt)?;
        Ok(Answer::of(generation, question))
    }

    fn of(generation: Generation, question: Question) -> Answer {
        let Question { options, stop_when, raised, reader } = question;
        let (seed, text, tokens) = (options.sampler.seed, String::new(), Vec::new());
        Answer { generation, seed, stop_when, raised, reader, text, tokens, stopped: false }
    }

    pub(crate) fn reader(&self) -> Option<&Reader> {
        self.reader.as_ref()
    }

    /// What the next answer can go on from, once this one has ended.
    pub(crate) fn take_kept(&mut self) -> Option<Kept> {
        self.generation.take_kept()
    }

    pub(crate) fn finished(&self) -> bool {
        self.generation.finished()
    }

    pub(crate) fn cancel(&mut self) {
        self.generation.cancel();
    }

    /// The next pieces.
    ///
    /// # Errors
    /// As [`Generation::step`]; what `stop_when` raises is kept by the interrupt.
    pub(crate) fn step(&mut self, interrupt: &PyInterrupt<'_>) -> Result<Vec<Piece>> {
        let stepped = self.generation.step(interrupt);
        let mut pieces = stepped.map_err(|error| raised(&self.raised, error, interrupt))?;
        let Some(stop_when) = &self.stop_when else { return Ok(pieces) };
        for (at, piece) in pieces.iter().enumerate() {
            self.tokens.extend(piece.token);
            if piece.text.is_empty() {
                continue;
            }
            self.text.push_str(&piece.text);
            // Without an interpreter there is nobody to ask, nor anybody who waits.
            let said = Python::try_attach(|py| stop_when.bind(py).call1((&self.text,))?.is_truthy());
            if said.unwrap_or(Ok(true)).map_err(|error| interrupt.raise(error))? {
                self.generation.cancel();
                self.stopped = true;
                pieces.truncate(at + 1);
                break;
            }
        }
        Ok(pieces)
    }

    /// The record of an answer that has ended.
    pub(crate) fn record(&self) -> Option<Record> {
        let mut completion = self.generation.completions().pop()??;
        if self.stopped {
            completion.text.clone_from(&self.text);
            completion.tokens.clone_from(&self.tokens);
            completion.finish_reason = FinishReason::Stop;
            if let Some(logprobs) = &mut completion.logprobs {
                logprobs.truncate(self.tokens.len());
            }
        }
        Some(Record::new(completion, self.seed, self.reader.as_ref()))
    }
}

/// What a processor raised, if that is why the engine gave an error.
fn raised(raised: &Raised, error: Error, interrupt: &PyInterrupt<'_>) -> Error {
    match raised.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(exception) => interrupt.raise(exception),
        None => error,
    }
}

/// Answers to all prompts, `samples` of each: the seeds of the samples follow each other.
///
/// # Errors
/// As [`Answer::step`].
pub(crate) fn all(
    model: &Model,
    prompts: Vec<Prompt>,
    question: &Question,
    samples: usize,
    interrupt: &PyInterrupt<'_>,
) -> Result<Vec<Record>> {
    let seeds = (0..samples as u64).map(|sample| question.options.sampler.seed.wrapping_add(sample));
    let options: Vec<GenerationOptions> = seeds
        .map(|seed| {
            let mut options = question.options.clone();
            options.sampler.seed = seed;
            options
        })
        .collect();
    let requests = prompts.iter().flat_map(|prompt| options.iter().map(move |options| (prompt.clone(), options)));
    let Some(stop_when) = &question.stop_when else {
        let completions = Generation::each(model, requests, interrupt)?.run(interrupt);
        let completions = completions.map_err(|error| raised(&question.raised, error, interrupt))?;
        let seeds = options.iter().map(|options| options.sampler.seed).cycle();
        let reader = question.reader.as_ref();
        return Ok(completions.into_iter().zip(seeds).map(|(c, seed)| Record::new(c, seed, reader)).collect());
    };
    // Each on its own, so that one can end while others go on; what is computed for one is computed for all.
    let mut answers = requests
        .map(|(prompt, options)| {
            let stop_when = Python::try_attach(|py| stop_when.clone_ref(py));
            let (raised, reader) = (Arc::clone(&question.raised), question.reader.clone());
            let question = Question { options: options.clone(), stop_when, raised, reader };
            Answer::new(model, prompt, question, interrupt)
        })
        .collect::<Result<Vec<Answer>>>()?;
    while answers.iter().any(|answer| !answer.finished()) {
        for answer in answers.iter_mut().filter(|answer| !answer.finished()) {
            answer.step(interrupt)?;
        }
    }
    let missing = || Error::Internal("an answer that ended has no record".into());
    answers.iter().map(|answer| answer.record().ok_or_else(missing)).collect()
}

/// Token, text and log-probability.
type Likely = (u32, String, f32);
/// The same of a token, and its alternatives.
pub(crate) type PyLogprob = (u32, String, f32, Vec<Likely>);

pub(crate) fn logprob(model: &Model, of: &TokenLogprobs) -> PyLogprob {
    // Of a part of a character, what is no text shows as U+FFFD.
    let text = |token| match model.tokenizer().token_bytes(token, true) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    };
    let top = of.top.iter().map(|&(token, logprob)| (token, text(token), logprob)).collect();
    (of.token, text(of.token), of.logprob, top)
}

/// An answer that has ended.
pub(crate) struct Record {
    completion: Completion,
    seed: u64,
    /// The message, of a chat.
    message: Option<serde_json::Value>,
}

impl Record {
    fn new(completion: Completion, seed: u64, reader: Option<&Reader>) -> Record {
        let message = reader.map(|reader| reader.message(&completion.text));
        Record { completion, seed, message }
    }

    /// As a dictionary, from which `fastq.completion` makes its records.
    pub(crate) fn to_python(&self, py: Python<'_>, model: &Model) -> PyResult<Py<PyDict>> {
        let load_seconds = model.info().load_seconds;
        let c = &self.completion;
        let timings = (
            load_seconds,
            c.timings.prefill_tokens,
            c.timings.prefill_seconds,
            c.timings.decode_tokens,
            c.timings.decode_seconds,
            fastq_core::machine::peak_rss_bytes().unwrap_or(0),
        );
        let record = PyDict::new(py);
        record.set_item("text", &c.text)?;
        record.set_item("tokens", &c.tokens)?;
        record.set_item("finish_reason", c.finish_reason.name())?;
        record.set_item("prompt_tokens", c.prompt_tokens)?;
        record.set_item("cached_tokens", c.cached_tokens)?;
        record.set_item("dropped_tokens", c.dropped_tokens)?;
        record.set_item("drafted_tokens", c.drafted)?;
        record.set_item("accepted_tokens", c.accepted)?;
        record.set_item("seed", self.seed)?;
        record.set_item("timings", timings)?;
        if let Some(message) = &self.message {
            record.set_item("message", json::to_python(py, message)?)?;
        }
        if let Some(logprobs) = &c.logprobs {
            let logprobs: Vec<PyLogprob> = logprobs.iter().map(|of| logprob(model, of)).collect();
            record.set_item("logprobs", logprobs)?;
        }
        if let Some(logprobs) = &c.prompt_logprobs {
            let logprobs: Vec<Option<PyLogprob>> =
                logprobs.iter().map(|of| of.as_ref().map(|of| logprob(model, of))).collect();
            record.set_item("prompt_logprobs", logprobs)?;
        }
        Ok(record.unbind())
    }
}
