//! The HTTP server: OpenAI's interface to one model, and a page to talk with it.
//!
//! One subject per file: `connection` (sockets and their limits), `guard` (who may ask), `body` and `fields` (what is asked), `job` (places,
//! queue, cancellation), an endpoint per file in `endpoint`, and what their answers share (`sampling`, `message`, `logprobs`, `structured`, `tools`, `stream`).
//!
//! What takes the engine runs on threads of its own, at most [`ServeOptions::parallel`] at once; these threads compute together, as the engine
//! batches what its callers want. The rest is asynchronous and never waits for the engine.

mod body;
mod connection;
mod conversation;
mod endpoint;
mod error;
mod fields;
mod guard;
mod job;
mod log;
mod logprobs;
mod message;
mod metrics;
mod page;
mod sampling;
mod state;
mod stream;
mod structured;
mod tokens;
mod tools;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fastq_core::{Error, Interrupt, Model, Result};
use tokio::net::TcpListener;
use tokio::runtime::Builder;

use state::Server;

/// How often the interrupt of the caller is asked.
const POLL: Duration = Duration::from_millis(50);

/// How long after the last answer was ended the sockets have to send what they hold.
const FLUSH: Duration = Duration::from_secs(5);

/// The most requests that may be computed at once.
pub const MAX_PARALLEL: usize = 256;

/// The most requests that may wait.
pub const MAX_QUEUE: usize = 65_536;

/// What clients may take, in bytes and seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest body of a request.
    pub body_bytes: usize,
    /// How long the first line and the headers of a request may take; a connection on which nothing is asked is closed after this.
    pub header_time: Duration,
    /// How long a body may take.
    pub body_time: Duration,
    /// How long a client may not read before its connection is closed.
    pub stall_time: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body_bytes: 8 << 20,
            header_time: Duration::from_secs(10),
            body_time: Duration::from_secs(30),
            stall_time: Duration::from_secs(30),
        }
    }
}

/// How to serve a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeOptions {
    /// Address or name to listen on. Without a key it must be one of this machine alone (loopback).
    pub host: String,
    /// Port; 0 takes one that is free.
    pub port: u16,
    /// What clients must send as `Authorization: Bearer KEY`.
    pub api_key: Option<String>,
    /// Origins (`https://example.com`) of other sites whose pages may use the server.
    pub origins: Vec<String>,
    /// What the model is called; by default as its file.
    pub alias: Option<String>,
    /// Requests that are computed at once, 1 to [`MAX_PARALLEL`].
    pub parallel: usize,
    /// Requests that may wait, at most [`MAX_QUEUE`]; more are refused with 429.
    pub queue: usize,
    /// How long answers under way may go on when the server is told to end.
    pub grace: Duration,
    /// A line per request on stderr.
    pub verbose: bool,
    /// End on SIGTERM, too. For programs of their own, not for libraries.
    pub terminate: bool,
    /// What clients may take.
    pub limits: Limits,
}

impl Default for ServeOptions {
    fn default() -> ServeOptions {
        ServeOptions {
            host: "127.0.0.1".into(),
            port: 8080,
            api_key: None,
            origins: Vec::new(),
            alias: None,
            parallel: 8,
            queue: 64,
            grace: Duration::from_secs(10),
            verbose: false,
            terminate: false,
            limits: Limits::default(),
        }
    }
}

impl ServeOptions {
    fn validate(&self) -> Result<()> {
        let wrong = |message: String| Err(Error::Argument(message));
        if !(1..=MAX_PARALLEL).contains(&self.parallel) {
            return wrong(format!("parallel must be from 1 to {MAX_PARALLEL}, found {}", self.parallel));
        }
        if self.queue > MAX_QUEUE {
            return wrong(format!("queue must be at most {MAX_QUEUE}, found {}", self.queue));
        }
        // What is empty or cannot be sent in a header would lock everybody out, or nobody.
        if self.api_key.as_ref().is_some_and(|key| key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic())) {
            return wrong("the API key must be visible ASCII characters without spaces, at least one".into());
        }
        Ok(())
    }
}

