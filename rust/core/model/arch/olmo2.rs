//! OLMo 2 and 3: norms after the parts only, q and k normalised over all heads; three layers with a sliding window to one
//! that sees all (3).

use super::{Architecture, HeadNorms, NormPlacement, WindowPattern};

pub(super) const OLMO2: Architecture = Architecture {
    norms: NormPlacement::After,
    head_norms: HeadNorms::Together,
    window: WindowPattern::AllButEvery(4),
    window_rope_scaled: false,
    ..Architecture::BASE
};
