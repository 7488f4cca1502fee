//! One prompt and its answer.

use std::ops::{Deref, Range};
use std::sync::Arc;

use super::overflow::{Overflow, drop_middle, shifted};
use super::speculate::Drafter;
use super::stop::StopMatcher;
use super::{Completion, FinishReason, GenerationOptions, Piece, Prompt, Timings};
use crate::grammar::{Grammar, Matcher};
use crate::sampler::{BannedStrings, DryBreakers, LogitsProcessor, Sampler, TokenLogprobs, process};
use crate::session::PromptCache;
use crate::tokenizer::{Detokenizer, Tokenizer};
use crate::{Error, Interrupt, Model, Result, Sequence};

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
pub(crate) enum State {
    /// Its sequence lacks more than the last token: the prompt, or, after it had to give up its pages, prompt and answer.
    Waiting,
    /// Its sequence lacks the last token.
    Running,
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
    /// An empty sequence.
    pub fn new(model: &Model) -> Kept {
        Kept { sequence: model.new_sequence(), tokens: Vec::new() }
    }

    /// A sequence and the tokens that were computed for it.
    ///
    /// # Panics
    /// When there are fewer tokens than positions.
    pub(crate) fn from_parts(sequence: Sequence, tokens: Vec<u32>) -> Kept {
        assert!(tokens.len() >= sequence.len(), "{} tokens for {} positions", tokens.len(), sequence.len());
        Kept { sequence, tokens }
    }

    /// The tokens whose keys and values are kept.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens[..self.sequence.len()]
    }

    /// Their keys and values.
    pub fn sequence(&self) -> &Sequence {
        &self.sequence
    }

    /// A second one with the same content; memory is shared until one of them goes on.
    pub fn fork(&self) -> Kept {
        Kept { sequence: self.sequence.fork(), tokens: self.tokens.clone() }
    }

    /// Cuts the sequence to what it has in common with `prompt`. The last token of the prompt stays out: computing it gives
    /// the logits.
    pub(crate) fn cut(mut self, model: &Model, prompt: &[u32]) -> Sequence {
        let common = common(self.tokens(), prompt);
        // Layers with a state may have to go back further. Those with a sliding window may no longer have what lies before `common`; then
        // all is computed again.
        match self.sequence.truncate(common) {
            Ok(_) => self.sequence,
            Err(_) => model.new_sequence(),
        }
    }
}

/// The sequence of a prompt, or what the prompt cache on disk has of it, where that is much more than is known in memory.
fn stored(
    model: &Model,
    cache: &PromptCache,
    tokens: &[u32],
    sequence: Option<Sequence>,
    interrupt: &dyn Interrupt,
) -> Result<Sequence> {
    let sequence = sequence.unwrap_or_else(|| model.new_sequence());
    let known = sequence.len().max(model.scheduler().known(tokens));
    if known >= tokens.len() / 2 {
        return Ok(sequence);
    }
    Ok(match cache.find(model, tokens, interrupt)? {
        Some(kept) => Some(kept.cut(model, tokens)).filter(|found| found.len() > known).unwrap_or(sequence),
        None => sequence,
    })
}

/// How many first tokens of `prompt` an older sequence can give it: never the last one, whose logits are wanted.
pub(crate) fn common(tokens: &[u32], prompt: &[u32]) -> usize {
    let limit = prompt.len().saturating_sub(1);
    tokens.iter().zip(&prompt[..limit]).take_while(|(a, b)| a == b).count()
}

