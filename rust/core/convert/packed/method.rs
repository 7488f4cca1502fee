//! Which library quantized a checkpoint, and which of its tensors belong together.

use std::collections::BTreeMap;

use fastq_kernels::Format;
use safetensors::Dtype;

use super::{Layout, Packed, Zeros, need, wrong};
use crate::convert::checkpoint::{Checkpoint, Stored};
use crate::convert::json::Object;
use crate::convert::rows::{Source, float_format};
use crate::{Error, Result};

/// How a checkpoint is quantized.
#[derive(Clone, Debug)]
pub(in crate::convert) enum Method {
    /// Not, or as gpt-oss (which shows in the names of its tensors).
    None,
    /// GPTQ; what is added to stored zeros.
    Gptq { bits: u32, group: Option<usize>, zero: u8 },
    /// AWQ.
    Awq { group: Option<usize> },
    /// compressed-tensors, packed.
    Compressed { bits: u32, group: Option<usize> },
    /// MLX; modules with settings of their own.
    Mlx { bits: u32, group: usize, modules: BTreeMap<String, (u32, usize)> },
}

/// Sides of a matrix are below this; their product is then a u64 with room.
const MAX_SIDE: usize = 1 << 31;

/// Bits and group size in a range that words can have.
fn sizes(config: &Object, bits: Option<u32>, group: Option<f64>) -> Result<(u32, Option<usize>)> {
    let bits = bits.unwrap_or(4);
    if !matches!(bits, 2..=8) || bits == 7 {
        return Err(config.wrong("bits", format_args!("must be from 2 to 8, found {bits}")));
    }
    match group {
        // -1 stands for one group per row.
        None | Some(-1.0) => Ok((bits, None)),
        Some(group) if group >= 1.0 && group.fract() == 0.0 && group < MAX_SIDE as f64 => {
            Ok((bits, Some(group as usize)))
        }
        Some(group) => Err(config.wrong("group_size", format_args!("must be a positive integer or -1, found {group}"))),
    }
}

impl Method {
    /// What `config.json` says.
    pub(in crate::convert) fn of(config: &Object) -> Result<Method> {
        let text = config.object("text_config")?;
        let nested = |key: &str| -> Result<Option<Object>> {
            Ok(config.object(key)?.or(text.as_ref().map(|text| text.object(key)).transpose()?.flatten()))
        };
        // MLX writes its own key, and a copy under that of transformers.
        if let Some(mlx) = nested("quantization")?.filter(|mlx| mlx.get("quant_method").is_none()) {
            return Method::mlx(&mlx);
        }
        let Some(found) = nested("quantization_config")? else { return Ok(Method::None) };
        if found.get("quant_method").is_none() && found.get("group_size").is_some() {
            return Method::mlx(&found);
        }
        let method = found.str("quant_method")?.unwrap_or("");
        match method {
            "gptq" => {
                let (bits, group) = sizes(&found, found.u32("bits")?, found.f64("group_size")?)?;
                let zero = match found.str("checkpoint_format")? {
                    None | Some("gptq") => 1,
                    Some("gptq_v2") => 0,
                    Some(other) => {
                        let what = format_args!("must be \"gptq\" or \"gptq_v2\", found {other:?}");
                        return Err(found.wrong("checkpoint_format", what));
                    }
                };
                Ok(Method::Gptq { bits, group, zero })
            }
            "awq" => {
                let version = found.str("version")?.unwrap_or("gemm").to_lowercase();
                let bits = found.u32("bits")?.or(found.u32("w_bit")?);
                let group = found.f64("group_size")?.or(found.f64("q_group_size")?);
                match (version.as_str(), sizes(&found, bits, group)?) {
                    ("gemm", (4, group)) => Ok(Method::Awq { group }),
                    (version, (bits, _)) => Err(found.error(format!(
                        "AWQ weights must be packed as \"gemm\" with 4 bits, found {version:?} with {bits}"
                    ))),
                }
            }
            "compressed-tensors" => Method::compressed(&found),
            "mxfp4" => Ok(Method::None),
            other => Err(Error::UnsupportedModel(format!(
                "{}: quantization method {other:?} is not supported; this version reads gptq, awq, compressed-tensors, mxfp4 and \
                 those of MLX, and weights that are not quantized",
                found.path.display()
            ))),
        }
    }

