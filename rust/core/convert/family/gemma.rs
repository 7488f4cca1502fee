//! Gemma 1 to 3 (the model of texts). The weights of norms are stored as their distance from 1; GGUF has the weights.

use super::{ATTENTION, Change, Config, Family, GATED, Key, Keys, RMS, Rule, SIZES, float, module};
use crate::Result;

const NORMS: &[Rule] = &[
    module("embed_tokens", "token_embd"),
    module("lm_head", "output"),
    module("norm", "output_norm").changed(Change::PlusOne),
    module("layers.#.input_layernorm", "blk.#.attn_norm").changed(Change::PlusOne),
];
const BEFORE: &[Rule] = &[module("layers.#.post_attention_layernorm", "blk.#.ffn_norm").changed(Change::PlusOne)];
const BEFORE_AND_AFTER: &[Rule] = &[
    module("layers.#.post_attention_layernorm", "blk.#.post_attention_norm").changed(Change::PlusOne),
    module("layers.#.pre_feedforward_layernorm", "blk.#.ffn_norm").changed(Change::PlusOne),
    module("layers.#.post_feedforward_layernorm", "blk.#.post_ffw_norm").changed(Change::PlusOne),
];
const HEAD_NORMS: &[Rule] = &[
    module("layers.#.self_attn.q_norm", "blk.#.attn_q_norm").changed(Change::PlusOne),
    module("layers.#.self_attn.k_norm", "blk.#.attn_k_norm").changed(Change::PlusOne),
];
const CAPS: &[Key] = &[
    float("attn_logit_softcapping", &["attn_logit_softcapping"]).optional(),
    float("final_logit_softcapping", &["final_logit_softcapping"]).optional(),
];

/// Scores are divided by a root that is not always that of the head size; the largest model of a family is known by its layers.
fn score_scale(config: &Config, keys: &mut Keys, special: u32) -> Result<()> {
    let size = config.head_dim()?;
    let Some(scalar) = config.f64("query_pre_attn_scalar")? else { return Ok(()) };
    if scalar <= 0.0 {
        return Err(config.wrong("query_pre_attn_scalar", format_args!("must be above 0, found {scalar}")));
    }
    let layers = config.need(&["num_hidden_layers"])?;
    if scalar != f64::from(size) && layers != special {
        keys.set("attention.scale", (1.0 / scalar.sqrt()) as f32);
        let what = "query_pre_attn_scalar is not the head size: written as attention.scale, which llama.cpp does not read for this \
                    architecture";
        keys.notes.add("config.json", what.into());
    }
    Ok(())
}

pub(super) const GEMMA: Family = Family {
    architecture: "gemma",
    classes: &["GemmaForCausalLM", "GemmaModel"],
    model_types: &["gemma"],
    rules: &[NORMS, BEFORE, ATTENTION, GATED],
    // What is called "gelu" in the first files is its approximation by tanh, too.
    activations: &["gelu_pytorch_tanh", "gelu", "gelu_new"],
    ..Family::BASE
};

pub(super) const GEMMA2: Family = Family {
    architecture: "gemma2",
    classes: &["Gemma2ForCausalLM", "Gemma2Model"],
    model_types: &["gemma2"],
    rules: &[NORMS, BEFORE_AND_AFTER, ATTENTION, GATED],
    keys: &[SIZES, RMS, CAPS],
    more: |config, keys| {
        keys.windows(config, 2)?;
        score_scale(config, keys, 46)
    },
    ..GEMMA
};

pub(super) const GEMMA3: Family = Family {
    architecture: "gemma3",
    classes: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
    model_types: &["gemma3", "gemma3_text"],
    rules: &[NORMS, BEFORE_AND_AFTER, HEAD_NORMS, ATTENTION, GATED],
    keys: &[SIZES, RMS, CAPS],
    defaults: &[
        ("max_position_embeddings", 131_072.0),
        ("num_attention_heads", 8.0),
        ("num_key_value_heads", 4.0),
        ("head_dim", 256.0),
        ("rms_norm_eps", 1e-6),
    ],
    more: |config, keys| {
        if config.f64("attn_logit_softcapping")?.is_some() {
            return Err(config.unsupported("attn_logit_softcapping", "null"));
        }
        keys.windows(config, 6)?;
        score_scale(config, keys, 62)
    },
    rope: Some(1_000_000.0),
    ..GEMMA
};
