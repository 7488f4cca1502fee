//! The hyper-parameters of a model, read from its metadata and checked.

use super::arch::{
    ActivationFunction, Architecture, ExpertRules, ExpertWidth, Gate, NormKind, NormPlacement, Recurrence, RopeLayers,
    Routing, ScoreScale, WindowPattern,
};
use super::embed::Pooling;
use super::keys::Keys;
use super::mixers::convolution::Convolution;
use super::mixers::delta_net::DeltaNet;
use super::mixers::short_conv::ShortConv;
use super::rope::{RopeSpec, Scaling};
use crate::gguf::Gguf;
use crate::{Error, Result};

/// A model as numbers.
#[derive(Clone, Debug)]
pub struct ModelSpec {
    /// The architecture.
    pub architecture: Architecture,
    /// `general.architecture`.
    pub name: String,
    /// Rows of the embedding, number of tokens.
    pub vocabulary: usize,
    /// Length of the hidden state.
    pub width: usize,
    /// Positions the model was trained for.
    pub context: usize,
    /// Added to the mean square or the variance in every norm.
    pub norm_epsilon: f32,
    /// Where norms are.
    pub norms: NormPlacement,
    /// A position sees those before it only.
    pub causal: bool,
    /// Rows of the embedding of token types; 0 for none.
    pub token_types: usize,
    /// How the file says that one vector is made of those of a text.
    pub pooling: Option<Pooling>,
    /// Factor of the embeddings.
    pub embedding_scale: Option<f32>,
    /// Factor of what a part adds to the hidden state.
    pub residual_scale: Option<f32>,
    /// Factor of the logits.
    pub logit_scale: Option<f32>,
    /// Cap of the logits.
    pub logit_cap: Option<f32>,
    /// Cap of the scores.
    pub score_cap: Option<f32>,
    /// How queries grow with their position.
    pub temperature: Option<Temperature>,
    /// Rotations that layers refer to.
    pub ropes: Vec<RopeSpec>,
    /// Of two sets of rope factors, those for long contexts apply.
    pub long_context: bool,
    /// Windows of the groups of layers that share cache pages; `None` for layers that see everything.
    pub groups: Vec<Option<usize>>,
    /// Values of the recurrent state of a sequence: those of layer after layer.
    pub state_len: usize,
    /// The layers.
    pub layers: Vec<LayerSpec>,
}

/// One layer: a mixer, which brings positions together, and a feed-forward part.
#[derive(Clone, Debug)]
pub struct LayerSpec {
    /// The mixer.
    pub mixer: Mixer,
    /// The feed-forward part.
    pub feed_forward: FeedForward,
}

impl LayerSpec {
    /// The convolution of the mixer, where it has one.
    pub fn convolution(&self) -> Option<&Convolution> {
        match &self.mixer {
            Mixer::Attention(_) => None,
            Mixer::ShortConv(short_conv) => Some(&short_conv.convolution),
            Mixer::DeltaNet(delta_net) => Some(&delta_net.convolution),
        }
    }

    /// The attention, where the mixer is that.
    pub fn attention(&self) -> Option<&Attention> {
        match &self.mixer {
            Mixer::Attention(attention) => Some(attention),
            _ => None,
        }
    }
}

/// What brings positions together.
#[derive(Clone, Debug)]
pub enum Mixer {
    /// Softmax attention over the cache.
    Attention(Attention),
    /// A short convolution between two gates.
    ShortConv(ShortConv),
    /// A gated delta net.
    DeltaNet(DeltaNet),
}

impl Mixer {
    /// Values of its output, for a position.
    pub fn outputs(&self) -> usize {
        match self {
            Mixer::Attention(attention) => attention.heads * attention.value_dim,
            Mixer::ShortConv(short_conv) => short_conv.convolution.channels,
            Mixer::DeltaNet(delta_net) => delta_net.values(),
        }
    }

    /// Values that the matrices of a mixer with a state give it for a position.
    pub fn mixed(&self) -> usize {
        match self {
            Mixer::Attention(_) => 0,
            Mixer::ShortConv(short_conv) => short_conv.inputs(),
            Mixer::DeltaNet(delta_net) => delta_net.inputs(),
        }
    }

    /// Values of its recurrent state.
    pub fn state_len(&self) -> usize {
        match self {
            Mixer::Attention(_) => 0,
            Mixer::ShortConv(short_conv) => short_conv.convolution.state_len(),
            Mixer::DeltaNet(delta_net) => delta_net.state_len(),
        }
    }

