//! What the parser tells: deltas and the message that they add up to.

use serde_json::{Value, json};

use super::{Channel, ChatDelta, ChatParser, MAX_BLANK, Mode};

impl ChatParser {
    /// What was told so far, as a message of OpenAI: `role`, `content` (null when there are only calls), and
    /// `reasoning_content` and `tool_calls` where there are any.
    pub fn message(&self) -> Value {
        let content = match self.content.is_empty() && !self.calls.is_empty() {
            true => Value::Null,
            false => Value::from(self.content.as_str()),
        };
        let mut message = json!({"role": "assistant", "content": content});
        if !self.reasoning.is_empty() {
            message["reasoning_content"] = self.reasoning.as_str().into();
        }
        if !self.calls.is_empty() {
            let calls = self.calls.iter().map(|call| {
                let function = json!({"name": call.name, "arguments": call.arguments});
                json!({"id": call.id, "type": "function", "function": function})
            });
            message["tool_calls"] = calls.collect();
        }
        message
    }

    /// Whether the answer has calls so far.
    pub fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }

    pub(super) fn emit_text(&mut self, text: &str) {
        text.chars().for_each(|character| self.emit(character));
    }

    /// One character that is no part of a marker.
    pub(super) fn emit(&mut self, character: char) {
        if !character.is_whitespace() {
            self.flush_blank();
            self.at_start = false;
            return self.add(character);
        }
        if self.at_start && self.trim {
            // Blank lines go, the indentation of the first line stays.
            match character {
                '\n' | '\r' => {
                    self.new_line = true;
                    self.blank.clear();
                }
                _ if self.new_line && self.blank.len() < MAX_BLANK => self.blank.push(character),
                _ => {}
            }
            return;
        }
        let reasoning = matches!(self.mode, Mode::Text(Channel::Reasoning));
        let before_marker = self.tools || reasoning || (self.at_start && self.format.reasons());
        if !before_marker {
            return self.add(character);
        }
        self.blank.push(character);
        if self.blank.len() > MAX_BLANK {
            self.flush_blank();
        }
    }

    pub(super) fn flush_blank(&mut self) {
        let blank = std::mem::take(&mut self.blank);
        blank.chars().for_each(|character| self.add(character));
    }

    /// Adds to the message.
    fn add(&mut self, character: char) {
        let reasoning = matches!(self.mode, Mode::Text(Channel::Reasoning));
        match (reasoning, self.deltas.last_mut()) {
            (false, Some(ChatDelta::Content(text))) | (true, Some(ChatDelta::Reasoning(text))) => text.push(character),
            (false, _) => self.deltas.push(ChatDelta::Content(character.to_string())),
            (true, _) => self.deltas.push(ChatDelta::Reasoning(character.to_string())),
        }
        let text = if reasoning { &mut self.reasoning } else { &mut self.content };
        text.push(character);
    }
}
