//! Speculation: tokens are guessed ahead and checked by one forward call of several positions, which costs little more than one.
//!
//! The guess decides nothing: every token is drawn from the model's own logits, with the random number of its position, and a guess only
//! saves a call when it is what was drawn. As logits do not depend on how tokens are spread over calls, the answer is that of plain decoding, bit by bit.
//!
//! Guesses come from the text itself (prompt lookup: Saxena 2023, <https://github.com/apoorvumang/prompt-lookup-decoding>) or from a small model with the
//! same vocabulary (Leviathan et al. 2023, <https://arxiv.org/abs/2211.17192>, where acceptance is by chance; here both models draw with the same number).

use std::collections::HashMap;

use crate::sampler::{Sampler, SamplerOptions};
use crate::{BatchItem, Error, Interrupt, Logits, Model, Result, Sequence};

/// The most tokens that are guessed at once: with the last one they are what the kernels for few tokens take in one go, twice.
pub const MAX_DRAFT: usize = 15;
/// The longest and the shortest end of the text that is looked up in it.
const LONGEST: usize = 4;
const SHORTEST: usize = 2;
/// Tokens that are guessed at first.
const FIRST: usize = 4;
/// Steps without a guess after one that was all wrong, at most.
const LONGEST_PAUSE: usize = 16;

/// Where guesses come from.
#[derive(Clone, Debug)]
pub enum Speculation {
    /// What followed the last tokens when they came up before in prompt or answer. Costs nothing, and gains where texts repeat: summaries, edits, code.
    Ngram,
    /// A smaller model with the same vocabulary.
    Draft(Model),
}

impl PartialEq for Speculation {
    fn eq(&self, other: &Speculation) -> bool {
        match (self, other) {
            (Speculation::Ngram, Speculation::Ngram) => true,
            (Speculation::Draft(a), Speculation::Draft(b)) => a.same(b),
            _ => false,
        }
    }
}

/// Guesses the next tokens of one text.
pub(crate) struct Drafter {
    source: Source,
    /// How many to guess: as many as came true lately.
    len: usize,
    /// Steps to go without a guess, and how many after the next one that is all wrong.
    rest: usize,
    pause: usize,
}

enum Source {
    Ngram(Lookup),
    Draft(Box<Draft>),
}

impl Drafter {
    /// # Errors
    /// [`Error::Argument`] when the model cannot go back to an earlier position, or the draft model has another vocabulary.
    pub(super) fn new(speculation: &Speculation, model: &Model, options: &SamplerOptions) -> Result<Drafter> {
        if model.spec().state_len > 0 {
            return Err(Error::Argument(format!(
                "speculation needs a model that can go back, but layers of {} have a recurrent state; leave speculate and draft out",
                model.info().architecture
            )));
        }
        let source = match speculation {
            Speculation::Ngram => Source::Ngram(Lookup::default()),
            Speculation::Draft(draft) => Source::Draft(Box::new(Draft::new(draft, model, options)?)),
        };
        Ok(Drafter { source, len: FIRST, rest: 0, pause: 1 })
    }

    /// At most `room` tokens that may follow `tokens`, the next of which has this `position`.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; what else is wrong with a draft model costs speed only.
    pub(crate) fn propose(
        &mut self,
        tokens: &[u32],
        position: usize,
        room: usize,
        interrupt: &dyn Interrupt,
    ) -> Result<Vec<u32>> {
        if self.rest > 0 {
            self.rest -= 1;
            return Ok(Vec::new());
        }
        let count = self.len.min(room);
        match &mut self.source {
            Source::Ngram(lookup) => Ok(lookup.propose(tokens, count)),
            Source::Draft(draft) => draft.propose(tokens, position, count, interrupt),
        }
    }

    /// Learns how many of the proposed tokens came true.
    pub(crate) fn learn(&mut self, proposed: usize, accepted: usize) {
        if proposed == 0 {
            return;
        }
        if accepted == 0 {
            self.len = (self.len / 2).max(1);
            self.rest = self.pause;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        } else {
            self.pause = 1;
            self.len = if accepted == proposed { (self.len * 2).min(MAX_DRAFT) } else { (accepted + 1).min(MAX_DRAFT) };
        }
    }

    /// Starts anew: the text is another one.
    pub(super) fn forget(&mut self) {
        match &mut self.source {
            Source::Ngram(lookup) => *lookup = Lookup::default(),
            Source::Draft(draft) => draft.tokens.clear(),
        }
    }
}

/// Where every short run of tokens ended last.
#[derive(Default)]
struct Lookup {
    /// Of the runs of each length, the index behind the last one; without the run at the very end.
    ends: [HashMap<[u32; LONGEST], usize, foldhash::fast::RandomState>; LONGEST - SHORTEST + 1],
    /// Tokens that were entered.
    seen: usize,
}

