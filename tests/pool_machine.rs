//! What the machine grants, read from made-up trees of /proc and /sys.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::Path;

use fastq_core::Never;
use fastq_core::doctor::{Grade, examine, to_json};
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

/// Cores that are alike.
#[derive(Clone, Copy)]
struct Cores {
    /// First and last.
    processors: (usize, usize),
    /// Of ARM's cores.
    part: u32,
    capacity: Option<u64>,
    khz: Option<u64>,
}

fn cores(first: usize, last: usize, part: u32, capacity: u64, khz: u64) -> Cores {
    let some = |value| if value == 0 { None } else { Some(value) };
    Cores { processors: (first, last), part, capacity: some(capacity), khz: some(khz) }
}

/// How the part numbers of ARM's cores are told.
#[derive(Clone, Copy, PartialEq)]
enum Parts {
    Register,
    CpuInfo,
    No,
}

/// The files of a machine with these cores.
fn machine(kinds: &[Cores], parts: Parts) -> tempfile::TempDir {
    let mut files: Vec<(String, String)> = Vec::new();
    let mut info = String::new();
    for kind in kinds {
        for cpu in kind.processors.0..=kind.processors.1 {
            let folder = format!("sys/devices/system/cpu/cpu{cpu}");
            let mut file = |name: &str, text: String| files.push((format!("{folder}/{name}"), text));
            if let Some(capacity) = kind.capacity {
                file("cpu_capacity", format!("{capacity}\n"));
            }
            if let Some(khz) = kind.khz {
                file("cpufreq/cpuinfo_max_freq", format!("{khz}\n"));
            }
            if parts == Parts::Register {
                file("regs/identification/midr_el1", format!("{:#018x}\n", 0x410f_0000 | kind.part << 4 | 1));
            }
            if parts == Parts::CpuInfo {
                info += &format!(
                    "processor\t: {cpu}\nBogoMIPS\t: 48.00\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n\
                     CPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: {:#x}\nCPU revision\t: 1\n\n",
                    kind.part
                );
            }
        }
    }
    files.push(("proc/cpuinfo".into(), info));
    tree(&files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect::<Vec<_>>())
}

const A53: u32 = 0xd03;
const A55: u32 = 0xd05;
const A73: u32 = 0xd09;
const A76: u32 = 0xd0b;
const A510: u32 = 0xd46;
const A715: u32 = 0xd4d;
const A710: u32 = 0xd47;
const X1: u32 = 0xd44;
const X3: u32 = 0xd4e;

/// A machine, its cores, where their numbers are told, the fast ones, and how it is described.
type Described<'a> = (&'a str, &'a [Cores], Parts, Option<Range<usize>>, &'a str);

