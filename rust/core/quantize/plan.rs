//! What will become of every tensor, known before anything is computed.

use fastq_kernels::Format;

use super::allocate::Allocation;
use super::importance::Importance;
use super::preset::Target;
use super::recipe::{self, Wishes};
use super::{Method, Options};
use crate::gguf::{Array, Gguf, TensorInfo, TensorType, Value, Writer};
use crate::{Error, Result};

/// The version of the block formats that ggml writes today.
const QUANTIZATION_VERSION: u32 = 2;

/// What will become of one tensor.
#[derive(Clone, PartialEq, Debug)]
pub struct PlannedTensor {
    /// As it is in the source.
    pub info: TensorInfo,
    /// The type it gets.
    pub ty: TensorType,
    /// Bytes it will have.
    pub bytes: u64,
    /// Why it does not get the type that the target says.
    pub fallback: Option<String>,
    /// Whether errors are weighted by an importance matrix that has this tensor.
    pub importance: bool,
    /// Whether that is missing although the type cannot do without.
    pub lacks_importance: bool,
}

impl PlannedTensor {
    /// Whether its weights change: they are encoded anew.
    pub fn is_encoded(&self) -> bool {
        self.ty != self.info.ty
    }

    /// Whether weights are encoded that were quantized before.
    pub fn is_requantized(&self) -> bool {
        self.is_encoded() && self.info.ty.block() > 1
    }
}

/// What will become of a model. Allocation changes it ([`Plan::set_type`]) before it is [`run`](super::run).
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    source: &'a Gguf,
    options: &'a Options,
    tensors: Vec<PlannedTensor>,
    allocation: Option<Allocation>,
}

/// Plans the quantization of `source`.
///
/// # Errors
/// [`Error::Argument`] for options that do not fit the model or each other, [`Error::ModelFile`] where a rule needs what the file does not have.
pub fn plan<'a>(source: &'a Gguf, options: &'a Options) -> Result<Plan<'a>> {
    if let Some(ty) = source.str("general.type")?.filter(|ty| *ty == "imatrix") {
        return Err(Error::Argument(format!(
            "{}: expected a model, found a file of type {ty:?}",
            source.path().display()
        )));
    }
    let wishes = Wishes {
        target: options.target,
        output: options.output_type,
        embedding: options.embedding_type,
        overrides: &options.overrides,
        importance: options.importance.is_some(),
    };
    let tensors = source.tensors().iter().map(|info| PlannedTensor {
        info: info.clone(),
        ty: info.ty,
        bytes: info.bytes,
        fallback: None,
        importance: false,
        lacks_importance: false,
    });
    let mut plan = Plan { source, options, tensors: tensors.collect(), allocation: None };
    for (index, choice) in recipe::choose(source, &wishes)?.into_iter().enumerate() {
        plan.set(index, choice.ty)?;
        plan.tensors[index].fallback = choice.fallback;
    }
    Ok(plan)
}

