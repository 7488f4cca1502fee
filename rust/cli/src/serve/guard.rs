//! Who may ask: the key, and which sites' pages.
//!
//! A server on this machine is also reached by every page that its user opens in a browser. So a request must name the server itself as its
//! host, which one that comes by a name rebound to 127.0.0.1 does not, and one that a page makes must come from the server's own page
//! or from an origin that was allowed.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    AUTHORIZATION, HOST, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::error::ApiError;
use super::state::Server;

/// Lets requests with the right key through.
pub(super) async fn key(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let refused = |message| ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message).into_response();
    if let Some(key) = &server.options.api_key {
        match bearer(request.headers()) {
            None => return refused("this server needs a key: send the header Authorization: Bearer KEY"),
            Some(given) if !same(given, key.as_bytes()) => return refused("the API key is wrong"),
            Some(_) => {}
        }
    }
    next.run(request).await
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, key) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}

/// Compares without telling by its time where two differ: what is compared are hashes, and all of them.
fn same(a: &[u8], b: &[u8]) -> bool {
    let (a, b) = (Sha256::digest(a), Sha256::digest(b));
    std::hint::black_box(a.iter().zip(b.iter()).fold(0, |different, (a, b)| different | (a ^ b))) == 0
}

/// Refuses what comes by another name or from another site's page.
pub(super) async fn site(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let refused = |code, message: &str| ApiError::new(StatusCode::FORBIDDEN, code, message).into_response();
    let headers = request.headers();
    let host = match host(headers, request.uri()) {
        Ok(host) => host.to_owned(),
        Err(message) => return ApiError::new(StatusCode::BAD_REQUEST, "invalid_host", message).into_response(),
    };
    // Who listens to others has a key, which a page of another site does not know.
    if server.address.ip().is_loopback() && !is_local(&host, &server.options.host) {
        return refused("invalid_host", "this server answers to localhost only; the Host header names another");
    }
    let mut allowed = None;
    if let Some(origin) = headers.get(ORIGIN) {
        let known = server.options.origins.iter().any(|known| known.as_bytes() == origin.as_bytes());
        let own = origin.as_bytes().strip_prefix(b"http://").or_else(|| origin.as_bytes().strip_prefix(b"https://"));
        if known {
            allowed = Some(origin.clone());
        } else if own.is_none_or(|own| !own.eq_ignore_ascii_case(host.as_bytes())) {
            return refused("invalid_origin", "pages of this origin may not use the server (see --allow-origin)");
        }
    }
    if server.is_stopping() {
        return ApiError::stopping().into_response();
    }
    let mut response = match (&allowed, request.method()) {
        (Some(_), &Method::OPTIONS) => StatusCode::NO_CONTENT.into_response(),
        _ => next.run(request).await,
    };
    response.headers_mut().insert(VARY, HeaderValue::from(ORIGIN));
    if let Some(origin) = allowed {
        let mut set = |name: HeaderName, value: HeaderValue| response.headers_mut().insert(name, value);
        set(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        set(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, content-type"));
        set(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        set(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
    response
}

/// The one host that a request names: that of an absolute address, or its header.
fn host<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Result<&'a str, &'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    let named = match (uri.authority(), hosts.next()) {
        (Some(authority), _) => Some(authority.as_str()),
        (None, Some(host)) => host.to_str().ok(),
        (None, None) => None,
    };
    match (named, hosts.next()) {
        (Some(named), None) if !named.is_empty() => Ok(named),
        _ => Err("a request must have one Host header"),
    }
}

/// Whether `host`, with or without a port, names this machine to itself, or is what the server was told to listen on.
fn is_local(host: &str, listens: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || name.eq_ignore_ascii_case(listens)
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine() {
        for host in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1",
            "127.0.0.1:8080",
            "127.9.9.9:1",
            "[::1]",
            "[::1]:8080",
            "me.test:1",
        ] {
            assert!(is_local(host, "me.test"), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:80", "10.0.0.1", "127.0.0.1.evil.example", "[::2]:1", ""] {
            assert!(!is_local(host, "me.test"), "{host}");
        }
    }

    #[test]
    fn keys() {
        let with = |value: &str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(value).unwrap())]);
            bearer(&headers).map(|key| String::from_utf8_lossy(key).into_owned())
        };
        assert_eq!(with("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(with("bearer  abc ").as_deref(), Some("abc"));
        assert_eq!((with("Basic abc"), with("Bearer"), with("")), (None, None, None));
        assert!(same(b"abc", b"abc") && !same(b"abc", b"abd") && !same(b"abc", b"abcd") && !same(b"", b"abc"));
    }
}
