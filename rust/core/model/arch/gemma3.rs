//! Gemma 3 (text): norms of every query and key head, five layers with a sliding window to one that sees all.

use super::gemma::GEMMA;
use super::{Architecture, HeadNorms, NormPlacement, ScoreScale, WindowPattern};

pub(super) const GEMMA3: Architecture = Architecture {
    norms: NormPlacement::BeforeAndAfter,
    head_norms: HeadNorms::Each,
    rope_base: 1_000_000.0,
    window: WindowPattern::AllButEvery(6),
    window_rope_base: Some(10_000.0),
    window_rope_scaled: false,
    // The 27B model divides by the width per head, which is not the size of its heads.
    score_scale: ScoreScale::WidthPerHeadAt { layers: 62 },
    ..GEMMA
};
