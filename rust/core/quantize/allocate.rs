//! Types for the tensors that make the best file of a size.
//!
//! What a type costs a model is measured: with one tensor at a low type and the rest as they are, how far are the answers from those of the
//! model (mean KL divergence)? For small errors the divergences of the tensors add up, and that of a tensor is proportional to the squared error
//! of its weights (the linearity theorem of HIGGS, arXiv 2411.17525), so one measurement per tensor gives those of all types. Which types
//! to take under a limit of bytes is a knapsack problem, solved by dynamic programming. The choice as a whole is measured once more.

use std::collections::HashMap;

use fastq_kernels::elementwise::divergence;
use fastq_kernels::quantize::search;
use fastq_kernels::{Cpu, Format};

use super::calibration::{CHUNK, Calibration, Pieces};
use super::encode::{buffer, sample, searched};
use super::layered::layer_of;
use super::plan::Plan;
use super::{workers, working};
use crate::calibrate::{self, calibrate_on};
use crate::gguf::TensorInfo;
use crate::imatrix::Imatrix;
use crate::memory::human;
use crate::model::{LayerStates, LoadOptions, Model, Replacement};
use crate::pool::Pool;
use crate::{Error, Interrupt, Progress, Result, Silent};

/// What a file is made for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Size {
    /// At most so many bytes, header and padding included.
    Bytes(u64),
    /// At most so many bits of tensor data per weight.
    Bits(f64),
    /// As small as it gets with this mean KL divergence from the source, in nats, on the calibration text.
    Divergence(f64),
}

impl Size {
    /// A number of bytes as people write it: `"700MB"` (10^6), `"1.5 GiB"`, `"123456"`.
    ///
    /// # Errors
    /// [`Error::Argument`].
    pub fn bytes(text: &str) -> Result<Size> {
        let wrong = || Error::Argument(format!("a size must be like 700MB, 1.5GiB or 123456, found {text:?}"));
        let text = text.trim();
        let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
        let number: f64 = text[..split].parse().map_err(|_| wrong())?;
        let unit = match text[split..].trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1.0,
            "k" | "kb" => 1e3,
            "m" | "mb" => 1e6,
            "g" | "gb" => 1e9,
            "kib" => 1024.0,
            "mib" => 1_048_576.0,
            "gib" => 1_073_741_824.0,
            _ => return Err(wrong()),
        };
        let bytes = number * unit;
        if (1.0..9e18).contains(&bytes) { Ok(Size::Bytes(bytes as u64)) } else { Err(wrong()) }
    }

    fn check(self) -> Result<()> {
        let (name, value, most) = match self {
            Size::Bytes(_) => return Ok(()),
            Size::Bits(bits) => ("target_bpw", bits, 32.0),
            Size::Divergence(kld) => ("target_kld", kld, 100.0),
        };
        if value > 0.0 && value <= most {
            Ok(())
        } else {
            Err(Error::Argument(format!("{name} must be above 0 and at most {most}, found {value}")))
        }
    }
}

/// Types for rows that super-blocks divide, by ascending size. Codebooks are left out: they are slow to compute with.
const SUPER_BLOCKS: &[Format] =
    &[Format::Q2_K, Format::Q3_K, Format::IQ4_XS, Format::Q4_K, Format::Q5_K, Format::Q6_K, Format::Q8_0];
/// For others.
const BLOCKS: &[Format] = &[Format::IQ4_NL, Format::Q5_0, Format::Q5_1, Format::Q8_0];
/// Which of the types is measured.
const PROBE: usize = 1;
/// Pieces of the text that are measured on.
const PIECES: usize = 4;
/// Bytes of logits that are kept.
const LOGIT_BYTES: usize = 192 << 20;
/// Rows of a tensor of which the errors of all types are taken.
const SAMPLE: u64 = 64;
/// Units that the bytes of a file are counted in by the dynamic programming.
const UNITS: u64 = 1 << 15;
/// Times that a divergence is aimed at.
const AIMS: usize = 3;

/// What can become of a tensor.
#[derive(Clone, Debug)]
struct Choices {
    index: usize,
    formats: &'static [Format],
    /// Bytes with padding.
    bytes: Vec<u64>,
    /// Expected mean divergence.
    divergence: Vec<f64>,
}

/// What was chosen.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Allocation {
    /// The mean KL divergence that the sum of the tensors' says.
    pub expected: f64,
    /// That of all chosen types together, measured with the integers of a search.
    pub measured: f64,
}

