//! `response_format` and `text.format`: what an answer must look like.

use fastq_core::chat::ChatFormat;
use fastq_core::grammar::{Grammar, GrammarSource};
use fastq_core::{GenerationOptions, Model};
use serde_json::{Value, json};

use super::error::{ApiError, ApiResult};
use super::fields::Fields;
use super::tools::Tools;

/// What an answer must match, and the field that says so.
pub(super) type Format = (&'static str, GrammarSource);

/// `response_format`, or llama.cpp's `grammar` (GBNF).
///
/// # Errors
/// 400 naming the field.
pub(super) fn format(fields: &Fields<'_>) -> ApiResult<Option<Format>> {
    let schema = fields.object("response_format")?.map(|format| schema(&format, false)).transpose()?.flatten();
    let grammar = fields.text("grammar")?.filter(|grammar| !grammar.is_empty());
    match (schema, grammar) {
        (Some(_), Some(_)) => Err(fields.wrong("grammar", "left out beside response_format")),
        (Some(schema), None) => Ok(Some(("response_format", GrammarSource::JsonSchema(schema)))),
        (None, Some(grammar)) => Ok(Some(("grammar", GrammarSource::Gbnf(grammar.to_owned())))),
        (None, None) => Ok(None),
    }
}

/// `text.format` of `/v1/responses`.
///
/// # Errors
/// 400 naming the field.
pub(super) fn flat_format(fields: &Fields<'_>) -> ApiResult<Option<Format>> {
    let Some(text) = fields.object("text")? else { return Ok(None) };
    let schema = text.object("format")?.map(|format| schema(&format, true)).transpose()?.flatten();
    Ok(schema.map(|schema| ("text.format", GrammarSource::JsonSchema(schema))))
}

/// A format as a JSON schema; `None` for text.
fn schema(format: &Fields<'_>, flat: bool) -> ApiResult<Option<Value>> {
    let kind = format.one_of("type", &["text", "json_object", "json_schema"])?;
    match kind.ok_or_else(|| format.wrong("type", "one of \"text\", \"json_object\", \"json_schema\""))? {
        "json_object" => Ok(Some(json!({ "type": "object" }))),
        "json_schema" => {
            let holder = if flat { Some(format.clone()) } else { format.object("json_schema")? };
            let holder = holder.ok_or_else(|| format.wrong("json_schema", "an object"))?;
            let schema = holder.get("schema").filter(|schema| schema.is_object() || schema.is_boolean());
            Ok(Some(schema.ok_or_else(|| holder.wrong("schema", "a JSON schema"))?.clone()))
        }
        _ => Ok(None),
    }
}

/// The grammar of a format.
///
/// # Errors
/// 400 for one that is invalid or not supported.
pub(super) fn grammar(model: &Model, (param, source): &Format) -> ApiResult<Grammar> {
    Grammar::new(model, source).map_err(|error| ApiError { param: Some((*param).into()), ..ApiError::from(error) })
}

/// Holds the answer of a conversation to its format, or to calls of functions as they were asked for.
///
/// # Errors
/// As [`grammar`], and 400 for both at once.
pub(super) fn constrain(
    options: &mut GenerationOptions,
    model: &Model,
    chat: &ChatFormat,
    prompt: &str,
    format: Option<&Format>,
    tools: &Tools,
) -> ApiResult<()> {
    options.grammar = match format {
        Some(_) if !tools.list.is_empty() => {
            let message = "a format of the answer and tools cannot be combined; leave one of them out, or set tool_choice to \"none\"";
            return Err(ApiError::field("tools", message));
        }
        Some(format) => Some(grammar(model, format)?),
        None if tools.constrain() => {
            let found = chat.tool_grammar(model, prompt, &tools.list, &tools.choice);
            Some(found.map_err(|error| ApiError { param: Some("tools".into()), ..ApiError::from(error) })?)
        }
        None => None,
    };
    Ok(())
}
