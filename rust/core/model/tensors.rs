//! The registry: one table of the tensors a model may have, with their roles, shapes and whether they must be there.

use super::arch::{Gate, HeadNorms, NormPlacement};
use super::mixers::convolution::Convolution;
use super::mixers::delta_net::DeltaNet;
use super::spec::{Attention, Experts, FeedForward, LayerSpec, Mixer, ModelSpec};
use crate::gguf::{Gguf, TensorInfo};
use crate::{Error, Result};

/// What a tensor is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs, reason = "the table below says what each one is called and how it is shaped")]
pub enum Role {
    Embedding,
    EmbeddingNorm,
    EmbeddingNormBias,
    TokenTypes,
    PositionRows,
    OutputNorm,
    OutputNormBias,
    Output,
    OutputBias,
    RopeFactors,
    LongRopeFactors,
    ShortRopeFactors,
    AttentionNorm,
    AttentionNormBias,
    QueryKeyValue,
    QueryKeyValueBias,
    Query,
    QueryBias,
    QueryNorm,
    Key,
    KeyBias,
    KeyNorm,
    Value,
    ValueBias,
    Sinks,
    AttentionOutput,
    AttentionOutputBias,
    ShortConvInput,
    ShortConvTaps,
    ShortConvOutput,
    DeltaGate,
    DeltaTaps,
    DeltaAlpha,
    DeltaBeta,
    DeltaRateBias,
    DeltaLogDecay,
    DeltaNorm,
    DeltaOutput,
    PostAttentionNorm,
    AttentionOutputNorm,
    AttentionOutputNormBias,
    FeedForwardNorm,
    FeedForwardNormBias,
    Gate,
    GateBias,
    Up,
    UpBias,
    Down,
    DownBias,
    Router,
    RouterBias,
    ExpertsGate,
    ExpertsGateBias,
    ExpertsUp,
    ExpertsUpBias,
    ExpertsDown,
    ExpertsDownBias,
    SharedGate,
    SharedUp,
    SharedDown,
    PostFeedForwardNorm,
    LayerOutputNorm,
    LayerOutputNormBias,
}

/// A dimension, in terms of the spec.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dim {
    Width,
    Vocabulary,
    /// Rows of the embedding of token types.
    TokenTypes,
    /// Positions the model was trained for.
    Context,
    /// Half of the rotated values of a head.
    RopePairs,
    /// All queries of a position, and their gates.
    Queries,
    /// All keys of a position.
    Keys,
    /// All values of a position.
    Values,
    /// Queries, keys and values of a position.
    QueriesKeysValues,
    /// The outputs of all query heads.
    Heads,
    /// The number of query heads.
    HeadCount,
    /// What the matrices of a mixer with a state give it for a position.
    Mixed,
    /// Positions that a convolution sees.
    Taps,
    /// Channels of a convolution.
    Channels,
    /// Heads of a delta net.
    DeltaHeads,
    /// Values of a head of a delta net.
    DeltaSize,
    /// The values of all its heads.
    DeltaValues,
    /// What one weight of the norm of queries stands for.
    QueryNorm,
    /// What one weight of the norm of keys stands for.
    KeyNorm,
    FeedForward,
    /// Outputs of the matrix `up`, which may hold the gate, too.
    Up,
    /// The number of experts.
    Experts,
    /// The width of the expert that every row meets.
    SharedExpert,
}

