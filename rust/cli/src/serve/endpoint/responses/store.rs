//! Conversations that later requests go on from (`previous_response_id`): in memory, the newest, within limits.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::output::Head;
use crate::serve::conversation::Answer;

/// The most conversations.
const MAX_STORED: usize = 1024;

/// The most bytes of their texts together.
const MAX_STORED_BYTES: usize = 32 << 20;

/// The newest conversations, the oldest first.
#[derive(Default)]
pub(in crate::serve) struct Store(Mutex<Stored>);

#[derive(Default)]
struct Stored {
    entries: VecDeque<Entry>,
    bytes: usize,
}

struct Entry {
    id: String,
    messages: Vec<Value>,
    bytes: usize,
}

impl Store {
    /// Keeps what `head` answers with its answer. Old ones give way; one that is too large for the store is not kept.
    pub(super) fn put(&self, head: &Head, answer: &Answer) {
        let mut messages = head.messages.clone();
        messages.push(answer.message());
        self.keep(head.id.clone(), messages);
    }

    fn keep(&self, id: String, messages: Vec<Value>) {
        // What the values take beside their texts grows with the same number.
        let bytes = messages.iter().map(|message| message.to_string().len()).sum();
        let mut stored = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stored.bytes += bytes;
        stored.entries.push_back(Entry { id, messages, bytes });
        while stored.bytes > MAX_STORED_BYTES || stored.entries.len() > MAX_STORED {
            let Some(old) = stored.entries.pop_front() else { break };
            stored.bytes -= old.bytes;
        }
    }

    /// The messages of a conversation.
    pub(super) fn get(&self, id: &str) -> Option<Vec<Value>> {
        let stored = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stored.entries.iter().rfind(|entry| entry.id == id).map(|entry| entry.messages.clone())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn old_conversations_give_way() {
        let store = Store::default();
        for number in 0..MAX_STORED + 2 {
            store.keep(number.to_string(), vec![json!({ "n": number })]);
        }
        assert_eq!((store.get("0"), store.get("1")), (None, None));
        assert_eq!(store.get("2"), Some(vec![json!({ "n": 2 })]));
        let large = || vec![json!("x".repeat(MAX_STORED_BYTES / 2))];
        store.keep("a".into(), large());
        assert!(store.get("a").is_some() && store.get("1025").is_some());
        store.keep("b".into(), large());
        assert!(store.get("a").is_none() && store.get("b").is_some());
        store.keep("c".into(), vec![json!("x".repeat(MAX_STORED_BYTES))]);
        assert_eq!((store.get("b"), store.get("c")), (None, None));
        assert_eq!(store.0.lock().unwrap().bytes, 0);
    }
}
