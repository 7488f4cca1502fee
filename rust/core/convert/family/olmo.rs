//! OLMo 2 and 3, and OLMoE.

use super::{ATTENTION, EMBEDDING, EXPERTS, Family, GATED, HEAD_NORMS, MIXTURE, NORMS, RMS, Rule, SIZES, module};
use crate::gguf::Array;

/// Norms after the parts only.
const AFTER: &[Rule] = &[
    module("layers.#.post_attention_layernorm", "blk.#.post_attention_norm"),
    module("layers.#.post_feedforward_layernorm", "blk.#.post_ffw_norm"),
];

pub(super) const OLMO2: Family = Family {
    architecture: "olmo2",
    classes: &["Olmo2ForCausalLM", "Olmo3ForCausalLM"],
    model_types: &["olmo2", "olmo3"],
    rules: &[EMBEDDING, ATTENTION, HEAD_NORMS, AFTER, GATED],
    more: |config, keys| {
        let Some(window) = config.u32("sliding_window")? else { return Ok(()) };
        keys.set("attention.sliding_window", window);
        let layers = config.need(&["num_hidden_layers"])?;
        let windows: Vec<bool> = match config.layer_types()? {
            Some(types) => types.iter().map(|kind| *kind == "sliding_attention").collect(),
            None => (1..=layers).map(|layer| layer % 4 != 0).collect(),
        };
        keys.set("attention.sliding_window_pattern", Array::from(windows.as_slice()));
        Ok(())
    },
    ..Family::BASE
};

pub(super) const OLMOE: Family = Family {
    architecture: "olmoe",
    classes: &["OlmoeForCausalLM"],
    model_types: &["olmoe"],
    rules: &[EMBEDDING, ATTENTION, HEAD_NORMS, NORMS, MIXTURE],
    keys: &[SIZES, RMS, EXPERTS],
    more: |config, _| {
        config.expect("norm_topk_prob", false, false)?;
        match config.f64("clip_qkv")? {
            Some(_) => Err(config.unsupported("clip_qkv", "null")),
            None => Ok(()),
        }
    },
    ..Family::BASE
};
