//! Generation: prompts in, pieces of text out.
//!
//! A [`Generation`] owns the sequences of its prompts. Each [`step`](Generation::step) either computes the prompts that are
//! let in (all of them in one forward call, if the KV cache has room) or one more token of every prompt that is under way.
//! When the cache is too small for all prompts at once they run in waves; by the numeric contract (DESIGN §3) and because a
//! draw depends only on (seed, position), the texts are the same as if each had run alone.

mod chat;
mod request;
pub mod stop;

use std::time::Instant;

pub use chat::{chat_tokens, prompt_tokens};
pub use request::Kept;
use request::{Request, State};

use crate::sampler::SamplerOptions;
use crate::{BatchItem, Error, Interrupt, Logits, Model, Result};

/// Tokens that `generate` and `fastq run` answer with at most, unless told otherwise.
pub const DEFAULT_MAX_TOKENS: usize = 256;

/// Prompts under way at once; more wait. Bounds the memory for logits, of which each has a row.
const MAX_BATCH: usize = 64;

/// What to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// Text; special tokens in it are parsed, and the beginning (end) token is added as the file asks.
    Text(String),
    /// Token ids, taken as they are.
    Tokens(Vec<u32>),
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Prompt {
        Prompt::Text(text.to_owned())
    }
}

impl From<Vec<u32>> for Prompt {
    fn from(tokens: Vec<u32>) -> Prompt {
        Prompt::Tokens(tokens)
    }
}

/// How to continue a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationOptions {
    /// The most tokens to generate; `None` until the end token or until the context is full.
    pub max_tokens: Option<usize>,
    /// Texts that end the answer; they and what follows are not part of it.
    pub stop: Vec<String>,
    /// Forbids the end tokens, so that only `max_tokens`, `stop` and the context end the answer.
    pub ignore_eos: bool,
    /// Shows control tokens in the text.
    pub special: bool,
    /// How tokens are chosen.
    pub sampler: SamplerOptions,
}

impl Default for GenerationOptions {
    fn default() -> GenerationOptions {
        GenerationOptions {
            max_tokens: Some(DEFAULT_MAX_TOKENS),
            stop: Vec::new(),
            ignore_eos: false,
            special: false,
            sampler: SamplerOptions::default(),
        }
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FinishReason {
    /// The model gave an end token, or a stop string came up.
    Stop,
    /// `max_tokens` or the context was reached.
    Length,
    /// The caller cancelled.
    Cancelled,
}

impl FinishReason {
    /// `"stop"`, `"length"` or `"cancelled"`.
    pub const fn name(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::Cancelled => "cancelled",
        }
    }
}

impl std::fmt::Display for FinishReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What one step added to one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which prompt, in input order.
    pub index: usize,
    /// The token; `None` when an end token ended the answer, or nothing was to be generated.
    pub token: Option<u32>,
    /// Text that is now certain; often empty while a character or a stop string may still be incomplete.
    pub text: String,
    /// Set in the last piece of an answer.
    pub finish: Option<FinishReason>,
}

/// Where the time went. In a batch the seconds are those of the steps that the prompt took part in.
#[derive(Clone, Copy, Default, Debug, PartialEq)]
pub struct Timings {
    /// Prompt tokens that were computed; those found in a kept sequence are not.
    pub prefill_tokens: usize,
    /// Seconds until the first token was chosen.
    pub prefill_seconds: f64,
    /// Tokens chosen after the first one.
    pub decode_tokens: usize,
    /// Seconds for them.
    pub decode_seconds: f64,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The text, without control tokens (unless asked for), stop string and what follows it.
    pub text: String,
    /// The generated tokens. The end token is not among them; with a stop string, the tokens that it is made of are.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that a kept sequence already held.
    pub cached_tokens: usize,
    /// Where the time went.
    pub timings: Timings,
}

/// Several prompts under way, as one batch.
pub struct Generation {
    model: Model,
    requests: Vec<Request>,
    /// Pieces of answers that were finished before any step.
    ready: Vec<Piece>,
    /// Cleared when the KV cache had no room for another prompt, set when one of those under way ends.
    admit: bool,
}

