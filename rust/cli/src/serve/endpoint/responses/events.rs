//! The events of a streamed response, in OpenAI's order: created, in progress, then of each item added, its parts, done; completed.

use serde_json::{Value, json};

use super::output::{Head, status};
use super::store::Store;
use crate::serve::conversation::Running;
use crate::serve::job::Event;
use crate::serve::stream::{Events, Gone};
use crate::serve::tools::Delta;

/// Numbers the events.
struct Writer<'a> {
    events: &'a Events,
    number: usize,
}

impl Writer<'_> {
    async fn send(&mut self, kind: &str, mut data: Value) -> Result<(), Gone> {
        data["type"] = kind.into();
        data["sequence_number"] = self.number.into();
        self.number += 1;
        self.events.named(kind, &data).await
    }
}

/// The message of an answer while it is written.
struct Message<'a> {
    head: &'a Head,
    text: String,
}

impl Message<'_> {
    /// An event about its one part.
    fn part(&self, field: &str, value: Value) -> Value {
        json!({ "item_id": self.head.item, "output_index": 0, "content_index": 0, field: value })
    }

    async fn begin(&self, to: &mut Writer<'_>) -> Result<(), Gone> {
        let item = json!({
            "id": self.head.item, "type": "message", "role": "assistant", "status": "in_progress", "content": [],
        });
        to.send("response.output_item.added", json!({ "output_index": 0, "item": item })).await?;
        let part = json!({ "type": "output_text", "text": "", "annotations": [] });
        to.send("response.content_part.added", self.part("part", part)).await
    }

    async fn write(&mut self, text: &str, logprobs: Vec<Value>, to: &mut Writer<'_>) -> Result<(), Gone> {
        self.text += text;
        let mut delta = self.part("delta", text.into());
        delta["logprobs"] = logprobs.into();
        to.send("response.output_text.delta", delta).await
    }

    async fn end(&self, status: &str, to: &mut Writer<'_>) -> Result<(), Gone> {
        let mut done = self.part("text", self.text.as_str().into());
        done["logprobs"] = json!([]);
        to.send("response.output_text.done", done).await?;
        let part = json!({ "type": "output_text", "text": self.text, "annotations": [] });
        to.send("response.content_part.done", self.part("part", part.clone())).await?;
        let item = json!({
            "id": self.head.item, "type": "message", "role": "assistant", "status": status, "content": [part],
        });
        to.send("response.output_item.done", json!({ "output_index": 0, "item": item })).await
    }
}

/// Sends the events of an answer as they come, and keeps it in `store`.
pub(super) async fn write(
    head: &Head,
    events: &Events,
    running: &mut Running,
    store: Option<&Store>,
) -> Result<(), Gone> {
    let mut to = Writer { events, number: 0 };
    to.send("response.created", json!({ "response": head.in_progress() })).await?;
    to.send("response.in_progress", json!({ "response": head.in_progress() })).await?;
    let mut message = Message { head, text: String::new() };
    message.begin(&mut to).await?;
    loop {
        match running.next(events).await? {
            Event::Started => {}
            Event::Piece(piece) => {
                let (deltas, logprobs) = running.push(&piece);
                let mut logprobs: Vec<Value> = logprobs.into_iter().collect();
                for Delta::Content(text) in deltas {
                    message.write(&text, std::mem::take(&mut logprobs), &mut to).await?;
                }
            }
            Event::Done(completions) => {
                for Delta::Content(text) in running.end(0) {
                    message.write(&text, Vec::new(), &mut to).await?;
                }
                let Some(completion) = completions.first() else { return Ok(()) };
                message.end(status(completion), &mut to).await?;
                if let Some(store) = store {
                    store.put(head, running.answer(0));
                }
                let response = head.complete(running.answer(0), completion);
                let kind = format!("response.{}", status(completion));
                return to.send(&kind, json!({ "response": response })).await;
            }
            Event::Failed(error) => {
                return to.send("response.failed", json!({ "response": head.failed(&error) })).await;
            }
        }
    }
}
