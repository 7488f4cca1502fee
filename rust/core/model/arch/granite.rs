//! Granite 3 and 4 (dense): Llama with factors of embeddings, residuals, scores and logits.

use super::llama::LLAMA;
use super::{Architecture, RopeLayers};

pub(super) const GRANITE: Architecture =
    Architecture { multipliers: true, rope_layers: RopeLayers::UnlessSwitchedOff, ..LLAMA };
