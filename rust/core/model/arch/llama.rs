//! Llama 1 to 3 and everything exported under that name: Mistral, Mixtral, SmolLM2, TinyLlama, Yi, …
//!
//! Pre-norm, adjacent rope pairs (the converter permutes the rows of q and k for them), SiLU gate, optional biases, optional
//! rope factors (Llama 3.1 and later), output tied to the embedding when `output.weight` is missing.

use fastq_kernels::elementwise::RopeStyle;

use super::{Architecture, ExpertRules};

pub(super) const LLAMA: Architecture =
    Architecture { rope_style: RopeStyle::Pairs, experts: Some(ExpertRules::BASE), ..Architecture::BASE };
