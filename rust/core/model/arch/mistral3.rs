//! Mistral 3 (Ministral 3B to 14B): Llama with YaRN, and queries that grow with their position (Llama 4's attention temperature).

use super::Architecture;
use super::llama::LLAMA;

pub(super) const MISTRAL3: Architecture = Architecture { temperature: true, ..LLAMA };
