//! Gemma 3 (text): q/k norms, norms before and after each part, five layers with a sliding window to one that sees all.
//!
//! The norm weights in the file already include the `1 +` of the published formula.

use fastq_kernels::elementwise::RopeStyle;

use super::{Architecture, Gate, WindowPattern};

pub(super) const GEMMA3: Architecture = Architecture {
    name: "gemma3",
    rope_style: RopeStyle::Halves,
    rope_base: 1_000_000.0,
    window_rope_base: Some(10_000.0),
    window: WindowPattern::AllButEvery(6),
    head_norms: true,
    sandwich_norms: true,
    gate: Gate::Gelu,
    scale_embedding: true,
    // The 27B model (62 layers) divides by the width per head, which is not the size of its heads.
    score_scale: Some(|facts| (facts.layers == 62).then(|| 1.0 / (facts.width as f64 / facts.heads as f64).sqrt())),
};
