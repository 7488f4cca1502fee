//! A loaded model: a mapped file, what it computes, and the memory it computes in.
//!
//! Loading is parsing, checking and mapping; no weight is copied. [`Model::forward`] appends tokens to sequences of the cache and
//! computes logits. Calls from several threads take turns.

pub mod arch;
mod attend;
mod batch;
mod buffers;
mod damage;
pub mod embed;
mod experts;
mod fingerprint;
mod forward;
mod info;
mod keys;
pub mod layerwise;
mod logits;
pub mod mixers;
pub mod observe;
mod parts;
mod rank;
mod regions;
pub mod replace;
pub mod rope;
pub mod spec;
pub mod tensors;
mod turns;
pub mod weights;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

pub use fastq_kernels::attention::KvFormat;
use fastq_kernels::{Cpu, Level};

use crate::gguf::{Gguf, OpenOptions};
use crate::grammar::GrammarVocabulary;
use crate::kv_cache::{GroupLayout, KvCache, LayerKv, state_bytes_per_sequence};
use crate::machine::Machine;
use crate::memory::{MemoryPlan, Needs};
use crate::pool::{Pool, check_threads};
use crate::scheduler::Scheduler;
use crate::session::PromptCache;
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;
use crate::{Error, Interrupt, Result};
use arch::Architecture;
use batch::{Output, plan_chunk};
use buffers::{BufferSizes, Buffers};
use forward::Context;
use logits::no_logits;
use replace::Replacements;
use spec::{LayerSpec, MAX_CONTEXT, ModelSpec};
use turns::Turns;
use weights::Weights;

pub use crate::kv_cache::Sequence;
pub use batch::{BatchItem, Logits};
pub use fingerprint::Fingerprint;
pub use info::ModelInfo;
pub use layerwise::LayerStates;
pub use observe::{Input, Observer};
pub use replace::Replacement;

/// Most tokens that are computed at once.
const MAX_CHUNK: usize = 1 << 16;

/// Address space that a worker takes beside its buffers: its stack, and what the allocator sets apart for a thread (glibc: 64 MiB, of
/// a 32-bit process 1 MiB).
const THREAD_SPACE: u64 = if cfg!(target_pointer_width = "32") { 3 << 20 } else { 66 << 20 };

/// How to load a model.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Positions per sequence; by default what the model was trained for, or less if that does not fit the memory.
    pub context: Option<usize>,
    /// Threads; by default what the machine grants ([`Machine::threads`]). Where cores differ, as many as there are fast ones run
    /// on these ([`Machine::placement`]).
    pub threads: Option<usize>,
    /// Map the file (the default) or read it into memory.
    pub mmap: bool,
    /// SIMD level; by default the best, or the one that `FASTQ_LEVEL` names.
    pub level: Option<Level>,
    /// Tokens that are computed at once, 1 to 65,536.
    pub prefill_chunk: usize,
    /// Refuse what does not fit the free memory.
    pub check_memory: bool,
    /// What the KV cache stores keys and values as.
    pub kv: KvFormat,
    /// The architecture, instead of the one that the file names: a variant of a known one
    /// ([`described`](arch::description::described)). Keys still begin with the file's name.
    pub architecture: Option<Architecture>,
    /// A folder for beginnings of prompts that were computed, and the most bytes it may take: other processes go on from there.
    pub prompt_cache: Option<(PathBuf, u64)>,
    /// The most bytes that the KV cache and the recurrent states of all sequences together may take; by default what is free.
    pub kv_limit: Option<u64>,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            context: None,
            threads: None,
            mmap: true,
            level: None,
            prefill_chunk: 512,
            check_memory: true,
            kv: KvFormat::F16,
            architecture: None,
            prompt_cache: None,
            kv_limit: None,
        }
    }
}

/// The format of the KV cache with this name.
///
/// # Errors
/// [`Error::Argument`] that lists the names.
pub fn kv_format(name: &str) -> Result<KvFormat> {
    KvFormat::from_name(name).ok_or_else(|| {
        let names = KvFormat::ALL.iter().map(|format| format!("{:?}", format.name())).collect::<Vec<_>>().join(", ");
        Error::Argument(format!("kv must be one of {names}, found {name:?}"))
    })
}

