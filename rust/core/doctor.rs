//! What this machine has and what is made of it: processor, SIMD level, threads, memory and its speed, each with the reason.

use std::hint::black_box;
use std::time::{Duration, Instant};

use fastq_kernels::level::LEVEL_VARIABLE;
use fastq_kernels::{Cpu, Level};
use serde_json::{Map, Value, json};

use crate::machine::{CoreKind, Machine, page_size};
use crate::memory::human;
use crate::pool::Pool;
use crate::{Interrupt, Result};

/// How grave a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Grade {
    /// As it should be.
    Ok,
    /// It works, but could be better.
    Warning,
    /// It keeps fastq from running.
    Problem,
}

impl Grade {
    /// The word in reports.
    pub fn name(self) -> &'static str {
        match self {
            Grade::Ok => "ok",
            Grade::Warning => "warning",
            Grade::Problem => "problem",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Debug)]
pub struct Finding {
    /// What was looked at, in a word.
    pub name: &'static str,
    /// How grave it is.
    pub grade: Grade,
    /// What was found, and why, in one line.
    pub text: String,
    /// The same as an object with figures; bytes, MHz and bytes per second.
    pub data: Value,
}

impl Finding {
    /// A finding with an object of figures.
    pub fn new(name: &'static str, grade: Grade, text: String, data: Value) -> Finding {
        Finding { name, grade, text, data }
    }
}

/// Findings as one JSON object, in their order.
pub fn to_json(findings: &[Finding]) -> Value {
    let fields = |f: &Finding| json!({ "status": f.grade.name(), "text": f.text, "data": f.data });
    Value::Object(findings.iter().map(|f| (f.name.to_owned(), fields(f))).collect::<Map<_, _>>())
}

/// Less free memory than this holds not even a small model and its cache.
const LITTLE_MEMORY: u64 = 256 << 20;
/// Sensors of processors that are about to slow down, or do so already, report this many degrees Celsius.
const HOT: f64 = 80.0;

/// Looks at everything. Takes about half a second, for the speed of the memory.
///
/// # Errors
/// [`Error::Cancelled`](crate::Error::Cancelled). What is wrong with the machine is a finding.
pub fn examine(machine: &Machine, interrupt: &dyn Interrupt) -> Result<Vec<Finding>> {
    let mut findings = vec![processor(machine), level(), threads(machine), quota(machine), memory(machine)];
    findings.extend(heat(machine));
    findings.push(bandwidth(machine, interrupt)?);
    Ok(findings)
}

/// The processor, the board it is on, and its cores.
fn processor(machine: &Machine) -> Finding {
    let name = machine.processor_name();
    let board = machine.board();
    let (architecture, system) = (std::env::consts::ARCH, std::env::consts::OS);
    let mut facts = vec![architecture.to_owned(), system.to_owned(), format!("{}-bit", usize::BITS)];
    let page = page_size();
    facts.extend(page.map(|bytes| format!("pages of {} KiB", bytes >> 10)));
    let kinds = machine.core_kinds();
    let cores = kinds.iter().map(
        |kind| json!({ "name": kind.name, "processors": kind.processors, "max_mhz": kind.max_mhz, "fast": kind.fast }),
    );
    let data = json!({
        "name": name,
        "board": board,
        "architecture": architecture,
        "system": system,
        "pointer_bits": usize::BITS,
        "page_bytes": page,
        "cores": cores.collect::<Vec<_>>(),
        "physical_cores": machine.physical_cores(),
    });
    let name = name.unwrap_or_else(|| "unknown processor".to_owned());
    let board = board.map(|board| format!("{board}: ")).unwrap_or_default();
    Finding::new("processor", Grade::Ok, format!("{board}{name} ({})", facts.join(", ")), data)
}

