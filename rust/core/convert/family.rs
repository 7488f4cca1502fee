//! Architectures as data: which classes of transformers they are, how its tensors and the keys of its configuration are called in
//! GGUF, and what is done with the weights. An architecture is one constant in `family/`, and one line in [`FAMILIES`].

use fastq_kernels::math::ln64;

use super::Notes;
use super::json::Object;
use crate::gguf::{Array, Value};
use crate::{Error, Result};

mod encoders;
mod gemma;
mod gpt_oss;
mod granite;
mod lfm2;
mod llama;
mod olmo;
mod phi;
mod qwen;
mod stablelm;

/// Every architecture that can be converted. Of two for one class the first that applies counts.
const FAMILIES: &[&Family] = &[
    &llama::LLAMA,
    &llama::MISTRAL3,
    &llama::SMOLLM3,
    &granite::GRANITE,
    &granite::GRANITE4,
    &granite::GRANITEMOE,
    &qwen::QWEN2,
    &qwen::QWEN3,
    &qwen::QWEN3MOE,
    &qwen::QWEN35,
    &gemma::GEMMA,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &phi::PHI2,
    &phi::PHI3,
    &olmo::OLMO2,
    &olmo::OLMOE,
    &stablelm::STABLELM,
    &gpt_oss::GPT_OSS,
    &lfm2::LFM2,
    &encoders::BERT,
    &encoders::NOMIC_BERT,
];

/// What becomes of the rows of a tensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// They stay.
    Keep,
    /// Of every query head, what rope pairs becomes adjacent.
    QueryPairs,
    /// The same of every key head.
    KeyPairs,
    /// 1 is added.
    PlusOne,
    /// `-e^x`, and the order of the value heads.
    Decay,
    /// Dimensions of length 1 go.
    Squeeze,
    /// One of two halves of every matrix.
    Half(usize),
    /// Rows and columns change places, unless the matrix is quantized.
    Transpose,
    /// The same; then every second row.
    TransposeEverySecond(usize),
    /// Every second value of a row.
    EverySecond(usize),
    /// The value heads of a delta net, of so many rows each (of the value size, or of one), come in the order that broadcasting takes
    /// them; queries and keys are in front.
    MixedValues,
    /// The same without queries and keys.
    Values,
    /// The same for one row per head.
    ValueScalars,
    /// The same for columns.
    ValueColumns,
}

/// A tensor of the checkpoint and its name in GGUF. In both, `#` stands for the number of a layer; `@` for what is to be stacked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    pub(super) change: Change,
    /// Names are complete; else `.weight` and `.bias` follow.
    pub(super) exact: bool,
}

/// A rule for weight and bias of a module.
const fn module(from: &'static str, to: &'static str) -> Rule {
    Rule { from, to, change: Change::Keep, exact: false }
}

/// A rule for one tensor.
const fn exact(from: &'static str, to: &'static str) -> Rule {
    Rule { from, to, change: Change::Keep, exact: true }
}

impl Rule {
    const fn changed(self, change: Change) -> Rule {
        Rule { change, ..self }
    }
}

/// The type of a key.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Kind {
    Count,
    Float,
}

/// A key of GGUF (without the architecture), and what it may be called in `config.json`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    to: &'static str,
    from: &'static [&'static str],
    kind: Kind,
    /// Whether it must be there.
    required: bool,
}

