//! The weights of a model: matrices stay in the mapped file, vectors are converted to f32 once.

use std::sync::Arc;

use arrayvec::ArrayVec;
use fastq_kernels::elementwise::{layer_norm, rms_norm};
use fastq_kernels::{Cpu, Format, Matrix};

use super::arch::{Gate, NormKind, NormPlacement};
use super::mixers::delta_net::DeltaNetWeights;
use super::mixers::short_conv::ShortConvWeights;
use super::replace::Replacements;
use super::rope::RopeTable;
use super::spec::{Attention, Experts, FeedForward, Mixer, ModelSpec};
use super::tensors::{Role, TENSORS};
use crate::gguf::{Gguf, TensorInfo};
use crate::machine::FreeMemory;
use crate::memory::human;
use crate::{Error, Result};

/// A linear layer: a matrix in the file, or neighbouring rows of one, and perhaps a bias.
#[derive(Clone, Debug)]
pub struct Linear {
    tensor: usize,
    /// All data of the tensor where they are not those of the file.
    replaced: Option<Arc<[u8]>>,
    /// First row of the tensor that is used.
    start: usize,
    /// Type of its blocks.
    pub format: Format,
    /// Number of outputs.
    pub rows: usize,
    /// Number of inputs.
    pub k: usize,
    /// `(rows)`.
    pub bias: Option<Vec<f32>>,
}

impl Linear {
    /// The matrix `(rows, k)` in the map, or what was put in its place.
    pub fn matrix<'a>(&'a self, file: &'a Gguf) -> Matrix<'a> {
        let info = self.format.info();
        let row = self.k / info.block * info.bytes;
        let data = match &self.replaced {
            Some(data) => data,
            None => file.tensor_data(&file.tensors()[self.tensor]),
        };
        let data = &data[self.start * row..(self.start + self.rows) * row];
        Matrix { format: self.format, rows: self.rows, k: self.k, data }
    }

    /// Row `index` as numbers.
    pub(super) fn row(&self, file: &Gguf, index: usize, out: &mut [f32]) {
        let Matrix { format, rows, data, .. } = self.matrix(file);
        let bytes = data.len() / rows;
        format.dequantize(&data[index * bytes..(index + 1) * bytes], out);
    }

    /// Index of the matrix in the tensor table of the file.
    pub fn tensor(&self) -> usize {
        self.tensor
    }

    /// The layers of which it is made: matrices of so many rows, one after the other.
    fn split<const N: usize>(self, rows: [usize; N]) -> [Linear; N] {
        let mut start = 0;
        rows.map(|rows| {
            start += rows;
            self.part(start - rows, rows)
        })
    }

    /// The same for any number of matrices of equal size.
    fn split_evenly(self, count: usize) -> impl Iterator<Item = Linear> {
        let rows = self.rows / count;
        (0..count).map(move |index| self.part(index * rows, rows))
    }

    /// `rows` rows from `start` on.
    fn part(&self, start: usize, rows: usize) -> Linear {
        let bias = self.bias.as_ref().map(|bias| bias[start..start + rows].to_vec());
        let replaced = self.replaced.clone();
        Linear { start: self.start + start, rows, bias, replaced, ..*self }
    }
}

/// The matrices that one input is multiplied with. A list without memory of its own, since a forward call allocates nothing.
pub(super) type Linears<'a> = ArrayVec<&'a Linear, MAX_INPUTS>;

/// The most matrices that one input is multiplied with.
pub(super) const MAX_INPUTS: usize = 8;

