//! `fastq quantize`: a smaller file.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use fastq_core::gguf::{Gguf, OpenOptions};
use fastq_core::quantize::{self, Calibration, Importance, Method, Options, Overrides, Report, Size, Target};
use fastq_kernels::Format;

use crate::progress::Bar;
use crate::report::table;
use crate::signals::Computing;
use crate::terminal::{self, Failure, Outcome, bytes, count, one_line, seconds};

/// Make a model smaller
///
/// TYPE is a preset of llama-quantize (Q4_K_M, IQ3_S, …: the types of the tensors are then those it chooses), a type (MXFP4), or COPY; any case,
/// with -, _ or nothing between its parts. OUT appears when it is complete; stopped or killed, the same command goes on where it was.
#[derive(Args)]
pub(crate) struct Arguments {
    /// A GGUF file in F16, BF16 or F32; of a split model, the first
    input: PathBuf,
    /// The file to write
    output: PathBuf,
    /// What to make of it, for example Q4_K_M; with a target size, where the choice of types begins
    #[arg(value_name = "TYPE", default_value = "Q4_K_M")]
    target: String,
    /// The size of the file, 700MB or 1.5GiB: types are chosen for it by what they cost, measured on the calibration text
    #[arg(long, value_name = "SIZE", value_parser = Size::bytes, group = "size")]
    target_size: Option<Size>,
    /// The same by bits per weight
    #[arg(long, value_name = "BITS", group = "size")]
    target_bpw: Option<f64>,
    /// The smallest file with this mean KL divergence from IN on the calibration text
    #[arg(long, value_name = "NATS", group = "size")]
    target_kld: Option<f64>,
    /// An importance matrix, made by `fastq calibrate` or llama-imatrix
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,
    /// Text to calibrate with, of the kind that the model will meet; needed by the methods feedback and awq
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Tokens of text that the model writes itself to be calibrated with, beside that text or alone [default: 20480 beside text, else 0]
    #[arg(long, value_name = "TOKENS")]
    own_text: Option<usize>,
    /// How weights become integers
    #[arg(long, value_name = "NAME", default_value = Method::default().name(), value_parser = methods())]
    method: Method,
    /// Another type for tensors whose name a regular expression matches; the first that matches counts
    #[arg(long = "override", value_name = "REGEX=TYPE", value_parser = pair)]
    overrides: Vec<(String, String)>,
    /// Type of the output matrix
    #[arg(long, value_name = "TYPE", value_parser = quantize::tensor_format)]
    output_type: Option<Format>,
    /// Type of the token embedding
    #[arg(long, value_name = "TYPE", value_parser = quantize::tensor_format)]
    embedding_type: Option<Format>,
    /// One type for all matrices, instead of the mix
    #[arg(long)]
    pure: bool,
    /// Quantize again what is quantized already
    #[arg(long)]
    allow_requantize: bool,
    /// Threads [default: what the machine grants]
    #[arg(short, long, value_name = "N")]
    threads: Option<usize>,
    /// Say what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Write a report with size, bits and error of every tensor to an HTML file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

fn methods() -> impl TypedValueParser<Value = Method> {
    PossibleValuesParser::new(Method::ALL.iter().map(|method| method.name())).try_map(|name| Method::from_name(&name))
}

/// The last `=` separates: expressions may have others.
fn pair(text: &str) -> Result<(String, String), String> {
    let (pattern, ty) = text.rsplit_once('=').ok_or("expected REGEX=TYPE, for example attn_v=Q6_K")?;
    Ok((pattern.to_owned(), ty.to_owned()))
}

pub(crate) fn run(arguments: Arguments) -> Outcome<u8> {
    let computing = Computing::begin();
    let importance = arguments.imatrix.as_deref().map(|path| Importance::open(path, &computing)).transpose()?;
    let calibration = arguments.calibration.as_deref().map(|path| Calibration::open(path, &computing)).transpose()?;
    let calibration = Calibration::chosen(calibration, arguments.own_text)?;
    let options = Options {
        target: Target::from_name(&arguments.target, arguments.pure)?,
        method: arguments.method,
        importance,
        calibration,
        overrides: Overrides::new(arguments.overrides)?,
        output_type: arguments.output_type,
        embedding_type: arguments.embedding_type,
        threads: arguments.threads,
        allow_requantize: arguments.allow_requantize,
    };
    let source = Gguf::open(&arguments.input, &OpenOptions { interrupt: &computing, ..OpenOptions::default() })?;
    let mut plan = quantize::plan(&source, &options)?;
    let size = (arguments.target_size)
        .or(arguments.target_bpw.map(Size::Bits))
        .or(arguments.target_kld.map(Size::Divergence));
    if let Some(size) = size {
        let bar = Bar::new(arguments.quiet);
        let found = quantize::allocate(&mut plan, size, &computing, &bar)?;
        drop(bar);
        terminal::note(&format!(
            "types chosen: mean KL divergence {:.5} (the sum of the tensors' is {:.5})",
            found.measured, found.expected
        ));
    }
    for warning in plan.warnings() {
        terminal::note(&format!("{} {}", terminal::style("1;33", "warning:"), one_line(&warning)));
    }
    let report = if arguments.dry_run {
        plan.dry_run(&computing)?
    } else {
        let bar = Bar::new(arguments.quiet);
        let done = quantize::run(&plan, &arguments.output, &computing, &bar);
        drop(bar);
        done.inspect_err(|error| {
            if matches!(error, fastq_core::Error::Cancelled) {
                terminal::note("stopped; the same command goes on from here, any other one for this file starts anew");
            }
        })?
    };
    if report.resumed > 0 {
        terminal::note(&format!("went on with {} tensors of an interrupted run", report.resumed));
    }
    if let Some(path) = &arguments.report {
        write_report(path, &report)?;
    }
    if arguments.json {
        terminal::print_json(&report.to_json())?;
    } else {
        terminal::print_line(&to_text(&report))?;
    }
    Ok(0)
}

/// Writes the page whole or not at all.
fn write_report(path: &std::path::Path, report: &Report) -> Outcome {
    quantize::write_html(path, report, &[]).map_err(Failure::from)
}

fn to_text(report: &Report) -> String {
    let rows: Vec<_> = report.tensors.iter().map(|tensor| {
        let shape = tensor.shape.iter().map(u64::to_string).collect::<Vec<_>>().join(" × ");
        let number = |value: Option<f64>, digits: &dyn Fn(f64) -> String| value.map_or("-".to_owned(), digits);
        let fallback = tensor.fallback.as_deref().map(one_line).unwrap_or_default();
        vec![
            one_line(&tensor.name),
            shape,
            tensor.source_type.clone(),
            tensor.ty.clone(),
            tensor.bytes.to_string(),
            number(tensor.error, &|error| format!("{error:.3e}")),
            number(tensor.snr_db, &|snr| format!("{snr:.2}")),
            number(tensor.worst, &|worst| format!("{worst:.3e}")),
            tensor.method.clone().unwrap_or_else(|| "-".to_owned()),
            fallback,
        ]
    }).collect();
    let header = ["tensor", "shape", "was", "type", "bytes", "error", "SNR dB", "worst", "method", ""];
    let share = 100.0 * report.bytes as f64 / report.source_bytes.max(1) as f64;
    let mut summary = format!(
        "{} weights in {} ({} bytes, {share:.1} % of the source), {:.3} bits per weight",
        count(report.weights),
        bytes(report.bytes),
        report.bytes,
        report.bits_per_weight
    );
    if let Some(error) = report.error {
        summary.push_str(&format!(", relative squared error {error:.3e}"));
    }
    if let Some(mean) = report.mean_kld {
        summary.push_str(&format!(", mean KL divergence {mean:.5}"));
    }
    let peak = |what: &str| report.peak_rss_bytes.map(|peak| format!(", {what} {}", bytes(peak))).unwrap_or_default();
    if report.dry_run {
        let memory = peak("memory at most");
        summary.push_str(&format!(" (expected); it would take {}{memory}; nothing was written", seconds(report.seconds)));
    } else {
        summary.push_str(&format!("; {}{}", seconds(report.seconds), peak("peak memory")));
    }
    format!("{}\n{summary}", table(&header, &rows))
}
