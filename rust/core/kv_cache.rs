//! The paged, reference-counted KV cache.
