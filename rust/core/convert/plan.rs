//! Which tensors the file gets, and of which rows of the checkpoint they are made: the rules of a family, applied.

use std::collections::{BTreeMap, HashMap};

use super::Notes;
use super::checkpoint::Checkpoint;
use super::family::{Change, Config, Family, Rule};
use super::rows::{Operation, Order, Piece, Recipe, Source};
use crate::gguf::Quoted;
use crate::{Error, Result};

/// What stands in front of the names of a model's tensors, by how it was published.
const PREFIXES: &[&str] = &[
    "model.language_model.",
    "language_model.model.",
    "language_model.",
    "model.text_model.",
    "text_model.",
    "model.",
    "bert.",
    "nomic_bert.",
];

/// Parts of models that also see and hear, and what can be computed anew.
const OTHER_PARTS: &[&str] = &[
    "vision_tower.",
    "vision_model.",
    "visual.",
    "audio_tower.",
    "audio_model.",
    "multi_modal_projector.",
    "embed_vision.",
    "embed_audio.",
    "connector.",
    "image_newline",
];
const BUFFERS: &[&str] = &["rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached", "attn.masked_bias"];

/// A tensor of the file.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) name: String,
    /// In ggml's order: the contiguous dimension first.
    pub(super) shape: Vec<u64>,
    pub(super) recipe: Recipe,
}

/// The heads that decide about the order of rows.
struct Heads {
    query: usize,
    key: usize,
    delta_keys: usize,
    delta_values: usize,
    delta_size: usize,
}

impl Heads {
    fn read(config: &Config) -> Result<Heads> {
        let count = |key: &str| -> Result<usize> { Ok(config.u32(key)?.unwrap_or(0) as usize) };
        let query = match config.first(&["num_attention_heads", "n_head"]) {
            Some(name) => count(name)?,
            None => 0,
        };
        let key = config.first(&["num_key_value_heads"]).map(count).transpose()?.unwrap_or(query);
        Ok(Heads {
            query,
            key,
            delta_keys: count("linear_num_key_heads")?,
            delta_values: count("linear_num_value_heads")?,
            delta_size: count("linear_value_head_dim")?,
        })
    }
}

/// The rows of one tensor of the checkpoint, changed.
struct Changed {
    /// Contiguous dimension last.
    shape: Vec<usize>,
    k: usize,
    order: Order,
    transposed: bool,
    columns: Option<Order>,
    operation: Operation,
}