/// A model. Cheap to clone, usable from any thread; concurrent calls take turns.
#[derive(Clone, Debug)]
pub struct Model {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: Arc<Gguf>,
    spec: ModelSpec,
    weights: Weights,
    /// Data in place of those of the file.
    replaced: Replacements,
    tokenizer: Arc<Tokenizer>,
    /// Built when the first grammar is made.
    grammar: OnceLock<Result<Arc<GrammarVocabulary>, String>>,
    template: Option<Arc<ChatTemplate>>,
    cache: KvCache,
    plan: MemoryPlan,
    info: ModelInfo,
    cpu: Cpu,
    /// Tokens that are computed at once.
    chunk: usize,
    /// Where the threads run; anywhere when it is empty.
    processors: BTreeSet<usize>,
    turns: Turns,
    scheduler: Scheduler,
    prompt_cache: Option<PromptCache>,
    /// Computed when it is first asked for.
    fingerprint: OnceLock<Fingerprint>,
    /// Locked by whoever has the turn.
    engine: Mutex<Engine>,
}

#[derive(Debug)]
struct Engine {
    pool: Pool,
    buffers: Buffers,
}

/// A file that is checked and planned but for which nothing was allocated.
struct Prepared {
    spec: ModelSpec,
    weights: Weights,
    groups: Vec<GroupLayout>,
    sizes: BufferSizes,
    plan: MemoryPlan,
    threads: usize,
    /// Where they run; anywhere when it is empty.
    processors: BTreeSet<usize>,
}

fn prepare(file: &Gguf, options: &LoadOptions) -> Result<Prepared> {
    if !(1..=MAX_CHUNK).contains(&options.prefill_chunk) {
        let found = options.prefill_chunk;
        return Err(Error::Argument(format!("prefill_chunk must be from 1 to {MAX_CHUNK}, found {found}")));
    }
    if let Some(context) = options.context
        && !(1..=MAX_CONTEXT).contains(&context)
    {
        return Err(Error::Argument(format!("context must be from 1 to {MAX_CONTEXT}, found {context}")));
    }
    let spec = ModelSpec::read(file, options.architecture.as_ref(), options.context)?;
    let machine = Machine::this();
    let mut free = if options.check_memory { machine.free_memory() } else { None };
    let weights = Weights::load(file, &spec, free, &Replacements::new())?;
    let groups: Vec<GroupLayout> = spec
        .groups
        .iter()
        .enumerate()
        .map(|(index, window)| {
            let layers = spec.layers.iter().filter_map(LayerSpec::attention).filter(|layer| layer.group == index);
            GroupLayout::new(
                *window,
                layers.map(|l| LayerKv {
                    kv_heads: l.kv_heads,
                    key_dim: l.key_dim,
                    value_dim: l.value_dim,
                    format: options.kv,
                }),
            )
        })
        .collect();
    let threads = options.threads.unwrap_or_else(|| machine.threads());
    check_threads(threads)?;
    if let Some(context) = options.context
        && spec.architecture.position_rows
        && context > spec.context
    {
        let most = spec.context;
        return Err(Error::Argument(format!(
            "context must be at most {most}, the positions of the model, found {context}"
        )));
    }
    // Where positions see those behind them, a text is computed whole.
    let chunk = match spec.causal {
        true => options.prefill_chunk,
        false => options.prefill_chunk.max(options.context.unwrap_or(spec.context)),
    };
    let sizes = BufferSizes::new(&spec, &weights, chunk, threads);
    if let (Some(free), Some((left, bound))) = (&mut free, machine.address_space()) {
        let left = left.saturating_sub((threads as u64).saturating_sub(1).saturating_mul(THREAD_SPACE));
        if left < free.bytes {
            (free.bytes, free.bound) = (left, bound);
        }
    }
    let needs = Needs {
        weights_bytes: file.tensors().iter().map(|tensor| tensor.bytes).sum(),
        weights_mapped: options.mmap,
        kv_format: options.kv,
        groups: &groups,
        state_bytes: state_bytes_per_sequence(spec.state_len),
        scratch_bytes: sizes.bytes() + weights.owned_bytes,
        chunk,
        trained_context: spec.context,
    };
    if let (false, false, Some(free)) = (options.mmap, file.is_mapped(), &mut free) {
        // The weights of a file that was read are in memory by now, and count as needed below.
        free.bytes = free.bytes.saturating_add(needs.weights_bytes);
        free.with_cache = free.with_cache.map(|bytes| bytes.saturating_add(needs.weights_bytes));
    }
    let plan = needs.plan(options.context, free)?;
    let processors = machine.placement(threads).unwrap_or_default();
    Ok(Prepared { groups, sizes, plan, threads, processors, spec, weights })
}

