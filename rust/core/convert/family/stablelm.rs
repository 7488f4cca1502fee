//! StableLM 2: layer norms, perhaps side by side, perhaps one for every head of queries and keys.

use super::{ATTENTION, EMBEDDING, Family, GATED, LAYER_NORM, NORMS, Rule, SIZES, module};

const ROWS: &[Rule] = &[
    module("layers.#.self_attn.q_layernorm.norms.@", "blk.#.attn_q_norm"),
    module("layers.#.self_attn.k_layernorm.norms.@", "blk.#.attn_k_norm"),
];

pub(super) const STABLELM: Family = Family {
    architecture: "stablelm",
    classes: &["StableLmForCausalLM", "StableLMEpochForCausalLM"],
    model_types: &["stablelm", "stablelm_epoch"],
    rules: &[EMBEDDING, ATTENTION, ROWS, NORMS, GATED],
    keys: &[SIZES, LAYER_NORM],
    more: |config, keys| {
        keys.set("use_parallel_residual", config.bool("use_parallel_residual")?.unwrap_or(false));
        Ok(())
    },
    ..Family::BASE
};
