//! Messages in channels (harmony): what their headers say.

use super::super::call::Reader;
use super::super::families::harmony;
use super::super::named::NamedCall;
use super::super::tools::is_name;
use super::{Channel, ChatParser, MAX_CALLS, Mode, Open};

/// Longest header, in bytes.
const MAX_HEADER: usize = 512;

impl ChatParser {
    /// The prompt may have written the beginning of the header, `<|start|>assistant`.
    pub(super) fn continue_header(&mut self, prompt: &str) {
        let Some((_, header)) = prompt.rsplit_once(harmony::START) else { return };
        if header.len() <= MAX_HEADER && !header.contains(harmony::END) {
            self.mode = Mode::Header(String::new());
            self.queue.extend(header.chars());
            self.run();
            // A text that the prompt began is not part of the answer.
            self.deltas.clear();
            self.content.clear();
            self.reasoning.clear();
        }
    }

    /// One character of a header of harmony: `assistant<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>`.
    pub(super) fn header(&mut self, character: char) {
        let Mode::Header(header) = &mut self.mode else { return };
        header.push(character);
        if let Some(header) = header.strip_suffix(harmony::MESSAGE) {
            let header = header.to_owned();
            return self.message_begins(&header);
        }
        // Without a channel it is text: an answer of a model that does not follow the format.
        let rest = after_role(header).trim_start();
        let follows = |known: &str| known.starts_with(rest) || rest.starts_with(known);
        let role = "assistant".starts_with(header.trim_start()) || follows("to=") || follows("<|");
        if !role || header.len() > MAX_HEADER {
            let text = after_role(header).to_owned();
            self.stretch(Channel::Content);
            self.emit_text(&text);
        }
    }

    fn message_begins(&mut self, header: &str) {
        let channel = header.split_once(harmony::CHANNEL).map_or("", |(_, channel)| channel.trim_start());
        let recipient = header.split_once("to=").map(|(_, to)| to);
        let end = |character: char| character.is_whitespace() || character == '<';
        let recipient = recipient.map(|to| to.split(end).next().unwrap_or_default());
        let name = recipient.map(|to| to.strip_prefix("functions.").unwrap_or(to)).filter(|name| is_name(name));
        match name {
            Some(name) if self.tools && name != "assistant" && self.calls.len() < MAX_CALLS => {
                let reader = Reader::Named(NamedCall::headed(name));
                let open = Open { syntax: None, reader, raw: String::new(), marker: 0, told: false, size: 0 };
                self.mode = Mode::Call(Box::new(open));
            }
            _ if channel.starts_with("analysis") => self.stretch(Channel::Reasoning),
            _ => self.stretch(Channel::Content),
        }
    }
}

/// A header of harmony without the role.
pub(super) fn after_role(header: &str) -> &str {
    let header = header.trim_start();
    header.strip_prefix("assistant").unwrap_or(header)
}
