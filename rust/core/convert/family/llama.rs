//! Llama and everything published in its form, Mistral 3, SmolLM 3. Rows of queries and keys are permuted: rope pairs the values of a
//! head by halves in transformers, and neighbours here.

use super::{Change, EMBEDDING, Family, GATED, Key, NORMS, RMS, Rule, SIZES, count, module};

/// Attention with rope on neighbours.
pub(super) const PAIRED: &[Rule] = &[
    module("layers.#.self_attn.q_proj", "blk.#.attn_q").changed(Change::QueryPairs),
    module("layers.#.self_attn.k_proj", "blk.#.attn_k").changed(Change::KeyPairs),
    module("layers.#.self_attn.v_proj", "blk.#.attn_v"),
    module("layers.#.self_attn.o_proj", "blk.#.attn_output"),
];
/// Mixtral.
const MIXTRAL: &[Rule] = &[
    module("layers.#.block_sparse_moe.gate", "blk.#.ffn_gate_inp"),
    module("layers.#.block_sparse_moe.experts.@.w1", "blk.#.ffn_gate_exps"),
    module("layers.#.block_sparse_moe.experts.@.w3", "blk.#.ffn_up_exps"),
    module("layers.#.block_sparse_moe.experts.@.w2", "blk.#.ffn_down_exps"),
];
const MIXTRAL_KEYS: &[Key] = &[
    count("expert_count", &["num_local_experts"]).optional(),
    count("expert_used_count", &["num_experts_per_tok"]).optional(),
];

pub(super) const LLAMA: Family = Family {
    architecture: "llama",
    classes: &["LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "LlamaModel"],
    model_types: &["llama", "mistral", "mixtral"],
    rules: &[EMBEDDING, PAIRED, NORMS, GATED, MIXTRAL],
    keys: &[SIZES, RMS, MIXTRAL_KEYS],
    more: |config, keys| keys.no_window(config),
    ..Family::BASE
};

pub(super) const MISTRAL3: Family = Family {
    architecture: "mistral3",
    classes: &["Mistral3ForConditionalGeneration", "Ministral3ForCausalLM"],
    model_types: &["mistral3", "ministral3"],
    keys: &[SIZES, RMS],
    more: |config, keys| {
        if let Some(rope) = config.object("rope_parameters")?
            && let Some(scale) = rope.f64("llama_4_scaling_beta")?
        {
            keys.set("attention.temperature_scale", scale as f32);
        }
        keys.no_window(config)
    },
    ..LLAMA
};

pub(super) const SMOLLM3: Family = Family {
    architecture: "smollm3",
    classes: &["SmolLM3ForCausalLM", "SmolLM3Model"],
    model_types: &["smollm3"],
    rules: &[EMBEDDING, PAIRED, NORMS, GATED],
    keys: &[SIZES, RMS],
    more: |config, keys| {
        // 1 for layers with rope. GGUF has no key for it: all but every fourth.
        let usual = |layers: &[u32]| layers.iter().enumerate().all(|(at, rope)| (*rope != 0) == ((at + 1) % 4 != 0));
        match config.counts("no_rope_layers")? {
            Some(layers) if !usual(&layers) => {
                Err(config.unsupported("no_rope_layers", "0 for every fourth layer only"))
            }
            Some(_) => keys.no_window(config),
            None if config.u32("no_rope_layer_interval")?.unwrap_or(4) != 4 => {
                Err(config.unsupported("no_rope_layer_interval", "4"))
            }
            None => keys.no_window(config),
        }
    },
    rope: Some(2_000_000.0),
    ..LLAMA
};