const fn count(to: &'static str, from: &'static [&'static str]) -> Key {
    Key { to, from, kind: Kind::Count, required: true }
}

const fn float(to: &'static str, from: &'static [&'static str]) -> Key {
    Key { to, from, kind: Kind::Float, required: true }
}

impl Key {
    const fn optional(self) -> Key {
        Key { required: false, ..self }
    }
}

/// An architecture.
pub(super) struct Family {
    /// `general.architecture`.
    pub(super) architecture: &'static str,
    /// `architectures` in `config.json`.
    pub(super) classes: &'static [&'static str],
    /// `model_type`, where that says nothing.
    pub(super) model_types: &'static [&'static str],
    /// Whether it applies.
    pub(super) when: fn(&Config) -> bool,
    pub(super) rules: &'static [&'static [Rule]],
    /// What tensors that are left out begin with (without the name of the model).
    pub(super) ignored: &'static [&'static str],
    keys: &'static [&'static [Key]],
    /// Numbers that transformers takes where `config.json` has none, because files leave them out.
    defaults: &'static [(&'static str, f64)],
    /// Further keys, and what the engine cannot do.
    more: fn(&Config, &mut Keys) -> Result<()>,
    /// Base of the frequencies of rope where the file has none; `None` where positions do not turn.
    rope: Option<f64>,
    /// Activation functions that are the one of the engine.
    activations: &'static [&'static str],
    /// Whether there is an output matrix, or the embedding.
    pub(super) decoder: bool,
}

impl Family {
    const BASE: Family = Family {
        architecture: "",
        classes: &[],
        model_types: &[],
        when: |_| true,
        rules: &[],
        ignored: &[],
        keys: &[SIZES, RMS],
        defaults: &[],
        more: |_, _| Ok(()),
        rope: Some(10_000.0),
        activations: &["silu", "swish"],
        decoder: true,
    };

    /// The family of a checkpoint.
    pub(super) fn of(config: &Config) -> Result<&'static Family> {
        let classes = config.root.strings("architectures")?.unwrap_or_default();
        let model_type = config.root.str("model_type")?;
        let by_class = |family: &&&Family| {
            classes.first().is_some_and(|class| family.classes.contains(class)) && (family.when)(config)
        };
        let by_type = |family: &&&Family| {
            classes.is_empty()
                && model_type.is_some_and(|name| family.model_types.contains(&name))
                && (family.when)(config)
        };
        FAMILIES.iter().find(by_class).or_else(|| FAMILIES.iter().find(by_type)).copied().ok_or_else(|| {
            let known: Vec<&str> = FAMILIES.iter().flat_map(|family| family.classes).copied().collect();
            let found = match (classes.first(), model_type) {
                (Some(class), _) => format!("architecture {class:?}"),
                (None, Some(name)) => format!("model_type {name:?}"),
                (None, None) => "no architecture".into(),
            };
            let path = config.root.path.display();
            Error::UnsupportedModel(format!(
                "{path}: {found} cannot be converted by this version, which knows {}",
                known.join(", ")
            ))
        })
    }

    /// The keys of the architecture, and its factors of rope.
    pub(super) fn keys(&self, config: &Config, notes: &mut Notes) -> Result<Keys> {
        let mut keys =
            Keys { prefix: self.architecture, pairs: Vec::new(), factors: Vec::new(), notes: Notes::default() };
        if let Some(key) = config.first(&["hidden_activation", "hidden_act", "activation_function"])
            && let Some(found) = config.str(key)?
            && !self.activations.contains(&found)
        {
            let (path, known) = (config.path.display(), self.activations.join(" or "));
            let what = format!("{path}: key {key:?} must be {known} in this architecture, found {found:?}");
            return Err(Error::UnsupportedModel(what));
        }
        for key in self.keys.iter().copied().flatten() {
            keys.copy(config, key)?;
        }
        if let Some(base) = self.rope {
            keys.rope(config, base)?;
        }
        (self.more)(config, &mut keys)?;
        notes.append(&mut keys.notes);
        Ok(keys)
    }
}

/// Sizes that all have.
const SIZES: &[Key] = &[
    count("block_count", &["num_hidden_layers", "n_layer", "n_layers", "num_layers"]),
    count("context_length", &["max_position_embeddings", "n_positions", "n_ctx"]),
    count("embedding_length", &["hidden_size", "n_embd"]),
    count("feed_forward_length", &["intermediate_size", "n_inner"]),
    count("attention.head_count", &["num_attention_heads", "n_head"]),
    count("attention.head_count_kv", &["num_key_value_heads", "n_head_kv"]).optional(),
    count("attention.key_length", &["head_dim"]).optional(),
    count("attention.value_length", &["head_dim"]).optional(),
];
const RMS: &[Key] = &[float("attention.layer_norm_rms_epsilon", &["rms_norm_eps", "norm_eps", "norm_epsilon"])];
const LAYER_NORM: &[Key] =
    &[float("attention.layer_norm_epsilon", &["layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"])];
