//! Methods that look at what a layer computes: from the first layer to the last, each with the inputs that it gets behind the
//! quantized ones.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use fastq_kernels::quantize::{Feedback, ROWS, feedback, inverse_factor, loss, search};
use fastq_kernels::{Cpu, Distortion, Format, distortion};

use super::calibration::{CHUNK, Calibration, Pieces, Source};
use super::encode::{Done, Encoder, Encoding, Job, Rows, Search, Way, buffer, may_be_too_large};
use super::plan::{Plan, PlannedTensor};
use super::scaling::{Scaling, choose, scaled_norm};
use super::{Method, workers, working};
use crate::calibrate::{Gram, GramFile, Grams};
use crate::gguf::TensorType;
use crate::model::{LayerStates, LoadOptions, Model, Replacement};
use crate::pool::{Disjoint, Pool};
use crate::{Error, Interrupt, Progress, Result};

/// What is added to the diagonal of a Gram matrix, in means of it.
const DAMPING: f64 = 0.01;
/// How much less the products of different columns count than the text says: on other text they are others, while the squares stay.
/// That is shrinkage towards the diagonal (Ledoit, Wolf: "A well-conditioned estimator for large-dimensional covariance matrices", 2004).
const SHRINKAGE: f64 = 0.2;
/// Rows of hidden states that the output matrix sees: its Gram matrix needs no more, and logits are dear.
const OUTPUT_ROWS: usize = 4096;
/// Logits that are in memory at once.
const OUTPUT_VALUES: usize = 16 << 20;
/// Weights of a tensor that are encoded at once.
pub(super) const BATCH_WEIGHTS: usize = 1 << 22;

/// Every tensor is looked at.
const EVERY: &dyn Fn(&str) -> bool = &|_| true;

/// Where the inputs of a layer come from.
enum Inputs {
    /// From hidden states of what encodings are made with, and of what they are compared on.
    Text(Box<Model>, [LayerStates; 2]),
    /// From a file, which has no others to compare on.
    File(Arc<GramFile>),
}

/// Encodes layer by layer.
pub(super) struct Layered {
    method: Method,
    source: Inputs,
    /// Layers of the model.
    layers: usize,
    /// The layer whose inputs are known, or the number of layers for the output.
    at: Option<usize>,
    /// Gram matrices of these inputs.
    inputs: [Grams<'static>; 2],
    /// Factors of the inverse Gram matrices, as they are needed: by the tensor that stands for all with the same input, and expert.
    factors: HashMap<(String, Option<usize>), Arc<Vec<f32>>>,
    /// What is done to norms of the layer.
    scaling: HashMap<String, Scaling>,
    /// Data of the tensors of the layer, as they will be in the file.
    made: HashMap<String, Replacement>,
}

/// The number of the layer that a tensor belongs to; tensors of none come after all of them.
pub(super) fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

/// Mean squares of the columns.
pub(super) fn importance(gram: &Gram) -> Vec<f32> {
    let count = gram.count.max(1) as f32;
    (0..gram.k).map(|i| gram.sums[i * gram.k + i] / count).collect()
}

impl Layered {
    /// Calibrates on the model of the source.
    pub(super) fn new(
        method: Method,
        plan: &Plan<'_>,
        calibration: &Calibration,
        interrupt: &dyn Interrupt,
        progress: &dyn Progress,
    ) -> Result<Layered> {
        let source = match &calibration.source {
            Source::Grams(file) => Inputs::File(Arc::clone(file)),
            Source::Text { .. } => {
                let options = LoadOptions { threads: plan.threads(), context: Some(CHUNK), ..LoadOptions::default() };
                let model = Model::load(plan.source().path(), &options, interrupt)?;
                let writer = || {
                    let (mut pool, cpu) = workers(plan)?;
                    working::model(plan, &model, (&mut pool, cpu), interrupt)
                };
                let Pieces { train, test } = calibration.pieces(&model, writer, interrupt, progress)?;
                let states = [model.embed_states(&train, interrupt)?, model.embed_states(&test, interrupt)?];
                Inputs::Text(Box::new(model), states)
            }
        };
        let layers = plan.tensors().iter().filter_map(|tensor| layer_of(&tensor.info.name)).max();
        Ok(Layered {
            method,
            source,
            layers: layers.map_or(0, |last| last + 1),
            at: None,
            inputs: [Grams::new(EVERY), Grams::new(EVERY)],
            factors: HashMap::new(),
            scaling: HashMap::new(),
            made: HashMap::new(),
        })
    }

