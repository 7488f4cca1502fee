//! Methods that look at what a layer computes: from the first layer to the last, each with the inputs that it gets behind the
//! quantized ones.

use std::collections::HashMap;
use std::sync::Arc;

use fastq_kernels::quantize::{Feedback, ROWS, feedback, inverse_factor, loss, search};
use fastq_kernels::{Cpu, Distortion, Format, distortion};

use super::encode::{Done, Encoder, Job, Rows, buffer};
use super::inputs::{Collector, Inputs};
use super::plan::Plan;
use super::scaling::{Scaling, scaled_norm};
use super::{Method, Search};
use crate::gguf::TensorType;
use crate::model::{LayerStates, Model, Replacement};
use crate::pool::{Disjoint, Pool};
use crate::{Error, Interrupt, Result};

/// What is added to the diagonal of a Gram matrix, in means of it.
const DAMPING: f64 = 0.01;
/// Rows of hidden states that the output matrix sees: its Gram matrix needs no more, and logits are dear.
const OUTPUT_ROWS: usize = 4096;
/// Weights of a tensor that are encoded at once.
const BATCH_WEIGHTS: usize = 1 << 22;

/// Encodes layer by layer.
pub(super) struct Layered {
    method: Method,
    model: Model,
    states: LayerStates,
    /// The layer whose inputs are known, or the number of layers for the output.
    at: Option<usize>,
    inputs: Vec<Inputs>,
    /// Factors of the inverse Gram matrices, as they are needed.
    factors: Vec<Option<Arc<Vec<f32>>>>,
    /// What was done to norms of the layer.
    scaling: HashMap<String, Scaling>,
    /// Data of the tensors of the layer, as they will be in the file.
    made: HashMap<String, Replacement>,
    memory: u64,
}

/// The number of the layer that a tensor belongs to; tensors of none come after all of them.
fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

impl Layered {
    /// Calibrates with `texts` on the model of the source.
    pub(super) fn new(
        method: Method,
        model: Model,
        texts: &[Vec<u32>],
        memory: u64,
        interrupt: &dyn Interrupt,
    ) -> Result<Layered> {
        let states = model.embed_states(texts, interrupt)?;
        Ok(Layered {
            method,
            model,
            states,
            at: None,
            inputs: Vec::new(),
            factors: Vec::new(),
            scaling: HashMap::new(),
            made: HashMap::new(),
            memory,
        })
    }

    /// Brings the states before layer `layer` and learns its inputs.
    fn reach(&mut self, layer: usize, job: &mut Job<'_>) -> Result<()> {
        if self.at == Some(layer) {
            return Ok(());
        }
        let layers = self.model.spec().layers.len();
        let interrupt = job.interrupt();
        while let Some(next) = self.states.layer().filter(|next| *next < layer) {
            // Of a layer that an earlier run completed, the data are in the file.
            let prefix = format!("blk.{next}.");
            for (index, tensor) in job.plan().tensors().iter().enumerate() {
                if tensor.info.name.starts_with(&prefix) && !self.made.contains_key(&tensor.info.name)
                    && let Some(data) = job.completed(index)?
                {
                    self.made.insert(tensor.info.name.clone(), Replacement { ty: tensor.ty, data: data.into() });
                }
            }
            let made = std::mem::take(&mut self.made);
            self.model.with_replaced(&made)?.advance(&mut self.states, next, None, interrupt)?;
        }
        let mut collector = Collector { limit: self.memory, ..Collector::default() };
        if layer < layers {
            self.model.advance(&mut self.states.clone(), layer, Some(&mut collector), interrupt)?;
        } else {
            let rows = 0..self.states.rows().min(OUTPUT_ROWS);
            self.model.logits_of(&self.states, rows, &mut Vec::new(), Some(&mut collector), interrupt)?;
        }
        self.inputs = collector.inputs;
        self.factors = vec![None; self.inputs.len()];
        self.at = Some(layer);
        self.scaling.clear();
        if self.method.scales() && layer < layers {
            self.scaling = super::scaling::choose(job, &mut self.inputs)?;
        }
        Ok(())
    }