impl Dim {
    fn of(self, spec: &ModelSpec, layer: &LayerSpec) -> u64 {
        let heads = |size: fn(&Attention) -> usize| layer.attention().map_or(0, size);
        let experts = |size: fn(Experts) -> usize| layer.feed_forward.experts.map_or(0, size);
        // A norm with weights of its own for each head has two dimensions in the file, of which the product counts.
        let norm = |all: fn(&Attention) -> usize| match spec.architecture.head_norms {
            HeadNorms::Each | HeadNorms::None => heads(|a| a.key_dim),
            HeadNorms::Together | HeadNorms::OwnIfThere => heads(all),
        };
        let convolution = |size: fn(&Convolution) -> usize| layer.convolution().map_or(0, size);
        let delta_net = |size: fn(&DeltaNet) -> usize| match &layer.mixer {
            Mixer::DeltaNet(delta_net) => size(delta_net),
            _ => 0,
        };
        let size = match self {
            Dim::Width => spec.width,
            Dim::Vocabulary => spec.vocabulary,
            Dim::TokenTypes => spec.token_types,
            Dim::Context => spec.context,
            Dim::RopePairs => spec.ropes[0].dims / 2,
            Dim::Queries => heads(Attention::queries),
            Dim::Keys => heads(|a| a.kv_heads * a.key_dim),
            Dim::Values => heads(|a| a.kv_heads * a.value_dim),
            Dim::QueriesKeysValues if layer.attention().is_none() => convolution(|c| c.channels),
            Dim::QueriesKeysValues => heads(|a| a.queries() + a.kv_heads * (a.key_dim + a.value_dim)),
            Dim::Heads => heads(|a| a.heads * a.value_dim),
            Dim::HeadCount => heads(|a| a.heads),
            Dim::Mixed => layer.mixer.mixed(),
            Dim::Taps => convolution(|c| c.taps),
            Dim::Channels => convolution(|c| c.channels),
            Dim::DeltaHeads => delta_net(|d| d.heads),
            Dim::DeltaSize => delta_net(|d| d.size),
            Dim::DeltaValues => delta_net(DeltaNet::values),
            Dim::QueryNorm => norm(|a| a.heads * a.key_dim),
            Dim::KeyNorm => norm(|a| a.kv_heads * a.key_dim),
            Dim::FeedForward => layer.feed_forward.width,
            Dim::Up if layer.feed_forward.gate == Gate::InUp => 2 * layer.feed_forward.width,
            Dim::Up => layer.feed_forward.width,
            Dim::Experts => experts(|experts| experts.count),
            Dim::SharedExpert => experts(|experts| experts.shared.unwrap_or(0)),
        };
        size as u64
    }
}

/// When a tensor is used.
#[derive(Clone, Copy, Debug)]
enum Need {
    Required,
    /// Used when it is there.
    Optional,
    /// As the spec says; `None` for tensors that are ignored.
    By(fn(&ModelSpec, &LayerSpec) -> Option<Need>),
    /// Required unless the file has another one instead, and ignored then.
    Unless(Role),
}

impl Need {
    /// Required if `condition`, else ignored.
    fn when(condition: bool) -> Option<Need> {
        condition.then_some(Need::Required)
    }

    /// In layers with attention as said, in others ignored.
    fn of_attention(self, layer: &LayerSpec) -> Option<Need> {
        layer.attention().map(|_| self)
    }
}

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What it is for.
    pub role: Role,
    /// Name; `#` stands for the number of the layer.
    name: &'static str,
    /// Shape in ggml's order, the contiguous dimension first. One dimension, a bias, or a filter of [`Dim::Taps`] per row: converted to
    /// f32 at load. Else a matrix of any type with a kernel, used as it is in the file, or the matrices of all experts behind each
    /// other.
    shape: &'static [Dim],
    need: Need,
}

const fn entry(role: Role, name: &'static str, shape: &'static [Dim], need: Need) -> Entry {
    Entry { role, name, shape, need }
}

/// Every layer with attention.
const ATTENTION: Need = Need::By(|_, layer| Need::Required.of_attention(layer));
const ATTENTION_BIAS: Need = Need::By(|_, layer| Need::Optional.of_attention(layer));
const FUSED: Need = Need::By(|_, layer| match layer.mixer {
    Mixer::Attention(_) => Some(Need::Optional),
    Mixer::ShortConv(_) => None,
    Mixer::DeltaNet(_) => Some(Need::Required),
});
const APART: Need = Need::By(|_, layer| Need::Unless(Role::QueryKeyValue).of_attention(layer));
const SHORT_CONV: Need = Need::By(|_, layer| Need::when(matches!(layer.mixer, Mixer::ShortConv(_))));
const DELTA_NET: Need = Need::By(|_, layer| Need::when(matches!(layer.mixer, Mixer::DeltaNet(_))));
const OUTPUT_NORM: Need =
    Need::By(|spec, _| Need::when(!spec.architecture.encoder && !spec.architecture.output_norm_as_embedding_norm));
const EMBEDDING_NORM: Need =
    Need::By(|spec, _| Need::when(spec.architecture.encoder || spec.architecture.output_norm_as_embedding_norm));
const HEAD_NORMS: Need = Need::By(|spec, layer| match spec.architecture.head_norms {
    _ if layer.attention().is_none() => None,
    HeadNorms::None => None,
    HeadNorms::Each | HeadNorms::Together => Some(Need::Required),
    HeadNorms::OwnIfThere => Some(Need::Optional),
});
const BEFORE: Need =
    Need::By(|spec, _| Need::when(!matches!(spec.norms, NormPlacement::After | NormPlacement::AfterSum)));
const BEFORE_FEED_FORWARD: Need =
    Need::By(|spec, _| Need::when(matches!(spec.norms, NormPlacement::Before | NormPlacement::BeforeAndAfter)));
