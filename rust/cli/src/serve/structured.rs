//! `response_format` and `text.format`: what an answer must look like.

use fastq_core::chat::ChatFormat;
use fastq_core::grammar::{Grammar, GrammarSource};
use fastq_core::{GenerationOptions, Model};
use serde_json::{Value, json};

use super::error::{ApiError, ApiResult};
use super::fields::Fields;
use super::tools::Tools;

/// The format of an answer as a JSON schema; `None` for text.
///
/// # Errors
/// 400 naming the field.
pub(super) fn schema(format: &Fields<'_>, flat: bool) -> ApiResult<Option<Value>> {
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

/// Holds an answer to its schema, or to calls of functions as they were asked for.
///
/// # Errors
/// 400 for a schema that is invalid or not supported, and for both at once.
pub(super) fn constrain(
    options: &mut GenerationOptions,
    model: &Model,
    format: &ChatFormat,
    prompt: &str,
    schema: Option<&Value>,
    tools: &Tools,
) -> ApiResult<()> {
    let of = |param: &str, error: fastq_core::Error| ApiError { param: Some(param.into()), ..ApiError::from(error) };
    let (param, source) = match schema {
        Some(_) if !tools.list.is_empty() => {
            let message = "a format of the answer and tools cannot be combined; leave one of them out, or set tool_choice to \"none\"";
            return Err(ApiError::field("tools", message));
        }
        Some(schema) => ("response_format", GrammarSource::JsonSchema(schema.clone())),
        None if tools.constrain() => {
            let lark = format.tool_lark(prompt, &tools.list, &tools.choice);
            ("tools", GrammarSource::Lark(lark.map_err(|error| of("tools", error))?))
        }
        None => return Ok(()),
    };
    options.grammar = Some(Grammar::new(model, &source).map_err(|error| of(param, error))?);
    Ok(())
}
