//! Tool calls as a grammar: what an answer may be, so that calls name a tool and arguments follow its schema.
//!
//! The source is Lark in the dialect of llguidance: `%json {…}` is what matches a schema, `<[5]>` the token 5, and a rule with
//! `[lazy]` ends as soon as it matches. Control tokens are written by number, because no text is one; other markers are text.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::ChatFormat;
use super::families::{Body, Syntax, harmony};
use super::tools::Tool;
use crate::grammar::Grammar;
use crate::{Error, Model, Result};

/// Deepest nesting of a schema that is written out (FunctionGemma, Gemma 4); below it any text will do.
const MAX_WRITTEN: usize = 8;
/// Most arguments of one tool that are written out: optional ones need a rule each.
const MAX_WRITTEN_ARGUMENTS: usize = 256;

/// Any text.
const TEXT: &str = "/(?s:.*)/";

/// Which tools an answer may or must call.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// None.
    None,
    /// At least one.
    Required,
    /// This one, once.
    Named(String),
}

impl ChatFormat {
    /// [`tool_lark`](ChatFormat::tool_lark) for the vocabulary of `model`, with JSON written as `json.dumps` of Python does: where any
    /// white space may stand, models lose themselves in it.
    ///
    /// # Errors
    /// As there; [`Error::Grammar`] for a schema that is not supported, with what of it.
    pub fn tool_grammar(&self, model: &Model, prompt: &str, tools: &[Tool], choice: &ToolChoice) -> Result<Grammar> {
        Grammar::of_calls(model, &self.tool_lark(prompt, tools, choice)?)
    }

    /// The grammar of an answer to `prompt` that may or must call tools, as `choice` says. Reasoning comes first where the model
    /// reasons; inside of it everything goes.
    ///
    /// # Errors
    /// [`Error::Argument`] when `choice` names a tool that is not there, or asks for a call without tools, or when a tool has too
    /// many arguments for this format.
    pub fn tool_lark(&self, prompt: &str, tools: &[Tool], choice: &ToolChoice) -> Result<String> {
        let chosen: Vec<&Tool> = match choice {
            ToolChoice::None => Vec::new(),
            ToolChoice::Auto => tools.iter().collect(),
            ToolChoice::Required if tools.is_empty() => {
                return Err(Error::Argument("tool_choice \"required\" needs tools, found none".into()));
            }
            ToolChoice::Required => tools.iter().collect(),
            ToolChoice::Named(name) => {
                let tool = tools.iter().find(|tool| tool.name == *name);
                vec![tool.ok_or_else(|| {
                    Error::Argument(format!("tool_choice names {name:?}, which is not among the tools"))
                })?]
            }
        };
        let mut lark = Lark { format: self, rules: Vec::new() };
        let start = match self.family().harmony {
            true => lark.channels(prompt, &chosen, choice)?,
            false => {
                let thought = lark.thought(prompt);
                let answer = lark.answer(&chosen, choice)?;
                format!("{thought}{answer}")
            }
        };
        let mut source = format!("start: {start}\n");
        for rule in lark.rules {
            source.push_str(&rule);
            source.push('\n');
        }
        Ok(source)
    }
}

/// Text as Lark writes it.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Text as a regular expression between slashes.
fn escaped(text: &str) -> String {
    let mut regex = String::new();
    for character in text.chars() {
        match character {
            '\n' => regex.push_str("\\n"),
            _ if ".+*?()|[]{}^$\\/".contains(character) => {
                regex.push('\\');
                regex.push(character);
            }
            _ => regex.push(character),
        }
    }
    regex
}

/// What matches a schema.
fn schema_rule(schema: &Value) -> String {
    format!("%json {schema}")
}

/// A grammar that is being written.
struct Lark<'a> {
    format: &'a ChatFormat,
    rules: Vec<String>,
}

