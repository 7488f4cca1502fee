//! Drops tokens less likely than p times the most likely one (Nguyen et al. 2024, <https://arxiv.org/abs/2407.01082>).

use fastq_kernels::math::ln64;

use super::candidates::Candidates;
use super::{SamplerOptions, Stage, check};
use crate::Result;

struct MinP {
    /// Natural logarithm of p: the comparison is made on logits, without a softmax.
    ln_p: f64,
}

/// Off at `min_p` = 0.
pub(super) fn stage(options: &SamplerOptions, _vocab: usize) -> Result<Option<Box<dyn Stage>>> {
    let p = options.min_p;
    check((0.0..=1.0).contains(&p), "min_p", p, "between 0 and 1")?;
    let on = options.temperature > 0.0 && p > 0.0;
    Ok(on.then(|| Box::new(MinP { ln_p: ln64(f64::from(p)) }) as Box<dyn Stage>))
}

impl Stage for MinP {
    fn apply(&mut self, candidates: &mut Candidates<'_>) {
        let list = candidates.list();
        let max = list.iter().fold(f32::NEG_INFINITY, |m, c| m.max(c.logit));
        let threshold = f64::from(max) + self.ln_p;
        list.retain(|c| f64::from(c.logit) >= threshold);
    }
}