/// One prompt and its answer.
pub(crate) struct Request {
    pub(crate) state: State,
    /// What the sequence holds when all is computed: prompt and answer so far, without what an overflow dropped.
    pub(crate) tokens: Vec<u32>,
    /// The answer so far.
    answer: Vec<u32>,
    prompt_tokens: usize,
    cached_tokens: usize,
    dropped_tokens: usize,
    /// How many tokens at the beginning an overflow leaves alone.
    pub(crate) head: usize,
    overflow: Overflow,
    /// The most tokens of the answer, and of all that is in the sequence.
    max_tokens: usize,
    context: usize,
    pub(crate) sequence: Option<Sequence>,
    /// The sequence belongs to a conversation of the caller, who takes it back.
    pub(crate) kept: bool,
    /// Whether the beginning may come from the answers to others, and go to them.
    pub(crate) reuse: bool,
    /// Length of the prompt up to the end of its last message: what the next prompt of a conversation is likely to begin with.
    pub(crate) history: usize,
    pub(crate) logits: Vec<f32>,
    sampler: Sampler,
    pub(crate) matcher: Option<Matcher>,
    banned: Option<BannedStrings>,
    processors: Vec<Arc<dyn LogitsProcessor>>,
    /// Alternatives of each log-probability, where they are asked for, and those of the answer so far.
    logprobs: Option<(usize, Vec<TokenLogprobs>)>,
    /// The same of the prompt.
    prompt_logprobs: Option<(usize, Vec<Option<TokenLogprobs>>)>,
    pub(crate) drafter: Option<Drafter>,
    /// Tokens that were guessed ahead, and how many of them came true.
    pub(crate) drafted: usize,
    pub(crate) accepted: usize,
    detokenizer: Detokenizer<TokenizerOf>,
    stop: StopMatcher,
    text: String,
    pub(crate) timings: Timings,
}

impl Request {
    pub(crate) fn new(
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
        let max_tokens = options.max_tokens.unwrap_or(usize::MAX);
        let ends = |token: &u32| tokenizer.is_end_of_generation(*token);
        let head = tokens.iter().position(ends).map_or(1, |end| end + 1);
        let prompt_tokens = tokens.len();
        if tokens.len() > context || (tokens.len() == context && options.overflow != Overflow::Error) {
            match options.overflow {
                Overflow::Error => {
                    return Err(Error::ContextOverflow(format!(
                        "the prompt has {prompt_tokens} tokens, but the context has room for {context}; shorten the prompt, load the model with a larger context, or choose another overflow"
                    )));
                }
                Overflow::Shift => tokens = shifted(&tokens, head, context),
                Overflow::TruncateMiddle => tokens = drop_middle(&tokens, context, max_tokens),
            }
        }
        let mut sampler_options = options.sampler.clone();
        if options.ignore_eos {
            let ends = (0..vocabulary as u32).filter(|&id| tokenizer.is_end_of_generation(id));
            sampler_options.logit_bias.extend(ends.map(|id| (id, f32::NEG_INFINITY)));
        }
        let breakers = DryBreakers::of(&sampler_options, tokenizer)?;
        let mut sampler = Sampler::with_breakers(&sampler_options, vocabulary, &breakers)?;
        tokens.iter().for_each(|&token| sampler.accept(token));
        // The answer continues the prompt: its first token is not at the start of a text, where SPM drops a space.
        let detokenizer = Detokenizer::new(TokenizerOf(model.clone()), options.special, false);
        let is_kept = kept.is_some();
        let reuse = options.reuse && options.prompt_logprobs.is_none();
        let sequence = match kept {
            Some(kept) if options.prompt_logprobs.is_none() => Some(kept.cut(model, &tokens)),
            Some(_) => Some(model.new_sequence()),
            None => None,
        };
        let sequence = match model.prompt_cache().filter(|_| reuse) {
            Some(cache) => Some(stored(model, cache, &tokens, sequence, interrupt)?),
            None => sequence,
        };
        let banned = match &options.banned[..] {
            [] => None,
            strings => Some(BannedStrings::new(tokenizer, strings, options.special)?),
        };
        for (name, top) in [("logprobs", options.logprobs), ("prompt_logprobs", options.prompt_logprobs)] {
            top.map_or(Ok(()), |top| TokenLogprobs::check(name, top))?;
        }
        // The last token gives the logits: a prompt that comes again needs a state before it.
        let last = tokens.len() - 1;
        let history = tokens[..last].iter().rposition(ends).map_or(last, |at| at + 1);
        let drafter = match &options.speculate {
            Some(speculation) => Some(Drafter::new(speculation, model, &sampler_options)?),
            None => None,
        };
        Ok(Request {
            state: State::Waiting,
            answer: Vec::new(),
            prompt_tokens,
            cached_tokens: sequence.as_ref().map_or(0, Sequence::len),
            dropped_tokens: prompt_tokens - tokens.len(),
            head,
            overflow: options.overflow,
            max_tokens,
            context,
            kept: is_kept,
            reuse,
            matcher: options.grammar.as_ref().map(Grammar::matcher),
            banned,
            processors: options.processors.clone(),
            logprobs: options.logprobs.map(|top| (top, Vec::new())),
            prompt_logprobs: options.prompt_logprobs.map(|top| (top, vec![None])),
            history,
            tokens,
            sequence,
            logits: Vec::new(),
            sampler,
            drafter,
            drafted: 0,
            accepted: 0,
            detokenizer,
            stop: StopMatcher::new(&options.stop)?,
            text: String::new(),
            timings: Timings::default(),
        })
    }

