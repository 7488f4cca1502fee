//! Chat: how a model writes tool calls and reasoning, and its answers taken apart.
//!
//! [`ChatFormat::of`] finds the format from the template of the file and the tokens of its vocabulary. It prepares conversations
//! for the template ([`ChatFormat::prepare`]), reads answers while they are written ([`ChatFormat::parser`]), and describes what a
//! call must look like as a grammar ([`ChatFormat::tool_lark`]).
//!
//! ```
//! use fastq_core::chat::{ChatDelta, ChatFormat};
//! use fastq_core::template::ChatTemplate;
//!
//! // A template that writes tools and calls as Hermes and Qwen do.
//! let source = "{% for m in messages %}{{ m.content }}{% endfor %}{{ tools }} answer with <tool_call>{…}</tool_call>";
//! let template = ChatTemplate::new(source, "", "")?;
//! let format = ChatFormat::detect(Some(&template), &|_| None, Vec::new());
//! assert_eq!(format.name(), "hermes");
//!
//! let mut parser = format.parser("the prompt", true);
//! let mut deltas = parser.push("I look.\n<tool_call>\n{\"name\": \"weather\", \"argum");
//! deltas.extend(parser.push("ents\": {\"city\": \"Rome\"}}\n</tool_call>"));
//! deltas.extend(parser.finish());
//! assert_eq!(deltas[0], ChatDelta::Content("I look.".into()));
//! let message = parser.message();
//! assert_eq!(message["tool_calls"][0]["function"]["arguments"], "{\"city\": \"Rome\"}");
//! # Ok::<(), fastq_core::Error>(())
//! ```

mod bare;
mod call;
mod families;
mod ids;
mod json_call;
mod json_text;
mod lark;
mod messages;
mod named;
mod parser;
mod probe;
mod python;
mod tools;
mod xml;

use std::collections::HashMap;
use std::sync::Arc;

use call::Known;
use families::{FAMILIES, Family, REASONING, RESPONSE, Reasoning, harmony};
use serde_json::Value;

pub use json_text::MAX_ARGUMENTS_DEPTH;
pub use lark::ToolChoice;
pub use messages::{MAX_MESSAGES, Prepared};
pub use parser::{ChatDelta, ChatParser, MAX_CALL, MAX_CALLS};
pub use tools::{MAX_TOOL_DEPTH, MAX_TOOL_NAME, MAX_TOOLS, MAX_TOOLS_BYTES, Tool, read_tools};

use crate::template::ChatTemplate;
use crate::{Model, Result};

/// Control tokens that are shorter are not looked for in answers: `</s>` may be text.
const SHORTEST_CONTROL: usize = 5;

/// A marker that is one token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marker {
    /// Its id.
    pub id: u32,
    /// It is a control token: it shows in texts only when that is asked for, and plain text never is it.
    pub control: bool,
}

/// How a model writes tool calls and reasoning. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ChatFormat(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    family: &'static Family,
    reasoning: Vec<&'static Reasoning>,
    template: Option<ChatTemplate>,
    /// Names that the template uses, outside of its strings.
    names: Vec<String>,
    /// Markers that are tokens.
    tokens: HashMap<&'static str, Marker>,
    /// Control tokens that are not part of the format, sorted.
    control: Vec<String>,
}

impl ChatFormat {
    /// The format of a model. It looks through the vocabulary: keep it for the next answer.
    pub fn of(model: &Model) -> ChatFormat {
        let tokenizer = model.tokenizer();
        let control = (0..tokenizer.vocab_size() as u32)
            .filter(|&id| tokenizer.is_control(id))
            .filter_map(|id| tokenizer.token_text(id))
            .map(std::borrow::Cow::into_owned);
        ChatFormat::with_control(model, control.collect())
    }

    /// As [`ChatFormat::of`], for what needs no parser.
    pub(crate) fn of_prompt(model: &Model) -> ChatFormat {
        ChatFormat::with_control(model, Vec::new())
    }

    fn with_control(model: &Model, control: Vec<String>) -> ChatFormat {
        let tokenizer = model.tokenizer();
        let token = |text: &str| tokenizer.token_id(text).map(|id| Marker { id, control: tokenizer.is_control(id) });
        ChatFormat::detect(model.template(), &token, control)
    }

    /// The format that a template and a vocabulary show: what `token` knows are tokens, and `control` the texts of all control
    /// tokens.
    pub fn detect(
        template: Option<&ChatTemplate>,
        token: &dyn Fn(&str) -> Option<Marker>,
        mut control: Vec<String>,
    ) -> ChatFormat {
        let source = template.map_or("", ChatTemplate::source);
        let all_tokens = |markers: &[&str]| !markers.is_empty() && markers.iter().all(|text| token(text).is_some());
        let allowed = |family: &Family| !family.without.iter().any(|text| source.contains(text));
        let shown =
            |family: &Family| family.template.iter().any(|group| group.iter().all(|text| source.contains(text)));
        let found = FAMILIES.iter().find(|family| allowed(family) && shown(family));
        let found = found.or_else(|| FAMILIES.iter().find(|family| allowed(family) && all_tokens(family.vocabulary)));
        let family = found.unwrap_or(&FAMILIES[FAMILIES.len() - 1]);
        let reasoning = REASONING.iter().filter(|reasoning| {
            reasoning.template.iter().any(|text| source.contains(text)) || all_tokens(reasoning.vocabulary)
        });
        let reasoning: Vec<&Reasoning> = if family.harmony { Vec::new() } else { reasoning.collect() };

        let calls = family
            .calls
            .iter()
            .flat_map(|syntax| [syntax.open, syntax.close].into_iter().chain(syntax.inner.iter().copied()));
        let thoughts = reasoning
            .iter()
            .flat_map(|reasoning| reasoning.open.iter().chain(reasoning.close).chain(reasoning.vocabulary).copied());
        let channels = family.harmony.then_some(harmony::ALL).into_iter().flatten();
        let markers = calls.chain(thoughts).chain(channels);
        let tokens: HashMap<&str, Marker> = markers.filter_map(|text| Some((text, token(text)?))).collect();
        // What is left of a broken call is shown with its markers.
        control.retain(|text| text.len() >= SHORTEST_CONTROL && !tokens.contains_key(text.as_str()));
        control.sort_unstable();
        let names = probe::names(source);
        ChatFormat(Arc::new(Inner { family, reasoning, template: template.cloned(), names, tokens, control }))
    }