    /// Learns the inputs of layer `layer`; of text, behind the layers before it as they were encoded.
    fn reach(&mut self, layer: usize, job: &mut Job<'_>) -> Result<()> {
        if self.at == Some(layer) {
            return Ok(());
        }
        self.inputs = match &mut self.source {
            Inputs::Text(model, states) => inputs_of_text(model, states, &mut self.made, layer, self.layers, job)?,
            Inputs::File(file) => {
                let of_layer = |tensor: &&PlannedTensor| {
                    layer_of(&tensor.info.name).unwrap_or(self.layers).min(self.layers) == layer
                };
                let tensors = || job.plan().tensors().iter().filter(of_layer);
                let load = || file.load(tensors().map(|tensor| (tensor.info.name.as_str(), tensor.info.k())));
                [load()?, load()?]
            }
        };
        self.factors.clear();
        self.scaling.clear();
        self.at = Some(layer);
        if self.method.scales() && layer < self.layers {
            self.scaling = choose(job, &mut self.inputs)?;
        }
        Ok(())
    }

    /// Keeps data of the layer for the states behind it.
    fn keep(&mut self, name: String, job: &Job<'_>, data: Arc<[u8]>) {
        if matches!(self.source, Inputs::Text(..)) {
            self.made.insert(name, Replacement { ty: job.tensor().ty, data });
        }
    }

    /// The experts of a tensor, each as the inputs know it; `None` when the inputs of one are not known.
    fn experts(&self, name: &str, count: usize) -> Option<Vec<Option<usize>>> {
        let experts = || -> Vec<Option<usize>> { (0..count).map(Some).collect() };
        let known = |experts: &[Option<usize>]| {
            experts.iter().all(|expert| self.inputs.iter().all(|inputs| inputs.get(name, *expert).is_some()))
        };
        [vec![None; usize::from(count == 1)], experts()].into_iter().find(|all| !all.is_empty() && known(all))
    }

    fn factor(
        &mut self,
        name: &str,
        expert: Option<usize>,
        cpu: Cpu,
        pool: &mut Pool,
        interrupt: &dyn Interrupt,
    ) -> Result<Arc<Vec<f32>>> {
        let lost = || Error::Internal(format!("the inputs of {name} are lost"));
        let key = (self.inputs[0].key(name).ok_or_else(lost)?.to_owned(), expert);
        if let Some(factor) = self.factors.get(&key) {
            return Ok(Arc::clone(factor));
        }
        let gram = self.inputs[0].get(name, expert).ok_or_else(lost)?;
        let factor = Arc::new(factor_of(gram, name, cpu, pool, interrupt)?);
        self.factors.insert(key, Arc::clone(&factor));
        Ok(factor)
    }

