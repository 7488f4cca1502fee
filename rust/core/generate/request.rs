//! One prompt and its answer.

use std::ops::Deref;

use super::stop::StopMatcher;
use super::{Completion, FinishReason, GenerationOptions, Piece, Prompt, Timings};
use crate::sampler::Sampler;
use crate::tokenizer::{Detokenizer, Tokenizer};
use crate::{BatchItem, Error, Interrupt, Logits, Model, Result, Sequence};

/// The tokenizer of a model, for a detokenizer that outlives the borrow of it.
struct TokenizerOf(Model);

impl Deref for TokenizerOf {
    type Target = Tokenizer;

    fn deref(&self) -> &Tokenizer {
        self.0.tokenizer()
    }
}

/// Where a request stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Its sequence lacks the prompt, or, after it had to give up its pages, prompt and answer.
    Waiting,
    /// Its sequence lacks the last token.
    Running,
    /// Its sequence lacks nothing, and its logits wait to be sampled.
    Computed,
    /// It is over.
    Finished(FinishReason),
}

/// A sequence and its tokens, kept from one answer for a prompt that begins alike.
#[derive(Debug)]
pub struct Kept {
    sequence: Sequence,
    /// At least as many tokens as the sequence has positions.
    tokens: Vec<u32>,
}

impl Kept {
    pub(super) fn new(model: &Model) -> Kept {
        Kept { sequence: model.new_sequence(), tokens: Vec::new() }
    }

    /// A sequence and the tokens that it was computed from, at least as many as it has positions.
    pub(crate) fn from_parts(sequence: Sequence, tokens: Vec<u32>) -> Kept {
        Kept { sequence, tokens }
    }

    /// The sequence.
    pub fn sequence(&self) -> &Sequence {
        &self.sequence
    }

    /// The tokens whose keys and values are kept.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens[..self.sequence.len()]
    }

    /// Cuts the sequence to what it has in common with `prompt`. The last token of the prompt stays out: computing it gives
    /// the logits.
    fn cut(mut self, model: &Model, prompt: &[u32]) -> Sequence {
        let limit = prompt.len().saturating_sub(1);
        let common = self.tokens().iter().zip(&prompt[..limit]).take_while(|(a, b)| a == b).count();
        // Layers with a state may have to go back further. Those with a sliding window may no longer have what lies before `common`; then
        // all is computed again.
        match self.sequence.truncate(common) {
            Ok(_) => self.sequence,
            Err(_) => model.new_sequence(),
        }
    }
}

/// One prompt and its answer.
pub(super) struct Request {
    pub(super) state: State,
    /// Prompt and answer so far.
    pub(super) tokens: Vec<u32>,
    prompt_tokens: usize,
    cached_tokens: usize,
    /// The most tokens that prompt and answer may have.
    limit: usize,
    pub(super) sequence: Option<Sequence>,
    keep: bool,
    pub(super) logits: Vec<f32>,
    pub(super) sampler: Sampler,
    detokenizer: Detokenizer<TokenizerOf>,
    stop: StopMatcher,
    text: String,
    pub(super) timings: Timings,
}

impl Request {
    pub(super) fn new(
        model: &Model,
        prompt: Prompt,
        options: &GenerationOptions,
        kept: Option<Kept>,
        interrupt: &dyn Interrupt,
    ) -> Result<Request> {
        let tokenizer = model.tokenizer();
        let vocabulary = model.info().vocabulary;
        let mut tokens = match prompt {
            Prompt::Text(text) => tokenizer.encode(&text, true, true, interrupt)?,
            Prompt::Tokens(tokens) => tokens,
        };
        if tokens.is_empty() {
            let bos = tokenizer.bos().ok_or_else(|| {
                Error::Argument("the prompt is empty, and this model has no beginning token to start from".into())
            })?;
            tokens.push(bos);
        }
        if let Some((at, token)) = tokens.iter().enumerate().find(|(_, token)| **token as usize >= vocabulary) {
            return Err(Error::Argument(format!(
                "token {token} at position {at} of the prompt is outside the vocabulary of {vocabulary} tokens"
            )));
        }
        let context = model.info().context;
        if tokens.len() > context {
            return Err(Error::ContextOverflow(format!(
                "the prompt has {} tokens, but the context has room for {context}; shorten the prompt or load the model with a larger context",
                tokens.len()
            )));
        }
        let mut sampler_options = options.sampler.clone();
        if options.ignore_eos {
            let ends = (0..vocabulary as u32).filter(|&id| tokenizer.is_end_of_generation(id));
            sampler_options.logit_bias.extend(ends.map(|id| (id, f32::NEG_INFINITY)));
        }
        let mut sampler = Sampler::new(&sampler_options, vocabulary)?;
        tokens.iter().for_each(|&token| sampler.accept(token));
        // The answer continues the prompt: its first token is not at the start of a text, where SPM drops a space.
        let detokenizer = Detokenizer::new(TokenizerOf(model.clone()), options.special, false);
        let sequence = kept.map(|kept| kept.cut(model, &tokens));
        Ok(Request {
            state: State::Waiting,
            prompt_tokens: tokens.len(),
            cached_tokens: sequence.as_ref().map_or(0, Sequence::len),
            limit: options.max_tokens.map_or(context, |max| context.min(tokens.len().saturating_add(max))),
            keep: sequence.is_some(),
            tokens,
            sequence,
            logits: Vec::new(),
            sampler,
            detokenizer,
            stop: StopMatcher::new(&options.stop)?,
            text: String::new(),
            timings: Timings::default(),
        })
    }

