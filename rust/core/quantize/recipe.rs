//! Which type every tensor gets: the rules of `llama-quantize`, so that files of one name compare like with like.
//!
//! Source: llama.cpp as in llama-cpp-python 0.3.36, src/llama-quant.cpp (`tensor_allows_quantization`, `llama_tensor_get_type_impl`,
//! `tensor_type_fallback`). What it says of every preset and every architecture is in `tests/reference/quantize.json`.

use fastq_kernels::Format;

use super::overrides::Overrides;
use super::preset::{Preset, Target};
use crate::gguf::{Gguf, TensorInfo, TensorType, Value};
use crate::{Error, Result};

/// What decides over the types besides the model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wishes<'a> {
    pub(super) target: Target,
    /// Type of `output.weight`, and of the embedding where it is the output, too.
    pub(super) output: Option<Format>,
    /// Type of `token_embd.weight` where there is an output besides.
    pub(super) embedding: Option<Format>,
    pub(super) overrides: &'a Overrides,
    /// Whether there is an importance matrix: some presets then give fewer bits.
    pub(super) importance: bool,
}

/// The type of one tensor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Choice {
    pub(super) ty: TensorType,
    /// Why it is not the one that the rules say.
    pub(super) fallback: Option<String>,
}

/// What a tensor is for, by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    Output,
    Embedding,
    /// Values, also where they are fused with queries and keys.
    Values,
    Keys,
    Queries,
    AttentionOutput,
    Up,
    Gate,
    Down,
    Other,
}

/// Roles by a part of the name; the first that occurs counts.
#[rustfmt::skip]
const ROLES: &[(&str, Role)] = &[
    ("attn_qkv.weight", Role::Values), ("attn_kv_b.weight", Role::Values), ("attn_v.weight", Role::Values),
    ("attn_k.weight", Role::Keys), ("attn_q.weight", Role::Queries), ("attn_output.weight", Role::AttentionOutput),
    ("ffn_up", Role::Up), ("ffn_gate", Role::Gate), ("ffn_down", Role::Down),
];

/// Names, or parts of names, of matrices that stay as they are: small ones, and tables that are no weights.
#[rustfmt::skip]
const KEPT: &[&str] = &[
    "_norm.weight",
    "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", // which experts
    "altup", "laurel", "per_layer_model_proj", // Gemma 3n
    "ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight",
    "time_mix_first.weight", "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight", "time_mix_v0.weight", // RWKV
    "time_mix_v1.weight", "time_mix_v2.weight", "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight",
    "time_mix_g1.weight", "time_mix_g2.weight", "time_mix_decay_w1.weight", "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight",
    "attn_rel_b.weight", // T5
    ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd", ".patch_merger", // images
    "a.rvq.codebook", "mm.a.code_embd", // sounds
];

/// As [`KEPT`], of `glm5-next` only.
#[rustfmt::skip]
const KEPT_GLM5_NEXT: &[&str] = &[
    "hc_", "indexer.attn_q_b", "indexer.attn_k", "indexer.proj", "indexer_compressor_gate", "indexer_compressor_ape", "ssm_f_a.weight",
    "ssm_f_b.weight", "ssm_g_a.weight", "ssm_g_b.weight", "ssm_beta.weight", "attn_kv_a_mqa.weight", "attn_k_b.weight", "attn_v_b.weight",
];

/// Tensors of `glm5-next` that get at least Q8_0.
const FINE_GLM5_NEXT: &[&str] = &["attn_q_a", "attn_q_b", "nextn.eh_proj"];

/// Architecture and layers of what llama.cpp takes for a model of 70 billion weights, if values are shared by heads (`llama` only).
const SEVENTY_BILLION: &[(&str, u64)] = &[("llama", 80), ("qwen2", 80), ("deci", 80), ("olmo", 80), ("jais2", 68)];

/// The presets below two and a half bits.
const LOWEST: &[Preset] =
    &[Preset::IQ1_S, Preset::IQ1_M, Preset::IQ2_XXS, Preset::IQ2_XS, Preset::IQ2_S, Preset::IQ2_M];

