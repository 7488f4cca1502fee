//! `POST /v1/completions`: texts continued as they are.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use fastq_core::tokenizer::Tokenizer;
use fastq_core::{Completion, GenerationOptions, Model, Prompt};
use serde_json::{Value, json};

use super::{FINGERPRINT, Usage, finish_reason, timings};
use crate::serve::body::Json;
use crate::serve::error::{ApiResult, ok};
use crate::serve::fields::Fields;
use crate::serve::job::{self, Event, Running};
use crate::serve::logprobs::{self, TextLogprobs};
use crate::serve::sampling::{self, MAX_ANSWERS, MAX_TOKENS};
use crate::serve::state::{Server, now};
use crate::serve::stream::{self, Events, Gone};
use crate::serve::structured::{self, Format};
use crate::serve::tokens;

/// OpenAI's default.
const DEFAULT_MAX_TOKENS: usize = 16;

/// A request that was understood.
struct Call {
    prompts: Vec<Prompt>,
    /// Texts that the answers begin with.
    echo: Vec<String>,
    options: GenerationOptions,
    format: Option<Format>,
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
    options.logprobs = logprobs::of_text(&fields)?;
    let stream = sampling::stream(&fields)?;
    let text = |prompt: &Prompt| match prompt {
        Prompt::Text(text) => Ok(text.clone()),
        Prompt::Tokens(tokens) => Ok(server.model.tokenizer().decode(tokens, true)?),
    };
    let echo = match fields.boolean("echo")? {
        Some(true) => prompts.iter().map(text).collect::<ApiResult<_>>()?,
        _ => vec![String::new(); prompts.len()],
    };
    if fields.boolean("echo")? == Some(true) {
        options.prompt_logprobs = options.logprobs;
        if options.logprobs.is_some() && stream.is_some() {
            return Err(fields.wrong("echo", "false for a stream with logprobs"));
        }
    }
    Ok(Call { prompts, echo, options, format: structured::format(&fields)?, answers, stream })
}

/// Answers the request.
///
/// # Errors
/// 400 for what is wrong with it, 429 and 503 when there is no place.
pub(in crate::serve) async fn create(State(server): State<Arc<Server>>, Json(body): Json) -> ApiResult<Response> {
    let Call { prompts, echo, mut options, format, answers, stream } = call(&server, &body)?;
    drop(body);
    let head = Head {
        id: server.id("cmpl-"),
        created: now(),
        model: server.name.clone(),
        engine: server.model.clone(),
        echo,
        answers,
    };
    let (mut running, ()) = job::start(&server, move |model, _| {
        options.grammar = format.as_ref().map(|format| structured::grammar(model, format)).transpose()?;
        let each = |prompt: Prompt| sampling::each(&options, answers).into_iter().map(move |o| (prompt.clone(), o));
        Ok((prompts.into_iter().flat_map(each).collect(), ()))
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
        let prompt = &head.echo[index / answers];
        let logprobs = logprobs_of(server.model.tokenizer(), prompt, completion);
        choice(index, &format!("{prompt}{}", completion.text), logprobs, Some(finish_reason(completion.finish_reason)))
    });
    let mut response = head.json(choices.collect());
    response["usage"] = Usage::of(&completions, answers).json();
    response["timings"] = completions.first().map(timings).unwrap_or_default();
    Ok(ok(&response))
}

fn choice(index: usize, text: &str, logprobs: Value, finish: Option<&str>) -> Value {
    json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": finish })
}

/// Of a whole answer, and of its prompt where that is part of the text. A beginning token is no part of it.
fn logprobs_of(tokenizer: &Tokenizer, prompt: &str, completion: &Completion) -> Value {
    let Some(tokens) = &completion.logprobs else { return Value::Null };
    let mut lists = TextLogprobs::default();
    let known = completion.prompt_logprobs.as_deref().unwrap_or_default();
    if !known.is_empty() {
        let first = logprobs::first_text(tokenizer, prompt, known);
        if !first.is_empty() {
            lists.push_text(first);
        }
    }
    known.iter().flatten().chain(tokens).for_each(|token| lists.push(tokenizer, token));
    lists.take()
}

/// What all parts of an answer begin with.
struct Head {
    id: String,
    created: u64,
    model: String,
    /// For the texts of tokens.
    engine: Model,
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
                events.data(&part(choice(index, text, Value::Null, None))).await?;
            }
        }
        let begin = |index: usize| TextLogprobs::after(self.echo[index / self.answers].chars().count());
        let mut lists: Vec<TextLogprobs> = (0..self.echo.len() * self.answers).map(begin).collect();
        loop {
            match events.next(running).await? {
                Event::Started => {}
                Event::Piece(piece) => {
                    let logprobs = piece.logprobs.as_ref().map(|logprobs| {
                        let list = &mut lists[piece.index];
                        list.push(self.engine.tokenizer(), logprobs);
                        list.take()
                    });
                    if !piece.text.is_empty() || piece.finish.is_some() || logprobs.is_some() {
                        let finish = piece.finish.map(finish_reason);
                        let choice = choice(piece.index, &piece.text, logprobs.unwrap_or_default(), finish);
                        events.data(&part(choice)).await?;
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