/// Applies `change` to a tensor of a shape; the error is what it must be.
fn changed(change: Change, source: &Source, heads: &Heads) -> Result<Changed, String> {
    let mut shape = source.shape();
    if shape.is_empty() || shape.contains(&0) {
        return Err("a tensor with at least one value".into());
    }
    let quantized = !matches!(source, Source::Floats(..));
    let last = shape.len() - 1;
    let mut result = Changed {
        k: shape[last],
        shape: shape.clone(),
        order: Order::From(0),
        transposed: false,
        columns: None,
        operation: Operation::None,
    };
    // A row of one dimension is as many rows of one value.
    let as_rows = |result: &mut Changed| {
        if result.shape.len() == 1 {
            result.k = 1;
        }
    };
    let rows = |shape: &[usize]| shape[..shape.len() - 1].iter().product::<usize>();
    match change {
        Change::Keep => {}
        Change::PlusOne => result.operation = Operation::PlusOne,
        Change::QueryPairs | Change::KeyPairs => {
            let heads = if change == Change::QueryPairs { heads.query } else { heads.key };
            let rows = if shape.len() == 1 { shape[0] } else { rows(&shape) };
            if heads == 0 || !rows.is_multiple_of(2 * heads) {
                return Err(format!("a multiple of 2 × {heads} heads of rows"));
            }
            as_rows(&mut result);
            result.order = Order::Pairs { size: rows / heads };
        }
        Change::Squeeze | Change::MixedValues if shape.len() == 3 => {
            // (channels, 1, taps), and (channels, taps, 1) by MLX.
            if shape[1] != 1 && (shape[2] != 1 || change == Change::MixedValues) {
                return Err("(channels, 1, taps)".into());
            }
            shape = vec![shape[0], shape[1] * shape[2]];
            result.k = shape[1];
            result.shape = shape.clone();
            if change == Change::MixedValues {
                result.order = values(heads, heads.delta_size, true, shape[0])?;
            }
        }
        Change::Squeeze => {}
        Change::Half(index) => {
            if shape.len() < 2 || !shape[last - 1].is_multiple_of(2) {
                return Err("matrices with an even number of rows".into());
            }
            result.order = Order::Part { index, of: 2, rows: shape[last - 1] };
            result.shape[last - 1] /= 2;
        }
        Change::Transpose | Change::TransposeEverySecond(_) => {
            if shape.len() < 3 {
                return Err("matrices, one for every expert".into());
            }
            let (high, wide) = if quantized { (shape[last - 1], shape[last]) } else { (shape[last], shape[last - 1]) };
            result.transposed = !quantized;
            (result.shape[last - 1], result.shape[last], result.k) = (high, wide, wide);
            if let Change::TransposeEverySecond(index) = change {
                if !high.is_multiple_of(2) {
                    return Err("an even number of rows for gate and up".into());
                }
                result.order = Order::Every { index, of: 2, rows: high };
                result.shape[last - 1] /= 2;
            }
        }
        Change::EverySecond(index) => {
            if !shape[last].is_multiple_of(2) {
                return Err("an even number of values for gate and up".into());
            }
            result.order = Order::Every { index, of: 2, rows: shape[last] };
            result.shape[last] /= 2;
            result.k = 1;
        }
        Change::MixedValues => result.order = values(heads, heads.delta_size, true, rows(&shape))?,
        Change::Values => result.order = values(heads, heads.delta_size, false, rows(&shape))?,
        Change::ValueScalars | Change::Decay => {
            as_rows(&mut result);
            let rows = if shape.len() == 1 { shape[0] } else { rows(&shape) };
            result.order = values(heads, 1, false, rows)?;
            if change == Change::Decay {
                result.operation = Operation::NegativeExp;
            }
        }
        Change::ValueColumns => {
            let order = values(heads, heads.delta_size, false, result.k)?;
            result.columns = Some(order).filter(|order| *order != Order::From(0));
        }
    }
    Ok(result)
}

/// The order of value heads of `size` rows among `rows`.
fn values(heads: &Heads, size: usize, mixed: bool, rows: usize) -> Result<Order, String> {
    let Heads { delta_keys: keys, delta_values, delta_size, .. } = *heads;
    if keys == 0 || !delta_values.is_multiple_of(keys) {
        return Err(format!("for {delta_values} value heads, a multiple of {keys} key heads"));
    }
    let skip = if mixed { 2 * keys * delta_size } else { 0 };
    let expected = skip + delta_values * size;
    if rows != expected {
        return Err(format!("{expected} rows or columns"));
    }
    // With a value head for every key, the order is the same.
    if delta_values == keys {
        return Ok(Order::From(0));
    }
    Ok(Order::Values { skip, keys, per_key: delta_values / keys, size })
}

/// The numbers in a name that `pattern` describes: layer and what is stacked; `None` when it is another name.
fn numbers(pattern: &str, name: &str) -> Option<(Option<usize>, Option<usize>)> {
    let (mut layer, mut stacked) = (None, None);
    let mut names = name.split('.');
    for part in pattern.split('.') {
        let found = names.next()?;
        match part {
            "#" | "@" => {
                let plain =
                    found == "0" || (found.bytes().all(|byte| byte.is_ascii_digit()) && !found.starts_with('0'));
                let number = found.parse().ok().filter(|_| plain)?;
                *(if part == "#" { &mut layer } else { &mut stacked }) = Some(number);
            }
            _ if part == found => {}
            _ => return None,
        }
    }
    names.next().is_none().then_some((layer, stacked))
}

