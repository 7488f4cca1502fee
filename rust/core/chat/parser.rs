//! The streaming parser: an answer as it is written, taken apart into content, reasoning and tool calls.
//!
//! It is an automaton over characters, so what it tells does not depend on where pieces end. It holds back only what may become
//! a marker or a call, and the white space before it.

mod header;
mod message;

use std::collections::VecDeque;

use header::after_role;

use super::ChatFormat;
use super::call::{Event, Known, Reader};
use super::families::{Body, RESPONSE, Syntax, harmony};
use super::ids;
use super::json_text::Step;

/// Longest call with its arguments, in bytes; what is longer is content.
pub const MAX_CALL: usize = 1 << 20;
/// Most calls in one answer; what looks like another one is content.
pub const MAX_CALLS: usize = 128;
/// White space that is held back at most, in bytes.
const MAX_BLANK: usize = 256;
/// Text that turned out to be no call is searched for markers again up to this length, in bytes: searching all of it again and
/// again would take quadratic time.
const MAX_AGAIN: usize = 1024;

/// What a piece of an answer adds to the message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChatDelta {
    /// Text for the reader.
    Content(String),
    /// Text of the reasoning.
    Reasoning(String),
    /// A tool call begins.
    ToolCall {
        /// Which one, from 0.
        index: usize,
        /// What the result refers to.
        id: String,
        /// The tool. Models also make up names.
        name: String,
    },
    /// More of the arguments of a call. Joined they are a JSON object, unless the answer ended before (`max_tokens`) or the
    /// model did not write JSON to the end.
    Arguments {
        /// Which call.
        index: usize,
        /// A part of the JSON text.
        text: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Channel {
    Content,
    Reasoning,
}

/// What a marker does.
#[derive(Clone, Copy, Debug)]
enum Action {
    Drop,
    OpenReasoning,
    CloseReasoning,
    Call(usize),
    /// The header of a message in channels begins.
    Header(&'static str),
}

#[derive(Clone, Debug)]
enum Mode {
    Text(Channel),
    Call(Box<Open>),
    /// After a call: its end marker or another call may follow. What came since the call.
    After(usize, String),
    /// Harmony: up to `<|message|>`.
    Header(String),
}

/// A call that is being read.
#[derive(Clone, Debug)]
struct Open {
    /// Which of the family's ways to write calls; `None` for a message in channels.
    syntax: Option<usize>,
    reader: Reader,
    /// What was read and not told yet, from the marker on. It becomes content when it is no call.
    raw: String,
    /// Bytes of `raw` that are the marker.
    marker: usize,
    /// A call was told.
    told: bool,
    /// Bytes of this call and its arguments.
    size: usize,
}

#[derive(Clone, Default, Debug)]
struct Call {
    id: String,
    name: String,
    arguments: String,
}

/// Reads one answer. Made by [`ChatFormat::parser`].
#[derive(Clone, Debug)]
pub struct ChatParser {
    format: ChatFormat,
    /// Calls are looked for.
    tools: bool,
    known: Known,
    /// Control tokens show in the text, and those that are not part of the format are dropped.
    special: bool,
    seed: u64,
    mode: Mode,
    /// What is to be read, oldest first.
    queue: VecDeque<char>,
    /// What may become a marker.
    held: String,
    /// White space that a marker would take away.
    blank: String,
    /// The current stretch of text has shown nothing yet.
    at_start: bool,
    /// Blank lines at the start of the stretch do not count.
    trim: bool,
    /// One of them came: white space after it is indentation.
    new_line: bool,
    deltas: Vec<ChatDelta>,
    content: String,
    reasoning: String,
    calls: Vec<Call>,
}

impl ChatParser {
    /// `prompt` shows whether the answer begins inside reasoning, and makes ids differ from those of other answers.
    pub(super) fn new(format: ChatFormat, prompt: &str, tools: bool, known: Known) -> ChatParser {
        let seed = ids::seed(prompt);
        let mut parser = ChatParser {
            special: format.special(tools),
            format,
            tools,
            known,
            seed,
            mode: Mode::Text(Channel::Content),
            queue: VecDeque::new(),
            held: String::new(),
            blank: String::new(),
            at_start: true,
            trim: false,
            new_line: false,
            deltas: Vec::new(),
            content: String::new(),
            reasoning: String::new(),
            calls: Vec::new(),
        };
        if parser.format.family().harmony {
            parser.continue_header(prompt);
        } else if parser.format.opens_reasoning(prompt) {
            parser.mode = Mode::Text(Channel::Reasoning);
            parser.trim = true;
        }
        parser
    }

    /// Takes the next piece of the answer.
    pub fn push(&mut self, text: &str) -> Vec<ChatDelta> {
        self.queue.extend(text.chars());
        self.run();
        std::mem::take(&mut self.deltas)
    }

    /// The answer is over: what was held back is told. Pieces that are pushed afterwards belong to another answer.
    pub fn finish(&mut self) -> Vec<ChatDelta> {
        loop {
            let held = std::mem::take(&mut self.held);
            self.emit_text(&held);
            match std::mem::replace(&mut self.mode, Mode::Text(Channel::Content)) {
                Mode::Text(channel) => {
                    self.mode = Mode::Text(channel);
                    break;
                }
                Mode::Call(open) if open.told => {
                    self.stretch(Channel::Content);
                    // Brackets and commas between calls say nothing.
                    if !open.raw.chars().all(|character| character.is_whitespace() || "{}[],".contains(character)) {
                        self.emit_text(&open.raw);
                    }
                }
                Mode::Call(open) => self.emit_text(&open.raw),
                Mode::After(syntax, gap) => {
                    self.stretch(Channel::Content);
                    let rest = gap.trim_start_matches(is_separator);
                    if !self.syntax(syntax).close.starts_with(rest) || rest.is_empty() {
                        self.emit_text(&gap);
                    }
                }
                // A header without an end says nothing; without a channel it is text.
                Mode::Header(header) => {
                    let text = after_role(&header);
                    if !text.contains(harmony::CHANNEL) && !harmony::CHANNEL.starts_with(text) {
                        self.emit_text(text);
                    }
                }
            }
        }
        if !self.at_start || !self.trim {
            match self.mode {
                Mode::Text(Channel::Content) => self.flush_blank(),
                _ => self.blank.clear(),
            }
        }
        self.blank.clear();
        std::mem::take(&mut self.deltas)
    }

    fn run(&mut self) {
        while let Some(character) = self.queue.pop_front() {
            match &self.mode {
                Mode::Text(channel) => self.text(*channel, character),
                Mode::Call(_) => self.call(character),
                Mode::After(..) => self.after(character),
                Mode::Header(_) => self.header(character),
            }
        }
    }

    /// One character of text, or of a marker in it.
    fn text(&mut self, channel: Channel, character: char) {
        self.held.push(character);
        while !self.held.is_empty() {
            match self.find(channel) {
                Found::Marker(action) => {
                    let marker = std::mem::take(&mut self.held);
                    return self.act(action, marker);
                }
                Found::Beginning => return,
                Found::Nothing => {
                    let first = self.held.remove(0);
                    if let Some(syntax) = self.begins_call(channel, first) {
                        self.open(syntax, String::new());
                        self.give_back(first, "");
                        return;
                    }
                    self.emit(first);
                }
            }
        }
    }

    /// What the held text is.
    fn find(&self, channel: Channel) -> Found {
        let held = self.held.as_str();
        let mut found = Found::Nothing;
        let mut look = |marker: &str, action: Action| {
            if marker == held {
                found = Found::Marker(action);
            } else if marker.starts_with(held) && matches!(found, Found::Nothing) {
                found = Found::Beginning;
            }
        };
        let family = self.format.family();
        match channel {
            _ if family.harmony => {
                look(harmony::START, Action::Header(""));
                look(harmony::CHANNEL, Action::Header(harmony::CHANNEL));
                for marker in [harmony::CONSTRAIN, harmony::MESSAGE, harmony::END, harmony::RETURN, harmony::CALL] {
                    look(marker, Action::Drop);
                }
            }
            Channel::Content => {
                for (index, syntax) in family.calls.iter().enumerate() {
                    if self.tools && !syntax.open.is_empty() && (self.at_start || !syntax.doubtful) {
                        look(syntax.open, Action::Call(index));
                    }
                }
                if self.at_start {
                    let open = self.format.reasoning().flat_map(|reasoning| reasoning.open);
                    open.for_each(|marker| look(marker, Action::OpenReasoning));
                }
            }
            Channel::Reasoning => {
                let close = self.format.reasoning().flat_map(|reasoning| reasoning.close);
                close.for_each(|marker| look(marker, Action::CloseReasoning));
            }
        }
        if self.format.drops_response() {
            RESPONSE.iter().for_each(|marker| look(marker, Action::Drop));
        }
        if self.special && matches!(found, Found::Nothing | Found::Beginning) {
            match self.format.control(held) {
                (true, _) if matches!(found, Found::Nothing) => found = Found::Marker(Action::Drop),
                (_, true) => found = Found::Beginning,
                _ => {}
            }
        }
        found
    }

    /// Which unmarked way to write calls may begin with this character.
    fn begins_call(&self, channel: Channel, character: char) -> Option<usize> {
        let possible = self.tools && self.at_start && channel == Channel::Content && matches!(character, '{' | '[');
        let possible = possible && self.calls.len() < MAX_CALLS;
        let mut calls = self.format.family().calls.iter();
        if possible { calls.position(|syntax| syntax.open.is_empty()) } else { None }
    }

    fn act(&mut self, action: Action, marker: String) {
        match action {
            Action::Drop => {}
            Action::OpenReasoning => self.stretch(Channel::Reasoning),
            Action::CloseReasoning => self.stretch(Channel::Content),
            Action::Call(syntax) => self.open(syntax, marker),
            Action::Header(header) => self.mode = Mode::Header(header.to_owned()),
        }
    }

    /// A new stretch of text begins, and the white space at the end of the last one is dropped.
    fn stretch(&mut self, channel: Channel) {
        self.blank.clear();
        self.mode = Mode::Text(channel);
        self.at_start = true;
        self.trim = true;
        self.new_line = false;
    }

    fn syntax(&self, index: usize) -> &'static Syntax {
        &self.format.family().calls[index]
    }

    fn open(&mut self, syntax: usize, marker: String) {
        // What was held behind the marker's first character comes again.
        let held = std::mem::take(&mut self.held);
        self.give_back_text(&held);
        if self.calls.len() >= MAX_CALLS {
            self.emit_text(&marker);
            return;
        }
        let reader = Reader::new(self.syntax(syntax));
        let open = Open { syntax: Some(syntax), reader, marker: marker.len(), raw: marker, told: false, size: 0 };
        self.mode = Mode::Call(Box::new(open));
    }

    /// One character inside a call.
    fn call(&mut self, character: char) {
        let Mode::Call(open) = &mut self.mode else { return };
        let in_arguments = open.reader.in_arguments();
        let mut events = Vec::new();
        let mut step = open.reader.push(character, &self.known, &mut events);
        open.size += character.len_utf8();
        if open.size > MAX_CALL && step == Step::More {
            step = Step::Bad;
        }
        let calls = events.iter().filter(|event| matches!(event, Event::Call { .. })).count();
        if self.calls.len() + calls > MAX_CALLS {
            events.clear();
            step = Step::Bad;
        }
        if !events.is_empty() {
            open.raw.clear();
            open.marker = 0;
            open.told = true;
        } else if !in_arguments || step == Step::Bad {
            open.raw.push(character);
        }
        for event in events {
            self.tell(event);
        }
        match step {
            Step::More => {}
            Step::Done => self.call_done(),
            Step::Bad => self.no_call(),
        }
    }

    fn tell(&mut self, event: Event) {
        match event {
            Event::Call { name, id } => {
                self.blank.clear();
                let index = self.calls.len();
                let id = self.id(index, &name, id);
                self.deltas.push(ChatDelta::ToolCall { index, id: id.clone(), name: name.clone() });
                self.calls.push(Call { id, name, arguments: String::new() });
            }
            Event::Arguments(text) => {
                let Some(index) = self.calls.len().checked_sub(1) else { return };
                self.calls[index].arguments.push_str(&text);
                match self.deltas.last_mut() {
                    Some(ChatDelta::Arguments { index: last, text: before }) if *last == index => {
                        before.push_str(&text);
                    }
                    _ => self.deltas.push(ChatDelta::Arguments { index, text }),
                }
            }
        }
    }

    /// The id of a call: the model's own where the family has ids and it is new, otherwise one that follows from the prompt,
    /// the place and the name.
    fn id(&self, index: usize, name: &str, given: Option<String>) -> String {
        let short = self.format.family().short_ids;
        let given = given.filter(|id| {
            let fits = if short { id.len() == ids::SHORT } else { (1..=64).contains(&id.len()) };
            let plain = id.chars().all(|character| character.is_ascii_alphanumeric() || matches!(character, '_' | '-'));
            fits && plain && self.calls.iter().all(|call| call.id != *id)
        });
        given.unwrap_or_else(|| ids::id(self.seed, index, name, short))
    }

    fn call_done(&mut self) {
        let Mode::Call(open) = &self.mode else { return };
        let syntax = open.syntax;
        self.stretch(Channel::Content);
        if let Some(syntax) = syntax {
            self.mode = Mode::After(syntax, String::new());
        }
    }

    /// What was read is not a call, or no longer.
    fn no_call(&mut self) {
        let Mode::Call(open) = std::mem::replace(&mut self.mode, Mode::Text(Channel::Content)) else { return };
        // The marker or the first character has been searched: what begins with it is no call.
        let mut searched = open.marker.max(open.raw.chars().next().map_or(0, char::len_utf8));
        if open.told {
            self.stretch(Channel::Content);
            searched = 0;
        }
        if open.raw.len() > MAX_AGAIN {
            searched = open.raw.len();
        }
        let (text, again) = open.raw.split_at(searched);
        self.emit_text(text);
        self.give_back_text(again);
    }

    /// One character after a call.
    fn after(&mut self, character: char) {
        let Mode::After(index, gap) = &mut self.mode else { return };
        let index = *index;
        gap.push(character);
        let syntax = &self.format.family().calls[index];
        let rest = gap.trim_start_matches(is_separator);
        if rest.is_empty() && gap.len() <= MAX_BLANK {
            return;
        }
        if !syntax.close.is_empty() && syntax.close.starts_with(rest) && !rest.is_empty() {
            if rest == syntax.close {
                self.stretch(Channel::Content);
            }
            return;
        }
        let another = rest == "{";
        let gap = std::mem::take(gap);
        if another && syntax.body == Body::Json && self.calls.len() < MAX_CALLS {
            let reader = Reader::new(syntax);
            let marker = gap.len() - 1;
            let raw = gap[..marker].to_owned();
            self.mode = Mode::Call(Box::new(Open { syntax: Some(index), reader, raw, marker, told: false, size: 0 }));
            self.queue.push_front('{');
            return;
        }
        self.stretch(Channel::Content);
        self.give_back_text(&gap);
    }

    /// `character`, then `text`, are read again.
    fn give_back(&mut self, character: char, text: &str) {
        self.give_back_text(text);
        self.queue.push_front(character);
    }

    fn give_back_text(&mut self, text: &str) {
        for character in text.chars().rev() {
            self.queue.push_front(character);
        }
    }
}

/// What may stand between calls.
fn is_separator(character: char) -> bool {
    character.is_whitespace() || matches!(character, ',' | ';')
}

enum Found {
    Marker(Action),
    /// The beginning of a marker.
    Beginning,
    Nothing,
}
