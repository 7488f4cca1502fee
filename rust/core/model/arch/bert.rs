//! BERT (arXiv 1810.04805) and what sentence-transformers make of it: every position sees all, norms after the additions, a vector
//! for each position of the text, GELU without a gate. The result is vectors, not logits.

use super::{ActivationFunction, Architecture, Gate, NormKind, NormPlacement, RopeLayers};

pub(super) const BERT: Architecture = Architecture {
    encoder: true,
    position_rows: true,
    norm: NormKind::Layer,
    norms: NormPlacement::AfterSum,
    rope_layers: RopeLayers::None,
    activation: ActivationFunction::Gelu,
    gate: Gate::None,
    ..Architecture::BASE
};
