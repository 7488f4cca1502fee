//! Reading the hyper-parameters of an architecture: every number has a range, and an error names the key, the range and what was
//! found.

use std::ops::RangeInclusive;

use super::rope::Scaling;
use super::spec::{MAX_CONTEXT, MAX_HEAD_DIM, MAX_LAYERS};
use crate::gguf::{Gguf, Value};
use crate::{Error, Result};

const MAX_VOCABULARY: usize = 1 << 24;
const MAX_TOKEN_TYPES: usize = 1 << 16;

/// The keys of an architecture in a file.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    pub(super) file: &'a Gguf,
    /// What they begin with: `general.architecture`.
    pub(super) prefix: &'a str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.file.get(&self.key(name)).is_some()
    }

    pub(super) fn wrong(&self, name: &str, what: String) -> Error {
        let key = self.key(name);
        self.file.key_error(&key, format!("key {key} {what}"))
    }

    pub(super) fn missing(&self, name: &str, expected: String) -> Error {
        self.file.error(format!("key {} is missing: expected {expected}", self.key(name)))
    }

    pub(super) fn count(&self, name: &str, range: RangeInclusive<usize>, default: Option<usize>) -> Result<usize> {
        let (low, high) = (*range.start(), *range.end());
        match self.file.u64(&self.key(name))? {
            Some(value) => match usize::try_from(value).ok().filter(|value| range.contains(value)) {
                Some(value) => Ok(value),
                None => Err(self.wrong(name, format!("must be from {low} to {high}, found {value}"))),
            },
            None => default.ok_or_else(|| self.missing(name, format!("an integer from {low} to {high}"))),
        }
    }

    /// A number for all layers, or an array with one for each.
    pub(super) fn per_layer(
        &self,
        name: &str,
        layers: usize,
        range: RangeInclusive<usize>,
        default: Option<usize>,
    ) -> Result<Vec<usize>> {
        let key = self.key(name);
        if !matches!(self.file.get(&key), Some(Value::Array(_))) {
            return Ok(vec![self.count(name, range, default)?; layers]);
        }
        let values = self.file.usizes(&key)?.unwrap_or_default();
        if values.len() != layers {
            return Err(
                self.wrong(name, format!("must have one element for each of {layers} layers, found {}", values.len()))
            );
        }
        match values.iter().position(|value| !range.contains(value)) {
            Some(layer) => {
                let (low, high, found) = (range.start(), range.end(), values[layer]);
                Err(self.wrong(name, format!("must be from {low} to {high}, found {found} for layer {layer}")))
            }
            None => Ok(values),
        }
    }

    /// An array with a flag for each layer; `None` where there is no array.
    pub(super) fn flags(&self, name: &str, layers: usize) -> Result<Option<Vec<bool>>> {
        let key = self.key(name);
        if !matches!(self.file.get(&key), Some(Value::Array(_))) {
            return Ok(None);
        }
        let flags = self.file.bools(&key)?.unwrap_or_default();
        match flags.len() == layers {
            true => Ok(Some(flags)),
            false => {
                let found = flags.len();
                Err(self.wrong(name, format!("must have one element for each of {layers} layers, found {found}")))
            }
        }
    }

    /// A flag for each layer: the array `array`, or all but every so-many-th, a number that the key `every` may say.
    pub(super) fn all_but_every(&self, array: &str, every: &str, default: usize, layers: usize) -> Result<Vec<bool>> {
        if let Some(flags) = self.flags(array, layers)? {
            return Ok(flags);
        }
        let every = self.count(every, 1..=MAX_LAYERS, Some(default))?;
        Ok((1..=layers).map(|layer| layer % every != 0).collect())
    }

    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool> {
        Ok(self.file.bool(&self.key(name))?.unwrap_or(default))
    }

    pub(super) fn positive(&self, name: &str, default: Option<f32>) -> Result<f32> {
        match self.file.f32(&self.key(name))? {
            Some(value) if value.is_finite() && value > 0.0 => Ok(value),
            Some(value) => Err(self.wrong(name, format!("must be a finite number above 0, found {value}"))),
            None => default.ok_or_else(|| self.missing(name, "a number above 0".into())),
        }
    }

    /// A number from 0 on, which is 0 where the file has none.
    pub(super) fn fraction(&self, name: &str) -> Result<f32> {
        match self.file.f32(&self.key(name))? {
            None | Some(0.0) => Ok(0.0),
            Some(_) => self.positive(name, None),
        }
    }

    /// A number above 0; 0 and a missing key mean none.
    pub(super) fn optional(&self, name: &str) -> Result<Option<f32>> {
        Ok(Some(self.fraction(name)?).filter(|value| *value > 0.0))
    }

    /// How many pairs turn with time, height, width and what else there is.
    pub(super) fn sections(&self) -> Result<[usize; 4]> {
        let name = "rope.dimension_sections";
        let expected = "four numbers, one of the first three above 0";
        let found = self.file.usizes(&self.key(name))?.ok_or_else(|| self.missing(name, expected.into()))?;
        match <[usize; 4]>::try_from(found.as_slice()) {
            Ok(sections) if sections[..3].iter().any(|&n| n > 0) && sections.iter().all(|&n| n <= MAX_HEAD_DIM) => {
                Ok(sections)
            }
            _ => Err(self.wrong(name, format!("must be {expected}, found {found:?}"))),
        }
    }

    pub(super) fn scaling(&self, context: usize) -> Result<Scaling> {
        let kind = match self.file.str(&self.key("rope.scaling.type"))? {
            Some(kind) => kind,
            None if self.has("rope.scaling.factor") => "linear",
            None => "none",
        };
        // The older name of the linear factor.
        let old = if self.has("rope.scale_linear") { self.positive("rope.scale_linear", None)? } else { 1.0 };
        let factor = self.positive("rope.scaling.factor", Some(old))?;
        let magnitude = match self.has("rope.scaling.yarn_attn_factor") {
            true => self.positive("rope.scaling.yarn_attn_factor", None)?,
            false => self.positive("rope.scaling.attn_factor", Some(1.0))?,
        };
        let linear = |factor: f32| match factor == 1.0 && magnitude == 1.0 {
            true => Scaling::None,
            false => Scaling::Linear { factor, magnitude },
        };
        match kind {
            "none" if self.has("rope.scaling.type") => Ok(linear(1.0)),
            // The factors of long and short contexts are tensors.
            "none" | "linear" | "longrope" => Ok(linear(factor)),
            "yarn" => Ok(Scaling::Yarn {
                factor,
                original: self.count("rope.scaling.original_context_length", 1..=MAX_CONTEXT, Some(context))?,
                magnitude,
                log_multiplier: self.fraction("rope.scaling.yarn_log_multiplier")?,
                mix: self.positive("rope.scaling.yarn_ext_factor", Some(1.0))?,
                fast: self.positive("rope.scaling.yarn_beta_fast", Some(32.0))?,
                slow: self.positive("rope.scaling.yarn_beta_slow", Some(1.0))?,
            }),
            other => Err(Error::UnsupportedModel(format!(
                "{}: rope scaling {other:?} is not supported; this version knows none, linear, longrope and yarn",
                self.file.path().display()
            ))),
        }
    }

    /// Rows of the embedding of token types; 0 where the file has no such embedding.
    pub(super) fn token_types(&self) -> Result<usize> {
        const KEY: &str = "tokenizer.ggml.token_type_count";
        if self.file.tensor("token_types.weight").is_none() {
            return Ok(0);
        }
        match self.file.usize(KEY)? {
            Some(count) if (1..=MAX_TOKEN_TYPES).contains(&count) => Ok(count),
            Some(count) => {
                let what = format!("key {KEY} must be from 1 to {MAX_TOKEN_TYPES}, found {count}");
                Err(self.file.key_error(KEY, what))
            }
            None => Err(self.file.error(format!("key {KEY} is missing: expected the rows of token_types.weight"))),
        }
    }

    /// Number of tokens, by the vocabulary and by the key, which must agree.
    pub(super) fn vocabulary(&self) -> Result<usize> {
        let tokens = self.file.strings("tokenizer.ggml.tokens")?;
        let tokens = tokens
            .ok_or_else(|| self.file.error("key tokenizer.ggml.tokens is missing: expected the vocabulary"))?
            .len();
        if tokens == 0 || tokens > MAX_VOCABULARY {
            let what = format!("key tokenizer.ggml.tokens must have from 1 to {MAX_VOCABULARY} tokens, found {tokens}");
            return Err(self.file.key_error("tokenizer.ggml.tokens", what));
        }
        if self.has("vocab_size") {
            let size = self.count("vocab_size", 1..=MAX_VOCABULARY, None)?;
            if size != tokens {
                return Err(self.wrong("vocab_size", format!("must be the number of tokens {tokens}, found {size}")));
            }
        }
        Ok(tokens)
    }
}