impl<'a> Plan<'a> {
    /// The model.
    pub fn source(&self) -> &'a Gguf {
        self.source
    }

    /// What was asked for.
    pub fn options(&self) -> &'a Options {
        self.options
    }

    /// The tensors in the order of the source, which is that of the new file.
    pub fn tensors(&self) -> &[PlannedTensor] {
        &self.tensors
    }

    /// How weights become integers.
    pub fn method(&self) -> Method {
        self.options.method
    }

    /// What was measured when [`allocate`](super::allocate) chose the types.
    pub fn allocation(&self) -> Option<Allocation> {
        self.allocation
    }

    pub(super) fn set_allocation(&mut self, found: Allocation) {
        self.allocation = Some(found);
    }

    pub(super) fn threads(&self) -> Option<usize> {
        self.options.threads
    }

    pub(super) fn importance(&self) -> Option<&'a Importance> {
        self.options.importance.as_ref()
    }

    /// Whether a tensor may get another type: matrices that are multiplied with, and embeddings.
    pub fn is_quantizable(&self, index: usize) -> bool {
        let architecture = self.source.str("general.architecture").ok().flatten().unwrap_or_default();
        self.tensors.get(index).is_some_and(|tensor| recipe::quantizable(&tensor.info, architecture))
    }

    /// Whether the options name a type for a tensor.
    pub fn is_chosen(&self, index: usize) -> bool {
        let Some(tensor) = self.tensors.get(index) else { return false };
        let name = tensor.info.name.as_str();
        let vocabulary = match name {
            "token_embd.weight" => self.options.embedding_type.is_some(),
            "output.weight" => self.options.output_type.is_some(),
            _ => false,
        };
        vocabulary || self.options.overrides.unmatched().find(name).is_some()
    }

    /// Gives a tensor another type than the target says.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is no such tensor, or blocks of the type do not divide its rows.
    pub fn set_type(&mut self, index: usize, format: Format) -> Result<()> {
        self.set(index, format.into())?;
        self.tensors[index].fallback = None;
        Ok(())
    }

    fn set(&mut self, index: usize, ty: TensorType) -> Result<()> {
        let count = self.tensors.len();
        let Some(tensor) = self.tensors.get_mut(index) else {
            return Err(Error::Argument(format!("there are {count} tensors, found number {index}")));
        };
        let k = tensor.info.k();
        let bytes = ty.row_bytes(k).and_then(|row| row.checked_mul(tensor.info.rows())).ok_or_else(|| {
            let name = &tensor.info.name;
            Error::Argument(format!(
                "tensor {name:?}: rows of {k} weights are not a multiple of the {} of {ty}",
                ty.block()
            ))
        })?;
        (tensor.ty, tensor.bytes) = (ty, bytes);
        let uses = tensor.is_encoded() && ty.kernel().is_some_and(|format| format.info().uses_importance);
        let known = match self.options.importance.as_ref().filter(|_| uses) {
            // The embedding is looked up, not multiplied with, so what an importance matrix has of it counts only where it fits.
            Some(importance) => match importance.of(&tensor.info) {
                Err(_) if tensor.info.name.ends_with("token_embd.weight") => false,
                known => known?.is_some(),
            },
            None => false,
        };
        tensor.importance = known;
        tensor.lacks_importance =
            !known && tensor.is_encoded() && needs_importance(&tensor.info.name, ty, self.options.target);
        Ok(())
    }

    /// Whether it can be run.
    ///
    /// # Errors
    /// [`Error::Argument`] where a type needs an importance matrix, where weights would be quantized twice without leave, and where a type can only be read;
    /// [`Error::UnsupportedModel`] for tensors of numbers that are no weights.
    pub fn check(&self) -> Result<()> {
        for tensor in self.tensors.iter().filter(|tensor| tensor.is_encoded()) {
            let (name, from, to) = (&tensor.info.name, tensor.info.ty, tensor.ty);
            if from.kernel().is_none() {
                return Err(Error::UnsupportedModel(format!("tensor {name:?}: {from} cannot be quantized to {to}")));
            }
            if to.kernel().is_none() {
                return Err(Error::Argument(format!("tensor {name:?}: {to} can be read, not made")));
            }
            if tensor.is_requantized() && !self.options.allow_requantize {
                return Err(Error::Argument(format!(
                    "tensor {name:?} is quantized already ({from}), and quantizing it again to {to} loses more than quantizing the original; take a \
                     file in F16, BF16 or F32, or allow it (allow_requantize=True, --allow-requantize)"
                )));
            }
            if tensor.lacks_importance {
                let what = match &self.options.importance {
                    None => "and none is given".to_owned(),
                    Some(importance) => format!("and {} does not have it", importance.file),
                };
                return Err(Error::Argument(format!(
                    "tensor {name:?}: {to} needs an importance matrix, {what}; make one with `fastq calibrate MODEL TEXT -o model.imatrix.gguf` \
                     (fastq.calibrate) and pass it (--imatrix, imatrix=), or give the tensor another type"
                )));
            }
        }
        Ok(())
    }

    /// What is worth telling before it is run.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let list = |which: &dyn Fn(&PlannedTensor) -> bool| {
            let names: Vec<_> =
                self.tensors.iter().filter(|tensor| which(tensor)).map(|tensor| tensor.info.name.as_str()).collect();
            let more = if names.len() > 3 { ", …" } else { "" };
            (names.len(), format!("{}{more}", names[..names.len().min(3)].join(", ")))
        };
        let (count, names) = list(&PlannedTensor::is_requantized);
        if count > 0 {
            warnings.push(format!(
                "{count} tensors are quantized already and will be quantized again, which loses more than quantizing the original ({names})"
            ));
        }
        let (count, names) = list(&|tensor| tensor.fallback.is_some());
        if count > 0 {
            warnings.push(format!(
                "{count} tensors get another type than the target says, because of the length of their rows ({names})"
            ));
        }
        let (count, names) = list(&|tensor| tensor.lacks_importance);
        if count > 0 {
            warnings.push(format!(
                "{count} tensors get a type that needs an importance matrix which is not there ({names})"
            ));
        }
        let (count, names) = list(&|tensor| {
            let uses = tensor.is_encoded() && tensor.ty.kernel().is_some_and(|format| format.info().uses_importance);
            let expected = self.options.importance.is_some() && uses && !recipe::is_vocabulary(&tensor.info.name);
            expected && !tensor.importance && !tensor.lacks_importance
        });
        if count > 0 {
            warnings.push(format!("{count} tensors are not in the importance matrix ({names})"));
        }
        warnings
    }

    /// Bytes of the tensors' data.
    pub fn tensor_bytes(&self) -> u64 {
        self.tensors.iter().fold(0, |sum, tensor| sum.saturating_add(tensor.bytes))
    }

    /// Number of weights.
    pub fn weights(&self) -> u64 {
        self.tensors.iter().fold(0, |sum, tensor| sum.saturating_add(tensor.info.elements()))
    }

    /// Bytes of the file, with header and padding.
    ///
    /// # Errors
    /// [`Error::Argument`] when that is 2^63 or more.
    pub fn file_bytes(&self) -> Result<u64> {
        self.writer()?.file_bytes()
    }

    /// The new file, without the data.
    pub(super) fn writer(&self) -> Result<Writer<'a>> {
        let mut writer = Writer::with_metadata_of(self.source);
        writer.protect(self.source);
        if let Some(file_type) = self.options.target.file_type() {
            self.describe(&mut writer, file_type)?;
        }
        for tensor in &self.tensors {
            writer.tensor_later(&tensor.info.name, &tensor.info.shape, tensor.ty)?;
        }
        Ok(writer)
    }

    /// Writes into the metadata what was done: the keys of `llama-quantize`, and our own.
    fn describe(&self, writer: &mut Writer<'a>, file_type: u32) -> Result<()> {
        writer.set("general.quantization_version", QUANTIZATION_VERSION)?;
        writer.set("general.file_type", file_type)?;
        if let Some(Importance { file, matrix }) = &self.options.importance {
            writer.set("quantize.imatrix.file", file.as_str())?;
            if let Some(dataset) = matrix.datasets.first() {
                writer.set("quantize.imatrix.dataset", dataset.as_str())?;
            }
            writer.set("quantize.imatrix.entries_count", matrix.entries.len() as u32)?;
            if matrix.chunk_count > 0 {
                writer.set("quantize.imatrix.chunks_count", matrix.chunk_count)?;
            }
        }
        writer.set("fastq.quantize.version", env!("CARGO_PKG_VERSION"))?;
        writer.set("fastq.quantize.target", self.options.target.name())?;
        writer.set("fastq.quantize.method", self.options.method.name())?;
        if !self.options.overrides.is_empty() {
            let overrides =
                self.options.overrides.iter().map(|(pattern, format)| format!("{pattern}={}", format.name()));
            writer.set("fastq.quantize.overrides", Value::Array(Array::from_strings(overrides.collect::<Vec<_>>())))?;
        }
        Ok(())
    }

    /// What the data of the new file depend on besides its header; `None` when an interrupted run cannot be recognised.
    pub(super) fn key(&self) -> Option<String> {
        let importance = self.options.importance.as_ref().map(Importance::hash);
        let calibration = match &self.options.calibration {
            Some(calibration) => Some(calibration.hash()?),
            None => None,
        };
        let method = self.options.method.name();
        Some(format!("{} {method} {importance:x?} {calibration:x?}", self.source.identity()?))
    }
}

/// Whether a type is not to be had without an importance matrix. Beside what the quantizers themselves cannot do without, these are the types of which
/// `llama-quantize` says that the result is garbage.
fn needs_importance(name: &str, ty: TensorType, target: Target) -> bool {
    use super::preset::Preset;
    let Some(format) = ty.kernel() else { return false };
    let poor = match format {
        Format::IQ1_S | Format::IQ1_M | Format::IQ2_XXS | Format::IQ2_XS | Format::IQ2_S | Format::IQ3_XXS => true,
        Format::Q2_K => target == Target::Preset(Preset::Q2_K_S),
        _ => false,
    };
    format.info().needs_importance || (poor && !recipe::is_vocabulary(name))
}
