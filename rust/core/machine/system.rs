//! What the system is asked by calls and not by files.

use std::collections::BTreeSet;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::fs;

/// Processors per word of a mask.
#[cfg(any(target_os = "linux", target_os = "android"))]
const WORD: usize = libc::c_ulong::BITS as usize;

/// The processors that the calling thread may use: online, in its cpuset and in its affinity mask. `None` where there is no such mask.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn affinity() -> Option<BTreeSet<usize>> {
    // Refused when the machine may have more processors than the mask has bits.
    for words in [16, 128, 1024] {
        let mut mask: Vec<libc::c_ulong> = vec![0; words];
        // SAFETY: the size and the pointer describe `mask`; 0 is the calling thread.
        if unsafe { libc::sched_getaffinity(0, size_of_val(mask.as_slice()), mask.as_mut_ptr().cast()) } == 0 {
            let set: BTreeSet<usize> =
                (0..words * WORD).filter(|&cpu| mask[cpu / WORD] >> (cpu % WORD) & 1 == 1).collect();
            return Some(set).filter(|set| !set.is_empty());
        }
    }
    None
}

/// There are no masks here.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn affinity() -> Option<BTreeSet<usize>> {
    None
}

/// Restricts the calling thread to those of `processors` that it may use; never to others. Where it may use none of them, or the
/// system refuses, it stays as it is: it then computes the same, where the system puts it.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn stay_on(processors: &BTreeSet<usize>) {
    let Some(allowed) = affinity() else { return };
    let wanted: BTreeSet<usize> = allowed.intersection(processors).copied().collect();
    let Some(&last) = wanted.last() else { return };
    if wanted.len() == allowed.len() {
        return;
    }
    let mut mask: Vec<libc::c_ulong> = vec![0; last / WORD + 1];
    for cpu in wanted {
        mask[cpu / WORD] |= 1 << (cpu % WORD);
    }
    // SAFETY: the size and the pointer describe `mask`; 0 is the calling thread.
    unsafe { libc::sched_setaffinity(0, size_of_val(mask.as_slice()), mask.as_ptr().cast()) };
}

/// There are no masks here; the system itself puts busy threads on fast cores.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn stay_on(_processors: &BTreeSet<usize>) {}

/// What is left of the limit of the address space, and its name.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[allow(clippy::useless_conversion, reason = "rlim_t is 32 bits wide on some targets")]
pub(super) fn address_space_left() -> Option<(u64, &'static str)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a valid struct.
    let limited =
        unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) } == 0 && limit.rlim_cur != libc::RLIM_INFINITY;
    let narrow = cfg!(target_pointer_width = "32");
    if !limited && !narrow {
        return None;
    }
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let limited =
        limited.then(|| (u64::from(limit.rlim_cur).saturating_sub(mapped(&maps)), "address space limit (ulimit -v)"));
    let narrow = narrow.then(|| (narrow_space_left(&maps), "address space of a 32-bit process"));
    limited.into_iter().chain(narrow).min_by_key(|bound| bound.0)
}

/// No limit is known here.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn address_space_left() -> Option<(u64, &'static str)> {
    None
}

/// The address ranges of `/proc/self/maps`, without what the kernel puts above the space of the process.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn ranges(maps: &str) -> impl Iterator<Item = (u64, u64)> {
    let own = maps.lines().filter(|line| !line.ends_with("[vectors]") && !line.ends_with("[vsyscall]"));
    own.filter_map(|line| {
        let (begin, end) = line.split_ascii_whitespace().next()?.split_once('-')?;
        Some((u64::from_str_radix(begin, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
    })
}

/// Bytes of address space in use.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn mapped(maps: &str) -> u64 {
    ranges(maps).map(|(begin, end)| end.saturating_sub(begin)).sum()
}

/// What is left of the address space of a 32-bit process. A 64-bit kernel gives it 4 GiB, of which the stack has the end; a 32-bit
/// kernel keeps the upper one for itself.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn narrow_space_left(maps: &str) -> u64 {
    let top = ranges(maps).map(|range| range.1).max().unwrap_or(0);
    let space: u64 = if top > 3 << 30 { 4 << 30 } else { 3 << 30 };
    space.saturating_sub(mapped(maps))
}

/// A value that macOS keeps under a name.
#[cfg(target_vendor = "apple")]
fn sysctl(name: &std::ffi::CStr) -> Option<Vec<u8>> {
    let mut value = vec![0u8; 256];
    let mut size = value.len();
    // SAFETY: the name ends with NUL, and the size and the pointer describe `value`.
    let status =
        unsafe { libc::sysctlbyname(name.as_ptr(), value.as_mut_ptr().cast(), &raw mut size, std::ptr::null_mut(), 0) };
    value.truncate(size);
    (status == 0).then_some(value)
}

