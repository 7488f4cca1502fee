//! What the machine grants, read from made-up trees of /proc and /sys.

use std::fs;
use std::path::Path;

use fastq_core::machine::Machine;

/// A name, files with their text, the number of processors, the threads expected.
type Case = (&'static str, &'static [(&'static str, &'static str)], usize, usize);

/// Writes files below a new folder.
fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    folder
}

fn threads(files: &[(&str, &str)], processors: usize) -> usize {
    let folder = tree(files);
    Machine::from_tree(folder.path(), 0..processors).threads()
}

const V2: (&str, &str) = ("proc/self/cgroup", "0::/user/job\n");
const V1: (&str, &str) = ("proc/self/cgroup", "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n");

#[test]
fn threads_follow_quota_affinity_and_cores() {
    let cases: &[Case] = &[
        ("nothing known", &[], 6, 6),
        ("no processors known", &[], 0, 1),
        ("v2 without a limit", &[V2, ("sys/fs/cgroup/user/job/cpu.max", "max 100000\n")], 8, 8),
        ("v2 quota, rounded up", &[V2, ("sys/fs/cgroup/user/job/cpu.max", "150000 100000\n")], 8, 2),
        (
            "v2 quota of a parent",
            &[
                V2,
                ("sys/fs/cgroup/user/cpu.max", "300000 100000\n"),
                ("sys/fs/cgroup/user/job/cpu.max", "max 100000\n"),
            ],
            8,
            3,
        ),
        ("v2 below one", &[V2, ("sys/fs/cgroup/user/job/cpu.max", "20000 100000\n")], 8, 1),
        ("v2 in a container that sees only itself", &[V2, ("sys/fs/cgroup/cpu.max", "200000 100000\n")], 8, 2),
        (
            "v2 outside the namespace",
            &[("proc/self/cgroup", "0::/../other\n"), ("sys/fs/cgroup/cpu.max", "400000 100000")],
            8,
            4,
        ),
        (
            "v2 beside v1",
            &[
                ("proc/self/cgroup", "1:name=systemd:/\n0::/job\n"),
                ("sys/fs/cgroup/unified/job/cpu.max", "200000 100000"),
            ],
            8,
            2,
        ),
        (
            "v1 quota",
            &[
                V1,
                ("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "250000\n"),
                ("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n"),
            ],
            8,
            3,
        ),
        (
            "v1 without a limit",
            &[
                V1,
                ("sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us", "-1\n"),
                ("sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us", "100000\n"),
            ],
            8,
            8,
        ),
        ("fewer processors than quota", &[V2, ("sys/fs/cgroup/user/job/cpu.max", "800000 100000\n")], 2, 2),
        ("performance cores of a hybrid", &[("sys/devices/cpu_core/cpus", "0-3,8\n")], 12, 5),
        ("affinity without performance cores", &[("sys/devices/cpu_core/cpus", "20-23\n")], 4, 4),
        (
            "big and little cores",
            &[
                ("sys/devices/system/cpu/cpu0/cpu_capacity", "400"),
                ("sys/devices/system/cpu/cpu1/cpu_capacity", "400"),
                ("sys/devices/system/cpu/cpu2/cpu_capacity", "1024"),
                ("sys/devices/system/cpu/cpu3/cpu_capacity", "871"),
            ],
            4,
            2,
        ),
        (
            "garbage",
            &[V2, ("sys/fs/cgroup/user/job/cpu.max", "a b c\n"), ("sys/devices/cpu_core/cpus", "7-1-x\n")],
            3,
            3,
        ),
    ];
    for (name, files, processors, expected) in cases {
        assert_eq!(threads(files, *processors), *expected, "{name}");
    }
}

#[test]
fn free_memory_is_the_least_of_the_limits() {
    let meminfo = ("proc/meminfo", "MemTotal: 8000000 kB\nMemFree: 1 kB\nMemAvailable:    4000000 kB\n");
    let free = |files: &[(&str, &str)]| {
        let folder = tree(files);
        Machine::from_tree(folder.path(), 0..1).free_memory().map(|free| (free.bytes, free.bound))
    };
    assert_eq!(free(&[]), None);
    assert_eq!(free(&[meminfo]), Some((4_096_000_000, "free memory")));
    // File cache counts as free.
    let stat = ("sys/fs/cgroup/user/job/memory.stat", "anon 5\nactive_file 300\ninactive_file 100\n");
    let limit = ("sys/fs/cgroup/user/job/memory.max", "1000\n");
    let usage = ("sys/fs/cgroup/user/job/memory.current", "900\n");
    assert_eq!(free(&[meminfo, V2, limit, usage]), Some((100, "cgroup memory limit")));
    assert_eq!(free(&[meminfo, V2, limit, usage, stat]), Some((500, "cgroup memory limit")));
    let parent = [("sys/fs/cgroup/user/memory.max", "600\n"), ("sys/fs/cgroup/user/memory.current", "590\n")];
    assert_eq!(free(&[meminfo, V2, limit, usage, stat, parent[0], parent[1]]), Some((10, "cgroup memory limit")));
    let none = ("sys/fs/cgroup/user/job/memory.max", "max\n");
    assert_eq!(free(&[meminfo, V2, none, usage]), Some((4_096_000_000, "free memory")));
    let v1 = |limit| {
        free(&[
            meminfo,
            V1,
            ("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", limit),
            ("sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", "2000\n"),
            ("sys/fs/cgroup/memory/docker/abc/memory.stat", "total_active_file 50\ntotal_inactive_file 150\n"),
        ])
    };
    assert_eq!(v1("5000\n"), Some((3200, "cgroup memory limit")));
    assert_eq!(v1("9223372036854771712\n"), Some((4_096_000_000, "free memory")));
}

#[test]
fn this_machine_grants_at_least_one_thread() {
    let machine = Machine::this();
    assert!(machine.threads() >= 1);
    if Path::new("/proc/meminfo").exists() {
        assert!(machine.free_memory().is_some_and(|free| free.bytes > 0));
    }
}
