//! Conversations as prompts.

use serde_json::{Map, Value};

use crate::{Error, Interrupt, Model, Result};

/// The tokens of a conversation, rendered by the template of the file up to where the answer begins. The beginning token comes
/// once, whether the template writes it or the tokenizer would add it. `extra` are further variables of the template.
///
/// # Errors
/// [`Error::Template`] when the file has no template or it refuses the messages; [`Error::Tokenizer`], [`Error::Cancelled`].
pub fn chat_tokens(
    model: &Model,
    messages: &[Value],
    tools: Option<&Value>,
    extra: &Map<String, Value>,
    interrupt: &dyn Interrupt,
) -> Result<Vec<u32>> {
    let template = model.template().ok_or_else(|| {
        Error::Template(
            "the model file has no chat template (tokenizer.chat_template); give it a plain prompt instead".into(),
        )
    })?;
    let text = template.render(messages, tools, true, extra)?;
    let tokenizer = model.tokenizer();
    let mut tokens = tokenizer.encode(&text, false, true, interrupt)?;
    if let Some(bos) = tokenizer.bos().filter(|&bos| tokenizer.add_bos() && tokens.first() != Some(&bos)) {
        tokens.insert(0, bos);
    }
    Ok(tokens)
}
