//! Architectures as data. An architecture is one file in `arch/` with one constant, and one line in [`ARCHITECTURES`]; the forward
//! pass reads the [`ModelSpec`](super::spec::ModelSpec) that comes of it and knows no names.

mod bert;
pub mod description;
mod gemma;
mod gemma2;
mod gemma3;
mod gpt_oss;
mod granite;
mod granitemoe;
mod lfm2;
mod llama;
mod mistral3;
mod nomic_bert;
mod olmo2;
mod olmoe;
mod phi2;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen35;
mod qwen3moe;
mod smollm3;
mod stablelm;

use fastq_kernels::elementwise::RopeStyle;
use serde::{Deserialize, Serialize};

/// Every architecture that can be run, by `general.architecture`.
pub const ARCHITECTURES: &[(&str, &Architecture)] = &[
    ("llama", &llama::LLAMA),
    ("mistral3", &mistral3::MISTRAL3),
    ("qwen2", &qwen2::QWEN2),
    ("qwen3", &qwen3::QWEN3),
    ("qwen3moe", &qwen3moe::QWEN3MOE),
    ("gemma", &gemma::GEMMA),
    ("gemma2", &gemma2::GEMMA2),
    ("gemma3", &gemma3::GEMMA3),
    ("phi2", &phi2::PHI2),
    ("phi3", &phi3::PHI3),
    ("smollm3", &smollm3::SMOLLM3),
    ("granite", &granite::GRANITE),
    ("granitemoe", &granitemoe::GRANITEMOE),
    ("olmo2", &olmo2::OLMO2),
    ("olmoe", &olmoe::OLMOE),
    ("stablelm", &stablelm::STABLELM),
    ("bert", &bert::BERT),
    ("nomic-bert", &nomic_bert::NOMIC_BERT),
    ("gpt-oss", &gpt_oss::GPT_OSS),
    ("lfm2", &lfm2::LFM2),
    ("qwen35", &qwen35::QWEN35),
];

/// What makes an architecture different from the others, beyond the numbers in the file.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Architecture {
    /// The result is a hidden state for each position; there is no output matrix, and embeddings have a norm.
    pub encoder: bool,
    /// Embeddings have a row of `position_embd.weight` added.
    pub position_rows: bool,
    /// Which layers have a recurrent state in place of attention.
    pub recurrence: Recurrence,
    /// The norm before and after parts.
    pub norm: NormKind,
    /// Where norms are.
    pub norms: NormPlacement,
    /// The norm before the output has the name that others give to one after the embedding.
    pub output_norm_as_embedding_norm: bool,
    /// How queries and keys are normalised before rope.
    pub head_norms: HeadNorms,
    /// The matrix of the queries gives a gate behind each query, whose sigmoid multiplies the output of the head.
    pub query_gate: bool,
    /// How rope pairs the values of a head.
    #[serde(with = "RopeStyleName")]
    pub rope_style: RopeStyle,
    /// `rope.freq_base` where the file has none.
    pub rope_base: f32,
    /// Which layers have rope.
    pub rope_layers: RopeLayers,
    /// `rope.dimension_sections` says which coordinate of a position turns which pair.
    pub rope_sections: bool,
    /// Which layers have a sliding window, when the file has `attention.sliding_window`.
    pub window: WindowPattern,
    /// `attention.sliding_window` where the file has none.
    pub window_default: Option<usize>,
    /// `rope.freq_base_swa`, the base of the layers with a sliding window, where the file has none; `None` for that of the others.
    pub window_rope_base: Option<f32>,
    /// The layers with a sliding window use the scaling and the factors of rope, too.
    pub window_rope_scaled: bool,
    /// Factor of the scores.
    pub score_scale: ScoreScale,
    /// `attn_logit_softcapping` where the file has none.
    pub score_cap: Option<f32>,
    /// `final_logit_softcapping` where the file has none.
    pub logit_cap: Option<f32>,
    /// Queries grow with their position as `attention.temperature_scale` says.
    pub temperature: bool,
    /// Embeddings are multiplied by the square root of the width.
    pub scale_embedding: bool,
    /// The keys `embedding_scale`, `residual_scale` and `logit_scale` (which divides) are read.
    pub multipliers: bool,
    /// Activation function of the feed-forward part.
    pub activation: ActivationFunction,
    /// How the feed-forward part is gated.
    pub gate: Gate,
    /// What is special about experts; `None` where there can be none.
    pub experts: Option<ExpertRules>,
    /// Every query head sees one key more, without a value and with a score that the file has.
    pub sinks: bool,
}

impl Architecture {
    /// What most have in common; the files of the architectures say what they change.
    const BASE: Architecture = Architecture {
        encoder: false,
        position_rows: false,
        recurrence: Recurrence::None,
        norm: NormKind::Rms,
        norms: NormPlacement::Before,
        output_norm_as_embedding_norm: false,
        head_norms: HeadNorms::None,
        query_gate: false,
        rope_style: RopeStyle::Halves,
        rope_base: 10_000.0,
        rope_layers: RopeLayers::All,
        rope_sections: false,
        window: WindowPattern::Never,
        window_default: None,
        window_rope_base: None,
        window_rope_scaled: true,
        score_scale: ScoreScale::KeyLength,
        score_cap: None,
        logit_cap: None,
        temperature: false,
        scale_embedding: false,
        multipliers: false,
        activation: ActivationFunction::Silu,
        gate: Gate::Apart,
        experts: None,
        sinks: false,
    };