/// A norm.
#[derive(Clone, Debug)]
pub struct Norm {
    kind: NormKind,
    epsilon: f32,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl Norm {
    /// `out = norm(x)`, of the length of the weights.
    pub(super) fn row(&self, cpu: Cpu, x: &[f32], out: &mut [f32]) {
        self.part(cpu, x, 0, out);
    }

    /// Normalises every part of `span` values alone; the weights repeat.
    pub(super) fn parts(&self, cpu: Cpu, x: &mut [f32], span: usize, local: &mut [f32]) {
        let local = &mut local[..span];
        for (index, part) in x.chunks_exact_mut(span).enumerate() {
            self.part(cpu, part, index * span % self.weight.len(), local);
            part.copy_from_slice(local);
        }
    }

    /// `out = norm(x)` with the weights from `at` on.
    fn part(&self, cpu: Cpu, x: &[f32], at: usize, out: &mut [f32]) {
        let own = at..at + x.len();
        let weight = &self.weight[own.clone()];
        match self.kind {
            NormKind::Rms => rms_norm(cpu, x, Some(weight), self.epsilon, out),
            NormKind::Layer => {
                layer_norm(cpu, x, weight, self.bias.as_ref().map(|bias| &bias[own]), self.epsilon, out);
            }
        }
    }
}

/// One layer.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "named as the roles of the registry")]
pub struct LayerWeights {
    pub attention_norm: Option<Norm>,
    pub mixer: MixerWeights,
    pub post_attention_norm: Option<Norm>,
    pub feed_forward_norm: Option<Norm>,
    pub feed_forward: FeedForwardPart,
    pub post_feed_forward_norm: Option<Norm>,
}

/// What brings positions together.
#[derive(Clone, Debug)]
pub enum MixerWeights {
    /// Attention.
    Attention(AttentionWeights),
    /// A short convolution.
    ShortConv(ShortConvWeights),
    /// A gated delta net.
    DeltaNet(DeltaNetWeights),
}

/// Attention of one layer.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "named as the roles of the registry")]
pub struct AttentionWeights {
    pub query: Linear,
    pub query_norm: Option<Norm>,
    pub key: Linear,
    pub key_norm: Option<Norm>,
    pub value: Linear,
    /// For each query head, the score of a key without a value.
    pub sinks: Option<Vec<f32>>,
    pub output: Linear,
}

/// Feed-forward part of one layer.
#[derive(Clone, Debug)]
pub enum FeedForwardPart {
    /// One network.
    Dense(FeedForwardWeights),
    /// Networks of which each row meets a few.
    Experts(ExpertsWeights),
}

/// A mixture of experts.
#[derive(Clone, Debug)]
pub struct ExpertsWeights {
    /// How many there are, how many a row meets, and how they are weighted.
    pub spec: Experts,
    /// Gives a logit for each expert.
    pub router: Linear,
    /// The experts: rows of the same three tensors.
    pub experts: Vec<FeedForwardWeights>,
    /// One that every row meets beside them.
    pub shared: Option<FeedForwardWeights>,
}

/// A feed-forward network.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "named as the roles of the registry")]
pub struct FeedForwardWeights {
    pub gate: Option<Linear>,
    pub up: Linear,
    pub down: Linear,
}

impl MixerWeights {
    /// The matrices that the input is multiplied with.
    pub(super) fn inputs(&self) -> Linears<'_> {
        match self {
            MixerWeights::Attention(AttentionWeights { query, key, value, .. }) => {
                [query, key, value].into_iter().collect()
            }
            MixerWeights::ShortConv(short_conv) => [&short_conv.input].into_iter().collect(),
            MixerWeights::DeltaNet(DeltaNetWeights { mixed, gate, alpha, beta, .. }) => {
                [mixed, gate, alpha, beta].into_iter().collect()
            }
        }
    }

    /// The matrix that makes the output.
    pub(super) fn output(&self) -> &Linear {
        match self {
            MixerWeights::Attention(attention) => &attention.output,
            MixerWeights::ShortConv(short_conv) => &short_conv.output,
            MixerWeights::DeltaNet(delta_net) => &delta_net.output,
        }
    }
}

impl FeedForwardPart {
    /// The matrices that the input is multiplied with. Of the experts, whose matrices are alike, those of the first one.
    pub(super) fn inputs(&self) -> Linears<'_> {
        match self {
            FeedForwardPart::Dense(network) => network.inputs().collect(),
            FeedForwardPart::Experts(part) => part.inputs().chain(part.expert_inputs()).collect(),
        }
    }

    /// Every matrix.
    fn linears(&self) -> impl Iterator<Item = &Linear> {
        let (router, networks, shared) = match self {
            FeedForwardPart::Dense(network) => (None, std::slice::from_ref(network), None),
            FeedForwardPart::Experts(part) => (Some(&part.router), part.experts.as_slice(), part.shared.as_ref()),
        };
        router.into_iter().chain(networks.iter().chain(shared).flat_map(FeedForwardWeights::linears))
    }
}

