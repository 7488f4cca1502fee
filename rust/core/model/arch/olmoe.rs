//! OLMoE: Llama with rope in halves, q and k normalised over all heads, and experts whose weights do not add up to 1.

use super::{Architecture, ExpertRules, HeadNorms, Routing};

pub(super) const OLMOE: Architecture = Architecture {
    head_norms: HeadNorms::Together,
    experts: Some(ExpertRules { routing: Routing::Softmax { normalised: false }, ..ExpertRules::BASE }),
    ..Architecture::BASE
};