/// What a model will need and whether that is free, without allocating it. A plan that does not fit is an error.
///
/// # Errors
/// [`Error::Memory`] naming the largest context that fits; otherwise as [`Model::load`].
pub fn plan(file: &Gguf, options: &LoadOptions) -> Result<MemoryPlan> {
    Ok(prepare(file, options)?.plan)
}

impl Model {
    /// Opens a model file and checks all of it but the numbers in the tensors.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Io`], [`Error::ModelFile`], [`Error::UnsupportedModel`], [`Error::Tokenizer`] for what is
    /// wrong with the file; [`Error::Memory`] when the plan does not fit; [`Error::Argument`] for an option outside its
    /// range or a level this machine lacks; [`Error::Cancelled`].
    pub fn load(path: &Path, options: &LoadOptions, interrupt: &dyn Interrupt) -> Result<Model> {
        let start = Instant::now();
        let level = |error: fastq_kernels::LevelError| Error::Argument(error.to_string());
        let cpu = match options.level {
            Some(chosen) => Cpu::new(chosen),
            None => Cpu::detect(),
        };
        let cpu = cpu.map_err(level)?;
        let file = Gguf::open(path, &OpenOptions { mmap: options.mmap, interrupt })?;
        let Prepared { spec, weights, groups, sizes, plan, threads, processors } = prepare(&file, options)?;
        let tokenizer = Tokenizer::from_gguf(&file)?;
        let template = ChatTemplate::from_gguf(&file, &tokenizer)?;
        let pool = Pool::new(threads)?.on(processors.clone());
        let buffers = Buffers::new(&sizes)?;
        // Several sequences may use what one of full length leaves.
        let of_sequence = plan.kv_bytes + plan.state_bytes;
        let spare = plan.available_bytes.map(|free| free.saturating_sub(plan.total_bytes - of_sequence));
        let limit = options.kv_limit.unwrap_or_else(|| spare.unwrap_or(u64::MAX).max(of_sequence));
        let cache = KvCache::new(groups, spec.state_len, limit);
        let prompt_cache = match &options.prompt_cache {
            Some((folder, limit)) => Some(PromptCache::open(folder, *limit)?),
            None => None,
        };
        if interrupt.stop() {
            return Err(Error::Cancelled);
        }
        let mut info = ModelInfo::new(&file, &spec, &weights, &tokenizer, &plan, cpu.level(), threads)?;
        info.has_template = template.is_some();
        info.load_seconds = start.elapsed().as_secs_f64();
        Ok(Model {
            inner: Arc::new(Inner {
                file: Arc::new(file),
                spec,
                weights,
                replaced: Replacements::new(),
                tokenizer: Arc::new(tokenizer),
                grammar: OnceLock::new(),
                template: template.map(Arc::new),
                cache,
                plan,
                info,
                cpu,
                chunk: buffers.chunk,
                processors,
                turns: Turns::default(),
                scheduler: Scheduler::new(),
                prompt_cache,
                fingerprint: OnceLock::new(),
                engine: Mutex::new(Engine { pool, buffers }),
            }),
        })
    }

