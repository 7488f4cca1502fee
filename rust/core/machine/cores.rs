//! Which processors are fast: machines with cores of several kinds (ARM big.LITTLE, phones with three clusters, Intel hybrids).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::arm::Part;
use super::{Machine, parse_cpu_list};

/// Processors that are alike.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CoreKind {
    /// Such as `Cortex-A76`, where the system tells.
    pub name: Option<String>,
    /// The processors of the kind that this process may use.
    pub processors: BTreeSet<usize>,
    /// The highest clock in MHz, where the system tells.
    pub max_mhz: Option<u64>,
    /// Threads are put on them by default; false for the slow cores of a machine that has faster ones.
    pub fast: bool,
}

impl CoreKind {
    /// `4 × Cortex-A76 + 4 × Cortex-A55`; `None` unless all have names.
    pub fn list<'a>(kinds: impl IntoIterator<Item = &'a CoreKind>) -> Option<String> {
        let mut counts: Vec<(&str, usize)> = Vec::new();
        for kind in kinds {
            let name = kind.name.as_deref()?;
            match counts.iter_mut().find(|(known, _)| *known == name) {
                Some((_, count)) => *count += kind.processors.len(),
                None => counts.push((name, kind.processors.len())),
            }
        }
        let cores: Vec<String> = counts.iter().map(|(name, count)| format!("{count} × {name}")).collect();
        (!cores.is_empty()).then(|| cores.join(" + "))
    }
}

impl Machine {
    /// The fast ones of the processors that this process may use; `None` when all are about equally fast or nothing is known.
    ///
    /// Intel hybrids list them. Elsewhere the speed of a core is its `cpu_capacity` (what Linux' scheduler believes); where that is
    /// missing or the same for all, as on many boards and phones whose device tree does not say, it is the core's highest clock,
    /// on ARM times the work per clock that its part number stands for.
    ///
    /// A core is slow when it has less than half the speed of the fastest *and* lies below the widest gap between speeds. The second
    /// condition keeps the middle cluster of a phone, which may be slightly below half of its one or two prime cores (the A76 of a
    /// Pixel 6 have 498 of 1024) but is far above the little ones (160).
    pub fn performance_cores(&self) -> Option<BTreeSet<usize>> {
        // Looked for once: on a machine of many processors that is hundreds of files.
        self.fast.get_or_init(|| self.find_performance_cores()).clone()
    }

    fn find_performance_cores(&self) -> Option<BTreeSet<usize>> {
        let told = self.told_fast.clone().or_else(|| {
            let list = self.read("sys/devices/cpu_core/cpus")?;
            parse_cpu_list(list.trim())
        });
        let fast = match told {
            Some(list) => self.processors.intersection(&list).copied().collect(),
            None => fast(&self.speeds()?),
        };
        (!fast.is_empty() && fast.len() < self.processors.len()).then_some(fast)
    }

    /// The processors this process may use, grouped by what they are; the fast ones first.
    pub fn core_kinds(&self) -> Vec<CoreKind> {
        let fast = self.performance_cores();
        let parts = self.parts();
        let mut kinds: Vec<CoreKind> = Vec::new();
        for &cpu in &self.processors {
            let name = parts.get(&cpu).map(|part| part.name());
            let max_mhz = self.max_khz(cpu).map(|khz| khz.div_ceil(1000));
            let fast = fast.as_ref().is_none_or(|fast| fast.contains(&cpu));
            let alike = |kind: &&mut CoreKind| kind.fast == fast && kind.name == name && kind.max_mhz == max_mhz;
            match kinds.iter_mut().find(alike) {
                Some(kind) => _ = kind.processors.insert(cpu),
                None => kinds.push(CoreKind { name, processors: [cpu].into(), max_mhz, fast }),
            }
        }
        kinds.sort_by_key(|kind| (!kind.fast, std::cmp::Reverse(kind.max_mhz)));
        kinds
    }

