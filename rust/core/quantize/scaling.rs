//! Scaling of columns before they are quantized: what a norm gives less, the weights behind it get more (AWQ, arXiv 2306.00978).
//!
//! A channel of large inputs is multiplied with weights whose errors show. Its weights are multiplied by `s > 1`, so that the grid of
//! their block is fine beside them, and the norm before divides by `s`: the model computes the same. `s` is a power of the channel's root
//! mean square; the power that costs least on inputs that are not those it was found with is taken, 0 among them.

use std::collections::HashMap;

use fastq_kernels::quantize::{loss, search};

use super::encode::{Job, sample};
use super::layered::importance;
use super::plan::PlannedTensor;
use crate::Result;
use crate::calibrate::{Gram, Grams};
use crate::gguf::TensorType;

/// The powers that are tried.
const POWERS: [f32; 5] = [0.0, 0.15, 0.3, 0.45, 0.6];
/// Rows of each matrix that they are tried on.
const SAMPLE: u64 = 128;
/// Factors are within this and its inverse.
const MOST: f32 = 16.0;
/// What is gained at least, as a share of the loss, where something is scaled.
const LEAST: f64 = 0.01;

/// The norms that may be scaled, and what may be behind them: nothing else reads what they give.
const NORMS: &[(&str, &[&str])] =
    &[("attn_norm", &["attn_q", "attn_k", "attn_v", "attn_qkv"]), ("ffn_norm", &["ffn_gate", "ffn_up"])];

/// The scales of the channels behind a norm.
pub(super) struct Scaling {
    /// The matrices whose columns are multiplied.
    pub(super) tensors: Vec<String>,
    /// `s` `(k)`.
    pub(super) scales: Vec<f32>,
}

/// Scalings of a layer by the names of the norms' tensors; the `inputs` become those of the scaled columns.
pub(super) fn choose(job: &mut Job<'_>, inputs: &mut [Grams<'_>; 2]) -> Result<HashMap<String, Scaling>> {
    let mut all = HashMap::new();
    for (key, tensors) in inputs[0].shared() {
        let Some(norm) = norm_before(job, &tensors) else { continue };
        let [Some(train), Some(test)] = inputs.each_ref().map(|inputs| inputs.get(&key, None)) else { continue };
        let mut best: Option<(f64, Vec<f32>)> = None;
        let mut plain = f64::INFINITY;
        for power in POWERS {
            let scales = scales(&importance(train), power);
            let cost = cost(job, &tensors, train, test, &scales)?;
            if power == 0.0 {
                plain = cost;
            } else if cost < (1.0 - LEAST) * plain && best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, scales));
            }
        }
        let Some((_, scales)) = best else { continue };
        for inputs in inputs.iter_mut() {
            if let Some(gram) = inputs.get_mut(&key, None) {
                divide(gram, &scales);
            }
        }
        all.insert(norm, Scaling { tensors, scales });
    }
    Ok(all)
}

/// Takes the inputs as divided by `scales` `(k)`.
fn divide(gram: &mut Gram, scales: &[f32]) {
    for (row, si) in gram.sums.chunks_exact_mut(gram.k).zip(scales) {
        row.iter_mut().zip(scales).for_each(|(value, sj)| *value /= si * sj);
    }
}

/// `rms^power` of each channel, 1 in the geometric mean.
fn scales(importance: &[f32], power: f32) -> Vec<f32> {
    let used = || importance.iter().filter(|value| **value > 0.0);
    let mean = used().map(|value| f64::from(*value).ln()).sum::<f64>() / used().count().max(1) as f64;
    let scale = |value: f32| match value > 0.0 {
        true => ((0.5 * f64::from(power) * (f64::from(value).ln() - mean)).exp() as f32).clamp(1.0 / MOST, MOST),
        false => 1.0,
    };
    importance.iter().map(|value| scale(*value)).collect()
}

