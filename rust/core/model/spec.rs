//! The hyper-parameters of a model, read from its metadata and checked: every number has a range, and an error names the key, the
//! range and what was found.

use std::ops::RangeInclusive;

use fastq_kernels::elementwise::RopeStyle;

use super::arch::{ARCHITECTURES, Architecture, Gate, ScoreFacts, WindowPattern};
use crate::gguf::Gguf;
use crate::{Error, Result};

/// A model as numbers.
#[derive(Clone, Debug)]
pub struct ModelSpec {
    /// The architecture.
    pub architecture: &'static Architecture,
    /// Rows of the embedding, number of tokens.
    pub vocabulary: usize,
    /// Length of the hidden state.
    pub width: usize,
    /// Positions the model was trained for.
    pub context: usize,
    /// Added to the mean square in every RMS norm.
    pub norm_epsilon: f32,
    /// Factor of the embeddings.
    pub embedding_scale: Option<f32>,
    /// Cap of the logits.
    pub logit_cap: Option<f32>,
    /// Cap of the scores.
    pub score_cap: Option<f32>,
    /// Rotations that layers refer to.
    pub ropes: Vec<RopeSpec>,
    /// Windows of the groups of layers that share cache pages; `None` for layers that see everything.
    pub groups: Vec<Option<usize>>,
    /// The layers.
    pub layers: Vec<LayerSpec>,
}

/// One layer.
#[derive(Clone, Debug)]
pub struct LayerSpec {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Length of a query and of a key.
    pub key_dim: usize,
    /// Length of a value.
    pub value_dim: usize,
    /// Width of the feed-forward part.
    pub feed_forward: usize,
    /// Index into [`ModelSpec::ropes`].
    pub rope: usize,
    /// Index into [`ModelSpec::groups`].
    pub group: usize,
    /// Number of earlier layers in the same group.
    pub index_in_group: usize,
    /// Factor of the scores.
    pub score_scale: f32,
    /// Activation of the feed-forward part.
    pub gate: Gate,
}

/// A rotation by position.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSpec {
    /// How values are paired.
    pub style: RopeStyle,
    /// Values rotated per head, an even number; the rest stays.
    pub dims: usize,
    /// Base of the frequencies.
    pub base: f32,
    /// How frequencies are stretched to a longer context.
    pub scaling: Scaling,
    /// The factors of `rope_freqs.weight` apply.
    pub factors: bool,
}

/// Stretching of rope to contexts longer than trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    /// None.
    None,
    /// Positions divided by `factor`.
    Linear {
        /// How much longer.
        factor: f32,
        /// Factor of the rotated values.
        magnitude: f32,
    },
    /// YaRN (arXiv 2309.00071).
    Yarn {
        /// How much longer.
        factor: f32,
        /// Context before stretching.
        original: usize,
        /// Factor of the rotated values, on top of YaRN's own.
        magnitude: f32,
        /// How much of the extrapolated frequency is kept.
        mix: f32,
        /// Turns in the original context from which a frequency is kept.
        fast: f32,
        /// Turns in the original context up to which a frequency is fully interpolated.
        slow: f32,
    },
}

const MAX_LAYERS: usize = 512;
const MAX_WIDTH: usize = 1 << 20;
const MAX_FEED_FORWARD: usize = 1 << 24;
const MAX_HEADS: usize = 1 << 14;
const MAX_HEAD_DIM: usize = 4096;
/// Longest context.
pub const MAX_CONTEXT: usize = 1 << 30;
const MAX_VOCABULARY: usize = 1 << 24;

