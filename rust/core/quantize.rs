//! Makes files smaller: types for the tensors ([`plan`]), better or worse integers for the weights ([`Method`]), and a file that appears when it is whole
//! ([`run`]).
//!
//! ```no_run
//! # use fastq_core::{Never, Silent, gguf::{Gguf, OpenOptions}, quantize::{self, Options, Target}};
//! let source = Gguf::open("model-f16.gguf".as_ref(), &OpenOptions::default())?;
//! let options = Options { target: Target::from_name("Q4_K_M", false)?, ..Options::default() };
//! let plan = quantize::plan(&source, &options)?;
//! println!("{} bytes", plan.file_bytes()?);
//! let report = quantize::run(&plan, "model-q4.gguf".as_ref(), &Never, &Silent)?;
//! println!("{:.2} bits per weight", report.bits_per_weight);
//! # Ok::<(), fastq_core::Error>(())
//! ```

mod allocate;
mod calibration;
mod encode;
mod estimate;
mod html;
mod importance;
mod layered;
mod overrides;
mod own_text;
mod plan;
mod preset;
mod recipe;
mod report;
mod scaling;
mod working;

pub use allocate::{Allocation, Size, allocate};
pub use calibration::{Calibration, OWN_TOKENS_LIMIT, Source};
pub use encode::{Encoder, Encoding, Job, RowEncoder, Rows, Way};
pub use html::{html, write_html};
pub use importance::Importance;
pub use overrides::Overrides;
pub use plan::{Plan, PlannedTensor, plan};
pub use preset::{Preset, Target, tensor_format};
pub use report::{Point, Report, TensorReport};

use std::path::Path;
use std::time::Instant;

use fastq_kernels::{Cpu, Format};

use crate::gguf::Draft;
use crate::machine::{Machine, peak_rss_bytes};
use crate::pool::Pool;
use crate::{Error, Interrupt, Progress, Result};
use encode::{Done, Rtn, Search};
use layered::Layered;

/// How weights become integers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Method {
    /// Rounding to nearest with the scales that ggml's quantizers find: the bytes of `llama-quantize`, with and without an importance matrix.
    Rtn,
    /// A wider search for scales, weighted by the importance of the columns: less error on the same grid.
    Search,
    /// Compensation of every weight's error by the weights behind it (GPTQ), with the inputs that the quantized layers before give.
    Feedback,
    /// Columns are scaled by the size of their inputs, and the norm before them takes that back (AWQ); then as `Search`.
    Awq,
    /// Columns are scaled where that helps; of each matrix the encoding with the least error at the outputs, on text that the others were not
    /// made with.
    #[default]
    Auto,
}

impl Method {
    /// Every method.
    pub const ALL: &'static [Method] = &[Method::Rtn, Method::Search, Method::Feedback, Method::Awq, Method::Auto];

    /// Its name, `"rtn"`.
    pub const fn name(self) -> &'static str {
        match self {
            Method::Rtn => "rtn",
            Method::Search => "search",
            Method::Feedback => "feedback",
            Method::Awq => "awq",
            Method::Auto => "auto",
        }
    }

    /// The method called `name`, in any case.
    ///
    /// # Errors
    /// [`Error::Argument`] that lists them.
    pub fn from_name(name: &str) -> Result<Method> {
        Method::ALL.iter().copied().find(|method| method.name().eq_ignore_ascii_case(name)).ok_or_else(|| {
            let known: Vec<_> = Method::ALL.iter().map(|method| method.name()).collect();
            Error::Argument(format!("unknown method {name:?} (known: {})", known.join(", ")))
        })
    }

    /// Whether text is needed: the inputs of the layers.
    pub const fn needs_calibration(self) -> bool {
        matches!(self, Method::Feedback | Method::Awq)
    }

    /// Whether columns are scaled.
    const fn scales(self) -> bool {
        matches!(self, Method::Awq | Method::Auto)
    }

    /// The encodings of which the best is taken.
    const fn candidates(self) -> &'static [Encoding] {
        match self {
            Method::Rtn => &[Encoding::Rtn],
            Method::Search | Method::Awq => &[Encoding::Search],
            Method::Feedback => &[Encoding::Feedback],
            Method::Auto => &[Encoding::Search, Encoding::Rtn, Encoding::Feedback],
        }
    }

    /// Whether it works on layers, with their inputs.
    fn is_layered(self, plan: &Plan<'_>) -> bool {
        matches!(self, Method::Feedback | Method::Awq | Method::Auto) && plan.options().calibration.is_some()
    }

    /// That a plan has what the method needs.
    fn check(self, plan: &Plan<'_>) -> Result<()> {
        if !self.needs_calibration() || plan.options().calibration.is_some() {
            return Ok(());
        }
        let name = self.name();
        Err(Error::Argument(format!(
            "method {name:?} needs text to calibrate with (calibration=, --calibration, or own_text=, --own-text)"
        )))
    }

    /// Makes the data.
    fn encoder(self, plan: &Plan<'_>, interrupt: &dyn Interrupt, progress: &dyn Progress) -> Result<Box<dyn Encoder>> {
        self.check(plan)?;
        Ok(match &plan.options().calibration {
            Some(calibration) if self.is_layered(plan) => {
                Box::new(Layered::new(self, plan, calibration, interrupt, progress)?)
            }
            _ if self == Method::Rtn => Box::new(Rows(Rtn)),
            _ => Box::new(Rows(Search)),
        })
    }
}

