//! Architectures as data. An architecture is one file in `arch/` with one constant, and one line in [`ARCHITECTURES`]; the forward
//! pass reads the [`ModelSpec`](super::spec::ModelSpec) that comes of it and knows no names.

mod gemma3;
mod llama;

use fastq_kernels::elementwise::RopeStyle;

/// Every architecture that can be run.
pub const ARCHITECTURES: &[&Architecture] = &[&llama::LLAMA, &gemma3::GEMMA3];

/// What makes an architecture different from the others, beyond the numbers in the file.
#[derive(Clone, Copy, Debug)]
pub struct Architecture {
    /// `general.architecture`, and the prefix of its keys.
    pub name: &'static str,
    /// How rope pairs the values of a head.
    pub rope_style: RopeStyle,
    /// `rope.freq_base` where the file has none.
    pub rope_base: f32,
    /// Base of the layers with a sliding window where the file has no `rope.freq_base_swa`; `None` for that of the other layers.
    /// Those layers then use neither the scaling nor the factors of the file.
    pub window_rope_base: Option<f32>,
    /// Which layers have a sliding window, when the file has `attention.sliding_window`.
    pub window: WindowPattern,
    /// Queries and keys are normalised per head before rope.
    pub head_norms: bool,
    /// The outputs of attention and feed-forward are normalised before they are added.
    pub sandwich_norms: bool,
    /// The gate of the feed-forward part.
    pub gate: Gate,
    /// Embeddings are multiplied by the square root of the width.
    pub scale_embedding: bool,
    /// Factor of the scores, where it is not `1 / sqrt(key length)`.
    pub score_scale: Option<fn(&ScoreFacts) -> Option<f64>>,
}

/// What a [`Architecture::score_scale`] may depend on.
#[derive(Clone, Copy, Debug)]
pub struct ScoreFacts {
    /// Number of layers, by which sizes of a family are told apart.
    pub layers: usize,
    /// Width of the model.
    pub width: usize,
    /// Query heads.
    pub heads: usize,
}

/// The activation of a gated feed-forward part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gate {
    /// `silu(gate) * up`.
    Silu,
    /// `gelu(gate) * up`, tanh form.
    Gelu,
}

/// Which layers see only a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WindowPattern {
    /// None: the key is ignored.
    Never,
    /// All but every `n`-th; the file may give another `n` as `attention.sliding_window_pattern`.
    AllButEvery(usize),
}

impl Architecture {
    /// The architecture called `name`.
    pub fn find(name: &str) -> Option<&'static Architecture> {
        ARCHITECTURES.iter().copied().find(|architecture| architecture.name == name)
    }
}
