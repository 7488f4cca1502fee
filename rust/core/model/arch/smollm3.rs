//! SmolLM 3: Llama without rope in every fourth layer (NoPE, arXiv 2501.18795).

use super::llama::LLAMA;
use super::{Architecture, RopeLayers};

pub(super) const SMOLLM3: Architecture =
    Architecture { rope_layers: RopeLayers::AllButEvery(4), experts: None, ..LLAMA };