/// Gives the tensors of `plan` the types with which a file of `size` comes nearest to the model. Tensors for which the options name a type keep it.
///
/// # Errors
/// [`Error::Argument`] when no file is so small (the message names the smallest), when there is no calibration text, or the model has no
/// logits; those of [`Model::load`].
pub fn allocate(
    plan: &mut Plan<'_>,
    size: Size,
    interrupt: &dyn Interrupt,
    progress: &dyn Progress,
) -> Result<Allocation> {
    size.check()?;
    let Some(calibration) = &plan.options().calibration else {
        return Err(Error::Argument(
            "a target size needs text to measure with (calibration=, --calibration, or own_text=, --own-text)".into(),
        ));
    };
    calibration.text()?;
    let mut choices = choices(plan)?;
    // Before hours of work: is it possible at all?
    let fixed = fixed_bytes(plan, &choices)?;
    let alignment = plan.source().alignment();
    let limit = match size {
        Size::Bytes(bytes) => bytes,
        Size::Bits(bits) => {
            // Bits of tensor data: the header comes on top.
            let data = |sum: u64, tensor: &super::plan::PlannedTensor| sum + tensor.bytes.next_multiple_of(alignment);
            let header = plan.file_bytes()?.saturating_sub(plan.tensors().iter().fold(0, data));
            header.saturating_add((bits * plan.weights() as f64 / 8.0) as u64)
        }
        Size::Divergence(_) => u64::MAX,
    };
    let least: u64 = choices.iter().map(|choice| choice.bytes[0]).sum();
    if limit < fixed + least {
        let (wanted, smallest) = (limit, fixed + least);
        return Err(Error::Argument(format!(
            "no file of this model has {wanted} bytes ({}); the smallest that can be made has {smallest} ({})",
            human(wanted),
            human(smallest)
        )));
    }
    let mut probe = Probe::new(plan, calibration, interrupt, progress)?;
    probe.measure(plan, &mut choices, interrupt, progress)?;
    let (picked, measured) = match size {
        Size::Divergence(aim) => probe.aim(plan, &choices, aim, interrupt)?,
        Size::Bytes(_) | Size::Bits(_) => {
            let picked = pick(&choices, limit - fixed);
            let measured = probe.together(plan, &choices, &picked, interrupt)?;
            (picked, measured)
        }
    };
    let expected = choices.iter().zip(&picked).map(|(choice, at)| choice.divergence[*at]).sum();
    for (choice, at) in choices.iter().zip(&picked) {
        plan.set_type(choice.index, choice.formats[*at])?;
    }
    let found = Allocation { expected, measured };
    plan.set_allocation(found);
    Ok(found)
}

/// The tensors that may get another type, and their bytes.
fn choices(plan: &Plan<'_>) -> Result<Vec<Choices>> {
    let alignment = plan.source().alignment();
    let mut all = Vec::new();
    for (index, tensor) in plan.tensors().iter().enumerate() {
        let info = &tensor.info;
        if !plan.is_quantizable(index) || plan.is_chosen(index) || tensor.info.ty.kernel().is_none() {
            continue;
        }
        let formats = [SUPER_BLOCKS, BLOCKS]
            .into_iter()
            .find(|formats| formats.iter().all(|format| info.k().is_multiple_of(format.info().block as u64)));
        let Some(formats) = formats else { continue };
        let bytes = |format: &Format| {
            let row = info.k() / format.info().block as u64 * format.info().bytes as u64;
            row.checked_mul(info.rows()).and_then(|bytes| bytes.checked_next_multiple_of(alignment))
        };
        let bytes: Option<Vec<u64>> = formats.iter().map(bytes).collect();
        let bytes = bytes.ok_or_else(|| Error::Argument(format!("tensor {:?} is too large", info.name)))?;
        all.push(Choices { index, formats, divergence: vec![0.0; bytes.len()], bytes });
    }
    if all.is_empty() {
        return Err(Error::Argument("there is no tensor whose type could be chosen".into()));
    }
    Ok(all)
}

/// Bytes of a file that do not depend on the choices.
fn fixed_bytes(plan: &Plan<'_>, choices: &[Choices]) -> Result<u64> {
    let alignment = plan.source().alignment();
    let chosen: u64 = choices.iter().map(|choice| plan.tensors()[choice.index].bytes.next_multiple_of(alignment)).sum();
    Ok(plan.file_bytes()?.saturating_sub(chosen))
}

