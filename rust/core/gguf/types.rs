//! Tensor types of GGUF files: names and block sizes by ggml type id.

use fastq_kernels::Format;

/// Ids that ggml once used and took out again; such files have to be converted anew.
const REMOVED: &[u32] = &[4, 5, 31, 32, 33, 36, 37, 38];

/// Declares the types: name = id, and `[block, bytes]` for those that no kernel knows (see [`Format`]; a type that gains a
/// kernel loses its sizes here, which a test demands).
macro_rules! tensor_types {
    ($( $name:ident = $id:literal $([$block:literal, $bytes:literal])?, )*) => {
        /// Type of a tensor's elements, named as GGUF tools write it. Known types can be read and copied; those with a
        /// [`kernel`](TensorType::kernel) can also be computed with.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[allow(non_camel_case_types, reason = "the types are named as in GGUF files")]
        #[repr(u32)]
        pub enum TensorType { $( #[doc = concat!("ggml type ", stringify!($id), ".")] $name = $id, )* }

        impl TensorType {
            /// Every type, by ascending id.
            pub const ALL: &'static [TensorType] = &[$( TensorType::$name, )*];

            /// The type with a ggml type id.
            pub const fn from_id(id: u32) -> Option<TensorType> {
                match id { $( $id => Some(TensorType::$name), )* _ => None }
            }

            /// Name as GGUF tools write it, `"Q4_K"`.
            pub const fn name(self) -> &'static str {
                match self { $( TensorType::$name => stringify!($name), )* }
            }

            /// Block length and bytes of a type without a kernel.
            const fn listed(self) -> Option<(u64, u64)> {
                match self { $( TensorType::$name => tensor_types!(@sizes $($block, $bytes)?), )* }
            }
        }
    };
    (@sizes) => { None };
    (@sizes $block:literal, $bytes:literal) => { Some(($block, $bytes)) };
}

// ggml of 2026-08-21, ggml.h (enum ggml_type) and ggml-common.h (block structs).
tensor_types! {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q8_1 = 9 [32, 36],
    Q2_K = 10,
    Q3_K = 11,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    Q8_K = 15 [256, 292],
    IQ2_XXS = 16 [256, 66],
    IQ2_XS = 17 [256, 74],
    IQ3_XXS = 18 [256, 98],
    IQ1_S = 19 [256, 50],
    IQ4_NL = 20 [32, 18],
    IQ3_S = 21 [256, 110],
    IQ2_S = 22 [256, 82],
    IQ4_XS = 23 [256, 136],
    I8 = 24 [1, 1],
    I16 = 25 [1, 2],
    I32 = 26 [1, 4],
    I64 = 27 [1, 8],
    F64 = 28 [1, 8],
    IQ1_M = 29 [256, 56],
    BF16 = 30,
    TQ1_0 = 34 [256, 54],
    TQ2_0 = 35 [256, 66],
    MXFP4 = 39 [32, 17],
    NVFP4 = 40 [64, 36],
    Q1_0 = 41 [128, 18],
    Q2_0 = 42 [64, 18],
}

impl TensorType {
    /// The type called `name`, in any case.
    pub fn from_name(name: &str) -> Option<TensorType> {
        TensorType::ALL.iter().copied().find(|ty| ty.name().eq_ignore_ascii_case(name))
    }

    /// ggml type id in a file.
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// The kernels' format, when there are kernels for the type.
    pub fn kernel(self) -> Option<Format> {
        Format::from_id(self.id())
    }

    /// Weights per block.
    pub fn block(self) -> u64 {
        self.sizes().0
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> u64 {
        self.sizes().1
    }

    /// Bytes of a row of `k` weights; `None` when `k` is not a multiple of the block or the size overflows.
    pub fn row_bytes(self, k: u64) -> Option<u64> {
        let (block, bytes) = self.sizes();
        if k.is_multiple_of(block) { (k / block).checked_mul(bytes) } else { None }
    }

    /// Bits per weight.
    pub fn bits(self) -> f64 {
        let (block, bytes) = self.sizes();
        (bytes * 8) as f64 / block as f64
    }

    fn sizes(self) -> (u64, u64) {
        match (self.kernel(), self.listed()) {
            (Some(format), _) => (format.info().block as u64, format.info().bytes as u64),
            (None, Some(sizes)) => sizes,
            // Every line of the table has a kernel or sizes; the test below holds it to that.
            (None, None) => (1, 0),
        }
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
        format!("type {id} is not known to this version (known: 0 to {})", TensorType::Q2_0.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_from_exactly_one_place() {
        for ty in TensorType::ALL {
            assert!(
                ty.kernel().is_some() != ty.listed().is_some(),
                "{ty}: sizes belong to the kernels' format if there is one, else into the table"
            );
            assert!(ty.block() > 0 && ty.block_bytes() > 0, "{ty}");
            assert_eq!(TensorType::from_id(ty.id()), Some(*ty));
            assert_eq!(TensorType::from_name(&ty.name().to_lowercase()), Some(*ty));
        }
    }

    #[test]
    fn every_kernel_format_has_its_type() {
        for format in Format::ALL {
            let ty = TensorType::from_id(format.info().id).expect("a type for the format");
            assert_eq!((ty.name(), ty.kernel()), (format.name(), Some(*format)));
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
            (0..1000).filter_map(TensorType::from_id).map(|t| (t.id(), t.block(), t.block_bytes())).collect();
        assert_eq!(ours, ggml);
    }

    #[test]
    fn rows() {
        assert_eq!(TensorType::Q4_K.row_bytes(512), Some(288));
        assert_eq!(TensorType::Q4_K.row_bytes(255), None);
        assert_eq!(TensorType::F32.row_bytes(u64::MAX), None);
        assert!(unknown(4).contains("type 4 is not known to this version"));
        assert!(unknown(43).contains("type 43 is not known to this version"));
    }
}