impl Generation {
    /// Prepares prompts that share options; computes nothing yet.
    ///
    /// # Errors
    /// [`Error::Argument`] for options out of range, an empty stop string, a token outside the vocabulary or an empty prompt
    /// of a model without a beginning token; [`Error::ContextOverflow`] when a prompt is longer than the context;
    /// [`Error::Tokenizer`], [`Error::Cancelled`].
    pub fn new(
        model: &Model,
        prompts: Vec<Prompt>,
        options: &GenerationOptions,
        interrupt: &dyn Interrupt,
    ) -> Result<Generation> {
        Generation::each(model, prompts.into_iter().map(|prompt| (prompt, options)), interrupt)
    }

    /// Prepares prompts with options of their own.
    ///
    /// # Errors
    /// As [`Generation::new`].
    pub fn each<'a>(
        model: &Model,
        prompts: impl IntoIterator<Item = (Prompt, &'a GenerationOptions)>,
        interrupt: &dyn Interrupt,
    ) -> Result<Generation> {
        let requests =
            prompts.into_iter().map(|(prompt, options)| Request::new(model, prompt, options, None, interrupt));
        Generation::start(model, requests.collect::<Result<_>>()?)
    }

    /// Prepares one prompt that may begin like the text of a kept sequence: the part in common is not computed again. After
    /// the answer, [`take_kept`](Generation::take_kept) gives the sequence back, longer.
    ///
    /// # Errors
    /// As [`Generation::new`]; `kept` is lost.
    pub fn resume(
        model: &Model,
        kept: Option<Kept>,
        prompt: Prompt,
        options: &GenerationOptions,
        interrupt: &dyn Interrupt,
    ) -> Result<Generation> {
        let kept = kept.unwrap_or_else(|| Kept::new(model));
        let request = Request::new(model, prompt, options, Some(kept), interrupt)?;
        Generation::start(model, vec![request])
    }

    fn start(model: &Model, mut requests: Vec<Request>) -> Result<Generation> {
        let at_once = requests.iter_mut().enumerate().filter_map(|(index, request)| request.finish_at_once(index));
        let ready = at_once.collect();
        Ok(Generation { model: model.clone(), requests, ready, admit: true })
    }

    /// Computes the prompts that are let in, or one more token of all that are under way. One piece for each prompt that took
    /// part; empty when all are finished.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when `interrupt` stops it: nothing was lost, and further steps go on from there.
    /// [`Error::Memory`] when the KV cache cannot hold even one prompt; [`Error::NotFinite`] when the model gives numbers
    /// that are none, which also cancels all prompts.
    pub fn step(&mut self, interrupt: &dyn Interrupt) -> Result<Vec<Piece>> {
        if !self.ready.is_empty() {
            return Ok(std::mem::take(&mut self.ready));
        }
        let start = Instant::now();
        let prefill = self.prefill(interrupt)?;
        if !prefill {
            self.decode(interrupt)?;
        }
        let pieces = self.sample(start, prefill).inspect_err(|_| self.cancel())?;
        self.admit |= pieces.iter().any(|piece| piece.finish.is_some());
        Ok(pieces)
    }

