//! gpt-oss: experts with biases and a clamped gate, attention sinks, a sliding window in every second layer, YaRN in all.

use super::{Architecture, ExpertRules, ExpertWidth, Gate, NormPlacement, Routing, WindowPattern};

pub(super) const GPT_OSS: Architecture = Architecture {
    norms: NormPlacement::BeforeAsPostAttention,
    window: WindowPattern::AllButEvery(2),
    gate: Gate::Clamped,
    experts: Some(ExpertRules { routing: Routing::SoftmaxOfUsed, width: ExpertWidth::Own }),
    sinks: true,
    ..Architecture::BASE
};
