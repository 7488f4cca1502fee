//! The registry: one table of the tensors a model may have, with their roles, shapes and whether they must be there.

use super::arch::Architecture;
use super::spec::{LayerSpec, ModelSpec};
use crate::gguf::{Gguf, TensorInfo};
use crate::{Error, Result};

/// What a tensor is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs, reason = "the table below says what each one is called and how it is shaped")]
pub enum Role {
    Embedding,
    OutputNorm,
    Output,
    OutputBias,
    RopeFactors,
    AttentionNorm,
    Query,
    QueryBias,
    QueryNorm,
    Key,
    KeyBias,
    KeyNorm,
    Value,
    ValueBias,
    AttentionOutput,
    AttentionOutputBias,
    PostAttentionNorm,
    FeedForwardNorm,
    Gate,
    GateBias,
    Up,
    UpBias,
    Down,
    DownBias,
    PostFeedForwardNorm,
}

/// A dimension, in terms of the spec.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dim {
    Width,
    Vocabulary,
    /// Half of the rotated values of a head.
    RopePairs,
    /// All queries of a position.
    Queries,
    /// All keys of a position.
    Keys,
    /// All values of a position.
    Values,
    /// The outputs of all query heads.
    Heads,
    /// One key.
    Key,
    FeedForward,
}

impl Dim {
    fn of(self, spec: &ModelSpec, layer: &LayerSpec) -> u64 {
        let size = match self {
            Dim::Width => spec.width,
            Dim::Vocabulary => spec.vocabulary,
            Dim::RopePairs => spec.ropes[0].dims / 2,
            Dim::Queries => layer.heads * layer.key_dim,
            Dim::Keys => layer.kv_heads * layer.key_dim,
            Dim::Values => layer.kv_heads * layer.value_dim,
            Dim::Heads => layer.heads * layer.value_dim,
            Dim::Key => layer.key_dim,
            Dim::FeedForward => layer.feed_forward,
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
    /// Required by architectures that say so, ignored by the others.
    When(fn(&Architecture) -> bool),
}

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What it is for.
    pub role: Role,
    /// Name; `#` stands for the number of the layer.
    name: &'static str,
    /// Shape in ggml's order, the contiguous dimension first. One dimension: a vector, converted to f32 at load. Two: a matrix
    /// of any type with a kernel, used as it is in the file.
    shape: &'static [Dim],
    need: Need,
}

const fn entry(role: Role, name: &'static str, shape: &'static [Dim], need: Need) -> Entry {
    Entry { role, name, shape, need }
}

const HEAD_NORMS: Need = Need::When(|architecture| architecture.head_norms);
const SANDWICH: Need = Need::When(|architecture| architecture.sandwich_norms);

/// Every tensor that is read.
pub static TENSORS: &[Entry] = &[
    entry(Role::Embedding, "token_embd.weight", &[Dim::Width, Dim::Vocabulary], Need::Required),
    entry(Role::OutputNorm, "output_norm.weight", &[Dim::Width], Need::Required),
    entry(Role::Output, "output.weight", &[Dim::Width, Dim::Vocabulary], Need::Optional),
    entry(Role::OutputBias, "output.bias", &[Dim::Vocabulary], Need::Optional),
    entry(Role::RopeFactors, "rope_freqs.weight", &[Dim::RopePairs], Need::Optional),
    entry(Role::AttentionNorm, "blk.#.attn_norm.weight", &[Dim::Width], Need::Required),
    entry(Role::Query, "blk.#.attn_q.weight", &[Dim::Width, Dim::Queries], Need::Required),
    entry(Role::QueryBias, "blk.#.attn_q.bias", &[Dim::Queries], Need::Optional),
    entry(Role::QueryNorm, "blk.#.attn_q_norm.weight", &[Dim::Key], HEAD_NORMS),
    entry(Role::Key, "blk.#.attn_k.weight", &[Dim::Width, Dim::Keys], Need::Required),
    entry(Role::KeyBias, "blk.#.attn_k.bias", &[Dim::Keys], Need::Optional),
    entry(Role::KeyNorm, "blk.#.attn_k_norm.weight", &[Dim::Key], HEAD_NORMS),
    entry(Role::Value, "blk.#.attn_v.weight", &[Dim::Width, Dim::Values], Need::Required),
    entry(Role::ValueBias, "blk.#.attn_v.bias", &[Dim::Values], Need::Optional),
    entry(Role::AttentionOutput, "blk.#.attn_output.weight", &[Dim::Heads, Dim::Width], Need::Required),
    entry(Role::AttentionOutputBias, "blk.#.attn_output.bias", &[Dim::Width], Need::Optional),
    entry(Role::PostAttentionNorm, "blk.#.post_attention_norm.weight", &[Dim::Width], SANDWICH),
    entry(Role::FeedForwardNorm, "blk.#.ffn_norm.weight", &[Dim::Width], Need::Required),
    entry(Role::Gate, "blk.#.ffn_gate.weight", &[Dim::Width, Dim::FeedForward], Need::Required),
    entry(Role::GateBias, "blk.#.ffn_gate.bias", &[Dim::FeedForward], Need::Optional),
    entry(Role::Up, "blk.#.ffn_up.weight", &[Dim::Width, Dim::FeedForward], Need::Required),
    entry(Role::UpBias, "blk.#.ffn_up.bias", &[Dim::FeedForward], Need::Optional),
    entry(Role::Down, "blk.#.ffn_down.weight", &[Dim::FeedForward, Dim::Width], Need::Required),
    entry(Role::DownBias, "blk.#.ffn_down.bias", &[Dim::Width], Need::Optional),
    entry(Role::PostFeedForwardNorm, "blk.#.post_ffw_norm.weight", &[Dim::Width], SANDWICH),
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
        self.shape.len() == 1
    }

    /// Finds the tensor and checks its shape and type. `None` when it is not there and need not be.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when it is missing or has another shape, [`Error::UnsupportedModel`] for a type without a kernel
    /// or a matrix with a scale in another tensor.
    pub fn find<'a>(&self, file: &'a Gguf, spec: &ModelSpec, layer: usize) -> Result<Option<(usize, &'a TensorInfo)>> {
        let name = self.name(layer);
        let required = match self.need {
            Need::Required => true,
            Need::Optional => false,
            Need::When(condition) if condition(spec.architecture) => true,
            Need::When(_) => return Ok(None),
        };
        let shape: Vec<u64> = self.shape.iter().map(|dim| dim.of(spec, &spec.layers[layer])).collect();
        let found = file.tensor(&name).and_then(|tensor| Some((file.tensors().element_offset(tensor)?, tensor)));
        let Some((index, tensor)) = found else {
            return match required {
                true => Err(file.error(format!("tensor {name} is missing: expected one of shape {shape:?}"))),
                false => Ok(None),
            };
        };
        // Trailing dimensions of length 1 say nothing.
        let mut found = tensor.shape.as_slice();
        while found.len() > shape.len() && found.last() == Some(&1) {
            found = &found[..found.len() - 1];
        }
        if found != shape {
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
