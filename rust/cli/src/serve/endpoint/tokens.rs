//! `POST /tokenize` and `POST /detokenize`, with the fields of llama.cpp's server.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use crate::serve::body::Json;
use crate::serve::error::{ApiResult, ok};
use crate::serve::fields::Fields;
use crate::serve::job;
use crate::serve::state::Server;
use crate::serve::tokens::ids;

/// `{"content": text}` to `{"tokens": [id]}`. `add_special` adds the beginning and end tokens that the file asks for, `parse_special` (the
/// default) finds control tokens in the text, `with_pieces` gives `{"id", "piece"}` for each.
///
/// # Errors
/// 400 for what is wrong with the request, 429 and 503 when there is no place.
pub(in crate::serve) async fn tokenize(State(server): State<Arc<Server>>, Json(body): Json) -> ApiResult<Response> {
    let fields = Fields::of(&body, "")?;
    let text = fields.text("content")?.ok_or_else(|| fields.wrong("content", "a string"))?.to_owned();
    let add_special = fields.boolean("add_special")?.unwrap_or(false);
    let parse_special = fields.boolean("parse_special")?.unwrap_or(true);
    let with_pieces = fields.boolean("with_pieces")?.unwrap_or(false);
    let tokens = job::run(&server, move |model, interrupt| {
        let tokenizer = model.tokenizer();
        let ids = tokenizer.encode(&text, add_special, parse_special, interrupt)?;
        if !with_pieces {
            return Ok(Value::from(ids));
        }
        let piece = |id: u32| {
            // Bytes that are a part of a character have no text of their own.
            let bytes = tokenizer.token_bytes(id, true)?;
            let piece = str::from_utf8(&bytes).map_or_else(|_| Value::from(bytes.to_vec()), Value::from);
            Ok(json!({ "id": id, "piece": piece }))
        };
        Ok(Value::Array(ids.into_iter().map(piece).collect::<ApiResult<_>>()?))
    })
    .await?;
    Ok(ok(&json!({ "tokens": tokens })))
}

/// `{"tokens": [id]}` to `{"content": text}`.
///
/// # Errors
/// As [`tokenize`].
pub(in crate::serve) async fn detokenize(State(server): State<Arc<Server>>, Json(body): Json) -> ApiResult<Response> {
    let fields = Fields::of(&body, "")?;
    let list = fields.list("tokens")?.ok_or_else(|| fields.wrong("tokens", "a list of token ids"))?;
    let tokens = ids(list, "tokens", server.model.vocabulary())?;
    let text = job::run(&server, move |model, _| Ok(model.tokenizer().decode(&tokens, true)?)).await?;
    Ok(ok(&json!({ "content": text })))
}
