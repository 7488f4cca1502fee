//! Conversations to calibrate with.

use serde_json::{Map, Value};

use crate::{Error, Interrupt, Model, Result};

/// The tokens of conversations, as the chat template of the model writes them: each line of `text` is JSON, a list of messages or an object with the
/// list `messages`, and perhaps `tools`. Empty lines are skipped.
///
/// # Errors
/// [`Error::Template`] when the model has no template or it refuses the messages; [`Error::Argument`] with the line that is something else;
/// [`Error::Tokenizer`], [`Error::Cancelled`].
pub fn conversations(model: &Model, text: &str, interrupt: &dyn Interrupt) -> Result<Vec<u32>> {
    let template = model.template().ok_or_else(|| {
        let path = model.gguf().path().display();
        Error::Template(format!(
            "{path}: the file has no chat template (tokenizer.chat_template); calibrate with plain text"
        ))
    })?;
    let mut tokens = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |what: String| Error::Argument(format!("line {} of the conversations {what}", index + 1));
        let value: Value = serde_json::from_str(line).map_err(|error| wrong(format!("is not JSON: {error}")))?;
        let (messages, tools) = match &value {
            Value::Array(messages) => (messages, None),
            Value::Object(object) => match object.get("messages") {
                Some(Value::Array(messages)) => (messages, object.get("tools")),
                _ => return Err(wrong("must have a list \"messages\"".into())),
            },
            _ => return Err(wrong("must be a list of messages, or an object that has one".into())),
        };
        let text = template.render(messages, tools, false, &Map::new())?;
        tokens.extend(model.tokenizer().encode(&text, false, true, interrupt)?);
    }
    Ok(tokens)
}
