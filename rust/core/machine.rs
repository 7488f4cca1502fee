//! What this machine grants the process: processors (cgroup quota, affinity, performance cores) and memory (free, cgroup
//! limit, address space). Everything that comes from files is read below a root folder, so that tests can bring a tree.

mod arm;
mod cgroup;
mod cores;
mod system;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use cores::CoreKind;
pub(crate) use system::stay_on;
pub use system::{page_size, peak_rss_bytes};

/// A view of `/proc` and `/sys`, and of what only system calls tell.
#[derive(Clone, Debug)]
pub struct Machine {
    root: PathBuf,
    processors: BTreeSet<usize>,
    /// What is left of a limit on addresses.
    address_space: Option<(u64, &'static str)>,
    /// The fast processors, the name of the processor and the size of the memory, where system calls tell and no files.
    told_fast: Option<BTreeSet<usize>>,
    told_name: Option<String>,
    told_memory: Option<u64>,
    /// The files may describe cores by their ARM part numbers. Elsewhere `/proc/cpuinfo` need not be read, which takes a large
    /// machine milliseconds.
    may_be_arm: bool,
    /// See [`Machine::performance_cores`].
    fast: OnceLock<Option<BTreeSet<usize>>>,
}

/// Free memory and what bounds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FreeMemory {
    /// Bytes that can still be allocated.
    pub bytes: u64,
    /// What the figure comes from, for messages.
    pub bound: &'static str,
    /// Bytes that allocations and file cache can have together, where the system tells: as `bytes`, but without the limits that
    /// count addresses and not memory.
    pub with_cache: Option<u64>,
}

impl FreeMemory {
    /// Memory of which only the size is known.
    pub fn new(bytes: u64, bound: &'static str) -> FreeMemory {
        FreeMemory { bytes, bound, with_cache: Some(bytes) }
    }
}

impl Machine {
    /// The machine the process runs on, as its own cgroup and affinity show it.
    pub fn this() -> Machine {
        let processors = system::affinity().unwrap_or_else(|| {
            // Where there are no masks, only the number is known.
            (0..std::thread::available_parallelism().map_or(1, usize::from)).collect()
        });
        Machine {
            root: PathBuf::from("/"),
            told_fast: system::fast_processors(),
            told_name: system::processor_name(),
            told_memory: system::memory_size(),
            address_space: system::address_space_left(),
            may_be_arm: cfg!(any(target_arch = "arm", target_arch = "aarch64")),
            fast: OnceLock::new(),
            processors,
        }
    }

    /// A machine described by the files below `root`, with the given processors.
    pub fn from_tree(root: &Path, processors: impl IntoIterator<Item = usize>) -> Machine {
        Machine {
            root: root.to_path_buf(),
            processors: processors.into_iter().collect(),
            address_space: None,
            told_fast: None,
            told_name: None,
            told_memory: None,
            may_be_arm: true,
            fast: OnceLock::new(),
        }
    }

    /// The processors this process may use: those that are online, in its cpuset and in its affinity mask.
    pub fn processors(&self) -> &BTreeSet<usize> {
        &self.processors
    }

    /// Number of threads that the machine really grants: the least of the cgroup quota (rounded up), the affinity mask and, where
    /// the system tells cores apart, the performance cores among them. At least 1.
    ///
    /// The hardware threads of a core count one each: prompts gain from the second one where the kernels leave ports idle, decoding
    /// waits for memory whoever asks for it, and in a virtual machine what looks like a core is often one of two threads anyway.
    /// One that costs more than it brings is sent out by the pool.
    pub fn threads(&self) -> usize {
        let mut count = self.performance_cores().map_or(self.processors.len(), |fast| fast.len());
        if let Some(quota) = self.cpu_quota() {
            count = count.min(quota.ceil() as usize);
        }
        count.max(1)
    }

    /// Where `threads` threads should run: on the performance cores, if there are other ones and the threads are not more. Work is
    /// handed out in pieces, and everybody waits for the last one: on a slow core that is for two to four times as long.
    pub fn placement(&self, threads: usize) -> Option<BTreeSet<usize>> {
        self.performance_cores().filter(|fast| threads <= fast.len())
    }

