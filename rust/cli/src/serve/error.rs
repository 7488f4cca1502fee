//! What a request is refused with: OpenAI's error object, and the status that says whose fault it was.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use fastq_core::Error;
use serde_json::{Value, json};

/// Seconds after which a client may try again when all places are taken.
const RETRY_SECONDS: u64 = 1;

/// Why a request fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    /// The status.
    pub(super) status: StatusCode,
    /// For the developer of the client.
    pub(super) message: String,
    /// The field that is wrong, as a path (`messages[0].role`).
    pub(super) param: Option<String>,
    /// For programs; what OpenAI has a name for has that name.
    pub(super) code: Option<&'static str>,
}

/// `Result` with [`ApiError`].
pub(super) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// An error with a status and a code.
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { status, message: message.into(), param: None, code: Some(code) }
    }

    /// 400 for the field `param`.
    pub(super) fn field(param: impl Into<String>, message: impl Into<String>) -> ApiError {
        ApiError { param: Some(param.into()), ..ApiError::new(StatusCode::BAD_REQUEST, "invalid_value", message) }
    }

    /// 429: all places are taken.
    pub(super) fn busy(parallel: usize, queue: usize) -> ApiError {
        let message = format!("all {parallel} places are taken and {queue} requests wait already; try again later");
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message)
    }

    /// 503: the server ends.
    pub(super) fn stopping() -> ApiError {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", "the server is shutting down")
    }

    /// 500: a defect of fastq.
    pub(super) fn internal(what: &str) -> ApiError {
        let message = format!("internal error: {what}; please report it");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }

    fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 | 405 => "not_found_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// `{"error": {…}}`.
    pub(super) fn json(&self) -> Value {
        json!({ "error": { "message": self.message, "type": self.kind(), "param": self.param, "code": self.code } })
    }
}

impl From<Error> for ApiError {
    /// What the caller can mend is 400, lack of memory 503, and damage 500.
    fn from(error: Error) -> ApiError {
        let message = error.to_string();
        let (status, code) = match error {
            Error::ContextOverflow(_) => (StatusCode::BAD_REQUEST, "context_length_exceeded"),
            Error::Template(_) => (StatusCode::BAD_REQUEST, "invalid_messages"),
            Error::Grammar(_) => (StatusCode::BAD_REQUEST, "invalid_grammar"),
            Error::Argument(_) | Error::Tokenizer(_) => (StatusCode::BAD_REQUEST, "invalid_value"),
            Error::Memory(_) => (StatusCode::SERVICE_UNAVAILABLE, "out_of_memory"),
            Error::Cancelled => return ApiError::stopping(),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error"),
        };
        ApiError::new(status, code, message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json_response(self.status, &self.json());
        let headers = response.headers_mut();
        match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_SECONDS));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

/// A JSON document as a response.
pub(super) fn json_response(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A JSON document with status 200.
pub(super) fn ok(value: &Value) -> Response {
    json_response(StatusCode::OK, value)
}
