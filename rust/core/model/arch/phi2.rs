//! Phi 1 to 2: layer norms, partial rope, attention and feed-forward side by side, GELU without a gate, biases everywhere.

use super::{ActivationFunction, Architecture, Gate, NormKind, NormPlacement};

pub(super) const PHI2: Architecture = Architecture {
    norm: NormKind::Layer,
    norms: NormPlacement::Parallel,
    activation: ActivationFunction::Gelu,
    gate: Gate::None,
    ..Architecture::BASE
};
