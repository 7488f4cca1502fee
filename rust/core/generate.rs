//! Generation: prompts in, pieces of text out.
//!
//! A [`Generation`] is what one caller asked for. Its prompts go to the queue of the model, where those of all callers are computed
//! together (`scheduler`). When the KV cache is too small for all of them they run in waves. By the numeric contract and because a
//! draw depends only on (seed, position), the texts are the same as if each had run alone.

mod chat;
mod overflow;
mod request;
pub mod speculate;
pub mod stop;

use std::sync::Arc;

pub use chat::{chat_tokens, prompt_tokens};
pub use overflow::Overflow;
pub use request::Kept;
pub(crate) use request::{Request, State, common};
pub use speculate::Speculation;

use crate::grammar::Grammar;
use crate::sampler::{LogitsProcessor, SamplerOptions, TokenLogprobs};
use crate::scheduler::Ticket;
use crate::{Interrupt, Model, Result};

/// Tokens that `generate` and `fastq run` answer with at most, unless told otherwise.
pub const DEFAULT_MAX_TOKENS: usize = 256;

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
#[derive(Clone)]
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
    /// What the answer must match. It ends where nothing but an end may follow.
    pub grammar: Option<Grammar>,
    /// Strings that never come up in the answer, in the text as it is shown.
    pub banned: Vec<String>,
    /// Change the logits before everything else, in this order.
    pub processors: Vec<Arc<dyn LogitsProcessor>>,
    /// Log-probabilities of the tokens of the answer, each with so many alternatives.
    pub logprobs: Option<usize>,
    /// Log-probabilities of the tokens of the prompt, which is then computed as a whole, whatever was computed before.
    pub prompt_logprobs: Option<usize>,
    /// What happens when prompt and answer exceed the context.
    pub overflow: Overflow,
    /// Guess tokens ahead; the answer is the same.
    pub speculate: Option<Speculation>,
    /// Go on from the beginning of an earlier text, where a prompt begins alike, and keep this one for others; the answer is the same.
    pub reuse: bool,
}

impl Default for GenerationOptions {
    fn default() -> GenerationOptions {
        GenerationOptions {
            max_tokens: Some(DEFAULT_MAX_TOKENS),
            stop: Vec::new(),
            ignore_eos: false,
            special: false,
            sampler: SamplerOptions::default(),
            grammar: None,
            banned: Vec::new(),
            processors: Vec::new(),
            logprobs: None,
            prompt_logprobs: None,
            overflow: Overflow::Error,
            speculate: None,
            reuse: true,
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

impl std::fmt::Debug for GenerationOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Texts are the user's: they do not belong into a log.
        f.debug_struct("GenerationOptions")
            .field("max_tokens", &self.max_tokens)
            .field("sampler", &self.sampler)
            .field("overflow", &self.overflow)
            .field("speculate", &self.speculate)
            .finish_non_exhaustive()
    }
}

/// What one step added to one answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// Which prompt, in input order.
    pub index: usize,
    /// The token; `None` when an end token ended the answer, or nothing was to be generated.
    pub token: Option<u32>,
    /// How likely the token was, when that was asked for.
    pub logprobs: Option<TokenLogprobs>,
    /// Text that is now certain; often empty while a character or a stop string may still be incomplete.
    pub text: String,
    /// Set in the last piece of an answer.
    pub finish: Option<FinishReason>,
}

/// Where the time went. The seconds are those of the steps that the prompt took part in, with whatever else was computed in them.
#[derive(Clone, Copy, Default, Debug, PartialEq)]
pub struct Timings {
    /// Prompt tokens that were computed; those that were computed before are not.
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
    /// Tokens of the prompt that were already computed: for this conversation, or for another text that begins alike.
    pub cached_tokens: usize,
    /// Tokens of prompt and answer that were dropped because the context was full.
    pub dropped_tokens: usize,
    /// Where the time went.
    pub timings: Timings,
    /// How likely each token was, when that was asked for.
    pub logprobs: Option<Vec<TokenLogprobs>>,
    /// How likely each token of the prompt was, when that was asked for; nothing is before the first.
    pub prompt_logprobs: Option<Vec<Option<TokenLogprobs>>>,
    /// Tokens that were guessed ahead.
    pub drafted: usize,
    /// How many of them came true.
    pub accepted: usize,
}

/// What one caller asked for: several prompts under way. Dropping it cancels them.
pub struct Generation {
    model: Model,
    tickets: Vec<Arc<Ticket>>,
    /// How many of them have not given their last piece.
    open: usize,
}