    /// The inputs of a tensor, for each of its experts.
    fn inputs_of(&self, name: &str, experts: usize) -> Option<Vec<usize>> {
        let mut found = vec![None; experts];
        for (index, inputs) in self.inputs.iter().enumerate().filter(|(_, i)| i.tensors.iter().any(|n| n == name)) {
            *found.get_mut(inputs.expert.unwrap_or(0))? = Some(index);
        }
        // An expert that no token has met has no inputs; the tensor is then searched only.
        found.into_iter().collect()
    }

    fn factor(&mut self, index: usize, cpu: Cpu, pool: &mut Pool, interrupt: &dyn Interrupt) -> Result<Arc<Vec<f32>>> {
        if let Some(factor) = &self.factors[index] {
            return Ok(Arc::clone(factor));
        }
        let Inputs { k, train, tensors, .. } = &self.inputs[index];
        let factor = factor_of(train, *k, cpu, pool, interrupt)
            .map_err(|error| error.unwrap_or_else(|| {
                Error::Internal(format!("the inputs of {} have no factor", tensors.join(", ")))
            }))?;
        let factor = Arc::new(factor);
        self.factors[index] = Some(Arc::clone(&factor));
        Ok(factor)
    }

    /// Encodes a matrix whose inputs are known.
    fn matrix(&mut self, job: &mut Job<'_>, format: Format, inputs: &[usize]) -> Result<Done> {
        let name = job.tensor().info.name.clone();
        let k = job.k()?;
        let row_bytes = format.row_bytes(k).ok_or_else(|| Error::Internal(format!("{name}: rows of {k}")))?;
        let total = usize::try_from(job.tensor().info.rows())
            .map_err(|_| Error::Memory(format!("{name} has too many rows")))?;
        let rows_of_expert = total / inputs.len();
        let given = job.importance()?;
        let scales = self.scaling.values().find(|scaling| scaling.tensors.contains(&name)).map(|s| s.scales.clone());
        let candidates = self.method.candidates(format);
        let mut outs: Vec<Vec<u8>> = Vec::new();
        for _ in candidates {
            outs.push(buffer(total * row_bytes, 0u8)?);
        }
        let mut losses = vec![0.0; candidates.len()];
        let mut sums = vec![Distortion::default(); candidates.len()];
        let (cpu, interrupt) = (job.cpu(), job.interrupt());
        let batch = (BATCH_WEIGHTS / k).max(ROWS).next_multiple_of(ROWS);
        let mut w = buffer(batch.min(total) * k, 0.0f32)?;
        for (expert, &index) in inputs.iter().enumerate() {
            let needs_factor = candidates.contains(&Candidate::Feedback);
            let factor = if needs_factor { Some(self.factor(index, cpu, job.pool(), interrupt)?) } else { None };
            let own;
            let importance = match &given {
                Some(all) if scales.is_none() => &all[expert * k..(expert + 1) * k],
                _ => {
                    own = self.inputs[index].importance();
                    &own
                }
            };
            let test = &self.inputs[index].test;
            let mut first = expert * rows_of_expert;
            let end = first + rows_of_expert;
            while first < end {
                let rows = batch.min(end - first);
                let w = &mut w[..rows * k];
                job.read(first as u64..(first + rows) as u64, w)?;
                if let Some(scales) = &scales {
                    for row in w.chunks_exact_mut(k) {
                        row.iter_mut().zip(scales).for_each(|(w, s)| *w *= s);
                    }
                }
                let w = &*w;
                for (c, candidate) in candidates.iter().enumerate() {
                    let out = &mut outs[c][first * row_bytes..(first + rows) * row_bytes];
                    let pieces = rows.div_ceil(ROWS);
                    let mut found = vec![(0.0, Distortion::default()); pieces];
                    let (shared, results) = (Disjoint::new(out), Disjoint::new(&mut found));
                    let factor = factor.as_ref().map(|factor| factor.as_slice());
                    job.pool().run(pieces, interrupt, |piece, _| {
                        let range = piece * ROWS..rows.min((piece + 1) * ROWS);
                        // SAFETY: every piece has rows and a result of its own.
                        let (out, result) = unsafe {
                            (shared.slice(range.start * row_bytes..range.end * row_bytes), results.item(piece))
                        };
                        let w = &w[range.start * k..range.end * k];
                        match (candidate, factor) {
                            (Candidate::Feedback, Some(factor)) => feedback(cpu, format, Feedback { k, factor }, w, out),
                            (Candidate::Search, _) => search(cpu, format, k, Some(importance), w, out),
                            _ => {
                                for (w, out) in w.chunks_exact(k).zip(out.chunks_exact_mut(row_bytes)) {
                                    // The plan has checked that the format can be made.
                                    let _ = format.quantize_row(cpu, w, Some(importance), out);
                                }
                            }
                        }
                        let mut q = vec![0.0; w.len()];
                        format.dequantize(out, &mut q);
                        result.1 = distortion(cpu, w, &q);
                        result.0 = loss(cpu, test, k, w, &q, &mut Vec::new());
                    })?;
                    for (loss, distortion) in found {
                        losses[c] += loss;
                        sums[c] = sums[c].and(distortion);
                    }
                }
                first += rows;
                job.report((first * k) as u64);
            }
        }
        let best = (0..candidates.len()).min_by(|a, b| losses[*a].total_cmp(&losses[*b])).unwrap_or(0);
        if std::env::var_os("FASTQ_TRACE").is_some() {
            eprintln!("{name} {format:?} {candidates:?} {losses:?} -> {best}");
        }
        let data: Arc<[u8]> = std::mem::take(&mut outs[best]).into();
        job.write(0, &data)?;
        self.made.insert(name, Replacement { ty: job.tensor().ty, data });
        Ok(Done::Encoded(sums[best]))
    }
}

