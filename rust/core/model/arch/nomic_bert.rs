//! Nomic's BERT (arXiv 2402.01613): rope instead of vectors for positions, SiLU gate.

use super::bert::BERT;
use super::{ActivationFunction, Architecture, Gate, RopeLayers};

pub(super) const NOMIC_BERT: Architecture = Architecture {
    position_rows: false,
    rope_layers: RopeLayers::All,
    activation: ActivationFunction::Silu,
    gate: Gate::Apart,
    ..BERT
};
