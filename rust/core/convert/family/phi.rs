//! Phi 2 and 3 (and 4, which has the form of 3).

use super::{EMBEDDING, Family, LAYER_NORM, RMS, Rule, SIZES, module};

const PHI2_RULES: &[Rule] = &[
    module("embed_tokens", "token_embd"),
    module("final_layernorm", "output_norm"),
    module("lm_head", "output"),
    module("layers.#.input_layernorm", "blk.#.attn_norm"),
    module("layers.#.self_attn.q_proj", "blk.#.attn_q"),
    module("layers.#.self_attn.k_proj", "blk.#.attn_k"),
    module("layers.#.self_attn.v_proj", "blk.#.attn_v"),
    module("layers.#.self_attn.dense", "blk.#.attn_output"),
    module("layers.#.mlp.fc1", "blk.#.ffn_up"),
    module("layers.#.mlp.fc2", "blk.#.ffn_down"),
];

pub(super) const PHI2: Family = Family {
    architecture: "phi2",
    classes: &["PhiForCausalLM"],
    model_types: &["phi"],
    rules: &[PHI2_RULES],
    keys: &[SIZES, LAYER_NORM],
    more: |config, _| config.expect("qk_layernorm", false, false),
    activations: &["gelu_new", "gelu_pytorch_tanh", "gelu"],
    ..Family::BASE
};

/// Queries, keys and values stay one matrix, and so do gate and up.
const PHI3_RULES: &[Rule] = &[
    module("layers.#.self_attn.qkv_proj", "blk.#.attn_qkv"),
    module("layers.#.self_attn.o_proj", "blk.#.attn_output"),
    module("layers.#.input_layernorm", "blk.#.attn_norm"),
    module("layers.#.post_attention_layernorm", "blk.#.ffn_norm"),
    module("layers.#.mlp.gate_up_proj", "blk.#.ffn_up"),
    module("layers.#.mlp.down_proj", "blk.#.ffn_down"),
];

pub(super) const PHI3: Family = Family {
    architecture: "phi3",
    classes: &["Phi3ForCausalLM"],
    model_types: &["phi3"],
    rules: &[EMBEDDING, PHI3_RULES],
    keys: &[SIZES, RMS],
    more: |config, keys| {
        // 0 tells llama.cpp that this is a Phi 4.
        keys.set("attention.sliding_window", config.u32("sliding_window")?.unwrap_or(0));
        if !keys.pairs.iter().any(|(key, _)| key == "phi3.rope.scaling.original_context_length") {
            let context = config.need(&["max_position_embeddings"])?;
            let original = config.u32("original_max_position_embeddings")?.unwrap_or(context);
            keys.set("rope.scaling.original_context_length", original);
        }
        keys.no_window(config)
    },
    ..Family::BASE
};
