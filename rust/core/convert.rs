//! Checkpoints of transformers (a folder with `config.json`, safetensors files and a tokenizer) as GGUF files.
//!
//! Everything is known before anything is written: keys and tensors are put together, and the engine's own reading of them (sizes,
//! shapes, vocabulary) is what checks them. Weights then go through row by row, so that memory in use is some rows, or one matrix
//! where the checkpoint is quantized.
//!
//! ```no_run
//! # use fastq_core::convert::{ConvertOptions, convert};
//! # use fastq_core::{Never, Silent};
//! let done = convert("Qwen3-0.6B".as_ref(), "qwen3.gguf".as_ref(), &ConvertOptions::default(), &Never, &Silent)?;
//! println!("{} tensors, {} bytes", done.tensors, done.bytes);
//! # Ok::<(), fastq_core::Error>(())
//! ```

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;

use fastq_kernels::Format;

use crate::gguf::{Gguf, TensorType, Writer};
use crate::model::spec::ModelSpec;
use crate::model::tensors::TENSORS;
use crate::tokenizer::Tokenizer;
use crate::{Error, Interrupt, Progress, Result};

mod checkpoint;
mod description;
mod family;
mod json;
mod packed;
mod plan;
mod rows;
mod vocabulary;

use checkpoint::Checkpoint;
use family::{Config, Family};
use json::Object;
use plan::Target;
use rows::Source;

/// Largest `config.json`.
const MAX_CONFIG: u64 = 16 << 20;

/// The type of matrices in the file. Vectors, norms and a few small matrices that llama.cpp wants so are F32 in any case.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Dtype {
    /// As in the checkpoint; integers that fit a block format stay what they are.
    #[default]
    Auto,
    /// F32.
    F32,
    /// F16; weights that are too large for it are an error.
    F16,
    /// BF16.
    Bf16,
    /// Q8_0; F16 where rows are no multiple of 32.
    Q8_0,
}

impl Dtype {
    /// All, as people name them.
    pub const ALL: [(&str, Dtype); 5] =
        [("auto", Dtype::Auto), ("f32", Dtype::F32), ("f16", Dtype::F16), ("bf16", Dtype::Bf16), ("q8_0", Dtype::Q8_0)];

    /// The type with this name.
    ///
    /// # Errors
    /// [`Error::Argument`] that lists the names.
    pub fn from_name(name: &str) -> Result<Dtype> {
        let found = Dtype::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, dtype)| *dtype).ok_or_else(|| {
            let names = Dtype::ALL.map(|(name, _)| format!("{name:?}")).join(", ");
            Error::Argument(format!("dtype must be one of {names}, found {name:?}"))
        })
    }
}

/// How to convert.
#[derive(Clone, Default, Debug)]
pub struct ConvertOptions {
    /// The type of matrices.
    pub dtype: Dtype,
    /// `tokenizer.ggml.pre`, where it does not follow from the checkpoint.
    pub pre: Option<String>,
    /// `general.name`; by default that of the folder.
    pub name: Option<String>,
}

/// Something that a user should know about a conversion.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// The tensor (in the checkpoint), the file or the part it is about.
    pub subject: String,
    /// What is to be known.
    pub text: String,
}

/// Notes, as they are collected.
#[derive(Default)]
struct Notes(Vec<Note>);

impl Notes {
    fn add(&mut self, subject: &str, text: String) {
        self.0.push(Note { subject: subject.to_owned(), text });
    }

    fn append(&mut self, other: &mut Notes) {
        self.0.append(&mut other.0);
    }
}

/// What was written.
#[derive(Clone, PartialEq, Debug)]
pub struct Conversion {
    /// `general.architecture`.
    pub architecture: String,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of weights.
    pub parameters: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Number of tensors of each type, by its name.
    pub types: BTreeMap<&'static str, usize>,
    /// What was lost, changed or left out.
    pub notes: Vec<Note>,
}

