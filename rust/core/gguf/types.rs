//! Tensor types of GGUF files: names and block sizes by ggml type id.

use fastq_kernels::Format;

/// Ids that ggml once used and took out again; such files have to be converted anew.
const REMOVED: &[u32] = &[4, 5, 31, 32, 33, 36, 37, 38];

/// Declares the types that no kernel knows: name = id, block, bytes. A type that gains a kernel leaves this list: its name, id
/// and sizes are then those of its format file.
macro_rules! stored_types {
    ($( $name:ident = $id:literal [$block:literal, $bytes:literal], )*) => {
        /// A type that can be read and copied but not computed with.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[allow(non_camel_case_types, reason = "the types are named as in GGUF files")]
        pub enum Stored { $( #[doc = concat!("ggml type ", stringify!($id), ".")] $name, )* }

        impl Stored {
            /// Every type, by ascending id.
            pub const ALL: &'static [Stored] = &[$( Stored::$name, )*];

            /// Name, id, weights and bytes per block.
            const fn facts(self) -> (&'static str, u32, u64, u64) {
                match self { $( Stored::$name => (stringify!($name), $id, $block, $bytes), )* }
            }
        }
    };
}

// ggml of 2026-08-21, ggml.h (enum ggml_type) and ggml-common.h (block structs).
stored_types! {
    Q8_1 = 9 [32, 36],
    Q8_K = 15 [256, 292],
    I8 = 24 [1, 1],
    I16 = 25 [1, 2],
    I32 = 26 [1, 4],
    I64 = 27 [1, 8],
    F64 = 28 [1, 8],
}

/// Type of a tensor's elements: one with kernels, or one that is only stored. A format that is added to the kernels is known
/// here without another line.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TensorType {
    /// Can be computed with.
    Kernel(Format),
    /// Can be read and copied.
    Stored(Stored),
}

impl From<Format> for TensorType {
    fn from(format: Format) -> TensorType {
        TensorType::Kernel(format)
    }
}

impl From<Stored> for TensorType {
    fn from(stored: Stored) -> TensorType {
        TensorType::Stored(stored)
    }
}

impl TensorType {
    /// Every type; those with kernels first.
    pub fn all() -> impl Iterator<Item = TensorType> {
        let kernels = Format::ALL.iter().map(|format| TensorType::Kernel(*format));
        kernels.chain(Stored::ALL.iter().map(|stored| TensorType::Stored(*stored)))
    }

    /// The type with a ggml type id.
    pub fn from_id(id: u32) -> Option<TensorType> {
        TensorType::all().find(|ty| ty.id() == id)
    }

    /// The type called `name`, in any case.
    pub fn from_name(name: &str) -> Option<TensorType> {
        TensorType::all().find(|ty| ty.name().eq_ignore_ascii_case(name))
    }

    /// Name as GGUF tools write it, `"Q4_K"`.
    pub const fn name(self) -> &'static str {
        match self {
            TensorType::Kernel(format) => format.name(),
            TensorType::Stored(stored) => stored.facts().0,
        }
    }

    /// ggml type id in a file.
    pub const fn id(self) -> u32 {
        match self {
            TensorType::Kernel(format) => format.info().id,
            TensorType::Stored(stored) => stored.facts().1,
        }
    }

    /// The kernels' format, when there are kernels for the type.
    pub const fn kernel(self) -> Option<Format> {
        match self {
            TensorType::Kernel(format) => Some(format),
            TensorType::Stored(_) => None,
        }
    }

    /// Weights per block.
    pub const fn block(self) -> u64 {
        match self {
            TensorType::Kernel(format) => format.info().block as u64,
            TensorType::Stored(stored) => stored.facts().2,
        }
    }

    /// Bytes per block.
    pub const fn block_bytes(self) -> u64 {
        match self {
            TensorType::Kernel(format) => format.info().bytes as u64,
            TensorType::Stored(stored) => stored.facts().3,
        }
    }

    /// Bytes of a row of `k` weights; `None` when `k` is not a multiple of the block or the size overflows.
    pub fn row_bytes(self, k: u64) -> Option<u64> {
        if k.is_multiple_of(self.block()) { (k / self.block()).checked_mul(self.block_bytes()) } else { None }
    }

    /// Bits per weight.
    pub fn bits(self) -> f64 {
        (self.block_bytes() * 8) as f64 / self.block() as f64
    }
}

impl std::fmt::Display for TensorType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// What to tell about a type id that [`TensorType::from_id`] does not know.
pub(super) fn unknown(id: u32) -> String {
    if REMOVED.contains(&id) {
        format!("type {id} is not known to this version: ggml removed it, the model has to be converted again")
    } else {
        format!(
            "type {id} is not known to this version (known: 0 to {})",
            TensorType::all().map(TensorType::id).max().unwrap_or(0)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_one_place() {
        let mut ids: Vec<u32> = TensorType::all().map(TensorType::id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), TensorType::all().count(), "a type with a kernel leaves the list of stored types");
        for ty in TensorType::all() {
            assert!(ty.block() > 0 && ty.block_bytes() > 0, "{ty}");
            assert_eq!(TensorType::from_id(ty.id()), Some(ty));
            assert_eq!(TensorType::from_name(&ty.name().to_lowercase()), Some(ty));
        }
    }

    /// Block and bytes of every id as ggml has them, written down a second time on purpose: an independent check.
    #[test]
    fn sizes_are_those_of_ggml() {
        let ggml: &[(u32, u64, u64)] = &[
            (0, 1, 4),
            (1, 1, 2),
            (2, 32, 18),
            (3, 32, 20),
            (6, 32, 22),
            (7, 32, 24),
            (8, 32, 34),
            (9, 32, 36),
            (10, 256, 84),
            (11, 256, 110),
            (12, 256, 144),
            (13, 256, 176),
            (14, 256, 210),
            (15, 256, 292),
            (16, 256, 66),
            (17, 256, 74),
            (18, 256, 98),
            (19, 256, 50),
            (20, 32, 18),
            (21, 256, 110),
            (22, 256, 82),
            (23, 256, 136),
            (24, 1, 1),
            (25, 1, 2),
            (26, 1, 4),
            (27, 1, 8),
            (28, 1, 8),
            (29, 256, 56),
            (30, 1, 2),
            (34, 256, 54),
            (35, 256, 66),
            (39, 32, 17),
            (40, 64, 36),
            (41, 128, 18),
            (42, 64, 18),
        ];
        let ours: Vec<_> =
            (0..43).filter_map(TensorType::from_id).map(|t| (t.id(), t.block(), t.block_bytes())).collect();
        assert_eq!(ours, ggml);
    }

    #[test]
    fn rows() {
        let q4_k = TensorType::from(Format::Q4_K);
        assert_eq!(q4_k.row_bytes(512), Some(288));
        assert_eq!(q4_k.row_bytes(255), None);
        assert_eq!(TensorType::from(Format::F32).row_bytes(u64::MAX), None);
        assert!(unknown(4).contains("type 4 is not known to this version"));
        assert!(unknown(43).contains("type 43 is not known to this version"));
    }
}