/// What replaces a type whose blocks do not divide the rows. All others become F16.
#[rustfmt::skip]
const FALLBACKS: &[(Format, Format)] = &[
    (Format::IQ1_S, Format::IQ4_NL), (Format::IQ1_M, Format::IQ4_NL), (Format::IQ2_XXS, Format::IQ4_NL), (Format::IQ2_XS, Format::IQ4_NL),
    (Format::IQ2_S, Format::IQ4_NL), (Format::IQ3_XXS, Format::IQ4_NL), (Format::IQ3_S, Format::IQ4_NL), (Format::IQ4_XS, Format::IQ4_NL),
    (Format::Q2_0, Format::Q4_0), (Format::Q2_K, Format::Q4_0), (Format::Q3_K, Format::Q4_0), (Format::TQ1_0, Format::Q4_0),
    (Format::TQ2_0, Format::Q4_0), (Format::Q4_K, Format::Q5_0), (Format::Q5_K, Format::Q5_1), (Format::Q6_K, Format::Q8_0),
];

/// The types of all tensors, in the order of the file.
///
/// # Errors
/// [`Error::ModelFile`] where a rule goes by the layer and a name has none, or a key has a wrong type; [`Error::Argument`] for an override that no tensor
/// matches.
pub(super) fn choose(file: &Gguf, wishes: &Wishes<'_>) -> Result<Vec<Choice>> {
    let mut choices: Vec<_> = file.tensors().iter().map(|tensor| Choice { ty: tensor.ty, fallback: None }).collect();
    let Some(default) = wishes.target.format() else {
        return if wishes.overrides.is_empty() && wishes.output.is_none() && wishes.embedding.is_none() {
            Ok(choices)
        } else {
            Err(Error::Argument("a copy keeps every type, so no types of tensors can be asked for".into()))
        };
    };
    let model = ModelFacts::of(file)?;
    // llama.cpp goes by layers, then names: what is counted on the way depends on it.
    let mut order: Vec<_> = (0..choices.len()).collect();
    order.sort_by_key(|index| {
        let name = file.tensors()[*index].name.as_str();
        (layer(name), name)
    });
    let mut rules = Rules { wishes, model, default, values: 0, downs: 0, gates: 0, ups: 0 };
    let mut matched = wishes.overrides.unmatched();
    for index in order {
        let tensor = &file.tensors()[index];
        if quantizable(tensor, &rules.model.architecture) {
            choices[index] = rules.choose(file, tensor, &mut matched)?;
        }
    }
    matched.check()?;
    Ok(choices)
}

/// Whether a tensor may be quantized at all: matrices that are multiplied with, and embeddings.
pub(super) fn quantizable(tensor: &TensorInfo, architecture: &str) -> bool {
    let name = tensor.name.as_str();
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    tensor.shape.iter().skip(1).any(|rows| *rows > 1)
        && name.ends_with("weight")
        && !has(KEPT)
        && !matches!(name, "position_embd.weight" | "token_types.weight")
        && !(architecture == "glm5-next" && has(KEPT_GLM5_NEXT))
}

/// The number behind `blk.`; -1 for tensors that belong to no layer.
fn layer(name: &str) -> i64 {
    let Some(rest) = name.strip_prefix("blk.") else { return -1 };
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    rest[..digits].parse().unwrap_or(-1)
}

fn role(name: &str) -> Role {
    match name {
        "output.weight" => Role::Output,
        "token_embd.weight" | "per_layer_token_embd.weight" => Role::Embedding,
        _ => ROLES.iter().find(|(part, _)| name.contains(part)).map_or(Role::Other, |(_, role)| *role),
    }
}

/// Whether a tensor is the embedding or the output, which `llama-quantize` lets do without an importance matrix.
pub(super) fn is_vocabulary(name: &str) -> bool {
    matches!(role(name), Role::Output | Role::Embedding)
}

/// What the rules ask of a model.
struct ModelFacts {
    architecture: String,
    layers: u64,
    experts: u64,
    /// Query heads per key and value head of the first layer; 0 where there are none.
    heads_per_value: u64,
    /// Whether the embedding is the output, too.
    tied: bool,
    /// How many tensors hold values.
    values: u64,
}

impl ModelFacts {
    fn of(file: &Gguf) -> Result<ModelFacts> {
        let architecture = file.str("general.architecture")?.unwrap_or_default().to_owned();
        let number = |key: &str| file.u64(&format!("{architecture}.{key}"));
        let heads = first(file, &format!("{architecture}.attention.head_count"))?.unwrap_or(0);
        let value_heads = first(file, &format!("{architecture}.attention.head_count_kv"))?.unwrap_or(heads);
        Ok(ModelFacts {
            layers: number("block_count")?.unwrap_or(0),
            experts: number("expert_count")?.unwrap_or(0),
            heads_per_value: heads.checked_div(value_heads).unwrap_or(0),
            tied: file.tensor("output.weight").is_none(),
            values: file.tensors().iter().filter(|tensor| role(&tensor.name) == Role::Values).count() as u64,
            architecture,
        })
    }

