//! Loading, and facts about what was loaded.

use std::ffi::{CString, c_char, c_int};
use std::mem::offset_of;
use std::ptr;

use fastq_core::model::kv_format;
use fastq_core::{LoadOptions, Model};

use crate::arguments::{self, Options, handle, optional, place, text};
use crate::cancel::{Flag, fastq_cancel};
use crate::status::{Outcome, fastq_error, fastq_status, guarded};

/// A flag of load options: read the file into memory instead of mapping it. Takes longer and more memory, but whatever happens to
/// the file then does not matter.
pub const FASTQ_NO_MMAP: u32 = 1;

/// How to load a model. Fill it with fastq_load_options_init, then change what should be different.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct fastq_load_options {
    /// Bytes of this struct; set by fastq_load_options_init.
    pub size: usize,
    /// Positions per sequence, prompt and answer together. 0, the default: what the model was trained for, or less if that
    /// does not fit the memory.
    pub context: usize,
    /// Threads, the calling one included. 0, the default: what the machine grants.
    pub threads: usize,
    /// What the KV cache stores: "f16", "f32" in twice the memory, or "q8_0" in about half. NULL, the default, is "f16".
    pub kv: *const c_char,
    /// Ends the loading when it is set; NULL, the default, for none.
    pub cancel: *const fastq_cancel,
    /// The most tokens of a prompt that are computed at once, 1 to 65536; default 512. Less takes less memory.
    pub prefill_chunk: u32,
    /// FASTQ_NO_MMAP or, the default, 0.
    pub flags: u32,
}

impl Default for fastq_load_options {
    fn default() -> fastq_load_options {
        fastq_load_options {
            size: size_of::<fastq_load_options>(),
            context: 0,
            threads: 0,
            kv: ptr::null(),
            cancel: ptr::null(),
            prefill_chunk: 512,
            flags: 0,
        }
    }
}

// SAFETY: numbers and pointers, and the last field ends where the struct does.
unsafe impl Options for fastq_load_options {
    const NAME: &'static str = "load_options";
    const FIRST: usize = offset_of!(fastq_load_options, flags) + size_of::<u32>();
}
const _: () = assert!(fastq_load_options::FIRST == size_of::<fastq_load_options>());

/// Facts about a model. Belongs to the model and lives as long.
#[repr(C)]
pub struct fastq_info {
    /// Bytes of this struct, as the library knows it: fields that end later are not there.
    pub size: usize,
    /// What kind of model it is, such as "llama".
    pub architecture: *const c_char,
    /// What the file calls itself, or else the name of the file.
    pub name: *const c_char,
    /// The kind of the tokenizer, such as "gpt2/smollm".
    pub tokenizer: *const c_char,
    /// What the KV cache stores: "f32", "f16" or "q8_0".
    pub kv: *const c_char,
    /// The set of instructions in use, such as "avx2".
    pub level: *const c_char,
    /// Number of weights.
    pub parameters: u64,
    /// Bytes of the file, or of all its parts.
    pub file_bytes: u64,
    /// Bits per weight of all tensors together.
    pub bits_per_weight: f64,
    /// Seconds that loading took.
    pub load_seconds: f64,
    /// Positions per sequence, prompt and answer together.
    pub context: usize,
    /// Positions that the model was trained for.
    pub trained_context: usize,
    /// Number of tokens of the vocabulary; ids are below it.
    pub vocabulary: usize,
    /// Number of layers.
    pub layers: usize,
    /// Length of the hidden state.
    pub width: usize,
    /// Threads, the calling one included.
    pub threads: usize,
    /// 1 when the file has a chat template, which messages need; otherwise 0.
    pub has_chat_template: c_int,
}

/// A loaded model.
pub struct fastq_model {
    pub(crate) model: Model,
    info: fastq_info,
    /// What the pointers of `info` point to.
    _texts: [CString; 5],
}

// SAFETY: the pointers in `info` are to the texts beside it, which nobody changes.
unsafe impl Send for fastq_model {}
// SAFETY: as above.
unsafe impl Sync for fastq_model {}

