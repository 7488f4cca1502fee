//! Locally typical sampling: keeps the tokens whose information is nearest to the entropy of the row, up to the probability
//! p (Meister et al. 2022, <https://arxiv.org/abs/2202.00666>).

use fastq_kernels::math::ln64;

use super::candidates::{Candidate, Candidates, keep_mass};
use super::{Setup, Stage, check};
use crate::Result;

struct Typical {
    p: f64,
}

/// Off at `typical_p` = 1.
pub(super) fn stage(setup: &Setup<'_>) -> Result<Option<Box<dyn Stage>>> {
    let p = setup.options.typical_p;
    check(p > 0.0 && p <= 1.0, "typical_p", p, "above 0 and at most 1")?;
    let on = setup.options.temperature > 0.0 && p < 1.0;
    Ok(on.then(|| Box::new(Typical { p: f64::from(p) }) as Box<dyn Stage>))
}

/// `-ln p` in nats; infinite for a probability that underflowed to zero.
fn information(candidate: &Candidate) -> f64 {
    if candidate.probability > 0.0 { -ln64(candidate.probability) } else { f64::INFINITY }
}

impl Stage for Typical {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _position: u64) {
        let list = candidates.softmax();
        let surprising = list.iter().filter(|c| c.probability > 0.0);
        let entropy: f64 = surprising.map(|c| c.probability * information(c)).sum();
        keep_mass(list, self.p, |c| (information(c) - entropy).abs());
    }
}
