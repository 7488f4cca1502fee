//! GGUF files: reading (v2, v3, split), mapping, writing.
//!
//! Specification: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
