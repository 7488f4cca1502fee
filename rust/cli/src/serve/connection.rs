//! Sockets: HTTP/1.1 with limits of size and time, so that clients who send or read slowly take nothing but their socket.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::routing::{get, post};
use axum::{Router, middleware};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};

use super::error::ApiError;
use super::state::Server;
use super::{endpoint, guard, log, metrics, page};

/// The most connections; more wait in the system's queue. Below the 1024 files that a process may usually open.
const MAX_CONNECTIONS: usize = 900;

/// The longest first line with headers, in bytes.
const MAX_HEADER_BYTES: usize = 32 << 10;

/// The most headers.
const MAX_HEADERS: usize = 64;

/// What a connection holds of what is not read or not sent.
const BUFFER_BYTES: usize = 64 << 10;

/// How long to wait when the system has no more files for sockets.
const PAUSE: Duration = Duration::from_millis(50);

/// The paths.
fn router(server: &Arc<Server>) -> Router {
    let guarded = Router::new()
        .route("/v1/chat/completions", post(endpoint::chat::create))
        .route("/v1/completions", post(endpoint::completions::create))
        .route("/v1/responses", post(endpoint::responses::create))
        .route("/v1/embeddings", post(endpoint::embeddings::create))
        .route("/v1/models", get(endpoint::models::list))
        .route("/v1/models/{*model}", get(endpoint::models::one))
        .route("/tokenize", post(endpoint::tokens::tokenize))
        .route("/detokenize", post(endpoint::tokens::detokenize))
        .route("/metrics", get(metrics::show))
        .layer(middleware::from_fn_with_state(Arc::clone(server), guard::key));
    Router::new()
        .route("/health", get(endpoint::health::show))
        .merge(page::router())
        .merge(guarded)
        .fallback(async || {
            ApiError::new(axum::http::StatusCode::NOT_FOUND, "unknown_url", "there is nothing at this path")
        })
        .method_not_allowed_fallback(async || {
            ApiError::new(
                axum::http::StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "this path has another method",
            )
        })
        .layer(middleware::from_fn_with_state(Arc::clone(server), guard::site))
        .layer(middleware::from_fn_with_state(Arc::clone(server), log::requests))
        .with_state(Arc::clone(server))
}

/// Takes connections until the server stops.
pub(super) async fn accept(listener: TcpListener, server: Arc<Server>) {
    let router = router(&server);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Never closed, so always granted.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = server.stopped() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (server, router) = (Arc::clone(&server), router.clone());
        tokio::spawn(async move {
            let _place = place;
            talk(stream, &server, router).await;
        });
    }
}

/// Serves the requests of one connection.
async fn talk(stream: TcpStream, server: &Server, router: Router) {
    let _connected = server.connect();
    // Without it, the pieces of a stream wait for the acknowledgement of the last one.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(Watched { stream, stall: server.limits().stall_time, deadline: None });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(server.limits().header_time)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEADER_BYTES)
        .max_buf_size(BUFFER_BYTES);
    let service = TowerToHyperService::new(tower_service(router));
    let mut connection = pin!(http.serve_connection(io, service));
    // An error is a client that left, did not keep to HTTP, or was too slow: it has been told, or cannot be.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = server.stopped() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// The router for the bodies that hyper reads.
fn tower_service(
    router: Router,
) -> impl tower_service::Service<
    hyper::Request<hyper::body::Incoming>,
    Response = axum::response::Response,
    Error = std::convert::Infallible,
    Future: Send,
> + Clone {
    Adapter(router)
}

/// Turns the body of a request into axum's.
#[derive(Clone)]
struct Adapter(Router);

impl tower_service::Service<hyper::Request<hyper::body::Incoming>> for Adapter {
    type Response = axum::response::Response;
    type Error = std::convert::Infallible;
    type Future = <Router as tower_service::Service<Request>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        tower_service::Service::<Request>::poll_ready(&mut self.0, context)
    }

    fn call(&mut self, request: hyper::Request<hyper::body::Incoming>) -> Self::Future {
        tower_service::Service::<Request>::call(&mut self.0, request.map(Body::new))
    }
}

/// A socket that fails when what is written is not taken for a while.
struct Watched {
    stream: TcpStream,
    stall: Duration,
    /// Set while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    /// Passes on what a write came to; one that waits for too long is an error.
    fn watch<T>(&mut self, context: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.deadline = None;
            return result;
        }
        let end = Instant::now() + self.stall;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        match deadline.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let watched = self.get_mut();
        let result = Pin::new(&mut watched.stream).poll_write(cx, bytes);
        watched.watch(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let watched = self.get_mut();
        let result = Pin::new(&mut watched.stream).poll_write_vectored(cx, parts);
        watched.watch(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
