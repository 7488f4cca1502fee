//! Names of ARM cores, and how much they do per clock. `/proc/cpuinfo` has numbers only; a core is its implementer's number and a
//! part number, as in MIDR_EL1. Sources: the technical reference manuals, and `arch/arm64/include/asm/cputype.h` of Linux.

use CoreClass::{Big, Little, Prime};

/// Work per clock, coarsely: 1, 2 or 3. What Linux' device trees say of pairs that share a chip lies near it (A55 : A76 = 530 : 1024
/// on RK3588, A510 : A715 : X3 = 326 : 693 : 1024 on SM8550, A55 : A76 : X1 = 250 : 620 : 1024 on GS101).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum CoreClass {
    /// Executes in order.
    Little = 1,
    /// Executes out of order.
    Big = 2,
    /// The widest of its generation.
    Prime = 3,
}

/// Implementer and part number of a core.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Part {
    pub(super) implementer: u32,
    pub(super) part: u32,
}

impl Part {
    /// The fields of a MIDR_EL1.
    pub(super) fn from_midr(midr: u64) -> Part {
        let bits = |from: u32, count: u32| (midr >> from) as u32 & ((1 << count) - 1);
        Part { implementer: bits(24, 8), part: bits(4, 12) }
    }

    fn entry(self) -> Option<&'static (u32, u32, &'static str, CoreClass)> {
        CORES.iter().find(|&&(implementer, part, ..)| (implementer, part) == (self.implementer, self.part))
    }

    /// Such as `Cortex-A76`; the numbers of a core that is not in the table.
    pub(super) fn name(self) -> String {
        match self.entry() {
            Some((_, _, name, _)) => (*name).to_owned(),
            None => format!("core {:#x}/{:#x}", self.implementer, self.part),
        }
    }

    /// A core that is not in the table is newer than it, and probably not the smallest one.
    pub(super) fn class(self) -> CoreClass {
        self.entry().map_or(Big, |entry| entry.3)
    }
}

const ARM: u32 = 0x41;
const QUALCOMM: u32 = 0x51;
const SAMSUNG: u32 = 0x53;
const APPLE: u32 = 0x61;

static CORES: &[(u32, u32, &str, CoreClass)] = &[
    (ARM, 0xb76, "ARM1176", Little),
    (ARM, 0xc05, "Cortex-A5", Little),
    (ARM, 0xc07, "Cortex-A7", Little),
    (ARM, 0xc08, "Cortex-A8", Little),
    (ARM, 0xc09, "Cortex-A9", Big),
    (ARM, 0xc0d, "Cortex-A12", Big),
    (ARM, 0xc0e, "Cortex-A17", Big),
    (ARM, 0xc0f, "Cortex-A15", Big),
    (ARM, 0xd01, "Cortex-A32", Little),
    (ARM, 0xd02, "Cortex-A34", Little),
    (ARM, 0xd03, "Cortex-A53", Little),
    (ARM, 0xd04, "Cortex-A35", Little),
    (ARM, 0xd05, "Cortex-A55", Little),
    (ARM, 0xd06, "Cortex-A65", Little),
    (ARM, 0xd07, "Cortex-A57", Big),
    (ARM, 0xd08, "Cortex-A72", Big),
    (ARM, 0xd09, "Cortex-A73", Big),
    (ARM, 0xd0a, "Cortex-A75", Big),
    (ARM, 0xd0b, "Cortex-A76", Big),
    (ARM, 0xd0c, "Neoverse-N1", Big),
    (ARM, 0xd0d, "Cortex-A77", Big),
    (ARM, 0xd0e, "Cortex-A76AE", Big),
    (ARM, 0xd40, "Neoverse-V1", Prime),
    (ARM, 0xd41, "Cortex-A78", Big),
    (ARM, 0xd42, "Cortex-A78AE", Big),
    (ARM, 0xd43, "Cortex-A65AE", Little),
    (ARM, 0xd44, "Cortex-X1", Prime),
    (ARM, 0xd46, "Cortex-A510", Little),
    (ARM, 0xd47, "Cortex-A710", Big),
    (ARM, 0xd48, "Cortex-X2", Prime),
    (ARM, 0xd49, "Neoverse-N2", Big),
    (ARM, 0xd4a, "Neoverse-E1", Little),
    (ARM, 0xd4b, "Cortex-A78C", Big),
    (ARM, 0xd4c, "Cortex-X1C", Prime),
    (ARM, 0xd4d, "Cortex-A715", Big),
    (ARM, 0xd4e, "Cortex-X3", Prime),
    (ARM, 0xd4f, "Neoverse-V2", Prime),
    (ARM, 0xd80, "Cortex-A520", Little),
    (ARM, 0xd81, "Cortex-A720", Big),
    (ARM, 0xd82, "Cortex-X4", Prime),
    (ARM, 0xd83, "Neoverse-V3AE", Prime),
    (ARM, 0xd84, "Neoverse-V3", Prime),
    (ARM, 0xd85, "Cortex-X925", Prime),
    (ARM, 0xd87, "Cortex-A725", Big),
    (ARM, 0xd89, "Cortex-A720AE", Big),
    (ARM, 0xd8e, "Neoverse-N3", Big),
    (QUALCOMM, 0x001, "Oryon", Prime),
    (QUALCOMM, 0x201, "Kryo", Big),
    (QUALCOMM, 0x205, "Kryo", Big),
    (QUALCOMM, 0x211, "Kryo", Big),
    (QUALCOMM, 0x800, "Kryo 2xx Gold (Cortex-A73)", Big),
    (QUALCOMM, 0x801, "Kryo 2xx Silver (Cortex-A53)", Little),
    (QUALCOMM, 0x802, "Kryo 3xx Gold (Cortex-A75)", Big),
    (QUALCOMM, 0x803, "Kryo 3xx Silver (Cortex-A55)", Little),
    (QUALCOMM, 0x804, "Kryo 4xx Gold (Cortex-A76)", Big),
    (QUALCOMM, 0x805, "Kryo 4xx Silver (Cortex-A55)", Little),
    (SAMSUNG, 0x001, "Exynos M1", Big),
    (SAMSUNG, 0x002, "Exynos M3", Prime),
    (SAMSUNG, 0x003, "Exynos M4", Prime),
    (SAMSUNG, 0x004, "Exynos M5", Prime),
    (APPLE, 0x022, "Apple M1 Icestorm", Little),
    (APPLE, 0x023, "Apple M1 Firestorm", Prime),
    (APPLE, 0x024, "Apple M1 Pro Icestorm", Little),
    (APPLE, 0x025, "Apple M1 Pro Firestorm", Prime),
    (APPLE, 0x028, "Apple M1 Max Icestorm", Little),
    (APPLE, 0x029, "Apple M1 Max Firestorm", Prime),
    (APPLE, 0x032, "Apple M2 Blizzard", Little),
    (APPLE, 0x033, "Apple M2 Avalanche", Prime),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_by_their_register() {
        // Variant and revision do not matter: an A53 r0p4 and an A76 r4p1.
        assert_eq!(Part::from_midr(0x410f_d034).name(), "Cortex-A53");
        assert_eq!(Part::from_midr(0x0000_0000_414f_d0b1).name(), "Cortex-A76");
        let new = Part::from_midr(0x41ff_fff0);
        assert_eq!((new.name().as_str(), new.class()), ("core 0x41/0xfff", Big));
        for (index, (implementer, part, name, _)) in CORES.iter().enumerate() {
            let first = CORES.iter().position(|core| (core.0, core.1) == (*implementer, *part));
            assert_eq!(first, Some(index), "{name} stands in the table twice");
        }
    }
}
