//! Drops tokens less likely than p times the most likely one (Nguyen et al. 2024, <https://arxiv.org/abs/2407.01082>).

use fastq_kernels::math::ln64;

use super::candidates::Candidates;
use super::{Setup, Stage, check};
use crate::Result;

struct MinP {
    /// Natural logarithm of p: the comparison is made on logits, without a softmax.
    ln_p: f64,
}

/// Off at `min_p` = 0.
pub(super) fn stage(setup: &Setup<'_>) -> Result<Option<Box<dyn Stage>>> {
    let p = setup.options.min_p;
    check((0.0..=1.0).contains(&p), "min_p", p, "between 0 and 1")?;
    let on = setup.options.temperature > 0.0 && p > 0.0;
    Ok(on.then(|| Box::new(MinP { ln_p: ln64(f64::from(p)) }) as Box<dyn Stage>))
}

impl Stage for MinP {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _position: u64) {
        let threshold = f64::from(candidates.largest()) + self.ln_p;
        candidates.keep_from(threshold);
    }
}
