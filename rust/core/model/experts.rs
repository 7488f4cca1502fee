//! Mixtures of experts: each row meets the few networks for which a router gives it the largest logits.
//!
//! A slot is one row with one of its experts. Slots are sorted by expert, so that an expert is multiplied with all of its rows at once
//! and the products of all experts are one region. A row's bits are its own all the same: products treat rows alone, and what its
//! experts give is added up by rank, the expert with the largest logit first.

use std::ops::Range;

use fastq_kernels::elementwise::{add, add_scaled, softmax};
use fastq_kernels::{Activation, Cpu};

use super::arch::Routing;
use super::buffers::{Buffers, kind_index, recycle};
use super::forward::{Context, Pass};
use super::parts::End;
use super::regions::{Product, Products, Records};
use super::spec::{Experts, FeedForward, ModelSpec};
use super::weights::{ExpertsWeights, FeedForwardPart, Linear, Weights};
use crate::Result;
use crate::memory::Zeroed;
use crate::pool::Disjoint;

/// The least that weights are divided by where they are normalised, as in llama.cpp: the smallest normal f16.
const LEAST_SUM: f32 = 1.0 / 16_384.0;

impl Pass<'_, '_> {
    /// A feed-forward part of experts.
    pub(super) fn experts_part(
        &mut self,
        buffers: &mut Buffers,
        spec: &FeedForward,
        part: &ExpertsWeights,
        end: End<'_>,
    ) -> Result<()> {
        self.route(buffers, spec, part)?;
        self.gather(buffers, part)?;
        self.multiply(buffers, part)?;
        self.between(buffers, spec, part)?;
        self.mix(buffers, part, end)
    }

    /// Which experts the rows meet, and how much each counts. The first products of the shared expert are in the same region.
    fn route(&mut self, buffers: &mut Buffers, spec: &FeedForward, part: &ExpertsWeights) -> Result<()> {
        let Context { file, cpu, .. } = self.context;
        let Experts { count, used, routing, .. } = part.spec;
        let n = self.rows.len();
        let Buffers { gate, up, records, workers, experts, .. } = buffers;
        self.observe(records, 0..n, part.inputs(), None)?;
        {
            let mut list = Products::new();
            list.push(Product::new(file, &part.router, records, 0..n, &mut experts.logits));
            if let Some(shared) = &part.shared {
                let at = n * used * spec.width;
                list.extend(shared.products(file, records, 0..n, &mut gate[at..], &mut up[at..]));
            }
            self.regions.products(&mut list, workers)?;
        }
        let (logits, chosen, weights) = (
            Disjoint::new(&mut experts.logits),
            Disjoint::new(&mut experts.chosen),
            Disjoint::new(&mut experts.weights),
        );
        self.regions.each_row(n, 8 * count, |row, _| {
            let ranks = row * used..(row + 1) * used;
            // SAFETY: a row belongs to one piece.
            let (logits, chosen, weights) = unsafe {
                (logits.slice(row * count..(row + 1) * count), chosen.slice(ranks.clone()), weights.slice(ranks))
            };
            if let Some(bias) = &part.router.bias {
                add(cpu, logits, bias);
            }
            choose(logits, chosen);
            weigh(cpu, routing, logits, chosen, weights);
        })?;
        experts.group(n * used, count);
        Ok(())
    }

    /// The records of the rows, slot by slot.
    fn gather(&mut self, buffers: &mut Buffers, part: &ExpertsWeights) -> Result<()> {
        let (width, used) = (self.context.spec.width, part.spec.used);
        let Buffers { records, experts, .. } = buffers;
        let kinds = self.context.kinds(part.expert_inputs());
        let sources = &experts.sources;
        let slots = experts.records.each_mut().map(|records| Disjoint::new(records));
        // To copy a byte costs less than to compute a value.
        self.regions.each_row(self.rows.len() * used, width / 8, |slot, _| {
            let row = sources[slot] / used;
            for kind in kinds.iter() {
                let (index, bytes) = (kind_index(kind), kind.row_bytes(width));
                // SAFETY: a slot belongs to one piece.
                let record = unsafe { slots[index].slice(slot * bytes..(slot + 1) * bytes) };
                record.copy_from_slice(&records[index][row * bytes..(row + 1) * bytes]);
            }
        })
    }