    /// Number of tokens before the next one of the answer, dropped ones counted: what a draw depends on.
    pub(crate) fn position(&self) -> usize {
        self.prompt_tokens + self.answer.len()
    }

    /// How many tokens may still come in one step.
    pub(crate) fn room(&self) -> usize {
        (self.max_tokens - self.answer.len()).min(self.context - self.tokens.len())
    }

    /// What the sequence lacks of the first `end` tokens.
    pub(crate) fn missing_until(&self, end: usize) -> Range<usize> {
        self.sequence.as_ref().map_or(0, Sequence::len)..end
    }

    /// Goes on from the beginning of a text that was computed for another one.
    pub(crate) fn begin(&mut self, sequence: Sequence) {
        if self.answer.is_empty() {
            self.cached_tokens = sequence.len();
        }
        self.sequence = Some(sequence);
    }

    /// Forgets what was computed behind the first `len` tokens: guesses that did not come true.
    pub(crate) fn cut(&mut self, len: usize) {
        if let Some(sequence) = self.sequence.as_mut().filter(|sequence| sequence.len() > len)
            && sequence.truncate(len).is_err()
        {
            self.sequence = None;
            if !self.finished() {
                self.state = State::Waiting;
            }
        }
    }

    /// The only piece of a request that has no room for an answer.
    pub(crate) fn finish_at_once(&mut self, index: usize) -> Option<Piece> {
        let none = self.room() == 0;
        none.then(|| Piece {
            index,
            token: None,
            logprobs: None,
            text: self.finish(FinishReason::Length),
            finish: Some(FinishReason::Length),
        })
    }

    /// Whether the logits of every token of the prompt are wanted.
    pub(crate) fn scores_prompt(&self) -> bool {
        self.prompt_logprobs
            .as_ref()
            .is_some_and(|(_, known)| known.len() < self.tokens.len() && self.answer.is_empty())
    }

    /// Takes rows of `logits`, the first of which is the one behind the token at `first`: how likely the tokens of the prompt were.
    pub(crate) fn score_prompt(&mut self, first: usize, logits: &[f32], vocabulary: usize) {
        let Some((top, known)) = &mut self.prompt_logprobs else { return };
        for (row, token) in logits.chunks_exact(vocabulary).zip(&self.tokens[first + 1..]) {
            known.push(Some(TokenLogprobs::of(row, *token, *top)));
        }
    }

    /// Chooses the next token by its `logits` (vocabulary), which are changed.
    ///
    /// # Errors
    /// As [`Sampler::sample`] and what a processor says.
    pub(crate) fn choose(&mut self, logits: &mut [f32]) -> Result<(u32, Option<TokenLogprobs>)> {
        // What is told is what the model said, not what became of it.
        let raw = self.logprobs.is_some().then(|| logits.to_vec());
        process(&self.processors, &self.tokens, logits)?;
        if let Some(banned) = &self.banned {
            banned.mask(logits);
        }
        if let Some(matcher) = &mut self.matcher {
            matcher.mask(logits)?;
        }
        let token = self.sampler.sample(logits, self.position())?;
        let logprobs = match (&self.logprobs, raw) {
            (Some((top, _)), Some(raw)) => Some(TokenLogprobs::of(&raw, token, *top)),
            _ => None,
        };
        Ok((token, logprobs))
    }

