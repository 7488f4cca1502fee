//! A conversation to be answered, whichever endpoint it came by: `/v1/chat/completions` or `/v1/responses`.

use std::sync::Arc;

use fastq_core::generate::chat_tokens;
use fastq_core::{Completion, GenerationOptions, Interrupt, Model, Piece, Prompt};
use serde_json::{Map, Value, json};

use super::error::{ApiError, ApiResult};
use super::job::{self, Event};
use super::logprobs;
use super::sampling;
use super::state::Server;
use super::stream::{Events, Gone};
use super::tools::{Delta, Tools};

/// What is to be answered, and what the answer must be.
pub(super) struct Conversation {
    /// As templates read them.
    pub(super) messages: Vec<Value>,
    /// The functions that may be called.
    pub(super) tools: Option<Tools>,
    /// What the answer must match.
    pub(super) schema: Option<Value>,
    /// How many alternatives of each token to tell.
    pub(super) logprobs: Option<usize>,
    /// Further variables of the template.
    pub(super) template: Map<String, Value>,
}

impl Conversation {
    /// The prompt, and the options of all answers.
    fn prepare(
        &self,
        model: &Model,
        options: &GenerationOptions,
        interrupt: &dyn Interrupt,
    ) -> ApiResult<(Prompt, GenerationOptions)> {
        let unsupported = |param: &str| {
            Err(ApiError::field(param, format!("{param} is not supported by this version of fastq serve")))
        };
        if self.tools.is_some() {
            return unsupported("tools");
        }
        if self.schema.is_some() {
            return unsupported("response_format");
        }
        let tokens = chat_tokens(model, &self.messages, None, &self.template, interrupt)?;
        Ok((Prompt::Tokens(tokens), GenerationOptions { logprobs: self.logprobs, ..options.clone() }))
    }
}

/// An answer as far as it came.
#[derive(Default)]
pub(super) struct Answer {
    content: String,
    /// Of its tokens, when they were asked for.
    logprobs: Option<Vec<Value>>,
}

impl Answer {
    fn push(&mut self, text: &str) -> Vec<Delta> {
        if text.is_empty() {
            return Vec::new();
        }
        self.content += text;
        vec![Delta::Content(text.to_owned())]
    }

    /// As a message of the assistant.
    pub(super) fn message(&self) -> Value {
        json!({ "role": "assistant", "content": self.content, "refusal": null })
    }

    /// As items of a response; `id` is that of the message.
    pub(super) fn items(&self, id: &str, status: &str) -> Vec<Value> {
        let mut part = json!({ "type": "output_text", "text": self.content, "annotations": [] });
        if let Some(logprobs) = &self.logprobs {
            part["logprobs"] = logprobs.as_slice().into();
        }
        let content = [part];
        vec![json!({ "id": id, "type": "message", "role": "assistant", "status": status, "content": content })]
    }

    /// Whether it calls tools.
    pub(super) fn calls_tools(&self) -> bool {
        false
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
    let (options, logprobs) = (options.clone(), conversation.logprobs.map(|_| Vec::new()));
    let prepare = move |model: &Model, interrupt: &dyn Interrupt| {
        let (prompt, options) = conversation.prepare(model, &options, interrupt)?;
        Ok(sampling::each(&options, answers).into_iter().map(|options| (prompt.clone(), options)).collect())
    };
    let job = job::start(server, prepare).await?;
    let answer = |_| Answer { logprobs: logprobs.clone(), ..Answer::default() };
    Ok(Running { job, model: server.model.clone(), answers: (0..answers).map(answer).collect() })
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
    pub(super) fn push(&mut self, piece: &Piece) -> (Vec<Delta>, Option<Value>) {
        let answer = &mut self.answers[piece.index];
        let logprobs = piece.logprobs.as_ref().map(|logprobs| logprobs::token(self.model.tokenizer(), logprobs));
        if let (Some(tokens), Some(token)) = (&mut answer.logprobs, &logprobs) {
            tokens.push(token.clone());
        }
        (answer.push(&piece.text), logprobs)
    }

    /// What an answer held back, when it is over.
    pub(super) fn end(&mut self, _index: usize) -> Vec<Delta> {
        Vec::new()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// What ended it early.
    pub(super) async fn finish(mut self) -> ApiResult<(Vec<Answer>, Vec<Completion>)> {
        loop {
            match self.job.next().await {
                Event::Started => {}
                Event::Piece(piece) => drop(self.push(&piece)),
                Event::Done(completions) => {
                    for index in 0..self.answers.len() {
                        self.end(index);
                    }
                    return Ok((self.answers, completions));
                }
                Event::Failed(error) => return Err(error),
            }
        }
    }
}
