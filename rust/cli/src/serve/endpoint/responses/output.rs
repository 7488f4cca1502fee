//! The response object: while it is made, and when it is complete.

use fastq_core::{Completion, FinishReason, GenerationOptions};
use serde_json::{Map, Value, json};

use super::items::Items;
use crate::serve::endpoint::Usage;
use crate::serve::error::ApiError;
use crate::serve::fields::Fields;

/// What is known of a response before there is any answer.
pub(super) struct Head {
    pub(super) id: String,
    /// Whether log-probabilities are told.
    pub(super) logprobs: bool,
    pub(super) created: u64,
    pub(super) model: String,
    /// Fields of the request that a response repeats.
    pub(super) echo: Map<String, Value>,
    /// The conversation that it answers, without instructions.
    pub(super) messages: Vec<Value>,
}

/// What a response repeats of its request.
pub(super) fn echo(fields: &Fields<'_>, options: &GenerationOptions) -> Map<String, Value> {
    let mut echo = Map::new();
    let of = |name: &str, default: Value| fields.get(name).cloned().unwrap_or(default);
    for (name, default) in [
        ("instructions", Value::Null),
        ("max_output_tokens", Value::Null),
        ("metadata", json!({})),
        ("parallel_tool_calls", json!(true)),
        ("previous_response_id", Value::Null),
        ("store", json!(true)),
        ("temperature", json!(options.sampler.temperature)),
        ("text", json!({ "format": { "type": "text" } })),
        ("tool_choice", json!("auto")),
        ("tools", json!([])),
        ("top_p", json!(options.sampler.top_p)),
        ("truncation", json!("disabled")),
    ] {
        echo.insert(name.to_owned(), of(name, default));
    }
    echo
}

impl Head {
    /// The response with a status, the items of its output, and more fields.
    fn json(&self, status: &str, output: Vec<Value>, more: Value) -> Value {
        let mut response = json!({
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "model": self.model,
            "error": null,
            "incomplete_details": null,
            "output": output,
            "usage": null,
        });
        if let (Value::Object(response), Value::Object(more)) = (&mut response, more) {
            response.extend(self.echo.clone());
            response.extend(more);
        }
        response
    }

    /// Before there is an answer.
    pub(super) fn in_progress(&self) -> Value {
        self.json("in_progress", Vec::new(), json!({}))
    }

    /// The items of the answer, of which there are none yet.
    pub(super) fn items(&self) -> Items {
        Items::new(self.id.trim_start_matches("resp_"), self.logprobs)
    }

    /// With the answer, whose items are at their end.
    pub(super) fn complete(&self, items: Items, completion: &Completion) -> Value {
        let usage = Usage::of(std::slice::from_ref(completion), 1);
        let usage = json!({
            "input_tokens": usage.prompt,
            "input_tokens_details": { "cached_tokens": usage.cached },
            "output_tokens": usage.answer,
            "output_tokens_details": { "reasoning_tokens": 0 },
            "total_tokens": usage.prompt + usage.answer,
        });
        let status = status(completion);
        let details = (status == "incomplete").then(|| json!({ "reason": "max_output_tokens" }));
        self.json(status, items.into_list(), json!({ "usage": usage, "incomplete_details": details }))
    }

    /// When an error ended it.
    pub(super) fn failed(&self, error: &ApiError) -> Value {
        let error = json!({ "code": "server_error", "message": error.message });
        self.json("failed", Vec::new(), json!({ "error": error }))
    }
}

/// The status of an answer.
pub(super) fn status(completion: &Completion) -> &'static str {
    if completion.finish_reason == FinishReason::Stop { "completed" } else { "incomplete" }
}