impl ModelSpec {
    /// Reads and checks the hyper-parameters.
    ///
    /// # Errors
    /// [`Error::ModelFile`] for a missing key or a value outside its range, [`Error::UnsupportedModel`] for an architecture or
    /// a variant that cannot be run.
    pub fn read(file: &Gguf) -> Result<ModelSpec> {
        let name = file
            .str("general.architecture")?
            .ok_or_else(|| file.error("key general.architecture is missing: expected the name of an architecture"))?;
        let architecture = Architecture::find(name).ok_or_else(|| {
            let known: Vec<_> = ARCHITECTURES.iter().map(|a| a.name).collect();
            Error::UnsupportedModel(format!(
                "{}: architecture {name:?} is not supported; this version runs {}",
                file.path().display(),
                known.join(", ")
            ))
        })?;
        let keys = Keys { file, architecture: architecture.name };
        keys.refuse_experts()?;

        let layers = keys.count("block_count", 1..=MAX_LAYERS, None)?;
        let width = keys.count("embedding_length", 1..=MAX_WIDTH, None)?;
        let context = keys.count("context_length", 1..=MAX_CONTEXT, None)?;
        let feed_forward = keys.per_layer("feed_forward_length", layers, 1..=MAX_FEED_FORWARD, None)?;
        let heads = keys.per_layer("attention.head_count", layers, 1..=MAX_HEADS, None)?;
        let kv_heads = match keys.has("attention.head_count_kv") {
            true => keys.per_layer("attention.head_count_kv", layers, 1..=MAX_HEADS, None)?,
            false => heads.clone(),
        };
        for (layer, (&heads, &kv_heads)) in heads.iter().zip(&kv_heads).enumerate() {
            if heads % kv_heads != 0 {
                return Err(keys.wrong(
                    "attention.head_count_kv",
                    format!("must divide the {heads} heads of layer {layer}, found {kv_heads}"),
                ));
            }
        }
        let per_head = if width % heads[0] == 0 { Some(width / heads[0]) } else { None };
        let head_dim = |name: &str| -> Result<usize> {
            if !keys.has(name) && per_head.is_none() {
                return Err(keys.wrong(
                    "embedding_length",
                    format!("must be a multiple of the {} heads when there is no {name}, found {width}", heads[0]),
                ));
            }
            keys.count(name, 1..=MAX_HEAD_DIM, per_head)
        };
        let (key_dim, value_dim) = (head_dim("attention.key_length")?, head_dim("attention.value_length")?);

        let rotated = keys.count("rope.dimension_count", 2..=key_dim.max(2), Some(key_dim))?;
        if rotated % 2 != 0 || rotated > key_dim {
            return Err(keys.wrong(
                "rope.dimension_count",
                format!("must be an even number up to the head size {key_dim}, found {rotated}"),
            ));
        }
        let scaling = keys.scaling(context)?;
        let base = keys.positive("rope.freq_base", Some(architecture.rope_base))?;
        let style = architecture.rope_style;
        let mut ropes = vec![RopeSpec { style, dims: rotated, base, scaling, factors: true }];
        let mut groups = Vec::new();

        let window = match architecture.window {
            WindowPattern::AllButEvery(every) if keys.has("attention.sliding_window") => {
                // Zero means that the window is switched off.
                let window = keys.count("attention.sliding_window", 0..=MAX_CONTEXT, None)?;
                let every = keys.count("attention.sliding_window_pattern", 1..=MAX_LAYERS, Some(every))?;
                (window > 0).then_some((window, every))
            }
            _ => None,
        };
        if window.is_some()
            && let Some(default) = architecture.window_rope_base
        {
            let base = keys.positive("rope.freq_base_swa", Some(default))?;
            ropes.push(RopeSpec { style, dims: rotated, base, scaling: Scaling::None, factors: false });
        }
        let facts = ScoreFacts { layers, width, heads: heads[0] };
        let score_scale = architecture.score_scale.and_then(|scale| scale(&facts));
        let default_scale = score_scale.unwrap_or_else(|| 1.0 / (key_dim as f64).sqrt()) as f32;
        let score_scale = keys.positive("attention.scale", Some(default_scale))?;

        let layers = (0..layers)
            .map(|layer| {
                let window = window.and_then(|(window, every)| ((layer + 1) % every != 0).then_some(window));
                let group = groups.iter().position(|(w, _)| *w == window).unwrap_or_else(|| {
                    groups.push((window, 0));
                    groups.len() - 1
                });
                groups[group].1 += 1;
                LayerSpec {
                    heads: heads[layer],
                    kv_heads: kv_heads[layer],
                    key_dim,
                    value_dim,
                    feed_forward: feed_forward[layer],
                    rope: if window.is_some() { ropes.len() - 1 } else { 0 },
                    group,
                    index_in_group: groups[group].1 - 1,
                    score_scale,
                    gate: architecture.gate,
                }
            })
            .collect();
        Ok(ModelSpec {
            architecture,
            vocabulary: keys.vocabulary()?,
            width,
            context,
            norm_epsilon: keys.positive("attention.layer_norm_rms_epsilon", None)?,
            embedding_scale: architecture.scale_embedding.then(|| (width as f32).sqrt()),
            logit_cap: keys.cap("final_logit_softcapping")?,
            score_cap: keys.cap("attn_logit_softcapping")?,
            ropes,
            groups: groups.into_iter().map(|(window, _)| window).collect(),
            layers,
        })
    }
}