impl ExpertsWeights {
    /// The matrices that every input is multiplied with.
    pub(super) fn inputs(&self) -> impl Iterator<Item = &Linear> {
        [&self.router].into_iter().chain(self.shared.iter().flat_map(FeedForwardWeights::inputs))
    }

    /// The matrices of the first expert that its inputs are multiplied with; those of the others are alike.
    pub(super) fn expert_inputs(&self) -> impl Iterator<Item = &Linear> {
        self.experts.first().into_iter().flat_map(FeedForwardWeights::inputs)
    }

    /// Every matrix of the first expert.
    pub(super) fn expert_linears(&self) -> impl Iterator<Item = &Linear> {
        self.experts.first().into_iter().flat_map(FeedForwardWeights::linears)
    }
}

impl FeedForwardWeights {
    /// The matrices that the input is multiplied with.
    pub(super) fn inputs(&self) -> impl Iterator<Item = &Linear> {
        self.gate.iter().chain([&self.up])
    }

    /// Every matrix, in the order of computation.
    fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.inputs().chain([&self.down])
    }
}

impl LayerWeights {
    /// The matrices, in the order of computation.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        let mixer = self.mixer.inputs().into_iter().chain([self.mixer.output()]);
        mixer.chain(self.feed_forward.linears())
    }
}

/// All weights.
#[derive(Clone, Debug)]
pub struct Weights {
    /// The embedding `(vocabulary, width)`.
    pub embedding: Linear,
    /// Norm of the embeddings.
    pub embedding_norm: Option<Norm>,
    /// The vector of the first type of tokens, `(width)`.
    pub token_type: Option<Vec<f32>>,
    /// A vector for each position, `(context, width)`.
    pub position_rows: Option<Linear>,
    /// Norm before the output.
    pub output_norm: Option<Norm>,
    /// The output `(vocabulary, width)`; the embedding when the file has no other. Encoders have none.
    pub output: Option<Linear>,
    /// Frequencies of the rotations of the spec.
    pub ropes: Vec<RopeTable>,
    /// The layers.
    pub layers: Vec<LayerWeights>,
    /// Tensors of the file that are not used.
    pub ignored: Vec<String>,
    /// Number of weights in use.
    pub parameters: u64,
    /// Bytes of vectors that were converted.
    pub owned_bytes: u64,
}

/// Finds tensors and counts what is used.
pub(super) struct Loader<'a> {
    file: &'a Gguf,
    spec: &'a ModelSpec,
    replaced: &'a Replacements,
    used: Vec<bool>,
    owned_bytes: u64,
}