    fn is_falcon(&self) -> bool {
        self.architecture == "falcon"
    }

    fn is_seventy_billion(&self) -> bool {
        SEVENTY_BILLION.contains(&(&self.architecture, self.layers))
            && (self.architecture != "llama" || (self.experts != 8 && self.heads_per_value != 1))
    }
}

/// An integer, or the first of an array of them: hyper-parameters that may differ from layer to layer.
fn first(file: &Gguf, key: &str) -> Result<Option<u64>> {
    match file.get(key) {
        Some(Value::Array(_)) => Ok(file.usizes(key)?.and_then(|values| values.first().map(|value| *value as u64))),
        _ => file.u64(key),
    }
}

/// The rules, and how many tensors of a role they have seen.
struct Rules<'a> {
    wishes: &'a Wishes<'a>,
    model: ModelFacts,
    default: Format,
    values: u64,
    downs: u64,
    gates: u64,
    ups: u64,
}

impl Rules<'_> {
    fn choose(
        &mut self,
        file: &Gguf,
        tensor: &TensorInfo,
        matched: &mut super::overrides::Unmatched<'_>,
    ) -> Result<Choice> {
        let role = role(&tensor.name);
        let named = matched.find(&tensor.name);
        let wish = match role {
            // The embedding of single layers (Gemma 3n) is a table of its own, so an override may name it.
            Role::Embedding if named.is_none() || tensor.name == "token_embd.weight" => self.wishes.embedding,
            Role::Output => self.wishes.output,
            _ => None,
        };
        let format = match (wish, named, self.wishes.target) {
            (Some(format), _, _) | (None, Some(format), _) => format,
            (None, None, Target::Preset(preset)) if is_block(self.default) => self.mixed(file, tensor, role, preset)?,
            _ => self.default,
        };
        Ok(fitting(tensor, format))
    }

    /// Among so many layers, whether number `index` is one of those that matter most: the first and the last eighth, and every third between.
    fn matters(index: u64, layers: u64) -> bool {
        let eighth = layers / 8;
        index < eighth || index >= 7 * layers / 8 || (index - eighth) % 3 == 2
    }

    /// The type by the rules of a mix.
    fn mixed(&mut self, file: &Gguf, tensor: &TensorInfo, role: Role, preset: Preset) -> Result<Format> {
        use Preset::MXFP4_MOE;
        let name = tensor.name.as_str();
        if self.model.architecture == "glm5-next" && FINE_GLM5_NEXT.iter().any(|part| name.contains(part)) {
            return Ok(Format::Q8_0);
        }
        if role == Role::Output || (role == Role::Embedding && self.model.tied) {
            return Ok(self.output(tensor, preset));
        }
        Ok(match role {
            _ if preset == MXFP4_MOE => self.mxfp4(tensor, role),
            Role::Embedding => self.embedding(preset),
            _ if LOWEST.contains(&preset) => self.lowest(role, preset),
            Role::Values => self.values(preset),
            Role::Keys if self.model.experts == 8 => Format::Q8_0,
            Role::Keys | Role::Queries => match preset {
                Preset::IQ3_XS => Format::IQ3_XXS,
                Preset::IQ3_XXS => Format::IQ2_S,
                _ => self.default,
            },
            Role::Down => {
                let index = self.layer(file, tensor, self.downs)?;
                self.downs += 1;
                self.down(preset, index)
            }
            Role::AttentionOutput => self.attention_output(preset),
            Role::Gate | Role::Up => {
                let seen = if role == Role::Gate { &mut self.gates } else { &mut self.ups };
                let count = *seen;
                *seen += 1;
                let (index, layers) = (self.layer(file, tensor, count)?, self.model.layers);
                let inner = index >= layers / 8 && index < 7 * layers / 8;
                if preset == Preset::IQ3_XS && inner { Format::IQ3_XXS } else { self.default }
            }
            _ => self.default,
        })
    }

    /// Which layer a feed-forward matrix counts for: where there are experts, that of its name, else how many of its role came before.
    fn layer(&self, file: &Gguf, tensor: &TensorInfo, seen: u64) -> Result<u64> {
        if self.model.experts <= 1 {
            return Ok(seen);
        }
        u64::try_from(layer(&tensor.name)).ok().filter(|layer| *layer < self.model.layers).ok_or_else(|| {
            let (name, layers) = (&tensor.name, self.model.layers);
            let what = format!("tensor {name:?}: expected the name to begin with \"blk.\" and a layer below {layers}");
            file.tensor_error(tensor, what)
        })
    }

    fn output(&self, tensor: &TensorInfo, preset: Preset) -> Format {
        use Preset::*;
        if let Some(format) = self.wishes.output {
            return format;
        }
        let fits = tensor.k().is_multiple_of(self.default.info().block as u64);
        match preset {
            MXFP4_MOE => Format::Q8_0,
            _ if self.model.is_falcon() || !fits => Format::Q8_0,
            IQ1_S | IQ1_M | IQ2_XXS | IQ2_XS | IQ2_S | IQ2_M | IQ3_XXS => Format::Q5_K,
            Q8_0 => Format::Q8_0,
            _ => Format::Q6_K,
        }
    }

    fn embedding(&self, preset: Preset) -> Format {
        use Preset::*;
        match preset {
            IQ1_S | IQ1_M | IQ2_XXS | IQ2_XS => Format::Q2_K,
            IQ2_S | IQ2_M | IQ3_XXS => Format::IQ3_S,
            TQ1_0 | TQ2_0 | Q2_0 => Format::Q4_K,
            _ => self.default,
        }
    }

    /// Experts in MXFP4, the rest in Q8_0.
    fn mxfp4(&self, tensor: &TensorInfo, role: Role) -> Format {
        let feed_forward = matches!(role, Role::Up | Role::Gate | Role::Down);
        let stacked = tensor.shape.get(2).is_some_and(|experts| *experts > 1);
        if stacked && (self.model.architecture != "bailingmoe3" || feed_forward) { Format::MXFP4 } else { Format::Q8_0 }
    }

    /// Presets below two and a half bits.
    fn lowest(&mut self, role: Role, preset: Preset) -> Format {
        let larger = matches!(preset, Preset::IQ2_S | Preset::IQ2_M);
        let better = if larger { Format::IQ3_S } else { Format::Q2_K };
        match role {
            Role::Values if self.model.heads_per_value >= 4 || self.model.experts >= 4 => Format::Q4_K,
            Role::Values => better,
            Role::Keys if self.model.experts == 8 => Format::Q4_K,
            Role::Down => {
                self.downs += 1;
                if self.downs <= self.model.layers / 8 { better } else { self.default }
            }
            Role::AttentionOutput if self.model.experts == 8 => Format::Q5_K,
            Role::AttentionOutput if larger => Format::IQ3_S,
            Role::AttentionOutput if matches!(preset, Preset::IQ1_S | Preset::IQ1_M) => Format::IQ2_XXS,
            _ => self.default,
        }
    }

    fn values(&mut self, preset: Preset) -> Format {
        use Preset::*;
        let (index, shared) = (self.values, self.model.heads_per_value >= 4);
        self.values += 1;
        if self.model.experts == 8 {
            return Format::Q8_0;
        }
        let format = match preset {
            Q2_K if !shared => Format::Q3_K,
            Q2_K | Q2_K_S | IQ3_XXS | IQ3_XS | IQ3_S if shared => Format::Q4_K,
            IQ3_XXS if !self.wishes.importance => Format::IQ3_S,
            IQ3_M => Format::Q4_K,
            Q3_K_M => {
                if index < 2 {
                    Format::Q5_K
                } else {
                    Format::Q4_K
                }
            }
            Q3_K_L => Format::Q5_K,
            IQ4_NL | IQ4_XS if shared => Format::Q5_K,
            Q4_K_M | Q5_K_M if Self::matters(index, self.model.values) => Format::Q6_K,
            Q4_K_S if index < 4 => Format::Q5_K,
            _ => self.default,
        };
        // Eight heads share the values of such a model, so they are small.
        let raised = self.model.is_seventy_billion() && matches!(format, Format::Q3_K | Format::Q4_K);
        if raised { Format::Q5_K } else { format }
    }

    fn down(&self, preset: Preset, index: u64) -> Format {
        use Preset::*;
        let (falcon, importance, layers) = (self.model.is_falcon(), self.wishes.importance, self.model.layers);
        let (sixteenth, eighth) = (index < layers / 16, index < layers / 8);
        let matters = Self::matters(index, layers);
        match preset {
            Q2_K => Format::Q3_K,
            Q2_K_S if eighth => Format::Q4_K,
            IQ3_XXS if !importance => {
                if eighth {
                    Format::Q4_K
                } else {
                    Format::Q3_K
                }
            }
            Q3_K_M if sixteenth => Format::Q5_K,
            Q3_K_M if !falcon || matters => Format::Q4_K,
            IQ3_M if eighth || (self.model.experts == 8 && matters) => Format::Q4_K,
            Q3_K_L => {
                if falcon {
                    Format::Q4_K
                } else {
                    Format::Q5_K
                }
            }
            Q4_K_M if falcon && sixteenth => Format::Q6_K,
            Q4_K_M if falcon && matters => Format::Q5_K,
            Q4_K_M | Q5_K_M if matters && (!falcon || preset == Q5_K_M) => Format::Q6_K,
            IQ4_NL | IQ4_XS if eighth && !importance => Format::Q5_K,
            Q4_K_S if eighth && !falcon => Format::Q5_K,
            Q4_0 if eighth && importance => Format::Q4_1,
            Q5_0 if eighth && importance => Format::Q5_1,
            _ => self.default,
        }
    }

    fn attention_output(&self, preset: Preset) -> Format {
        use Preset::*;
        match preset {
            Q3_K_L if self.model.is_falcon() => Format::Q4_K,
            _ if self.model.is_falcon() => self.default,
            Q2_K | IQ3_XS | IQ3_XXS | Q3_K_S | Q3_K_M | IQ4_NL | Q4_K_S | Q4_K_M | IQ3_S | IQ3_M | IQ4_XS
                if self.model.experts == 8 =>
            {
                Format::Q5_K
            }
            _ if self.model.experts == 8 => self.default,
            Q2_K => Format::Q3_K,
            IQ3_XXS => Format::IQ3_S,
            Q3_K_M | IQ3_M => Format::Q4_K,
            Q3_K_L => Format::Q5_K,
            _ => self.default,
        }
    }
}