/// The level in use, which ones the processor can run, and what it lacks for the others.
fn level() -> Finding {
    let names = |levels: &[Level]| levels.iter().map(|level| level.name()).collect::<Vec<_>>();
    let available = Level::available();
    let unavailable: Vec<Level> = Level::ALL.iter().copied().filter(|level| !available.contains(level)).collect();
    let lacking = |level: &Level| match level.missing_features().as_slice() {
        [] => format!("{} is not granted by processor or system", level.name()),
        missing => format!("{} needs {}", level.name(), missing.join(", ")),
    };
    let missing = unavailable.iter().map(|level| (level.name().to_owned(), json!(level.missing_features())));
    let forced = std::env::var_os(LEVEL_VARIABLE).filter(|name| !name.is_empty());
    let forced = forced.map(|name| name.to_string_lossy().into_owned());
    let mut data = json!({
        "available": names(&available),
        "unavailable": names(&unavailable),
        "missing_features": missing.collect::<Map<_, _>>(),
        "override": forced,
    });
    match Cpu::detect() {
        Ok(cpu) => {
            let level = cpu.level();
            data["chosen"] = json!(level.name());
            let why = match forced {
                Some(_) => format!("asked for by {LEVEL_VARIABLE}"),
                None => "the highest here".to_owned(),
            };
            let mut text = format!("{}, {why}; available: {}", level.name(), names(&available).join(", "));
            if !unavailable.is_empty() {
                text += &format!("; {}", unavailable.iter().map(lacking).collect::<Vec<_>>().join("; "));
            }
            let slow = available.len() == 1 && Level::ALL.len() > 1;
            Finding::new("level", if slow { Grade::Warning } else { Grade::Ok }, text, data)
        }
        Err(error) => Finding::new("level", Grade::Problem, error.to_string(), data),
    }
}

/// How many threads are used, and why.
fn threads(machine: &Machine) -> Finding {
    let granted = machine.threads();
    let usable = machine.processors().len().max(1);
    let (fast, quota) = (machine.performance_cores(), machine.cpu_quota());
    let mut why = vec![format!("{usable} processors usable by this process")];
    let physical = machine.physical_cores().filter(|&cores| cores < usable);
    why.extend(physical.map(|cores| format!("on {cores} cores")));
    if let Some(fast) = &fast {
        let kinds = machine.core_kinds();
        let names = CoreKind::list(kinds.iter().filter(|kind| kind.fast));
        why.push(format!("the fast ones are used: {}", names.unwrap_or_else(|| fast.len().to_string())));
    }
    if let Some(quota) = quota {
        why.push(format!("the cgroup grants the time of {quota:.2}"));
    }
    let data = json!({
        "granted": granted,
        "usable_processors": usable,
        "performance_cores": fast.as_ref().map(|cores| cores.len()),
        "placed_on": machine.placement(granted),
        "cpu_quota": quota,
    });
    Finding::new("threads", Grade::Ok, format!("{granted} ({})", why.join(", ")), data)
}

/// What the cgroup grants in processor time.
fn quota(machine: &Machine) -> Finding {
    let quota = machine.cpu_quota();
    let (grade, text) = match quota {
        Some(quota) => {
            let grade = if quota < 1.0 { Grade::Warning } else { Grade::Ok };
            (grade, format!("processor time limited to {quota:.2} processors"))
        }
        None => (Grade::Ok, "no limit of processor time".to_owned()),
    };
    Finding::new("cgroup", grade, text, json!({ "cpu_quota": quota }))
}

/// What can still be allocated.
fn memory(machine: &Machine) -> Finding {
    let total = machine.total_memory();
    let of = total.map(|total| format!(" of {}", human(total))).unwrap_or_default();
    let space = machine.address_space().map(|(bytes, _)| bytes);
    match machine.free_memory() {
        Some(free) => {
            let data = json!({
                "free_bytes": free.bytes,
                "total_bytes": total,
                "bound": free.bound,
                "address_space_bytes": space,
            });
            let grade = if free.bytes < LITTLE_MEMORY { Grade::Warning } else { Grade::Ok };
            Finding::new("memory", grade, format!("{} free{of} (bound by: {})", human(free.bytes), free.bound), data)
        }
        None => {
            let text = match total {
                Some(total) => format!("{}; this system does not tell what is free of it", human(total)),
                None => "this system does not tell what is free".to_owned(),
            };
            let data = json!({ "free_bytes": null, "total_bytes": total, "bound": null, "address_space_bytes": space });
            Finding::new("memory", Grade::Ok, text, data)
        }
    }
}

