//! Repeat, presence and frequency penalties over the last tokens, as llama.cpp defines them: of a token seen `count` > 0
//! times among the last `repeat_last_n`, the logit is first divided (if positive) or multiplied (if not) by the repeat
//! penalty (Keskar et al. 2019, <https://arxiv.org/abs/1909.05858>), then `count` · frequency + presence is subtracted.

use std::collections::{HashMap, VecDeque};

use super::candidates::Candidates;
use super::{Setup, Stage, check};
use crate::Result;

struct Penalties {
    repeat: f64,
    presence: f64,
    frequency: f64,
    last_n: usize,
    /// The last `last_n` tokens, oldest first, and how often each is among them.
    last: VecDeque<u32>,
    counts: HashMap<u32, u32>,
}

/// Off when all three penalties are neutral or no tokens are looked at.
pub(super) fn stage(setup: &Setup<'_>) -> Result<Option<Box<dyn Stage>>> {
    let options = setup.options;
    let (repeat, presence, frequency) = (options.repeat_penalty, options.presence_penalty, options.frequency_penalty);
    check(repeat > 0.0 && repeat.is_finite(), "repeat_penalty", repeat, "a finite number above 0")?;
    check(presence.is_finite(), "presence_penalty", presence, "a finite number")?;
    check(frequency.is_finite(), "frequency_penalty", frequency, "a finite number")?;
    let on = options.repeat_last_n > 0 && (repeat != 1.0 || presence != 0.0 || frequency != 0.0);
    Ok(on.then(|| {
        Box::new(Penalties {
            repeat: f64::from(repeat),
            presence: f64::from(presence),
            frequency: f64::from(frequency),
            last_n: options.repeat_last_n,
            last: VecDeque::new(),
            counts: HashMap::new(),
        }) as Box<dyn Stage>
    }))
}

impl Stage for Penalties {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _position: u64) {
        if self.counts.is_empty() {
            return;
        }
        let logits = candidates.logits();
        for (&token, &count) in &self.counts {
            // A prompt may hold a token of a padded vocabulary that has no logit.
            let Some(logit) = logits.get_mut(token as usize).filter(|l| **l > f32::NEG_INFINITY) else { continue };
            let scaled = f64::from(*logit);
            let scaled = if scaled > 0.0 { scaled / self.repeat } else { scaled * self.repeat };
            let penalized = scaled - (f64::from(count) * self.frequency + self.presence);
            *logit = penalized.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32;
        }
    }

    fn accept(&mut self, token: u32, _probability: Option<f64>) {
        if self.last.len() == self.last_n
            && let Some(oldest) = self.last.pop_front()
            && let Some(count) = self.counts.get_mut(&oldest)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&oldest);
            }
        }
        self.last.push_back(token);
        *self.counts.entry(token).or_insert(0) += 1;
    }
}
