//! LFM 2: gated short convolutions in most layers, attention with norms of every query and key head in the others, and perhaps a
//! sliding window in all of these.

use super::{Architecture, HeadNorms, Recurrence, WindowPattern};

pub(super) const LFM2: Architecture = Architecture {
    recurrence: Recurrence::ShortConvWithoutHeads,
    output_norm_as_embedding_norm: true,
    head_norms: HeadNorms::Each,
    window: WindowPattern::All,
    ..Architecture::BASE
};