/// One way to encode a matrix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Candidate {
    /// As ggml.
    Rtn,
    /// Weighted search.
    Search,
    /// Error feedback.
    Feedback,
}

impl Encoder for Layered {
    fn order(&self, plan: &Plan<'_>) -> Vec<usize> {
        let mut order: Vec<usize> = (0..plan.tensors().len()).collect();
        order.sort_by_key(|&index| layer_of(&plan.tensors()[index].info.name).unwrap_or(usize::MAX));
        order
    }

    fn encode(&mut self, job: &mut Job<'_>) -> Result<Done> {
        let name = job.tensor().info.name.clone();
        let layers = self.model.spec().layers.len();
        self.reach(layer_of(&name).unwrap_or(layers).min(layers), job)?;
        if !job.tensor().is_encoded() {
            let Some(norm) = scaled_norm(job, &self.scaling)? else { return job.copy() };
            job.write_all(&norm)?;
            self.made.insert(name, Replacement { ty: job.tensor().ty, data: norm.into() });
            return Ok(Done::Copied);
        }
        let experts = usize::try_from(job.tensor().info.shape.get(2).copied().unwrap_or(1)).unwrap_or(usize::MAX);
        let TensorType::Kernel(format) = job.tensor().ty else { return Rows(Search).encode(job) };
        match self.inputs_of(&name, experts) {
            Some(inputs) if format.scalar().is_some() => self.matrix(job, format, &inputs),
            _ => Rows(Search).encode(job),
        }
    }
}

/// The factor with as much damping as it takes; `None` as error when no damping helps.
fn factor_of(
    gram: &[f32],
    k: usize,
    cpu: Cpu,
    pool: &mut Pool,
    interrupt: &dyn Interrupt,
) -> Result<Vec<f32>, Option<Error>> {
    let pool = std::sync::Mutex::new(pool);
    let failed = std::sync::Mutex::new(None);
    let parallel = |count: usize, work: &(dyn Fn(usize) + Sync)| {
        let mut pool = pool.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Err(error) = pool.run(count, interrupt, |piece, _| work(piece)) {
            *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
        }
    };
    let mut damping = DAMPING;
    for _ in 0..4 {
        let mut h = buffer(k * k, 0.0f64).map_err(Some)?;
        h.iter_mut().zip(gram).for_each(|(h, g)| *h = f64::from(*g));
        let factor = inverse_factor(cpu, &mut h, k, damping, &parallel);
        if let Some(error) = failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
            return Err(Some(error));
        }
        match factor {
            Ok(factor) => return Ok(factor),
            Err(_) => damping *= 10.0,
        }
    }
    Err(None)
}
