//! StableLM 2 and StableLM 3B: layer norms, partial rope; the 12B model has attention and feed-forward side by side and norms of
//! every query and key head with weights of their own.

use super::{Architecture, HeadNorms, NormKind, NormPlacement};

pub(super) const STABLELM: Architecture = Architecture {
    norm: NormKind::Layer,
    norms: NormPlacement::BeforeOrParallel,
    head_norms: HeadNorms::OwnIfThere,
    ..Architecture::BASE
};