    /// The products of the experts' `gate` and `up` with their slots.
    fn multiply(&mut self, buffers: &mut Buffers, part: &ExpertsWeights) -> Result<()> {
        let file = self.context.file;
        let Buffers { gate, up, workers, experts, .. } = buffers;
        for (expert, slots) in groups(&experts.ends[..part.spec.count]) {
            self.observe(&experts.records, slots, part.experts[expert].inputs(), Some(expert))?;
        }
        let mut list = recycle(std::mem::take(&mut experts.products));
        let (mut gate, mut up) = (&mut gate[..], &mut up[..]);
        for (expert, slots) in groups(&experts.ends[..part.spec.count]) {
            let network = &part.experts[expert];
            let values = slots.len() * network.up.rows;
            let (own_gate, own_up);
            (own_gate, gate) = gate.split_at_mut(values);
            (own_up, up) = up.split_at_mut(values);
            list.extend(network.products(file, &experts.records, slots, own_gate, own_up));
        }
        let result = self.regions.products(&mut list, workers);
        experts.products = recycle(list);
        result
    }

    /// From the products with `gate` and `up` to the records for `down`.
    fn between(&mut self, buffers: &mut Buffers, spec: &FeedForward, part: &ExpertsWeights) -> Result<()> {
        let n = self.rows.len();
        let slots = n * part.spec.used;
        let Buffers { gate, up, records, experts, .. } = buffers;
        let (gate, shared_gate) = gate.split_at_mut(slots * spec.width);
        let (up, shared_up) = up.split_at_mut(slots * spec.width);
        let (sources, chosen) = (&experts.sources, &experts.chosen);
        let network = |slot: usize| &part.experts[chosen[sources[slot]]];
        self.inner(slots, spec, network, gate, up, &mut experts.records)?;
        match &part.shared {
            Some(shared) => self.inner(n, spec, |_| shared, shared_gate, shared_up, records),
            None => Ok(()),
        }
    }

    /// The products with `down`, added up by rank, and what the part ends with.
    fn mix(&mut self, buffers: &mut Buffers, part: &ExpertsWeights, end: End<'_>) -> Result<()> {
        let Context { file, spec: model, cpu, .. } = self.context;
        let (n, width, used) = (self.rows.len(), model.width, part.spec.used);
        let Buffers { x, t, records, workers, experts, .. } = buffers;
        for (expert, slots) in groups(&experts.ends[..part.spec.count]) {
            self.observe(&experts.records, slots, [&part.experts[expert].down], Some(expert))?;
        }
        if let Some(shared) = &part.shared {
            self.observe(records, 0..n, [&shared.down], None)?;
        }
        {
            let mut list = recycle(std::mem::take(&mut experts.products));
            let mut outputs = &mut experts.outputs[..];
            for (expert, slots) in groups(&experts.ends[..part.spec.count]) {
                let own;
                (own, outputs) = outputs.split_at_mut(slots.len() * width);
                list.push(Product::new(file, &part.experts[expert].down, &experts.records, slots, own));
            }
            if let Some(shared) = &part.shared {
                list.push(Product::new(file, &shared.down, records, 0..n, t));
            }
            let result = self.regions.products(&mut list, workers);
            experts.products = recycle(list);
            result?;
        }
        let (slots, chosen, weights) = (&experts.slots, &experts.chosen, &experts.weights);
        let (x, t, outputs) = (Disjoint::new(x), Disjoint::new(t), Disjoint::new(&mut experts.outputs));
        let (records, workers) = (Records::new(records), Disjoint::new(workers));
        self.regions.each_row(n, (4 + used) * width, |row, worker| {
            let range = row * width..(row + 1) * width;
            // SAFETY: a row belongs to one piece, and a worker number to one thread at a time.
            let (x, t, worker) = unsafe { (x.slice(range.clone()), t.slice(range), workers.item(worker)) };
            if part.shared.is_none() {
                t.fill(0.0);
            }
            for rank in row * used..(row + 1) * used {
                // SAFETY: a slot belongs to one row.
                let output = unsafe { outputs.slice(slots[rank] * width..(slots[rank] + 1) * width) };
                if let Some(bias) = &part.experts[chosen[rank]].down.bias {
                    add(cpu, output, bias);
                }
                add_scaled(cpu, t, output, weights[rank]);
            }
            // SAFETY: as above.
            unsafe { end.row(x, t, worker, &records, row) };
        })
    }
}

/// The experts with the largest logits, the largest first and of equal ones the one with the lower number. A NaN comes before all
/// numbers, so that it is seen.
fn choose(logits: &[f32], chosen: &mut [usize]) {
    let before = |a: usize, b: usize| logits[a] > logits[b] || logits[a].is_nan() && !logits[b].is_nan();
    let mut len = 0;
    for expert in 0..logits.len() {
        let after = chosen[..len].iter().rev().take_while(|other| before(expert, **other)).count();
        let rank = len - after;
        if rank < chosen.len() {
            len = chosen.len().min(len + 1);
            chosen[rank..len].rotate_right(1);
            chosen[rank] = expert;
        }
    }
}

