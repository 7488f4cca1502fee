//! Gram matrices `XᵀX` of the inputs of matrices: what error feedback needs to know of them.

use std::collections::BTreeMap;

use fastq_kernels::gram::{gram, mirror};

use crate::memory::human;
use crate::model::{Input, Observer};
use crate::pool::Disjoint;
use crate::{Error, Result};

/// Rows of a Gram matrix that a thread takes at once: the first see the most columns, so pieces are small.
const ROWS: usize = 32;

/// The Gram matrix of an input.
#[derive(Clone, PartialEq, Debug)]
pub struct Gram {
    /// Inputs of a row.
    pub k: usize,
    /// Sums of products `(k, k)`, symmetric.
    pub sums: Vec<f32>,
    /// Rows that were added up.
    pub count: u64,
}

/// Collects the Gram matrices of the inputs that somebody wants. The sums have the order of the rows: neither threads nor chunks change them.
pub struct Grams<'a> {
    wanted: &'a dyn Fn(&str) -> bool,
    /// Of each tensor, the one under whose name its input is.
    names: BTreeMap<String, String>,
    grams: BTreeMap<(String, Option<usize>), Gram>,
}

impl std::fmt::Debug for Grams<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Grams({} inputs)", self.grams.len())
    }
}

impl<'a> Grams<'a> {
    /// Collects those of the tensors whose name is wanted.
    pub fn new(wanted: &'a dyn Fn(&str) -> bool) -> Grams<'a> {
        Grams { wanted, names: BTreeMap::new(), grams: BTreeMap::new() }
    }

    /// Fills the lower halves: then the matrices can be used.
    pub fn finish(&mut self) {
        self.grams.values_mut().for_each(|gram| mirror(&mut gram.sums, gram.k));
    }

    /// That of a tensor, of an expert where the tensor is the matrices of all; tensors that share their input share it, too.
    pub fn get(&self, tensor: &str, expert: Option<usize>) -> Option<&Gram> {
        self.grams.get(&(self.names.get(tensor)?.clone(), expert))
    }

    /// As [`get`](Grams::get), to be changed.
    pub fn get_mut(&mut self, tensor: &str, expert: Option<usize>) -> Option<&mut Gram> {
        self.grams.get_mut(&(self.names.get(tensor)?.clone(), expert))
    }

    /// The tensor that stands for all that share the input of this one.
    pub fn key(&self, tensor: &str) -> Option<&str> {
        self.names.get(tensor).map(String::as_str)
    }

    /// The tensors that share an input, by the one that stands for them.
    pub fn shared(&self) -> BTreeMap<String, Vec<String>> {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (tensor, key) in &self.names {
            all.entry(key.clone()).or_default().push(tensor.clone());
        }
        all
    }

    /// Says that the input of `tensor` is the one under the name of `key`; whether its matrix is still missing.
    pub(super) fn name(&mut self, tensor: &str, key: &str) -> bool {
        let known = self.names.values().any(|name| name == key);
        self.names.insert(tensor.to_owned(), key.to_owned());
        !known
    }

    /// Puts a matrix under the name of `key`.
    pub(super) fn insert(&mut self, key: &str, expert: Option<usize>, gram: Gram) {
        self.grams.insert((key.to_owned(), expert), gram);
    }

    /// Takes it out.
    pub fn take(&mut self, tensor: &str, expert: Option<usize>) -> Option<Gram> {
        self.grams.remove(&(self.names.get(tensor)?.clone(), expert))
    }
}

impl Observer for Grams<'_> {
    fn input(&mut self, input: &mut Input<'_>) -> Result<()> {
        let (k, cpu, x) = (input.k, input.cpu, input.x);
        let wanted = || input.tensors.iter().filter(|name| (self.wanted)(name));
        let Some(first) = wanted().next() else { return Ok(()) };
        for name in wanted().filter(|name| !self.names.contains_key(**name)).collect::<Vec<_>>() {
            self.names.insert((*name).to_string(), (*first).to_string());
        }
        let key = ((*first).to_owned(), input.expert);
        if !self.grams.contains_key(&key) {
            let (values, mut sums) = (k.saturating_mul(k), Vec::new());
            sums.try_reserve_exact(values).map_err(|_| {
                let bytes = human((values as u64).saturating_mul(4));
                Error::Memory(format!("the system refused {bytes} for the Gram matrix of tensor {first}"))
            })?;
            sums.resize(values, 0.0);
            self.grams.insert(key.clone(), Gram { k, sums, count: 0 });
        }
        let Some(Gram { sums, count, .. }) = self.grams.get_mut(&key) else { return Ok(()) };
        *count += (x.len() / k) as u64;
        let sums = Disjoint::new(sums);
        input.pool.run(k.div_ceil(ROWS), input.interrupt, |piece, _| {
            let rows = piece * ROWS..k.min((piece + 1) * ROWS);
            // SAFETY: a row of the matrix belongs to one piece.
            let out = unsafe { sums.slice(rows.start * k..rows.end * k) };
            gram(cpu, x, k, rows, out);
        })
    }
}