    /// Lets waiting prompts in and computes them; whether there were any.
    fn prefill(&mut self, interrupt: &dyn Interrupt) -> Result<bool> {
        let others = self.with(State::Running).count();
        let waiting: Vec<usize> = self.with(State::Waiting).take(MAX_BATCH.saturating_sub(others)).collect();
        if waiting.is_empty() || !self.admit {
            return Ok(false);
        }
        let mut count = waiting.len();
        loop {
            let result = self.forward(&waiting[..count], interrupt);
            match result {
                Ok(()) => return Ok(true),
                // The cache is full: half as many, and none while others still run that will free their pages.
                Err(Error::Memory(_)) if count > 1 || others > 0 => {
                    self.admit = false;
                    count /= 2;
                    waiting[count..].iter().for_each(|&index| self.requests[index].release());
                    if count == 0 {
                        return Ok(false);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Computes the last token of all that are under way.
    fn decode(&mut self, interrupt: &dyn Interrupt) -> Result<()> {
        loop {
            let running: Vec<usize> = self.with(State::Running).collect();
            match self.forward(&running, interrupt) {
                // The cache is full: the last one gives its pages to the others and is computed again later.
                Err(Error::Memory(_)) if running.len() > 1 => {
                    self.admit = false;
                    running.last().into_iter().for_each(|&index| self.requests[index].release());
                }
                result => return result,
            }
        }
    }

    /// Indices of the requests in a state.
    fn with(&self, state: State) -> impl Iterator<Item = usize> {
        self.requests.iter().enumerate().filter(move |(_, request)| request.state == state).map(|(index, _)| index)
    }

    /// Computes what the sequences of `indices` (ascending) lack, and the logits after it.
    fn forward(&mut self, indices: &[usize], interrupt: &dyn Interrupt) -> Result<()> {
        if interrupt.stop() {
            return Err(Error::Cancelled);
        }
        let model = &self.model;
        for &index in indices {
            self.requests[index].compute_history(model, interrupt)?;
        }
        let mut batch = Vec::with_capacity(indices.len());
        let chosen = self.requests.iter_mut().enumerate().filter(|(index, _)| indices.binary_search(index).is_ok());
        for (_, request) in chosen {
            let sequence = request.sequence.get_or_insert_with(|| model.new_sequence());
            let tokens = &request.tokens[sequence.len()..];
            batch.push(BatchItem { sequence, tokens, logits: Logits::Last, out: &mut request.logits });
        }
        if batch.is_empty() {
            return Ok(());
        }
        let computed: Vec<usize> = batch.iter().map(|item| item.tokens.len()).collect();
        model.forward(&mut batch, interrupt)?;
        for (&index, computed) in indices.iter().zip(computed) {
            let request = &mut self.requests[index];
            if request.state == State::Waiting {
                request.timings.prefill_tokens += computed;
            }
            request.state = State::Computed;
        }
        Ok(())
    }

    /// Chooses a token for every request that has new logits.
    fn sample(&mut self, start: Instant, prefill: bool) -> Result<Vec<Piece>> {
        let indices: Vec<usize> = self.with(State::Computed).collect();
        let mut chosen = Vec::with_capacity(indices.len());
        for &index in &indices {
            let request = &mut self.requests[index];
            let position = request.tokens.len();
            chosen.push(request.sampler.sample(&mut request.logits, position)?);
        }
        let model = &self.model;
        let pieces =
            indices.iter().zip(chosen).map(|(&index, token)| self.requests[index].advance(model, index, token));
        let pieces: Vec<Piece> = pieces.collect::<Result<_>>()?;
        let seconds = start.elapsed().as_secs_f64();
        for index in indices {
            let timings = &mut self.requests[index].timings;
            if prefill {
                timings.prefill_seconds += seconds;
            } else {
                timings.decode_seconds += seconds;
                timings.decode_tokens += 1;
            }
        }
        Ok(pieces)
    }

    /// Whether all prompts are finished and all pieces were given out.
    pub fn finished(&self) -> bool {
        self.ready.is_empty() && self.requests.iter().all(|request| matches!(request.state, State::Finished(_)))
    }

    /// Ends all prompts that are not finished, with what they have.
    pub fn cancel(&mut self) {
        for request in &mut self.requests {
            if !matches!(request.state, State::Finished(_)) {
                request.finish(FinishReason::Cancelled);
            }
        }
    }

    /// The answers so far in input order; `None` for those that are not finished.
    pub fn completions(&self) -> Vec<Option<Completion>> {
        self.requests.iter().map(Request::completion).collect()
    }

    /// The answers in input order; what is not finished is cancelled.
    pub fn into_completions(mut self) -> Vec<Completion> {
        self.cancel();
        self.requests.iter().filter_map(Request::completion).collect()
    }

    /// Steps until all are finished.
    ///
    /// # Errors
    /// As [`Generation::step`].
    pub fn run(mut self, interrupt: &dyn Interrupt) -> Result<Vec<Completion>> {
        while !self.finished() {
            self.step(interrupt)?;
        }
        Ok(self.into_completions())
    }

    /// The sequence of a finished [`resume`](Generation::resume), for the next one.
    pub fn take_kept(&mut self) -> Option<Kept> {
        self.requests.first_mut().and_then(Request::take_kept)
    }
}
