//! Block formats of GGUF files: one file per type, one line per type in [`formats!`](self).
//!
//! Adding a format is one file beside this one and one line in the list below; the matrix drivers, the tests on all levels,
//! the tables in the documentation and the choices on the command line follow from the list.

use core::fmt;

use crate::{Activation, Cpu};

pub mod codebook;
#[doc(hidden)]
pub mod float4;
#[doc(hidden)]
pub mod grid;
#[doc(hidden)]
pub mod layout;
#[doc(hidden)]
pub mod nonlinear;
pub mod parts;
mod points;
#[doc(hidden)]
pub mod round;
mod scale;
mod search;
mod ternary;

pub use codebook::Codebook;
pub use parts::ScalarFormat;
pub use scale::Scale;

/// What a format file implements. `BLOCK` weights are stored in `BYTES` bytes.
pub trait BlockFormat: Copy + Default + Send + Sync + 'static {
    /// Name as GGUF tools write it, `"Q4_0"`.
    const NAME: &'static str;
    /// ggml type id in a file.
    const ID: u32;
    /// Weights per block.
    const BLOCK: usize;
    /// Bytes per block.
    const BYTES: usize;
    /// How the activations for it are quantized.
    const ACTIVATION: Activation;
    /// The floats of a block, its scales and minima; none for the float types. What checks files for scales that are not
    /// finite, or makes blocks for tests, finds them here.
    const SCALES: &'static [Scale];
    /// The grid of its weights; `None` for floats, codebooks and ternary types.
    const SCALAR: Option<ScalarFormat> = None;
    /// The points of its weights; `None` for all but the formats with a codebook.
    const CODEBOOK: Option<Codebook> = None;
    /// How it encodes. Byte-exact to what ggml makes of finite values, whatever their size, with and without importance. For
    /// blocks with a NaN (and some with infinities), and for an importance that is negative or not finite, ggml's own builds
    /// disagree or end the program; here they give some block, without a panic.
    const QUANTIZER: Quantizer;

    /// Decodes one block; bit-exact to the `gguf` package. `block` has `BYTES` bytes, `out` `BLOCK` values.
    fn dequantize(block: &[u8], out: &mut [f32]);
}

/// Encodes rows of a format. Every level gives the same bytes.
///
/// The importance says how much an error of each weight of the row matters: the mean square of the input that the weight is
/// multiplied with, as an importance matrix holds it, or any other factor that is not negative.
#[derive(Clone, Copy, Debug)]
pub enum Quantizer {
    /// Block by block, from the values alone: values, block. ggml ignores the importance for these formats, too.
    Block(fn(&[f32], &mut [u8])),
    /// A row `(k)`, with or without importance; without, the search is another one, as in ggml.
    Row(RowQuantizer),
    /// A row `(k)` for which importance is needed: its blocks hold so little that values alone say too little about what to keep.
    Important(fn(Cpu, &[f32], &[f32], &mut [u8])),
}

/// Encodes a row `(k)`: level, values, importance of each value if there is one, blocks.
pub type RowQuantizer = fn(Cpu, &[f32], Option<&[f32]>, &mut [u8]);

impl Quantizer {
    const fn uses_importance(self) -> bool {
        matches!(self, Quantizer::Row(_) | Quantizer::Important(_))
    }

    const fn needs_importance(self) -> bool {
        matches!(self, Quantizer::Important(_))
    }
}

/// The error of [`Format::quantize_row`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum QuantizeError {
    /// The format needs the importance of the weights ([`FormatInfo::needs_importance`]), and none was given.
    NoImportance(Format),
}

impl fmt::Display for QuantizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuantizeError::NoImportance(format) => {
                let name = format.name();
                write!(f, "{name} needs the importance of the weights (an importance matrix), and none was given")
            }
        }
    }
}

impl core::error::Error for QuantizeError {}