    /// The name of the processor, or of its cores: `4 × Cortex-A76 + 4 × Cortex-A55`.
    pub fn processor_name(&self) -> Option<String> {
        if let Some(cores) = CoreKind::list(&self.core_kinds()) {
            return Some(cores);
        }
        let fields = self.cpuinfo();
        let named = ["model name", "Model Name", "uarch", "cpu"]
            .iter()
            .find_map(|wanted| fields.iter().find(|(name, value)| name == wanted && !value.is_empty()));
        named.map(|(_, value)| value.clone()).or_else(|| self.told_name.clone())
    }

    /// What the board or phone calls itself: `Raspberry Pi 5 Model B Rev 1.0`.
    pub fn board(&self) -> Option<String> {
        let tree = self.read("proc/device-tree/model").map(|text| text.trim_end_matches('\0').trim().to_owned());
        tree.filter(|name| !name.is_empty()).or_else(|| {
            let mut fields = self.cpuinfo().into_iter();
            fields.find(|(name, value)| name == "Hardware" && !value.is_empty()).map(|(_, value)| value)
        })
    }

    /// The hottest sensor in degrees Celsius, where the system has any.
    pub fn temperature(&self) -> Option<f64> {
        let zones = fs::read_dir(self.root.join("sys/class/thermal")).ok()?.flatten();
        let readings = zones.filter_map(|zone| {
            let thousandths: i64 = fs::read_to_string(zone.path().join("temp")).ok()?.trim().parse().ok()?;
            // Sensors that are off report absolute zero, 0 or the largest number.
            (1..200_000).contains(&thousandths).then_some(thousandths as f64 / 1000.0)
        });
        readings.max_by(f64::total_cmp)
    }

    /// Of the processor whose clock is held back most (by heat, a weak power supply or a setting): what it may have now and what it
    /// could have, in MHz. `None` when no clock is held back, or the system does not tell.
    pub fn clock_limit(&self) -> Option<(u64, u64)> {
        let limits = self.processors.iter().filter_map(|cpu| {
            let clock = |name| self.number(&format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/{name}"));
            let (now, most) = (clock("scaling_max_freq")?, clock("cpuinfo_max_freq")?);
            (now < most).then_some((now / 1000, most / 1000))
        });
        limits.min_by(|a, b| (a.0 * b.1).cmp(&(b.0 * a.1)))
    }

    /// Bytes of memory that the machine has, whatever is free or granted.
    pub fn total_memory(&self) -> Option<u64> {
        let text = self.read("proc/meminfo").unwrap_or_default();
        field::<u64>(&text, "MemTotal:").map(|kib| kib.saturating_mul(1024)).or(self.told_memory)
    }

    /// Memory that can still be allocated: the least of the system's estimate, what the cgroup and its parents leave (file cache
    /// counts as free: the kernel drops it first) and the address space. Swap does not count, compressed or not: what is
    /// swapped out is read again for every token. `None` where the system does not tell.
    pub fn free_memory(&self) -> Option<FreeMemory> {
        let text = self.read("proc/meminfo").unwrap_or_default();
        let kib = |name: &str| field::<u64>(&text, name);
        let available = kib("MemAvailable:").or_else(|| {
            // Before Linux 3.14. Shared memory is counted as cache, but cannot be dropped.
            let cache = kib("Buffers:").unwrap_or(0) + kib("Cached:")?.saturating_sub(kib("Shmem:").unwrap_or(0));
            Some(kib("MemFree:")? + cache)
        });
        let system = available.map(|kib| (kib.saturating_mul(1024), "free memory"));
        let group = self.group_memory().map(|bytes| (bytes, "cgroup memory limit"));
        let memory = system.into_iter().chain(group).min_by_key(|bound| bound.0);
        let (bytes, bound) = memory.into_iter().chain(self.address_space).min_by_key(|bound| bound.0)?;
        Some(FreeMemory { bytes, bound, with_cache: memory.map(|memory| memory.0) })
    }

    /// Bytes of address space that are left, and what bounds them, where they are scarcer than memory may be: under `ulimit -v` and in
    /// 32-bit processes.
    pub fn address_space(&self) -> Option<(u64, &'static str)> {
        self.address_space
    }
}

fn field<T: std::str::FromStr>(text: &str, name: &str) -> Option<T> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == name).then(|| words.next()?.parse().ok())?
    })
}

/// `0-3,8` as a set; `None` when it is empty or malformed.
fn parse_cpu_list(text: &str) -> Option<BTreeSet<usize>> {
    let mut set = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if last.checked_sub(first)? > 1 << 16 {
            return None;
        }
        set.extend(first..=last);
    }
    (!set.is_empty()).then_some(set)
}