/// What a rule makes of a name: the name in GGUF, the layer, and the place in a stack.
fn renamed(rule: &Rule, name: &str) -> Option<(String, Option<usize>, Option<usize>)> {
    let (body, suffix) = match rule.exact {
        true => (name, ""),
        false => match (name.strip_suffix(".gamma"), name.strip_suffix(".beta")) {
            // As TensorFlow calls them.
            (Some(body), _) => (body, ".weight"),
            (_, Some(body)) => (body, ".bias"),
            _ => {
                let suffix = [".weight", ".bias"].into_iter().find(|suffix| name.ends_with(suffix))?;
                (name.strip_suffix(suffix)?, suffix)
            }
        },
    };
    let (layer, stacked) = numbers(rule.from, body)?;
    let to = layer.map_or_else(|| rule.to.to_owned(), |layer| rule.to.replacen('#', &layer.to_string(), 1));
    Some((format!("{to}{suffix}"), layer, stacked))
}

/// The name of a tensor without that of the model.
fn stripped(name: &str) -> &str {
    PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name)
}

/// Collects what a tensor of the file is made of.
#[derive(Default)]
struct Parts {
    /// Place in the file.
    layer: Option<usize>,
    rule: usize,
    pieces: Vec<(Option<usize>, Piece, Changed)>,
}

/// Whether the output matrix is the embedding, although the checkpoint may have both.
fn tied(config: &Config, sources: &BTreeMap<String, Source>) -> Result<bool> {
    let flag = match config.first(&["tie_word_embeddings", "tie_embedding"]) {
        Some(name) => config.bool(name)?,
        None => None,
    };
    let own = sources.keys().any(|name| stripped(name).starts_with("lm_head.weight"));
    match flag {
        Some(false) if !own => {
            let name = Quoted("lm_head.weight");
            Err(config.error(format!("key \"tie_word_embeddings\" is false, but there is no tensor {name}")))
        }
        Some(tied) => Ok(tied),
        None => Ok(!own),
    }
}

/// The tensors of the file, in order.
pub(super) fn targets(
    family: &Family,
    config: &Config,
    checkpoint: &Checkpoint,
    sources: &BTreeMap<String, Source>,
    notes: &mut Notes,
) -> Result<Vec<Target>> {
    let heads = Heads::read(config)?;
    let rules: Vec<&Rule> = family.rules.iter().copied().flatten().collect();
    let tied = family.decoder && tied(config, sources)?;
    let layers = config.need(&["num_hidden_layers", "n_layer", "n_layers", "num_layers"])? as usize;
    let mut parts: HashMap<String, Parts> = HashMap::new();
    let (mut unknown, mut others) = (Vec::new(), 0);
    for (name, source) in sources {
        let short = stripped(name);
        let other = |prefixes: &[&str]| prefixes.iter().any(|prefix| short.starts_with(prefix));
        if other(OTHER_PARTS) || OTHER_PARTS.iter().any(|prefix| name.starts_with(prefix)) {
            others += 1;
            continue;
        }
        if other(family.ignored) || BUFFERS.iter().any(|end| short.ends_with(end)) {
            continue;
        }
        if tied && short.starts_with("lm_head.weight") {
            notes.add(
                name,
                "left out: the configuration says that the embedding is the output (tie_word_embeddings)".into(),
            );
            continue;
        }
        let mut found = false;
        for (at, rule) in rules.iter().enumerate() {
            let Some((to, layer, stacked)) = renamed(rule, short) else { continue };
            if layer.is_some_and(|layer| layer >= layers) {
                continue;
            }
            found = true;
            let changed = changed(rule.change, source, &heads).map_err(|expected| {
                let what = format!("must be {expected}, found {:?}", source.shape());
                checkpoint.error(name, source.stored(), what)
            })?;
            if let Source::Floats(stored, format) = source
                && super::rows::float_format(stored.dtype) != Some(*format)
            {
                let what = format!("must be F32, F16 or BF16, found {:?}", stored.dtype);
                return Err(checkpoint.error(name, stored, what));
            }
            let rows = changed.shape.iter().product::<usize>() / changed.k;
            let piece = Piece {
                name: name.clone(),
                source: source.clone(),
                rows,
                order: changed.order,
                transposed: changed.transposed,
            };
            let entry = parts.entry(to).or_default();
            (entry.layer, entry.rule) = (layer, at);
            entry.pieces.push((stacked, piece, changed));
        }
        if !found {
            unknown.push(name);
        }
    }
    if others > 0 {
        notes.add("tensors", format!("{others} of other parts than the model of texts are left out"));
    }
    if let Some(first) = unknown.first() {
        let names: Vec<String> = unknown.iter().take(10).map(|name| Quoted(name).to_string()).collect();
        let more = if unknown.len() > names.len() {
            format!(" and {} more", unknown.len() - names.len())
        } else {
            String::new()
        };
        let path = checkpoint.path(sources[*first].stored()).display();
        let (known, count) = (family.architecture, unknown.len());
        return Err(Error::UnsupportedModel(format!(
            "{path}: {count} tensors are not known to be of a {known} model with {layers} layers: {}{more}",
            names.join(", ")
        )));
    }
    let mut ordered: Vec<(String, Parts)> = parts.into_iter().collect();
    ordered.sort_by(|(a_name, a), (b_name, b)| (a.layer, a.rule, a_name).cmp(&(b.layer, b.rule, b_name)));
    ordered.into_iter().map(|(name, parts)| assemble(checkpoint, name, parts)).collect()
}

