//! Qwen 3 with experts (30B-A3B, 235B-A22B, Coder): Qwen 3 whose feed-forward parts are experts with a width of their own.

use super::qwen3::QWEN3;
use super::{Architecture, ExpertRules, ExpertWidth};

pub(super) const QWEN3MOE: Architecture =
    Architecture { experts: Some(ExpertRules { width: ExpertWidth::Own, ..ExpertRules::BASE }), ..QWEN3 };
