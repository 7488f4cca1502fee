//! `POST /v1/completions`: texts continued as they are.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use fastq_core::{GenerationOptions, Prompt};
use serde_json::{Value, json};

use super::{FINGERPRINT, Usage, finish_reason, timings};
use crate::serve::body::read_json;
use crate::serve::error::{ApiError, ApiResult, ok};
use crate::serve::fields::Fields;
use crate::serve::job::{self, Event, Running};
use crate::serve::sampling::{self, MAX_ANSWERS, MAX_TOKENS};
use crate::serve::state::{Server, now};
use crate::serve::stream::{self, Events, Gone};
use crate::serve::{logprobs, tokens};

/// OpenAI's default.
const DEFAULT_MAX_TOKENS: usize = 16;

/// A request that was understood.
struct Call {
    prompts: Vec<Prompt>,
    /// Texts that the answers begin with.
    echo: Vec<String>,
    options: GenerationOptions,
    /// Number of answers of each prompt.
    answers: usize,
    /// `Some(usage wanted)` for a stream.
    stream: Option<bool>,
}

fn call(server: &Server, body: &Value) -> ApiResult<Call> {
    let fields = Fields::of(body, "")?;
    fields.text("model")?;
    let mut options = sampling::options(&fields, server.model.vocabulary())?;
    // None at all is of use, too: the usage then tells the length of the prompt.
    options.max_tokens = Some(fields.count("max_tokens", 0..=MAX_TOKENS)?.unwrap_or(DEFAULT_MAX_TOKENS));
    let prompts = tokens::prompts(&fields, "prompt", server.model.vocabulary())?;
    let answers = fields.count("n", 1..=MAX_ANSWERS as u64)?.unwrap_or(1);
    if prompts.len() * answers > MAX_ANSWERS {
        return Err(fields.wrong("prompt", &format!("a list for which prompts times n are at most {MAX_ANSWERS}")));
    }
    if fields.count("best_of", 1..=MAX_ANSWERS as u64)?.is_some_and(|best_of| best_of != answers) {
        return Err(fields.wrong("best_of", "the same as n, or left out"));
    }
    if fields.text("suffix")?.is_some_and(|suffix| !suffix.is_empty()) {
        return Err(fields.wrong("suffix", "left out: fastq does not fill in"));
    }
    if logprobs::of_text(&fields)?.is_some() {
        return Err(ApiError::field("logprobs", "logprobs is not supported by this version of fastq serve"));
    }
    let text = |prompt: &Prompt| match prompt {
        Prompt::Text(text) => Ok(text.clone()),
        Prompt::Tokens(tokens) => Ok(server.model.tokenizer().decode(tokens, true)?),
    };
    let echo = match fields.boolean("echo")? {
        Some(true) => prompts.iter().map(text).collect::<ApiResult<_>>()?,
        _ => vec![String::new(); prompts.len()],
    };
    Ok(Call { prompts, echo, options, answers, stream: sampling::stream(&fields)? })
}

/// Answers the request.
///
/// # Errors
/// 400 for what is wrong with it, 429 and 503 when there is no place.
pub(in crate::serve) async fn create(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    let body = read_json(&headers, body, server.limits()).await?;
    let Call { prompts, echo, options, answers, stream } = call(&server, &body)?;
    drop(body);
    let head = Head { id: server.id("cmpl-"), created: now(), model: server.name.clone(), echo, answers };
    let mut running = job::start(&server, move |_, _| {
        let each = |prompt: Prompt| sampling::each(&options, answers).into_iter().map(move |o| (prompt.clone(), o));
        Ok(prompts.into_iter().flat_map(each).collect())
    })
    .await?;
    if let Some(usage) = stream {
        return Ok(stream::response(async move |events| {
            let result = head.stream(&events, &mut running, usage).await;
            drop(running);
            result
        }));
    }
    let completions = running.finish().await?;
    let choices = completions.iter().enumerate().map(|(index, completion)| {
        let text = format!("{}{}", head.echo[index / answers], completion.text);
        choice(index, &text, Some(finish_reason(completion.finish_reason)))
    });
    let mut response = head.json(choices.collect());
    response["usage"] = Usage::of(&completions, answers).json();
    response["timings"] = completions.first().map(timings).unwrap_or_default();
    Ok(ok(&response))
}

fn choice(index: usize, text: &str, finish: Option<&str>) -> Value {
    json!({ "index": index, "text": text, "logprobs": null, "finish_reason": finish })
}

/// What all parts of an answer begin with.
struct Head {
    id: String,
    created: u64,
    model: String,
    echo: Vec<String>,
    answers: usize,
}

impl Head {
    fn json(&self, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
            "choices": choices,
        })
    }

    async fn stream(&self, events: &Events, running: &mut Running, usage: bool) -> Result<(), Gone> {
        let part = |choice: Value| {
            let mut part = self.json(vec![choice]);
            if usage {
                part["usage"] = Value::Null;
            }
            part
        };
        for index in 0..self.echo.len() * self.answers {
            let text = &self.echo[index / self.answers];
            if !text.is_empty() {
                events.data(&part(choice(index, text, None))).await?;
            }
        }
        loop {
            match events.next(running).await? {
                Event::Started => {}
                Event::Piece(piece) => {
                    if !piece.text.is_empty() || piece.finish.is_some() {
                        let finish = piece.finish.map(finish_reason);
                        events.data(&part(choice(piece.index, &piece.text, finish))).await?;
                    }
                }
                Event::Done(completions) => {
                    if usage {
                        let mut last = self.json(Vec::new());
                        last["usage"] = Usage::of(&completions, self.answers).json();
                        events.data(&last).await?;
                    }
                    return events.done().await;
                }
                Event::Failed(error) => {
                    events.data(&error.json()).await?;
                    return events.done().await;
                }
            }
        }
    }
}
