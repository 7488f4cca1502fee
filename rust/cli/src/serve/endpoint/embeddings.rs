//! `POST /v1/embeddings`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fastq_core::Prompt;
use serde_json::{Value, json};

use crate::serve::body::Json;
use crate::serve::error::{ApiError, ApiResult, ok};
use crate::serve::fields::Fields;
use crate::serve::job;
use crate::serve::log;
use crate::serve::state::Server;
use crate::serve::tokens::prompts;

/// Vectors of the texts: mean of the tokens unless the file says otherwise, of length 1, as OpenAI's are.
///
/// # Errors
/// 400 for what is wrong with the request, 429 and 503 when there is no place.
pub(in crate::serve) async fn create(State(server): State<Arc<Server>>, Json(body): Json) -> ApiResult<Response> {
    let fields = Fields::of(&body, "")?;
    fields.text("model")?;
    let width = server.model.info().width;
    if fields.integer("dimensions", 1..=u64::MAX)?.is_some_and(|dimensions| dimensions != width as u64) {
        return Err(fields.wrong("dimensions", &format!("{width}, the width of the model, or left out")));
    }
    let base64 = fields.one_of("encoding_format", &["float", "base64"])? == Some("base64");
    let inputs = prompts(&fields, "input", server.model.vocabulary())?;
    let (vectors, tokens) = job::run(&server, move |model, interrupt| {
        let tokens = |(at, prompt): (usize, Prompt)| {
            let tokens = match prompt {
                Prompt::Text(text) => model.tokenizer().encode(&text, true, false, interrupt)?,
                Prompt::Tokens(tokens) => tokens,
            };
            if tokens.is_empty() {
                let message = "input must be texts of at least one token, found an empty one";
                return Err(ApiError::field(format!("input[{at}]"), message));
            }
            Ok(tokens)
        };
        let texts: Vec<Vec<u32>> = inputs.into_iter().enumerate().map(tokens).collect::<ApiResult<_>>()?;
        let vectors = model.embed(&texts, None, true, interrupt)?;
        Ok((vectors, texts.iter().map(Vec::len).sum::<usize>()))
    })
    .await?;
    server.metrics.read(tokens);
    log::counted().prompt.store(tokens, std::sync::atomic::Ordering::Relaxed);
    let data = vectors.chunks_exact(width).enumerate().map(|(index, vector)| {
        let embedding: Value = if base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
            STANDARD.encode(bytes).into()
        } else {
            vector.into()
        };
        json!({ "object": "embedding", "index": index, "embedding": embedding })
    });
    let data: Vec<Value> = data.collect();
    Ok(ok(&json!({
        "object": "list",
        "data": data,
        "model": server.name,
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
    })))
}
