//! What all requests share.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use fastq_core::Model;
use fastq_core::chat::ChatFormat;
use fastq_core::sampler::random_seed;
use tokio::sync::watch;

use super::endpoint::responses::Store;
use super::job::Places;
use super::metrics::Metrics;
use super::{Limits, ServeOptions};

/// The server.
pub(super) struct Server {
    pub(super) model: Model,
    /// How the model writes calls and reasoning.
    pub(super) format: ChatFormat,
    pub(super) options: ServeOptions,
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// What the model is called.
    pub(super) name: String,
    /// Unix time of its start.
    pub(super) created: u64,
    pub(super) places: Places,
    pub(super) metrics: Metrics,
    /// Conversations of `/v1/responses`.
    pub(super) store: Store,
    /// Becomes true when no more requests are taken.
    stopping: watch::Sender<bool>,
    /// Answers under way shall end.
    ending: AtomicBool,
    /// Number of connections.
    connections: watch::Sender<usize>,
    requests: AtomicUsize,
}

impl Server {
    pub(super) fn new(model: Model, options: ServeOptions, address: SocketAddr) -> Server {
        let stem = || model.info().path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Server {
            name: options.alias.clone().unwrap_or_else(stem),
            format: ChatFormat::of(&model),
            address,
            created: now(),
            places: Places::new(options.parallel, options.queue),
            metrics: Metrics::default(),
            store: Store::default(),
            stopping: watch::Sender::new(false),
            ending: AtomicBool::new(false),
            connections: watch::Sender::new(0),
            requests: AtomicUsize::new(0),
            model,
            options,
        }
    }

    /// What clients may take.
    pub(super) fn limits(&self) -> &Limits {
        &self.options.limits
    }

    /// No more connections and requests; those that wait for a place are refused.
    pub(super) fn stop_accepting(&self) {
        self.stopping.send_replace(true);
    }

    /// Whether requests are taken no more.
    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Returns when requests are taken no more.
    pub(super) async fn stopped(&self) {
        // The sender lives as long as `self`.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// Ends the answers under way.
    pub(super) fn end_answers(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Whether answers under way shall end.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Counts a connection; it ends when the result is dropped.
    pub(super) fn connect(&self) -> Connected<'_> {
        self.connections.send_modify(|count| *count += 1);
        Connected(self)
    }

    /// Number of connections.
    pub(super) fn connected(&self) -> usize {
        *self.connections.borrow()
    }

    /// Returns when there is no connection.
    pub(super) async fn connections_ended(&self) {
        let _ = self.connections.subscribe().wait_for(|count| *count == 0).await;
    }

    /// An identifier that has not been given out, and that nobody guesses who was not told.
    pub(super) fn id(&self, prefix: &str) -> String {
        let count = self.requests.fetch_add(1, Ordering::Relaxed);
        format!("{prefix}{:016x}{count:08x}", random_seed())
    }
}

/// A connection that is open.
pub(super) struct Connected<'a>(&'a Server);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.connections.send_modify(|count| *count -= 1);
    }
}

/// Unix time in seconds.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