impl Loader<'_> {
    /// Type and data of a tensor, and the data where they are not those of the file.
    fn source(&self, tensor: &TensorInfo) -> Result<(Format, Option<Arc<[u8]>>)> {
        let replaced = self.replaced.get(&tensor.name);
        let ty = replaced.map_or(tensor.ty, |replaced| replaced.ty);
        match ty.kernel() {
            Some(format) => Ok((format, replaced.map(|replaced| Arc::clone(&replaced.data)))),
            None => Err(Error::Internal(format!("{} lost its type", tensor.name))),
        }
    }

    fn vector(&mut self, role: Role, layer: usize) -> Result<Option<Vec<f32>>> {
        let Some((index, tensor)) = role.entry().find(self.file, self.spec, layer)? else { return Ok(None) };
        let (format, replaced) = self.source(tensor)?;
        if format.info().block != 1 {
            return Err(Error::Argument(format!(
                "tensor {} must be replaced by F32, F16 or BF16, found {}",
                tensor.name,
                format.info().name
            )));
        }
        self.used[index] = true;
        let data = replaced.as_deref().unwrap_or(self.file.tensor_data(tensor));
        let len = data.len() / format.info().bytes;
        let mut out = Vec::new();
        let refused = |_| Error::Memory(format!("the system refused {len} values for tensor {}", tensor.name));
        out.try_reserve_exact(len).map_err(refused)?;
        out.resize(len, 0.0);
        format.dequantize(data, &mut out);
        self.owned_bytes += size_of_val(out.as_slice()) as u64;
        Ok(Some(out))
    }

    fn linear(&mut self, role: Role, bias: Option<Role>, layer: usize) -> Result<Option<Linear>> {
        let Some((index, tensor)) = role.entry().find(self.file, self.spec, layer)? else { return Ok(None) };
        let (format, replaced) = self.source(tensor)?;
        self.used[index] = true;
        let too_large =
            |_| self.file.tensor_error(tensor, format!("tensor {} does not fit the address space", tensor.name));
        let (rows, k) =
            (usize::try_from(tensor.rows()).map_err(too_large)?, usize::try_from(tensor.k()).map_err(too_large)?);
        let bias = bias.map(|bias| self.vector(bias, layer)).transpose()?.flatten();
        Ok(Some(Linear { tensor: index, replaced, start: 0, format, rows, k, bias }))
    }

    pub(super) fn norm(&mut self, weight: Role, bias: Option<Role>, layer: usize) -> Result<Option<Norm>> {
        let Some(weight) = self.vector(weight, layer)? else { return Ok(None) };
        let (kind, epsilon) = (self.spec.architecture.norm, self.spec.norm_epsilon);
        let bias = bias.map(|bias| self.vector(bias, layer)).transpose()?.flatten();
        Ok(Some(Norm { kind, epsilon, weight, bias }))
    }

    /// What `find` has just refused if it were missing.
    pub(super) fn required<T>(&self, role: Role, layer: usize, found: Option<T>) -> Result<T> {
        found.ok_or_else(|| self.file.error(format!("tensor {} is missing", role.entry().name(layer))))
    }

    pub(super) fn need_linear(&mut self, role: Role, bias: Option<Role>, layer: usize) -> Result<Linear> {
        let found = self.linear(role, bias, layer)?;
        self.required(role, layer, found)
    }

    pub(super) fn need_vector(&mut self, role: Role, layer: usize) -> Result<Vec<f32>> {
        let found = self.vector(role, layer)?;
        self.required(role, layer, found)
    }

    fn layer(&mut self, layer: usize) -> Result<LayerWeights> {
        let spec = &self.spec.layers[layer];
        let mixer = match &spec.mixer {
            Mixer::Attention(attention) => MixerWeights::Attention(self.attention(attention, layer)?),
            Mixer::ShortConv(short_conv) => MixerWeights::ShortConv(self.short_conv(short_conv, layer)?),
            Mixer::DeltaNet(delta_net) => MixerWeights::DeltaNet(self.delta_net(delta_net, layer)?),
        };
        let after = match self.norm(Role::PostAttentionNorm, None, layer)? {
            Some(norm) => Some(norm),
            None => self.norm(Role::AttentionOutputNorm, Some(Role::AttentionOutputNormBias), layer)?,
        };
        let (post_attention_norm, feed_forward_norm) = match self.spec.norms {
            NormPlacement::BeforeAsPostAttention => (None, after),
            _ => (after, self.norm(Role::FeedForwardNorm, Some(Role::FeedForwardNormBias), layer)?),
        };
        Ok(LayerWeights {
            attention_norm: self.norm(Role::AttentionNorm, Some(Role::AttentionNormBias), layer)?,
            mixer,
            post_attention_norm,
            feed_forward_norm,
            feed_forward: match &spec.feed_forward.experts {
                None => FeedForwardPart::Dense(self.feed_forward(&spec.feed_forward, layer)?),
                Some(experts) => FeedForwardPart::Experts(self.experts(experts, layer)?),
            },
            post_feed_forward_norm: match self.norm(Role::PostFeedForwardNorm, None, layer)? {
                Some(norm) => Some(norm),
                None => self.norm(Role::LayerOutputNorm, Some(Role::LayerOutputNormBias), layer)?,
            },
        })
    }

    fn attention(&mut self, spec: &Attention, layer: usize) -> Result<AttentionWeights> {
        let [query, key, value] = match self.linear(Role::QueryKeyValue, Some(Role::QueryKeyValueBias), layer)? {
            Some(fused) => {
                let keys = spec.kv_heads * spec.key_dim;
                let mut parts = fused.split([spec.queries(), keys, spec.kv_heads * spec.value_dim]);
                for (part, bias) in parts.iter_mut().zip([Role::QueryBias, Role::KeyBias, Role::ValueBias]) {
                    if part.bias.is_none() {
                        part.bias = self.vector(bias, layer)?;
                    }
                }
                parts
            }
            None => [
                self.need_linear(Role::Query, Some(Role::QueryBias), layer)?,
                self.need_linear(Role::Key, Some(Role::KeyBias), layer)?,
                self.need_linear(Role::Value, Some(Role::ValueBias), layer)?,
            ],
        };
        Ok(AttentionWeights {
            query,
            query_norm: self.norm(Role::QueryNorm, None, layer)?,
            key,
            key_norm: self.norm(Role::KeyNorm, None, layer)?,
            value,
            sinks: self.vector(Role::Sinks, layer)?,
            output: self.need_linear(Role::AttentionOutput, Some(Role::AttentionOutputBias), layer)?,
        })
    }

    fn feed_forward(&mut self, spec: &FeedForward, layer: usize) -> Result<FeedForwardWeights> {
        let up = self.need_linear(Role::Up, Some(Role::UpBias), layer)?;
        let (gate, up) = match spec.gate {
            Gate::None => (None, up),
            Gate::Apart | Gate::Clamped => (Some(self.need_linear(Role::Gate, Some(Role::GateBias), layer)?), up),
            Gate::InUp => {
                let [gate, up] = up.split([spec.width; 2]);
                (Some(gate), up)
            }
        };
        Ok(FeedForwardWeights { gate, up, down: self.need_linear(Role::Down, Some(Role::DownBias), layer)? })
    }

    fn experts(&mut self, spec: &Experts, layer: usize) -> Result<ExpertsWeights> {
        let gate = self.need_linear(Role::ExpertsGate, Some(Role::ExpertsGateBias), layer)?;
        let up = self.need_linear(Role::ExpertsUp, Some(Role::ExpertsUpBias), layer)?;
        let down = self.need_linear(Role::ExpertsDown, Some(Role::ExpertsDownBias), layer)?;
        let [gate, up, down] = [gate, up, down].map(|all| all.split_evenly(spec.count));
        let experts =
            gate.zip(up).zip(down).map(|((gate, up), down)| FeedForwardWeights { gate: Some(gate), up, down });
        let shared = match spec.shared {
            None => None,
            Some(_) => Some(FeedForwardWeights {
                gate: Some(self.need_linear(Role::SharedGate, None, layer)?),
                up: self.need_linear(Role::SharedUp, None, layer)?,
                down: self.need_linear(Role::SharedDown, None, layer)?,
            }),
        };
        let router = self.need_linear(Role::Router, Some(Role::RouterBias), layer)?;
        Ok(ExpertsWeights { spec: *spec, router, experts: experts.collect(), shared })
    }

    /// The factors of rope, of two sets those for the context in use.
    fn rope_factors(&mut self) -> Result<Option<Vec<f32>>> {
        let set = if self.spec.long_context { Role::LongRopeFactors } else { Role::ShortRopeFactors };
        for role in [Role::RopeFactors, set] {
            if let Some(factors) = self.vector(role, 0)? {
                return match factors.iter().find(|factor| !factor.is_finite() || **factor <= 0.0) {
                    None => Ok(Some(factors)),
                    Some(bad) => {
                        let name = role.entry().name(0);
                        Err(self.file.error(format!("tensor {name} must hold finite factors above 0, found {bad}")))
                    }
                };
            }
        }
        Ok(None)
    }
}