/// Serves `model` until `interrupt` stops it (asked on this thread, every 50 ms). `ready` gets the address as soon as clients can connect.
///
/// When it is told to end, it takes no more requests, lets answers go on for [`ServeOptions::grace`], ends those that are left with an error that says why, and
/// returns. A second SIGTERM, with [`ServeOptions::terminate`], makes it return at once.
///
/// # Errors
/// [`Error::Argument`] for options out of range, and for an address that others can reach without a key; [`Error::Io`] when the
/// address cannot be listened on.
pub fn serve(
    model: &Model,
    options: &ServeOptions,
    ready: impl FnOnce(SocketAddr),
    interrupt: &dyn Interrupt,
) -> Result<()> {
    options.validate()?;
    let at =
        |source: io::Error| Error::Io { path: PathBuf::from(format!("{}:{}", options.host, options.port)), source };
    // Beside the threads that compute: those that read a long request.
    let threads = Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(options.parallel + 8)
        .thread_name("fastq-serve")
        .enable_all()
        .build();
    let runtime = threads.map_err(at)?;
    let result = runtime.block_on(run(model, options, ready, interrupt));
    // Whoever still computes has been told to stop; the process need not wait for it.
    runtime.shutdown_timeout(FLUSH);
    result
}

async fn run(
    model: &Model,
    options: &ServeOptions,
    ready: impl FnOnce(SocketAddr),
    interrupt: &dyn Interrupt,
) -> Result<()> {
    let at =
        |source: io::Error| Error::Io { path: PathBuf::from(format!("{}:{}", options.host, options.port)), source };
    let addresses: Vec<SocketAddr> =
        tokio::net::lookup_host((options.host.as_str(), options.port)).await.map_err(at)?.collect();
    if options.api_key.is_none()
        && let Some(open) = addresses.iter().find(|address| !address.ip().is_loopback())
    {
        return Err(Error::Argument(format!(
            "{} is an address that other machines can reach: set an API key (--api-key-file, FASTQ_API_KEY), or serve on 127.0.0.1",
            open.ip()
        )));
    }
    let listener = TcpListener::bind(&addresses[..]).await.map_err(at)?;
    let address = listener.local_addr().map_err(at)?;
    let server = Arc::new(Server::new(model.clone(), options.clone(), address));
    let accepting = tokio::spawn(connection::accept(listener, Arc::clone(&server)));
    let mut terminations = Terminations::new(options.terminate).map_err(at)?;
    ready(address);

    let stopped = async || {
        while !interrupt.stop() {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::select! {
        () = stopped() => {}
        () = terminations.next() => {}
    }
    server.stop_accepting();
    let connections = async {
        let ended = |wait| tokio::time::timeout(wait, server.connections_ended());
        if ended(options.grace).await.is_err() {
            server.end_answers();
            // An engine that does not stop, or a client that does not read, cannot keep the process.
            let _ = ended(FLUSH).await;
        }
    };
    tokio::select! {
        () = connections => {}
        () = terminations.next() => {}
    }
    server.end_answers();
    accepting.abort();
    Ok(())
}

/// SIGTERM, where it is to be listened to.
struct Terminations {
    #[cfg(unix)]
    signal: Option<tokio::signal::unix::Signal>,
}

impl Terminations {
    #[cfg(unix)]
    fn new(listen: bool) -> io::Result<Terminations> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Terminations { signal: listen.then(|| signal(SignalKind::terminate())).transpose()? })
    }

    #[cfg(not(unix))]
    fn new(_listen: bool) -> io::Result<Terminations> {
        Ok(Terminations {})
    }

    /// The next one; never, where none comes.
    async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.signal {
            signal.recv().await;
            return;
        }
        std::future::pending().await
    }
}
