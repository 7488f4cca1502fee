//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use fastq_core::chat::ChatDelta;
use fastq_core::{Completion, GenerationOptions};
use serde_json::{Map, Value, json};

use super::{FINGERPRINT, Usage, finish_reason, timings};
use crate::serve::body::Json;
use crate::serve::conversation::{self, Answer, Conversation};
use crate::serve::error::{ApiResult, ok};
use crate::serve::fields::Fields;
use crate::serve::job::Event;
use crate::serve::message::messages;
use crate::serve::sampling::{self, MAX_ANSWERS, MAX_TOKENS};
use crate::serve::state::{Server, now};
use crate::serve::stream::{self, Events, Gone};
use crate::serve::{logprobs, structured, tools};

/// A request that was understood.
struct Call {
    conversation: Conversation,
    options: GenerationOptions,
    /// Number of answers.
    answers: usize,
    /// `Some(usage wanted)` for a stream.
    stream: Option<bool>,
}

fn call(server: &Server, body: &Value) -> ApiResult<Call> {
    let fields = Fields::of(body, "")?;
    let mut options = sampling::options(&fields, server.model.vocabulary())?;
    let most = fields.count("max_completion_tokens", 1..=MAX_TOKENS)?;
    options.max_tokens = most.or(fields.count("max_tokens", 1..=MAX_TOKENS)?);
    fields.text("model")?;
    Ok(Call {
        conversation: Conversation {
            messages: messages(&fields)?,
            tools: tools::read(&fields, false)?,
            format: structured::format(&fields)?,
            logprobs: logprobs::of_chat(&fields)?,
            template: template(&fields)?,
        },
        options,
        answers: fields.count("n", 1..=MAX_ANSWERS as u64)?.unwrap_or(1),
        stream: sampling::stream(&fields)?,
    })
}

/// Further variables of the template (`enable_thinking`), named as in vLLM and llama.cpp.
fn template(fields: &Fields<'_>) -> ApiResult<Map<String, Value>> {
    let variables = fields.object("chat_template_kwargs")?;
    Ok(variables
        .map(|variables| variables.entries().map(|(k, v)| (k.clone(), v.clone())).collect())
        .unwrap_or_default())
}

/// Answers the request.
///
/// # Errors
/// 400 for what is wrong with it, 429 and 503 when there is no place.
pub(in crate::serve) async fn create(State(server): State<Arc<Server>>, Json(body): Json) -> ApiResult<Response> {
    let Call { conversation, options, answers, stream } = call(&server, &body)?;
    drop(body);
    let head = Head { id: server.id("chatcmpl-"), created: now(), model: server.name.clone() };
    let mut running = conversation::start(&server, conversation, &options, answers).await?;
    if let Some(usage) = stream {
        return Ok(stream::response(async move |events| {
            let result = head.stream(&events, &mut running, usage).await;
            drop(running);
            result
        }));
    }
    let (answers, completions) = running.finish(|_, _, _| ()).await?;
    let choices = answers.iter().zip(&completions).enumerate().map(|(index, (answer, completion))| {
        json!({
            "index": index,
            "message": answer.message(),
            "logprobs": answer.logprobs(),
            "finish_reason": reason(answer, completion),
        })
    });
    let choices: Vec<Value> = choices.collect();
    let mut response = head.json("chat.completion", choices);
    response["usage"] = Usage::of(&completions, completions.len()).json();
    response["timings"] = completions.first().map(timings).unwrap_or_default();
    Ok(ok(&response))
}

/// Why an answer ended: one that calls tools waits for their results.
fn reason(answer: &Answer, completion: &Completion) -> &'static str {
    match finish_reason(completion.finish_reason) {
        "stop" if answer.calls_tools() => "tool_calls",
        reason => reason,
    }
}

/// What all parts of an answer begin with.
struct Head {
    id: String,
    created: u64,
    model: String,
}

impl Head {
    fn json(&self, object: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
            "choices": choices,
        })
    }

    /// A part of one answer.
    fn chunk(&self, index: usize, delta: &Value, logprobs: Value, finish: Option<&str>, usage: bool) -> Value {
        let choice = json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish });
        let mut chunk = self.json("chat.completion.chunk", vec![choice]);
        if usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    /// The role of each answer, then its parts as they come, then why it ended; at the end the usage, if it is wanted.
    async fn stream(&self, events: &Events, running: &mut conversation::Running, usage: bool) -> Result<(), Gone> {
        for index in 0..running.answers() {
            let role = json!({ "role": "assistant", "content": "" });
            events.data(&self.chunk(index, &role, Value::Null, None, usage)).await?;
        }
        loop {
            match running.next(events).await? {
                Event::Started => {}
                Event::Piece(piece) => {
                    let index = piece.index;
                    let (deltas, logprobs) = running.push(&piece);
                    let mut logprobs =
                        logprobs.map(|token| json!({ "content": [token], "refusal": null })).unwrap_or_default();
                    for delta in &deltas {
                        let chunk = self.chunk(index, &delta_json(delta), std::mem::take(&mut logprobs), None, usage);
                        events.data(&chunk).await?;
                    }
                    if !logprobs.is_null() {
                        // A token without text yet: its probability is told all the same.
                        events.data(&self.chunk(index, &json!({ "content": "" }), logprobs, None, usage)).await?;
                    }
                }
                Event::Done(completions) => {
                    for (index, completion) in completions.iter().enumerate() {
                        for delta in running.end(index) {
                            events.data(&self.chunk(index, &delta_json(&delta), Value::Null, None, usage)).await?;
                        }
                        let reason = reason(running.answer(index), completion);
                        let mut last = self.chunk(index, &json!({}), Value::Null, Some(reason), usage);
                        last["timings"] = timings(completion);
                        events.data(&last).await?;
                    }
                    if usage {
                        let mut last = self.json("chat.completion.chunk", Vec::new());
                        last["usage"] = Usage::of(&completions, completions.len()).json();
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

/// What is new, as a part of the message.
fn delta_json(delta: &ChatDelta) -> Value {
    match delta {
        ChatDelta::Content(text) => json!({ "content": text }),
        ChatDelta::Reasoning(text) => json!({ "reasoning_content": text }),
        ChatDelta::ToolCall { index, id, name } => {
            let function = json!({ "name": name, "arguments": "" });
            json!({ "tool_calls": [{ "index": index, "id": id, "type": "function", "function": function }] })
        }
        ChatDelta::Arguments { index, text } => {
            json!({ "tool_calls": [{ "index": index, "function": { "arguments": text } }] })
        }
    }
}
