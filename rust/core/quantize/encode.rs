//! Makes the data of the tensors, a piece at a time: what is in memory does not grow with them.

use std::ops::Range;

use fastq_kernels::quantize::{ROWS, search};
use fastq_kernels::{Cpu, Distortion, Format, distortion, first_not_finite};

use super::plan::{Plan, PlannedTensor};
use crate::gguf::{Draft, Gguf, TensorInfo, TensorReader};
use crate::model::Replacement;
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

/// Makes blocks of rows, which know nothing of each other.
pub trait RowEncoder: Sync {
    /// What it does to rows of `format`.
    fn encoding(&self, format: Format) -> Encoding;

    /// The most rows that one call gets. Only speed depends on it.
    fn rows(&self) -> usize {
        1
    }

    /// Encodes `values` `(rows, k)` in blocks of `format`. `importance` `(k)` says how much an error of each column matters.
    ///
    /// # Errors
    /// What is wrong, without the tensor's name.
    fn encode(
        &self,
        cpu: Cpu,
        format: Format,
        k: usize,
        values: &[f32],
        importance: Option<&[f32]>,
        out: &mut [u8],
    ) -> Result<(), String>;
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

    fn fault(&self, fault: Fault) -> Error {
        match fault {
            Fault::NotFinite { row, column, value } => self.not_finite(row, column, value),
            Fault::Range { row } => self.too_large(row),
            Fault::Other(what) => Error::Argument(format!("tensor {:?}: {what}", self.tensor().info.name)),
        }
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

/// Encodes row by row.
#[derive(Clone, Copy, Debug)]
pub struct Rows<E>(pub E);

/// Why a row was not encoded.
enum Fault {
    NotFinite { row: u64, column: usize, value: f32 },
    Range { row: u64 },
    Other(String),
}

/// What a thread computes with.
struct Scratch {
    values: Vec<f32>,
    decoded: Vec<f32>,
}

impl<E: RowEncoder> Encoder for Rows<E> {
    fn encode(&mut self, job: &mut Job<'_>) -> Result<Done> {
        if !job.tensor().is_encoded() {
            return job.copy();
        }
        let (k, from, to) = (job.k()?, job.source_format()?, job.target_format()?);
        let (from_bytes, to_bytes) = (job.row_bytes(from, k)?, job.row_bytes(to, k)?);
        let importance = job.importance()?;
        let total = job.tensor().info.rows();
        let batch = (BATCH_WEIGHTS / k).max(1).min(usize::try_from(total).unwrap_or(usize::MAX));
        // Whole calls of the encoder.
        let (most, group) = (self.0.rows(), (GROUP_WEIGHTS / k).max(1).next_multiple_of(self.0.rows()));
        let mut source = buffer(bytes_of(batch, from_bytes)?, 0u8)?;
        let mut out = buffer(bytes_of(batch, to_bytes)?, 0u8)?;
        let mut scratch = Vec::new();
        for _ in 0..job.pool.threads() {
            scratch.push(Scratch { values: buffer(bytes_of(most, k)?, 0.0)?, decoded: buffer(k, 0.0)? });
        }
        let mut sum = Distortion::default();
        let mut first = 0;
        while first < total {
            let rows = (total - first).min(batch as u64) as usize;
            let (source, out) = (&mut source[..rows * from_bytes], &mut out[..rows * to_bytes]);
            job.reader.read(&job.tensor().info, first * from_bytes as u64, source)?;
            let source = &*source;
            let pieces = rows.div_ceil(group);
            let mut results: Vec<Result<Distortion, Fault>> = Vec::new();
            results.resize_with(pieces, || Ok(Distortion::default()));
            {
                let (shared, results) = (Disjoint::new(out), Disjoint::new(&mut results));
                let scratch = Disjoint::new(&mut scratch);
                let (cpu, shape) = (job.cpu, &job.tensor().info.shape);
                let part = |rows: Range<usize>, Scratch { values, decoded }: &mut Scratch, out: &mut [u8]| {
                    let number = |row: usize| first + row as u64;
                    let values = &mut values[..rows.len() * k];
                    from.dequantize(&source[rows.start * from_bytes..rows.end * from_bytes], values);
                    if let Some(at) = first_not_finite(cpu, values) {
                        let row = number(rows.start + at / k);
                        return Err(Fault::NotFinite { row, column: at % k, value: values[at] });
                    }
                    let expert = expert_of(shape, number(rows.start));
                    let importance = importance.as_deref().map(|all| &all[expert * k..(expert + 1) * k]);
                    self.0.encode(cpu, to, k, values, importance, out).map_err(Fault::Other)?;
                    let mut rows = rows.zip(values.chunks_exact(k).zip(out.chunks_exact(to_bytes)));
                    rows.try_fold(Distortion::default(), |sum, (row, (values, out))| {
                        to.dequantize(out, decoded);
                        let found = distortion(cpu, values, decoded);
                        if found.error.is_finite() {
                            Ok(sum.and(found))
                        } else {
                            Err(Fault::Range { row: number(row) })
                        }
                    })
                };
                // Rows of one call have the importance of one expert.
                let of_expert =
                    usize::try_from(job.tensor().info.shape.get(1).copied().unwrap_or(1)).unwrap_or(usize::MAX);
                let end_of = |row: usize| {
                    let within = (first % of_expert as u64) as usize + row;
                    row.saturating_add((of_expert - within % of_expert).min(most))
                };
                job.pool.run(pieces, job.interrupt, |piece, worker| {
                    // SAFETY: every piece has rows and a result, every worker a scratch of its own.
                    let (result, scratch) = unsafe { (results.item(piece), scratch.item(worker)) };
                    let (mut row, end) = (piece * group, rows.min((piece + 1) * group));
                    while row < end {
                        let range = row..end.min(end_of(row));
                        // SAFETY: as above.
                        let out = unsafe { shared.slice(range.start * to_bytes..range.end * to_bytes) };
                        row = range.end;
                        match (&mut *result, part(range, scratch, out)) {
                            (Ok(sum), Ok(found)) => *sum = sum.and(found),
                            (_, fault) => {
                                *result = fault;
                                break;
                            }
                        }
                    }
                })?;
            }
            for result in results {
                sum = sum.and(result.map_err(|fault| job.fault(fault))?);
            }
            job.write(first, out)?;
            first += rows as u64;
            job.report(first * k as u64);
        }
        Ok(Done::Encoded(sum, Way { encoding: self.0.encoding(to), scaled: false }))
    }
}

/// The method [`Search`](super::Method::Search), for formats that have a grid; ternary ones are rounded as by ggml.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search;

impl RowEncoder for Search {
    fn encoding(&self, format: Format) -> Encoding {
        if format.has_grid() { Encoding::Search } else { Encoding::Rtn }
    }

    fn rows(&self) -> usize {
        ROWS
    }

    fn encode(
        &self,
        cpu: Cpu,
        format: Format,
        k: usize,
        values: &[f32],
        importance: Option<&[f32]>,
        out: &mut [u8],
    ) -> Result<(), String> {
        let bytes = out.len() * k / values.len();
        if !format.has_grid() || values.len() == k && may_be_too_large(cpu, values) {
            return Rtn.encode(cpu, format, k, values, importance, out);
        }
        if values.len() > k && may_be_too_large(cpu, values) {
            // Each alone: what becomes of a row does not depend on its neighbours.
            let mut rows = values.chunks_exact(k).zip(out.chunks_exact_mut(bytes));
            return rows.try_for_each(|(values, out)| self.encode(cpu, format, k, values, importance, out));
        }
        search(cpu, format, k, importance, values, out);
        Ok(())
    }
}

/// Whether weights exceed the largest f16, so that a scale may. A search would stop at the largest scale; rounding shows whether the
/// type holds such weights.
pub(super) fn may_be_too_large(cpu: Cpu, values: &[f32]) -> bool {
    distortion(cpu, values, values).power > 65504.0 * 65504.0
}

/// The method [`Rtn`](super::Method::Rtn).
#[derive(Clone, Copy, Debug)]
pub(super) struct Rtn;

impl RowEncoder for Rtn {
    fn encoding(&self, _: Format) -> Encoding {
        Encoding::Rtn
    }

    fn encode(
        &self,
        cpu: Cpu,
        format: Format,
        k: usize,
        values: &[f32],
        importance: Option<&[f32]>,
        out: &mut [u8],
    ) -> Result<(), String> {
        let bytes = out.len() * k / values.len();
        let mut rows = values.chunks_exact(k).zip(out.chunks_exact_mut(bytes));
        rows.try_for_each(|(values, out)| format.quantize_row(cpu, values, importance, out))
            .map_err(|error| error.to_string())
    }
}

/// Which expert row `row` of a tensor of this shape belongs to.
fn expert_of(shape: &[u64], row: u64) -> usize {
    let (rows, experts) = (shape.get(1).copied().unwrap_or(1), shape.get(2).copied().unwrap_or(1));
    (row / rows % experts) as usize
}

fn bytes_of(rows: usize, row: usize) -> Result<usize> {
    rows.checked_mul(row).ok_or_else(|| Error::Memory(format!("{rows} rows of {row} bytes exceed the address space")))
}

/// Memory for `count` items; that there is none is an error, not the end of the process.
pub(super) fn buffer<T: Clone>(count: usize, value: T) -> Result<Vec<T>> {
    let mut items = Vec::new();
    let bytes = count.saturating_mul(size_of::<T>());
    items
        .try_reserve_exact(count)
        .map_err(|_| Error::Memory(format!("{bytes} bytes for a piece of a tensor are not to be had")))?;
    items.resize(count, value);
    Ok(items)
}

/// Type and length of the rows of a tensor that holds weights.
fn layout(info: &TensorInfo) -> Result<(Format, usize)> {
    let lost = || Error::Internal(format!("tensor {:?} cannot be read", info.name));
    Ok((info.ty.kernel().ok_or_else(lost)?, usize::try_from(info.k()).map_err(|_| lost())?))
}

/// At most `count` rows `(rows, k)` of a tensor, evenly spread.
///
/// # Errors
/// [`Error::Io`], [`Error::ModelFile`] as the reader; [`Error::Memory`].
pub(super) fn sample(source: &Gguf, info: &TensorInfo, count: u64) -> Result<Vec<f32>> {
    let (format, k) = layout(info)?;
    let row_bytes = bytes_of_row(info, format, k)?;
    let rows = info.rows().min(count);
    let mut reader = source.reader();
    let (mut bytes, mut out) = (buffer(row_bytes, 0u8)?, buffer(rows as usize * k, 0.0)?);
    for (i, out) in out.chunks_exact_mut(k).enumerate() {
        reader.read(info, i as u64 * info.rows() / rows * row_bytes as u64, &mut bytes)?;
        format.dequantize(&bytes, out);
    }
    Ok(out)
}

/// All of a tensor, as a [search](fastq_kernels::quantize::search) makes it in another format, which divides its rows and has a grid.
///
/// # Errors
/// As for [`sample`]; [`Error::Cancelled`].
pub(super) fn searched(
    source: &Gguf,
    info: &TensorInfo,
    to: Format,
    importance: Option<&[f32]>,
    (pool, cpu): (&mut Pool, Cpu),
    interrupt: &dyn Interrupt,
) -> Result<Replacement> {
    let (from, k) = layout(info)?;
    let (from_bytes, to_bytes) = (bytes_of_row(info, from, k)?, bytes_of_row(info, to, k)?);
    let refused = |_| Error::Memory(format!("tensor {:?} does not fit the memory", info.name));
    let rows = usize::try_from(info.rows()).map_err(refused)?;
    let mut out = buffer(bytes_of(rows, to_bytes)?, 0u8)?;
    let batch = (BATCH_WEIGHTS / k).max(ROWS).next_multiple_of(ROWS).min(rows);
    let mut bytes = buffer(bytes_of(batch, from_bytes)?, 0u8)?;
    let mut reader = source.reader();
    for (index, out) in out.chunks_mut(batch * to_bytes).enumerate() {
        let count = out.len() / to_bytes;
        let bytes = &mut bytes[..count * from_bytes];
        reader.read(info, (index * batch * from_bytes) as u64, bytes)?;
        let (bytes, shared) = (&*bytes, Disjoint::new(out));
        pool.run(count.div_ceil(ROWS), interrupt, |piece, _| {
            let range = piece * ROWS..count.min((piece + 1) * ROWS);
            // SAFETY: every piece has rows of its own.
            let out = unsafe { shared.slice(range.start * to_bytes..range.end * to_bytes) };
            let mut values = vec![0.0; range.len() * k];
            from.dequantize(&bytes[range.start * from_bytes..range.end * from_bytes], &mut values);
            search(cpu, to, k, importance, &values, out);
        })?;
    }
    Ok(Replacement { ty: to.into(), data: out.into() })
}

fn bytes_of_row(info: &TensorInfo, format: Format, k: usize) -> Result<usize> {
    format
        .row_bytes(k)
        .ok_or_else(|| Error::Internal(format!("tensor {:?}: rows of {k} in {}", info.name, format.name())))
}
