//! `GET /health`: whether requests are taken, for those who watch and distribute. Needs no key and tells nothing else.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use crate::serve::error::ok;
use crate::serve::state::Server;

/// Status 200 while requests are taken, 503 when the server is shutting down (which `guard::site` answers).
pub(in crate::serve) async fn show(State(server): State<Arc<Server>>) -> Response {
    let (running, waiting) = (server.places.running(), server.places.waiting());
    ok(&json!({ "status": "ok", "running": running, "waiting": waiting }))
}