impl Weights {
    /// Finds and checks every tensor, and converts the vectors. What is `replaced` was checked.
    ///
    /// # Errors
    /// As [`Entry::find`](super::tensors::Entry::find); [`Error::Memory`] when the vectors need more than `free`.
    pub(super) fn load(
        file: &Gguf,
        spec: &ModelSpec,
        free: Option<FreeMemory>,
        replaced: &Replacements,
    ) -> Result<Weights> {
        // All shapes before any conversion.
        let mut vectors = 0u64;
        for entry in TENSORS {
            for layer in 0..if entry.per_layer() { spec.layers.len() } else { 1 } {
                if let Some((_, tensor)) = entry.find(file, spec, layer)?
                    && entry.is_vector()
                {
                    vectors = vectors.saturating_add(tensor.elements().saturating_mul(size_of::<f32>() as u64));
                }
            }
        }
        if let Some(free) = free.filter(|free| free.bytes < vectors) {
            let (needed, left) = (human(vectors), human(free.bytes));
            return Err(Error::Memory(format!("norms and biases need {needed}, available {left} ({})", free.bound)));
        }
        let mut loader = Loader { file, spec, replaced, used: vec![false; file.tensors().len()], owned_bytes: 0 };
        let embedding = loader.need_linear(Role::Embedding, None, 0)?;
        let role = match spec.architecture.output_norm_as_embedding_norm {
            true => Role::EmbeddingNorm,
            false => Role::OutputNorm,
        };
        let output_norm = loader.norm(role, Some(Role::OutputNormBias), 0)?;
        let output = match loader.linear(Role::Output, Some(Role::OutputBias), 0)? {
            Some(output) => Some(output),
            None if spec.architecture.encoder => None,
            None => Some(Linear { bias: loader.vector(Role::OutputBias, 0)?, ..embedding.clone() }),
        };
        let embedding_norm = match spec.architecture.encoder {
            true => loader.norm(Role::EmbeddingNorm, Some(Role::EmbeddingNormBias), 0)?,
            false => None,
        };
        let position_rows = loader.linear(Role::PositionRows, None, 0)?;
        let token_type = loader.linear(Role::TokenTypes, None, 0)?.map(|types| {
            // There is but one text, and its tokens are of the first type.
            let mut row = vec![0.0; types.k];
            types.row(file, 0, &mut row);
            row
        });
        let factors = loader.rope_factors()?;
        let layers = (0..spec.layers.len()).map(|layer| loader.layer(layer)).collect::<Result<_>>()?;
        let ropes = spec.ropes.iter().map(|rope| RopeTable::new(rope, factors.as_deref())).collect();
        let Loader { used, owned_bytes, .. } = loader;
        let tensors = || file.tensors().iter().zip(&used);
        Ok(Weights {
            embedding,
            embedding_norm,
            token_type,
            position_rows,
            output_norm,
            output,
            ropes,
            layers,
            ignored: tensors().filter(|(_, used)| !**used).map(|(tensor, _)| tensor.name.clone()).collect(),
            parameters: tensors().filter(|(_, used)| **used).map(|(tensor, _)| tensor.elements()).sum(),
            owned_bytes,
        })
    }

    /// Cosines and sines of all rotations at a position.
    pub(super) fn angles(&self, position: usize, mut cos: &mut [f32], mut sin: &mut [f32]) {
        for table in &self.ropes {
            let (own_cos, own_sin);
            (own_cos, cos) = cos.split_at_mut(table.pairs());
            (own_sin, sin) = sin.split_at_mut(table.pairs());
            table.fill(position, own_cos, own_sin);
        }
    }

    /// Pairs of all rotations before number `rope`.
    pub fn pairs_before(&self, rope: usize) -> usize {
        self.ropes[..rope].iter().map(RopeTable::pairs).sum()
    }

    /// Every matrix that products are made with, and the embedding.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.layers.iter().flat_map(LayerWeights::linears).chain(&self.output).chain([&self.embedding])
    }
}
