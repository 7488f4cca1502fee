//! The events of a streamed response, in OpenAI's order: created, in progress, those of the items, completed.

use serde_json::{Value, json};

use super::items::Told;
use super::output::{Head, status};
use super::store::Store;
use crate::serve::conversation::Running;
use crate::serve::job::Event;
use crate::serve::stream::{Events, Gone};

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

    async fn tell(&mut self, told: Vec<Told>) -> Result<(), Gone> {
        for (kind, data) in told {
            self.send(kind, data).await?;
        }
        Ok(())
    }
}

/// Sends the events of an answer as they come, and keeps it in `store`.
///
/// # Errors
/// [`Gone`].
pub(super) async fn write(
    head: &Head,
    events: &Events,
    running: &mut Running,
    store: Option<&Store>,
) -> Result<(), Gone> {
    let mut to = Writer { events, number: 0 };
    to.send("response.created", json!({ "response": head.in_progress() })).await?;
    to.send("response.in_progress", json!({ "response": head.in_progress() })).await?;
    let mut items = head.items();
    loop {
        match running.next(events).await? {
            Event::Started => {}
            Event::Piece(piece) => {
                let (deltas, logprobs) = running.push(&piece);
                let mut logprobs: Vec<Value> = logprobs.into_iter().collect();
                for delta in deltas {
                    to.tell(items.take(delta, std::mem::take(&mut logprobs))).await?;
                }
            }
            Event::Done(completions) => {
                for delta in running.end(0) {
                    to.tell(items.take(delta, Vec::new())).await?;
                }
                let Some(completion) = completions.first() else { return Ok(()) };
                to.tell(items.end(status(completion))).await?;
                if let Some(store) = store {
                    store.put(head, running.answer(0));
                }
                let kind = format!("response.{}", status(completion));
                return to.send(&kind, json!({ "response": head.complete(items, completion) })).await;
            }
            Event::Failed(error) => {
                return to.send("response.failed", json!({ "response": head.failed(&error) })).await;
            }
        }
    }
}