const AFTER: Need =
    Need::By(|spec, _| Need::when(matches!(spec.norms, NormPlacement::After | NormPlacement::BeforeAndAfter)));
const AFTER_SUM: Need = Need::By(|spec, _| Need::when(spec.norms == NormPlacement::AfterSum));
const OPTIONAL_IN_DECODER: Need = Need::By(|spec, _| (!spec.architecture.encoder).then_some(Need::Optional));
const TOKEN_TYPES: Need = Need::By(|spec, _| Need::when(spec.token_types > 0));
const POSITION_ROWS: Need = Need::By(|spec, _| Need::when(spec.architecture.position_rows));
const AFTER_ATTENTION: Need = Need::By(|spec, _| {
    Need::when(matches!(
        spec.norms,
        NormPlacement::After | NormPlacement::BeforeAndAfter | NormPlacement::BeforeAsPostAttention
    ))
});
const SINKS: Need = Need::By(|spec, layer| Need::when(spec.architecture.sinks && layer.attention().is_some()));
const DENSE: Need = Need::By(|_, layer| Need::when(layer.feed_forward.experts.is_none()));
const DENSE_GATE: Need = Need::By(|_, layer| {
    let FeedForward { gate, experts, .. } = layer.feed_forward;
    Need::when(experts.is_none() && matches!(gate, Gate::Apart | Gate::Clamped))
});
const EXPERTS: Need = Need::By(|_, layer| Need::when(layer.feed_forward.experts.is_some()));
const SHARED: Need =
    Need::By(|_, layer| Need::when(layer.feed_forward.experts.is_some_and(|experts| experts.shared.is_some())));

