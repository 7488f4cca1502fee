//! A conversation to be answered, whichever endpoint it came by: `/v1/chat/completions` or `/v1/responses`.

use std::sync::Arc;

use fastq_core::chat::{ChatDelta, ChatFormat, ChatParser};
use fastq_core::generate::prompt_tokens;
use fastq_core::{Completion, GenerationOptions, Interrupt, Model, Piece, Prompt};
use serde_json::{Map, Value, json};

use super::error::ApiResult;
use super::job::{self, Event, Requests};
use super::state::Server;
use super::stream::{Events, Gone};
use super::structured::Format;
use super::tools::Tools;
use super::{logprobs, sampling, structured};

/// What is to be answered, and what the answer must be.
pub(super) struct Conversation {
    /// In OpenAI's shape.
    pub(super) messages: Vec<Value>,
    /// The functions that may be called.
    pub(super) tools: Tools,
    /// What the answer must match.
    pub(super) format: Option<Format>,
    /// How many alternatives of each token to tell.
    pub(super) logprobs: Option<usize>,
    /// Further variables of the template.
    pub(super) template: Map<String, Value>,
}

impl Conversation {
    /// The requests of `answers` answers, and what takes each of them apart.
    fn prepare(
        &self,
        model: &Model,
        format: &ChatFormat,
        options: &GenerationOptions,
        answers: usize,
        interrupt: &dyn Interrupt,
    ) -> ApiResult<(Requests, Vec<Answer>)> {
        let tools = &self.tools.list;
        let tokens = prompt_tokens(model, format, &self.messages, tools, &self.template, interrupt)?;
        let prompt = model.tokenizer().decode(&tokens, true)?;
        let mut options = GenerationOptions {
            logprobs: self.logprobs,
            special: format.special(!tools.is_empty()),
            ..options.clone()
        };
        structured::constrain(&mut options, model, format, &prompt, self.format.as_ref(), &self.tools)?;
        let requests = sampling::each(&options, answers).into_iter();
        let requests = requests.map(|options| (Prompt::Tokens(tokens.clone()), options)).collect();
        let logprobs = self.logprobs.map(|_| Vec::new());
        let answer = |_| Answer { parser: format.parser_for(&prompt, tools), logprobs: logprobs.clone() };
        Ok((requests, (0..answers).map(answer).collect()))
    }
}

/// An answer as far as it came.
pub(super) struct Answer {
    parser: ChatParser,
    /// Of its tokens, when they were asked for.
    logprobs: Option<Vec<Value>>,
}

impl Answer {
    /// As a message of the assistant.
    pub(super) fn message(&self) -> Value {
        let mut message = self.parser.message();
        message["refusal"] = Value::Null;
        message
    }

    /// Whether it calls tools.
    pub(super) fn calls_tools(&self) -> bool {
        self.parser.has_calls()
    }

    /// Log-probabilities of all tokens, when they were asked for.
    pub(super) fn logprobs(&self) -> Value {
        self.logprobs.as_ref().map(|tokens| json!({ "content": tokens, "refusal": null })).unwrap_or_default()
    }
}

/// Answers under way; dropped, they stop.
pub(super) struct Running {
    job: job::Running,
    /// For the texts of tokens.
    model: Model,
    answers: Vec<Answer>,
}

/// Waits for a place and begins `answers` answers.
///
/// # Errors
/// Those of [`job::start`].
pub(super) async fn start(
    server: &Arc<Server>,
    conversation: Conversation,
    options: &GenerationOptions,
    answers: usize,
) -> ApiResult<Running> {
    let (options, format) = (options.clone(), server.format.clone());
    let prepare = move |model: &Model, interrupt: &dyn Interrupt| {
        conversation.prepare(model, &format, &options, answers, interrupt)
    };
    let (job, answers) = job::start(server, prepare).await?;
    Ok(Running { job, model: server.model.clone(), answers })
}

impl Running {
    /// Number of answers.
    pub(super) fn answers(&self) -> usize {
        self.answers.len()
    }

    /// One of them.
    pub(super) fn answer(&self, index: usize) -> &Answer {
        &self.answers[index]
    }

    /// The next event, unless the client of `events` goes before it comes.
    ///
    /// # Errors
    /// [`Gone`].
    pub(super) async fn next(&mut self, events: &Events) -> Result<Event, Gone> {
        events.next(&mut self.job).await
    }

    /// Takes a piece: what came of it, and the log-probabilities that belong to it.
    pub(super) fn push(&mut self, piece: &Piece) -> (Vec<ChatDelta>, Option<Value>) {
        let answer = &mut self.answers[piece.index];
        let logprobs = piece.logprobs.as_ref().map(|logprobs| logprobs::token(self.model.tokenizer(), logprobs));
        if let (Some(tokens), Some(token)) = (&mut answer.logprobs, &logprobs) {
            tokens.push(token.clone());
        }
        (answer.parser.push(&piece.text), logprobs)
    }

    /// What an answer held back, when it is over.
    pub(super) fn end(&mut self, index: usize) -> Vec<ChatDelta> {
        self.answers[index].parser.finish()
    }

    /// Waits for the end; what came of each piece goes to `take`, with the number of its answer and the log-probabilities that belong to it.
    ///
    /// # Errors
    /// What ended it early.
    pub(super) async fn finish(
        mut self,
        mut take: impl FnMut(usize, Vec<ChatDelta>, Option<Value>),
    ) -> ApiResult<(Vec<Answer>, Vec<Completion>)> {
        loop {
            match self.job.next().await {
                Event::Started => {}
                Event::Piece(piece) => {
                    let (deltas, logprobs) = self.push(&piece);
                    take(piece.index, deltas, logprobs);
                }
                Event::Done(completions) => {
                    for index in 0..self.answers.len() {
                        let deltas = self.end(index);
                        take(index, deltas, None);
                    }
                    return Ok((self.answers, completions));
                }
                Event::Failed(error) => return Err(error),
            }
        }
    }
}
