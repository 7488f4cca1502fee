//! `POST /v1/responses`: OpenAI's newer interface, text and functions.

mod events;
mod input;
mod items;
mod output;
mod store;

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use fastq_core::GenerationOptions;
use fastq_core::chat::ChatDelta;
use serde_json::{Map, Value, json};

use crate::serve::body::Json;
use crate::serve::conversation::{self, Conversation};
use crate::serve::error::{ApiError, ApiResult, ok};
use crate::serve::fields::Fields;
use crate::serve::sampling::{self, MAX_TOKENS};
use crate::serve::state::{Server, now};
use crate::serve::{logprobs, stream, structured, tools};

use output::Head;
pub(in crate::serve) use store::Store;

/// The smallest `max_output_tokens`.
const MIN_TOKENS: u64 = 1;

/// A request that was understood.
struct Call {
    conversation: Conversation,
    options: GenerationOptions,
    stream: bool,
    /// Whether the conversation is kept for `previous_response_id`.
    store: bool,
    head: Head,
}

fn call(server: &Server, body: &Value) -> ApiResult<Call> {
    let fields = Fields::of(body, "")?;
    fields.text("model")?;
    let mut options = sampling::options(&fields, server.model.vocabulary())?;
    options.max_tokens = fields.count("max_output_tokens", MIN_TOKENS..=MAX_TOKENS)?;
    let previous = fields.text("previous_response_id")?;
    let mut messages = match previous {
        Some(id) => {
            let unknown =
                "a response that this server keeps: they are few, in memory, and those of store=false not at all";
            server.store.get(id).ok_or_else(|| fields.wrong("previous_response_id", unknown))?
        }
        None => Vec::new(),
    };
    let more = input::messages(&fields)?;
    // The instructions of earlier requests do not go on (OpenAI's rule), so they are not among what is stored.
    messages.extend(more);
    let instructions = fields.text("instructions")?;
    let mut all = messages.clone();
    if let Some(text) = instructions {
        all.insert(0, json!({ "role": "system", "content": text }));
    }
    let tools = tools::read(&fields, true)?;
    let logprobs = match fields.list("include")? {
        Some(list) if list.iter().any(|item| item == "message.output_text.logprobs") => {
            Some(logprobs::top(&fields)?.unwrap_or(0))
        }
        _ => logprobs::top(&fields)?,
    };
    let head = Head {
        id: server.id("resp_"),
        logprobs: logprobs.is_some(),
        created: now(),
        model: server.name.clone(),
        echo: output::echo(&fields, &options),
        messages,
    };
    Ok(Call {
        conversation: Conversation {
            messages: all,
            tools,
            format: structured::flat_format(&fields)?,
            logprobs,
            template: Map::new(),
        },
        options,
        stream: fields.boolean("stream")?.unwrap_or(false),
        store: fields.boolean("store")?.unwrap_or(true),
        head,
    })
}

/// Answers the request.
///
/// # Errors
/// 400 for what is wrong with it, 429 and 503 when there is no place.
pub(in crate::serve) async fn create(State(server): State<Arc<Server>>, Json(body): Json) -> ApiResult<Response> {
    let Call { conversation, options, stream, store, head } = call(&server, &body)?;
    drop(body);
    let mut running = conversation::start(&server, conversation, &options, 1).await?;
    if stream {
        return Ok(stream::response(async move |events| {
            let result = events::write(&head, &events, &mut running, store.then_some(&server.store)).await;
            drop(running);
            result
        }));
    }
    let mut items = head.items();
    let take = |_, deltas: Vec<ChatDelta>, logprobs: Option<Value>| {
        let mut logprobs: Vec<Value> = logprobs.into_iter().collect();
        for delta in deltas {
            items.take(delta, std::mem::take(&mut logprobs));
        }
    };
    let (answers, completions) = running.finish(take).await?;
    let (Some(answer), Some(completion)) = (answers.first(), completions.first()) else {
        return Err(ApiError::internal("an answer without a completion"));
    };
    items.end(output::status(completion));
    if store {
        server.store.put(&head, answer);
    }
    Ok(ok(&head.complete(items, completion)))
}
