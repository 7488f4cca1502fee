//! Gemma 1: embeddings multiplied by the square root of the width, GELU gate.
//!
//! The norm weights in the files of all Gemmas already include the `1 +` of the published formula.

use super::{ActivationFunction, Architecture};

pub(super) const GEMMA: Architecture =
    Architecture { scale_embedding: true, activation: ActivationFunction::Gelu, ..Architecture::BASE };
