//! Phi 3, 3.5 and 4: q, k and v in one matrix, gate and up in another, two sets of rope factors for short and long contexts.
//!
//! The sliding window of some files is ignored, as llama.cpp does.

use super::{Architecture, Gate};

pub(super) const PHI3: Architecture = Architecture { gate: Gate::InUp, ..Architecture::BASE };