const EXPERTS: &[Key] = &[
    count("expert_count", &["num_local_experts", "num_experts"]),
    count("expert_used_count", &["num_experts_per_tok", "num_experts_per_token"]),
];

/// What most decoders share.
const EMBEDDING: &[Rule] =
    &[module("embed_tokens", "token_embd"), module("norm", "output_norm"), module("lm_head", "output")];
const ATTENTION: &[Rule] = &[
    module("layers.#.self_attn.q_proj", "blk.#.attn_q"),
    module("layers.#.self_attn.k_proj", "blk.#.attn_k"),
    module("layers.#.self_attn.v_proj", "blk.#.attn_v"),
    module("layers.#.self_attn.o_proj", "blk.#.attn_output"),
];
const NORMS: &[Rule] = &[
    module("layers.#.input_layernorm", "blk.#.attn_norm"),
    module("layers.#.post_attention_layernorm", "blk.#.ffn_norm"),
];
const HEAD_NORMS: &[Rule] = &[
    module("layers.#.self_attn.q_norm", "blk.#.attn_q_norm"),
    module("layers.#.self_attn.k_norm", "blk.#.attn_k_norm"),
];
const GATED: &[Rule] = &[
    module("layers.#.mlp.gate_proj", "blk.#.ffn_gate"),
    module("layers.#.mlp.up_proj", "blk.#.ffn_up"),
    module("layers.#.mlp.down_proj", "blk.#.ffn_down"),
];
/// Experts one by one, all in one tensor as later versions of transformers have them, or all of a kind as MLX has them.
const MIXTURE: &[Rule] = &[
    module("layers.#.mlp.gate", "blk.#.ffn_gate_inp"),
    module("layers.#.mlp.experts.@.gate_proj", "blk.#.ffn_gate_exps"),
    module("layers.#.mlp.experts.@.up_proj", "blk.#.ffn_up_exps"),
    module("layers.#.mlp.experts.@.down_proj", "blk.#.ffn_down_exps"),
    exact("layers.#.mlp.experts.gate_up_proj", "blk.#.ffn_gate_exps.weight").changed(Change::Half(0)),
    exact("layers.#.mlp.experts.gate_up_proj", "blk.#.ffn_up_exps.weight").changed(Change::Half(1)),
    exact("layers.#.mlp.experts.down_proj", "blk.#.ffn_down_exps.weight"),
    module("layers.#.mlp.switch_mlp.gate_proj", "blk.#.ffn_gate_exps"),
    module("layers.#.mlp.switch_mlp.up_proj", "blk.#.ffn_up_exps"),
    module("layers.#.mlp.switch_mlp.down_proj", "blk.#.ffn_down_exps"),
];

/// `config.json`: all of it, and what it says of the model of texts.
pub(super) struct Config {
    pub(super) root: Object,
    text: Object,
}

impl std::ops::Deref for Config {
    type Target = Object;

    fn deref(&self) -> &Object {
        &self.text
    }
}

impl Config {
    /// Puts what is nested for texts over the rest.
    pub(super) fn new(root: Object) -> Result<Config> {
        let mut text = root.clone();
        if let Some(nested) = root.object("text_config")? {
            text.map.extend(nested.map);
        }
        Ok(Config { root, text })
    }

    /// Takes the numbers of a family where the file has none.
    pub(super) fn complete(&mut self, family: &Family) {
        for (key, value) in family.defaults {
            if self.text.get(key).is_none() {
                self.text.map.insert((*key).into(), (*value).into());
            }
        }
    }