impl Lookup {
    fn propose(&mut self, tokens: &[u32], count: usize) -> Vec<u32> {
        // A run is entered when a token follows it.
        for end in self.seen.max(SHORTEST)..tokens.len() {
            for (ends, len) in self.ends.iter_mut().zip(SHORTEST..=LONGEST.min(end)) {
                ends.insert(run(&tokens[end - len..end]), end);
            }
        }
        self.seen = tokens.len();
        let found = (SHORTEST..=LONGEST.min(tokens.len()))
            .rev()
            .find_map(|len| self.ends[len - SHORTEST].get(&run(&tokens[tokens.len() - len..])).copied());
        found.map(|at| tokens[at..tokens.len().min(at + count)].to_vec()).unwrap_or_default()
    }
}

fn run(tokens: &[u32]) -> [u32; LONGEST] {
    let mut run = [u32::MAX; LONGEST];
    run[..tokens.len()].copy_from_slice(tokens);
    run
}

/// A smaller model and what it has computed of the text.
struct Draft {
    model: Model,
    sequence: Sequence,
    tokens: Vec<u32>,
    sampler: Sampler,
    logits: Vec<f32>,
}

impl Draft {
    fn new(draft: &Model, model: &Model, options: &SamplerOptions) -> Result<Draft> {
        let (a, b) = (model.vocabulary(), draft.vocabulary());
        if a != b || !model.tokenizer().same_vocabulary(draft.tokenizer()) {
            return Err(Error::Argument(format!(
                "draft must have the vocabulary of the model: the model has {a} tokens, the draft {b}{}",
                if a == b { ", some of which are others" } else { "" }
            )));
        }
        if draft.spec().state_len > 0 {
            return Err(Error::Argument(format!(
                "draft must be a model that can go back, but layers of {} have a recurrent state",
                draft.info().architecture
            )));
        }
        // Without what remembers tokens: guesses that do not come true would have to be forgotten.
        let options = SamplerOptions {
            temperature: options.temperature,
            top_k: options.top_k,
            top_p: options.top_p,
            min_p: options.min_p,
            typical_p: options.typical_p,
            logit_bias: options.logit_bias.clone(),
            seed: options.seed,
            ..SamplerOptions::default()
        };
        Ok(Draft {
            model: draft.clone(),
            sequence: draft.new_sequence(),
            tokens: Vec::new(),
            sampler: Sampler::new(&options, b)?,
            logits: Vec::new(),
        })
    }

    fn propose(
        &mut self,
        tokens: &[u32],
        position: usize,
        count: usize,
        interrupt: &dyn Interrupt,
    ) -> Result<Vec<u32>> {
        if count == 0 || tokens.len() + count > self.model.context() {
            return Ok(Vec::new());
        }
        let same = self.tokens.iter().zip(&tokens[..tokens.len() - 1]).take_while(|(a, b)| a == b).count();
        let same = same.min(self.sequence.len());
        if self.sequence.truncate(same).is_err() {
            self.sequence = self.model.new_sequence();
        }
        self.tokens.truncate(self.sequence.len());
        self.tokens.extend_from_slice(&tokens[self.sequence.len()..]);
        let mut guesses = Vec::with_capacity(count);
        while guesses.len() < count {
            let tokens = &self.tokens[self.sequence.len()..];
            let item = BatchItem { sequence: &mut self.sequence, tokens, logits: Logits::Last, out: &mut self.logits };
            match self.model.forward(&mut [item], interrupt) {
                Ok(()) => {}
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                Err(_) => break,
            }
            let Ok(token) = self.sampler.sample(&mut self.logits, position + guesses.len()) else { break };
            guesses.push(token);
            self.tokens.push(token);
            if self.model.tokenizer().is_end_of_generation(token) {
                break;
            }
        }
        Ok(guesses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_followed_the_longest_run_is_proposed() {
        let mut lookup = Lookup::default();
        assert!(lookup.propose(&[1], 4).is_empty());
        assert!(lookup.propose(&[1, 2, 3], 4).is_empty());
        let mut text = vec![1, 2, 3, 4, 5, 9, 2, 3, 7, 8, 1, 2, 3];
        assert_eq!(lookup.propose(&text, 4), [4, 5, 9, 2], "three tokens count more than two that are nearer");
        text.extend([4, 5]);
        assert_eq!(lookup.propose(&text, 2), [9, 2]);
        text.extend([100, 2, 3]);
        assert_eq!(lookup.propose(&text, 9), [4, 5, 100, 2, 3], "the last time counts; no more than there is");
    }

    #[test]
    fn length_follows_success() {
        let mut drafter = Drafter { source: Source::Ngram(Lookup::default()), len: FIRST, rest: 0, pause: 1 };
        drafter.learn(4, 4);
        drafter.learn(8, 8);
        assert_eq!(drafter.len, MAX_DRAFT);
        drafter.learn(15, 2);
        assert_eq!((drafter.len, drafter.rest), (3, 0));
        drafter.learn(3, 0);
        drafter.learn(1, 0);
        assert_eq!((drafter.len, drafter.rest), (1, 2));
        for _ in 0..9 {
            drafter.learn(1, 0);
        }
        assert_eq!(drafter.rest, LONGEST_PAUSE);
    }
}
