//! From logits to a token: a chain of stages, one per file.