    /// Length of a head.
    pub(super) fn head_dim(&self) -> Result<u32> {
        if let Some(size) = self.u32("head_dim")? {
            return Ok(size);
        }
        let (width, heads) = (self.need(&["hidden_size", "n_embd"])?, self.need(&["num_attention_heads", "n_head"])?);
        match heads {
            0 => Err(self.wrong("num_attention_heads", "must be above 0, found 0")),
            heads => Ok(width / heads),
        }
    }

    /// A count that must be there under one of several names.
    pub(super) fn need(&self, names: &[&str]) -> Result<u32> {
        match self.first(names) {
            Some(name) => self.need_u32(name),
            None => Err(self.missing(names, "an integer")),
        }
    }

    /// How layers mix positions, `layer_types`.
    fn layer_types(&self) -> Result<Option<Vec<&str>>> {
        let Some(types) = self.strings("layer_types")? else { return Ok(None) };
        let layers = self.need(&["num_hidden_layers"])?;
        match types.len() == layers as usize {
            true => Ok(Some(types)),
            false => {
                let found = types.len();
                Err(self.wrong("layer_types", format_args!("must have one for each of {layers} layers, found {found}")))
            }
        }
    }

    /// The error for something that the engine does not do.
    fn unsupported(&self, key: &str, expected: &str) -> Error {
        let found = self.get(key).map_or("none".to_owned(), super::json::describe);
        let path = self.path.display();
        Error::UnsupportedModel(format!("{path}: key {key:?} must be {expected} for this version, found {found}"))
    }

    /// Refuses a flag with another value.
    fn expect(&self, key: &str, wanted: bool, default: bool) -> Result<()> {
        match self.bool(key)?.unwrap_or(default) == wanted {
            true => Ok(()),
            false => Err(self.unsupported(key, if wanted { "true" } else { "false" })),
        }
    }
}

/// The keys of an architecture, as they are collected.
pub(super) struct Keys {
    prefix: &'static str,
    pub(super) pairs: Vec<(String, Value)>,
    /// Tensors with factors of rope.
    pub(super) factors: Vec<(&'static str, Vec<f32>)>,
    notes: Notes,
}

impl Keys {
    fn set(&mut self, name: &str, value: impl Into<Value>) {
        let key = format!("{}.{name}", self.prefix);
        let value = value.into();
        match self.pairs.iter_mut().find(|(other, _)| *other == key) {
            Some(pair) => pair.1 = value,
            None => self.pairs.push((key, value)),
        }
    }

    fn copy(&mut self, config: &Config, key: &Key) -> Result<()> {
        match config.first(key.from) {
            Some(name) => match key.kind {
                Kind::Count => self.set(key.to, config.need_u32(name)?),
                Kind::Float => self.set(key.to, config.f64(name)?.unwrap_or_default() as f32),
            },
            None if key.required => return Err(config.missing(key.from, "a number")),
            None => {}
        }
        Ok(())
    }

    /// Sliding windows: `every`-th layers have none unless the file says otherwise.
    fn windows(&mut self, config: &Config, every: usize) -> Result<()> {
        let Some(window) = config.u32("sliding_window")? else { return Ok(()) };
        self.set("attention.sliding_window", window);
        let layers = config.need(&["num_hidden_layers"])? as usize;
        let usual = |every: usize| (1..=layers).map(|layer| layer % every != 0).collect::<Vec<bool>>();
        let found = match (config.layer_types()?, config.first(&["sliding_window_pattern", "_sliding_window_pattern"]))
        {
            (Some(types), _) => types.iter().map(|kind| *kind == "sliding_attention").collect(),
            (None, Some(name)) => match config.need_u32(name)? as usize {
                0 => return Err(config.wrong(name, "must be above 0, found 0")),
                every => usual(every),
            },
            (None, None) => return Ok(()),
        };
        if found != usual(every) {
            self.set("attention.sliding_window_pattern", Array::from(found.as_slice()));
        }
        Ok(())
    }