    /// Encodes a matrix whose inputs are known.
    fn matrix(&mut self, job: &mut Job<'_>, format: Format, experts: &[Option<usize>]) -> Result<Done> {
        let name = job.tensor().info.name.clone();
        let k = job.k()?;
        let row_bytes = format.row_bytes(k).ok_or_else(|| Error::Internal(format!("{name}: rows of {k}")))?;
        let total = usize::try_from(job.tensor().info.rows())
            .map_err(|_| Error::Memory(format!("{name} has too many rows")))?;
        let rows_of_expert = total / experts.len();
        let given = job.importance()?;
        let scales = self.scaling.values().find(|scaling| scaling.tensors.contains(&name)).map(|s| s.scales.clone());
        let candidates = self.method.candidates();
        let mut outs: Vec<Vec<u8>> = Vec::new();
        for _ in candidates {
            outs.push(buffer(total * row_bytes, 0u8)?);
        }
        // Those that may be the best; with one there is nothing to compare.
        let mut open: Vec<usize> = (0..candidates.len()).collect();
        let mut losses = vec![0.0; candidates.len()];
        let mut sums = vec![Distortion::default(); candidates.len()];
        let (cpu, interrupt) = (job.cpu(), job.interrupt());
        let batch = (BATCH_WEIGHTS / k).max(ROWS).next_multiple_of(ROWS);
        let mut w = buffer(batch.min(total) * k, 0.0f32)?;
        for (number, &expert) in experts.iter().enumerate() {
            let needs_factor = candidates.contains(&Encoding::Feedback);
            let factor =
                if needs_factor { Some(self.factor(&name, expert, cpu, job.pool(), interrupt)?) } else { None };
            let [Some(train), Some(test)] = self.inputs.each_ref().map(|inputs| inputs.get(&name, expert)) else {
                return Err(Error::Internal(format!("the inputs of {name} are lost")));
            };
            let own;
            let importance = match &given {
                Some(all) if scales.is_none() => &all[number * k..(number + 1) * k],
                _ => {
                    own = importance(train);
                    &own
                }
            };
            let mut first = number * rows_of_expert;
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
                let compared = open.len() > 1;
                for &c in &open {
                    let candidate = candidates[c];
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
                        let candidate = if may_be_too_large(cpu, w) { Encoding::Rtn } else { candidate };
                        match (candidate, factor) {
                            (Encoding::Feedback, Some(factor)) => feedback(cpu, format, Feedback { k, factor }, w, out),
                            (Encoding::Search, _) => search(cpu, format, k, Some(importance), w, out),
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
                        if compared {
                            result.0 = loss(cpu, &test.sums, k, w, &q, &mut Vec::new());
                        }
                    })?;
                    if let Some(piece) = found.iter().position(|(_, distortion)| !distortion.error.is_finite()) {
                        return Err(job.too_large((first + piece * ROWS) as u64));
                    }
                    for (loss, distortion) in found {
                        losses[c] += loss;
                        sums[c] = sums[c].and(distortion);
                    }
                }
                first += rows;
                job.report((first * k) as u64);
                // Some million weights tell which encoding suits a matrix: the rest of a large one is encoded once.
                if experts.len() == 1 {
                    let best = best_of(&open, &losses);
                    open.iter().filter(|c| **c != best).for_each(|c| outs[*c] = Vec::new());
                    open = vec![best];
                }
            }
        }
        let best = best_of(&open, &losses);
        let data: Arc<[u8]> = std::mem::take(&mut outs[best]).into();
        job.write(0, &data)?;
        self.keep(name, job, data);
        Ok(Done::Encoded(sums[best], Way { encoding: candidates[best], scaled: scales.is_some() }))
    }
}

/// The one with the least loss, of several the first.
fn best_of(open: &[usize], losses: &[f64]) -> usize {
    open.iter().copied().min_by(|a, b| losses[*a].total_cmp(&losses[*b])).unwrap_or(0)
}

impl Encoder for Layered {
    fn order(&self, plan: &Plan<'_>) -> Vec<usize> {
        let mut order: Vec<usize> = (0..plan.tensors().len()).collect();
        order.sort_by_key(|&index| layer_of(&plan.tensors()[index].info.name).unwrap_or(usize::MAX));
        order
    }