/// How hot the machine is and whether its clock is held back; nothing where the system tells neither.
fn heat(machine: &Machine) -> Option<Finding> {
    let (temperature, limit) = (machine.temperature(), machine.clock_limit());
    let mut text = Vec::new();
    text.extend(temperature.map(|degrees| format!("{degrees:.0} °C")));
    text.extend(limit.map(|(now, most)| format!("clock held back to {now} of {most} MHz")));
    let warm = temperature.is_some_and(|degrees| degrees >= HOT) || limit.is_some();
    let data = json!({
        "celsius": temperature,
        "clock_limit_mhz": limit.map(|limit| limit.0),
        "clock_max_mhz": limit.map(|limit| limit.1),
    });
    let grade = if warm { Grade::Warning } else { Grade::Ok };
    (!text.is_empty()).then(|| Finding::new("temperature", grade, text.join("; "), data))
}

/// Bytes that are read to measure: more than the caches of most machines hold, and an eighth of what is free at most.
const READ: u64 = 128 << 20;
/// Fewer bytes than this measure the caches.
const LEAST_READ: u64 = 8 << 20;
/// How long one number of threads reads.
const READING: Duration = Duration::from_millis(150);
/// Bytes of a piece of work.
const PIECE: usize = 256 << 10;

/// How fast memory is read, by one thread and by all together: the bound of decode, which reads all weights per token.
fn bandwidth(machine: &Machine, interrupt: &dyn Interrupt) -> Result<Finding> {
    let threads = machine.threads();
    let bytes = machine.free_memory().map_or(READ, |free| READ.min(free.bytes / 8));
    let none = |text: &str| {
        let data = json!({ "bytes_per_second": null, "threads": threads, "one_thread_bytes_per_second": null });
        Ok(Finding::new("bandwidth", Grade::Ok, text.to_owned(), data))
    };
    let mut words: Vec<u64> = Vec::new();
    let len = (bytes as usize) / size_of::<u64>();
    if bytes < LEAST_READ || words.try_reserve_exact(len).is_err() {
        return none("not measured: too little memory is free");
    }
    words.resize(len, 1);
    let measure = |threads: usize| -> Result<f64> {
        let mut pool = Pool::new(threads)?.on(machine.placement(threads).unwrap_or_default());
        let pieces: Vec<&[u64]> = words.chunks(PIECE / size_of::<u64>()).collect();
        let sum = |piece: &[u64]| piece.iter().fold(0u64, |sum, &word| sum.wrapping_add(word));
        let (start, mut passes) = (Instant::now(), 0);
        while passes == 0 || start.elapsed() < READING {
            pool.run(pieces.len(), interrupt, |piece, _| _ = black_box(sum(black_box(pieces[piece]))))?;
            passes += 1;
        }
        Ok((passes * size_of_val(words.as_slice())) as f64 / start.elapsed().as_secs_f64())
    };
    let one = measure(1)?;
    let all = if threads > 1 { measure(threads)? } else { one };
    let by_all = if threads > 1 { format!(", {:.1} GB/s by {threads}", all / 1e9) } else { String::new() };
    let text = format!("about {:.1} GB/s read by 1 thread{by_all} (a quick look, not a benchmark)", one / 1e9);
    let data = json!({ "bytes_per_second": all, "threads": threads, "one_thread_bytes_per_second": one });
    Ok(Finding::new("bandwidth", Grade::Ok, text, data))
}
