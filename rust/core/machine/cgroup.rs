//! The limits of the control group (v2 or v1) that the process is in, and of the groups around it.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Machine, field};

impl Machine {
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

    /// Bytes that the group and its parents leave; file cache counts as free.
    pub(super) fn group_memory(&self) -> Option<u64> {
        let v2 = self.levels("", &["cgroup", "cgroup/unified"]).into_iter().flat_map(|dir| {
            let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
            let cache =
                field::<u64>(&stat, "active_file").unwrap_or(0) + field::<u64>(&stat, "inactive_file").unwrap_or(0);
            // Above `memory.high` nothing is killed, but whoever allocates is stopped until others have given memory back.
            ["memory.max", "memory.high"].map(|limit| left(&dir, limit, "memory.current", cache)).into_iter().flatten()
        });
        let v1 = self.levels("memory", &["cgroup/memory"]).into_iter().filter_map(|dir| {
            let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
            let cache = field::<u64>(&stat, "total_active_file").unwrap_or(0)
                + field::<u64>(&stat, "total_inactive_file").unwrap_or(0);
            left(&dir, "memory.limit_in_bytes", "memory.usage_in_bytes", cache)
        });
        v2.chain(v1).min()
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

fn left(dir: &Path, limit: &str, usage: &str, cache: u64) -> Option<u64> {
    let limit: u64 = fs::read_to_string(dir.join(limit)).ok()?.trim().parse().ok()?;
    let usage: u64 = fs::read_to_string(dir.join(usage)).ok()?.trim().parse().ok()?;
    // cgroup v1 writes "no limit" as the largest multiple of a page.
    if limit >= 1 << 60 {
        return None;
    }
    Some(limit.saturating_sub(usage.saturating_sub(cache)))
}