impl fastq_model {
    fn new(model: Model) -> fastq_model {
        let facts = model.info();
        // A zero inside a name from a file would hide the rest.
        let c_string = |text: &str| CString::new(text.replace('\0', "\u{FFFD}")).unwrap_or_default();
        let texts =
            [&facts.architecture, &facts.name, &facts.tokenizer, facts.kv.name(), facts.level.name()].map(c_string);
        let [architecture, name, tokenizer, kv, level] = texts.each_ref().map(|text| text.as_ptr());
        let info = fastq_info {
            size: size_of::<fastq_info>(),
            architecture,
            name,
            tokenizer,
            kv,
            level,
            parameters: facts.parameters,
            file_bytes: facts.file_bytes,
            bits_per_weight: facts.bits_per_weight,
            load_seconds: facts.load_seconds,
            context: facts.context,
            trained_context: facts.trained_context,
            vocabulary: facts.vocabulary,
            layers: facts.layers,
            width: facts.width,
            threads: facts.threads,
            has_chat_template: c_int::from(facts.has_template),
        };
        fastq_model { model, info, _texts: texts }
    }
}

/// The model behind a handle, kept alive by what is returned.
///
/// # Safety
/// As [`handle`].
pub(crate) unsafe fn model_of(model: *const fastq_model) -> Outcome<Model> {
    // SAFETY: as the caller grants.
    unsafe { handle(model, "model") }.map(|model| model.model.clone())
}

/// Fills options with the defaults. `size` is sizeof(fastq_load_options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastq_load_options_init(options: *mut fastq_load_options, size: usize) {
    // SAFETY: as the caller grants.
    unsafe { arguments::init(options, size) }
}

/// Loads a GGUF file, the first one if it has parts. All of it is checked but the numbers in the tensors.
///
/// `path`: any bytes that the system takes on Unix, UTF-8 elsewhere. `options` may be NULL for the defaults.
/// `model` receives the model, which fastq_model_free ends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastq_model_load(
    path: *const c_char,
    options: *const fastq_load_options,
    model: *mut *mut fastq_model,
    error: *mut fastq_error,
) -> fastq_status {
    let load = || {
        // SAFETY: every pointer is null or what the header says, as the caller grants.
        let (model, path, options) = unsafe {
            (place(model, ptr::null_mut(), "model")?, arguments::path(path, "path")?, read_load_options(options)?)
        };
        // SAFETY: as above.
        let cancel = Flag(unsafe { optional(options.cancel, "load_options.cancel")? });
        let kv = if options.kv.is_null() {
            LoadOptions::default().kv
        } else {
            // SAFETY: as above.
            kv_format(unsafe { text(options.kv, "load_options.kv")? })?
        };
        arguments::flags(options.flags, FASTQ_NO_MMAP, "load_options.flags")?;
        let chosen = |number: usize| Some(number).filter(|&number| number != 0);
        let options = LoadOptions {
            context: chosen(options.context),
            threads: chosen(options.threads),
            mmap: options.flags & FASTQ_NO_MMAP == 0,
            prefill_chunk: options.prefill_chunk as usize,
            kv,
            ..LoadOptions::default()
        };
        *model = Box::into_raw(Box::new(fastq_model::new(Model::load(path, &options, &cancel)?)));
        Ok(())
    };
    // SAFETY: as the caller grants.
    unsafe { guarded(error, load) }
}

/// # Safety
/// As [`arguments::read`].
unsafe fn read_load_options(options: *const fastq_load_options) -> Outcome<fastq_load_options> {
    // SAFETY: as the caller grants.
    if options.is_null() { Ok(fastq_load_options::default()) } else { unsafe { arguments::read(options) } }
}

/// Facts about a model; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastq_model_info(model: *const fastq_model) -> *const fastq_info {
    // SAFETY: null, or a model that is not freed, as the caller grants.
    unsafe { model.as_ref() }.map_or(ptr::null(), |model| &model.info)
}

/// Ends a model, which no call uses any more. Its sessions keep its memory until they are freed, too. NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastq_model_free(model: *mut fastq_model) {
    if !model.is_null() {
        // SAFETY: from `fastq_model_load`, freed once, as the caller grants.
        drop(unsafe { Box::from_raw(model) });
    }
}
