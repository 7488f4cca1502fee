//! Gemma 2: Gemma with norms after the parts, caps of scores and logits, and a sliding window in every second layer.

use super::gemma::GEMMA;
use super::{Architecture, NormPlacement, ScoreScale, WindowPattern};

pub(super) const GEMMA2: Architecture = Architecture {
    norms: NormPlacement::BeforeAndAfter,
    window: WindowPattern::AllButEvery(2),
    window_default: Some(4096),
    // The 27B model divides by the width per head, which is not the size of its heads.
    score_scale: ScoreScale::WidthPerHeadAt { layers: 46 },
    score_cap: Some(50.0),
    logit_cap: Some(30.0),
    ..GEMMA
};
