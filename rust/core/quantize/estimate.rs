//! What a run would lose and take, from a sample: rows of a few tensors of each type are encoded as the run would encode them.

use std::time::Instant;

use fastq_kernels::quantize::{Feedback, ROWS, feedback};
use fastq_kernels::{Cpu, Distortion, Format, distortion};

use super::encode::{BATCH_WEIGHTS, Encoding, RowEncoder, Rtn, Search, buffer, sample};
use super::plan::{Plan, PlannedTensor};
use super::{Method, Report, layered};
use crate::machine::{Machine, peak_rss_bytes};
use crate::{Error, Interrupt, Result};

/// Tensors of a type that are looked at.
const TENSORS: usize = 4;

/// What is expected of the tensors of one type.
struct Expected {
    error: f64,
    /// Of one weight, on one thread.
    seconds: f64,
}

impl Plan<'_> {
    /// What [`run`](super::run) would report, with the error and the seconds that a sample of the rows says, and the memory that it would take at
    /// most. The passes over a calibration text are not among the seconds. Without what types need ([`Plan::check`]), sizes and types
    /// only, and a warning that says so.
    ///
    /// # Errors
    /// [`Error::Argument`] when the method needs text; as for [`run`](super::run), what is wrong with weights that were looked at.
    pub fn dry_run(&self, interrupt: &dyn Interrupt) -> Result<Report> {
        self.method().check(self)?;
        let mut report = Report { dry_run: true, ..Report::of(self, &[], self.file_bytes()?) };
        match self.check() {
            Ok(()) => self.estimate(&mut report, interrupt)?,
            Err(missing) => report.warnings.push(missing.to_string()),
        }
        Ok(report)
    }

    fn estimate(&self, report: &mut Report, interrupt: &dyn Interrupt) -> Result<()> {
        let cpu = Cpu::detect().map_err(|error| Error::Argument(error.to_string()))?;
        let threads = self.threads().unwrap_or_else(|| Machine::this().threads());
        let mut formats: Vec<Format> = self.encoded().filter_map(|tensor| tensor.ty.kernel()).collect();
        formats.sort_by_key(|format| format.info().id);
        formats.dedup();
        let (mut error, mut weights, mut seconds) = (0.0, 0.0, 0.0);
        for format in formats {
            let tensors: Vec<_> = self.encoded().filter(|tensor| tensor.ty.kernel() == Some(format)).collect();
            let expected = self.expected(format, &tensors, cpu, interrupt)?;
            let count = tensors.iter().map(|tensor| tensor.info.elements()).sum::<u64>() as f64;
            error += expected.error * count;
            seconds += expected.seconds * count / threads as f64;
            weights += count;
        }
        report.error = Some(error / weights).filter(|error| error.is_finite());
        report.seconds = seconds;
        report.peak_rss_bytes = peak_rss_bytes().map(|now| now.saturating_add(self.memory(threads)));
        Ok(())
    }

    fn encoded(&self) -> impl Iterator<Item = &PlannedTensor> {
        self.tensors().iter().filter(|tensor| tensor.is_encoded())
    }

    /// The mean of some tensors of one type.
    fn expected(
        &self,
        format: Format,
        tensors: &[&PlannedTensor],
        cpu: Cpu,
        interrupt: &dyn Interrupt,
    ) -> Result<Expected> {
        let (mut errors, mut seconds, mut weights, mut looked) = (0.0, 0.0, 0.0, 0.0);
        for at in 0..tensors.len().min(TENSORS) {
            if interrupt.stop() {
                return Err(Error::Cancelled);
            }
            let tensor = tensors[at * tensors.len() / tensors.len().min(TENSORS)];
            let w = sample(self.source(), &tensor.info, ROWS as u64)?;
            let k = tensor.info.k() as usize;
            let importance = match self.importance().filter(|_| tensor.importance) {
                Some(importance) => importance.of(&tensor.info)?,
                None => None,
            };
            let importance = importance.as_ref().map(|all| &all[..k]);
            let start = Instant::now();
            let error = encode(self.method().candidates_of(self), format, k, &w, importance, cpu)?;
            seconds += start.elapsed().as_secs_f64();
            weights += w.len() as f64;
            errors += error;
            looked += 1.0;
        }
        Ok(Expected { error: errors / looked, seconds: seconds / weights })
    }

    /// Bytes that a run allocates at most.
    fn memory(&self, threads: usize) -> u64 {
        let largest = self.encoded().max_by_key(|tensor| tensor.info.elements());
        let Some(largest) = largest else { return 0 };
        let row = largest.info.k().max(1);
        let batch = (BATCH_WEIGHTS as u64).max(row).min(largest.info.elements());
        // A batch as it is read and as it is written, and rows of every thread.
        let rows = 2 * batch * largest.info.bytes / largest.info.elements() + 8 * threads as u64 * ROWS as u64 * row;
        if !self.method().is_layered(self) {
            return rows;
        }
        let widest = self.encoded().map(|tensor| tensor.info.k()).max().unwrap_or(0);
        let candidates = self.method().candidates_of(self).len() as u64;
        // The encodings that are compared, weights as floats; for each input two Gram matrices, the factor and its matrix in f64.
        let floats = 4 * (layered::BATCH_WEIGHTS as u64).max(row).min(largest.info.elements());
        rows + candidates * largest.bytes + floats + (2 * 4 + 4 + 8) * widest * widest
    }
}

/// Encodes rows in all ways; gives the relative error of the last.
fn encode(
    candidates: &[Encoding],
    format: Format,
    k: usize,
    w: &[f32],
    importance: Option<&[f32]>,
    cpu: Cpu,
) -> Result<f64> {
    let row_bytes = format.row_bytes(k).ok_or_else(|| Error::Internal(format!("rows of {k} in {}", format.name())))?;
    let mut out = buffer(w.len() / k * row_bytes, 0u8)?;
    for candidate in candidates {
        let encoded = match candidate {
            Encoding::Rtn => Rtn.encode(cpu, format, k, w, importance, &mut out),
            Encoding::Feedback if format.has_grid() => {
                // Inputs that have nothing to do with each other: the work is the same, whatever they are.
                let mut factor = buffer(k * k, 0.0f32)?;
                (0..k).for_each(|i| factor[i * k + i] = 1.0);
                feedback(cpu, format, Feedback { k, factor: &factor }, w, &mut out);
                Ok(())
            }
            Encoding::Search | Encoding::Feedback => Search.encode(cpu, format, k, w, importance, &mut out),
        };
        encoded.map_err(Error::Argument)?;
    }
    let mut q = buffer(w.len(), 0.0)?;
    format.dequantize(&out, &mut q);
    let found: Distortion = distortion(cpu, w, &q);
    Ok(found.relative())
}

impl Method {
    /// What a plan's run tries.
    fn candidates_of(self, plan: &Plan<'_>) -> &'static [Encoding] {
        if self.is_layered(plan) || self == Method::Rtn { self.candidates() } else { Method::Search.candidates() }
    }
}