impl Generation {
    /// Prepares prompts that share options; computes nothing yet.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for options out of range, an empty stop string, a token outside the vocabulary or an empty
    /// prompt of a model without a beginning token; [`Error::ContextOverflow`](crate::Error::ContextOverflow) when a prompt is longer than the
    /// context; [`Error::Tokenizer`](crate::Error::Tokenizer), [`Error::Cancelled`](crate::Error::Cancelled).
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
        Ok(Generation::start(model, requests.collect::<Result<_>>()?))
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
        Ok(Generation::start(model, vec![request]))
    }

    fn start(model: &Model, requests: Vec<Request>) -> Generation {
        let tickets: Vec<Arc<Ticket>> =
            requests.into_iter().enumerate().map(|(index, request)| Ticket::new(index, request)).collect();
        let mut waiting = Vec::with_capacity(tickets.len());
        for ticket in &tickets {
            let mut request = ticket.request();
            // To score a prompt it has to be computed.
            let ended = if request.scores_prompt() { None } else { request.finish_at_once(ticket.index) };
            match ended {
                Some(piece) => ticket.give(piece),
                None => waiting.push(Arc::clone(ticket)),
            }
        }
        model.scheduler().submit(waiting);
        Generation { model: model.clone(), open: tickets.len(), tickets }
    }

    /// Waits for the next pieces, computing them, and those of other callers, if nobody else does. Empty when all prompts are finished.
    ///
    /// # Errors
    /// [`Error::Cancelled`](crate::Error::Cancelled) when `interrupt` stops it: nothing was lost, and further steps go on from there.
    /// [`Error::Memory`](crate::Error::Memory) when the KV cache cannot hold even one prompt; [`Error::NotFinite`](crate::Error::NotFinite) when the
    /// model gives numbers that are none. What is wrong with one prompt cancels all.
    pub fn step(&mut self, interrupt: &dyn Interrupt) -> Result<Vec<Piece>> {
        loop {
            if self.open == 0 {
                return Ok(Vec::new());
            }
            let mut pieces = Vec::new();
            for ticket in &self.tickets {
                match ticket.take() {
                    Ok(more) => pieces.extend(more),
                    Err(error) => {
                        self.cancel();
                        return Err(error);
                    }
                }
            }
            if !pieces.is_empty() {
                let ended = pieces.iter().filter(|piece| piece.finish.is_some()).count();
                self.open -= ended;
                if ended > 0 {
                    self.store(interrupt);
                }
                return Ok(pieces);
            }
            self.model.scheduler().wait(&self.model, &self.tickets, interrupt)?;
        }
    }

    /// Writes beginnings of prompts to the prompt cache of the model, if it has one, now that nobody waits for a token. What cannot be written is
    /// computed again another time.
    fn store(&self, interrupt: &dyn Interrupt) {
        let Some(cache) = self.model.prompt_cache() else { return };
        for ticket in &self.tickets {
            for kept in ticket.take_stored() {
                let _ = cache.store(&self.model, &kept, interrupt);
            }
        }
    }

    /// Whether all prompts are finished and all pieces were given out.
    pub fn finished(&self) -> bool {
        self.open == 0
    }

    /// Ends all prompts that are not finished, with what they have. Those whose last piece was not given out yet, because other callers
    /// computed ahead, are cancelled as well.
    pub fn cancel(&mut self) {
        self.model.scheduler().leave(&self.tickets);
        for ticket in &self.tickets {
            let unread = ticket.take().is_ok_and(|pieces| pieces.iter().any(|piece| piece.finish.is_some()));
            let mut request = ticket.request();
            if unread || !request.finished() {
                request.finish(FinishReason::Cancelled);
                if !request.kept {
                    request.sequence = None;
                }
            }
        }
        self.open = 0;
    }

    /// The answers so far in input order; `None` for those that are not finished.
    pub fn completions(&self) -> Vec<Option<Completion>> {
        self.tickets.iter().map(|ticket| ticket.request().completion()).collect()
    }

    /// The answers in input order; what is not finished is cancelled.
    pub fn into_completions(mut self) -> Vec<Completion> {
        self.cancel();
        self.tickets.iter().filter_map(|ticket| ticket.request().completion()).collect()
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
        self.tickets.first().and_then(|ticket| ticket.request().take_kept())
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        // Without waiting for a step that is under way: who drops it may hold what the leader waits for.
        if self.open > 0 {
            self.model.scheduler().leave(&self.tickets);
        }
    }
}