/// The keys of an architecture in a file.
struct Keys<'a> {
    file: &'a Gguf,
    architecture: &'static str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn has(&self, name: &str) -> bool {
        self.file.get(&self.key(name)).is_some()
    }

    fn wrong(&self, name: &str, what: String) -> Error {
        let key = self.key(name);
        self.file.key_error(&key, format!("key {key} {what}"))
    }

    fn missing(&self, name: &str, expected: String) -> Error {
        self.file.error(format!("key {} is missing: expected {expected}", self.key(name)))
    }

    fn count(&self, name: &str, range: RangeInclusive<usize>, default: Option<usize>) -> Result<usize> {
        let (low, high) = (*range.start(), *range.end());
        match self.file.u64(&self.key(name))? {
            Some(value) => match usize::try_from(value).ok().filter(|value| range.contains(value)) {
                Some(value) => Ok(value),
                None => Err(self.wrong(name, format!("must be from {low} to {high}, found {value}"))),
            },
            None => default.ok_or_else(|| self.missing(name, format!("an integer from {low} to {high}"))),
        }
    }

    /// A number for all layers, or an array with one for each.
    fn per_layer(
        &self,
        name: &str,
        layers: usize,
        range: RangeInclusive<usize>,
        default: Option<usize>,
    ) -> Result<Vec<usize>> {
        let key = self.key(name);
        if !matches!(self.file.get(&key), Some(crate::gguf::Value::Array(_))) {
            return Ok(vec![self.count(name, range, default)?; layers]);
        }
        let values = self.file.usizes(&key)?.unwrap_or_default();
        if values.len() != layers {
            return Err(
                self.wrong(name, format!("must have one element for each of {layers} layers, found {}", values.len()))
            );
        }
        match values.iter().position(|value| !range.contains(value)) {
            Some(layer) => {
                let (low, high, found) = (range.start(), range.end(), values[layer]);
                Err(self.wrong(name, format!("must be from {low} to {high}, found {found} for layer {layer}")))
            }
            None => Ok(values),
        }
    }

    fn positive(&self, name: &str, default: Option<f32>) -> Result<f32> {
        match self.file.f32(&self.key(name))? {
            Some(value) if value.is_finite() && value > 0.0 => Ok(value),
            Some(value) => Err(self.wrong(name, format!("must be a finite number above 0, found {value}"))),
            None => default.ok_or_else(|| self.missing(name, "a number above 0".into())),
        }
    }

    /// A soft cap; 0 and a missing key mean none.
    fn cap(&self, name: &str) -> Result<Option<f32>> {
        match self.file.f32(&self.key(name))? {
            None | Some(0.0) => Ok(None),
            Some(_) => self.positive(name, None).map(Some),
        }
    }

    fn scaling(&self, context: usize) -> Result<Scaling> {
        let kind = match self.file.str(&self.key("rope.scaling.type"))? {
            Some(kind) => kind,
            None if self.has("rope.scaling.factor") => "linear",
            None => "none",
        };
        // The older name of the linear factor.
        let old = if self.has("rope.scale_linear") { self.positive("rope.scale_linear", None)? } else { 1.0 };
        let factor = self.positive("rope.scaling.factor", Some(old))?;
        let magnitude = match self.has("rope.scaling.yarn_attn_factor") {
            true => self.positive("rope.scaling.yarn_attn_factor", None)?,
            false => self.positive("rope.scaling.attn_factor", Some(1.0))?,
        };
        match kind {
            "none" if old == 1.0 || self.has("rope.scaling.type") => Ok(Scaling::None),
            "none" | "linear" => Ok(match factor == 1.0 && magnitude == 1.0 {
                true => Scaling::None,
                false => Scaling::Linear { factor, magnitude },
            }),
            "yarn" => Ok(Scaling::Yarn {
                factor,
                original: self.count("rope.scaling.original_context_length", 1..=MAX_CONTEXT, Some(context))?,
                magnitude,
                mix: self.positive("rope.scaling.yarn_ext_factor", Some(1.0))?,
                fast: self.positive("rope.scaling.yarn_beta_fast", Some(32.0))?,
                slow: self.positive("rope.scaling.yarn_beta_slow", Some(1.0))?,
            }),
            other => Err(Error::UnsupportedModel(format!(
                "{}: rope scaling {other:?} is not supported; this version knows none, linear and yarn",
                self.file.path().display()
            ))),
        }
    }

    fn refuse_experts(&self) -> Result<()> {
        let experts = self.count("expert_count", 0..=4096, Some(0))?;
        let used = self.count("expert_used_count", 0..=4096, Some(0))?;
        if used > experts {
            return Err(
                self.wrong("expert_used_count", format!("must be at most expert_count {experts}, found {used}"))
            );
        }
        if experts > 0 {
            return Err(Error::UnsupportedModel(format!(
                "{}: a {} model with {experts} experts is not supported by this version",
                self.file.path().display(),
                self.architecture
            )));
        }
        Ok(())
    }

    /// Number of tokens, by the vocabulary and by the key, which must agree.
    fn vocabulary(&self) -> Result<usize> {
        let tokens = self.file.strings("tokenizer.ggml.tokens")?;
        let tokens = tokens
            .ok_or_else(|| self.file.error("key tokenizer.ggml.tokens is missing: expected the vocabulary"))?
            .len();
        if tokens == 0 || tokens > MAX_VOCABULARY {
            let what = format!("key tokenizer.ggml.tokens must have from 1 to {MAX_VOCABULARY} tokens, found {tokens}");
            return Err(self.file.key_error("tokenizer.ggml.tokens", what));
        }
        if self.has("vocab_size") {
            let size = self.count("vocab_size", 1..=MAX_VOCABULARY, None)?;
            if size != tokens {
                return Err(self.wrong("vocab_size", format!("must be the number of tokens {tokens}, found {size}")));
            }
        }
        Ok(tokens)
    }
}