    fn mlx(config: &Object) -> Result<Method> {
        if let Some(mode) = config.str("mode")?.filter(|mode| *mode != "affine") {
            return Err(config.wrong("mode", format_args!("must be \"affine\", found {mode:?}")));
        }
        let size = |config: &Object| -> Result<(u32, usize)> {
            let (bits, group) = sizes(config, config.u32("bits")?, config.f64("group_size")?)?;
            group.map(|group| (bits, group)).ok_or_else(|| config.missing(&["group_size"], "the weights of a group"))
        };
        let (bits, group) = size(config)?;
        let mut modules = BTreeMap::new();
        for (name, value) in &config.map {
            if value.is_object()
                && let Some(own) = config.object(name)?
            {
                modules.insert(name.clone(), size(&own)?);
            }
        }
        Ok(Method::Mlx { bits, group, modules })
    }

    fn compressed(config: &Object) -> Result<Method> {
        let format = config.str("format")?.unwrap_or("pack-quantized");
        if format != "pack-quantized" {
            let what = format_args!("must be \"pack-quantized\", found {format:?}");
            return Err(config.wrong("format", what));
        }
        let groups = config.object("config_groups")?;
        let groups = groups.ok_or_else(|| config.missing(&["config_groups"], "settings of groups of layers"))?;
        let mut found: Option<(u32, Option<usize>)> = None;
        for name in groups.map.keys() {
            let weights = groups.object(name)?.map(|group| group.object("weights")).transpose()?.flatten();
            let Some(weights) = weights else { continue };
            if let Some(kind) = weights.str("type")?.filter(|kind| *kind != "int") {
                return Err(weights.wrong("type", format_args!("must be \"int\", found {kind:?}")));
            }
            let own = sizes(&weights, weights.u32("num_bits")?, weights.f64("group_size")?)?;
            if found.is_some_and(|found| found != own) {
                return Err(
                    groups.error("the groups of layers must have the same bits and group sizes, found different ones")
                );
            }
            found = Some(own);
        }
        let (bits, group) = found.ok_or_else(|| groups.error("expected settings for weights, found none"))?;
        Ok(Method::Compressed { bits, group })
    }

    /// The matrix whose integers a tensor holds, with the name of its module.
    pub(in crate::convert) fn matrix<'n>(
        &self,
        checkpoint: &Checkpoint,
        name: &'n str,
        stored: &Stored,
    ) -> Result<Option<(&'n str, Packed)>> {
        let words = matches!(stored.dtype, Dtype::I32 | Dtype::U32);
        let (module, packed) = match self {
            Method::None => return Ok(None),
            Method::Gptq { .. } | Method::Awq { .. } => match name.strip_suffix(".qweight") {
                Some(module) => (module, self.columns(checkpoint, name, module, stored)?),
                None => return Ok(None),
            },
            Method::Compressed { bits, group } => match name.strip_suffix(".weight_packed") {
                Some(module) => (module, compressed(checkpoint, name, module, stored, *bits, *group)?),
                None => return Ok(None),
            },
            Method::Mlx { bits, group, modules } => match name.strip_suffix(".weight") {
                Some(module) if words => {
                    let (bits, group) = modules.get(module).copied().unwrap_or((*bits, *group));
                    (module, mlx(checkpoint, name, module, stored, bits, group)?)
                }
                _ => return Ok(None),
            },
        };
        let mut packed = packed;
        packed.settle(checkpoint)?;
        Ok(Some((module, packed)))
    }

    /// Whether a tensor is a part of a matrix that [`matrix`](Method::matrix) has found.
    pub(in crate::convert) fn is_part(&self, name: &str, sources: &BTreeMap<String, Source>) -> bool {
        let suffixes: &[&str] = match self {
            Method::None => &[],
            Method::Gptq { .. } | Method::Awq { .. } => &["qzeros", "scales", "g_idx"],
            Method::Compressed { .. } => &["weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx"],
            Method::Mlx { .. } => &["scales", "biases"],
        };
        let Some((module, suffix)) = name.rsplit_once('.') else { return false };
        suffixes.contains(&suffix) && matches!(sources.get(&format!("{module}.weight")), Some(Source::Packed(_)))
    }

    /// GPTQ and AWQ: scales and zeros of groups by rows.
    fn columns(&self, checkpoint: &Checkpoint, name: &str, module: &str, stored: &Stored) -> Result<Packed> {
        let words = matches!(stored.dtype, Dtype::I32 | Dtype::U32);
        let ([high, wide], true) = (stored.shape.as_slice(), words) else {
            return Err(wrong(checkpoint, name, stored, "two dimensions of 32-bit words"));
        };
        let (layout, bits, group, rows, k) = match *self {
            Method::Awq { group } => (Layout::Nibbles, 4, group, wide.saturating_mul(8), *high),
            Method::Gptq { bits, group, .. } => {
                (Layout::Columns, bits, group, *wide, high.saturating_mul(32) / bits as usize)
            }
            _ => return Err(Error::Internal("columns of a method without".into())),
        };
        check_sides(checkpoint, name, stored, rows, k)?;
        if bits == 5 || bits == 6 {
            return Err(wrong(checkpoint, name, stored, "integers of 2, 3, 4 or 8 bits"));
        }
        let group = group.unwrap_or(k).min(k);
        let count = k.div_ceil(group);
        let scales_name = format!("{module}.scales");
        let scales = need(checkpoint, (name, stored), &scales_name)?;
        let scale_format = floats(checkpoint, &scales_name, scales, &[count, rows])?;
        let zeros_name = format!("{module}.qzeros");
        let zeros = need(checkpoint, (name, stored), &zeros_name)?;
        let shape = [count, rows.saturating_mul(bits as usize) / 32];
        if zeros.shape != shape || !matches!(zeros.dtype, Dtype::I32 | Dtype::U32) {
            return Err(wrong(checkpoint, &zeros_name, zeros, &format!("32-bit words {shape:?}")));
        }
        let zeros = match self {
            Method::Gptq { zero, .. } => Zeros::GroupsByRows(zeros.clone(), *zero),
            _ => Zeros::Awq(zeros.clone()),
        };
        Ok(Packed {
            shape: vec![rows, k],
            bits,
            group,
            layout,
            weights: stored.clone(),
            scales: scales.clone(),
            scale_format,
            scales_by_group: true,
            zeros,
            groups: order(checkpoint, &format!("{module}.g_idx"), k, group, count)?,
            native: Err("not settled"),
        })
    }
}