/// The choices with the least divergence in `budget` bytes. The least bytes of each are known to fit.
fn pick(choices: &[Choices], budget: u64) -> Vec<usize> {
    let unit = (budget / UNITS).max(1);
    let units = (budget / unit) as usize;
    let cost = |bytes: u64| usize::try_from(bytes.div_ceil(unit)).unwrap_or(usize::MAX);
    // best[u]: the least divergence of the tensors so far in u units; from[t][u]: what tensor t then is.
    let mut best = vec![0.0f64; units + 1];
    let mut from: Vec<Vec<u8>> = Vec::new();
    for choice in choices {
        let mut next = vec![f64::INFINITY; units + 1];
        let mut taken = vec![u8::MAX; units + 1];
        for (at, (bytes, divergence)) in choice.bytes.iter().zip(&choice.divergence).enumerate() {
            let cost = cost(*bytes);
            if cost > units {
                continue;
            }
            for u in cost..=units {
                let sum = best[u - cost] + divergence;
                if sum < next[u] {
                    (next[u], taken[u]) = (sum, at as u8);
                }
            }
        }
        best = next;
        from.push(taken);
    }
    let mut picked = vec![0; choices.len()];
    let mut left = units;
    let feasible = best[units].is_finite();
    if feasible {
        for (t, choice) in choices.iter().enumerate().rev() {
            picked[t] = usize::from(from[t][left]);
            left -= cost(choice.bytes[picked[t]]);
        }
    }
    // Rounding to units has left something: the best steps up that still fit.
    let bytes = |picked: &[usize]| -> u64 { choices.iter().zip(picked).map(|(choice, at)| choice.bytes[*at]).sum() };
    loop {
        let spare = budget.saturating_sub(bytes(&picked));
        let mut step: Option<(f64, usize, usize)> = None;
        for (t, choice) in choices.iter().enumerate() {
            for at in picked[t] + 1..choice.formats.len() {
                let gain = choice.divergence[picked[t]] - choice.divergence[at];
                let more = choice.bytes[at].saturating_sub(choice.bytes[picked[t]]);
                if more <= spare && gain > 0.0 && step.is_none_or(|(most, ..)| gain > most) {
                    step = Some((gain, t, at));
                }
            }
        }
        let Some((_, t, at)) = step else { break picked };
        picked[t] = at;
    }
}

/// What measures.
struct Probe {
    /// The model with matrices of eight bits, which is fast.
    model: Model,
    importance: Imatrix,
    /// States before each layer, and behind the last.
    states: Vec<LayerStates>,
    /// Rows that are scored, and their logits.
    rows: Vec<std::ops::Range<usize>>,
    logits: Vec<f32>,
    cpu: Cpu,
    pool: Pool,
}

impl Probe {
    fn new(
        plan: &Plan<'_>,
        calibration: &Calibration,
        interrupt: &dyn Interrupt,
        progress: &dyn Progress,
    ) -> Result<Probe> {
        let options = LoadOptions { threads: plan.threads(), context: Some(CHUNK), ..LoadOptions::default() };
        let source = Model::load(plan.source().path(), &options, interrupt)?;
        if !source.has_logits() {
            return Err(Error::Argument("a target size needs a model that has logits".into()));
        }
        let (mut pool, cpu) = workers(plan)?;
        let model = working::model(plan, &source, (&mut pool, cpu), interrupt)?;
        let Pieces { test, train } = calibration.pieces(&model, || Ok(model.clone()), interrupt, progress)?;
        let most = train.len().min(2 * PIECES);
        let options = calibrate::Options { process_output: true, ..calibrate::Options::default() };
        let importance = calibrate_on(&model, &train[..most], Vec::new(), options, interrupt, &Silent)?;
        let texts: Vec<Vec<u32>> = test.into_iter().chain(train).take(PIECES).collect();
        let mut states = vec![model.embed_states(&texts, interrupt)?];
        for layer in 0..model.spec().layers.len() {
            let mut next = states[layer].clone();
            model.advance(&mut next, layer, None, interrupt)?;
            states.push(next);
        }
        let most = (LOGIT_BYTES / 4 / model.vocabulary() / texts.len()).clamp(8, texts[0].len() / 2);
        let last = &states[states.len() - 1];
        let rows: Vec<_> =
            (0..texts.len()).map(|text| last.rows_of(text)).map(|rows| rows.end - most..rows.end).collect();
        let mut probe = Probe { importance, logits: Vec::new(), states, rows, cpu, pool, model };
        let last = probe.states.len() - 1;
        probe.logits = probe.logits_of(&probe.model.clone(), last, interrupt)?;
        Ok(probe)
    }

