//! Facts about a loaded model, for people and reports.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fastq_kernels::Level;
use fastq_kernels::attention::KvFormat;

use super::spec::{LayerSpec, ModelSpec};
use super::weights::Weights;
use crate::Result;
use crate::gguf::Gguf;
use crate::memory::MemoryPlan;
use crate::tokenizer::Tokenizer;

/// Facts about a model.
#[derive(Clone, PartialEq, Debug)]
pub struct ModelInfo {
    /// The file.
    pub path: PathBuf,
    /// `general.architecture`.
    pub architecture: String,
    /// `general.name`, or the name of the file.
    pub name: String,
    /// Number of weights in use.
    pub parameters: u64,
    /// Size of the file or files.
    pub file_bytes: u64,
    /// Bits per weight of all tensors together.
    pub bits_per_weight: f64,
    /// Number of layers.
    pub layers: usize,
    /// Length of the hidden state.
    pub width: usize,
    /// Query heads of the first layer with attention.
    pub heads: usize,
    /// Key and value heads of the same layer.
    pub kv_heads: usize,
    /// Length of a key.
    pub head_size: usize,
    /// Width of the feed-forward part of the first layer, or of each of its experts.
    pub feed_forward: usize,
    /// The most experts of a layer; 0 for none.
    pub experts: usize,
    /// The most of them that a token meets.
    pub experts_used: usize,
    /// Window of the layers that have one.
    pub sliding_window: Option<usize>,
    /// Number of tokens.
    pub vocabulary: usize,
    /// Positions that the model was trained for.
    pub trained_context: usize,
    /// Positions per sequence.
    pub context: usize,
    /// What the KV cache stores keys and values as.
    pub kv: KvFormat,
    /// Number of weights by type of tensor.
    pub types: BTreeMap<&'static str, u64>,
    /// Tensors of the file that are not used.
    pub ignored_tensors: Vec<String>,
    /// Kind of the tokenizer, `"gpt2/smollm"`.
    pub tokenizer: String,
    /// The file has a chat template.
    pub has_template: bool,
    /// The SIMD level.
    pub level: Level,
    /// Number of threads.
    pub threads: usize,
    /// Seconds that loading took.
    pub load_seconds: f64,
}

impl ModelInfo {
    /// Collects the facts; `has_template` and `load_seconds` are the caller's.
    pub(super) fn new(
        file: &Gguf,
        spec: &ModelSpec,
        weights: &Weights,
        tokenizer: &Tokenizer,
        plan: &MemoryPlan,
        level: Level,
        threads: usize,
    ) -> Result<ModelInfo> {
        let feed_forward = spec.layers.first().map_or(0, |layer| layer.feed_forward.width);
        let experts = || spec.layers.iter().filter_map(|layer| layer.feed_forward.experts);
        let attention = spec.layers.iter().find_map(LayerSpec::attention);
        let attention = attention.ok_or_else(|| file.error("the model has no layer with attention"))?;
        let mut types = BTreeMap::new();
        for tensor in file.tensors() {
            *types.entry(tensor.ty.name()).or_insert(0) += tensor.elements();
        }
        let all: u64 = types.values().sum();
        let stem = || file.path().file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(ModelInfo {
            path: file.path().to_path_buf(),
            architecture: spec.name.clone(),
            name: file.str("general.name")?.filter(|name| !name.is_empty()).map_or_else(stem, str::to_owned),
            parameters: weights.parameters,
            file_bytes: file.file_bytes(),
            bits_per_weight: plan.weights_bytes as f64 * 8.0 / all.max(1) as f64,
            layers: spec.layers.len(),
            width: spec.width,
            heads: attention.heads,
            kv_heads: attention.kv_heads,
            head_size: attention.key_dim,
            feed_forward,
            experts: experts().map(|experts| experts.count).max().unwrap_or(0),
            experts_used: experts().map(|experts| experts.used).max().unwrap_or(0),
            sliding_window: spec.groups.iter().flatten().copied().min(),
            vocabulary: spec.vocabulary,
            trained_context: spec.context,
            context: plan.context,
            kv: plan.kv_format,
            types,
            ignored_tensors: weights.ignored.clone(),
            tokenizer: tokenizer.kind().to_owned(),
            has_template: false,
            level,
            threads,
            load_seconds: 0.0,
        })
    }
}