    /// A window in all layers that the architecture does not have in GGUF.
    fn no_window(&mut self, config: &Config) -> Result<()> {
        let context = config.need(&["max_position_embeddings"])?;
        if let Some(window) = config.u32("sliding_window")?.filter(|window| *window < context)
            && config.bool("use_sliding_window")?.unwrap_or(true)
        {
            let what = format!(
                "its sliding window of {window} has no place in {}: every position sees all before it",
                self.prefix
            );
            self.notes.add("config.json", what);
        }
        Ok(())
    }

    /// Rope: base, values that turn, scaling.
    fn rope(&mut self, config: &Config, default: f64) -> Result<()> {
        let all = match config.object("rope_parameters")? {
            Some(all) => Some(all),
            None => config.object("rope_scaling")?,
        };
        // Of models with windows, each kind of layer may have its own.
        let (own, local) = match &all {
            Some(all) => match all.object("full_attention")? {
                Some(own) => (Some(own), all.object("sliding_attention")?),
                None => (Some(all.clone()), None),
            },
            None => (None, None),
        };
        let of = |object: &Option<Object>, key: &str| object.as_ref().map(|object| object.f64(key)).transpose();
        let in_file = match config.first(&["rope_theta", "rotary_emb_base"]) {
            Some(name) => config.f64(name)?,
            None => of(&own, "rope_theta")?.flatten(),
        };
        self.set("rope.freq_base", in_file.unwrap_or(default) as f32);
        if let Some(base) = of(&local, "rope_theta")?.flatten().or(config.f64("rope_local_base_freq")?) {
            self.set("rope.freq_base_swa", base as f32);
        }
        let part = match config.first(&["partial_rotary_factor", "rope_pct", "rotary_pct"]) {
            Some(name) => config.f64(name)?,
            None => of(&own, "partial_rotary_factor")?.flatten(),
        };
        let part = part.unwrap_or(1.0);
        if !(part > 0.0 && part <= 1.0) {
            return Err(
                config.wrong("partial_rotary_factor", format_args!("must be above 0 and at most 1, found {part}"))
            );
        }
        let dims = (f64::from(config.head_dim()?) * part) as u32;
        self.set("rope.dimension_count", dims);
        let Some(own) = own else { return Ok(()) };
        let Some(kind) = own.first(&["rope_type", "type"]) else { return Ok(()) };
        self.scaling(config, &own, kind, in_file.unwrap_or(default), dims)
    }

