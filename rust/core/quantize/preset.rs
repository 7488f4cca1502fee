//! What people quantize to: the presets of llama.cpp's `llama-quantize`, and single types.

use fastq_kernels::Format;

use crate::{Error, Result};

/// Declares the presets: name = number in `general.file_type`, the type most of the tensors get.
macro_rules! presets {
    ($( $name:ident = $id:literal $format:ident, )*) => {
        /// A choice of types for the tensors of a model, by the name that `llama-quantize` gives it. Most are mixes: `recipe.rs` has their
        /// rules.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[allow(non_camel_case_types, reason = "named as llama-quantize names them")]
        pub enum Preset { $( #[doc = concat!("Mostly ", stringify!($format), ".")] $name, )* }

        impl Preset {
            /// Every preset, small ones first.
            pub const ALL: &'static [Preset] = &[$( Preset::$name, )*];

            /// Its name, `"Q4_K_M"`.
            pub const fn name(self) -> &'static str {
                match self { $( Preset::$name => stringify!($name), )* }
            }

            /// The type that most tensors get.
            pub const fn format(self) -> Format {
                match self { $( Preset::$name => Format::$format, )* }
            }

            /// The value of `general.file_type`.
            pub const fn file_type(self) -> u32 {
                match self { $( Preset::$name => $id, )* }
            }
        }
    };
}

// llama.cpp as in llama-cpp-python 0.3.36: include/llama.h (enum llama_ftype), src/llama-quant.cpp (llama_ftype_get_default_type). That
// IQ2_S is mostly IQ2_XS, IQ2_M mostly IQ2_S and IQ3_XS mostly IQ3_S is so there.
presets! {
    Q1_0 = 40 Q1_0,
    IQ1_S = 24 IQ1_S,
    TQ1_0 = 36 TQ1_0,
    IQ1_M = 31 IQ1_M,
    IQ2_XXS = 19 IQ2_XXS,
    TQ2_0 = 37 TQ2_0,
    Q2_0 = 41 Q2_0,
    IQ2_XS = 20 IQ2_XS,
    IQ2_S = 28 IQ2_XS,
    IQ2_M = 29 IQ2_S,
    Q2_K_S = 21 Q2_K,
    Q2_K = 10 Q2_K,
    IQ3_XXS = 23 IQ3_XXS,
    IQ3_XS = 22 IQ3_S,
    IQ3_S = 26 IQ3_S,
    IQ3_M = 27 IQ3_S,
    Q3_K_S = 11 Q3_K,
    Q3_K_M = 12 Q3_K,
    Q3_K_L = 13 Q3_K,
    IQ4_XS = 30 IQ4_XS,
    IQ4_NL = 25 IQ4_NL,
    Q4_0 = 2 Q4_0,
    MXFP4_MOE = 38 MXFP4,
    Q4_K_S = 14 Q4_K,
    Q4_K_M = 15 Q4_K,
    Q4_1 = 3 Q4_1,
    Q5_0 = 8 Q5_0,
    Q5_K_S = 16 Q5_K,
    Q5_K_M = 17 Q5_K,
    Q5_1 = 9 Q5_1,
    Q6_K = 18 Q6_K,
    Q8_0 = 7 Q8_0,
    F16 = 1 F16,
    BF16 = 32 BF16,
    F32 = 0 F32,
}

/// Other names of presets.
const ALIASES: &[(&str, Preset)] = &[("Q3_K", Preset::Q3_K_M), ("Q4_K", Preset::Q4_K_M), ("Q5_K", Preset::Q5_K_M)];

/// The name that changes no tensor.
const COPY: &str = "COPY";

/// Names that people try, what they are, and what to take instead.
const MISTAKEN: &[(&str, &str)] = &[
    ("Q8_K", "Q8_K is what activations become inside products with K-quants, not a type of weights; Q8_0 has 8 bits"),
    (
        "Q8_1",
        "Q8_1 is what activations become inside products with Q4_1 and Q5_1, not a type of weights; Q8_0 has 8 bits",
    ),
    ("Q8", "for 8 bits take Q8_0"),
    ("INT8", "for 8 bits take Q8_0"),
    ("FP8", "GGUF has no 8-bit floats for weights; Q8_0 is as large and closer to the original"),
    ("Q6", "for 6 bits take Q6_K"),
    ("Q6_K_S", "there is one mix of Q6_K: take Q6_K"),
    ("Q6_K_M", "there is one mix of Q6_K: take Q6_K"),
    (
        "Q6_K_L",
        "its publisher's name for Q6_K with output and embedding in Q8_0: take Q6_K with output type and embedding type Q8_0",
    ),
    ("Q5", "for 5 bits take Q5_K_M"),
    (
        "Q5_K_L",
        "its publisher's name for Q5_K_M with output and embedding in Q8_0: take Q5_K_M with output type and embedding type Q8_0",
    ),
    ("Q4", "for 4 bits take Q4_K_M"),
    ("INT4", "for 4 bits take Q4_K_M"),
    ("NF4", "GGUF has no NF4; IQ4_NL is a table of 16 values, too, Q4_K_M the usual choice"),
    (
        "Q4_K_L",
        "its publisher's name for Q4_K_M with output and embedding in Q8_0: take Q4_K_M with output type and embedding type Q8_0",
    ),
    ("Q3", "for 3 bits take Q3_K_M"),
    ("Q2", "for 2 bits take Q2_K, with an importance matrix"),
    ("Q2_K_M", "the mixes of Q2_K are Q2_K and Q2_K_S"),
    (
        "Q2_K_L",
        "its publisher's name for Q2_K with output and embedding in Q8_0: take Q2_K with output type and embedding type Q8_0",
    ),
    ("FP16", "take F16"),
    ("FP32", "take F32"),
    ("Q4_0_4_4", "ggml removed it: take Q4_0"),
    ("Q4_0_4_8", "ggml removed it: take Q4_0"),
    ("Q4_0_8_8", "ggml removed it: take Q4_0"),
    ("AWQ", "AWQ is a method, not a type; take Q4_K_M"),
    ("GPTQ", "GPTQ is a method, not a type; take Q4_K_M"),
];

/// What to make of a model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// The types that `llama-quantize` chooses.
    Preset(Preset),
    /// One type for every tensor that is quantized at all, where its blocks divide the rows (`llama-quantize --pure`).
    Type(Format),
    /// Every tensor as it is: a new file of the same weights, split ones in one.
    Copy,
}