/// What to make of a model.
#[derive(Clone, Debug)]
pub struct Options {
    /// The types of the tensors.
    pub target: Target,
    /// How weights become integers.
    pub method: Method,
    /// How much every input of the matrices matters.
    pub importance: Option<Importance>,
    /// What shows the inputs of the layers.
    pub calibration: Option<Calibration>,
    /// Types of single tensors.
    pub overrides: Overrides,
    /// Type of `output.weight`, and of the embedding where that is the output, too.
    pub output_type: Option<Format>,
    /// Type of the token embedding.
    pub embedding_type: Option<Format>,
    /// Threads; by default what the machine grants.
    pub threads: Option<usize>,
    /// Whether weights that are quantized already may be quantized again, which loses more than quantizing the original does.
    pub allow_requantize: bool,
}

impl Default for Options {
    /// `Q4_K_M`, by search.
    fn default() -> Options {
        Options {
            target: Target::Preset(Preset::Q4_K_M),
            method: Method::default(),
            importance: None,
            calibration: None,
            overrides: Overrides::default(),
            output_type: None,
            embedding_type: None,
            threads: None,
            allow_requantize: false,
        }
    }
}

/// Writes the file of a plan to `path`, with the plan's method.
///
/// Stopped by `interrupt` or killed, it leaves what is complete beside `path`, and the same call goes on from there; other errors leave nothing. The file
/// appears under its name when it is whole. Stages of the progress: `"writing text"`, in tokens, `"resuming"`, in tensors, and `"quantizing"`, in weights.
///
/// # Errors
/// Those of [`Plan::check`]; [`Error::ModelFile`] for weights that are NaN or infinite, or that the type cannot hold; [`Error::Io`] (a full disk, a
/// read-only target), [`Error::Argument`] (a target that is the source), [`Error::Memory`], [`Error::Cancelled`].
pub fn run(plan: &Plan<'_>, path: &Path, interrupt: &dyn Interrupt, progress: &dyn Progress) -> Result<Report> {
    let start = Instant::now();
    plan.check()?;
    let mut encoder = plan.method().encoder(plan, interrupt, progress)?;
    let mut report = run_with(plan, path, &mut *encoder, interrupt, progress)?;
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// [`run`] with another way to make the data of the tensors.
///
/// # Errors
/// As for [`run`], and those of `encoder`.
pub fn run_with(
    plan: &Plan<'_>,
    path: &Path,
    encoder: &mut dyn Encoder,
    interrupt: &dyn Interrupt,
    progress: &dyn Progress,
) -> Result<Report> {
    let start = Instant::now();
    plan.check()?;
    let (mut pool, cpu) = workers(plan)?;
    let mut draft = plan.writer()?.draft(path, plan.key().as_deref(), interrupt)?;
    let resumed = draft.resumed();
    let written = write(plan, &mut draft, encoder, (&mut pool, cpu), interrupt, progress);
    let done = match written {
        Ok(done) => done,
        Err(error) => {
            if matches!(error, Error::Cancelled) {
                draft.leave();
            }
            return Err(error);
        }
    };
    plan.source().check_unchanged()?;
    let bytes = draft.finish()?;
    let mut report = Report::of(plan, &done, bytes);
    report.output = path.display().to_string();
    report.resumed = resumed;
    report.seconds = start.elapsed().as_secs_f64();
    report.peak_rss_bytes = peak_rss_bytes();
    Ok(report)
}

/// The threads of a plan, and their level.
fn workers(plan: &Plan<'_>) -> Result<(Pool, Cpu)> {
    let machine = Machine::this();
    let threads = plan.threads().unwrap_or_else(|| machine.threads());
    let pool = Pool::new(threads)?.on(machine.placement(threads).unwrap_or_default());
    Ok((pool, Cpu::detect().map_err(|error| Error::Argument(error.to_string()))?))
}

/// Writes the tensors that are not complete.
fn write(
    plan: &Plan<'_>,
    draft: &mut Draft,
    encoder: &mut dyn Encoder,
    (pool, cpu): (&mut Pool, Cpu),
    interrupt: &dyn Interrupt,
    progress: &dyn Progress,
) -> Result<Vec<Done>> {
    let total = plan.tensors().iter().map(|tensor| tensor.info.elements()).sum();
    let (mut before, mut all) = (0, vec![Done::Copied; plan.tensors().len()]);
    if draft.resumed() > 0 {
        progress.report("resuming", draft.resumed() as u64, plan.tensors().len() as u64);
    }
    for index in encoder.order(plan) {
        all[index] = match draft.note(index).and_then(Done::from_note) {
            Some(done) => done,
            None => {
                let report = |weights: u64| progress.report("quantizing", before + weights, total);
                let mut job = Job::new(plan, index, draft, pool, cpu, interrupt, &report);
                let done = encoder.encode(&mut job)?;
                draft.complete(index, &done.to_note(), interrupt)?;
                done
            }
        };
        before += plan.tensors()[index].info.elements();
        progress.report("quantizing", before, total);
    }
    Ok(all)
}
