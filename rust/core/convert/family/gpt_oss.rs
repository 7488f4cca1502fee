//! gpt-oss: experts in one tensor with rows of gate and up in turn, as four-bit floats or as floats with rows and columns in each
//! other's place; sinks.

use super::{ATTENTION, Change, EMBEDDING, EXPERTS, Family, Key, RMS, Rule, SIZES, count, exact, module};

const RULES: &[Rule] = &[
    module("layers.#.input_layernorm", "blk.#.attn_norm"),
    module("layers.#.post_attention_layernorm", "blk.#.post_attention_norm"),
    exact("layers.#.self_attn.sinks", "blk.#.attn_sinks.weight"),
    module("layers.#.mlp.router", "blk.#.ffn_gate_inp"),
    exact("layers.#.mlp.experts.gate_up_proj", "blk.#.ffn_gate_exps.weight").changed(Change::TransposeEverySecond(0)),
    exact("layers.#.mlp.experts.gate_up_proj", "blk.#.ffn_up_exps.weight").changed(Change::TransposeEverySecond(1)),
    exact("layers.#.mlp.experts.gate_up_proj_bias", "blk.#.ffn_gate_exps.bias").changed(Change::EverySecond(0)),
    exact("layers.#.mlp.experts.gate_up_proj_bias", "blk.#.ffn_up_exps.bias").changed(Change::EverySecond(1)),
    exact("layers.#.mlp.experts.down_proj", "blk.#.ffn_down_exps.weight").changed(Change::Transpose),
    exact("layers.#.mlp.experts.down_proj_bias", "blk.#.ffn_down_exps.bias"),
];
const WIDTH: &[Key] = &[count("expert_feed_forward_length", &["intermediate_size"])];

pub(super) const GPT_OSS: Family = Family {
    architecture: "gpt-oss",
    classes: &["GptOssForCausalLM"],
    model_types: &["gpt_oss"],
    rules: &[EMBEDDING, ATTENTION, RULES],
    keys: &[SIZES, RMS, EXPERTS, WIDTH],
    more: |config, keys| keys.windows(config, 2),
    rope: Some(150_000.0),
    ..Family::BASE
};
