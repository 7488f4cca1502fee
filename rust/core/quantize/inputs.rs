//! What the inputs of a layer's matrices say about their columns: Gram matrices over the calibration text.

use fastq_kernels::gram::accumulate;

use crate::memory::{Zeroed, human};
use crate::model::{Input, Observer};
use crate::pool::Disjoint;
use crate::{Error, Result};

/// Rows between which train and test change: a stretch of text that belongs together.
const STRETCH: usize = 512;
/// Every so many stretches are one of the test.
const TEST: usize = 6;

/// The inputs that some matrices share.
pub(super) struct Inputs {
    /// Names of the tensors.
    pub(super) tensors: Vec<String>,
    /// Of mixtures, whose experts have inputs of their own.
    pub(super) expert: Option<usize>,
    /// Number of columns.
    pub(super) k: usize,
    /// Rows seen.
    pub(super) rows: usize,
    /// `X^T X` `(k, k)` of what encodings are made with, the lower triangle.
    pub(super) train: Zeroed<f32>,
    /// Of what they are compared with.
    pub(super) test: Zeroed<f32>,
}

impl Inputs {
    /// Mean squares of the columns `(k)`.
    pub(super) fn importance(&self) -> Vec<f32> {
        let rows = self.rows.max(1) as f32;
        (0..self.k).map(|i| i * self.k + i).map(|at| (self.train[at] + self.test[at]) / rows).collect()
    }

    /// Takes the inputs as divided by `scales` `(k)`.
    pub(super) fn divide(&mut self, scales: &[f32]) {
        for matrix in [&mut self.train, &mut self.test] {
            for (row, si) in matrix.chunks_exact_mut(self.k).zip(scales) {
                row.iter_mut().zip(scales).for_each(|(value, sj)| *value /= si * sj);
            }
        }
    }
}

/// Collects the inputs of a layer.
#[derive(Default)]
pub(super) struct Collector {
    pub(super) inputs: Vec<Inputs>,
    /// What all matrices together may have, in bytes.
    pub(super) limit: u64,
}

impl Observer for Collector {
    fn input(&mut self, input: &mut Input<'_>) -> Result<()> {
        let known = self.inputs.iter().position(|known| known.tensors == input.tensors && known.expert == input.expert);
        let index = match known {
            Some(index) => index,
            None => {
                self.inputs.push(self.room(input)?);
                self.inputs.len() - 1
            }
        };
        let Inputs { k, rows, train, test, .. } = &mut self.inputs[index];
        let (k, mut left) = (*k, input.x);
        while !left.is_empty() {
            let stretch = *rows / STRETCH;
            let count = ((stretch + 1) * STRETCH - *rows).min(left.len() / k);
            let (x, rest) = left.split_at(count * k);
            let gram = if stretch % TEST == TEST - 1 { &mut *test } else { &mut *train };
            let pieces = fastq_kernels::gram::pieces(k);
            let out = Disjoint::new(gram);
            let cpu = input.cpu;
            input.pool.run(pieces, input.interrupt, |piece, _| {
                let rows = fastq_kernels::gram::rows(k, piece);
                // SAFETY: the pieces are disjoint ranges of rows.
                let out = unsafe { out.slice(rows.start * k..rows.end * k) };
                accumulate(cpu, x, k, rows, out);
            })?;
            *rows += count;
            left = rest;
        }
        Ok(())
    }
}

impl Collector {
    fn room(&self, input: &Input<'_>) -> Result<Inputs> {
        let k = input.k;
        let bytes = 8 * (k as u64).saturating_mul(k as u64);
        let used: u64 = self.inputs.iter().map(|known| 8 * (known.k as u64).pow(2)).sum();
        if used.saturating_add(bytes) > self.limit {
            let (names, limit) = (input.tensors.join(", "), human(self.limit));
            return Err(Error::Memory(format!(
                "the Gram matrices of {k} inputs ({names}) need {} more than the {limit} that are free; use method \"search\"",
                human(used.saturating_add(bytes) - self.limit)
            )));
        }
        Ok(Inputs {
            tensors: input.tensors.iter().map(|&name| name.to_owned()).collect(),
            expert: input.expert,
            k,
            rows: 0,
            train: Zeroed::scratch(k, k)?,
            test: Zeroed::scratch(k, k)?,
        })
    }
}
