//! What was done, or would be.

use fastq_kernels::Distortion;
use serde::{Deserialize, Serialize};

use super::encode::Done;
use super::plan::{Plan, PlannedTensor};

/// What became of a model, or would with [`Plan::dry_run`].
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Report {
    /// The model, as the caller named it.
    pub source: String,
    /// The new file; empty when none was written.
    pub output: String,
    /// What was asked for, `"Q4_K_M"`.
    pub target: String,
    /// How weights became integers, `"rtn"`.
    pub method: String,
    /// Bytes of the model's files.
    pub source_bytes: u64,
    /// Bytes of the new file.
    pub bytes: u64,
    /// Number of weights.
    pub weights: u64,
    /// Bits of tensor data per weight.
    pub bits_per_weight: f64,
    /// `‖w - q‖² / ‖w‖²` over all weights that were encoded, in a dry run expected; `None` when none are.
    pub error: Option<f64>,
    /// Mean KL divergence from the source, in nats, that was measured for types that were chosen for a size, with integers of a search; `None` for other types.
    pub mean_kld: Option<f64>,
    /// Its tensors in the order of the file.
    pub tensors: Vec<TensorReport>,
    /// What the caller should know.
    pub warnings: Vec<String>,
    /// Tensors that an interrupted run had completed.
    pub resumed: usize,
    /// Wall time in seconds; in a dry run what is expected, without the passes over a calibration text.
    pub seconds: f64,
    /// Largest resident memory of the process so far, in bytes, in a dry run that of a run at most; `None` where the system does not tell.
    pub peak_rss_bytes: Option<u64>,
    /// Whether nothing was written.
    pub dry_run: bool,
}

/// What became of one tensor.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct TensorReport {
    /// Its name.
    pub name: String,
    /// Its dimensions in ggml's order, the length of a row first.
    pub shape: Vec<u64>,
    /// The type it had.
    pub source_type: String,
    /// The type it has.
    #[serde(rename = "type")]
    pub ty: String,
    /// Bytes it has.
    pub bytes: u64,
    /// Bits per weight.
    pub bits: f64,
    /// `‖w - q‖² / ‖w‖²`; `None` when its bytes were copied, or nothing was written.
    pub error: Option<f64>,
    /// The same as signal to noise in decibels; `None` also where all is exact.
    pub snr_db: Option<f64>,
    /// Largest difference of a weight.
    pub worst: Option<f64>,
    /// Whether errors were weighted by an importance matrix.
    pub importance: bool,
    /// How its integers were found, `"search"`, or `"awq+feedback"` where columns were scaled before; `None` when its bytes were copied, or
    /// nothing was written.
    pub method: Option<String>,
    /// Why it does not have the type that the target says.
    pub fallback: Option<String>,
}

/// A file for the plot of size against divergence.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Point {
    /// What it is called in the plot.
    pub label: String,
    /// Its size.
    pub bytes: u64,
    /// Mean Kullback-Leibler divergence from the original, in nats per token.
    pub mean_kld: f64,
}

impl Report {
    pub(super) fn of(plan: &Plan<'_>, done: &[Done], bytes: u64) -> Report {
        let weights = plan.weights();
        let tensors = plan.tensors().iter().enumerate();
        let sum = done.iter().fold(None, |sum: Option<Distortion>, done| match *done {
            Done::Encoded(distortion, _) => Some(sum.unwrap_or_default().and(distortion)),
            Done::Copied => sum,
        });
        Report {
            source: plan.source().path().display().to_string(),
            output: String::new(),
            target: plan.options().target.name().into(),
            method: plan.method().name().into(),
            source_bytes: plan.source().file_bytes(),
            bytes,
            weights,
            bits_per_weight: if weights == 0 { 0.0 } else { plan.tensor_bytes() as f64 * 8.0 / weights as f64 },
            error: sum.map(Distortion::relative),
            mean_kld: plan.allocation().map(|found| found.measured),
            tensors: tensors.map(|(index, tensor)| TensorReport::of(tensor, done.get(index))).collect(),
            warnings: plan.warnings(),
            resumed: 0,
            seconds: 0.0,
            peak_rss_bytes: None,
            dry_run: false,
        }
    }

    /// As JSON.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default() // fields of plain types, with strings as keys
    }
}

impl TensorReport {
    fn of(tensor: &PlannedTensor, done: Option<&Done>) -> TensorReport {
        let distortion = match done {
            Some(Done::Encoded(distortion, _)) => Some(*distortion),
            _ => None,
        };
        TensorReport {
            name: tensor.info.name.clone(),
            shape: tensor.info.shape.clone(),
            source_type: tensor.info.ty.name().into(),
            ty: tensor.ty.name().into(),
            bytes: tensor.bytes,
            bits: tensor.ty.bits(),
            error: distortion.map(Distortion::relative),
            snr_db: distortion.map(Distortion::snr_db).filter(|decibels| decibels.is_finite()),
            worst: distortion.map(|distortion| f64::from(distortion.worst)),
            importance: tensor.importance,
            method: match done {
                Some(Done::Encoded(_, way)) => Some(way.name().into()),
                _ => None,
            },
            fallback: tensor.fallback.clone(),
        }
    }
}
