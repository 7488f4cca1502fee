//! The tokens still in play: all of them as a row of logits, or a list once a stage has narrowed the choice.

use std::cmp::Ordering;

use fastq_kernels::math::exp64;

/// A token that may still be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) id: u32,
    pub(super) logit: f32,
    /// Set by [`Candidates::softmax`], stale after any change of a logit or of the list.
    pub(super) probability: f64,
}

/// Most likely first; the smaller id first among equals. A total order (no logit is NaN), so every selection by it has one
/// answer.
pub(super) fn by_logit(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.id.cmp(&b.id))
}

/// Up to this k, [`Candidates::keep_best`] scans with a rising threshold, which reads the logits once and writes next to nothing.
const SCANNED: usize = 1024;

/// Logits by token id, and the narrowed list. Most chains narrow 262k tokens to 40 at once; the list of all of them is only
/// built when a stage asks for it.
pub(super) struct Candidates<'a> {
    logits: &'a mut [f32],
    list: Vec<Candidate>,
    listed: bool,
}

impl<'a> Candidates<'a> {
    /// All tokens; `storage` is reused for the list.
    pub(super) fn new(logits: &'a mut [f32], mut storage: Vec<Candidate>) -> Candidates<'a> {
        storage.clear();
        Candidates { logits, list: storage, listed: false }
    }

    /// Gives the storage of the list back.
    pub(super) fn into_storage(self) -> Vec<Candidate> {
        self.list
    }

    /// The row of logits by token id, for stages that change those of a few tokens. Behind one that has narrowed the choice, which
    /// no usual chain has, the list goes back into the row.
    pub(super) fn logits(&mut self) -> &mut [f32] {
        if self.listed {
            self.listed = false;
            self.logits.fill(f32::NEG_INFINITY);
            for c in self.list.drain(..) {
                self.logits[c.id as usize] = c.logit;
            }
        }
        self.logits
    }

    /// The logits of the candidates, without those that are masked.
    pub(super) fn each_logit(&self, f: impl FnMut(f32)) {
        let finite = |logit: &f32| *logit > f32::NEG_INFINITY;
        match self.listed {
            true => self.list.iter().map(|c| c.logit).filter(finite).for_each(f),
            false => self.logits.iter().copied().filter(finite).for_each(f),
        }
    }

    /// The candidates as a list, in an order that depends only on the logits. Masked tokens are not in it.
    pub(super) fn list(&mut self) -> &mut Vec<Candidate> {
        if !self.listed {
            self.listed = true;
            let all = self.logits.iter().enumerate().filter(|(_, logit)| **logit > f32::NEG_INFINITY);
            self.list.extend(all.map(|(id, &logit)| Candidate { id: id as u32, logit, probability: 0.0 }));
        }
        &mut self.list
    }

    /// The most likely token, the smallest id among equals; `None` when all are masked.
    pub(super) fn best(&self) -> Option<u32> {
        if self.listed {
            return self.list.iter().min_by(|a, b| by_logit(a, b)).map(|c| c.id);
        }
        // In blocks, most of which hold nothing larger: to see that is vectorised, to find a maximum is not.
        let mut best = (f32::NEG_INFINITY, None);
        for (block, values) in self.logits.chunks(64).enumerate() {
            if values.iter().fold(false, |any, &v| any | (v > best.0)) {
                best = (values.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m }), Some(block));
            }
        }
        let start = best.1? * 64;
        self.logits[start..].iter().position(|&v| v == best.0).map(|at| (start + at) as u32)
    }

    /// Keeps the `k` (at least 1) most likely tokens.
    pub(super) fn keep_best(&mut self, k: usize) {
        if self.listed || k > SCANNED {
            let list = self.list();
            if k < list.len() {
                let mut order = list.clone();
                let (_, last, _) = order.select_nth_unstable_by(k - 1, by_logit);
                list.retain(|c| by_logit(c, last).is_le());
            }
            return;
        }
        self.listed = true;
        best_of(self.logits, k, &mut self.list);
    }

    /// Keeps the tokens whose logits are at least `threshold`, of which there is at least one.
    pub(super) fn keep_from(&mut self, threshold: f64) {
        if !self.listed {
            self.listed = true;
            let all = self.logits.iter().enumerate().filter(|(_, logit)| **logit > f32::NEG_INFINITY);
            let kept = all.filter(|(_, logit)| f64::from(**logit) >= threshold);
            self.list.extend(kept.map(|(id, &logit)| Candidate { id: id as u32, logit, probability: 0.0 }));
            return;
        }
        self.list.retain(|c| f64::from(c.logit) >= threshold);
    }

    /// The largest logit; negative infinity when all are masked.
    pub(super) fn largest(&self) -> f32 {
        let larger = |m: f32, v: f32| if v > m { v } else { m };
        match self.listed {
            true => self.list.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, larger),
            false => self.logits.iter().copied().fold(f32::NEG_INFINITY, larger),
        }
    }

    /// The `k` (at least 1) most likely tokens in order. None is dropped from the candidates.
    pub(super) fn first(&mut self, k: usize) -> Vec<Candidate> {
        let mut first = self.list().clone();
        if k < first.len() {
            first.select_nth_unstable_by(k - 1, by_logit);
            first.truncate(k);
        }
        first.sort_unstable_by(by_logit);
        first
    }

    /// The list with probabilities; they sum to one.
    pub(super) fn softmax(&mut self) -> &mut Vec<Candidate> {
        let list = self.list();
        let max = list.iter().fold(f32::NEG_INFINITY, |m, c| m.max(c.logit));
        let mut sum = 0.0;
        for c in list.iter_mut() {
            c.probability = exp64(f64::from(c.logit) - f64::from(max));
            sum += c.probability;
        }
        for c in list.iter_mut() {
            c.probability /= sum;
        }
        list
    }
}