    /// The same with its state at `start` in that of a sequence.
    fn placed(mut self, start: usize) -> Mixer {
        match &mut self {
            Mixer::Attention(_) => {}
            Mixer::ShortConv(short_conv) => short_conv.convolution.state_start = start,
            Mixer::DeltaNet(delta_net) => delta_net.convolution.state_start = start,
        }
        self
    }
}

/// Attention of one layer.
#[derive(Clone, Debug)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Length of a query and of a key.
    pub key_dim: usize,
    /// Length of a value.
    pub value_dim: usize,
    /// Index into [`ModelSpec::ropes`]; `None` for no rotation.
    pub rope: Option<usize>,
    /// Index into [`ModelSpec::groups`].
    pub group: usize,
    /// Number of earlier layers in the same group.
    pub index_in_group: usize,
    /// Factor of the scores.
    pub score_scale: f32,
    /// A gate follows every query, whose sigmoid multiplies the output of the head.
    pub gated: bool,
}

impl Attention {
    /// Values that the matrix of the queries gives for a head: the query and, where there is one, the gate.
    pub fn query_stride(&self) -> usize {
        if self.gated { 2 * self.key_dim } else { self.key_dim }
    }

    /// The same for all heads.
    pub fn queries(&self) -> usize {
        self.heads * self.query_stride()
    }
}

/// Feed-forward part of one layer.
#[derive(Clone, Copy, Debug)]
pub struct FeedForward {
    /// Its width, or that of every expert.
    pub width: usize,
    /// The activation function.
    pub activation: ActivationFunction,
    /// How it is gated.
    pub gate: Gate,
    /// The experts, where it is made of such.
    pub experts: Option<Experts>,
}

impl FeedForward {
    /// Values that a row has between the matrices, in all networks that it meets.
    pub fn width_per_row(&self) -> usize {
        self.experts.map_or(self.width, |experts| {
            experts.used.saturating_mul(self.width).saturating_add(experts.shared.unwrap_or(0))
        })
    }
}

/// A mixture of experts: feed-forward networks of which each row meets a few.
#[derive(Clone, Copy, Debug)]
pub struct Experts {
    /// How many there are.
    pub count: usize,
    /// How many a row meets; from 1 to `count`.
    pub used: usize,
    /// How they are weighted.
    pub routing: Routing,
    /// Width of one that every row meets beside them.
    pub shared: Option<usize>,
}

/// Queries of position `p` are multiplied by `1 + scale * ln(1 + floor(p / every))`, so that scores do not flatten in long texts
/// (Llama 4).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Temperature {
    /// The `scale`.
    pub scale: f32,
    /// The `every`.
    pub every: usize,
}

impl Temperature {
    /// The factor of a position.
    pub fn at(&self, position: usize) -> f32 {
        let steps = (position / self.every + 1) as f64;
        (1.0 + f64::from(self.scale) * fastq_kernels::math::ln64(steps)) as f32
    }
}

pub(super) const MAX_LAYERS: usize = 512;
pub(super) const MAX_WIDTH: usize = 1 << 20;
const MAX_FEED_FORWARD: usize = 1 << 24;
const MAX_EXPERTS: usize = 1 << 12;
pub(super) const MAX_HEADS: usize = 1 << 14;
pub(super) const MAX_HEAD_DIM: usize = 4096;
/// Longest context.
pub const MAX_CONTEXT: usize = 1 << 30;

impl ModelSpec {
    /// Reads and checks the hyper-parameters of a model of the architecture that the file names, or of the one that is `described`,
    /// with the keys of the file's name. `context` is the number of positions that will be used, by default those the model was
    /// trained for.
    ///
    /// # Errors
    /// [`Error::ModelFile`] for a missing key or a value outside its range, [`Error::UnsupportedModel`] for an architecture or
    /// a variant that cannot be run.
    pub fn read(file: &Gguf, described: Option<&Architecture>, context: Option<usize>) -> Result<ModelSpec> {
        let name = file
            .str("general.architecture")?
            .ok_or_else(|| file.error("key general.architecture is missing: expected the name of an architecture"))?;
        let architecture = match described {
            Some(architecture) => *architecture,
            None => *Architecture::find(name).ok_or_else(|| {
                Error::UnsupportedModel(format!(
                    "{}: architecture {name:?} is not supported; this version runs {}. A variant of one of these runs with a \
                     description of how it differs (architecture=)",
                    file.path().display(),
                    Architecture::names().join(", ")
                ))
            })?,
        };
        Reader { architecture: &architecture, keys: Keys { file, prefix: name } }.read(context)
    }
}