/// Every tensor that is read.
pub static TENSORS: &[Entry] = &[
    entry(Role::Embedding, "token_embd.weight", &[Dim::Width, Dim::Vocabulary], Need::Required),
    entry(Role::EmbeddingNorm, "token_embd_norm.weight", &[Dim::Width], EMBEDDING_NORM),
    entry(Role::EmbeddingNormBias, "token_embd_norm.bias", &[Dim::Width], Need::Optional),
    entry(Role::TokenTypes, "token_types.weight", &[Dim::Width, Dim::TokenTypes], TOKEN_TYPES),
    entry(Role::PositionRows, "position_embd.weight", &[Dim::Width, Dim::Context], POSITION_ROWS),
    entry(Role::OutputNorm, "output_norm.weight", &[Dim::Width], OUTPUT_NORM),
    entry(Role::OutputNormBias, "output_norm.bias", &[Dim::Width], Need::Optional),
    entry(Role::Output, "output.weight", &[Dim::Width, Dim::Vocabulary], OPTIONAL_IN_DECODER),
    entry(Role::OutputBias, "output.bias", &[Dim::Vocabulary], Need::Optional),
    entry(Role::RopeFactors, "rope_freqs.weight", &[Dim::RopePairs], Need::Optional),
    entry(Role::LongRopeFactors, "rope_factors_long.weight", &[Dim::RopePairs], Need::Optional),
    entry(Role::ShortRopeFactors, "rope_factors_short.weight", &[Dim::RopePairs], Need::Optional),
    entry(Role::AttentionNorm, "blk.#.attn_norm.weight", &[Dim::Width], BEFORE),
    entry(Role::AttentionNormBias, "blk.#.attn_norm.bias", &[Dim::Width], Need::Optional),
    entry(Role::QueryKeyValue, "blk.#.attn_qkv.weight", &[Dim::Width, Dim::QueriesKeysValues], FUSED),
    entry(Role::QueryKeyValueBias, "blk.#.attn_qkv.bias", &[Dim::QueriesKeysValues], ATTENTION_BIAS),
    entry(Role::Query, "blk.#.attn_q.weight", &[Dim::Width, Dim::Queries], APART),
    entry(Role::QueryBias, "blk.#.attn_q.bias", &[Dim::Queries], ATTENTION_BIAS),
    entry(Role::QueryNorm, "blk.#.attn_q_norm.weight", &[Dim::QueryNorm], HEAD_NORMS),
    entry(Role::Key, "blk.#.attn_k.weight", &[Dim::Width, Dim::Keys], APART),
    entry(Role::KeyBias, "blk.#.attn_k.bias", &[Dim::Keys], ATTENTION_BIAS),
    entry(Role::KeyNorm, "blk.#.attn_k_norm.weight", &[Dim::KeyNorm], HEAD_NORMS),
    entry(Role::Value, "blk.#.attn_v.weight", &[Dim::Width, Dim::Values], APART),
    entry(Role::ValueBias, "blk.#.attn_v.bias", &[Dim::Values], ATTENTION_BIAS),
    entry(Role::Sinks, "blk.#.attn_sinks.weight", &[Dim::HeadCount], SINKS),
    entry(Role::AttentionOutput, "blk.#.attn_output.weight", &[Dim::Heads, Dim::Width], ATTENTION),
    entry(Role::AttentionOutputBias, "blk.#.attn_output.bias", &[Dim::Width], ATTENTION_BIAS),
    entry(Role::ShortConvInput, "blk.#.shortconv.in_proj.weight", &[Dim::Width, Dim::Mixed], SHORT_CONV),
    entry(Role::ShortConvTaps, "blk.#.shortconv.conv.weight", &[Dim::Taps, Dim::Channels], SHORT_CONV),
    entry(Role::ShortConvOutput, "blk.#.shortconv.out_proj.weight", &[Dim::Channels, Dim::Width], SHORT_CONV),
    entry(Role::DeltaGate, "blk.#.attn_gate.weight", &[Dim::Width, Dim::DeltaValues], DELTA_NET),
    entry(Role::DeltaTaps, "blk.#.ssm_conv1d.weight", &[Dim::Taps, Dim::Channels], DELTA_NET),
    entry(Role::DeltaAlpha, "blk.#.ssm_alpha.weight", &[Dim::Width, Dim::DeltaHeads], DELTA_NET),
    entry(Role::DeltaBeta, "blk.#.ssm_beta.weight", &[Dim::Width, Dim::DeltaHeads], DELTA_NET),
    entry(Role::DeltaRateBias, "blk.#.ssm_dt.bias", &[Dim::DeltaHeads], DELTA_NET),
    entry(Role::DeltaLogDecay, "blk.#.ssm_a", &[Dim::DeltaHeads], DELTA_NET),
    entry(Role::DeltaNorm, "blk.#.ssm_norm.weight", &[Dim::DeltaSize], DELTA_NET),
    entry(Role::DeltaOutput, "blk.#.ssm_out.weight", &[Dim::DeltaValues, Dim::Width], DELTA_NET),
    entry(Role::PostAttentionNorm, "blk.#.post_attention_norm.weight", &[Dim::Width], AFTER_ATTENTION),
    entry(Role::AttentionOutputNorm, "blk.#.attn_output_norm.weight", &[Dim::Width], AFTER_SUM),
    entry(Role::AttentionOutputNormBias, "blk.#.attn_output_norm.bias", &[Dim::Width], Need::Optional),
    entry(Role::FeedForwardNorm, "blk.#.ffn_norm.weight", &[Dim::Width], BEFORE_FEED_FORWARD),
    entry(Role::FeedForwardNormBias, "blk.#.ffn_norm.bias", &[Dim::Width], Need::Optional),
    entry(Role::Gate, "blk.#.ffn_gate.weight", &[Dim::Width, Dim::FeedForward], DENSE_GATE),
    entry(Role::GateBias, "blk.#.ffn_gate.bias", &[Dim::FeedForward], Need::Optional),
    entry(Role::Up, "blk.#.ffn_up.weight", &[Dim::Width, Dim::Up], DENSE),
    entry(Role::UpBias, "blk.#.ffn_up.bias", &[Dim::Up], Need::Optional),
    entry(Role::Down, "blk.#.ffn_down.weight", &[Dim::FeedForward, Dim::Width], DENSE),
    entry(Role::DownBias, "blk.#.ffn_down.bias", &[Dim::Width], Need::Optional),
    entry(Role::Router, "blk.#.ffn_gate_inp.weight", &[Dim::Width, Dim::Experts], EXPERTS),
    entry(Role::RouterBias, "blk.#.ffn_gate_inp.bias", &[Dim::Experts], Need::Optional),
    entry(Role::ExpertsGate, "blk.#.ffn_gate_exps.weight", &[Dim::Width, Dim::FeedForward, Dim::Experts], EXPERTS),
    entry(Role::ExpertsGateBias, "blk.#.ffn_gate_exps.bias", &[Dim::FeedForward, Dim::Experts], Need::Optional),
    entry(Role::ExpertsUp, "blk.#.ffn_up_exps.weight", &[Dim::Width, Dim::FeedForward, Dim::Experts], EXPERTS),
    entry(Role::ExpertsUpBias, "blk.#.ffn_up_exps.bias", &[Dim::FeedForward, Dim::Experts], Need::Optional),
    entry(Role::ExpertsDown, "blk.#.ffn_down_exps.weight", &[Dim::FeedForward, Dim::Width, Dim::Experts], EXPERTS),
    entry(Role::ExpertsDownBias, "blk.#.ffn_down_exps.bias", &[Dim::Width, Dim::Experts], Need::Optional),
    entry(Role::SharedGate, "blk.#.ffn_gate_shexp.weight", &[Dim::Width, Dim::SharedExpert], SHARED),
    entry(Role::SharedUp, "blk.#.ffn_up_shexp.weight", &[Dim::Width, Dim::SharedExpert], SHARED),
    entry(Role::SharedDown, "blk.#.ffn_down_shexp.weight", &[Dim::SharedExpert, Dim::Width], SHARED),
    entry(Role::PostFeedForwardNorm, "blk.#.post_ffw_norm.weight", &[Dim::Width], AFTER),
    entry(Role::LayerOutputNorm, "blk.#.layer_output_norm.weight", &[Dim::Width], AFTER_SUM),
    entry(Role::LayerOutputNormBias, "blk.#.layer_output_norm.bias", &[Dim::Width], Need::Optional),
];

