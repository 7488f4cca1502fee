//! Models with other data in place of some tensors: what a quantization does to the answers, without a file for each try.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use super::buffers::{BufferSizes, Buffers};
use super::info::ModelInfo;
use super::turns::Turns;
use super::weights::Weights;
use super::{Engine, Inner, Model};
use crate::gguf::{Gguf, Quoted, TensorInfo, TensorType};
use crate::kv_cache::KvCache;
use crate::pool::Pool;
use crate::scheduler::Scheduler;
use crate::{Error, Result};

/// Data in place of those of a tensor of the file, of the same shape.
#[derive(Clone, Debug)]
pub struct Replacement {
    /// Type of its blocks: one with a kernel, for vectors F32, F16 or BF16.
    pub ty: TensorType,
    /// All of its data.
    pub data: Arc<[u8]>,
}

/// By the names of the tensors.
pub(super) type Replacements = HashMap<String, Replacement>;

impl Replacement {
    fn check(&self, file: &Gguf, name: &str) -> Result<()> {
        let quoted = Quoted(name);
        let Some(tensor) = file.tensor(name) else {
            let path = file.path().display();
            return Err(Error::Argument(format!("{path} has no tensor {quoted} to replace")));
        };
        if self.ty.kernel().is_none() {
            let ty = self.ty.name();
            return Err(Error::Argument(format!("tensor {quoted}: this version cannot compute with type {ty}")));
        }
        let bytes = self.ty.row_bytes(tensor.k()).and_then(|row| row.checked_mul(tensor.rows()));
        if bytes != Some(self.data.len() as u64) {
            let TensorInfo { shape, .. } = tensor;
            let (ty, found) = (self.ty.name(), self.data.len());
            let expected = bytes.map_or("which has no whole blocks".into(), |bytes| format!("expected {bytes} bytes"));
            return Err(Error::Argument(format!("tensor {quoted}: {shape:?} of {ty}, {expected}, found {found}")));
        }
        Ok(())
    }
}

impl Model {
    /// The same model with other data for the named tensors; the rest it shares with this one, but for the KV cache and working memory. It
    /// answers as if the data were in the file. That takes milliseconds, so a model for every tensor that is tried is fine.
    ///
    /// # Errors
    /// [`Error::Argument`] for a tensor that the file does not have, a type that cannot be computed with there, or data that do not
    /// have the bytes of the tensor's shape; [`Error::Memory`].
    pub fn with_replaced(&self, replaced: &HashMap<String, Replacement>) -> Result<Model> {
        let base = &*self.inner;
        for (name, replacement) in replaced {
            replacement.check(&base.file, name)?;
        }
        // On top of what this model itself has replaced.
        let mut all = base.replaced.clone();
        all.extend(replaced.iter().map(|(name, replacement)| (name.clone(), replacement.clone())));
        let weights = Weights::load(&base.file, &base.spec, None, &all)?;
        let threads = base.info.threads;
        let sizes = BufferSizes::new(&base.spec, &weights, base.chunk, threads);
        let (mut plan, scratch) = (base.plan.clone(), sizes.bytes() + weights.owned_bytes);
        plan.total_bytes = plan.total_bytes - plan.scratch_bytes + scratch;
        plan.scratch_bytes = scratch;
        let cache = KvCache::new(base.cache.groups().to_vec(), base.spec.state_len, base.cache.limit_bytes());
        let mut info =
            ModelInfo::new(&base.file, &base.spec, &weights, &base.tokenizer, &plan, base.cpu.level(), threads)?;
        info.has_template = base.template.is_some();
        let pool = Pool::new(threads)?.on(base.processors.clone());
        let engine = Mutex::new(Engine { pool, buffers: Buffers::new(&sizes)? });
        Ok(Model {
            inner: Arc::new(Inner {
                file: Arc::clone(&base.file),
                spec: base.spec.clone(),
                weights,
                replaced: all,
                tokenizer: Arc::clone(&base.tokenizer),
                grammar: base.grammar.clone(),
                template: base.template.clone(),
                cache,
                plan,
                info,
                cpu: base.cpu,
                chunk: base.chunk,
                processors: base.processors.clone(),
                turns: Turns::default(),
                scheduler: Scheduler::new(),
                // What it computes is not what the file would.
                prompt_cache: None,
                fingerprint: OnceLock::new(),
                engine,
            }),
        })
    }
}
