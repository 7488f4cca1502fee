//! BERT and Nomic BERT. What they have for other tasks than vectors is left out.

use super::{Config, Family, Key, Keys, LAYER_NORM, Rule, SIZES, count, module};
use crate::Result;

const BERT_RULES: &[Rule] = &[
    module("embeddings.word_embeddings", "token_embd"),
    module("embeddings.token_type_embeddings", "token_types"),
    module("embeddings.position_embeddings", "position_embd"),
    module("embeddings.LayerNorm", "token_embd_norm"),
    module("encoder.layer.#.attention.self.query", "blk.#.attn_q"),
    module("encoder.layer.#.attention.self.key", "blk.#.attn_k"),
    module("encoder.layer.#.attention.self.value", "blk.#.attn_v"),
    module("encoder.layer.#.attention.output.dense", "blk.#.attn_output"),
    module("encoder.layer.#.attention.output.LayerNorm", "blk.#.attn_output_norm"),
    module("encoder.layer.#.intermediate.dense", "blk.#.ffn_up"),
    module("encoder.layer.#.output.dense", "blk.#.ffn_down"),
    module("encoder.layer.#.output.LayerNorm", "blk.#.layer_output_norm"),
];

fn bert(config: &Config, keys: &mut Keys) -> Result<()> {
    keys.set("attention.causal", false);
    if let Some(kind) = config.str("position_embedding_type")?.filter(|kind| *kind != "absolute") {
        let _ = kind;
        return Err(config.unsupported("position_embedding_type", "\"absolute\""));
    }
    Ok(())
}

pub(super) const BERT: Family = Family {
    architecture: "bert",
    classes: &["BertModel", "BertForMaskedLM", "BertForPreTraining"],
    model_types: &["bert"],
    rules: &[BERT_RULES],
    ignored: &["embeddings.position_ids", "pooler.", "cls."],
    keys: &[SIZES, LAYER_NORM],
    more: bert,
    rope: None,
    activations: &["gelu", "gelu_new", "gelu_pytorch_tanh"],
    decoder: false,
    ..Family::BASE
};

const NOMIC_RULES: &[Rule] = &[
    module("embeddings.word_embeddings", "token_embd"),
    module("embeddings.token_type_embeddings", "token_types"),
    module("emb_ln", "token_embd_norm"),
    module("encoder.layers.#.attn.Wqkv", "blk.#.attn_qkv"),
    module("encoder.layers.#.attn.out_proj", "blk.#.attn_output"),
    module("encoder.layers.#.norm1", "blk.#.attn_output_norm"),
    module("encoder.layers.#.mlp.fc11", "blk.#.ffn_up"),
    module("encoder.layers.#.mlp.fc12", "blk.#.ffn_gate"),
    module("encoder.layers.#.mlp.fc2", "blk.#.ffn_down"),
    module("encoder.layers.#.norm2", "blk.#.layer_output_norm"),
];

fn nomic(config: &Config, keys: &mut Keys) -> Result<()> {
    keys.set("attention.causal", false);
    config.expect("prenorm", false, false)?;
    config.expect("rotary_emb_interleaved", false, false)?;
    if config.f64("rotary_emb_fraction")?.unwrap_or(1.0) != 1.0 {
        return Err(config.unsupported("rotary_emb_fraction", "1"));
    }
    if config.u32("moe_every_n_layers")?.unwrap_or(0) != 0 {
        return Err(config.unsupported("moe_every_n_layers", "0"));
    }
    // The files of v1 and v1.5 say 8192, for which rope would have to be stretched: they were trained with 2048.
    let (positions, trained) =
        (config.need(&["n_positions", "max_position_embeddings"])?, config.u32("max_trained_positions")?);
    keys.set("context_length", positions.min(trained.unwrap_or(2048)));
    Ok(())
}

const NOMIC_KEYS: &[Key] = &[count("context_length", &["n_positions", "max_position_embeddings"])];

pub(super) const NOMIC_BERT: Family = Family {
    architecture: "nomic-bert",
    classes: &["NomicBertModel"],
    model_types: &["nomic_bert"],
    rules: &[NOMIC_RULES],
    ignored: &["embeddings.position_ids", "pooler.", "cls."],
    keys: &[SIZES, NOMIC_KEYS, LAYER_NORM],
    more: nomic,
    rope: Some(10_000.0),
    activations: &["swiglu", "silu"],
    decoder: false,
    ..Family::BASE
};