/// A number, of 32 or 64 bits.
#[cfg(target_vendor = "apple")]
fn sysctl_number(name: &std::ffi::CStr) -> Option<u64> {
    let value = sysctl(name)?;
    match value.len() {
        4 => Some(u32::from_ne_bytes(value.try_into().ok()?).into()),
        8 => Some(u64::from_ne_bytes(value.try_into().ok()?)),
        _ => None,
    }
}

/// As many processors as the fastest kind of core has: macOS has no masks, so only their number means something.
#[cfg(target_vendor = "apple")]
pub(super) fn fast_processors() -> Option<BTreeSet<usize>> {
    let kinds = sysctl_number(c"hw.nperflevels")?;
    let fast = usize::try_from(sysctl_number(c"hw.perflevel0.logicalcpu")?).ok()?;
    (kinds > 1).then(|| (0..fast).collect())
}

/// Files tell on Linux; elsewhere nothing is asked.
#[cfg(not(target_vendor = "apple"))]
pub(super) fn fast_processors() -> Option<BTreeSet<usize>> {
    None
}

/// The brand of the processor.
#[cfg(target_vendor = "apple")]
pub(super) fn processor_name() -> Option<String> {
    let name = sysctl(c"machdep.cpu.brand_string")?;
    Some(String::from_utf8(name).ok()?.trim_end_matches('\0').to_owned())
}

/// Windows keeps it in the environment; elsewhere files tell.
#[cfg(not(target_vendor = "apple"))]
pub(super) fn processor_name() -> Option<String> {
    if cfg!(windows) { std::env::var("PROCESSOR_IDENTIFIER").ok() } else { None }
}

/// Bytes of memory that the machine has.
#[cfg(target_vendor = "apple")]
pub(super) fn memory_size() -> Option<u64> {
    sysctl_number(c"hw.memsize")
}

/// Files tell on Linux; elsewhere nothing is asked.
#[cfg(not(target_vendor = "apple"))]
pub(super) fn memory_size() -> Option<u64> {
    None
}

/// Bytes of a page of memory: 4, 16 or 64 KiB on ARM, 4 KiB on x86. `None` where the system is not asked.
pub fn page_size() -> Option<usize> {
    #[cfg(unix)]
    {
        // SAFETY: sysconf has no preconditions.
        usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()
    }
    #[cfg(not(unix))]
    {
        None
    }
}

/// Largest resident size of this process so far, in bytes, where the system tells. Linux: `VmHWM`, because the figure of
/// `getrusage` begins at the size of the process that started this one.
pub fn peak_rss_bytes() -> Option<u64> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        super::field::<u64>(&status, "VmHWM:")?.checked_mul(1024)
    }
    #[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
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

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use super::*;

    #[test]
    fn the_space_of_a_32_bit_process() {
        let kernel32 = "00010000-00090000 r-xp 00000000 b3:02 1 /usr/bin/fastq\n\
                        76000000-b6000000 r--s 00000000 b3:02 2 /home/pi/m.gguf\n\
                        be8a0000-be8c1000 rw-p 00000000 00:00 0 [stack]\n\
                        ffff0000-ffff1000 r-xp 00000000 00:00 0 [vectors]\n";
        let used = 0x80000 + 0x4000_0000 + 0x21000;
        assert_eq!((mapped(kernel32), narrow_space_left(kernel32)), (used, (3 << 30) - used));
        let kernel64 = "00010000-00090000 r-xp 00000000 b3:02 1 /usr/bin/fastq\n\
                        ff8a0000-ff8c1000 rw-p 00000000 00:00 0 [stack]\n";
        assert_eq!(narrow_space_left(kernel64), (4 << 30) - 0x80000 - 0x21000);
        assert_eq!((mapped("no map\n"), narrow_space_left("")), (0, 3 << 30));
    }

    #[test]
    fn threads_stay_where_they_are_told_and_never_go_elsewhere() {
        let before = affinity().expect("a mask");
        let of_thread = |processors: Vec<usize>| {
            let body = move || {
                stay_on(&processors.into_iter().collect());
                affinity().expect("a mask")
            };
            std::thread::spawn(body).join().expect("ends")
        };
        let first = *before.first().expect("a processor");
        assert_eq!(of_thread(vec![first]), [first].into());
        assert_eq!(of_thread(vec![first, 90_000]), [first].into(), "the other one is not ours");
        assert_eq!(of_thread(vec![90_000, 90_001]), before);
        assert_eq!(of_thread(vec![]), before);
        assert_eq!(affinity(), Some(before), "the caller is left alone");
    }
}
