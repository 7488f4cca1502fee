//! What this machine grants the process: processors (cgroup quota, affinity, performance cores) and memory (free, cgroup
//! limit, address space). Everything that comes from files is read below a root folder, so that tests can bring a tree.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A view of `/proc` and `/sys`.
#[derive(Clone, Debug)]
pub struct Machine {
    root: PathBuf,
    processors: BTreeSet<usize>,
    address_space: Option<u64>,
}

/// Free memory and what bounds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FreeMemory {
    /// Bytes that can still be allocated.
    pub bytes: u64,
    /// What the figure comes from, for messages.
    pub bound: &'static str,
}

impl Machine {
    /// The machine the process runs on, as its own cgroup and affinity show it.
    pub fn this() -> Machine {
        Machine { root: PathBuf::from("/"), processors: affinity(), address_space: address_space_left() }
    }

    /// A machine described by the files below `root`, with the given processors.
    pub fn from_tree(root: &Path, processors: impl IntoIterator<Item = usize>) -> Machine {
        Machine { root: root.to_path_buf(), processors: processors.into_iter().collect(), address_space: None }
    }

    /// Number of threads that the machine really grants: the least of the cgroup quota (rounded up), the affinity mask and, where
    /// the system tells cores apart, the performance cores among them. At least 1.
    pub fn threads(&self) -> usize {
        let mut count = self.processors.len();
        if let Some(fast) = self.performance_cores() {
            let usable = self.processors.intersection(&fast).count();
            if usable > 0 {
                count = usable;
            }
        }
        if let Some(quota) = self.cpu_quota() {
            count = count.min(quota.ceil() as usize);
        }
        count.max(1)
    }

    /// CPUs' worth of time that the cgroup (v2 or v1) and its parents grant.
    pub fn cpu_quota(&self) -> Option<f64> {
        let v2 = self.levels("", &["cgroup", "cgroup/unified"]).into_iter().filter_map(|dir| {
            let text = fs::read_to_string(dir.join("cpu.max")).ok()?;
            let (quota, period) = text.trim().split_once(' ')?;
            ratio(quota, period)
        });
        let v1 = self.levels("cpu", &["cgroup/cpu", "cgroup/cpu,cpuacct"]).into_iter().filter_map(|dir| {
            let quota = fs::read_to_string(dir.join("cpu.cfs_quota_us")).ok()?;
            let period = fs::read_to_string(dir.join("cpu.cfs_period_us")).ok()?;
            ratio(quota.trim(), period.trim())
        });
        v2.chain(v1).min_by(f64::total_cmp)
    }

    /// The performance cores, when the system tells cores apart: Intel hybrids list them, ARM gives capacities, of which those
    /// of at least half the largest count.
    pub fn performance_cores(&self) -> Option<BTreeSet<usize>> {
        let devices = self.root.join("sys/devices");
        if let Ok(list) = fs::read_to_string(devices.join("cpu_core/cpus")) {
            return parse_cpu_list(list.trim());
        }
        let capacities: Vec<(usize, u64)> = self
            .processors
            .iter()
            .filter_map(|&cpu| {
                let path = devices.join(format!("system/cpu/cpu{cpu}/cpu_capacity"));
                Some((cpu, fs::read_to_string(path).ok()?.trim().parse().ok()?))
            })
            .collect();
        let largest = capacities.iter().map(|c| c.1).max()?;
        Some(capacities.into_iter().filter(|c| c.1 * 2 >= largest).map(|c| c.0).collect())
    }

    /// Memory that can still be allocated: the least of the system's estimate, what the cgroup and its parents leave (file cache
    /// counts as free: the kernel drops it first) and the address space limit. `None` where the system does not tell.
    pub fn free_memory(&self) -> Option<FreeMemory> {
        let system = fs::read_to_string(self.root.join("proc/meminfo")).ok().and_then(|text| {
            let kib: u64 = field(&text, "MemAvailable:")?;
            Some(FreeMemory { bytes: kib.saturating_mul(1024), bound: "free memory" })
        });
        let v2 = self.levels("", &["cgroup", "cgroup/unified"]).into_iter().filter_map(|dir| {
            let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
            let cache =
                field::<u64>(&stat, "active_file").unwrap_or(0) + field::<u64>(&stat, "inactive_file").unwrap_or(0);
            left(&dir, "memory.max", "memory.current", cache)
        });
        let v1 = self.levels("memory", &["cgroup/memory"]).into_iter().filter_map(|dir| {
            let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
            let cache = field::<u64>(&stat, "total_active_file").unwrap_or(0)
                + field::<u64>(&stat, "total_inactive_file").unwrap_or(0);
            left(&dir, "memory.limit_in_bytes", "memory.usage_in_bytes", cache)
        });
        let space = self.address_space.map(|bytes| FreeMemory { bytes, bound: "address space limit (ulimit -v)" });
        system.into_iter().chain(v2).chain(v1).chain(space).min_by_key(|free| free.bytes)
    }

