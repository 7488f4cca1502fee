//! Server-sent events (WHATWG HTML, "Server-sent events").

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::Response;
use bytes::Bytes;
use http_body::Frame;
use serde_json::Value;
use tokio::sync::mpsc;

use super::job::{Event, Running};

/// Events on the way to a socket.
const EVENTS_AHEAD: usize = 16;

/// Where the events of an answer go.
pub(super) struct Events(mpsc::Sender<Bytes>);

/// The client has gone.
#[derive(Debug)]
pub(super) struct Gone;

impl Events {
    /// Sends an event without a name.
    ///
    /// # Errors
    /// [`Gone`].
    pub(super) async fn data(&self, data: &Value) -> Result<(), Gone> {
        self.send(format!("data: {data}\n\n")).await
    }

    /// Sends an event with a name.
    ///
    /// # Errors
    /// [`Gone`].
    pub(super) async fn named(&self, name: &str, data: &Value) -> Result<(), Gone> {
        self.send(format!("event: {name}\ndata: {data}\n\n")).await
    }

    /// Sends OpenAI's mark of the end.
    ///
    /// # Errors
    /// [`Gone`].
    pub(super) async fn done(&self) -> Result<(), Gone> {
        self.send("data: [DONE]\n\n".into()).await
    }

    async fn send(&self, text: String) -> Result<(), Gone> {
        self.0.send(text.into()).await.map_err(|_| Gone)
    }

    /// The next event of a generation, unless the client goes before it comes.
    ///
    /// # Errors
    /// [`Gone`].
    pub(super) async fn next(&self, running: &mut Running) -> Result<Event, Gone> {
        tokio::select! {
            event = running.next() => Ok(event),
            () = self.0.closed() => Err(Gone),
        }
    }
}

/// A body that ends with its events.
struct EventBody(mpsc::Receiver<Bytes>);

impl http_body::Body for EventBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// A response whose events `write` sends. When the client goes, `write` gets [`Gone`] from the next thing that it does, and what it holds is dropped.
pub(super) fn response<F: Future<Output = Result<(), Gone>> + Send + 'static>(
    write: impl FnOnce(Events) -> F,
) -> Response {
    let (sender, receiver) = mpsc::channel(EVENTS_AHEAD);
    tokio::spawn(write(Events(sender)));
    let mut response = Response::new(Body::new(EventBody(receiver)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