    /// Facts about the model.
    pub fn info(&self) -> &ModelInfo {
        &self.inner.info
    }

    /// The file.
    pub fn gguf(&self) -> &Gguf {
        &self.inner.file
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.inner.tokenizer
    }

    /// The vocabulary as grammars need it; built by the first call.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when it is too large for them.
    pub fn grammar_vocabulary(&self) -> Result<&Arc<GrammarVocabulary>> {
        let build = || {
            let built = GrammarVocabulary::new(Arc::clone(&self.inner.tokenizer));
            built.map(Arc::new).map_err(|error| error.to_string())
        };
        self.inner.grammar.get_or_init(build).as_ref().map_err(|error| Error::Tokenizer(error.clone()))
    }

    /// The chat template, when the file has one.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.inner.template.as_deref()
    }

    /// The hyper-parameters.
    pub fn spec(&self) -> &ModelSpec {
        &self.inner.spec
    }

    /// The memory plan.
    pub fn plan(&self) -> &MemoryPlan {
        &self.inner.plan
    }

    /// Number of threads, that of the caller included.
    pub fn threads(&self) -> usize {
        self.inner.info.threads
    }

    /// The SIMD level.
    pub fn level(&self) -> Level {
        self.inner.cpu.level()
    }

    /// Positions per sequence.
    pub fn context(&self) -> usize {
        self.inner.plan.context
    }

    /// Number of tokens, and of logits per row.
    pub fn vocabulary(&self) -> usize {
        self.inner.spec.vocabulary
    }

    /// Whether it predicts tokens; encoders do not.
    pub fn has_logits(&self) -> bool {
        self.inner.weights.output.is_some()
    }

    /// Bytes that the cache holds now, recurrent states included.
    pub fn kv_used_bytes(&self) -> u64 {
        self.inner.cache.used_bytes()
    }

    /// Bytes of working memory that were allocated, without converted vectors.
    pub fn scratch_used_bytes(&self) -> u64 {
        let engine = self.inner.engine.lock().unwrap_or_else(PoisonError::into_inner);
        engine.buffers.bytes()
    }

    /// Whether the mapped file is still the one that was opened; each forward call asks, too.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when it was changed, replaced or truncated.
    pub fn check_unchanged(&self) -> Result<()> {
        self.inner.file.check_unchanged()
    }

    /// Whether it is the same loaded model, not only the same file.
    pub fn same(&self, other: &Model) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Tokens of a prompt that are computed at once.
    pub fn chunk(&self) -> usize {
        self.inner.chunk
    }

    /// Whether sequences can go back to any earlier length: no layer has a sliding window or a recurrent state.
    pub fn remembers(&self) -> bool {
        self.inner.spec.state_len == 0 && self.inner.spec.groups.iter().all(Option::is_none)
    }

    /// Number of prompts of all callers that are under way or wait.
    pub fn requests(&self) -> usize {
        self.inner.scheduler.len()
    }

    /// The folder of beginnings of prompts, if there is one.
    pub fn prompt_cache(&self) -> Option<&PromptCache> {
        self.inner.prompt_cache.as_ref()
    }

    pub(crate) fn scheduler(&self) -> &Scheduler {
        &self.inner.scheduler
    }

    /// The memory of all sequences.
    pub(crate) fn cache(&self) -> &KvCache {
        &self.inner.cache
    }

    /// An empty sequence.
    pub fn new_sequence(&self) -> Sequence {
        self.inner.cache.sequence()
    }

    /// Appends the tokens of every item to its sequence and computes the logits that are asked for. The bits do not depend on
    /// what else is in the batch, nor on how the tokens are spread over calls.
    ///
    /// # Errors
    /// [`Error::Argument`] for a token outside the vocabulary, an item without tokens or a sequence of another model;
    /// [`Error::ContextOverflow`] when a sequence would exceed the context; [`Error::Cancelled`]; [`Error::Memory`] when the cache
    /// is full; [`Error::NotFinite`] when weights are damaged; [`Error::ModelFile`] when the file was changed. On every
    /// error the sequences are as before the call and `out` is empty.
    pub fn forward(&self, batch: &mut [BatchItem<'_>], interrupt: &dyn Interrupt) -> Result<()> {
        let result = self.inner.forward(batch, Output::Logits, interrupt);
        if result.is_err() {
            batch.iter_mut().for_each(|item| item.out.clear());
        }
        result
    }
}