    /// Computes a kept prompt up to the end of its last message, and a snapshot there: what a template puts behind it to begin the answer
    /// is often another thing in the next prompt, and a recurrent state cannot go back without one. Other models compute all at once.
    pub(super) fn compute_history(&mut self, model: &Model, interrupt: &dyn Interrupt) -> Result<()> {
        let Some(sequence) = self.sequence.as_mut().filter(|_| self.keep && model.spec().state_len > 0) else {
            return Ok(());
        };
        let prompt = &self.tokens[..self.prompt_tokens];
        let ends = |token: &u32| model.tokenizer().is_end_of_generation(*token);
        // The last token gives the logits: a prompt that comes again needs a state before it.
        let history = prompt[..prompt.len() - 1].iter().rposition(ends).map_or(prompt.len() - 1, |last| last + 1);
        if sequence.len() >= history {
            return Ok(());
        }
        let tokens = &prompt[sequence.len()..history];
        let computed = tokens.len();
        let item = BatchItem { sequence, tokens, logits: Logits::None, out: &mut self.logits };
        model.forward(&mut [item], interrupt)?;
        sequence.snapshot();
        self.timings.prefill_tokens += computed;
        Ok(())
    }

    /// The only piece of a request that has no room for an answer.
    pub(super) fn finish_at_once(&mut self, index: usize) -> Option<Piece> {
        let none = self.tokens.len() >= self.limit;
        none.then(|| Piece {
            index,
            token: None,
            text: self.finish(FinishReason::Length),
            finish: Some(FinishReason::Length),
        })
    }

    /// Takes the token that was chosen.
    ///
    /// # Errors
    /// [`Error::Argument`] when the output matrix has more rows than the vocabulary has tokens and one of those was chosen.
    pub(super) fn advance(&mut self, model: &Model, index: usize, token: u32) -> Result<Piece> {
        if model.tokenizer().is_end_of_generation(token) {
            let text = self.finish(FinishReason::Stop);
            return Ok(Piece { index, token: None, text, finish: Some(FinishReason::Stop) });
        }
        let decoded = self.detokenizer.push(token)?;
        self.tokens.push(token);
        self.sampler.accept(token);
        let mut text = self.stop.push(&decoded);
        self.text.push_str(&text);
        let finish = if self.stop.stopped() {
            Some(FinishReason::Stop)
        } else if self.tokens.len() >= self.limit {
            Some(FinishReason::Length)
        } else {
            None
        };
        match finish {
            Some(reason) => text.push_str(&self.finish(reason)),
            None => self.state = State::Running,
        }
        Ok(Piece { index, token: Some(token), text, finish })
    }

    /// Ends the answer; gives the text that was held back.
    pub(super) fn finish(&mut self, reason: FinishReason) -> String {
        // After a stop string the rest of a character is not part of the answer, which `push` knows.
        let mut text = self.stop.push(&self.detokenizer.finish());
        text.push_str(&self.stop.finish());
        self.text.push_str(&text);
        self.state = State::Finished(reason);
        self.logits = Vec::new();
        if !self.keep {
            self.sequence = None;
        }
        text
    }

    /// Gives up the pages of the KV cache and waits to be computed again.
    pub(super) fn release(&mut self) {
        self.sequence = None;
        self.state = State::Waiting;
    }

    pub(super) fn completion(&self) -> Option<Completion> {
        let State::Finished(finish_reason) = self.state else { return None };
        Some(Completion {
            text: self.text.clone(),
            tokens: self.tokens[self.prompt_tokens..].to_vec(),
            finish_reason,
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            timings: self.timings,
        })
    }

    pub(super) fn take_kept(&mut self) -> Option<Kept> {
        matches!(self.state, State::Finished(_)).then_some(())?;
        let sequence = self.sequence.take()?;
        Some(Kept { sequence, tokens: self.tokens.clone() })
    }
}
