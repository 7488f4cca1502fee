//! Qwen 3: norms of every query and key head, whose length is not the width divided by the heads; no biases.

use super::{Architecture, HeadNorms};

pub(super) const QWEN3: Architecture = Architecture { head_norms: HeadNorms::Each, ..Architecture::BASE };
