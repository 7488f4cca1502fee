//! Qwen 3.5 (dense): gated delta nets in three of four layers, attention with gated outputs and rope on part of the head in the
//! others. Layers that predict further tokens are not computed.

use super::{Architecture, HeadNorms, NormPlacement, Recurrence};

pub(super) const QWEN35: Architecture = Architecture {
    recurrence: Recurrence::DeltaNetAllButEvery(4),
    norms: NormPlacement::BeforeAsPostAttention,
    head_norms: HeadNorms::Each,
    query_gate: true,
    rope_sections: true,
    ..Architecture::BASE
};