/// Reads the keys of one architecture.
struct Reader<'a> {
    architecture: &'a Architecture,
    keys: Keys<'a>,
}

/// The layers of a model, and what they share.
struct Layers {
    layers: Vec<LayerSpec>,
    ropes: Vec<RopeSpec>,
    groups: Vec<Option<usize>>,
    state_len: usize,
}

/// The sliding windows of a model.
struct Windows {
    /// Positions that a layer with a window sees.
    len: usize,
    /// The layers that have one.
    layers: Vec<bool>,
}

impl Reader<'_> {
    fn read(&self, used_context: Option<usize>) -> Result<ModelSpec> {
        let Reader { architecture, keys } = *self;
        let layers = keys.count("block_count", 1..=MAX_LAYERS, None)?;
        let width = keys.count("embedding_length", 1..=MAX_WIDTH, None)?;
        let context = keys.count("context_length", 1..=MAX_CONTEXT, None)?;
        let original = keys.count("rope.scaling.original_context_length", 1..=MAX_CONTEXT, Some(context))?;
        let windows = self.windows(layers)?;
        let Layers { layers, ropes, groups, state_len } = self.layers(layers, width, context, windows)?;
        let multiplier = |name| if architecture.multipliers { keys.optional(name) } else { Ok(None) };
        let cap = |name, default| if keys.has(name) { keys.optional(name) } else { Ok(default) };
        let temperature = if architecture.temperature { keys.optional("attention.temperature_scale")? } else { None };
        let root = architecture.scale_embedding.then(|| (width as f32).sqrt());
        let norms = match architecture.norms {
            NormPlacement::BeforeOrParallel if keys.file.tensor("blk.0.ffn_norm.weight").is_none() => {
                NormPlacement::Parallel
            }
            NormPlacement::BeforeOrParallel => NormPlacement::Before,
            placement => placement,
        };
        let apart = |layer: &LayerSpec| layer.attention().is_none() || layer.feed_forward.experts.is_some();
        if norms == NormPlacement::Parallel && layers.iter().any(apart) {
            let path = keys.file.path().display();
            return Err(Error::UnsupportedModel(format!(
                "{path}: only attention and a feed-forward part without experts can stand side by side"
            )));
        }
        Ok(ModelSpec {
            architecture: *architecture,
            name: keys.prefix.to_owned(),
            vocabulary: keys.vocabulary()?,
            width,
            context,
            norm_epsilon: keys.positive(
                match architecture.norm {
                    NormKind::Rms => "attention.layer_norm_rms_epsilon",
                    NormKind::Layer => "attention.layer_norm_epsilon",
                },
                None,
            )?,
            norms,
            causal: keys.flag("attention.causal", true)?,
            token_types: if architecture.encoder { keys.token_types()? } else { 0 },
            pooling: Pooling::read(&keys)?,
            embedding_scale: multiplier("embedding_scale")?.or(root),
            residual_scale: multiplier("residual_scale")?,
            logit_scale: multiplier("logit_scale")?.map(|divisor| 1.0 / divisor),
            logit_cap: cap("final_logit_softcapping", architecture.logit_cap)?,
            score_cap: cap("attn_logit_softcapping", architecture.score_cap)?,
            temperature: temperature.map(|scale| Temperature { scale, every: original }),
            ropes,
            long_context: used_context.unwrap_or(context) > original,
            groups,
            state_len,
            layers,
        })
    }

    fn windows(&self, layers: usize) -> Result<Option<Windows>> {
        let Reader { architecture, keys } = *self;
        let switched = keys.has("attention.sliding_window") || architecture.window_default.is_some();
        if architecture.window == WindowPattern::Never || !switched {
            return Ok(None);
        }
        // Zero means that the window is switched off.
        let len = keys.count("attention.sliding_window", 0..=MAX_CONTEXT, architecture.window_default)?;
        const PATTERN: &str = "attention.sliding_window_pattern";
        let layers = match architecture.window {
            WindowPattern::AllButEvery(every) => keys.all_but_every(PATTERN, PATTERN, every, layers)?,
            WindowPattern::All | WindowPattern::Never => vec![true; layers],
        };
        Ok((len > 0).then_some(Windows { len, layers }))
    }

    /// The layers, the rotations and the groups of layers that share cache pages.
    fn layers(&self, layers: usize, width: usize, context: usize, windows: Option<Windows>) -> Result<Layers> {
        let Reader { architecture, keys } = *self;
        let feed_forward = self.feed_forward(layers)?;
        let heads = keys.per_layer("attention.head_count", layers, 1..=MAX_HEADS, None)?;
        let least = usize::from(architecture.recurrence == Recurrence::None);
        let kv_heads = match keys.has("attention.head_count_kv") {
            true => keys.per_layer("attention.head_count_kv", layers, least..=MAX_HEADS, None)?,
            false => heads.clone(),
        };
        let recurrent = self.recurrent(width, &kv_heads)?;
        for (layer, (&heads, &kv_heads)) in heads.iter().zip(&kv_heads).enumerate() {
            if recurrent[layer].is_none() && !heads.is_multiple_of(kv_heads) {
                return Err(keys.wrong(
                    "attention.head_count_kv",
                    format!("must divide the {heads} heads of layer {layer}, found {kv_heads}"),
                ));
            }
        }
        let per_head = width.is_multiple_of(heads[0]).then(|| width / heads[0]);
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
        if architecture.query_gate && key_dim != value_dim {
            let what = format!("must be attention.key_length {key_dim}, found {value_dim}");
            return Err(keys.wrong("attention.value_length", what));
        }
        let ropes = self.ropes(key_dim, context, windows.is_some())?;
        let has_rope = self.rope_layers()?;
        let score_scale = self.score_scale(layers, width, heads[0], key_dim)?;

        let mut groups: Vec<(Option<usize>, usize)> = Vec::new();
        let mut state_len = 0usize;
        // Layers at the end that predict further tokens.
        let skipped = keys.count("nextn_predict_layers", 0..=layers - 1, Some(0))?;
        let layers = (0..layers - skipped)
            .map(|layer| {
                if let Some(mixer) = &recurrent[layer] {
                    let start = state_len;
                    state_len = start.saturating_add(mixer.state_len());
                    return LayerSpec { mixer: mixer.clone().placed(start), feed_forward: feed_forward[layer] };
                }
                let window = windows.as_ref().filter(|windows| windows.layers[layer]).map(|windows| windows.len);
                let group = groups.iter().position(|(w, _)| *w == window).unwrap_or_else(|| {
                    groups.push((window, 0));
                    groups.len() - 1
                });
                groups[group].1 += 1;
                let rope = if window.is_some() { ropes.len() - 1 } else { 0 };
                LayerSpec {
                    mixer: Mixer::Attention(Attention {
                        heads: heads[layer],
                        kv_heads: kv_heads[layer],
                        key_dim,
                        value_dim,
                        rope: has_rope(layer).then_some(rope),
                        group,
                        index_in_group: groups[group].1 - 1,
                        score_scale,
                        gated: architecture.query_gate,
                    }),
                    feed_forward: feed_forward[layer],
                }
            })
            .collect();
        Ok(Layers { layers, ropes, groups: groups.into_iter().map(|(window, _)| window).collect(), state_len })
    }

    /// The feed-forward parts.
    fn feed_forward(&self, layers: usize) -> Result<Vec<FeedForward>> {
        let Reader { architecture, keys } = *self;
        let Architecture { activation, gate, .. } = *architecture;
        let widths = || keys.per_layer("feed_forward_length", layers, 1..=MAX_FEED_FORWARD, None);
        let Some((rules, experts)) = self.experts(layers)? else {
            let part = |width| FeedForward { width, activation, gate, experts: None };
            return Ok(widths()?.into_iter().map(part).collect());
        };
        let widths = match rules.width {
            ExpertWidth::FeedForward => widths()?,
            ExpertWidth::Own if keys.has("expert_feed_forward_length") => {
                keys.per_layer("expert_feed_forward_length", layers, 1..=MAX_FEED_FORWARD, None)?
            }
            ExpertWidth::Own => widths()?.iter().zip(&experts).map(|(all, experts)| all / experts.used).collect(),
        };
        let part = |(width, experts)| FeedForward { width, activation, gate, experts: Some(experts) };
        Ok(widths.into_iter().zip(experts).map(part).collect())
    }

    /// The experts of the layers and the rules for them, where there are some.
    fn experts(&self, layers: usize) -> Result<Option<(ExpertRules, Vec<Experts>)>> {
        let Reader { architecture, keys } = *self;
        let count = keys.count("expert_count", 0..=MAX_EXPERTS, Some(0))?;
        let (least, default) = if count == 0 { (0, Some(0)) } else { (1, None) };
        let used = keys.per_layer("expert_used_count", layers, least..=MAX_EXPERTS, default)?;
        if let Some(used) = used.iter().find(|used| **used > count) {
            let what = format!("must be at most expert_count {count}, found {used}");
            return Err(keys.wrong("expert_used_count", what));
        }
        if count == 0 {
            return Ok(None);
        }
        let rules = architecture.experts.ok_or_else(|| {
            let (path, name) = (keys.file.path().display(), keys.prefix);
            Error::UnsupportedModel(format!(
                "{path}: a {name} model with {count} experts is not supported by this version"
            ))
        })?;
        let shared = keys.count("expert_shared_feed_forward_length", 0..=MAX_FEED_FORWARD, Some(0))?;
        let shared = (shared > 0).then_some(shared);
        let experts = used.into_iter().map(|used| Experts { count, used, routing: rules.routing, shared }).collect();
        Ok(Some((rules, experts)))
    }

    /// The mixers of the layers with a recurrent state; `None` for those with attention.
    fn recurrent(&self, width: usize, kv_heads: &[usize]) -> Result<Vec<Option<Mixer>>> {
        let Reader { architecture, keys } = *self;
        match architecture.recurrence {
            Recurrence::None => Ok(vec![None; kv_heads.len()]),
            Recurrence::ShortConvWithoutHeads => {
                let mixer = Mixer::ShortConv(ShortConv::read(keys, width)?);
                Ok(kv_heads.iter().map(|&heads| (heads == 0).then(|| mixer.clone())).collect())
            }
            Recurrence::DeltaNetAllButEvery(every) => {
                let mixer = Mixer::DeltaNet(DeltaNet::read(keys)?);
                let (array, number) = ("attention.recurrent_layers", "full_attention_interval");
                let layers = keys.all_but_every(array, number, every, kv_heads.len())?;
                Ok(layers.into_iter().map(|recurrent| recurrent.then(|| mixer.clone())).collect())
            }
        }
    }

    /// The rotation of the layers that see everything, and that of those with a window when it is another one.
    fn ropes(&self, key_dim: usize, context: usize, windows: bool) -> Result<Vec<RopeSpec>> {
        let Reader { architecture, keys } = *self;
        let dims = keys.count("rope.dimension_count", 2..=key_dim.max(2), Some(key_dim))?;
        if dims % 2 != 0 || dims > key_dim {
            return Err(keys.wrong(
                "rope.dimension_count",
                format!("must be an even number up to the head size {key_dim}, found {dims}"),
            ));
        }
        let base = keys.positive("rope.freq_base", Some(architecture.rope_base))?;
        let rope = RopeSpec {
            style: architecture.rope_style,
            dims,
            base,
            scaling: keys.scaling(context)?,
            factors: true,
            sections: if architecture.rope_sections { Some(keys.sections()?) } else { None },
        };
        let mut ropes = vec![rope.clone()];
        if windows {
            let base = keys.positive("rope.freq_base_swa", Some(architecture.window_rope_base.unwrap_or(base)))?;
            let local = match architecture.window_rope_scaled {
                true => RopeSpec { base, ..rope.clone() },
                false => RopeSpec { base, scaling: Scaling::None, factors: false, ..rope.clone() },
            };
            if local != rope {
                ropes.push(local);
            }
        }
        Ok(ropes)
    }

    /// Whether a layer has rope.
    fn rope_layers(&self) -> Result<impl Fn(usize) -> bool> {
        let every = match self.architecture.rope_layers {
            RopeLayers::All => usize::MAX,
            RopeLayers::None => 1,
            RopeLayers::AllButEvery(every) => every,
            RopeLayers::UnlessSwitchedOff if self.keys.flag("rope.scaling.finetuned", true)? => usize::MAX,
            RopeLayers::UnlessSwitchedOff => 1,
        };
        Ok(move |layer| (layer + 1) % every != 0)
    }

    fn score_scale(&self, layers: usize, width: usize, heads: usize, key_dim: usize) -> Result<f32> {
        let length = match self.architecture.score_scale {
            ScoreScale::WidthPerHeadAt { layers: special } if layers == special => width as f64 / heads as f64,
            _ => key_dim as f64,
        };
        self.keys.positive("attention.scale", Some((1.0 / length.sqrt()) as f32))
    }
}