/// Boards and phones. Capacities are those of the device trees in Linux, times the highest clocks.
#[test]
fn fast_cores_of_boards_and_phones() {
    use Parts::{CpuInfo, No, Register};
    let rk3588 =
        |capacity: u64| [cores(0, 3, A55, 414 * capacity, 1_800_000), cores(4, 7, A76, 1024 * capacity, 2_400_000)];
    let pixel_8 = |khz| {
        let clock = |mhz: u64| mhz * 1000 * khz;
        [cores(0, 3, A510, 0, clock(1704)), cores(4, 7, A715, 0, clock(2367)), cores(8, 8, X3, 0, clock(2914))]
    };
    let sm8550 = [
        cores(0, 2, A510, 204, 2_016_000),
        cores(3, 4, A715, 608, 2_803_200),
        cores(5, 6, A710, 608, 2_803_200),
        cores(7, 7, X3, 1024, 3_187_200),
    ];
    let cases: &[Described<'_>] = &[
        ("Raspberry Pi 5", &[cores(0, 3, A76, 1024, 2_400_000)], Register, None, "4 × Cortex-A76"),
        ("Rock 5B", &rk3588(1), Register, Some(4..8), "4 × Cortex-A76 + 4 × Cortex-A55"),
        ("Rock 5B, no capacities", &rk3588(0), CpuInfo, Some(4..8), "4 × Cortex-A76 + 4 × Cortex-A55"),
        (
            "capacities that say nothing",
            &[cores(0, 3, A55, 1024, 1_800_000), cores(4, 7, A76, 1024, 2_400_000)],
            CpuInfo,
            Some(4..8),
            "4 × Cortex-A76 + 4 × Cortex-A55",
        ),
        (
            "Snapdragon 8 Gen 2",
            &sm8550,
            Register,
            Some(3..8),
            "1 × Cortex-X3 + 2 × Cortex-A715 + 2 × Cortex-A710 + 3 × Cortex-A510",
        ),
        // The middle cluster has slightly less than half of the capacity of the prime one.
        (
            "Pixel 6",
            &[cores(0, 3, A55, 160, 1_803_000), cores(4, 5, A76, 498, 2_253_000), cores(6, 7, X1, 1024, 2_802_000)],
            CpuInfo,
            Some(4..8),
            "2 × Cortex-X1 + 2 × Cortex-A76 + 4 × Cortex-A55",
        ),
        ("Pixel 8", &pixel_8(1), CpuInfo, Some(4..9), "1 × Cortex-X3 + 4 × Cortex-A715 + 4 × Cortex-A510"),
        ("Pixel 8, no clocks", &pixel_8(0), CpuInfo, Some(4..9), "4 × Cortex-A715 + 1 × Cortex-X3 + 4 × Cortex-A510"),
        (
            "Odroid N2",
            &[cores(0, 1, A53, 0, 1_896_000), cores(2, 5, A73, 0, 2_208_000)],
            CpuInfo,
            Some(2..6),
            "4 × Cortex-A73 + 2 × Cortex-A53",
        ),
        (
            "one kind of core at two clocks",
            &[cores(0, 3, A53, 0, 1_200_000), cores(4, 7, A53, 0, 1_500_000)],
            CpuInfo,
            None,
            "8 × Cortex-A53",
        ),
        (
            "little cores in two speeds",
            &[cores(0, 1, A55, 180, 0), cores(2, 3, A55, 220, 0), cores(4, 5, A76, 600, 0), cores(6, 6, X1, 1024, 0)],
            Register,
            Some(4..7),
            "2 × Cortex-A76 + 1 × Cortex-X1 + 4 × Cortex-A55",
        ),
        (
            "a core nobody knows yet",
            &[cores(0, 3, A55, 0, 0), cores(4, 5, 0xff0, 0, 0)],
            CpuInfo,
            Some(4..6),
            "2 × core 0x41/0xff0 + 4 × Cortex-A55",
        ),
        ("favoured cores of a desktop", &[cores(0, 5, 0, 0, 4_900_000), cores(6, 7, 0, 0, 5_200_000)], No, None, ""),
        ("clocks alone", &[cores(0, 3, 0, 0, 1_000_000), cores(4, 5, 0, 0, 2_400_000)], No, Some(4..6), ""),
        ("capacities of some cores only", &[cores(0, 3, 0, 300, 0), cores(4, 5, 0, 0, 0)], No, None, ""),
    ];
    for (name, kinds, parts, fast, cores) in cases {
        let folder = machine(kinds, *parts);
        let count = kinds.iter().map(|kind| kind.processors.1 + 1).max().unwrap_or(0);
        let machine = Machine::from_tree(folder.path(), 0..count);
        let fast: Option<BTreeSet<usize>> = fast.clone().map(Iterator::collect);
        assert_eq!(machine.performance_cores(), fast, "{name}");
        let threads = fast.as_ref().map_or(count, BTreeSet::len);
        assert_eq!(machine.threads(), threads, "{name}");
        assert_eq!(machine.processor_name().as_deref().unwrap_or(""), *cores, "{name}");
        // So many threads or fewer run on the fast cores; who asks for more gets all cores.
        assert_eq!(machine.placement(threads), fast, "{name}");
        assert_eq!(machine.placement(1), fast, "{name}");
        assert_eq!(machine.placement(threads + 1), None, "{name}");
    }
}

