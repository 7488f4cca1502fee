//! Granite 3 and 4: factors of embeddings, residuals, scores and logits. Of the models that may mix in Mamba only those that have
//! attention everywhere.

use super::llama::PAIRED;
use super::{
    Change, Config, EMBEDDING, EXPERTS, Family, GATED, Key, Keys, NORMS, RMS, Rule, SIZES, count, float, module,
};
use crate::Result;

const FACTORS: &[Key] = &[
    float("attention.scale", &["attention_multiplier"]).optional(),
    float("embedding_scale", &["embedding_multiplier"]).optional(),
    float("residual_scale", &["residual_multiplier"]).optional(),
    float("logit_scale", &["logits_scaling"]).optional(),
];
const EXPERT_RULES: &[Rule] = &[
    module("layers.#.block_sparse_moe.router.layer", "blk.#.ffn_gate_inp"),
    module("layers.#.block_sparse_moe.input_linear", "blk.#.ffn_gate_exps").changed(Change::Half(0)),
    module("layers.#.block_sparse_moe.input_linear", "blk.#.ffn_up_exps").changed(Change::Half(1)),
    module("layers.#.block_sparse_moe.output_linear", "blk.#.ffn_down_exps"),
    module("layers.#.shared_mlp.input_linear", "blk.#.ffn_gate_shexp").changed(Change::Half(0)),
    module("layers.#.shared_mlp.input_linear", "blk.#.ffn_up_shexp").changed(Change::Half(1)),
    module("layers.#.shared_mlp.output_linear", "blk.#.ffn_down_shexp"),
];
/// Without experts, the one that every token meets is the feed-forward part.
const SHARED_ONLY: &[Rule] = &[
    module("layers.#.shared_mlp.input_linear", "blk.#.ffn_gate").changed(Change::Half(0)),
    module("layers.#.shared_mlp.input_linear", "blk.#.ffn_up").changed(Change::Half(1)),
    module("layers.#.shared_mlp.output_linear", "blk.#.ffn_down"),
];

/// Whether all layers have attention.
fn attention_only(config: &Config) -> bool {
    matches!(config.layer_types(), Ok(Some(types)) if types.iter().all(|kind| *kind == "attention"))
}

fn experts(config: &Config) -> bool {
    matches!(config.u32("num_local_experts"), Ok(Some(1..)))
}

fn nope(config: &Config) -> Result<bool> {
    Ok(config.str("position_embedding_type")?.is_some_and(|kind| kind != "rope"))
}

pub(super) const GRANITE: Family = Family {
    architecture: "granite",
    classes: &["GraniteForCausalLM", "GraniteModel"],
    model_types: &["granite"],
    rules: &[EMBEDDING, PAIRED, NORMS, GATED],
    keys: &[SIZES, RMS, FACTORS],
    ..Family::BASE
};

pub(super) const GRANITE4: Family = Family {
    classes: &["GraniteMoeHybridForCausalLM"],
    model_types: &["granitemoehybrid"],
    when: |config| attention_only(config) && !experts(config),
    rules: &[EMBEDDING, PAIRED, NORMS, SHARED_ONLY],
    more: |config, keys| {
        keys.set("feed_forward_length", config.need(&["shared_intermediate_size"])?);
        if nope(config)? {
            keys.set("rope.scaling.finetuned", false);
        }
        Ok(())
    },
    ..GRANITE
};

fn shared(config: &Config, keys: &mut Keys) -> Result<()> {
    if nope(config)? {
        return Err(config.unsupported("position_embedding_type", "\"rope\" with experts"));
    }
    if let Some(width) = config.u32("shared_intermediate_size")?.filter(|width| *width > 0) {
        keys.set("expert_shared_feed_forward_length", width);
    }
    Ok(())
}

pub(super) const GRANITEMOE: Family = Family {
    architecture: "granitemoe",
    classes: &["GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM", "GraniteMoeHybridForCausalLM"],
    model_types: &["granitemoe", "granitemoeshared", "granitemoehybrid"],
    when: |config| experts(config) && (config.get("layer_types").is_none() || attention_only(config)),
    rules: &[EMBEDDING, PAIRED, NORMS, EXPERT_RULES],
    keys: &[SIZES, RMS, FACTORS, EXPERTS, SHARED],
    more: shared,
    ..GRANITE
};

const SHARED: &[Key] = &[count("expert_shared_feed_forward_length", &["shared_intermediate_size"]).optional()];
