//! `fastq doctor`: what this machine has and what fastq makes of it.

use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use clap::Args;
use fastq_core::machine::Machine;
use fastq_kernels::level::LEVEL_VARIABLE;
use fastq_kernels::{Cpu, Level};
use serde_json::{Value, json};

use crate::default_model::{DEFAULT, cache_folder, set};
use crate::report::table;
use crate::terminal::{self, Outcome, bytes, one_line};

/// Check what this machine offers to fastq
///
/// Exit code 1 when something keeps fastq from running.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// How grave a finding is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grade {
    Ok,
    Warning,
    Problem,
}

impl Grade {
    fn name(self) -> &'static str {
        match self {
            Grade::Ok => "ok",
            Grade::Warning => "warning",
            Grade::Problem => "problem",
        }
    }
}

/// One line of the report.
struct Finding {
    name: &'static str,
    grade: Grade,
    text: String,
    data: Value,
}

/// Less free memory than this holds not even the default model and its cache.
const LITTLE_MEMORY: u64 = 256 << 20;

pub(crate) fn run(arguments: Arguments) -> Outcome<u8> {
    let machine = Machine::this();
    let findings = [
        processor(),
        levels(),
        threads(&machine),
        quota(&machine),
        memory(&machine),
        bandwidth(machine.threads()),
        default_model(),
    ];
    let problem = findings.iter().any(|finding| finding.grade == Grade::Problem);
    if arguments.json {
        let all = findings.iter().map(|f| {
            let fields = json!({ "status": f.grade.name(), "text": f.text, "data": f.data });
            (f.name.to_owned(), fields)
        });
        terminal::print_json(&Value::Object(all.collect()))?;
    } else {
        let rows: Vec<_> =
            findings.iter().map(|f| vec![f.grade.name().to_owned(), f.name.to_owned(), one_line(&f.text)]).collect();
        terminal::print_line(table(&["", "", ""], &rows).trim_start_matches('\n'))?;
    }
    Ok(u8::from(problem))
}

fn finding(name: &'static str, grade: Grade, text: String, data: Value) -> Finding {
    Finding { name, grade, text, data }
}

/// The name of the processor, as far as the system tells.
fn processor() -> Finding {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| info.lines().find_map(|l| l.split_once(':').filter(|(key, _)| key.trim() == name));
    let model = field("model name").or_else(|| field("Model")).map(|(_, value)| value.trim().to_owned());
    let architecture = std::env::consts::ARCH;
    let name = model.unwrap_or_else(|| "unknown processor".to_owned());
    let data = json!({ "name": name, "architecture": architecture, "system": std::env::consts::OS });
    finding("processor", Grade::Ok, format!("{name} ({architecture}, {})", std::env::consts::OS), data)
}

/// Which levels the processor can run, and which one is used.
fn levels() -> Finding {
    let names = |levels: &[Level]| levels.iter().map(|level| level.name()).collect::<Vec<_>>();
    let available = Level::available();
    let missing: Vec<Level> = Level::ALL.iter().copied().filter(|level| !available.contains(level)).collect();
    let forced = set(LEVEL_VARIABLE).map(|name| name.to_string_lossy().into_owned());
    let mut data = json!({ "available": names(&available), "unavailable": names(&missing), "override": forced });
    match Cpu::detect() {
        Ok(cpu) => {
            let level = cpu.level();
            data["chosen"] = json!(level.name());
            let why = match forced {
                Some(_) => format!("asked for by {LEVEL_VARIABLE}"),
                None => "the highest available".to_owned(),
            };
            let list = |levels: &[Level]| if levels.is_empty() { "none".to_owned() } else { names(levels).join(", ") };
            let text =
                format!("{} ({why}; available: {}; not on this processor: {})", level.name(), list(&available), list(&missing));
            let slow = available.len() == 1 && Level::ALL.len() > 1;
            finding("level", if slow { Grade::Warning } else { Grade::Ok }, text, data)
        }
        Err(error) => finding("level", Grade::Problem, error.to_string(), data),
    }
}

/// How many threads are used, and why.
fn threads(machine: &Machine) -> Finding {
    let granted = machine.threads();
    let online = std::thread::available_parallelism().map_or(1, usize::from);
    let mut why = vec![format!("{online} processors usable by this process")];
    let fast = machine.performance_cores().map(|cores| cores.len());
    if let Some(fast) = fast {
        why.push(format!("{fast} performance cores"));
    }
    if let Some(quota) = machine.cpu_quota() {
        why.push(format!("cgroup quota of {quota:.2} processors"));
    }
    let data = json!({ "granted": granted, "usable_processors": online, "performance_cores": fast });
    finding("threads", Grade::Ok, format!("{granted} ({})", why.join("; ")), data)
}

/// What the cgroup grants in processor time.
fn quota(machine: &Machine) -> Finding {
    let quota = machine.cpu_quota();
    let data = json!({ "cpu_quota": quota });
    let (grade, text) = match quota {
        Some(quota) if quota < 1.0 => (Grade::Warning, format!("processor time limited to {quota:.2} processors")),
        Some(quota) => (Grade::Ok, format!("processor time limited to {quota:.2} processors")),
        None => (Grade::Ok, "no limit of processor time".to_owned()),
    };
    finding("cgroup", grade, text, data)
}

/// What can still be allocated.
fn memory(machine: &Machine) -> Finding {
    match machine.free_memory() {
        Some(free) => {
            let data = json!({ "free_bytes": free.bytes, "bound": free.bound });
            let grade = if free.bytes < LITTLE_MEMORY { Grade::Warning } else { Grade::Ok };
            finding("memory", grade, format!("{} ({})", bytes(free.bytes), free.bound), data)
        }
        None => finding("memory", Grade::Ok, "this system does not tell what is free".to_owned(), json!({})),
    }
}

/// How fast memory is read, by all threads together: the bound of decode, which reads all weights per token.
fn bandwidth(threads: usize) -> Finding {
    // Larger than the caches of most machines, small enough for small ones.
    let words = (128 << 20) / size_of::<u64>();
    let data: Vec<u64> = vec![1; words];
    let part = words.div_ceil(threads.max(1));
    let start = Instant::now();
    let mut passes = 0u64;
    while start.elapsed() < Duration::from_millis(200) {
        std::thread::scope(|scope| {
            for part in data.chunks(part) {
                scope.spawn(move || black_box(black_box(part).iter().fold(0u64, |sum, &word| sum.wrapping_add(word))));
            }
        });
        passes += 1;
    }
    let per_second = (passes * (words * size_of::<u64>()) as u64) as f64 / start.elapsed().as_secs_f64();
    let text = format!("about {:.1} GB/s read by {threads} threads (a quick look, not a benchmark)", per_second / 1e9);
    finding("bandwidth", Grade::Ok, text, json!({ "bytes_per_second": per_second, "threads": threads }))
}

/// Whether the default model is here, and where it would go.
fn default_model() -> Finding {
    match cache_folder() {
        Ok(folder) => {
            let path = folder.join(DEFAULT.file);
            let present = path.is_file();
            let data = json!({ "path": path.display().to_string(), "present": present });
            let text = if present {
                path.display().to_string()
            } else {
                format!("not fetched yet; would be kept at {}", path.display())
            };
            finding("default model", Grade::Ok, text, data)
        }
        Err(error) => finding("default model", Grade::Warning, error.to_string(), json!({})),
    }
}
