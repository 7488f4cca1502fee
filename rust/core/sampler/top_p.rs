//! Nucleus sampling: keeps the fewest most likely tokens whose probabilities reach p (Holtzman et al. 2020,
//! <https://arxiv.org/abs/1904.09751>).

use super::candidates::{Candidates, keep_mass};
use super::{Setup, Stage, check};
use crate::Result;

struct TopP {
    p: f64,
}

/// Off at `top_p` = 1.
pub(super) fn stage(setup: &Setup<'_>) -> Result<Option<Box<dyn Stage>>> {
    let p = setup.options.top_p;
    check(p > 0.0 && p <= 1.0, "top_p", p, "above 0 and at most 1")?;
    let on = setup.options.temperature > 0.0 && p < 1.0;
    Ok(on.then(|| Box::new(TopP { p: f64::from(p) }) as Box<dyn Stage>))
}

impl Stage for TopP {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _position: u64) {
        keep_mass(candidates.softmax(), self.p, |c| 0.0 - f64::from(c.logit));
    }
}
