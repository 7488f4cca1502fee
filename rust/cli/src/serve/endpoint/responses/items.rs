//! The items of a response (reasoning, message, calls of functions) as they come of an answer, and the events that tell of them.

use fastq_core::chat::ChatDelta;
use serde_json::{Value, json};

/// Name and data of an event.
pub(super) type Told = (&'static str, Value);

/// What the item that is written is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reasoning,
    Message,
    /// Which call.
    Call(usize),
}

/// An item that is written.
struct Open {
    kind: Kind,
    item: Value,
    text: String,
    logprobs: Vec<Value>,
}

/// The items of an answer so far.
pub(super) struct Items {
    /// What their identifiers end with.
    id: String,
    done: Vec<Value>,
    open: Option<Open>,
    /// Log-probabilities are told.
    logprobs: bool,
}

impl Items {
    /// None yet.
    pub(super) fn new(id: &str, logprobs: bool) -> Items {
        Items { id: id.to_owned(), done: Vec::new(), open: None, logprobs }
    }

    /// Takes what is new; the events that tell of it.
    pub(super) fn take(&mut self, delta: ChatDelta, logprobs: Vec<Value>) -> Vec<Told> {
        let mut told = Vec::new();
        let (kind, text) = match delta {
            ChatDelta::Reasoning(text) => (Kind::Reasoning, text),
            ChatDelta::Content(text) => (Kind::Message, text),
            ChatDelta::Arguments { index, text } => (Kind::Call(index), text),
            ChatDelta::ToolCall { index, id, name } => {
                told.extend(self.close("completed"));
                let item = json!({ "type": "function_call", "call_id": id, "name": name, "arguments": "" });
                told.extend(self.begin(Kind::Call(index), item));
                return told;
            }
        };
        if self.open.as_ref().is_none_or(|open| open.kind != kind) {
            told.extend(self.close("completed"));
            let item = match kind {
                Kind::Reasoning => json!({ "type": "reasoning", "summary": [], "content": [] }),
                _ => json!({ "type": "message", "role": "assistant", "content": [] }),
            };
            told.extend(self.begin(kind, item));
        }
        let index = self.done.len();
        if let Some(open) = &mut self.open {
            open.text += &text;
            open.logprobs.extend(logprobs.iter().cloned());
            let mut data = json!({ "item_id": open.item["id"], "output_index": index, "delta": text });
            let name = match kind {
                Kind::Call(_) => "response.function_call_arguments.delta",
                Kind::Reasoning => {
                    data["content_index"] = 0.into();
                    "response.reasoning_text.delta"
                }
                Kind::Message => {
                    data["content_index"] = 0.into();
                    data["logprobs"] = logprobs.into();
                    "response.output_text.delta"
                }
            };
            told.push((name, data));
        }
        told
    }

    /// Ends the last item with a status. An answer without anything is an empty message.
    pub(super) fn end(&mut self, status: &str) -> Vec<Told> {
        let mut told = Vec::new();
        if self.done.is_empty() && self.open.is_none() {
            told = self.take(ChatDelta::Content(String::new()), Vec::new());
        }
        told.extend(self.close(status));
        told
    }

    /// All items.
    pub(super) fn into_list(self) -> Vec<Value> {
        self.done
    }

    fn begin(&mut self, kind: Kind, mut item: Value) -> Vec<Told> {
        let index = self.done.len();
        let prefix = match kind {
            Kind::Reasoning => "rs",
            Kind::Message => "msg",
            Kind::Call(_) => "fc",
        };
        item["id"] = format!("{prefix}_{}_{index}", self.id).into();
        item["status"] = "in_progress".into();
        let mut told = vec![("response.output_item.added", json!({ "output_index": index, "item": item }))];
        let open = Open { kind, item, text: String::new(), logprobs: Vec::new() };
        if let Some(part) = self.part(&open) {
            told.push(("response.content_part.added", part));
        }
        self.open = Some(open);
        told
    }

