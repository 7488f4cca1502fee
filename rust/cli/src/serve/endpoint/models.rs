//! `GET /v1/models` and `GET /v1/models/{name}`: the one model that there is, with facts about it.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use fastq_core::machine::peak_rss_bytes;
use serde_json::{Value, json};

use crate::serve::error::{ApiError, ApiResult, ok};
use crate::serve::metrics::resident_bytes;
use crate::serve::state::Server;

/// OpenAI's fields, and under `fastq` what the page shows.
fn model(server: &Server) -> Value {
    let info = server.model.info();
    json!({
        "id": server.name,
        "object": "model",
        "created": server.created,
        "owned_by": "fastq",
        "fastq": {
            "name": info.name,
            "architecture": info.architecture,
            "parameters": info.parameters,
            "file_bytes": info.file_bytes,
            "bits_per_weight": info.bits_per_weight,
            "layers": info.layers,
            "width": info.width,
            "vocabulary": info.vocabulary,
            "context": info.context,
            "trained_context": info.trained_context,
            "has_template": info.has_template,
            "generates": server.model.has_logits(),
            "level": info.level.name(),
            "threads": info.threads,
            "kv": info.kv.name(),
            "kv_bytes": server.model.kv_used_bytes(),
            "planned_bytes": server.model.plan().total_bytes,
            "resident_bytes": resident_bytes(),
            "peak_resident_bytes": peak_rss_bytes(),
            "version": env!("CARGO_PKG_VERSION"),
        },
    })
}

/// The list of one.
pub(in crate::serve) async fn list(State(server): State<Arc<Server>>) -> Response {
    ok(&json!({ "object": "list", "data": [model(&server)] }))
}

/// The one.
///
/// # Errors
/// 404 for any other name.
pub(in crate::serve) async fn one(State(server): State<Arc<Server>>, Path(name): Path<String>) -> ApiResult<Response> {
    if name != server.name {
        let message = format!("there is no such model; this server has {:?}", server.name);
        return Err(ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message));
    }
    Ok(ok(&model(&server)))
}