/// The `k` (at least 1, at most [`SCANNED`]) most likely tokens of a row, in order, into an empty list.
pub(super) fn best_of(logits: &[f32], k: usize, best: &mut Vec<Candidate>) {
    // Scan with a threshold that rises: a buffer of 4k candidates is cut to the best k whenever it is full, and only
    // logits above the k-th best so far enter it. Ids ascend, so an equal logit comes later and loses the tie.
    let room = (4 * k).max(256);
    let mut threshold = f32::NEG_INFINITY;
    for (block, values) in logits.chunks(64).enumerate() {
        if values.iter().fold(false, |any, &v| any | (v > threshold)) {
            for (at, &logit) in values.iter().enumerate() {
                if logit > threshold {
                    best.push(Candidate { id: (block * 64 + at) as u32, logit, probability: 0.0 });
                    if best.len() == room {
                        best.select_nth_unstable_by(k - 1, by_logit);
                        best.truncate(k);
                        threshold = best[k - 1].logit;
                    }
                }
            }
        }
    }
    best.sort_unstable_by(by_logit);
    best.truncate(k);
}

/// Keeps the fewest candidates, taken in the order of `key` (ascending, then by id), whose probabilities reach `mass`;
/// the order of the list stays. Expected linear: halves the part in which the last one is, without sorting.
pub(super) fn keep_mass(list: &mut Vec<Candidate>, mass: f64, key: impl Fn(&Candidate) -> f64) {
    struct Keyed {
        key: f64,
        id: u32,
        units: u64,
    }
    // Sums of whole numbers do not depend on the order in which the halving meets them.
    let units = |probability: f64| (probability * (1u64 << 52) as f64).round_ties_even() as u64;
    let order = |a: &Keyed, b: &Keyed| a.key.total_cmp(&b.key).then(a.id.cmp(&b.id));
    let keyed = |c: &Candidate| Keyed { key: key(c), id: c.id, units: units(c.probability) };
    let mut keyed: Vec<Keyed> = list.iter().map(keyed).collect();
    let mut part = keyed.as_mut_slice();
    let mut missing = units(mass);
    while part.len() > 1 {
        let middle = part.len() / 2;
        part.select_nth_unstable_by(middle, order);
        let (left, right) = part.split_at_mut(middle);
        let sum: u64 = left.iter().map(|k| k.units).sum();
        if sum >= missing {
            part = left;
        } else {
            missing -= sum;
            part = right;
        }
    }
    let Some(last) = part.first() else { return };
    list.retain(|c| key(c).total_cmp(&last.key).then(c.id.cmp(&last.id)).is_le());
}