    fn scaling(&mut self, config: &Config, own: &Object, key: &str, base: f64, dims: u32) -> Result<()> {
        let kind = own.str(key)?.unwrap_or_default().to_lowercase();
        let factor = own.f64("factor")?;
        let positive = |name: &str, default: Option<f64>| match own.f64(name)?.or(default) {
            Some(value) if value > 0.0 => Ok(value),
            Some(value) => Err(own.wrong(name, format_args!("must be above 0, found {value}"))),
            None => Err(own.missing(&[name], "a number above 0")),
        };
        let context = config.need(&["max_position_embeddings"])?;
        let original = |config: &Config| -> Result<u32> {
            match own.u32("original_max_position_embeddings")? {
                Some(original) => Ok(original),
                None => Ok(config.u32("original_max_position_embeddings")?.unwrap_or(context)),
            }
        };
        match kind.as_str() {
            "default" | "none" | "mrope" => {}
            "linear" => {
                self.set("rope.scaling.type", "linear");
                self.set("rope.scaling.factor", positive("factor", None)? as f32);
            }
            "yarn" => {
                let factor = positive("factor", None)?;
                self.set("rope.scaling.type", "yarn");
                self.set("rope.scaling.factor", factor as f32);
                self.set("rope.scaling.original_context_length", original(config)?);
                for (name, to) in [
                    ("beta_fast", "rope.scaling.yarn_beta_fast"),
                    ("beta_slow", "rope.scaling.yarn_beta_slow"),
                    ("extrapolation_factor", "rope.scaling.yarn_ext_factor"),
                ] {
                    if own.get(name).is_some() {
                        self.set(to, positive(name, None)? as f32);
                    }
                }
                // In GGUF the factor of the rotated values is on top of YaRN's own; in the file it takes its place.
                let usual = |of: f64| 1.0 + 0.1 * of * ln64(factor.max(1.0));
                let given = match own.first(&["attention_factor", "attn_factor"]) {
                    Some(name) => Some(positive(name, None)?),
                    None => match (own.f64("mscale")?, own.f64("mscale_all_dim")?) {
                        (Some(one), Some(all)) if one != 0.0 && all != 0.0 => Some(usual(one) / usual(all)),
                        _ => None,
                    },
                };
                let all = own.f64("mscale_all_dim")?.filter(|all| self.prefix == "mistral3" && *all != 0.0);
                if let Some(all) = all {
                    self.set("rope.scaling.yarn_log_multiplier", all as f32);
                }
                if let Some(given) = given {
                    let magnitude = given / (usual(1.0) / all.map_or(1.0, usual));
                    if (magnitude - 1.0).abs() > 1e-6 {
                        self.set("rope.scaling.attn_factor", magnitude as f32);
                    }
                }
                if own.bool("truncate")? == Some(false) {
                    let what = "YaRN without rounding to whole pairs (truncate: false) has no key in GGUF: the pairs at both ends of the \
                                ramp turn a little differently";
                    self.notes.add("config.json", what.into());
                }
            }
            "llama3" => {
                let factor = positive("factor", Some(8.0))?;
                let (low, high) = (positive("low_freq_factor", Some(1.0))?, positive("high_freq_factor", Some(4.0))?);
                let original = f64::from(own.u32("original_max_position_embeddings")?.unwrap_or(8192));
                let of = |pair: u32| {
                    let exponent = f64::from(2 * pair) / f64::from(dims);
                    let turns = original / (std::f64::consts::TAU * base.powf(exponent));
                    if turns > high {
                        1.0
                    } else if turns < low {
                        factor as f32
                    } else {
                        let keep = (turns - low) / (high - low);
                        (1.0 / ((1.0 - keep) / factor + keep)) as f32
                    }
                };
                self.factors.push(("rope_freqs.weight", (0..dims / 2).map(of).collect()));
            }
            "longrope" | "su" => {
                let original = original(config)?;
                for (name, to) in
                    [("long_factor", "rope_factors_long.weight"), ("short_factor", "rope_factors_short.weight")]
                {
                    let factors = own.floats(name)?.ok_or_else(|| own.missing(&[name], "factors of rope"))?;
                    if factors.len() != dims as usize / 2 {
                        let found = factors.len();
                        return Err(own.wrong(name, format_args!("must have {} factors, found {found}", dims / 2)));
                    }
                    self.factors.push((to, factors));
                }
                let scale = factor.unwrap_or(f64::from(context) / f64::from(original.max(1)));
                let magnitude = match own.f64("attention_factor")? {
                    Some(given) => given,
                    None if scale > 1.0 && original > 1 => (1.0 + ln64(scale) / ln64(f64::from(original))).sqrt(),
                    None => 1.0,
                };
                self.set("rope.scaling.type", "longrope");
                self.set("rope.scaling.original_context_length", original);
                self.set("rope.scaling.attn_factor", magnitude as f32);
            }
            "dynamic" => {
                let what = format!(
                    "its rope is stretched only beyond {context} positions (dynamic), which GGUF has no key for"
                );
                self.notes.add("config.json", what);
            }
            other => {
                let path = config.path.display();
                return Err(Error::UnsupportedModel(format!(
                    "{path}: rope of type {other:?} is not supported; this version knows default, linear, yarn, llama3, longrope and dynamic"
                )));
            }
        }
        Ok(())
    }
}