/// Converts the checkpoint in `directory` to the file `out`.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Io`]; [`Error::ModelFile`] for files that are damaged or contradict each other, with the file, the
/// key or tensor, what was expected and what was found; [`Error::UnsupportedModel`] for what GGUF or the engine has no place for;
/// [`Error::Tokenizer`]; [`Error::Argument`] for a name that is none; [`Error::Cancelled`]. `out` is then as it was.
pub fn convert(
    directory: &Path,
    out: &Path,
    options: &ConvertOptions,
    interrupt: &dyn Interrupt,
    progress: &dyn Progress,
) -> Result<Conversion> {
    let mut notes = Notes::default();
    progress.report("reading", 0, 1);
    let path = directory.join("config.json");
    if !directory.exists() {
        return Err(Error::NotFound(directory.into()));
    }
    let root = Object::open(&path, MAX_CONFIG)?.ok_or_else(|| Error::NotFound(path.clone()))?;
    let method = packed::Method::of(&root)?;
    let mut config = Config::new(root)?;
    let family = Family::of(&config)?;
    config.complete(family);
    let checkpoint = Checkpoint::open(directory)?;
    refuse_sources(&checkpoint, out)?;
    let sources = packed::sources(&checkpoint, &method)?;
    let targets = plan::targets(family, &config, &checkpoint, &sources, &mut notes)?;
    let keys = family.keys(&config, &mut notes)?;
    let embedding = targets.iter().find(|target| target.name == "token_embd.weight");
    let embedding = embedding.ok_or_else(|| config.error("the checkpoint has no embedding of tokens"))?;
    let wanted = vocabulary::Wanted {
        rows: usize::try_from(embedding.shape[1..].iter().product::<u64>()).unwrap_or(usize::MAX),
        pre: options.pre.as_deref(),
        architecture: family.architecture,
        config: &config,
    };
    let tokenizer = vocabulary::keys(directory, &wanted, &mut notes)?;

    let formats = targets.iter().map(|target| format(target, options.dtype, &mut notes)).collect::<Result<Vec<_>>>()?;
    let parameters = targets.iter().map(|target| target.shape.iter().product::<u64>()).sum();
    let done = Cell::new(0u64);
    let mut writer = Writer::new();
    let name = options.name.as_deref();
    for (key, value) in description::keys(directory, family.architecture, name, parameters, experts(&targets))? {
        writer.set(key, value)?;
    }
    writer.set("general.file_type", file_type(&targets, &formats))?;
    writer.set("general.quantization_version", 2u32)?;
    let pairs = keys.pairs.into_iter().chain(more_keys(directory, &config, family, wanted.rows)?).chain(tokenizer);
    for (key, value) in pairs {
        writer.set(&key, value)?;
    }
    let total = targets.iter().zip(&formats).map(|(target, format)| bytes(target, *format)).sum::<u64>().max(1);
    for (name, factors) in &keys.factors {
        let data: Vec<u8> = factors.iter().flat_map(|factor| factor.to_le_bytes()).collect();
        writer.tensor_from(name, &[factors.len() as u64], Format::F32.into(), move |output| output.write(&data))?;
    }
    for (target, format) in targets.iter().zip(&formats) {
        let (checkpoint, done) = (&checkpoint, &done);
        writer.tensor_from(&target.name, &target.shape, (*format).into(), move |output| {
            target.recipe.write(checkpoint, *format, &mut |rows| {
                if interrupt.stop() {
                    return Err(Error::Cancelled);
                }
                output.write(rows)?;
                done.set(done.get() + rows.len() as u64);
                progress.report("writing", done.get(), total);
                Ok(())
            })
        })?;
    }
    check(&writer.preview(&path)?, &targets)?;
    let mut types: BTreeMap<&'static str, usize> = BTreeMap::new();
    formats.iter().for_each(|format| *types.entry(format.name()).or_default() += 1);
    if !keys.factors.is_empty() {
        *types.entry(Format::F32.name()).or_default() += keys.factors.len();
    }
    let bytes = writer.write(out, interrupt)?;
    Ok(Conversion {
        architecture: family.architecture.into(),
        tensors: targets.len() + keys.factors.len(),
        parameters,
        bytes,
        types,
        notes: notes.0,
    })
}

