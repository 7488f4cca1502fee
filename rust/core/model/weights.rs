//! The weights of a model: matrices stay in the mapped file, vectors are converted to f32 once.

use fastq_kernels::{Format, Matrix};

use super::spec::{ModelSpec, RopeSpec, Scaling};
use super::tensors::{Role, TENSORS};
use crate::gguf::Gguf;
use crate::machine::FreeMemory;
use crate::memory::human;
use crate::{Error, Result};

/// A linear layer: a matrix in the file and perhaps a bias.
#[derive(Clone, Debug)]
pub struct Linear {
    tensor: usize,
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
    /// The matrix `(rows, k)` in the map.
    pub fn matrix<'a>(&self, file: &'a Gguf) -> Matrix<'a> {
        let data = file.tensor_data(&file.tensors()[self.tensor]);
        Matrix { format: self.format, rows: self.rows, k: self.k, data }
    }

    /// Index of the matrix in the tensor table of the file.
    pub fn tensor(&self) -> usize {
        self.tensor
    }
}

/// One layer.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "named as the roles of the registry")]
pub struct LayerWeights {
    pub attention_norm: Vec<f32>,
    pub query: Linear,
    pub query_norm: Option<Vec<f32>>,
    pub key: Linear,
    pub key_norm: Option<Vec<f32>>,
    pub value: Linear,
    pub attention_output: Linear,
    pub post_attention_norm: Option<Vec<f32>>,
    pub feed_forward_norm: Vec<f32>,
    pub gate: Linear,
    pub up: Linear,
    pub down: Linear,
    pub post_feed_forward_norm: Option<Vec<f32>>,
}

impl LayerWeights {
    /// The matrices, in the order of computation.
    pub fn linears(&self) -> [&Linear; 7] {
        [&self.query, &self.key, &self.value, &self.attention_output, &self.gate, &self.up, &self.down]
    }
}

/// All weights.
#[derive(Clone, Debug)]
pub struct Weights {
    /// The embedding `(vocabulary, width)`.
    pub embedding: Linear,
    /// Norm before the output.
    pub output_norm: Vec<f32>,
    /// The output `(vocabulary, width)`; the embedding when the file has no other.
    pub output: Linear,
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
struct Loader<'a> {
    file: &'a Gguf,
    spec: &'a ModelSpec,
    used: Vec<bool>,
    owned_bytes: u64,
}

impl Loader<'_> {
    fn vector(&mut self, role: Role, layer: usize) -> Result<Option<Vec<f32>>> {
        let Some((index, tensor)) = role.entry().find(self.file, self.spec, layer)? else { return Ok(None) };
        let Some(format) = tensor.ty.kernel() else {
            return Err(Error::Internal(format!("{} lost its type", tensor.name)));
        };
        self.used[index] = true;
        let data = self.file.tensor_data(tensor);
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
        let Some(format) = tensor.ty.kernel() else {
            return Err(Error::Internal(format!("{} lost its type", tensor.name)));
        };
        self.used[index] = true;
        let too_large =
            |_| self.file.tensor_error(tensor, format!("tensor {} does not fit the address space", tensor.name));
        let (rows, k) =
            (usize::try_from(tensor.rows()).map_err(too_large)?, usize::try_from(tensor.k()).map_err(too_large)?);
        let bias = match bias {
            Some(bias) => self.vector(bias, layer)?,
            None => None,
        };
        Ok(Some(Linear { tensor: index, format, rows, k, bias }))
    }

    /// What `find` has just refused if it were missing.
    fn required<T>(&self, role: Role, layer: usize, found: Option<T>) -> Result<T> {
        found.ok_or_else(|| self.file.error(format!("tensor {} is missing", role.entry().name(layer))))
    }

    fn need_vector(&mut self, role: Role, layer: usize) -> Result<Vec<f32>> {
        let found = self.vector(role, layer)?;
        self.required(role, layer, found)
    }

    fn need_linear(&mut self, role: Role, bias: Option<Role>, layer: usize) -> Result<Linear> {
        let found = self.linear(role, bias, layer)?;
        self.required(role, layer, found)
    }

    fn layer(&mut self, layer: usize) -> Result<LayerWeights> {
        Ok(LayerWeights {
            attention_norm: self.need_vector(Role::AttentionNorm, layer)?,
            query: self.need_linear(Role::Query, Some(Role::QueryBias), layer)?,
            query_norm: self.vector(Role::QueryNorm, layer)?,
            key: self.need_linear(Role::Key, Some(Role::KeyBias), layer)?,
            key_norm: self.vector(Role::KeyNorm, layer)?,
            value: self.need_linear(Role::Value, Some(Role::ValueBias), layer)?,
            attention_output: self.need_linear(Role::AttentionOutput, Some(Role::AttentionOutputBias), layer)?,
            post_attention_norm: self.vector(Role::PostAttentionNorm, layer)?,
            feed_forward_norm: self.need_vector(Role::FeedForwardNorm, layer)?,
            gate: self.need_linear(Role::Gate, Some(Role::GateBias), layer)?,
            up: self.need_linear(Role::Up, Some(Role::UpBias), layer)?,
            down: self.need_linear(Role::Down, Some(Role::DownBias), layer)?,
            post_feed_forward_norm: self.vector(Role::PostFeedForwardNorm, layer)?,
        })
    }
}

