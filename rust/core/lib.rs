//! The engine: GGUF files, tokenizers, the forward pass, sampling and generation. No Python, HTTP or terminals.

pub mod calibrate;
pub mod chat;
pub mod convert;
pub mod doctor;
pub mod error;
pub mod evaluate;
pub mod generate;
pub mod gguf;
pub mod grammar;
pub mod imatrix;
pub mod interrupt;
pub mod kv_cache;
pub mod machine;
pub mod memory;
pub mod model;
pub mod pool;
pub mod progress;
pub mod quantize;
pub mod sampler;
pub(crate) mod scheduler;
pub mod session;
pub mod template;
pub mod tokenizer;

pub use error::{Error, Result};
pub use generate::{Completion, FinishReason, Generation, GenerationOptions, Piece, Prompt};
pub use grammar::{Grammar, GrammarSource, Matcher};
pub use interrupt::{Interrupt, Never};
pub use model::{BatchItem, KvFormat, LoadOptions, Logits, Model, Sequence};
pub use progress::{Progress, Silent};
pub use session::{PromptCache, Session};
