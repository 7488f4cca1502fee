//! `/metrics`: counters in the text format of Prometheus (version 0.0.4).

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use fastq_core::Completion;

use super::state::Server;

/// What is counted from the start of the server on.
#[derive(Default)]
pub(super) struct Metrics {
    /// Requests by the first digit of their status; 0 for those whose client went before there was one.
    requests: [AtomicU64; 6],
    /// Answers that were not read to their end.
    abandoned: AtomicU64,
    request_micros: AtomicU64,
    prompt_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    answer_tokens: AtomicU64,
    prefill_micros: AtomicU64,
    decode_micros: AtomicU64,
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Metrics {
    /// Counts a request that is over.
    pub(super) fn answered(&self, status: Option<u16>, complete: bool, elapsed: Duration) {
        let class = usize::from(status.unwrap_or(0) / 100).min(5);
        self.requests[class].fetch_add(1, Ordering::Relaxed);
        self.abandoned.fetch_add(u64::from(!complete), Ordering::Relaxed);
        self.request_micros.fetch_add(micros(elapsed), Ordering::Relaxed);
    }

    /// Counts what was computed for answers.
    pub(super) fn computed(&self, answers: &[Completion]) {
        let add = |counter: &AtomicU64, count: usize| counter.fetch_add(count as u64, Ordering::Relaxed);
        let seconds = |s: f64| micros(Duration::try_from_secs_f64(s).unwrap_or_default());
        for answer in answers {
            add(&self.prompt_tokens, answer.prompt_tokens);
            add(&self.cached_tokens, answer.cached_tokens);
            add(&self.answer_tokens, answer.tokens.len());
            self.prefill_micros.fetch_add(seconds(answer.timings.prefill_seconds), Ordering::Relaxed);
            self.decode_micros.fetch_add(seconds(answer.timings.decode_seconds), Ordering::Relaxed);
        }
    }

    /// Counts tokens of texts that were read and not answered.
    pub(super) fn read(&self, tokens: usize) {
        self.prompt_tokens.fetch_add(tokens as u64, Ordering::Relaxed);
    }
}

/// Resident memory of this process in bytes, where the system tells.
pub(super) fn resident_bytes() -> Option<u64> {
    let pages: u64 = std::fs::read_to_string("/proc/self/statm").ok()?.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(fastq_core::machine::page_size()? as u64)
}

fn line(text: &mut String, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "# HELP fastq_{name} {help}\n# TYPE fastq_{name} {kind}\nfastq_{name} {value}");
}

/// `GET /metrics`.
pub(super) async fn show(State(server): State<Arc<Server>>) -> Response {
    let mut text = String::new();
    let metrics = &server.metrics;
    let _ = writeln!(
        text,
        "# HELP fastq_requests_total Requests by class of their status.\n# TYPE fastq_requests_total counter"
    );
    for (class, count) in metrics.requests.iter().enumerate() {
        let status = if class == 0 { "none".into() } else { format!("{class}xx") };
        let _ = writeln!(text, "fastq_requests_total{{status=\"{status}\"}} {}", count.load(Ordering::Relaxed));
    }
    let mut counter = |name: &str, help: &str, counter: &AtomicU64| {
        line(&mut text, name, "counter", help, counter.load(Ordering::Relaxed));
    };
    counter("requests_abandoned_total", "Answers that were not read to their end.", &metrics.abandoned);
    counter("prompt_tokens_total", "Tokens of prompts and texts.", &metrics.prompt_tokens);
    counter("prompt_tokens_cached_total", "Tokens of prompts that were computed before.", &metrics.cached_tokens);
    counter("answer_tokens_total", "Tokens of answers.", &metrics.answer_tokens);
    let mut seconds = |name: &str, help: &str, counter: &AtomicU64| {
        line(&mut text, name, "counter", help, counter.load(Ordering::Relaxed) as f64 / 1e6);
    };
    seconds(
        "request_seconds_total",
        "Time of requests from their headers to the end of their answers.",
        &metrics.request_micros,
    );
    seconds("prefill_seconds_total", "Time of steps that computed prompts.", &metrics.prefill_micros);
    seconds("decode_seconds_total", "Time of steps that computed answers.", &metrics.decode_micros);
    let mut gauge = |name: &str, help: &str, value: u64| line(&mut text, name, "gauge", help, value);
    gauge("requests_running", "Requests that are computed.", server.places.running() as u64);
    gauge("requests_waiting", "Requests that wait for a place.", server.places.waiting() as u64);
    gauge("connections", "Open connections.", server.connected() as u64);
    gauge("kv_cache_bytes", "Bytes in use of the KV cache.", server.model.kv_used_bytes());
    if let Some(bytes) = resident_bytes() {
        gauge("resident_memory_bytes", "Resident memory of the process.", bytes);
    }
    let mut response = Response::new(Body::from(text));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