    /// The logits of the scored rows with the weights of `model` from layer `from` on.
    fn logits_of(&self, model: &Model, from: usize, interrupt: &dyn Interrupt) -> Result<Vec<f32>> {
        let mut states = self.states[from].clone();
        for layer in from..self.states.len() - 1 {
            model.advance(&mut states, layer, None, interrupt)?;
        }
        self.output(model, &states, interrupt)
    }

    fn output(&self, model: &Model, states: &LayerStates, interrupt: &dyn Interrupt) -> Result<Vec<f32>> {
        let (mut all, mut part) = (Vec::new(), Vec::new());
        for rows in &self.rows {
            model.logits_of(states, rows.clone(), &mut part, None, interrupt)?;
            all.extend_from_slice(&part);
        }
        Ok(all)
    }

    /// The mean divergence of the model with some tensors replaced, which are of layer `layer` and above, or of none.
    fn divergence(
        &self,
        replaced: &HashMap<String, Replacement>,
        layer: Option<usize>,
        interrupt: &dyn Interrupt,
    ) -> Result<f64> {
        let model = self.model.with_replaced(replaced)?;
        let logits = match layer {
            Some(layer) => self.logits_of(&model, layer, interrupt)?,
            None => {
                // The embedding, which may be the output as well.
                let texts = self.states[0].texts().to_vec();
                let mut states = model.embed_states(&texts, interrupt)?;
                for layer in 0..self.states.len() - 1 {
                    model.advance(&mut states, layer, None, interrupt)?;
                }
                self.output(&model, &states, interrupt)?
            }
        };
        let vocabulary = model.vocabulary();
        let rows = self.logits.chunks_exact(vocabulary).zip(logits.chunks_exact(vocabulary));
        let (mut sum, mut count) = (0.0, 0.0);
        for (base, other) in rows {
            sum += divergence(self.cpu, base, other).max(0.0);
            count += 1.0;
        }
        Ok(sum / count)
    }

    /// Mean squares of the inputs of a tensor's rows, of the first expert where there are several.
    fn importance(&self, info: &TensorInfo) -> Option<Vec<f32>> {
        let entry = self.importance.entries.get(&info.name)?;
        let values = entry.importance(0);
        (values.len() as u64 == info.k()).then_some(values)
    }

    /// Fills in what every tensor costs at every type.
    fn measure(
        &mut self,
        plan: &Plan<'_>,
        choices: &mut [Choices],
        interrupt: &dyn Interrupt,
        progress: &dyn Progress,
    ) -> Result<()> {
        let total = choices.len() as u64;
        for (done, choice) in choices.iter_mut().enumerate() {
            progress.report("measuring", done as u64, total);
            let info = &plan.tensors()[choice.index].info;
            let importance = self.importance(info);
            let errors = sample_errors(plan, info, choice.formats, importance.as_deref(), self.cpu)?;
            let probe = choice.formats[PROBE];
            let data =
                searched(plan.source(), info, probe, importance.as_deref(), (&mut self.pool, self.cpu), interrupt)?;
            let replaced = HashMap::from([(info.name.clone(), data)]);
            let measured = self.divergence(&replaced, layer_of(&info.name), interrupt)?;
            for (divergence, error) in choice.divergence.iter_mut().zip(&errors) {
                *divergence = if errors[PROBE] > 0.0 { measured * error / errors[PROBE] } else { 0.0 };
            }
        }
        progress.report("measuring", total, total);
        Ok(())
    }

    /// The divergence of all choices together.
    fn together(
        &mut self,
        plan: &Plan<'_>,
        choices: &[Choices],
        picked: &[usize],
        interrupt: &dyn Interrupt,
    ) -> Result<f64> {
        let mut replaced = HashMap::new();
        for (choice, at) in choices.iter().zip(picked) {
            let info = &plan.tensors()[choice.index].info;
            let importance = self.importance(info);
            let format = choice.formats[*at];
            let data =
                searched(plan.source(), info, format, importance.as_deref(), (&mut self.pool, self.cpu), interrupt)?;
            replaced.insert(info.name.clone(), data);
        }
        self.divergence(&replaced, None, interrupt)
    }

