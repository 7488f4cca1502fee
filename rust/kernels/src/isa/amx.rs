//! Whether the tile unit may be used. Its registers are 8 KiB that the operating system has to save, so a process asks first.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, section 13.14 and chapter 18; Linux kernel
//! documentation, "Using XSTATE features in user space applications".

use std::sync::OnceLock;

/// Whether CPU and operating system have the unit, and let this process use it. Asks once; the answer holds for all threads.
pub(crate) fn granted() -> bool {
    static GRANTED: OnceLock<bool> = OnceLock::new();
    *GRANTED.get_or_init(|| has_unit() && permission())
}

/// Whether the CPU has AMX-TILE and AMX-INT8 and the operating system saves the tile state.
fn has_unit() -> bool {
    use core::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    const OSXSAVE: u32 = 1 << 27;
    const AMX: u32 = 1 << 24 | 1 << 25;
    const TILE_STATE: u64 = 1 << 17 | 1 << 18;
    #[target_feature(enable = "xsave")]
    fn saved_states() -> u64 {
        // SAFETY: the register exists, as the feature says.
        unsafe { _xgetbv(0) }
    }
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 || __cpuid_count(7, 0).edx & AMX != AMX {
        return false;
    }
    // SAFETY: OSXSAVE says that the instruction is enabled.
    unsafe { saved_states() & TILE_STATE == TILE_STATE }
}

/// Asks Linux for the permission to use the tile data.
#[cfg(target_os = "linux")]
fn permission() -> bool {
    const ARCH_PRCTL: usize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XFEATURE_XTILEDATA: usize = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: this system call takes two numbers and touches no memory of the process.
    unsafe {
        core::arch::asm!(
            "syscall",
            inout("rax") result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            out("rcx") _, out("r11") _,
            options(nostack)
        );
    }
    result == 0
}

/// Other systems have other ways, which are not built.
#[cfg(not(target_os = "linux"))]
fn permission() -> bool {
    false
}
