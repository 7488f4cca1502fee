//! Makes the data of the tensors, a piece at a time: what is in memory does not grow with them.

mod rows;
mod weights;

use std::ops::Range;

use fastq_kernels::{Cpu, Distortion, Format, first_not_finite};

pub use rows::{RowEncoder, Rows};
pub(super) use rows::{Rtn, Search, may_be_too_large};
use weights::bytes_of_row;
pub(super) use weights::{buffer, sample, searched};

use super::plan::{Plan, PlannedTensor};
use crate::gguf::{Draft, TensorReader};
use crate::pool::{Disjoint, Pool};
use crate::{Error, Interrupt, Result};

/// Weights that are in memory at once, unless a row has more.
pub(super) const BATCH_WEIGHTS: usize = 1 << 20;
/// Weights that a thread takes at once, unless a row has more: the slowest type takes some 40 ms for them, which is how long an interrupt waits.
const GROUP_WEIGHTS: usize = 1 << 13;
/// Bytes that are copied at once.
const COPY_BYTES: usize = 1 << 18;

/// Makes the data of one tensor after the other.
pub trait Encoder {
    /// Writes all data of the tensor of `job`.
    ///
    /// # Errors
    /// Those of [`Job`], and its own.
    fn encode(&mut self, job: &mut Job<'_>) -> Result<Done>;

    /// The numbers of the tensors in the order in which they are asked for.
    fn order(&self, plan: &Plan<'_>) -> Vec<usize> {
        (0..plan.tensors().len()).collect()
    }
}

/// What became of a tensor.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Done {
    /// Its bytes are those of the source.
    Copied,
    /// Its weights changed so much, encoded in this way.
    Encoded(Distortion, Way),
}

/// One way to find the integers of a matrix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    /// As ggml.
    Rtn,
    /// Weighted search.
    Search,
    /// Error feedback.
    Feedback,
}

/// How the integers of a matrix were found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Way {
    /// With which encoding.
    pub encoding: Encoding,
    /// After its columns were scaled, as AWQ does.
    pub scaled: bool,
}

impl Way {
    const ALL: [(Way, &'static str); 6] = [
        (Way { encoding: Encoding::Rtn, scaled: false }, "rtn"),
        (Way { encoding: Encoding::Search, scaled: false }, "search"),
        (Way { encoding: Encoding::Feedback, scaled: false }, "feedback"),
        (Way { encoding: Encoding::Rtn, scaled: true }, "awq+rtn"),
        (Way { encoding: Encoding::Search, scaled: true }, "awq+search"),
        (Way { encoding: Encoding::Feedback, scaled: true }, "awq+feedback"),
    ];

    /// Its name, `"awq+feedback"`.
    pub fn name(self) -> &'static str {
        Way::ALL.iter().find(|(way, _)| *way == self).map_or("", |(_, name)| name)
    }

    fn from_name(name: &str) -> Option<Way> {
        Way::ALL.iter().find(|(_, other)| *other == name).map(|(way, _)| *way)
    }
}

impl Done {
    /// One short line, exact.
    pub(super) fn to_note(self) -> String {
        match self {
            Done::Copied => "copied".into(),
            Done::Encoded(Distortion { power, error, worst }, way) => {
                format!("{:016x} {:016x} {:08x} {}", power.to_bits(), error.to_bits(), worst.to_bits(), way.name())
            }
        }
    }

    /// The inverse of [`to_note`](Done::to_note).
    pub(super) fn from_note(note: &str) -> Option<Done> {
        if note == "copied" {
            return Some(Done::Copied);
        }
        let mut parts = note.split(' ');
        let mut float = || u64::from_str_radix(parts.next()?, 16).ok().map(f64::from_bits);
        let (power, error) = (float()?, float()?);
        let worst = f32::from_bits(u32::from_str_radix(parts.next()?, 16).ok()?);
        Some(Done::Encoded(Distortion { power, error, worst }, Way::from_name(parts.next()?)?))
    }
}

/// One tensor to be made: its weights, what is known of them, and where the result goes.
pub struct Job<'a> {
    plan: &'a Plan<'a>,
    index: usize,
    reader: TensorReader<'a>,
    draft: &'a mut Draft,
    pool: &'a mut Pool,
    cpu: Cpu,
    interrupt: &'a dyn Interrupt,
    progress: &'a dyn Fn(u64),
}