    /// The smallest choices whose measured divergence is at most `aim`.
    fn aim(
        &mut self,
        plan: &Plan<'_>,
        choices: &[Choices],
        aim: f64,
        interrupt: &dyn Interrupt,
    ) -> Result<(Vec<usize>, f64)> {
        let (least, most) = choices.iter().fold((0, 0), |(least, most), choice| {
            (least + choice.bytes[0], most + choice.bytes[choice.bytes.len() - 1])
        });
        let expected = |picked: &[usize]| -> f64 { choices.iter().zip(picked).map(|(c, at)| c.divergence[*at]).sum() };
        // What the sum of the tensors' has to be for the whole to come out right.
        let mut wanted = aim;
        let mut best: Option<(Vec<usize>, f64)> = None;
        for _ in 0..AIMS {
            let (mut low, mut high) = (least, most);
            while high - low > (most / 500).max(1) {
                let middle = low + (high - low) / 2;
                if expected(&pick(choices, middle)) <= wanted { high = middle } else { low = middle }
            }
            let picked = pick(choices, high);
            let measured = self.together(plan, choices, &picked, interrupt)?;
            let (sum, found) = (expected(&picked), measured <= aim);
            if found || best.as_ref().is_none_or(|(_, least)| *least > aim && measured < *least) {
                best = Some((picked, measured));
            }
            if found && measured > 0.95 * aim || measured <= 0.0 {
                break;
            }
            wanted = sum * aim / measured * 0.98;
        }
        match best {
            Some((picked, measured)) if measured <= aim => Ok((picked, measured)),
            Some((_, measured)) => Err(Error::Argument(format!(
                "a mean KL divergence of {aim} is not to be had: the best that was found has {measured:.5}"
            ))),
            None => Err(Error::Internal("nothing was measured".into())),
        }
    }
}

/// Squared errors of a sample of rows for some types.
fn sample_errors(
    plan: &Plan<'_>,
    info: &TensorInfo,
    formats: &[Format],
    importance: Option<&[f32]>,
    cpu: Cpu,
) -> Result<Vec<f64>> {
    let w = sample(plan.source(), info, SAMPLE)?;
    let k = importance.map_or(info.k() as usize, <[f32]>::len);
    let rows = w.len() / k;
    let mut errors = Vec::new();
    for format in formats {
        let mut blocks = buffer(rows * format.row_bytes(k).unwrap_or(0), 0u8)?;
        search(cpu, *format, k, importance, &w, &mut blocks);
        let mut q = buffer(w.len(), 0.0)?;
        format.dequantize(&blocks, &mut q);
        let error = |(i, (w, q)): (usize, (&f32, &f32))| {
            f64::from(importance.map_or(1.0, |importance| importance[i % k])) * f64::from(w - q).powi(2)
        };
        errors.push(w.iter().zip(&q).enumerate().map(error).sum());
    }
    Ok(errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [("700MB", 700_000_000), ("1.5 GiB", 1_610_612_736), ("123", 123), ("2k", 2000)] {
            assert_eq!(Size::bytes(text).expect(text), Size::Bytes(bytes));
        }
        for text in ["", "MB", "-1", "1e9", "3 parsecs", "0", "nan", "99999999999GB"] {
            assert!(Size::bytes(text).is_err(), "{text}");
        }
    }

    /// Every way to choose, one by one.
    fn best_of_all(choices: &[Choices], budget: u64) -> f64 {
        let mut best = f64::INFINITY;
        let total: usize = choices.iter().map(|choice| choice.bytes.len()).product();
        for number in 0..total {
            let (mut rest, mut bytes, mut sum) = (number, 0, 0.0);
            for choice in choices {
                let at = rest % choice.bytes.len();
                rest /= choice.bytes.len();
                bytes += choice.bytes[at];
                sum += choice.divergence[at];
            }
            if bytes <= budget && sum < best {
                best = sum;
            }
        }
        best
    }

    #[test]
    fn the_choice_is_the_best_there_is() {
        let mut seed = 1u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 40) as f64 / 16_777_216.0
        };
        for _ in 0..40 {
            let choices: Vec<Choices> = (0..5)
                .map(|index| {
                    let weights = 100 + (900.0 * random()) as u64;
                    let scale = random();
                    let bytes: Vec<u64> = [2, 3, 4, 6].iter().map(|bits| bits * weights).collect();
                    let divergence = [1.0, 0.3, 0.1, 0.01].iter().map(|d| d * scale * (0.5 + random())).collect();
                    Choices { index, formats: &SUPER_BLOCKS[..4], bytes, divergence }
                })
                .collect();
            let least: u64 = choices.iter().map(|choice| choice.bytes[0]).sum();
            let budget = least + (random() * 2.0 * least as f64) as u64;
            let picked = pick(&choices, budget);
            let bytes: u64 = choices.iter().zip(&picked).map(|(choice, at)| choice.bytes[*at]).sum();
            let sum: f64 = choices.iter().zip(&picked).map(|(choice, at)| choice.divergence[*at]).sum();
            assert!(bytes <= budget);
            assert!(sum <= best_of_all(&choices, budget) + 1e-12, "{sum}");
        }
    }
}