    /// What the format is called: `"hermes"`, `"qwen-xml"`, `"llama3"`, `"mistral"`, `"phi4"`, `"gemma3"`, `"functiongemma"`,
    /// `"gemma4"`, `"lfm2"`, `"granite"`, `"harmony"`, or `"json"` when neither template nor vocabulary show one.
    pub fn name(&self) -> &'static str {
        self.family().name
    }

    /// Whether answers of the model may hold reasoning.
    pub fn reasons(&self) -> bool {
        self.family().harmony || !self.0.reasoning.is_empty()
    }

    /// Whether the template describes tools itself. Where it does not, [`ChatFormat::prepare`] describes them.
    pub fn describes_tools(&self) -> bool {
        self.uses("tools") || self.takes_tools_in_message()
    }

    /// Whether the answer must be generated with control tokens shown ([`crate::GenerationOptions::special`]) for the parser to
    /// see the markers. The parser drops the control tokens that are not part of the format.
    pub fn special(&self, tools: bool) -> bool {
        let control = |text: &str| self.token(text).is_some_and(|marker| marker.control);
        let mut thoughts = self
            .reasoning()
            .flat_map(|reasoning| reasoning.open.iter().chain(reasoning.close).chain(reasoning.vocabulary));
        let mut calls = self.family().calls.iter();
        let call = |syntax: &families::Syntax| control(syntax.open) || syntax.inner.iter().any(|text| control(text));
        (self.family().harmony && harmony::ALL.into_iter().any(control))
            || thoughts.any(|text| control(text))
            || (tools && calls.any(call))
    }

    /// Reads one answer to `prompt`, the whole text that was continued: it shows whether the answer begins inside reasoning, and
    /// ids of calls follow from it. With `tools`, calls are looked for, otherwise they stay text.
    pub fn parser(&self, prompt: &str, tools: bool) -> ChatParser {
        ChatParser::new(self.clone(), prompt, tools, Known::default())
    }

    /// As [`ChatFormat::parser`] for an answer to a request with these tools. Knowing them, it takes unmarked JSON as a call only
    /// when it names one of them, and gives arguments that come without types (`qwen-xml`) those of the schema.
    pub fn parser_for(&self, prompt: &str, tools: &[Tool]) -> ChatParser {
        ChatParser::new(self.clone(), prompt, !tools.is_empty(), Known::new(tools.to_vec()))
    }

    /// As [`ChatFormat::parser_for`] after a prompt of tokens.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] for a token outside the vocabulary.
    pub fn parser_after(&self, model: &Model, prompt: &[u32], tools: &[Tool]) -> Result<ChatParser> {
        Ok(self.parser_for(&model.tokenizer().decode(prompt, true)?, tools))
    }

    /// Whether what follows `prompt` is reasoning.
    pub fn opens_reasoning(&self, prompt: &str) -> bool {
        let prompt = prompt.trim_end();
        self.reasoning().flat_map(|reasoning| reasoning.open).any(|open| prompt.ends_with(open.trim_end()))
    }

    fn family(&self) -> &'static Family {
        self.0.family
    }

    fn reasoning(&self) -> impl Iterator<Item = &'static Reasoning> {
        self.0.reasoning.iter().copied()
    }

    fn token(&self, text: &str) -> Option<Marker> {
        self.0.tokens.get(text).copied()
    }

    fn source(&self) -> &str {
        self.0.template.as_ref().map_or("", ChatTemplate::source)
    }

    /// Whether the template uses a variable or attribute of this name.
    fn uses(&self, name: &str) -> bool {
        self.0.names.iter().any(|used| used == name)
    }

    /// Phi-4-mini expects the tools as a text in the system message.
    fn takes_tools_in_message(&self) -> bool {
        !self.uses("tools") && ["['tools']", "[\"tools\"]"].iter().any(|text| self.source().contains(text))
    }

    /// Whether the template shows marks around the answer after reasoning.
    fn drops_response(&self) -> bool {
        self.source().contains(RESPONSE[0])
    }

    /// Whether `text` is a control token, and whether it begins one.
    fn control(&self, text: &str) -> (bool, bool) {
        let at = self.0.control.partition_point(|token| token.as_str() < text);
        let is = self.0.control.get(at).is_some_and(|token| token == text);
        let next = self.0.control.get(at + usize::from(is));
        (is, next.is_some_and(|token| token.starts_with(text)))
    }
}

/// Whether a value holds nothing: `null` or an empty list.
fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}