/// compressed-tensors: rows of words, and a tensor with the shape.
fn compressed(
    checkpoint: &Checkpoint,
    name: &str,
    module: &str,
    stored: &Stored,
    bits: u32,
    group: Option<usize>,
) -> Result<Packed> {
    let words = matches!(stored.dtype, Dtype::I32 | Dtype::U32);
    let ([rows, wide], true) = (stored.shape.as_slice(), words) else {
        return Err(wrong(checkpoint, name, stored, "two dimensions of 32-bit words"));
    };
    let shape_name = format!("{module}.weight_shape");
    let shape = need(checkpoint, (name, stored), &shape_name)?;
    let number = match shape.dtype {
        Dtype::I64 => 8,
        Dtype::I32 => 4,
        _ => 0,
    };
    if number == 0 || shape.bytes != 2 * number {
        return Err(wrong(checkpoint, &shape_name, shape, "two integers"));
    }
    let numbers = checkpoint.read_all(shape)?;
    let numbers: Vec<u64> = numbers.chunks_exact(number as usize).map(little_endian).collect();
    // Only levels that fill their words are read: no real matrix has others.
    let filled =
        [2, 4, 8].contains(&bits) && numbers[1] < MAX_SIDE as u64 && numbers[1] * u64::from(bits) == *wide as u64 * 32;
    if numbers[0] != *rows as u64 || !filled {
        let expected = format!("{rows} rows of {bits}-bit integers that fill {wide} words");
        return Err(checkpoint.error(&shape_name, shape, format_args!("must be {expected}, found {numbers:?}")));
    }
    let k = numbers[1] as usize;
    check_sides(checkpoint, name, stored, *rows, k)?;
    let group = group.unwrap_or(k).min(k);
    let count = k.div_ceil(group);
    let scales_name = format!("{module}.weight_scale");
    let scales = need(checkpoint, (name, stored), &scales_name)?;
    let scale_format = floats(checkpoint, &scales_name, scales, &[*rows, count])?;
    let zeros_name = format!("{module}.weight_zero_point");
    let zeros = match checkpoint.tensors.get(&zeros_name) {
        None => Zeros::Level(1 << (bits - 1)),
        Some(zeros) => {
            let shape = [(rows.saturating_mul(bits as usize)).div_ceil(32), count];
            if zeros.shape != shape || !matches!(zeros.dtype, Dtype::I32 | Dtype::U32) {
                return Err(wrong(checkpoint, &zeros_name, zeros, &format!("32-bit words {shape:?}")));
            }
            Zeros::RowsByGroups(zeros.clone())
        }
    };
    Ok(Packed {
        shape: vec![*rows, k],
        bits,
        group,
        layout: Layout::Rows,
        weights: stored.clone(),
        scales: scales.clone(),
        scale_format,
        scales_by_group: false,
        zeros,
        groups: order(checkpoint, &format!("{module}.weight_g_idx"), k, group, count)?,
        native: Err("not settled"),
    })
}