/// The weights of the chosen experts. `logits` may be overwritten.
fn weigh(cpu: Cpu, routing: Routing, logits: &mut [f32], chosen: &[usize], weights: &mut [f32]) {
    if matches!(routing, Routing::Softmax { .. }) {
        softmax(cpu, logits);
    }
    for (weight, &expert) in weights.iter_mut().zip(chosen) {
        *weight = logits[expert];
    }
    match routing {
        Routing::Softmax { normalised: false } => {}
        Routing::Softmax { normalised: true } => {
            let sum = weights.iter().fold(0.0, |sum, weight| sum + weight).max(LEAST_SUM);
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        Routing::SoftmaxOfUsed => softmax(cpu, weights),
    }
}

/// The experts that have slots, with these.
fn groups(ends: &[usize]) -> impl Iterator<Item = (usize, Range<usize>)> {
    let starts = [0].into_iter().chain(ends.iter().copied());
    starts
        .zip(ends)
        .enumerate()
        .map(|(expert, (start, end))| (expert, start..*end))
        .filter(|(_, slots)| !slots.is_empty())
}

/// Lengths of [`ExpertBuffers`], of one row but for the first.
#[derive(Clone, Default, Debug)]
pub(super) struct ExpertSizes {
    /// The most experts of a layer.
    count: usize,
    /// The most that a row meets.
    used: usize,
    /// Length of the hidden state, where there are experts.
    width: usize,
    /// Bytes of the longest record of each kind of activations that experts use, else 0.
    records: [usize; Activation::ALL.len()],
}

impl ExpertSizes {
    pub(super) fn new(spec: &ModelSpec, weights: &Weights) -> ExpertSizes {
        let mut sizes = ExpertSizes::default();
        for layer in &weights.layers {
            let FeedForwardPart::Experts(part) = &layer.feed_forward else { continue };
            sizes.count = sizes.count.max(part.spec.count);
            sizes.used = sizes.used.max(part.spec.used);
            sizes.width = spec.width;
            for &Linear { format, k, .. } in part.expert_linears() {
                let kind = format.activation();
                let bytes = &mut sizes.records[kind_index(kind)];
                *bytes = kind.row_bytes(k).max(*bytes);
            }
        }
        sizes
    }

    /// Bytes of the buffers for chunks of `chunk` rows.
    pub(super) fn bytes(&self, chunk: usize) -> u64 {
        let (count, used) = (self.count as u64, self.used as u64);
        let slot = 3 * size_of::<usize>() + size_of::<f32>() * (1 + self.width) + self.records.iter().sum::<usize>();
        let row = size_of::<f32>() as u64 * count + used * slot as u64;
        chunk as u64 * row
            + count * size_of::<usize>() as u64
            + self.products() as u64 * size_of::<Product<'_>>() as u64
    }

    /// The most products of a region.
    fn products(&self) -> usize {
        2 * self.count + 1
    }
}

/// Working memory of mixtures of experts.
#[derive(Debug)]
pub(super) struct ExpertBuffers {
    /// Logits of the router `(rows, experts)`.
    logits: Zeroed<f32>,
    /// The experts of the rows, by rank `(rows, used)`.
    chosen: Zeroed<usize>,
    /// Their weights `(rows, used)`.
    weights: Zeroed<f32>,
    /// Their slots `(rows, used)`.
    slots: Zeroed<usize>,
    /// Of each slot, where it is in `chosen` `(slots)`.
    sources: Zeroed<usize>,
    /// Where the slots of each expert end `(experts)`.
    ends: Zeroed<usize>,
    /// Inputs of the experts, then of their last matrices, by kind of activations `(slots, …)`.
    records: [Zeroed<u8>; Activation::ALL.len()],
    /// Outputs of the experts `(slots, width)`.
    outputs: Zeroed<f32>,
    /// Empty; kept for its memory.
    products: Vec<Product<'static>>,
}

impl ExpertBuffers {
    /// Allocates.
    pub(super) fn new(sizes: &ExpertSizes, chunk: usize) -> Result<ExpertBuffers> {
        let ExpertSizes { count, used, width, records: [a, b, c] } = *sizes;
        let slots = chunk.saturating_mul(used);
        Ok(ExpertBuffers {
            logits: Zeroed::scratch(chunk, count)?,
            chosen: Zeroed::scratch(chunk, used)?,
            weights: Zeroed::scratch(chunk, used)?,
            slots: Zeroed::scratch(chunk, used)?,
            sources: Zeroed::scratch(chunk, used)?,
            ends: Zeroed::scratch(1, count)?,
            records: [Zeroed::scratch(slots, a)?, Zeroed::scratch(slots, b)?, Zeroed::scratch(slots, c)?],
            outputs: Zeroed::scratch(slots, width)?,
            products: Vec::with_capacity(sizes.products()),
        })
    }

    /// Makes room for f32 records of the inputs of the experts.
    pub(super) fn keep_floats(&mut self, weights: &Weights, chunk: usize) -> Result<()> {
        let parts = weights.layers.iter().filter_map(|layer| match &layer.feed_forward {
            FeedForwardPart::Experts(part) => Some(part),
            FeedForwardPart::Dense(_) => None,
        });
        let longest = |part: &ExpertsWeights| part.expert_linears().map(|l| Activation::F32.row_bytes(l.k)).max();
        let (mut used, mut bytes) = (0, 0);
        for part in parts {
            used = used.max(part.spec.used);
            bytes = bytes.max(longest(part).unwrap_or(0));
        }
        let (index, slots) = (kind_index(Activation::F32), chunk.saturating_mul(used));
        if self.records[index].len() < slots.saturating_mul(bytes) {
            self.records[index] = Zeroed::scratch(slots, bytes)?;
        }
        Ok(())
    }

    /// Bytes that were allocated.
    pub(super) fn bytes(&self) -> u64 {
        let ExpertBuffers { logits, chosen, weights, slots, sources, ends, records, outputs, products } = self;
        let floats = [logits, weights, outputs].map(Zeroed::bytes);
        let numbers = [chosen, slots, sources, ends].map(Zeroed::bytes);
        let records = records.each_ref().map(Zeroed::bytes);
        let products = products.capacity() * size_of::<Product<'_>>();
        [floats.as_slice(), &numbers, &records].concat().iter().sum::<u64>() + products as u64
    }

    /// Sorts the first `len` chosen experts of `count` into slots; those of one expert are in the order of the rows.
    fn group(&mut self, len: usize, count: usize) {
        let ExpertBuffers { chosen, slots, sources, ends, .. } = self;
        let (chosen, ends) = (&chosen[..len], &mut ends[..count]);
        ends.fill(0);
        chosen.iter().for_each(|&expert| ends[expert] += 1);
        let mut start = 0;
        for end in &mut *ends {
            start += std::mem::replace(end, start);
        }
        // What was the start of an expert's slots becomes their end as they are given away.
        for (source, &expert) in chosen.iter().enumerate() {
            let slot = ends[expert];
            ends[expert] += 1;
            slots[source] = slot;
            sources[slot] = source;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_chosen() {
        let chosen = |logits: &[f32], used: usize| {
            let mut chosen = vec![usize::MAX; used];
            choose(logits, &mut chosen);
            chosen
        };
        assert_eq!(chosen(&[1.0, 3.0, 2.0, 5.0, -1.0], 3), [3, 1, 2]);
        assert_eq!(chosen(&[2.0, 1.0, 2.0, 2.0], 2), [0, 2], "of equal ones the first");
        assert_eq!(chosen(&[0.0, -0.0, 0.0], 3), [0, 1, 2]);
        assert_eq!(chosen(&[1.0, f32::NAN, f32::INFINITY, -f32::NAN], 3), [1, 3, 2], "a fault is seen");
        assert_eq!(chosen(&[f32::NEG_INFINITY, 0.0], 2), [1, 0]);
    }

    #[test]
    fn weights_are_normalised_as_the_rules_say() {
        let cpu = Cpu::detect().expect("a level");
        let weights = |routing| {
            let (mut logits, mut weights) = ([0.0f32, 2.0f32.ln(), 5.0f32.ln()], [0.0; 2]);
            weigh(cpu, routing, &mut logits, &[2, 1], &mut weights);
            weights
        };
        let close = |found: [f32; 2], expected: [f32; 2]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} for {expected:?}");
        };
        close(weights(Routing::Softmax { normalised: false }), [5.0 / 8.0, 2.0 / 8.0]);
        close(weights(Routing::Softmax { normalised: true }), [5.0 / 7.0, 2.0 / 7.0]);
        close(weights(Routing::SoftmaxOfUsed), [5.0 / 7.0, 2.0 / 7.0]);
    }

    #[test]
    fn slots_are_sorted_by_expert() {
        let sizes = ExpertSizes { count: 4, used: 2, width: 1, ..ExpertSizes::default() };
        let mut buffers = ExpertBuffers::new(&sizes, 3).expect("little memory");
        buffers.chosen.copy_from_slice(&[3, 1, 1, 0, 3, 1]);
        buffers.group(6, 4);
        assert_eq!(buffers.sources[..], [3, 1, 2, 5, 0, 4]);
        assert_eq!(buffers.slots[..], [4, 1, 2, 0, 5, 3]);
        let found: Vec<_> = groups(&buffers.ends).collect();
        assert_eq!(found, [(0, 0..1), (1, 1..4), (3, 4..6)]);
        assert_eq!(sizes.bytes(3), buffers.bytes());
    }
}