    /// The one part of an item that has parts, with its place.
    fn part(&self, open: &Open) -> Option<Value> {
        let part = match open.kind {
            Kind::Call(_) => return None,
            Kind::Reasoning => json!({ "type": "reasoning_text", "text": open.text }),
            Kind::Message => {
                let mut part = json!({ "type": "output_text", "text": open.text, "annotations": [] });
                if self.logprobs {
                    part["logprobs"] = open.logprobs.as_slice().into();
                }
                part
            }
        };
        let index = self.done.len();
        Some(json!({ "item_id": open.item["id"], "output_index": index, "content_index": 0, "part": part }))
    }

    fn close(&mut self, status: &str) -> Vec<Told> {
        let Some(mut open) = self.open.take() else { return Vec::new() };
        let index = self.done.len();
        let place =
            |name: &str, value: Value| json!({ "item_id": open.item["id"], "output_index": index, name: value });
        let mut told = Vec::new();
        let part = self.part(&open);
        match open.kind {
            Kind::Call(_) => {
                let mut data = place("arguments", open.text.as_str().into());
                data["name"] = open.item["name"].clone();
                told.push(("response.function_call_arguments.done", data));
                open.item["arguments"] = open.text.as_str().into();
            }
            Kind::Reasoning | Kind::Message => {
                let mut data = place("text", open.text.as_str().into());
                data["content_index"] = 0.into();
                let name = match open.kind {
                    Kind::Reasoning => "response.reasoning_text.done",
                    _ => {
                        data["logprobs"] = open.logprobs.as_slice().into();
                        "response.output_text.done"
                    }
                };
                told.push((name, data));
                if let Some(part) = part {
                    open.item["content"] = json!([part["part"]]);
                    told.push(("response.content_part.done", part));
                }
            }
        }
        open.item["status"] = status.into();
        told.push(("response.output_item.done", json!({ "output_index": index, "item": open.item })));
        self.done.push(open.item);
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_follow_each_other() {
        let mut items = Items::new("x", false);
        let deltas = [
            ChatDelta::Reasoning("hm".into()),
            ChatDelta::Reasoning("m".into()),
            ChatDelta::Content("I look.".into()),
            ChatDelta::ToolCall { index: 0, id: "c0".into(), name: "f".into() },
            ChatDelta::Arguments { index: 0, text: "{\"a\":".into() },
            ChatDelta::Arguments { index: 0, text: "1}".into() },
            ChatDelta::ToolCall { index: 1, id: "c1".into(), name: "g".into() },
            ChatDelta::Arguments { index: 1, text: "{}".into() },
        ];
        let mut told: Vec<Told> = deltas.into_iter().flat_map(|delta| items.take(delta, Vec::new())).collect();
        told.extend(items.end("completed"));
        let names: Vec<&str> = told.iter().map(|(name, _)| name.strip_prefix("response.").unwrap()).collect();
        let expected = [
            "output_item.added 0",
            "content_part.added 0",
            "reasoning_text.delta 0",
            "reasoning_text.delta 0",
            "reasoning_text.done 0",
            "content_part.done 0",
            "output_item.done 0",
            "output_item.added 1",
            "content_part.added 1",
            "output_text.delta 1",
            "output_text.done 1",
            "content_part.done 1",
            "output_item.done 1",
            "output_item.added 2",
            "function_call_arguments.delta 2",
            "function_call_arguments.delta 2",
            "function_call_arguments.done 2",
            "output_item.done 2",
            "output_item.added 3",
            "function_call_arguments.delta 3",
            "function_call_arguments.done 3",
            "output_item.done 3",
        ];
        let found: Vec<String> =
            names.iter().zip(&told).map(|(name, (_, data))| format!("{name} {}", data["output_index"])).collect();
        assert_eq!(found, expected);
        let list = items.into_list();
        assert_eq!(list[0]["content"][0]["text"], "hmm");
        assert_eq!(list[1]["content"][0]["text"], "I look.");
        assert_eq!(
            (&list[2]["arguments"], &list[3]["name"], &list[2]["call_id"]),
            (&json!("{\"a\":1}"), &json!("g"), &json!("c0"))
        );
        assert!(list.iter().all(|item| item["status"] == "completed"));
        let mut nothing = Items::new("x", false);
        assert_eq!(nothing.end("completed").len(), 6);
        assert_eq!(nothing.into_list()[0]["content"][0]["text"], "");
    }
}