#[test]
fn fast_cores_are_looked_for_among_those_that_are_granted() {
    let sm8550 = [cores(0, 2, A510, 204, 0), cores(3, 6, A715, 608, 0), cores(7, 7, X3, 1024, 0)];
    let folder = machine(&sm8550, Parts::Register);
    let fast = |processors: &[usize]| {
        let machine = Machine::from_tree(folder.path(), processors.iter().copied());
        (machine.threads(), machine.performance_cores())
    };
    assert_eq!(fast(&[0, 1, 2]), (3, None), "in the background of a phone, only little cores are granted");
    assert_eq!(fast(&[1, 2, 5, 6]), (2, Some([5, 6].into())));
    assert_eq!(fast(&[3, 5, 7]), (3, None));
    assert_eq!(fast(&[0, 2, 7]), (1, Some([7].into())), "the others are offline");
    // The quota is shared by the fast cores.
    let group = folder.path().join("sys/fs/cgroup");
    fs::create_dir_all(&group).expect("a folder");
    fs::write(group.join("cpu.max"), "200000 100000\n").expect("a file");
    fs::create_dir_all(folder.path().join("proc/self")).expect("a folder");
    fs::write(folder.path().join("proc/self/cgroup"), "0::/\n").expect("a file");
    let machine = Machine::from_tree(folder.path(), 0..8);
    assert_eq!((machine.threads(), machine.placement(2)), (2, Some((3..8).collect())));
}

#[test]
fn hybrids_list_their_fast_cores() {
    let of = |list: &'static str, processors: usize| {
        let folder = tree(&[("sys/devices/cpu_core/cpus", list), ("sys/devices/cpu_atom/cpus", "4-7\n")]);
        Machine::from_tree(folder.path(), 0..processors).performance_cores()
    };
    assert_eq!(of("0-3\n", 8), Some((0..4).collect()));
    assert_eq!(of("0-3\n", 3), None, "all that are granted are fast");
    assert_eq!(of("4-7\n", 3), None, "none that is granted is fast");
}