impl Target {
    /// The target called `name`, in any case, with `-`, `_` or nothing between its parts: a preset, a type that no preset is
    /// called after (MXFP4, NVFP4), or `copy`. With `pure`, the preset's main type everywhere.
    ///
    /// # Errors
    /// [`Error::Argument`] that says what the name is if people commonly take it for a type, and lists what there is.
    pub fn from_name(name: &str, pure: bool) -> Result<Target> {
        let wanted = plain(name);
        let preset = Preset::ALL.iter().map(|preset| (preset.name(), *preset)).chain(ALIASES.iter().copied());
        if let Some((_, preset)) = preset.into_iter().find(|(name, _)| plain(name) == wanted) {
            return Ok(if pure { Target::Type(preset.format()) } else { Target::Preset(preset) });
        }
        if wanted == plain(COPY) {
            return if pure {
                Err(Error::Argument("a copy cannot be pure: it keeps every type".into()))
            } else {
                Ok(Target::Copy)
            };
        }
        match format(name) {
            Some(format) => Ok(Target::Type(format)),
            None => {
                let presets: Vec<_> = Preset::ALL.iter().map(|preset| preset.name()).collect();
                Err(Error::Argument(format!("{}; there are {}, MXFP4, NVFP4, COPY", unknown(name), presets.join(", "))))
            }
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Target::Preset(preset) => preset.name(),
            Target::Type(format) => format.name(),
            Target::Copy => COPY,
        }
    }

    /// The type that most tensors get; of a copy, none.
    pub const fn format(self) -> Option<Format> {
        match self {
            Target::Preset(preset) => Some(preset.format()),
            Target::Type(format) => Some(format),
            Target::Copy => None,
        }
    }

    /// The value of `general.file_type`; a copy keeps its own.
    pub fn file_type(self) -> Option<u32> {
        match self {
            Target::Preset(preset) => Some(preset.file_type()),
            // NVFP4 has a number (LLAMA_FTYPE_MOSTLY_NVFP4) but no preset. Of several presets of a type the plainest name counts.
            Target::Type(Format::NVFP4) => Some(39),
            Target::Type(format) => {
                let alias = ALIASES.iter().find(|(name, _)| *name == format.name()).map(|(_, preset)| *preset);
                let named = Preset::ALL.iter().copied().find(|preset| preset.name() == format.name());
                let first = Preset::ALL.iter().copied().find(|preset| preset.format() == format);
                alias.or(named).or(first).map(Preset::file_type)
            }
            Target::Copy => None,
        }
    }
}

