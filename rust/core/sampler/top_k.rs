//! Keeps the k most likely tokens (Fan et al. 2018, <https://arxiv.org/abs/1805.04833>).

use super::candidates::Candidates;
use super::{Setup, Stage};
use crate::Result;

struct TopK {
    k: usize,
}

/// Off at `top_k` = 0 and when it is not below the vocabulary.
pub(super) fn stage(setup: &Setup<'_>) -> Result<Option<Box<dyn Stage>>> {
    let k = setup.options.top_k;
    let on = setup.options.temperature > 0.0 && k > 0 && k < setup.vocab;
    Ok(on.then(|| Box::new(TopK { k }) as Box<dyn Stage>))
}

impl Stage for TopK {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _position: u64) {
        candidates.keep_best(self.k);
    }
}
