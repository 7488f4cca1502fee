//! A line per request with `--verbose`, and the counters of requests. Never prompts, answers or keys: nothing here sees them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::state::Server;
use crate::terminal;

/// Tokens of a request, which are counted where they are computed.
#[derive(Default)]
pub(super) struct Counted {
    pub(super) prompt: AtomicUsize,
    pub(super) answer: AtomicUsize,
}

tokio::task_local! {
    /// Of the request that a handler answers.
    static COUNTED: Arc<Counted>;
}

/// Where the tokens of the request are counted that the calling handler answers.
pub(super) fn counted() -> Arc<Counted> {
    COUNTED.try_with(Arc::clone).unwrap_or_default()
}

/// Counts and logs.
pub(super) async fn requests(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let mut entry = Entry {
        server,
        method: request.method().clone(),
        path: path(request.uri().path()),
        start: Instant::now(),
        status: None,
        complete: false,
        counted: Arc::default(),
    };
    let response = COUNTED.scope(Arc::clone(&entry.counted), next.run(request)).await;
    entry.status = Some(response.status().as_u16());
    response.map(|body| Body::new(Logged { body, entry }))
}

/// A path for a line of the log: what is not ASCII, or long, is not a path of ours, and need not be readable.
fn path(path: &str) -> String {
    path.chars().take(80).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// What is told about a request when its answer was sent, or given up.
struct Entry {
    server: Arc<Server>,
    method: Method,
    path: String,
    start: Instant,
    /// `None` when the client went before there was an answer.
    status: Option<u16>,
    complete: bool,
    counted: Arc<Counted>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let elapsed = self.start.elapsed();
        self.server.metrics.answered(self.status, self.complete, elapsed);
        if self.server.options.verbose {
            let status = self.status.map_or("-".into(), |status| status.to_string());
            let how = if self.complete { "" } else { " (client gone)" };
            let Entry { method, path, .. } = &*self;
            let tokens = |count: &AtomicUsize| count.load(Ordering::Relaxed);
            let tokens = match (tokens(&self.counted.prompt), tokens(&self.counted.answer)) {
                (0, 0) => String::new(),
                (prompt, answer) => format!(", {prompt} tokens read, {answer} written"),
            };
            terminal::note(&format!("{method} {path} {status} {:.0} ms{tokens}{how}", elapsed.as_secs_f64() * 1e3));
        }
    }
}

/// A body that notes whether it was read to its end.
struct Logged {
    body: Body,
    entry: Entry,
}

impl http_body::Body for Logged {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.entry.complete |= matches!(frame, Poll::Ready(None)) || http_body::Body::is_end_stream(&self.body);
        frame
    }

    fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.body)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn paths_stay_on_one_short_line() {
        assert_eq!(super::path("/v1/models"), "/v1/models");
        assert_eq!(super::path("/a\nb é\x1b"), "/a?b???");
        assert_eq!(super::path(&"/".repeat(500)).len(), 80);
    }
}