impl Role {
    /// Its line of the table.
    pub fn entry(self) -> &'static Entry {
        // The test below shows that every role has a line.
        TENSORS.iter().find(|entry| entry.role == self).unwrap_or(&TENSORS[0])
    }
}

impl Entry {
    /// The name for a layer (which is ignored by tensors that belong to none).
    pub fn name(&self, layer: usize) -> String {
        self.name.replacen('#', &layer.to_string(), 1)
    }

    /// Whether there is one for every layer.
    pub fn per_layer(&self) -> bool {
        self.name.contains('#')
    }

    /// Whether it is converted to f32 at load.
    pub fn is_vector(&self) -> bool {
        self.name.ends_with(".bias") || matches!(self.shape, [_] | [Dim::Taps, _])
    }

    /// Finds the tensor and checks its shape and type. `None` when it is not there and need not be.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when it is missing or has another shape, [`Error::UnsupportedModel`] for a type without a kernel
    /// or a matrix with a scale in another tensor.
    pub fn find<'a>(&self, file: &'a Gguf, spec: &ModelSpec, layer: usize) -> Result<Option<(usize, &'a TensorInfo)>> {
        let name = self.name(layer);
        let of_layer = &spec.layers[layer];
        let need = match self.need {
            Need::By(need) => need(spec, of_layer),
            need => Some(need),
        };
        let required = match need {
            None | Some(Need::By(_)) => return Ok(None),
            Some(Need::Unless(other)) if file.tensor(&other.entry().name(layer)).is_some() => return Ok(None),
            Some(Need::Required | Need::Unless(_)) => true,
            Some(Need::Optional) => false,
        };
        let shape: Vec<u64> = self.shape.iter().map(|dim| dim.of(spec, of_layer)).collect();
        let found = file.tensor(&name).and_then(|tensor| Some((file.tensors().element_offset(tensor)?, tensor)));
        let Some((index, tensor)) = found else {
            return match required {
                true => Err(file.error(format!("tensor {name} is missing: expected one of shape {shape:?}"))),
                false => Ok(None),
            };
        };
        // Trailing dimensions of length 1 say nothing, and a vector may have a row for each head.
        let mut found = tensor.shape.as_slice();
        while found.len() > shape.len() && found.last() == Some(&1) {
            found = &found[..found.len() - 1];
        }
        if found != shape && shape != [tensor.elements()] {
            return Err(
                file.tensor_error(tensor, format!("tensor {name} must have shape {shape:?}, found {:?}", tensor.shape))
            );
        }
        // What multiplies the products with a matrix, in NVFP4 files: to leave it out would give wrong answers.
        if let Some(stem) = name.strip_suffix(".weight")
            && let Some(scale) = file.tensor(&format!("{stem}.scale"))
        {
            let path = file.path().display();
            return Err(Error::UnsupportedModel(format!(
                "{path}: tensor {name} has a scale of its own, {}, which this version does not know; use a file without such scales",
                scale.name
            )));
        }
        let vector = self.is_vector();
        match tensor.ty.kernel() {
            Some(format) if !vector || format.info().block == 1 => Ok(Some((index, tensor))),
            Some(_) => Err(file
                .tensor_error(tensor, format!("tensor {name} must be F32, F16 or BF16, found {}", tensor.ty.name()))),
            None => Err(Error::UnsupportedModel(format!(
                "{}: tensor {name} has type {}, which this version cannot compute with; use a file with other types",
                file.path().display(),
                tensor.ty.name()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_one_line() {
        for (index, entry) in TENSORS.iter().enumerate() {
            assert!(std::ptr::eq(entry.role.entry(), entry), "line {index}");
            assert_eq!(TENSORS.iter().filter(|other| other.name == entry.name).count(), 1);
        }
    }
}