impl Weights {
    /// Finds and checks every tensor, and converts the vectors.
    ///
    /// # Errors
    /// As [`Entry::find`](super::tensors::Entry::find); [`Error::Memory`] when the vectors need more than `free`.
    pub fn load(file: &Gguf, spec: &ModelSpec, free: Option<FreeMemory>) -> Result<Weights> {
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
        let mut loader = Loader { file, spec, used: vec![false; file.tensors().len()], owned_bytes: 0 };
        let embedding = loader.need_linear(Role::Embedding, None, 0)?;
        let output_norm = loader.need_vector(Role::OutputNorm, 0)?;
        let output = match loader.linear(Role::Output, Some(Role::OutputBias), 0)? {
            Some(output) => output,
            None => Linear { bias: loader.vector(Role::OutputBias, 0)?, ..embedding.clone() },
        };
        let factors = loader.vector(Role::RopeFactors, 0)?;
        if let Some(bad) = factors.iter().flatten().find(|f| !f.is_finite() || **f <= 0.0) {
            let what = format!("tensor rope_freqs.weight must hold finite factors above 0, found {bad}");
            return Err(file.error(what));
        }
        let layers = (0..spec.layers.len()).map(|layer| loader.layer(layer)).collect::<Result<_>>()?;
        let ropes = spec.ropes.iter().map(|rope| RopeTable::new(rope, factors.as_deref())).collect();
        let Loader { used, owned_bytes, .. } = loader;
        let tensors = || file.tensors().iter().zip(&used);
        Ok(Weights {
            embedding,
            output_norm,
            output,
            ropes,
            layers,
            ignored: tensors().filter(|(_, used)| !**used).map(|(tensor, _)| tensor.name.clone()).collect(),
            parameters: tensors().filter(|(_, used)| **used).map(|(tensor, _)| tensor.elements()).sum(),
            owned_bytes,
        })
    }

    /// Pairs of all rotations before number `rope`.
    pub fn pairs_before(&self, rope: usize) -> usize {
        self.ropes[..rope].iter().map(RopeTable::pairs).sum()
    }

    /// Every matrix that products are made with, and the embedding.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.layers.iter().flat_map(LayerWeights::linears).chain([&self.output, &self.embedding])
    }
}

/// The frequencies of a rotation, in f64, so that cosine and sine are exact to f32 at any position.
#[derive(Clone, Debug)]
pub struct RopeTable {
    frequencies: Vec<f64>,
    magnitude: f64,
}

impl RopeTable {
    fn new(spec: &RopeSpec, factors: Option<&[f32]>) -> RopeTable {
        use fastq_kernels::math::{exp64, ln64};
        let (pairs, dims) = (spec.dims / 2, spec.dims as f64);
        let log_base = ln64(f64::from(spec.base));
        let mut frequencies: Vec<f64> = (0..pairs).map(|i| exp64(-2.0 * i as f64 / dims * log_base)).collect();
        if let (true, Some(factors)) = (spec.factors, factors) {
            for (frequency, factor) in frequencies.iter_mut().zip(factors) {
                *frequency /= f64::from(*factor);
            }
        }
        let mut magnitude = 1.0;
        match spec.scaling {
            Scaling::None => {}
            Scaling::Linear { factor, magnitude: of_file } => {
                frequencies.iter_mut().for_each(|f| *f /= f64::from(factor));
                magnitude = f64::from(of_file);
            }
            Scaling::Yarn { factor, original, magnitude: of_file, mix, fast, slow } => {
                let factor = f64::from(factor);
                // The pair whose wave fits `turns` times into the original context.
                let pair = |turns: f32| {
                    dims * ln64(original as f64 / (f64::from(turns) * std::f64::consts::TAU)) / (2.0 * log_base)
                };
                let low = pair(fast).floor().max(0.0);
                let high = pair(slow).ceil().min(dims - 1.0);
                for (i, frequency) in frequencies.iter_mut().enumerate() {
                    let ramp = ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                    let keep = (1.0 - ramp) * f64::from(mix);
                    *frequency = *frequency / factor * (1.0 - keep) + *frequency * keep;
                }
                magnitude = f64::from(of_file) * (1.0 + 0.1 * ln64(factor));
            }
        }
        RopeTable { frequencies, magnitude }
    }

    /// Number of pairs.
    pub fn pairs(&self) -> usize {
        self.frequencies.len()
    }

    /// Cosines and sines of a position.
    pub fn fill(&self, position: usize, cos: &mut [f32], sin: &mut [f32]) {
        for ((frequency, cos), sin) in self.frequencies.iter().zip(cos).zip(sin) {
            let (s, c) = fastq_kernels::math::sin_cos64(position as f64 * frequency);
            *cos = (c * self.magnitude) as f32;
            *sin = (s * self.magnitude) as f32;
        }
    }
}
