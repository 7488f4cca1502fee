//! What a template can do, found by rendering small conversations with it.
//!
//! Templates differ in what they take: a list of parts as content, arguments as objects or as text, messages of tools. What comes
//! out says it best. Nothing is rendered for a conversation of plain texts, unless the template itself looks for parts.

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;
use serde_json::{Map, Value, json};

use crate::template::ChatTemplate;

/// Names of variables and attributes in the tags of a template.
pub(super) fn names(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (token, _) in tokenize(source, false, SyntaxConfig::default()).map_while(|token| token.ok()) {
        if let Token::Ident(name) = token {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// How content may come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Content {
    /// As text only.
    Text,
    /// As text or as a list of parts.
    Both,
    /// As a list of parts only.
    Parts,
}

/// How calls in the conversation may come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Calls {
    /// With arguments as objects.
    Objects,
    /// With arguments as JSON text.
    Texts,
    /// The template leaves them out, or refuses them.
    No,
}

/// What `messages` give, `None` when the template refuses them.
fn render(template: &ChatTemplate, messages: &Value, tools: Option<&Value>) -> Option<String> {
    template.render(messages.as_array()?, tools, true, &Map::new()).ok()
}

/// How content may come.
pub(super) fn content(template: &ChatTemplate) -> Content {
    let shown = |content: Value| {
        let text = render(template, &json!([{"role": "user", "content": content}]), None).unwrap_or_default();
        text.contains("fastq-text")
            && !text.contains("fastq-type")
            && !text.contains("'type'")
            && !text.contains("\"type\"")
    };
    let parts = shown(json!([{"type": "text", "text": "fastq-text"}]));
    match (parts, parts && !shown("fastq-text".into())) {
        (false, _) => Content::Text,
        (true, false) => Content::Both,
        (true, true) => Content::Parts,
    }
}

/// How calls may come.
pub(super) fn calls(template: &ChatTemplate, takes_tools: bool) -> Calls {
    let tools = json!([{"type": "function", "function": {
        "name": "fastq_name", "description": "fastq",
        "parameters": {"type": "object", "properties": {"fastq_key": {"type": "string", "description": "fastq"}}, "required": ["fastq_key"]},
    }}]);
    let shown = |arguments: Value| {
        let messages = json!([
            {"role": "user", "content": "fastq"},
            {"role": "assistant", "content": "", "tool_calls": [
                {"id": "abcdefghi", "type": "function", "function": {"name": "fastq_called", "arguments": arguments}},
            ]},
            {"role": "tool", "tool_call_id": "abcdefghi", "name": "fastq_called", "content": "fastq_result"},
        ]);
        let text = render(template, &messages, takes_tools.then_some(&tools)).unwrap_or_default();
        let all =
            ["fastq_called", "fastq_argument", "fastq_value", "fastq_result"].iter().all(|word| text.contains(word));
        // Quotes inside of quotes: it was not an object for the template.
        all && !text.contains("\\\"fastq_argument")
    };
    if shown(json!({"fastq_argument": "fastq_value"})) {
        Calls::Objects
    } else if shown("{\"fastq_argument\": \"fastq_value\"}".into()) {
        Calls::Texts
    } else {
        Calls::No
    }
}

/// Whether a system message comes through.
pub(super) fn system(template: &ChatTemplate) -> bool {
    let messages = json!([{"role": "system", "content": "fastq_system"}, {"role": "user", "content": "fastq"}]);
    render(template, &messages, None).is_some_and(|text| text.contains("fastq_system"))
}