impl Lark<'_> {
    /// Adds a rule; its name.
    fn rule(&mut self, kind: &str, attributes: &str, body: &str) -> String {
        let name = format!("{kind}_{}", self.rules.len());
        self.rules.push(format!("{name}{attributes}: {body}"));
        name
    }

    /// A marker: control tokens by number, and text.
    fn marker(&self, marker: &str) -> String {
        if marker.is_empty() {
            return String::new();
        }
        match self.control(marker) {
            Some((id, "")) => format!("<[{id}]>"),
            Some((id, rest)) => format!("<[{id}]> {}", quoted(rest)),
            None => quoted(marker),
        }
    }

    /// The control token that a marker begins with, and the rest.
    fn control<'m>(&self, marker: &'m str) -> Option<(u32, &'m str)> {
        let tokens = self.format.0.tokens.iter().filter(|(_, token)| token.control);
        let longest = tokens.filter_map(|(text, token)| Some((token.id, marker.strip_prefix(text)?)));
        longest.min_by_key(|(_, rest)| rest.len())
    }

    /// Any text up to and with one of these markers.
    fn until(&mut self, markers: &[&str]) -> String {
        let (mut ways, mut literal) = (Vec::new(), Vec::new());
        for marker in markers {
            match self.control(marker) {
                Some(_) => ways.push(format!("{TEXT} {}", self.marker(marker))),
                None => literal.push(escaped(marker)),
            }
        }
        if !literal.is_empty() {
            ways.push(format!("/(?s:.*)({})/", literal.join("|")));
            if ways.len() == 1 {
                return self.rule("until", "[lazy]", &ways[0]);
            }
            let last = ways.len() - 1;
            ways[last] = self.rule("until", "[lazy]", &ways[last].clone());
        }
        self.rule("until", "", &ways.join(" | "))
    }

    /// Reasoning before the answer.
    fn thought(&mut self, prompt: &str) -> String {
        let format = self.format;
        let close: Vec<&str> = format.reasoning().flat_map(|reasoning| reasoning.close).copied().collect();
        let open: Vec<&str> = format.reasoning().flat_map(|reasoning| reasoning.open).copied().collect();
        let before = prompt.trim_end();
        // The prompt may have written reasoning that is empty.
        if close.is_empty() || close.iter().any(|close| before.ends_with(close)) {
            return String::new();
        }
        let end = self.until(&close);
        if format.opens_reasoning(prompt) {
            return format!("{end} /\\s{{0,4}}/ ");
        }
        let open: Vec<String> = open.iter().map(|marker| self.marker(marker)).collect();
        let open = self.rule("open", "", &open.join(" | "));
        let thought = self.rule("thought", "", &format!("{open} {end} /\\s{{0,4}}/"));
        format!("{thought}? ")
    }

    fn answer(&mut self, tools: &[&Tool], choice: &ToolChoice) -> Result<String> {
        let format = self.format;
        let [syntax, others @ ..] = format.family().calls else { return Ok(TEXT.to_owned()) };
        if tools.is_empty() {
            return Ok(TEXT.to_owned());
        }
        // What stands between the markers is the same everywhere.
        let inside = self.inside(syntax, tools, matches!(choice, ToolChoice::Named(_)))?;
        let close = self.marker(syntax.close);
        let call = self.rule("call", "", &format!("{inside} {close}"));
        if syntax.open.is_empty() {
            // Another marker of the family that no text is may come before.
            let marked = others.iter().filter(|other| other.body == syntax.body && self.control(other.open).is_some());
            let marked: Vec<String> = marked.map(|other| format!("({})? ", self.marker(other.open))).collect();
            let call = format!("{}{call}", marked.concat());
            return Ok(match choice {
                ToolChoice::Auto => {
                    let calls = self.rule("calls", "", &format!("{call} (/[;\\n] ?/ {call})*"));
                    // Text that does not look like a call.
                    self.rule("answer", "", &format!("{calls} | /[^{{\\[\\s](?s:.*)/"))
                }
                ToolChoice::Required => format!("{call} (/[;\\n] ?/ {call})*"),
                _ => call,
            });
        }
        let open = self.marker(syntax.open);
        Ok(match choice {
            ToolChoice::Auto => {
                let until = self.until(&[syntax.open]);
                format!("({until} {call})* {TEXT}")
            }
            ToolChoice::Required => {
                let one = self.rule("one", "", &format!("{open} {call}"));
                format!("{one} (/\\n?/ {one})*")
            }
            _ => format!("{open} {call}"),
        })
    }

    /// What stands between the markers of a call of one of the tools.
    fn inside(&mut self, syntax: &Syntax, tools: &[&Tool], once: bool) -> Result<String> {
        let family = self.format.family();
        let source = self.format.source();
        let mut ways = Vec::new();
        let named = syntax.body == Body::Mistral && (source.contains("[ARGS]") || self.control("[ARGS]").is_some());
        for tool in tools {
            let name = tool.name.as_str();
            let way = match syntax.body {
                Body::Json | Body::Mistral if !named => {
                    let arguments = self.rule("arguments", "", &schema_rule(&tool.schema()));
                    let head = format!("{{\"name\": \"{name}\", \"{}\": ", family.arguments);
                    let tail =
                        if family.short_ids { "\", \\\"id\\\": \\\"\" /[a-zA-Z0-9]{9}/ \"\\\"}\"" } else { "\"}\"" };
                    format!("{} {arguments} {tail}", quoted(&head))
                }
                Body::Mistral | Body::Json => {
                    let arguments = self.rule("arguments", "", &schema_rule(&tool.schema()));
                    let id = match source.contains("[CALL_ID]") {
                        true => format!("{} /[a-zA-Z0-9]{{9}}/ ", self.marker("[CALL_ID]")),
                        false => String::new(),
                    };
                    format!("{} {id}{} {arguments}", quoted(name), self.marker("[ARGS]"))
                }
                Body::Named(end) => {
                    let arguments = self.rule("arguments", "", &schema_rule(&tool.schema()));
                    format!("{} {arguments}", quoted(&format!("{name}{end}")))
                }
                Body::Xml(_) => self.xml(tool)?,
                Body::Python => {
                    let arguments = self.list(tool, |lark, key, schema| {
                        let value = lark.rule("value", "", &schema_rule(&schema));
                        format!("{} {value}", quoted(&format!("{key}=")))
                    })?;
                    format!("{} {arguments} \")\"", quoted(&format!("{name}(")))
                }
                Body::Bare(quote) => {
                    let arguments = self.list(tool, |lark, key, schema| {
                        let value = lark.bare(&schema, quote, MAX_WRITTEN);
                        format!("{} {value}", quoted(&format!("{key}:")))
                    })?;
                    format!("{} {arguments} \"}}\"", quoted(&format!("call:{name}{{")))
                }
            };
            ways.push(way);
        }
        let call = self.rule("tool", "", &ways.join(" | "));
        let more = |separator: &str| if once { String::new() } else { format!(" ({} {call})*", quoted(separator)) };
        Ok(match syntax.body {
            Body::Json if family.list => format!("\"[\" {call}{} \"]\"", more(", ")),
            // As Hermes and Qwen are told to.
            Body::Json if syntax.close.starts_with("</") => format!("\"\\n\" {call} \"\\n\""),
            Body::Mistral if !named => format!("/ ?/ \"[\" {call}{} \"]\"", more(", ")),
            Body::Python => format!("\"[\" {call}{} \"]\"", more(", ")),
            Body::Xml(true) => format!("\"\\n<function=\" {call} \"\\n\""),
            _ => call,
        })
    }

    /// The schemas of the arguments, with the definitions they refer to: key, schema, required.
    fn properties(tool: &Tool) -> Result<Vec<(String, Value, bool)>> {
        let required = tool.parameters.get("required").and_then(Value::as_array);
        let is_required = |key: &str| required.is_some_and(|names| names.iter().any(|name| name == key));
        let none = Map::new();
        let properties = tool.parameters.get("properties").and_then(Value::as_object).unwrap_or(&none);
        if properties.len() > MAX_WRITTEN_ARGUMENTS {
            let (name, found) = (&tool.name, properties.len());
            let what = format!(
                "tool {name:?} must have at most {MAX_WRITTEN_ARGUMENTS} arguments to be constrained, found {found}"
            );
            return Err(Error::Argument(what));
        }
        let with_definitions = |schema: &Value| {
            let mut schema = schema.clone();
            for key in ["$defs", "definitions"] {
                if let (Some(definitions), Some(map)) = (tool.parameters.get(key), schema.as_object_mut()) {
                    map.insert(key.to_owned(), definitions.clone());
                }
            }
            schema
        };
        Ok(properties.iter().map(|(key, schema)| (key.clone(), with_definitions(schema), is_required(key))).collect())
    }

    /// Arguments in the order of the schema with commas between them, required ones first.
    fn list(&mut self, tool: &Tool, mut write: impl FnMut(&mut Self, &str, Value) -> String) -> Result<String> {
        let comma = if self.format.family().calls[0].body == Body::Python { "\", \"" } else { "\",\"" };
        let (mut required, mut optional) = (Vec::new(), Vec::new());
        for (key, schema, is_required) in Self::properties(tool)? {
            let written = write(self, &key, schema);
            let rule = self.rule("argument", "", &written);
            if is_required { required.push(rule) } else { optional.push(rule) }
        }
        let separator = format!(" {comma} ");
        if !required.is_empty() {
            let mut list = required.join(&separator);
            optional.iter().for_each(|rule| {
                let _ = write!(list, " ({comma} {rule})?");
            });
            return Ok(list);
        }
        // Without a required one, each may be the first: `rest_i` is what may follow the argument before i.
        let mut rest = String::new();
        let mut ways = Vec::new();
        for rule in optional.iter().rev() {
            ways.push(format!("{rule} {rest}"));
            rest = self.rule("rest", "", &format!("({comma} {rule})? {rest}"));
        }
        if ways.is_empty() {
            return Ok(String::new());
        }
        ways.reverse();
        let any = self.rule("any", "", &ways.join(" | "));
        Ok(format!("({any})?"))
    }

    /// The strings of an enum, as text.
    fn choices(schema: &Value) -> Option<Vec<&str>> {
        let values = schema["enum"].as_array().filter(|values| !values.is_empty())?;
        values.iter().map(Value::as_str).collect()
    }

    fn xml(&mut self, tool: &Tool) -> Result<String> {
        let mut call = quoted(&format!("{}>\n", tool.name));
        for (key, schema, required) in Self::properties(tool)? {
            let open = quoted(&format!("<parameter={key}>\n"));
            let text = schema["type"] == "string" || (schema["type"].is_null() && schema.get("$ref").is_none());
            let value = if let Some(choices) = Self::choices(&schema) {
                let choices: Vec<String> = choices.into_iter().map(quoted).collect();
                format!("({}) \"\\n</parameter>\\n\"", choices.join(" | "))
            } else if text && schema.get("anyOf").is_none() {
                self.rule("text", "[lazy]", "/(?s:.*)\\n<\\/parameter>\\n/")
            } else {
                let value = self.rule("value", "", &schema_rule(&schema));
                format!("{value} \"\\n</parameter>\\n\"")
            };
            let rule = self.rule("argument", "", &format!("{open} {value}"));
            let _ = write!(call, " {rule}{}", if required { "" } else { "?" });
        }
        Ok(format!("{call} \"</function>\""))
    }

    /// A value in the notation of Gemma: this around strings, nothing around keys.
    fn bare(&mut self, schema: &Value, quote: &str, depth: usize) -> String {
        let mark = self.marker(quote);
        if let Some(choices) = Self::choices(schema) {
            let choices: Vec<String> = choices.into_iter().map(quoted).collect();
            return format!("{mark} ({}) {mark}", choices.join(" | "));
        }
        match schema["type"].as_str() {
            Some("integer" | "number" | "boolean" | "null") => self.rule("value", "", &schema_rule(schema)),
            Some("array") if depth > 0 => {
                let item = self.bare(&schema["items"], quote, depth - 1);
                let item = self.rule("item", "", &item);
                format!("\"[\" ({item} (\",\" {item})*)? \"]\"")
            }
            Some("object") if depth > 0 => {
                let none = Map::new();
                let properties = schema["properties"].as_object().unwrap_or(&none);
                let mut fields = Vec::new();
                for (key, schema) in properties.iter().take(MAX_WRITTEN_ARGUMENTS) {
                    let value = self.bare(schema, quote, depth - 1);
                    fields.push(self.rule("field", "", &format!("{} {value}", quoted(&format!("{key}:")))));
                }
                // All of them, in order: what the model was shown.
                format!("\"{{\" {} \"}}\"", fields.join(" \",\" "))
            }
            _ => {
                let until = self.until(&[quote]);
                format!("{mark} {until}")
            }
        }
    }

    /// The messages of harmony.
    fn channels(&mut self, prompt: &str, tools: &[&Tool], choice: &ToolChoice) -> Result<String> {
        let [start, channel, constrain, message, end, ..] = harmony::ALL.map(|marker| self.marker(marker));
        let thought =
            self.rule("thought", "", &format!("{channel} \"analysis\" {message} {TEXT} {end} {start} \"assistant\""));
        let last = self.rule("last", "", &format!("{channel} \"final\" {message} {TEXT}"));
        let begins = prompt.trim_end().ends_with(&format!("{}assistant", harmony::START));
        let role = if begins { String::new() } else { format!("({start} \"assistant\")? ") };
        if tools.is_empty() {
            return Ok(format!("{role}{thought}* {last}"));
        }
        let mut ways = Vec::new();
        for tool in tools {
            let arguments = self.rule("arguments", "", &schema_rule(&tool.schema()));
            let to = quoted(&format!("commentary to=functions.{} ", tool.name));
            ways.push(format!("{channel} {to} {constrain} \"json\" {message} {arguments}"));
        }
        let call = self.rule("call", "", &ways.join(" | "));
        Ok(match choice {
            ToolChoice::Auto => format!("{role}{thought}* ({call} | {last})"),
            _ => format!("{role}{thought}* {call}"),
        })
    }
}