impl std::fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("tensor", self.tensor()).finish_non_exhaustive()
    }
}

impl<'a> Job<'a> {
    pub(super) fn new(
        plan: &'a Plan<'a>,
        index: usize,
        draft: &'a mut Draft,
        pool: &'a mut Pool,
        cpu: Cpu,
        interrupt: &'a dyn Interrupt,
        progress: &'a dyn Fn(u64),
    ) -> Job<'a> {
        Job { plan, index, reader: plan.source().reader(), draft, pool, cpu, interrupt, progress }
    }

    /// The tensor.
    pub fn tensor(&self) -> &'a PlannedTensor {
        &self.plan.tensors()[self.index]
    }

    /// The whole plan.
    pub fn plan(&self) -> &'a Plan<'a> {
        self.plan
    }

    /// The level to compute on.
    pub fn cpu(&self) -> Cpu {
        self.cpu
    }

    /// The threads to compute with.
    pub fn pool(&mut self) -> &mut Pool {
        self.pool
    }

    /// What stops the work.
    pub fn interrupt(&self) -> &'a dyn Interrupt {
        self.interrupt
    }

    /// Says that this many of the tensor's weights are done.
    pub fn report(&self, weights: u64) {
        (self.progress)(weights);
    }

    /// Length of a row.
    ///
    /// # Errors
    /// [`Error::Memory`] when a row does not fit the address space.
    pub fn k(&self) -> Result<usize> {
        let k = self.tensor().info.k();
        usize::try_from(k)
            .map_err(|_| Error::Memory(format!("tensor {:?} has rows of {k} weights", self.tensor().info.name)))
    }

    /// Mean squares of the inputs `(experts, k)`, where an importance matrix has them and the type uses them.
    ///
    /// # Errors
    /// As for the plan.
    pub fn importance(&self) -> Result<Option<Vec<f32>>> {
        match self.plan.importance().filter(|_| self.tensor().importance) {
            Some(importance) => importance.of(&self.tensor().info),
            None => Ok(None),
        }
    }

    /// Which expert a row belongs to; 0 in a matrix without experts.
    pub fn expert(&self, row: u64) -> usize {
        expert_of(&self.tensor().info.shape, row)
    }

    /// Fills `out` `(rows, k)` with weights of the source.
    ///
    /// # Errors
    /// [`Error::ModelFile`] that names the first weight which is NaN or infinite; [`Error::Io`], [`Error::Cancelled`], [`Error::Memory`].
    ///
    /// # Panics
    /// When the tensor has no such rows or `out` another length.
    pub fn read(&mut self, rows: Range<u64>, out: &mut [f32]) -> Result<()> {
        let (k, format) = (self.k()?, self.source_format()?);
        let row_bytes = self.row_bytes(format, k)?;
        let mut bytes = buffer(out.len() / k * row_bytes, 0u8)?;
        assert_eq!(out.len() as u64, (rows.end - rows.start) * k as u64, "rows of {k}");
        self.reader.read(&self.tensor().info, rows.start * row_bytes as u64, &mut bytes)?;
        let faults = {
            let group = (GROUP_WEIGHTS / k).max(1);
            let count = out.len() / k;
            let mut faults = buffer(count.div_ceil(group), None)?;
            let (shared, shared_faults) = (Disjoint::new(out), Disjoint::new(&mut faults));
            let cpu = self.cpu;
            self.pool.run(count.div_ceil(group), self.interrupt, |piece, _| {
                let range = piece * group..count.min((piece + 1) * group);
                // SAFETY: every piece has rows of its own.
                let (out, fault) = unsafe { (shared.slice(range.start * k..range.end * k), shared_faults.item(piece)) };
                format.dequantize(&bytes[range.start * row_bytes..range.end * row_bytes], out);
                *fault = first_not_finite(cpu, out).map(|at| (range.start * k + at, out[at]));
            })?;
            faults
        };
        match faults.into_iter().flatten().next() {
            None => Ok(()),
            Some((at, value)) => Err(self.not_finite(rows.start + (at / k) as u64, at % k, value)),
        }
    }

    /// Data that tensor number `index` has in the new file, in this run or an earlier one; `None` while they are not complete.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Memory`].
    pub fn completed(&self, index: usize) -> Result<Option<Vec<u8>>> {
        self.draft.completed(index)
    }

    /// Writes rows of the result, from row `first` on.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Cancelled`], [`Error::Argument`] when the tensor has no such rows.
    pub fn write(&mut self, first: u64, blocks: &[u8]) -> Result<()> {
        let info = self.tensor();
        let row = info.ty.row_bytes(info.info.k()).unwrap_or(0);
        self.draft.write_at(self.index, first.saturating_mul(row), blocks, self.interrupt)
    }

    /// Writes other data than the source has, of a tensor that keeps its type: a norm into which a scale was folded.
    ///
    /// # Errors
    /// As for [`write`](Job::write).
    pub fn write_all(&mut self, data: &[u8]) -> Result<()> {
        self.draft.write_at(self.index, 0, data, self.interrupt)
    }

    /// Writes the data that the source has.
    ///
    /// # Errors
    /// As for [`read`](Job::read) and [`write`](Job::write).
    pub fn copy(&mut self) -> Result<Done> {
        let info = &self.tensor().info;
        let kernel = info.ty.kernel();
        let unit = usize::try_from(info.ty.block_bytes()).unwrap_or(1);
        let block = usize::try_from(info.ty.block()).unwrap_or(1);
        let most = (COPY_BYTES / unit).max(1) * unit;
        let mut bytes = buffer(most.min(usize::try_from(info.bytes).unwrap_or(most)), 0u8)?;
        let mut values = buffer(if kernel.is_some() { bytes.len() / unit * block } else { 0 }, 0f32)?;
        let mut at = 0;
        while at < info.bytes {
            let count = (info.bytes - at).min(bytes.len() as u64) as usize;
            let bytes = &mut bytes[..count];
            self.reader.read(info, at, bytes)?;
            if let Some(format) = kernel {
                let values = &mut values[..count / unit * block];
                format.dequantize(bytes, values);
                if let Some(index) = first_not_finite(self.cpu, values) {
                    let weight = at / unit as u64 * block as u64 + index as u64;
                    let k = info.k();
                    return Err(self.not_finite(weight / k, (weight % k) as usize, values[index]));
                }
            }
            self.draft.write_at(self.index, at, bytes, self.interrupt)?;
            at += count as u64;
        }
        Ok(Done::Copied)
    }

    fn source_format(&self) -> Result<Format> {
        let info = &self.tensor().info;
        info.ty
            .kernel()
            .ok_or_else(|| Error::UnsupportedModel(format!("tensor {:?}: {} holds no weights", info.name, info.ty)))
    }

    fn target_format(&self) -> Result<Format> {
        let tensor = self.tensor();
        tensor
            .ty
            .kernel()
            .ok_or_else(|| Error::Argument(format!("tensor {:?}: {} cannot be made", tensor.info.name, tensor.ty)))
    }

    fn row_bytes(&self, format: Format, k: usize) -> Result<usize> {
        bytes_of_row(&self.tensor().info, format, k)
    }

    /// The error of a row that the type cannot hold.
    pub(super) fn too_large(&self, row: u64) -> Error {
        let (info, ty) = (&self.tensor().info, self.tensor().ty);
        let what = format!("tensor {:?}: the weights of row {row} are too large for {ty}", info.name);
        self.plan.source().tensor_error(info, what)
    }

    fn not_finite(&self, row: u64, column: usize, value: f32) -> Error {
        let info = &self.tensor().info;
        let what = format!(
            "tensor {:?}: weight {column} of row {row} is {value}, expected a finite number: damaged",
            info.name
        );
        self.plan.source().tensor_error(info, what)
    }
}

/// Which expert row `row` of a tensor of this shape belongs to.
fn expert_of(shape: &[u64], row: u64) -> usize {
    let (rows, experts) = (shape.get(1).copied().unwrap_or(1), shape.get(2).copied().unwrap_or(1));
    (row / rows % experts) as usize
}
