//! Conversations as prompts.

use serde_json::{Map, Value};

use crate::chat::{ChatFormat, Tool, read_tools};
use crate::{Error, Interrupt, Model, Result};

/// The tokens of a conversation, rendered by the template of the file up to where the answer begins. The beginning token comes
/// once, whether the template writes it or the tokenizer would add it. `extra` are further variables of the template.
///
/// Messages and `tools` (a list) come in the shape of OpenAI and are prepared for the template ([`ChatFormat::prepare`]); where
/// it does not describe tools, the conversation does.
///
/// # Errors
/// [`Error::Template`] when the file has no template or it refuses the messages; [`Error::Argument`] naming the message or the
/// tool that is not valid; [`Error::Tokenizer`], [`Error::Cancelled`].
pub fn chat_tokens(
    model: &Model,
    messages: &[Value],
    tools: Option<&Value>,
    extra: &Map<String, Value>,
    interrupt: &dyn Interrupt,
) -> Result<Vec<u32>> {
    let tools = match tools {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(tools)) => read_tools(tools)?,
        Some(_) => return Err(Error::Argument("tools must be a list of function descriptions".into())),
    };
    prompt_tokens(model, &ChatFormat::of_prompt(model), messages, &tools, extra, interrupt)
}

/// As [`chat_tokens`], with the format and the tools that were read before.
///
/// # Errors
/// As [`chat_tokens`].
pub fn prompt_tokens(
    model: &Model,
    format: &ChatFormat,
    messages: &[Value],
    tools: &[Tool],
    extra: &Map<String, Value>,
    interrupt: &dyn Interrupt,
) -> Result<Vec<u32>> {
    let template = model.template().ok_or_else(|| {
        Error::Template(
            "the model file has no chat template (tokenizer.chat_template); give it a plain prompt instead".into(),
        )
    })?;
    let prepared = format.prepare(messages, tools)?;
    let text = template.render(&prepared.messages, prepared.tools.as_ref(), true, extra)?;
    let tokenizer = model.tokenizer();
    let mut tokens = tokenizer.encode(&text, false, true, interrupt)?;
    if let Some(bos) = tokenizer.bos().filter(|&bos| tokenizer.add_bos() && tokens.first() != Some(&bos)) {
        tokens.insert(0, bos);
    }
    Ok(tokens)
}