/// Whether weights of a format share scales; not of the float types.
fn is_block(format: Format) -> bool {
    format.info().block > 1
}

/// `format`, or what takes its place where its blocks do not divide the rows.
fn fitting(tensor: &TensorInfo, format: Format) -> Choice {
    let k = tensor.k();
    let fits = |format: Format| k.is_multiple_of(format.info().block as u64);
    if fits(format) {
        return Choice { ty: format.into(), fallback: None };
    }
    let smaller = FALLBACKS.iter().find(|(from, to)| *from == format && fits(*to)).map(|(_, to)| *to);
    let fallback =
        format!("rows of {k} weights are not a multiple of the {} of {}", format.info().block, format.name());
    Choice { ty: smaller.unwrap_or(Format::F16).into(), fallback: Some(fallback) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_and_roles_by_name() {
        assert_eq!(
            [layer("blk.12.attn_q.weight"), layer("output.weight"), layer("blk.x"), layer("blk.3")],
            [12, -1, -1, 3]
        );
        assert_eq!(role("blk.0.attn_qkv.weight"), Role::Values);
        assert_eq!(role("blk.0.ffn_down_exps.weight"), Role::Down);
        assert_eq!(role("blk.0.ffn_gate_inp.weight"), Role::Gate);
        assert_eq!(role("per_layer_token_embd.weight"), Role::Embedding);
        assert_eq!(role("blk.0.ssm_in.weight"), Role::Other);
    }

    #[test]
    fn layers_that_matter() {
        let of = |layers| (0..layers).filter(|index| Rules::matters(*index, layers)).collect::<Vec<_>>();
        assert_eq!(of(4), [2, 3]);
        assert_eq!(of(16), [0, 1, 4, 7, 10, 13, 14, 15]);
    }

    #[test]
    fn odd_rows() {
        let tensor = |k| TensorInfo {
            name: "w".into(),
            shape: vec![k, 2],
            ty: Format::F32.into(),
            offset: 0,
            bytes: 8 * k,
            shard: 0,
        };
        let of = |k, format| {
            let choice = fitting(&tensor(k), format);
            (choice.ty.name(), choice.fallback.is_some())
        };
        assert_eq!(of(256, Format::Q4_K), ("Q4_K", false));
        assert_eq!(of(288, Format::Q4_K), ("Q5_0", true));
        assert_eq!(of(288, Format::IQ2_XXS), ("IQ4_NL", true));
        assert_eq!(of(40, Format::Q4_K), ("F16", true));
        assert_eq!(of(40, Format::Q8_0), ("F16", true));
        assert_eq!(of(64, Format::Q1_0), ("F16", true));
    }
}
