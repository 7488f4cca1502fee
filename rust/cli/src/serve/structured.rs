//! `response_format` and `text.format`: what an answer must look like.

use serde_json::{Value, json};

use super::error::ApiResult;
use super::fields::Fields;

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
