//! Conversations from Python, and the answers to them taken apart.

use fastq_core::chat::{ChatDelta, ChatFormat, ChatParser, Tool, ToolChoice, read_tools};
use fastq_core::generate::prompt_tokens;

use fastq_core::{Error, GenerationOptions, Interrupt, Model, Result};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use serde_json::{Map, Value};

use crate::json;

/// A conversation that is to be answered.
pub(crate) struct Chat {
    messages: Vec<Value>,
    tools: Vec<Value>,
    choice: ToolChoice,
    variables: Map<String, Value>,
}

/// A conversation as a prompt, and what reads the answer.
pub(crate) struct Prepared {
    pub(crate) tokens: Vec<u32>,
    pub(crate) options: GenerationOptions,
    pub(crate) reader: Reader,
}

impl Chat {
    /// `choice` is `"auto"`, `"none"`, `"required"` or the name of a tool.
    pub(crate) fn read(
        messages: &Bound<'_, PyList>,
        tools: &Bound<'_, PyList>,
        choice: &str,
        variables: &Bound<'_, PyDict>,
    ) -> PyResult<Chat> {
        Ok(Chat {
            messages: json::objects(messages, "messages")?,
            tools: json::list(tools, "tools")?,
            choice: match choice {
                "auto" => ToolChoice::Auto,
                "none" => ToolChoice::None,
                "required" => ToolChoice::Required,
                name => ToolChoice::Named(name.to_owned()),
            },
            variables: json::object(variables, "variables")?,
        })
    }

    /// The prompt, the options with what the format of the model needs, and what reads the answer.
    ///
    /// # Errors
    /// As [`prompt_tokens`], [`ChatFormat::tool_grammar`]; [`Error::Argument`] for a choice that does not fit the options.
    pub(crate) fn prepare(
        &self,
        model: &Model,
        format: &ChatFormat,
        mut options: GenerationOptions,
        interrupt: &dyn Interrupt,
    ) -> Result<Prepared> {
        // Tools that must not be called are not told of.
        let tools = if self.choice == ToolChoice::None { Vec::new() } else { read_tools(&self.tools)? };
        let demanded = matches!(self.choice, ToolChoice::Required | ToolChoice::Named(_));
        let tokens = prompt_tokens(model, format, &self.messages, &tools, &self.variables, interrupt)?;
        let prompt = model.tokenizer().decode(&tokens, true)?;
        options.special |= format.special(!tools.is_empty());
        if demanded || tools.iter().any(is_strict) {
            if options.grammar.is_some() {
                return Err(Error::Argument(
                    "schema, regex, choices and grammar exclude tools whose calls are demanded or strict".into(),
                ));
            }
            options.grammar = Some(format.tool_grammar(model, &prompt, &tools, &self.choice)?);
        }
        let reader = Reader { format: format.clone(), prompt, tools };
        Ok(Prepared { tokens, options, reader })
    }
}

/// Whether the arguments of a tool shall follow its schema in any case, as OpenAI has it.
fn is_strict(tool: &Tool) -> bool {
    tool.definition["function"]["strict"] == true || tool.definition["strict"] == true
}

/// Reads answers to one prompt.
#[derive(Clone)]
pub(crate) struct Reader {
    format: ChatFormat,
    prompt: String,
    tools: Vec<Tool>,
}

impl Reader {
    /// At the beginning of an answer.
    pub(crate) fn parser(&self) -> ChatParser {
        self.format.parser_for(&self.prompt, &self.tools)
    }

    /// A whole answer as a message in the form of OpenAI.
    pub(crate) fn message(&self, text: &str) -> Value {
        let mut parser = self.parser();
        parser.push(text);
        parser.finish();
        parser.message()
    }
}

/// Kind, text, index, id and name, as the fields of `fastq.ChatDelta`.
pub(crate) type PyDelta = (&'static str, String, usize, String, String);

pub(crate) fn delta(delta: ChatDelta) -> PyDelta {
    match delta {
        ChatDelta::Content(text) => ("content", text, 0, String::new(), String::new()),
        ChatDelta::Reasoning(text) => ("reasoning", text, 0, String::new(), String::new()),
        ChatDelta::ToolCall { index, id, name } => ("tool_call", String::new(), index, id, name),
        ChatDelta::Arguments { index, text } => ("arguments", text, index, String::new(), String::new()),
    }
}