#[test]
fn machines_tell_what_they_are() {
    let of = |files: &[(&str, &str)], processors: usize| {
        let folder = tree(files);
        let machine = Machine::from_tree(folder.path(), 0..processors);
        (
            machine.processor_name(),
            machine.board(),
            machine.physical_cores(),
            machine.temperature(),
            machine.clock_limit(),
        )
    };
    assert_eq!(of(&[], 2), (None, None, None, None, None));
    let pc = of(
        &[
            ("proc/cpuinfo", "processor\t: 0\nmodel name\t: Some Processor @ 3 GHz\n\nprocessor\t: 1\n"),
            ("sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0-1\n"),
            ("sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "0-1\n"),
        ],
        2,
    );
    assert_eq!(pc, (Some("Some Processor @ 3 GHz".into()), None, Some(1), None, None));
    let cpuinfo = "processor\t: 0\nBogoMIPS\t: 38.40\n\nprocessor\t: 1\nBogoMIPS\t: 38.40\n\n\
                   CPU implementer\t: 0x41\nCPU part\t: 0xc07\n\nHardware\t: BCM2835\n";
    let (name, board, ..) = of(&[("proc/cpuinfo", cpuinfo)], 2);
    assert_eq!((name, board), (Some("2 × Cortex-A7".into()), Some("BCM2835".into())), "an old kernel");
    let hot = of(
        &[
            ("proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0"),
            ("sys/class/thermal/thermal_zone0/temp", "84500\n"),
            ("sys/class/thermal/thermal_zone1/temp", "61000\n"),
            ("sys/class/thermal/thermal_zone2/temp", "-273150\n"),
            ("sys/class/thermal/thermal_zone3/temp", "2147483647\n"),
            ("sys/class/thermal/cooling_device0/type", "fan\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "2400000\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq", "1500000\n"),
            ("sys/devices/system/cpu/cpu1/cpufreq/cpuinfo_max_freq", "2400000\n"),
            ("sys/devices/system/cpu/cpu1/cpufreq/scaling_max_freq", "2400000\n"),
        ],
        2,
    );
    assert_eq!(hot, (None, Some("Raspberry Pi 5 Model B Rev 1.0".into()), None, Some(84.5), Some((1500, 2400))));
}

#[test]
fn the_doctor_gives_reasons() {
    let folder = machine(&[cores(0, 3, A55, 414, 1_800_000), cores(4, 7, A76, 1024, 2_400_000)], Parts::Register);
    let more = [
        ("proc/device-tree/model", "Radxa ROCK 5B\0"),
        ("proc/meminfo", "MemTotal: 8000000 kB\nMemAvailable: 60000 kB\n"),
        ("proc/self/cgroup", "0::/\n"),
        ("sys/fs/cgroup/cpu.max", "350000 100000\n"),
        ("sys/class/thermal/thermal_zone0/temp", "86000\n"),
        ("sys/devices/system/cpu/cpu4/cpufreq/scaling_max_freq", "1200000\n"),
    ];
    for (path, text) in more {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    // Those of this machine that run the measurement are others.
    let findings = examine(&Machine::from_tree(folder.path(), 0..8), &Never).expect("examined");
    let names: Vec<&str> = findings.iter().map(|finding| finding.name).collect();
    assert_eq!(names, ["processor", "level", "threads", "cgroup", "memory", "temperature", "bandwidth"]);
    let of = |name: &str| findings.iter().find(|finding| finding.name == name).expect("found");
    assert!(
        of("processor").text.starts_with("Radxa ROCK 5B: 4 × Cortex-A76 + 4 × Cortex-A55 ("),
        "{:?}",
        of("processor")
    );
    let cores = &of("processor").data["cores"];
    assert_eq!(
        (&cores[0]["name"], &cores[0]["fast"], &cores[0]["max_mhz"]),
        (&"Cortex-A76".into(), &true.into(), &2400.into())
    );
    assert_eq!((&cores[1]["name"], &cores[1]["fast"]), (&"Cortex-A55".into(), &false.into()));
    assert_eq!(
        of("threads").text,
        "4 (8 processors usable by this process, the fast ones are used: 4 × Cortex-A76, the cgroup grants the time of 3.50)"
    );
    assert_eq!(of("threads").data["placed_on"], serde_json::json!([4, 5, 6, 7]));
    assert_eq!(
        (of("memory").grade, of("memory").text.as_str()),
        (Grade::Warning, "58.6 MiB free of 7.6 GiB (bound by: free memory)")
    );
    let heat = of("temperature");
    assert_eq!((heat.grade, heat.text.as_str()), (Grade::Warning, "86 °C; clock held back to 1200 of 2400 MHz"));
    assert_eq!(of("bandwidth").data["bytes_per_second"], serde_json::Value::Null, "too little memory to measure");
    let level = of("level").data["chosen"].as_str().map(str::to_owned);
    assert!(level.is_some(), "{:?}", of("level"));
    assert_eq!(to_json(&findings)["memory"]["status"], "warning");
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
    let high = ("sys/fs/cgroup/user/job/memory.high", "950\n");
    assert_eq!(free(&[meminfo, V2, limit, usage, high]), Some((50, "cgroup memory limit")));
    // Swap is no memory, be it a disk or zram.
    let swap = "MemTotal: 900 kB\nMemFree: 1 kB\nMemAvailable: 200 kB\nSwapTotal: 9000000 kB\nSwapFree: 9000000 kB\n";
    assert_eq!(free(&[("proc/meminfo", swap)]), Some((200 << 10, "free memory")));
    // Before Linux 3.14.
    let old = "MemTotal: 900 kB\nMemFree: 100 kB\nBuffers: 20 kB\nCached: 50 kB\nShmem: 30 kB\nSwapCached: 7 kB\n";
    assert_eq!(free(&[("proc/meminfo", old)]), Some((140 << 10, "free memory")));
    let machine = tree(&[("proc/meminfo", old), V2, limit, usage]);
    let machine = Machine::from_tree(machine.path(), 0..1);
    assert_eq!(machine.total_memory(), Some(900 << 10));
    let free = machine.free_memory().expect("known");
    assert_eq!((free.bytes, free.with_cache), (100, Some(100)));
}

#[test]
fn this_machine_grants_at_least_one_thread() {
    let machine = Machine::this();
    assert!(machine.threads() >= 1);
    if Path::new("/proc/meminfo").exists() {
        assert!(machine.free_memory().is_some_and(|free| free.bytes > 0));
    }
}
