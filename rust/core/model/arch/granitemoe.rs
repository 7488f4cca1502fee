//! Granite 3 and 4 with experts, and perhaps one that every token meets: Granite that always has rope.

use super::granite::GRANITE;
use super::{Architecture, RopeLayers};

pub(super) const GRANITEMOE: Architecture = Architecture { rope_layers: RopeLayers::All, ..GRANITE };