    /// Number of physical cores among the processors this process may use, where the system tells: fewer than processors with
    /// simultaneous multithreading.
    pub fn physical_cores(&self) -> Option<usize> {
        let siblings = self.processors.iter().map(|cpu| {
            let list = self.read(&format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"))?;
            parse_cpu_list(list.trim())
        });
        siblings.collect::<Option<BTreeSet<_>>>().map(|cores| cores.len()).filter(|&cores| cores > 0)
    }

    /// Speeds of all processors, relative to each other, from the first source that knows them all and tells some apart.
    fn speeds(&self) -> Option<BTreeMap<usize, u64>> {
        let all = |speed: &dyn Fn(usize) -> Option<u64>| -> Option<BTreeMap<usize, u64>> {
            let speeds = self.processors.iter().map(|&cpu| Some((cpu, speed(cpu).filter(|&speed| speed > 0)?)));
            let speeds: BTreeMap<usize, u64> = speeds.collect::<Option<_>>()?;
            let first = speeds.values().next()?;
            speeds.values().any(|speed| speed != first).then_some(speeds)
        };
        let parts = self.parts();
        let per_clock = |cpu| if parts.is_empty() { Some(1) } else { parts.get(&cpu).map(|part| part.class() as u64) };
        all(&|cpu| self.number(&format!("sys/devices/system/cpu/cpu{cpu}/cpu_capacity")))
            .or_else(|| all(&|cpu| per_clock(cpu)?.checked_mul(self.max_khz(cpu)?)))
            // Little cores have the lower clocks as well, whatever they are.
            .or_else(|| all(&|cpu| per_clock(cpu).map(|work| if work == 1 { 3 } else { 4 * work })))
    }

    fn max_khz(&self, cpu: usize) -> Option<u64> {
        self.number(&format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq"))
    }

    /// What the processors are, on ARM.
    fn parts(&self) -> BTreeMap<usize, Part> {
        if !self.may_be_arm {
            return BTreeMap::new();
        }
        let registers = self.processors.iter().filter_map(|&cpu| {
            let text = self.read(&format!("sys/devices/system/cpu/cpu{cpu}/regs/identification/midr_el1"))?;
            Some((cpu, Part::from_midr(hexadecimal(&text)?)))
        });
        let registers: BTreeMap<usize, Part> = registers.collect();
        if !registers.is_empty() {
            return registers;
        }
        let (mut found, mut cpu, mut implementer) = (BTreeMap::new(), None, None);
        let mut last = None;
        for (name, value) in self.cpuinfo() {
            match name.as_str() {
                "processor" => cpu = value.parse().ok(),
                "CPU implementer" => implementer = hexadecimal(&value),
                "CPU part" => {
                    if let (Some(implementer), Some(part)) = (implementer, hexadecimal(&value)) {
                        last = Some(Part { implementer: implementer as u32, part: part as u32 });
                        found.extend(cpu.zip(last));
                    }
                }
                _ => {}
            }
        }
        // Old kernels describe all processors once, after the list of them.
        if let (1, Some(part)) = (found.len(), last) {
            found = self.processors.iter().map(|&cpu| (cpu, part)).collect();
        }
        found
    }

    /// The fields of `/proc/cpuinfo` in its order.
    pub(super) fn cpuinfo(&self) -> Vec<(String, String)> {
        let text = self.read("proc/cpuinfo").unwrap_or_default();
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        fields.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
    }

    /// A number in a file of the tree.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.read(path)?.trim().parse().ok()
    }

    /// The text of a file of the tree.
    pub(super) fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok()
    }
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
}

/// The fast ones; see [`Machine::performance_cores`].
fn fast(speeds: &BTreeMap<usize, u64>) -> BTreeSet<usize> {
    let distinct: BTreeSet<u64> = speeds.values().copied().collect();
    let distinct: Vec<u64> = distinct.into_iter().collect();
    let ratio = |pair: &&[u64]| pair[1] as f64 / pair[0] as f64;
    let above = distinct.windows(2).max_by(|a, b| ratio(a).total_cmp(&ratio(b))).map_or(0, |pair| pair[1]);
    let half = distinct.last().map_or(0, |fastest| fastest.div_ceil(2));
    speeds.iter().filter(|(_, speed)| **speed >= above.min(half)).map(|(&cpu, _)| cpu).collect()
}