/// The norm whose output the tensors are multiplied with, where it may be scaled.
fn norm_before(job: &Job<'_>, tensors: &[String]) -> Option<String> {
    let all = job.plan().tensors();
    let encoded = |name: &str| all.iter().any(|tensor| tensor.info.name == name && is_matrix(tensor));
    let (layer, _) = tensors.first()?.split_at(tensors.first()?.match_indices('.').nth(1)?.0);
    let part = |name: &str| name.strip_prefix(layer)?.strip_prefix('.')?.strip_suffix(".weight").map(str::to_owned);
    let (norm, _) = NORMS.iter().find(|(_, behind)| {
        tensors.iter().all(|name| part(name).is_some_and(|part| behind.contains(&part.as_str())) && encoded(name))
    })?;
    let norm = format!("{layer}.{norm}.weight");
    // Of mixtures, the router and the experts read the norm as well.
    let mixture = all.iter().any(|tensor| tensor.info.name.starts_with(&format!("{layer}.ffn_gate_inp")));
    let scaled =
        |tensor: &PlannedTensor| tensor.info.name == norm && tensor.ty.kernel().is_some_and(|f| f.info().block == 1);
    (!mixture && all.iter().any(scaled)).then_some(norm)
}

fn is_matrix(tensor: &PlannedTensor) -> bool {
    tensor.is_encoded() && matches!(tensor.ty, TensorType::Kernel(format) if format.has_grid())
}

/// What a sample of the rows of all tensors costs at the outputs.
fn cost(job: &mut Job<'_>, tensors: &[String], train: &Gram, test: &Gram, scales: &[f32]) -> Result<f64> {
    let k = train.k;
    let importance: Vec<f32> = importance(train).iter().zip(scales).map(|(value, s)| value / (s * s)).collect();
    let mut sum = 0.0;
    for name in tensors {
        let Some(info) = job.plan().source().tensor(name) else { continue };
        let w = sample(job.plan().source(), info, SAMPLE)?;
        let Some(format) =
            job.plan().tensors().iter().find(|tensor| tensor.info.name == *name).and_then(|t| t.ty.kernel())
        else {
            continue;
        };
        let scaled: Vec<f32> = w.chunks_exact(k).flat_map(|row| row.iter().zip(scales).map(|(w, s)| w * s)).collect();
        let mut bytes = vec![0; w.len() / k * format.row_bytes(k).unwrap_or(0)];
        search(job.cpu(), format, k, Some(&importance), &scaled, &mut bytes);
        let mut q = vec![0.0; w.len()];
        format.dequantize(&bytes, &mut q);
        for row in q.chunks_exact_mut(k) {
            row.iter_mut().zip(scales).for_each(|(q, s)| *q /= s);
        }
        sum += loss(job.cpu(), &test.sums, k, &w, &q, &mut Vec::new());
    }
    Ok(sum)
}

/// The data of a norm that is scaled, weights and bias alike.
pub(super) fn scaled_norm(job: &mut Job<'_>, scalings: &HashMap<String, Scaling>) -> Result<Option<Vec<u8>>> {
    let tensor = job.tensor();
    let Some(stem) = tensor.info.name.strip_suffix(".weight").or_else(|| tensor.info.name.strip_suffix(".bias")) else {
        return Ok(None);
    };
    let Some(scaling) = scalings.get(&format!("{stem}.weight")) else { return Ok(None) };
    let TensorType::Kernel(format) = tensor.ty else { return Ok(None) };
    let mut values = vec![0.0; scaling.scales.len()];
    job.read(0..1, &mut values)?;
    values.iter_mut().zip(&scaling.scales).for_each(|(value, s)| *value /= s);
    let mut data = vec![0; format.row_bytes(values.len()).unwrap_or(0)];
    match format.quantize_row(job.cpu(), &values, None, &mut data) {
        Ok(()) => Ok(Some(data)),
        Err(error) => Err(crate::Error::Argument(format!("tensor {:?}: {error}", tensor.info.name))),
    }
}
