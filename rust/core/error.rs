//! The one error type of the engine. `rust/python/src/error.rs` maps it to exceptions, `rust/cli` to exit codes.

use std::path::PathBuf;

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong. Messages are lower case and name the tensor, key or argument, what was expected, what was
/// found, and what to do.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum Error {
    /// No file at the path.
    #[error("no such file: {}", .0.display())]
    NotFound(PathBuf),
    /// The operating system refused to read or write.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes of a model file are malformed, truncated or inconsistent.
    #[error("{}{}: {what}", path.display(), offset.map(|o| format!(" at byte {o}")).unwrap_or_default())]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// Where in the file, in bytes, when the fault has a place.
        offset: Option<u64>,
        /// The tensor or key, what was expected and what was found.
        what: String,
    },
    /// A file of a session is malformed, truncated, or one of another model or version.
    #[error("{}{}: {what}", path.display(), offset.map(|o| format!(" at byte {o}")).unwrap_or_default())]
    Session {
        /// The file.
        path: PathBuf,
        /// Where in the file, in bytes, when the fault has a place.
        offset: Option<u64>,
        /// What was expected, what was found and what to do.
        what: String,
    },
    /// A valid file that this version cannot run.
    #[error("{0}")]
    UnsupportedModel(String),
    /// The vocabulary is inconsistent or cannot encode a text.
    #[error("{0}")]
    Tokenizer(String),
    /// The chat template is invalid, raised an exception or exceeded a limit.
    #[error("{0}")]
    Template(String),
    /// A grammar is invalid, not supported, too complex, or was left by a token.
    #[error("{0}")]
    Grammar(String),
    /// Prompt and answer do not fit the context.
    #[error("{0}")]
    ContextOverflow(String),
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The computation gave a NaN or an infinity, so the weights are damaged.
    #[error("{0}")]
    NotFinite(String),
    /// The plan does not fit the memory that is free.
    #[error("{0}")]
    Memory(String),
    /// An argument has a wrong value.
    #[error("{0}")]
    Argument(String),
    /// A defect of fastq itself.
    #[error("internal error: {0}; please report it")]
    Internal(String),
}