/// Refuses to write over what is being read.
fn refuse_sources(checkpoint: &Checkpoint, out: &Path) -> Result<()> {
    let Ok(out) = out.canonicalize() else { return Ok(()) };
    let read = checkpoint.tensors.values().map(|stored| checkpoint.path(stored));
    match read.into_iter().any(|path| path.canonicalize().is_ok_and(|path| path == out)) {
        true => Err(Error::Argument(format!("{} is a part of the checkpoint: write to another file", out.display()))),
        false => Ok(()),
    }
}

/// Keys that depend on other files or on the tensors.
fn more_keys(
    directory: &Path,
    config: &Config,
    family: &Family,
    rows: usize,
) -> Result<Vec<(String, crate::gguf::Value)>> {
    let prefix = family.architecture;
    let mut keys: Vec<(String, crate::gguf::Value)> = vec![(format!("{prefix}.vocab_size"), (rows as u32).into())];
    if let Some(pooling) = pooling(directory)? {
        keys.push((format!("{prefix}.pooling_type"), pooling.into()));
    }
    if !family.decoder {
        let types = config.u32("type_vocab_size")?.unwrap_or(1);
        keys.push(("tokenizer.ggml.token_type_count".into(), types.into()));
    }
    Ok(keys)
}

/// How sentence-transformers makes one vector of those of the tokens.
fn pooling(directory: &Path) -> Result<Option<u32>> {
    let path = directory.join("modules.json");
    let Some(bytes) = json::read(&path, MAX_CONFIG)? else { return Ok(None) };
    let modules: serde_json::Value = serde_json::from_slice(&bytes)
        .map_err(|error| crate::gguf::model_error(&path, format!("expected JSON, found: {error}")))?;
    let folder = modules.as_array().into_iter().flatten().find_map(|module| {
        let kind = module.get("type")?.as_str()?;
        if kind.ends_with("Pooling") { module.get("path")?.as_str() } else { None }
    });
    let Some(folder) = folder else { return Ok(None) };
    if folder.contains(['/', '\\', '\0']) || folder.contains("..") {
        let what = format!("the path of a module must be a folder beside the file, found {folder:?}");
        return Err(crate::gguf::model_error(&path, what));
    }
    let path = directory.join(folder).join("config.json");
    let Some(config) = Object::open(&path, MAX_CONFIG)? else { return Err(Error::NotFound(path)) };
    for (key, pooling) in
        [("pooling_mode_mean_tokens", 1), ("pooling_mode_cls_token", 2), ("pooling_mode_lasttoken", 3)]
    {
        if config.bool(key)? == Some(true) {
            return Ok(Some(pooling));
        }
    }
    match config.str("pooling_mode")? {
        Some("mean") => Ok(Some(1)),
        Some("cls") => Ok(Some(2)),
        Some("lasttoken") => Ok(Some(3)),
        _ => Err(Error::UnsupportedModel(format!(
            "{}: no pooling that is known (mean, cls, lasttoken) is switched on",
            path.display()
        ))),
    }
}

/// Matrices that llama.cpp wants as F32, by the end of their names.
const WHOLE: &[&str] = &[
    "_norm.weight",
    "ffn_gate_inp.weight",
    "position_embd.weight",
    "token_types.weight",
    "ssm_conv1d.weight",
    "shortconv.conv.weight",
    "attn_sinks.weight",
];