/// The type called `name`, written in any of the ways of [`Target::from_name`].
fn format(name: &str) -> Option<Format> {
    let wanted = plain(name);
    Format::ALL.iter().copied().find(|format| plain(format.name()) == wanted)
}

/// The type called `name` for a tensor: one that can be made.
///
/// # Errors
/// [`Error::Argument`] that lists them.
pub fn tensor_format(name: &str) -> Result<Format> {
    match format(name) {
        Some(format) => Ok(format),
        None => {
            let what = match Preset::ALL.iter().find(|preset| plain(preset.name()) == plain(name)) {
                Some(preset) => {
                    format!("{preset} is a mix of types for a whole model, mostly {}", preset.format().name())
                }
                None => unknown(name),
            };
            let known: Vec<_> = Format::ALL.iter().map(|format| format.name()).collect();
            Err(Error::Argument(format!("{what}; a tensor can have the types {}", known.join(", "))))
        }
    }
}

/// Why a name is none.
fn unknown(name: &str) -> String {
    match MISTAKEN.iter().find(|(mistaken, _)| plain(mistaken) == plain(name)) {
        Some((_, why)) => format!("unknown type {name:?}: {why}"),
        None => format!("unknown type {name:?}"),
    }
}

/// `name` without what people write differently.
fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_' | ' ' | '.')).map(|c| c.to_ascii_uppercase()).collect()
}

impl std::fmt::Display for Preset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_people_write_them() {
        let preset = |name| Target::from_name(name, false).map_err(|error| error.to_string());
        for name in ["Q4_K_M", "q4_k_m", "Q4-K-M", "q4km", "q4_k", "Q4K"] {
            assert_eq!(preset(name), Ok(Target::Preset(Preset::Q4_K_M)), "{name}");
        }
        assert_eq!(preset("mxfp4-moe"), Ok(Target::Preset(Preset::MXFP4_MOE)));
        assert_eq!(preset("MXFP4"), Ok(Target::Type(Format::MXFP4)));
        assert_eq!(preset("copy"), Ok(Target::Copy));
        assert_eq!(Target::from_name("q3_k_l", true).ok(), Some(Target::Type(Format::Q3_K)));
        assert!(Target::from_name("copy", true).is_err());
    }

    #[test]
    fn no_two_names_are_one() {
        let names = Preset::ALL.iter().map(|preset| preset.name()).chain(ALIASES.iter().map(|(name, _)| *name));
        let mut plain: Vec<_> = names.chain(MISTAKEN.iter().map(|(name, _)| *name)).chain([COPY]).map(plain).collect();
        let count = plain.len();
        plain.sort();
        plain.dedup();
        assert_eq!(plain.len(), count);
    }

    #[test]
    fn mistaken_names_are_explained() {
        let error = Target::from_name("q8_k", false).expect_err("activations").to_string();
        assert!(error.contains("activations") && error.contains("Q8_0") && error.contains("IQ2_XXS"), "{error}");
        let error = Target::from_name("nonsense", false).expect_err("nonsense").to_string();
        assert!(error.starts_with("unknown type \"nonsense\"; there are ") && error.contains("Q4_K_M"), "{error}");
        let error = tensor_format("Q4_K_M").expect_err("a mix").to_string();
        assert!(error.contains("mix of types") && error.contains("Q4_K"), "{error}");
        assert_eq!(tensor_format("q4-k").ok(), Some(Format::Q4_K));
    }

    #[test]
    fn file_types_of_single_types() {
        let of = |name| Target::from_name(name, true).ok().and_then(Target::file_type);
        assert_eq!([of("Q4_K"), of("Q4_K_S"), of("F16")], [Some(15), Some(15), Some(1)]);
        // The preset IQ2_S is mostly IQ2_XS, and nothing else without the mix.
        assert_eq!([of("IQ2_S"), Target::Type(Format::IQ2_S).file_type()], [Some(20), Some(28)]);
        assert_eq!([of("MXFP4"), of("NVFP4"), of("IQ3_S")], [Some(38), Some(39), Some(26)]);
    }
}