/// MLX: rows of words, of one matrix or of those of all experts.
fn mlx(checkpoint: &Checkpoint, name: &str, module: &str, stored: &Stored, bits: u32, group: usize) -> Result<Packed> {
    let (wide, leading) = match stored.shape.split_last() {
        Some((wide, leading)) if (1..=2).contains(&leading.len()) => (*wide, leading),
        _ => return Err(wrong(checkpoint, name, stored, "two or three dimensions of 32-bit words")),
    };
    let k = wide.saturating_mul(32) / bits as usize;
    let rows = leading.iter().fold(1usize, |product, side| product.saturating_mul(*side));
    check_sides(checkpoint, name, stored, rows, k)?;
    if wide.saturating_mul(32) != k * bits as usize || !k.is_multiple_of(group) {
        let expected = format!("rows of {bits}-bit integers in groups of {group}");
        return Err(wrong(checkpoint, name, stored, &expected));
    }
    let mut shape = leading.to_vec();
    shape.push(k / group);
    let scales_name = format!("{module}.scales");
    let scales = need(checkpoint, (name, stored), &scales_name)?;
    let scale_format = floats(checkpoint, &scales_name, scales, &shape)?;
    let biases_name = format!("{module}.biases");
    let biases = need(checkpoint, (name, stored), &biases_name)?;
    let bias_format = floats(checkpoint, &biases_name, biases, &shape)?;
    shape.pop();
    shape.push(k);
    Ok(Packed {
        shape,
        bits,
        group,
        layout: Layout::Rows,
        weights: stored.clone(),
        scales: scales.clone(),
        scale_format,
        scales_by_group: false,
        zeros: Zeros::Bias(biases.clone(), bias_format),
        groups: None,
        native: Err("not settled"),
    })
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn check_sides(checkpoint: &Checkpoint, name: &str, stored: &Stored, rows: usize, k: usize) -> Result<()> {
    match (1..MAX_SIDE).contains(&rows) && (1..MAX_SIDE).contains(&k) {
        true => Ok(()),
        false => Err(wrong(checkpoint, name, stored, "a matrix with sides from 1 to 2^31")),
    }
}

/// The format of floats of a given shape.
fn floats(checkpoint: &Checkpoint, name: &str, stored: &Stored, shape: &[usize]) -> Result<Format> {
    match float_format(stored.dtype) {
        Some(format) if stored.shape == shape => Ok(format),
        _ => Err(wrong(checkpoint, name, stored, &format!("floats {shape:?}"))),
    }
}

/// The group of every column, where they are not in order.
fn order(checkpoint: &Checkpoint, name: &str, k: usize, group: usize, count: usize) -> Result<Option<Vec<u32>>> {
    let Some(stored) = checkpoint.tensors.get(name) else { return Ok(None) };
    if stored.shape != [k] || !matches!(stored.dtype, Dtype::I32 | Dtype::U32) {
        return Err(wrong(checkpoint, name, stored, &format!("{k} 32-bit integers")));
    }
    let groups: Vec<u32> =
        checkpoint.read_all(stored)?.chunks_exact(4).map(|bytes| little_endian(bytes) as u32).collect();
    if let Some(found) = groups.iter().find(|group| **group as usize >= count) {
        let what = format!("must hold groups below {count}, found {}", *found as i32);
        // compressed-tensors writes -1 everywhere for "in order".
        return match groups.iter().all(|group| *group == u32::MAX) {
            true => Ok(None),
            false => Err(checkpoint.error(name, stored, what)),
        };
    }
    let in_order = groups.iter().enumerate().all(|(column, found)| *found as usize == column / group);
    Ok((!in_order).then_some(groups))
}
