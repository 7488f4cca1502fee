//! Reading the body of a request: bounded in bytes, time and depth, and complaints that say where the JSON is wrong.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;

use super::Limits;
use super::error::{ApiError, ApiResult};
use super::state::Server;

/// Levels of lists and objects in each other. Real requests, schemas of tools included, have about ten.
const MAX_DEPTH: usize = 64;

/// How long what is too much is read and thrown away, so that a client that writes before it reads sees why it is refused.
const DRAIN: Duration = Duration::from_secs(1);

/// How much of it, in bytes.
const DRAIN_BYTES: usize = 32 << 20;

/// The JSON document of a request. It is refused with 413 as soon as the body is known to be too long, 408 when it does not come in time,
/// 400 when it is no JSON.
pub(super) struct Json(pub(super) Value);

impl FromRequest<Arc<Server>> for Json {
    type Rejection = ApiError;

    async fn from_request(request: Request, server: &Arc<Server>) -> ApiResult<Json> {
        let (head, body) = request.into_parts();
        let bytes = read(&head.headers, body, server.limits()).await?;
        parse(&bytes).map(Json)
    }
}

async fn read(headers: &HeaderMap, mut body: Body, limits: &Limits) -> ApiResult<Vec<u8>> {
    let too_large = || {
        let message = format!("the body exceeds {} bytes", limits.body_bytes);
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
    };
    // What the client says it will send is no reason to set memory apart for it.
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let limit = u64::try_from(limits.body_bytes).unwrap_or(u64::MAX);
    if announced.is_some_and(|length| length > limit) {
        if announced.is_some_and(|length| length <= limit.saturating_mul(4)) {
            drain(&mut body).await;
        }
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let whole = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| {
                ApiError::new(StatusCode::BAD_REQUEST, "incomplete_body", "the body ended before it was complete")
            })?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limits.body_bytes {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(())
    };
    let read = tokio::time::timeout(limits.body_time, whole).await;
    match read {
        Ok(Ok(())) => Ok(bytes),
        Ok(Err(error)) => {
            if error.status == StatusCode::PAYLOAD_TOO_LARGE {
                drain(&mut body).await;
            }
            Err(error)
        }
        Err(_) => {
            let message = format!("the body did not come within {} s", limits.body_time.as_secs_f64());
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message))
        }
    }
}

async fn drain(body: &mut Body) {
    let end = Instant::now() + DRAIN;
    let mut left = DRAIN_BYTES;
    while let Ok(Some(Ok(frame))) = tokio::time::timeout_at(end.into(), body.frame()).await {
        match left.checked_sub(frame.data_ref().map_or(0, bytes::Bytes::len)) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// Parses a document.
///
/// # Errors
/// 400 with the place, and the field whose value it is.
fn parse(bytes: &[u8]) -> ApiResult<Value> {
    let invalid = |message: String| ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", message);
    if depth_exceeds(bytes, MAX_DEPTH) {
        return Err(invalid(format!("the JSON of the body is nested more than {MAX_DEPTH} deep")));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let param = key_before(bytes, offset_of(bytes, error.line(), error.column()));
        let about = param.as_ref().map(|key| format!("{key}: ")).unwrap_or_default();
        ApiError { param, ..invalid(format!("{about}the body is not JSON: {error}")) }
    })
}

/// Whether lists and objects are nested more than `most` deep. Brackets in strings do not count.
fn depth_exceeds(bytes: &[u8], most: usize) -> bool {
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for &byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => {
                depth += 1;
                if depth > most {
                    return true;
                }
            }
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Where a place that serde_json tells (lines from 1, bytes in the line) is.
fn offset_of(bytes: &[u8], line: usize, column: usize) -> usize {
    let mut starts =
        std::iter::once(0).chain(bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1));
    (starts.nth(line.saturating_sub(1)).unwrap_or(0) + column).min(bytes.len())
}

/// The key whose value is being read at `offset`: what people write for numbers that JSON lacks (`NaN`, `Infinity`, `1e999`)
/// makes the whole document invalid, and they want to know which of their numbers it was.
fn key_before(bytes: &[u8], offset: usize) -> Option<String> {
    let scalar = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-. \t\r\n".contains(byte);
    // A number that ends too early is noticed at what follows it.
    let before = &bytes[..offset];
    let before = before.strip_suffix(b"}").or(before.strip_suffix(b",")).unwrap_or(before);
    let colon = before.len() - before.iter().rev().take_while(|byte| scalar(byte)).count();
    let before = before[..colon].strip_suffix(b":")?.trim_ascii_end().strip_suffix(b"\"")?;
    let start = before.iter().rposition(|&byte| byte == b'"')? + 1;
    let key = str::from_utf8(&before[start..]).ok()?;
    (key.len() <= 64 && key.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))).then(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_none_are_named() {
        for value in ["NaN", "Infinity", "-Infinity", "1e999", "nan", "1.", "0x10", "+1", "TRUE"] {
            for text in [
                format!(r#"{{"a":[1,2],"top_p": {value}}}"#),
                format!("{{\n \"x\": \"[\\\"\",\n \"top_p\"\n:\n{value}\n, \"b\": 1}}"),
            ] {
                let error = parse(text.as_bytes()).unwrap_err();
                assert_eq!(error.param.as_deref(), Some("top_p"), "{text}: {error:?}");
                assert!(error.message.starts_with("top_p: "), "{}", error.message);
            }
        }
        for text in ["", "[1, NaN]", "{\"a", "nonsense", "{\"<b>\": NaN}", "{\"a\": \"b", "\"\\ud800\""] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert_eq!((error.status, error.param), (StatusCode::BAD_REQUEST, None), "{text}");
        }
    }

    #[test]
    fn depth_is_counted_outside_of_strings() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        let error = parse(nested(MAX_DEPTH + 1).as_bytes()).unwrap_err();
        assert!(error.message.contains("more than 64 deep"), "{}", error.message);
        let flat = format!("[{}1]", "[],".repeat(1000));
        assert!(parse(flat.as_bytes()).is_ok());
        let quoted = format!("\"\\\"{}\"", "[".repeat(1000));
        assert!(parse(quoted.as_bytes()).is_ok());
        assert!(depth_exceeds("{\"a\":[".repeat(40).as_bytes(), MAX_DEPTH));
    }
}