    fn encode(&mut self, job: &mut Job<'_>) -> Result<Done> {
        let name = job.tensor().info.name.clone();
        self.reach(layer_of(&name).unwrap_or(self.layers).min(self.layers), job)?;
        if !job.tensor().is_encoded() {
            let Some(norm) = scaled_norm(job, &self.scaling)? else { return job.copy() };
            job.write_all(&norm)?;
            self.keep(name, job, norm.into());
            return Ok(Done::Copied);
        }
        let experts = usize::try_from(job.tensor().info.shape.get(2).copied().unwrap_or(1)).unwrap_or(usize::MAX);
        let TensorType::Kernel(format) = job.tensor().ty else { return Rows(Search).encode(job) };
        match self.experts(&name, experts) {
            Some(experts) if format.has_grid() => self.matrix(job, format, &experts),
            _ => Rows(Search).encode(job),
        }
    }
}

/// Brings the states before layer `layer` and learns its inputs; `made` has the data of layers that are encoded.
fn inputs_of_text(
    source: &Model,
    states: &mut [LayerStates; 2],
    made: &mut HashMap<String, Replacement>,
    layer: usize,
    layers: usize,
    job: &mut Job<'_>,
) -> Result<[Grams<'static>; 2]> {
    let interrupt = job.interrupt();
    while let Some(next) = states[0].layer().filter(|next| *next < layer) {
        // Of a layer that an earlier run completed, the data are in the file.
        for (index, tensor) in job.plan().tensors().iter().enumerate() {
            if layer_of(&tensor.info.name) == Some(next)
                && !made.contains_key(&tensor.info.name)
                && let Some(data) = job.completed(index)?
            {
                made.insert(tensor.info.name.clone(), Replacement { ty: tensor.ty, data: data.into() });
            }
        }
        let model = source.with_replaced(&std::mem::take(made))?;
        for states in states.iter_mut() {
            model.advance(states, next, None, interrupt)?;
        }
    }
    let of_layer = |tensor: &PlannedTensor| layer_of(&tensor.info.name).unwrap_or(layers) == layer;
    let (plan, cpu) = (job.plan(), job.cpu());
    let model = source.with_replaced(&working::replacements(plan, of_layer, (job.pool(), cpu), interrupt)?)?;
    let mut all = [Grams::new(EVERY), Grams::new(EVERY)];
    for (states, inputs) in states.iter().zip(&mut all) {
        if layer < layers {
            model.advance(&mut states.clone(), layer, Some(inputs), interrupt)?;
        } else {
            let (rows, mut logits) = (states.rows().min(OUTPUT_ROWS), Vec::new());
            let step = (OUTPUT_VALUES / model.vocabulary()).max(1);
            for start in (0..rows).step_by(step) {
                let part = start..rows.min(start + step);
                model.logits_of(states, part, &mut logits, Some(inputs), interrupt)?;
            }
        }
        inputs.finish();
    }
    Ok(all)
}

/// The factor of the inverse of the shrunk matrix, with as much damping as it takes.
fn factor_of(gram: &Gram, name: &str, cpu: Cpu, pool: &mut Pool, interrupt: &dyn Interrupt) -> Result<Vec<f32>> {
    let pool = Mutex::new(pool);
    let failed = Mutex::new(None);
    let parallel = |count: usize, work: &(dyn Fn(usize) + Sync)| {
        let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = pool.run(count, interrupt, |piece, _| work(piece)) {
            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    };
    let mut damping = DAMPING;
    for _ in 0..4 {
        let mut h = buffer(gram.sums.len(), 0.0f64)?;
        h.iter_mut().zip(&gram.sums).for_each(|(h, g)| *h = f64::from(*g) * (1.0 - SHRINKAGE));
        h.iter_mut().zip(&gram.sums).step_by(gram.k + 1).for_each(|(h, g)| *h = f64::from(*g));
        let factor = inverse_factor(cpu, &mut h, gram.k, damping, &parallel);
        if let Some(error) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        match factor {
            Ok(factor) => return Ok(factor),
            Err(_) => damping *= 10.0,
        }
    }
    Err(Error::Internal(format!("the inputs of {name} have no factor")))
}
