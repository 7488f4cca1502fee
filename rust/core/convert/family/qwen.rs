//! Qwen 2, 2.5, 3 and 3.5, with and without experts.

use super::{
    ATTENTION, Change, Config, EMBEDDING, EXPERTS, Family, GATED, HEAD_NORMS, Key, Keys, MIXTURE, NORMS, RMS, Rule,
    SIZES, count, exact, module,
};
use crate::Result;
use crate::gguf::Array;

pub(super) const QWEN2: Family = Family {
    architecture: "qwen2",
    classes: &["Qwen2ForCausalLM", "Qwen2Model"],
    model_types: &["qwen2"],
    rules: &[EMBEDDING, ATTENTION, NORMS, GATED],
    more: |config, keys| match config.bool("use_sliding_window")? {
        Some(true) => keys.no_window(config),
        _ => Ok(()),
    },
    ..Family::BASE
};

pub(super) const QWEN3: Family = Family {
    architecture: "qwen3",
    classes: &["Qwen3ForCausalLM", "Qwen3Model"],
    model_types: &["qwen3"],
    rules: &[EMBEDDING, ATTENTION, HEAD_NORMS, NORMS, GATED],
    ..QWEN2
};

pub(super) const QWEN3MOE: Family = Family {
    architecture: "qwen3moe",
    classes: &["Qwen3MoeForCausalLM"],
    model_types: &["qwen3_moe"],
    rules: &[EMBEDDING, ATTENTION, HEAD_NORMS, NORMS, MIXTURE],
    keys: &[SIZES, RMS, EXPERTS, OWN_WIDTH],
    more: |config, keys| {
        config.expect("norm_topk_prob", true, false)?;
        if config.array("mlp_only_layers")?.is_some_and(|layers| !layers.is_empty()) {
            return Err(config.unsupported("mlp_only_layers", "empty"));
        }
        if config.u32("decoder_sparse_step")?.unwrap_or(1) != 1 {
            return Err(config.unsupported("decoder_sparse_step", "1"));
        }
        (QWEN2.more)(config, keys)
    },
    ..QWEN3
};

const OWN_WIDTH: &[Key] = &[count("expert_feed_forward_length", &["moe_intermediate_size"])];

/// The weights of all norms but that of the delta nets are stored as their distance from 1.
const NEXT: &[Rule] = &[
    module("embed_tokens", "token_embd"),
    module("lm_head", "output"),
    module("norm", "output_norm").changed(Change::PlusOne),
    module("layers.#.input_layernorm", "blk.#.attn_norm").changed(Change::PlusOne),
    module("layers.#.post_attention_layernorm", "blk.#.post_attention_norm").changed(Change::PlusOne),
    module("layers.#.self_attn.q_norm", "blk.#.attn_q_norm").changed(Change::PlusOne),
    module("layers.#.self_attn.k_norm", "blk.#.attn_k_norm").changed(Change::PlusOne),
    module("layers.#.linear_attn.in_proj_qkv", "blk.#.attn_qkv").changed(Change::MixedValues),
    module("layers.#.linear_attn.in_proj_z", "blk.#.attn_gate").changed(Change::Values),
    module("layers.#.linear_attn.in_proj_b", "blk.#.ssm_beta").changed(Change::ValueScalars),
    module("layers.#.linear_attn.in_proj_a", "blk.#.ssm_alpha").changed(Change::ValueScalars),
    module("layers.#.linear_attn.conv1d", "blk.#.ssm_conv1d").changed(Change::MixedValues),
    exact("layers.#.linear_attn.dt_bias", "blk.#.ssm_dt.bias").changed(Change::ValueScalars),
    exact("layers.#.linear_attn.A_log", "blk.#.ssm_a").changed(Change::Decay),
    module("layers.#.linear_attn.norm", "blk.#.ssm_norm"),
    module("layers.#.linear_attn.out_proj", "blk.#.ssm_out").changed(Change::ValueColumns),
];

const DELTA: &[Key] = &[
    count("ssm.conv_kernel", &["linear_conv_kernel_dim"]),
    count("ssm.state_size", &["linear_key_head_dim"]),
    count("ssm.group_count", &["linear_num_key_heads"]),
    count("ssm.time_step_rank", &["linear_num_value_heads"]),
];

fn qwen35(config: &Config, keys: &mut Keys) -> Result<()> {
    let size = config.need(&["linear_value_head_dim"])?;
    if size != config.need(&["linear_key_head_dim"])? {
        return Err(config.unsupported("linear_value_head_dim", "linear_key_head_dim"));
    }
    config.expect("attn_output_gate", true, true)?;
    let inner = u64::from(size) * u64::from(config.need(&["linear_num_value_heads"])?);
    let inner = u32::try_from(inner).map_err(|_| config.wrong("linear_num_value_heads", "is too large"))?;
    keys.set("ssm.inner_size", inner);
    let layers = config.need(&["num_hidden_layers"])?;
    let recurrent: Option<Vec<bool>> =
        config.layer_types()?.map(|types| types.iter().map(|kind| *kind == "linear_attention").collect());
    let interval = config.u32("full_attention_interval")?.unwrap_or(4).max(1);
    keys.set("full_attention_interval", interval);
    if let Some(recurrent) =
        recurrent.filter(|found| *found != (1..=layers).map(|l| l % interval != 0).collect::<Vec<_>>())
    {
        keys.set("attention.recurrent_layers", Array::from(recurrent.as_slice()));
    }
    let rope = config.object("rope_parameters")?.or(config.object("rope_scaling")?);
    let sections = rope.map(|rope| rope.counts("mrope_section")).transpose()?.flatten();
    let mut sections: Vec<i32> =
        sections.unwrap_or(vec![11, 11, 10]).into_iter().map(|pairs| pairs.min(i32::MAX as u32) as i32).collect();
    sections.resize(4, 0);
    keys.set("rope.dimension_sections", Array::from(sections.as_slice()));
    Ok(())
}

pub(super) const QWEN35: Family = Family {
    architecture: "qwen35",
    classes: &["Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration"],
    model_types: &["qwen3_5", "qwen3_5_text"],
    rules: &[NEXT, ATTENTION, GATED],
    // Layers that predict further tokens.
    ignored: &["mtp."],
    keys: &[SIZES, RMS, DELTA],
    more: qwen35,
    ..Family::BASE
};