/// The type of a tensor in the file.
fn format(target: &Target, dtype: Dtype, notes: &mut Notes) -> Result<Format> {
    let Target { name, shape, recipe } = target;
    for piece in &recipe.pieces {
        if let Source::Packed(packed) = &piece.source
            && let Some(loss) = packed.loss()
        {
            notes.add(&piece.name, format!("its integers are not kept: {loss}"));
        }
    }
    let vector = shape.len() == 1 || !name.ends_with(".weight") || WHOLE.iter().any(|end| name.ends_with(end));
    if vector {
        return Ok(Format::F32);
    }
    let native = recipe.native();
    let float = match recipe.pieces[0].source.native() {
        Format::BF16 => Format::BF16,
        _ => Format::F16,
    };
    let chosen = match dtype {
        Dtype::Auto => match native {
            Some(native) => native,
            None => {
                notes.add(
                    &recipe.pieces[0].name,
                    format!("its integers are not kept: the rows of {name} come in another order, or of several kinds"),
                );
                float
            }
        },
        Dtype::F32 => Format::F32,
        Dtype::F16 => Format::F16,
        Dtype::Bf16 => Format::BF16,
        Dtype::Q8_0 => Format::Q8_0,
    };
    if chosen.row_bytes(recipe.k).is_none() {
        notes.add(
            &recipe.pieces[0].name,
            format!("{} instead of {}: rows of {} are no multiple of 32", float.name(), chosen.name(), recipe.k),
        );
        return Ok(float);
    }
    Ok(chosen)
}

/// Bytes of a tensor.
fn bytes(target: &Target, format: Format) -> u64 {
    let rows = target.shape[1..].iter().product::<u64>();
    TensorType::from(format).row_bytes(target.shape[0]).unwrap_or(0).saturating_mul(rows)
}

/// `general.file_type`, by the type that most weights have.
fn file_type(targets: &[Target], formats: &[Format]) -> u32 {
    // ggml's enum llama_ftype.
    const TYPES: [(Format, u32); 7] = [
        (Format::F32, 0),
        (Format::F16, 1),
        (Format::Q4_0, 2),
        (Format::Q4_1, 3),
        (Format::Q8_0, 7),
        (Format::BF16, 32),
        (Format::MXFP4, 38),
    ];
    let weights = |format: Format| -> u64 {
        let of = targets.iter().zip(formats).filter(|(_, own)| **own == format);
        of.map(|(target, _)| target.shape.iter().product::<u64>()).sum()
    };
    TYPES.iter().max_by_key(|(format, _)| weights(*format)).map_or(0, |(_, number)| *number)
}

/// The number of experts, and their weights.
fn experts(targets: &[Target]) -> Option<(u64, u64)> {
    let of = || targets.iter().filter(|target| target.name.ends_with("_exps.weight"));
    let count = of().next()?.shape.last().copied()?;
    Some((count, of().map(|target| target.shape.iter().product::<u64>()).sum()))
}

/// Has the engine read what is to be written.
fn check(file: &Gguf, targets: &[Target]) -> Result<()> {
    // Places are those in a file that does not exist.
    let placed = |error: Error| match error {
        Error::ModelFile { path, what, .. } => Error::ModelFile { path, offset: None, what },
        other => other,
    };
    Tokenizer::from_gguf(file).map_err(placed)?;
    let spec = ModelSpec::read(file, None, None).map_err(placed)?;
    for entry in TENSORS {
        for layer in 0..if entry.per_layer() { spec.layers.len() } else { 1 } {
            entry.find(file, &spec, layer).map_err(|error| {
                let name = entry.name(layer);
                let origin =
                    targets.iter().find(|target| target.name == name).and_then(|target| target.recipe.pieces.first());
                match (placed(error), origin) {
                    (Error::ModelFile { path, offset, what }, Some(piece)) => {
                        Error::ModelFile { path, offset, what: format!("{what} (made of {})", piece.name) }
                    }
                    (error, _) => error,
                }
            })?;
        }
    }
    Ok(())
}