    /// The names of all.
    pub fn names() -> Vec<&'static str> {
        ARCHITECTURES.iter().map(|(name, _)| *name).collect()
    }

    /// The architecture called `name`.
    pub fn find(name: &str) -> Option<&'static Architecture> {
        ARCHITECTURES.iter().find(|(known, _)| *known == name).map(|(_, architecture)| *architecture)
    }
}

/// The names of [`RopeStyle`].
#[derive(Serialize, Deserialize)]
#[serde(remote = "RopeStyle", rename_all = "snake_case")]
enum RopeStyleName {
    Pairs,
    Halves,
}

/// Which layers have a recurrent state in place of attention.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recurrence {
    /// None.
    None,
    /// Those with a 0 in `attention.head_count_kv` are short convolutions.
    ShortConvWithoutHeads,
    /// All but every `n`-th are gated delta nets; the file may say otherwise as `full_attention_interval` or, layer by layer, as
    /// `attention.recurrent_layers`.
    DeltaNetAllButEvery(usize),
}

/// How a row is normalised.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// By its root mean square (arXiv 1910.07467).
    Rms,
    /// To mean 0 and variance 1 (arXiv 1607.06450).
    Layer,
}

/// Where a layer has norms.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormPlacement {
    /// `x += part(norm(x))`.
    Before,
    /// The same; the norm of the feed-forward part has the name that others give to one after attention.
    BeforeAsPostAttention,
    /// `x += norm(part(norm(x)))`.
    BeforeAndAfter,
    /// `x += norm(part(x))`.
    After,
    /// `x = norm(x + part(x))`.
    AfterSum,
    /// `x += attention(n) + feed_forward(n)` with `n = norm(x)`.
    Parallel,
    /// [`Parallel`](NormPlacement::Parallel) where the file has no norm for the feed-forward part, else
    /// [`Before`](NormPlacement::Before).
    BeforeOrParallel,
}

/// How queries and keys are normalised before rope.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadNorms {
    /// Not.
    None,
    /// Each head alone, all with the same weights.
    Each,
    /// All heads of a position together.
    Together,
    /// Each head alone with weights of its own, where the file has them.
    OwnIfThere,
}

/// Which layers have rope.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RopeLayers {
    /// All.
    All,
    /// None.
    None,
    /// All but every `n`-th.
    AllButEvery(usize),
    /// All, or none when the file has `rope.scaling.finetuned = false`.
    UnlessSwitchedOff,
}

/// What scores are multiplied with, where the file has no `attention.scale`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreScale {
    /// `1 / sqrt(key length)`.
    KeyLength,
    /// `1 / sqrt(width / heads)` in the model with so many layers, by which sizes of a family are told apart; others as
    /// [`KeyLength`](ScoreScale::KeyLength).
    WidthPerHeadAt {
        /// Number of layers.
        layers: usize,
    },
}

/// The activation function of a feed-forward part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationFunction {
    /// `x / (1 + exp(-x))`.
    Silu,
    /// GELU, tanh form.
    Gelu,
}

/// The gate of a feed-forward part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// None: `down(f(up(x)))`.
    None,
    /// `down(f(gate(x)) * up(x))`.
    Apart,
    /// The same; gate and up are one matrix, the gate first.
    InUp,
    /// `down(g * sigmoid(1.702 g) * (u + 1))` with `g = min(gate(x), 7)` and `u = up(x)` clamped to ±7; it has no other activation
    /// function.
    Clamped,
}

/// Which layers see only a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowPattern {
    /// None: the key is ignored.
    Never,
    /// All with attention, where the file has a window.
    All,
    /// All but every `n`-th; the file may say otherwise as `attention.sliding_window_pattern`.
    AllButEvery(usize),
}

/// What is special about the experts of an architecture, where a file has some.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpertRules {
    /// How they are weighted.
    pub routing: Routing,
    /// Where their width comes from.
    pub width: ExpertWidth,
}

impl ExpertRules {
    /// Mixtral's (arXiv 2401.04088), which most have: the softmax over the logits of those that are used.
    const BASE: ExpertRules =
        ExpertRules { routing: Routing::Softmax { normalised: true }, width: ExpertWidth::FeedForward };
}

/// How the experts with the largest logits are weighted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Routing {
    /// By the softmax over all experts.
    Softmax {
        /// Divided by the sum of those that are used.
        normalised: bool,
    },
    /// By the softmax over those that are used. On paper that is the normalised one; the roundings differ.
    SoftmaxOfUsed,
}

/// Where the width of experts comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpertWidth {
    /// `feed_forward_length`.
    FeedForward,
    /// `expert_feed_forward_length`; without it, all that are used have `feed_forward_length` together.
    Own,
}
