//! LFM 2: short convolutions in most layers. The norm before the output has the name of one after the embedding.

use super::{Change, Config, Family, Key, Keys, RMS, Rule, count, module};
use crate::Result;
use crate::gguf::Array;

const RULES: &[Rule] = &[
    module("embed_tokens", "token_embd"),
    module("embedding_norm", "token_embd_norm"),
    module("lm_head", "output"),
    module("layers.#.operator_norm", "blk.#.attn_norm"),
    module("layers.#.ffn_norm", "blk.#.ffn_norm"),
    module("layers.#.self_attn.q_proj", "blk.#.attn_q"),
    module("layers.#.self_attn.k_proj", "blk.#.attn_k"),
    module("layers.#.self_attn.v_proj", "blk.#.attn_v"),
    module("layers.#.self_attn.out_proj", "blk.#.attn_output"),
    module("layers.#.self_attn.q_layernorm", "blk.#.attn_q_norm"),
    module("layers.#.self_attn.k_layernorm", "blk.#.attn_k_norm"),
    module("layers.#.conv.in_proj", "blk.#.shortconv.in_proj"),
    module("layers.#.conv.conv", "blk.#.shortconv.conv").changed(Change::Squeeze),
    module("layers.#.conv.out_proj", "blk.#.shortconv.out_proj"),
    module("layers.#.feed_forward.w1", "blk.#.ffn_gate"),
    module("layers.#.feed_forward.w3", "blk.#.ffn_up"),
    module("layers.#.feed_forward.w2", "blk.#.ffn_down"),
];
const KEYS: &[Key] = &[
    count("block_count", &["num_hidden_layers"]),
    count("context_length", &["max_position_embeddings"]),
    count("embedding_length", &["hidden_size"]),
    count("attention.head_count", &["num_attention_heads"]),
    count("shortconv.l_cache", &["conv_L_cache"]),
];

/// The width of the feed-forward part: two thirds of what the file says, rounded up, unless it says otherwise.
fn width(config: &Config) -> Result<u32> {
    let full = config.need(&["block_ff_dim", "intermediate_size"])?;
    if !config.bool("block_auto_adjust_ff_dim")?.unwrap_or(true) {
        return Ok(full);
    }
    let part = (f64::from(full) * 2.0 / 3.0).floor();
    let part = (part * config.f64("block_ffn_dim_multiplier")?.unwrap_or(1.0)).floor();
    let multiple = f64::from(config.u32("block_multiple_of")?.unwrap_or(256).max(1));
    Ok(((part / multiple).ceil() * multiple) as u32)
}

fn more(config: &Config, keys: &mut Keys) -> Result<()> {
    config.expect("conv_bias", false, false)?;
    let layers = config.need(&["num_hidden_layers"])?;
    let heads = config.need(&["num_key_value_heads"])? as i32;
    let attention: Vec<bool> = match (config.layer_types()?, config.counts("full_attn_idxs")?) {
        (Some(types), _) => types.iter().map(|kind| *kind == "full_attention").collect(),
        (None, Some(indices)) => (0..layers).map(|layer| indices.contains(&layer)).collect(),
        (None, None) => return Err(config.missing(&["layer_types", "full_attn_idxs"], "which layers have attention")),
    };
    let heads: Vec<i32> = attention.into_iter().map(|attention| if attention { heads } else { 0 }).collect();
    keys.set("attention.head_count_kv", Array::from(heads.as_slice()));
    keys.set("feed_forward_length", width(config)?);
    Ok(())
}

pub(super) const LFM2: Family = Family {
    architecture: "lfm2",
    classes: &["Lfm2ForCausalLM", "LFM2ForCausalLM"],
    model_types: &["lfm2"],
    rules: &[RULES],
    keys: &[KEYS, RMS],
    more,
    rope: Some(1_000_000.0),
    ..Family::BASE
};