/// One tensor of its parts.
fn assemble(checkpoint: &Checkpoint, name: String, mut parts: Parts) -> Result<Target> {
    parts.pieces.sort_by_key(|(stacked, ..)| *stacked);
    let count = parts.pieces.len();
    let (first_stacked, first, like) = &parts.pieces[0];
    let mut shape = like.shape.clone();
    if first_stacked.is_some() {
        shape.insert(0, count);
    } else if count > 1 {
        let (a, b) = (&first.name, &parts.pieces[1].1.name);
        let what = format!("and {} are both {name} in GGUF", Quoted(b));
        return Err(checkpoint.error(a, first.source.stored(), what));
    }
    for (at, (stacked, piece, changed)) in parts.pieces.iter().enumerate() {
        if stacked.is_some_and(|number| number != at) {
            let what = format!("must be followed by all of its kind: number {at} of {name} is missing");
            return Err(checkpoint.error(&piece.name, piece.source.stored(), what));
        }
        if changed.shape != like.shape {
            let (a, b) = (&like.shape, &changed.shape);
            let what = format!("must have the shape {a:?} of {}, found {b:?}", Quoted(&first.name));
            return Err(checkpoint.error(&piece.name, piece.source.stored(), what));
        }
    }
    let (k, columns, operation) = (like.k, like.columns, like.operation);
    let shape: Vec<u64> = shape.iter().rev().map(|side| *side as u64).collect();
    let pieces = parts.pieces.into_iter().map(|(_, piece, _)| piece).collect();
    Ok(Target { name, shape, recipe: Recipe { pieces, k, columns, operation } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_numbers_where_patterns_say() {
        assert_eq!(numbers("norm", "norm"), Some((None, None)));
        assert_eq!(numbers("layers.#.mlp.experts.@.up", "layers.3.mlp.experts.12.up"), Some((Some(3), Some(12))));
        for other in
            ["layers.03.x", "layers.+3.x", "layers.x.x", "layers.3", "layers.3.x.y", "layers.99999999999999999999.x"]
        {
            assert_eq!(numbers("layers.#.x", other), None, "{other}");
        }
        assert_eq!(stripped("model.language_model.layers.0.x"), "layers.0.x");
        assert_eq!(stripped("lm_head.weight"), "lm_head.weight");
    }
}
