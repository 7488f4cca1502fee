//! The endpoints, one per file, and what their answers share.

pub(super) mod chat;
pub(super) mod completions;
pub(super) mod embeddings;
pub(super) mod health;
pub(super) mod models;
pub(super) mod responses;
pub(super) mod tokens;

use fastq_core::{Completion, FinishReason};
use serde_json::{Value, json};

/// What answers say the system is: it changes when the same seed may give another answer.
pub(super) const FINGERPRINT: &str = concat!("fastq-", env!("CARGO_PKG_VERSION"));

/// OpenAI's name of a reason.
pub(super) fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length | FinishReason::Cancelled => "length",
    }
}

/// Tokens of several answers, of which each `answers` share a prompt.
pub(super) struct Usage {
    pub(super) prompt: usize,
    pub(super) cached: usize,
    pub(super) answer: usize,
}

impl Usage {
    /// Of the answers in input order. A prompt counts once, whatever the number of its answers.
    pub(super) fn of(completions: &[Completion], answers: usize) -> Usage {
        let prompts = || completions.iter().step_by(answers.max(1));
        Usage {
            prompt: prompts().map(|answer| answer.prompt_tokens).sum(),
            cached: prompts().map(|answer| answer.cached_tokens).sum(),
            answer: completions.iter().map(|answer| answer.tokens.len()).sum(),
        }
    }

    /// As chat and text completions tell it.
    pub(super) fn json(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.answer,
            "total_tokens": self.prompt + self.answer,
            "prompt_tokens_details": { "cached_tokens": self.cached },
        })
    }
}

/// Where the time of an answer went; fastq's own field, which the page shows.
pub(super) fn timings(completion: &Completion) -> Value {
    let t = &completion.timings;
    json!({
        "prefill_tokens": t.prefill_tokens,
        "prefill_seconds": t.prefill_seconds,
        "decode_tokens": t.decode_tokens,
        "decode_seconds": t.decode_seconds,
    })
}