/// Declares the formats: module, type.
macro_rules! formats {
    ($( $module:ident :: $name:ident, )*) => {
        $( mod $module; pub use $module::$name; )*

        /// A block format that kernels exist for.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[allow(non_camel_case_types, reason = "the formats are named as in GGUF files")]
        pub enum Format { $( #[doc = concat!("See [`", stringify!($name), "`](struct@", stringify!($name), ").")] $name, )* }

        impl Format {
            /// Every format, in the order of the list.
            pub const ALL: &'static [Format] = &[$( Format::$name, )*];

            /// Name, id and sizes.
            pub const fn info(self) -> FormatInfo {
                match self { $( Format::$name => FormatInfo {
                    name: <$name as BlockFormat>::NAME,
                    id: <$name as BlockFormat>::ID,
                    block: <$name as BlockFormat>::BLOCK,
                    bytes: <$name as BlockFormat>::BYTES,
                    activation: <$name as BlockFormat>::ACTIVATION,
                    scales: <$name as BlockFormat>::SCALES,
                    uses_importance: <$name as BlockFormat>::QUANTIZER.uses_importance(),
                    needs_importance: <$name as BlockFormat>::QUANTIZER.needs_importance(),
                }, )* }
            }

            /// Decodes whole blocks.
            ///
            /// # Panics
            /// When the lengths are not those of the same number of whole blocks.
            pub fn dequantize(self, blocks: &[u8], out: &mut [f32]) {
                self.check(blocks.len(), out.len());
                match self { $( Format::$name => {
                    let blocks = blocks.chunks_exact(<$name as BlockFormat>::BYTES);
                    for (block, out) in blocks.zip(out.chunks_exact_mut(<$name as BlockFormat>::BLOCK)) {
                        <$name as BlockFormat>::dequantize(block, out);
                    }
                } )* }
            }

            /// The grid that its weights lie on; `None` for floats, codebooks and ternary types.
            pub const fn scalar(self) -> Option<ScalarFormat> {
                match self { $( Format::$name => <$name as BlockFormat>::SCALAR, )* }
            }

            /// The points that its weights lie on; `None` for all but the formats with a codebook.
            pub const fn codebook(self) -> Option<Codebook> {
                match self { $( Format::$name => <$name as BlockFormat>::CODEBOOK, )* }
            }

            /// Does `visitor`'s work for the format.
            pub(crate) fn accept<V: crate::unpack::Visitor>(self, visitor: V) -> V::Output {
                match self { $( Format::$name => <$name as crate::unpack::Weights>::accept(visitor), )* }
            }

            /// Encodes one row of values `(k)`, byte-exact to ggml's quantizers for finite values and the same on every level.
            ///
            /// `importance` `(k)` says how much an error of each weight matters (see [`Quantizer`]); formats for which ggml ignores
            /// it ignore it, [`FormatInfo::uses_importance`]. Callers refuse values that are not finite: most formats cannot hold them.
            ///
            /// # Errors
            /// [`QuantizeError::NoImportance`] without `importance` for a format that needs it, [`FormatInfo::needs_importance`].
            ///
            /// # Panics
            /// When the lengths are not those of the same number of whole blocks.
            pub fn quantize_row(
                self,
                cpu: Cpu,
                values: &[f32],
                importance: Option<&[f32]>,
                out: &mut [u8],
            ) -> Result<(), QuantizeError> {
                self.check(out.len(), values.len());
                if let Some(importance) = importance {
                    assert_eq!(importance.len(), values.len(), "importance of every weight");
                }
                match self { $( Format::$name => match <$name as BlockFormat>::QUANTIZER {
                    Quantizer::Block(quantizer) => {
                        let blocks = out.chunks_exact_mut(<$name as BlockFormat>::BYTES);
                        for (block, values) in blocks.zip(values.chunks_exact(<$name as BlockFormat>::BLOCK)) {
                            quantizer(values, block);
                        }
                    }
                    Quantizer::Row(quantizer) => quantizer(cpu, values, importance, out),
                    Quantizer::Important(quantizer) => {
                        quantizer(cpu, values, importance.ok_or(QuantizeError::NoImportance(self))?, out);
                    }
                }, )* }
                Ok(())
            }
        }
    };
}

formats! {
    f32::F32,
    f16::F16,
    bf16::BF16,
    q4_0::Q4_0,
    q4_1::Q4_1,
    q5_0::Q5_0,
    q5_1::Q5_1,
    q8_0::Q8_0,
    iq4_nl::IQ4_NL,
    mxfp4::MXFP4,
    nvfp4::NVFP4,
    q1_0::Q1_0,
    q2_0::Q2_0,
    q2_k::Q2_K,
    q3_k::Q3_K,
    q4_k::Q4_K,
    q5_k::Q5_K,
    q6_k::Q6_K,
    iq1_s::IQ1_S,
    iq1_m::IQ1_M,
    iq2_xxs::IQ2_XXS,
    iq2_xs::IQ2_XS,
    iq2_s::IQ2_S,
    iq3_xxs::IQ3_XXS,
    iq3_s::IQ3_S,
    iq4_xs::IQ4_XS,
    tq1_0::TQ1_0,
    tq2_0::TQ2_0,
}

/// Facts about a [`Format`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FormatInfo {
    /// Name as GGUF tools write it.
    pub name: &'static str,
    /// ggml type id in a file.
    pub id: u32,
    /// Weights per block.
    pub block: usize,
    /// Bytes per block.
    pub bytes: usize,
    /// How the activations for it are quantized.
    pub activation: Activation,
    /// The floats of a block, its scales and minima; none for the float types.
    pub scales: &'static [Scale],
    /// Whether the importance of the weights changes how they are encoded; for the others it is ignored, as in ggml.
    pub uses_importance: bool,
    /// Whether a row cannot be encoded without the importance of its weights.
    pub needs_importance: bool,
}

impl Format {
    /// The format with a ggml type id.
    pub fn from_id(id: u32) -> Option<Format> {
        Format::ALL.iter().copied().find(|format| format.info().id == id)
    }

    /// The format called `name`, in any case.
    pub fn from_name(name: &str) -> Option<Format> {
        Format::ALL.iter().copied().find(|format| format.info().name.eq_ignore_ascii_case(name))
    }

    /// Name as GGUF tools write it.
    pub const fn name(self) -> &'static str {
        self.info().name
    }

    /// Bytes of a row of `k` weights; `None` when `k` is not a multiple of the block or the size overflows.
    pub const fn row_bytes(self, k: usize) -> Option<usize> {
        let info = self.info();
        if k.is_multiple_of(info.block) { (k / info.block).checked_mul(info.bytes) } else { None }
    }

    /// Whether its weights lie on a grid or on points, so that [`search`](crate::quantize::search()) and
    /// [`feedback`](crate::quantize::feedback()) can choose among them.
    pub const fn has_grid(self) -> bool {
        self.scalar().is_some() || self.codebook().is_some()
    }

    /// How the activations for it are quantized.
    pub const fn activation(self) -> Activation {
        self.info().activation
    }

    fn check(self, bytes: usize, values: usize) {
        assert_eq!(Some(bytes), self.row_bytes(values), "{} bytes of {values} weights", self.name());
    }
}
