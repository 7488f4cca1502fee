//! Qwen 1.5, 2 and 2.5, and what is distilled into them: Llama with rope in halves and biases of q, k and v.

use super::Architecture;

pub(super) const QWEN2: Architecture = Architecture::BASE;