impl Inner {
    fn forward(&self, batch: &mut [BatchItem<'_>], output: Output, interrupt: &dyn Interrupt) -> Result<()> {
        for item in batch.iter() {
            self.check(item)?;
        }
        if output == Output::Logits && self.weights.output.is_none() {
            return Err(no_logits(&self.spec));
        }
        let width = match output {
            Output::Logits => self.spec.vocabulary,
            Output::Hidden => self.spec.width,
        };
        self.file.check_unchanged()?;
        let _turn = self.turns.take(interrupt)?;
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        batch.iter_mut().try_for_each(|item| item.reserve(width))?;
        match self.attempt(&mut engine, batch, output, interrupt, false) {
            // A second run finds the place.
            Err(Error::NotFinite(what)) => match self.attempt(&mut engine, batch, output, interrupt, true) {
                Err(Error::NotFinite(place)) => Err(Error::NotFinite(place)),
                _ => Err(Error::NotFinite(what)),
            },
            other => other,
        }
    }

    fn check(&self, item: &BatchItem<'_>) -> Result<()> {
        let (vocabulary, context) = (self.spec.vocabulary, self.plan.context);
        if !item.sequence.belongs_to(&self.cache) {
            return Err(Error::Argument("a sequence belongs to another model".into()));
        }
        if item.tokens.is_empty() {
            return Err(Error::Argument("an item of a batch must have at least one token, found none".into()));
        }
        if let Some(bad) = item.tokens.iter().find(|token| **token as usize >= vocabulary) {
            return Err(Error::Argument(format!("tokens must be below the vocabulary {vocabulary}, found {bad}")));
        }
        let (len, more) = (item.sequence.len(), item.tokens.len());
        if !self.spec.causal && len > 0 {
            let name = &self.spec.name;
            return Err(Error::Argument(format!(
                "a text of a {name} model is computed whole: the sequence must be empty"
            )));
        }
        if len + more > context {
            return Err(Error::ContextOverflow(format!(
                "{more} tokens after {len} positions exceed the context of {context}; shorten the text or load the model with a larger context"
            )));
        }
        Ok(())
    }

    /// One try: commits, or restores the sequences.
    fn attempt(
        &self,
        engine: &mut Engine,
        batch: &mut [BatchItem<'_>],
        output: Output,
        interrupt: &dyn Interrupt,
        check: bool,
    ) -> Result<()> {
        for item in batch.iter_mut() {
            item.sequence.begin();
        }
        let result = self.chunks(engine, batch, output, interrupt, check);
        for item in batch.iter_mut() {
            match result {
                Ok(()) => item.sequence.commit(),
                Err(_) => item.sequence.rollback(),
            }
        }
        result
    }

    fn chunks(
        &self,
        engine: &mut Engine,
        batch: &mut [BatchItem<'_>],
        output: Output,
        interrupt: &dyn Interrupt,
        check: bool,
    ) -> Result<()> {
        let Engine { pool, buffers } = engine;
        let context = Context {
            file: &self.file,
            spec: &self.spec,
            weights: &self.weights,
            groups: self.cache.groups(),
            cpu: self.cpu,
            interrupt,
            output,
            check,
            observed: false,
        };
        let mut next = (0, 0);
        while next.0 < batch.len() {
            plan_chunk(batch, &mut next, buffers.chunk, !self.spec.causal, &mut buffers.segments);
            for segment in &buffers.segments {
                batch[segment.item].sequence.prepare(segment.tokens.len())?;
            }
            forward::chunk(context, pool, buffers, batch)?;
            for segment in &buffers.segments {
                batch[segment.item].sequence.advance(segment.tokens.len());
            }
        }
        Ok(())
    }
}