    /// The folders of the process's cgroup and its parents, innermost first. `controller` is empty for v2. Where the path of the
    /// process is not visible (a container that sees only its own subtree), the mount itself is its cgroup.
    fn levels(&self, controller: &str, mounts: &[&str]) -> Vec<PathBuf> {
        let Ok(text) = fs::read_to_string(self.root.join("proc/self/cgroup")) else { return Vec::new() };
        let path = text.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let ours = if controller.is_empty() {
                id == "0" && controllers.is_empty()
            } else {
                controllers.split(',').any(|c| c == controller)
            };
            ours.then(|| path.trim_start_matches('/').to_owned())
        });
        let Some(path) = path else { return Vec::new() };
        let mut folders = Vec::new();
        for mount in mounts {
            let mount = self.root.join("sys/fs").join(mount);
            if !mount.is_dir() {
                continue;
            }
            let mut dir = mount.join(&path);
            // A path with `..` is outside the namespace: nothing below the mount describes it.
            if path.split('/').any(|part| part == "..") {
                dir = mount.clone();
            }
            while dir != mount && dir.starts_with(&mount) {
                if dir.is_dir() {
                    folders.push(dir.clone());
                }
                dir.pop();
            }
            folders.push(mount);
        }
        folders
    }
}

fn ratio(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

fn left(dir: &Path, limit: &str, usage: &str, cache: u64) -> Option<FreeMemory> {
    let limit: u64 = fs::read_to_string(dir.join(limit)).ok()?.trim().parse().ok()?;
    let usage: u64 = fs::read_to_string(dir.join(usage)).ok()?.trim().parse().ok()?;
    // cgroup v1 writes "no limit" as the largest multiple of a page.
    if limit >= 1 << 60 {
        return None;
    }
    Some(FreeMemory { bytes: limit.saturating_sub(usage.saturating_sub(cache)), bound: "cgroup memory limit" })
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

#[cfg(any(target_os = "linux", target_os = "android"))]
fn affinity() -> BTreeSet<usize> {
    // SAFETY: an all-zero cpu_set_t is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer and the size describe `set`; 0 is the calling thread.
    let status = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    if status == 0 {
        // SAFETY: every index is below the size of the set.
        let found: BTreeSet<usize> =
            (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect();
        if !found.is_empty() {
            return found;
        }
    }
    // More than 1024 processors: the mask does not fit the fixed set, the count of the standard library is right.
    (0..std::thread::available_parallelism().map_or(1, usize::from)).collect()
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn affinity() -> BTreeSet<usize> {
    (0..std::thread::available_parallelism().map_or(1, usize::from)).collect()
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[allow(clippy::useless_conversion, reason = "rlim_t is 32 bits wide on some targets")]
fn address_space_left() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a valid struct.
    if unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) } != 0 || limit.rlim_cur == libc::RLIM_INFINITY {
        return None;
    }
    // SAFETY: sysconf has no preconditions.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split_ascii_whitespace().next()?.parse().ok()?;
    Some(u64::from(limit.rlim_cur).saturating_sub(pages.saturating_mul(page)))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn address_space_left() -> Option<u64> {
    None
}
/// Largest resident size of this process so far, in bytes, where the system tells. Linux: `VmHWM`, because the figure of
/// `getrusage` begins at the size of the process that started this one.
pub fn peak_rss_bytes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        field::<u64>(&status, "VmHWM:")?.checked_mul(1024)
    }
    #[cfg(all(unix, not(target_os = "linux")))]
    {
        // SAFETY: rusage is plain numbers, for which all bits zero is a value; getrusage only writes into it.
        let (code, usage) = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            (libc::getrusage(libc::RUSAGE_SELF, &mut usage), usage)
        };
        let unit = if cfg!(target_vendor = "apple") { 1 } else { 1024 };
        (code == 0).then(|| u64::try_from(usage.ru_maxrss).unwrap_or(0) * unit)
    }
    #[cfg(not(unix))]
    {
        None
    }
}