    /// Takes the token that was chosen.
    ///
    /// # Errors
    /// [`Error::Argument`] when the output matrix has more rows than the vocabulary has tokens and one of those was chosen.
    pub(crate) fn advance(
        &mut self,
        model: &Model,
        index: usize,
        (token, logprobs): (u32, Option<TokenLogprobs>),
    ) -> Result<Piece> {
        if let Some(matcher) = &mut self.matcher {
            matcher.accept(token)?;
        }
        if model.tokenizer().is_end_of_generation(token) {
            let text = self.finish(FinishReason::Stop);
            return Ok(Piece { index, token: None, logprobs: None, text, finish: Some(FinishReason::Stop) });
        }
        let decoded = self.detokenizer.push(token)?;
        self.tokens.push(token);
        self.answer.push(token);
        self.sampler.accept(token);
        if let Some(banned) = &mut self.banned {
            banned.accept(token);
        }
        if let (Some((_, all)), Some(one)) = (&mut self.logprobs, &logprobs) {
            all.push(one.clone());
        }
        let mut text = self.stop.push(&decoded);
        self.text.push_str(&text);
        let full = self.tokens.len() >= self.context;
        let finish = if self.stop.stopped() || self.matcher.as_ref().is_some_and(Matcher::finished) {
            Some(FinishReason::Stop)
        } else if self.answer.len() >= self.max_tokens || (full && self.overflow != Overflow::Shift) {
            Some(FinishReason::Length)
        } else {
            None
        };
        match finish {
            Some(reason) => text.push_str(&self.finish(reason)),
            None if full => self.shift(model),
            None => self.state = State::Running,
        }
        Ok(Piece { index, token: Some(token), logprobs, text, finish })
    }

    /// Drops the oldest tokens behind the head. The rest is computed again at its new positions: keys hold their positions, and turning them
    /// would give other bits than a prompt of these tokens.
    fn shift(&mut self, model: &Model) {
        let tokens = shifted(&self.tokens, self.head, self.context);
        let same = common(&self.tokens, &tokens).min(self.sequence.as_ref().map_or(0, Sequence::len));
        self.dropped_tokens += self.tokens.len() - tokens.len();
        self.tokens = tokens;
        match self.sequence.as_mut().map(|sequence| sequence.truncate(same)) {
            Some(Ok(_)) => {}
            _ => self.sequence = self.kept.then(|| model.new_sequence()),
        }
        if let Some(drafter) = &mut self.drafter {
            drafter.forget();
        }
        self.state = State::Waiting;
    }

    /// Ends the answer; gives the text that was held back.
    pub(crate) fn finish(&mut self, reason: FinishReason) -> String {
        // After a stop string the rest of a character is not part of the answer, which `push` knows.
        let mut text = self.stop.push(&self.detokenizer.finish());
        text.push_str(&self.stop.finish());
        self.text.push_str(&text);
        self.state = State::Finished(reason);
        self.logits = Vec::new();
        self.drafter = None;
        text
    }

    /// Gives up the pages of the KV cache and waits to be computed again.
    pub(crate) fn release(&mut self) {
        self.sequence = None;
        if let Some((_, known)) = self.prompt_logprobs.as_mut().filter(|_| self.answer.is_empty()) {
            known.truncate(1);
        }
        self.state = State::Waiting;
    }

    pub(crate) fn finished(&self) -> bool {
        matches!(self.state, State::Finished(_))
    }

    pub(crate) fn completion(&self) -> Option<Completion> {
        let State::Finished(finish_reason) = self.state else { return None };
        Some(Completion {
            text: self.text.clone(),
            tokens: self.answer.clone(),
            finish_reason,
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            dropped_tokens: self.dropped_tokens,
            timings: self.timings,
            logprobs: self.logprobs.as_ref().map(|(_, all)| all.clone()),
            prompt_logprobs: self.prompt_logprobs.as_ref().map(|(_, all)| all.clone()),
            drafted: self.drafted,
            accepted: self.accepted,
        })
    }

    pub(crate) fn take_kept(&mut self) -> Option<Kept> {
        (self.finished() && self.kept).then_some(())?;
        let sequence = self.sequence.take()?;
        Some(Kept { sequence, tokens: self.tokens.clone() })
    }
}
