//! One step: which requests take part, one forward call for all of them, and a token for each.

use std::cell::Cell;
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use super::prefix::SHORTEST;
use super::{Scheduler, Ticket};
use crate::generate::speculate::MAX_DRAFT;
use crate::generate::{FinishReason, Kept, Request, State, common};
use crate::{BatchItem, Error, Interrupt, Logits, Model, Result, Sequence};

/// Requests under way at once; more wait. Bounds the memory for logits, of which each has a row.
const MAX_BATCH: usize = 64;
/// Requests under way up to which tokens are guessed ahead: with more, checking guesses costs as much as computing them.
const MAX_SPECULATING: usize = 8;
/// Seconds that prompts may take of a step in which others wait for their next token.
const SHARED_SECONDS: f64 = 0.1;
/// The fewest tokens of prompts in such a step.
const SHARED_TOKENS: usize = 16;

/// Logits of a prompt that are in memory at once: 64 MiB.
const SCORED_VALUES: usize = 16 << 20;

/// A request in a step, and what of it is computed.
struct Part<'a> {
    ticket: &'a Arc<Ticket>,
    request: MutexGuard<'a, Request>,
    /// Index behind the last token of the request that is computed.
    end: usize,
    /// Tokens that are guessed behind the last one.
    draft: Vec<u32>,
    /// Whether it belongs to the time of the prompt.
    prefill: bool,
}

impl Part<'_> {
    /// Whether a token follows from the step.
    fn complete(&self) -> bool {
        self.end == self.request.tokens.len()
    }

    /// Ends the request with an error.
    fn fail(&mut self, error: Error) {
        self.request.finish(FinishReason::Cancelled);
        self.ticket.fail(error);
    }
}

impl Scheduler {
    /// Computes one step for all that take part; called by the leader.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when the leader's interrupt stops it. What is wrong with a request goes to its caller.
    pub(super) fn step(&self, model: &Model, interrupt: &dyn Interrupt) -> Result<()> {
        let start = Instant::now();
        let tickets = self.tickets();
        let mut parts = self.choose(model, &tickets, interrupt)?;
        let tokens: usize = parts.iter().map(|part| part.request.missing_until(part.end).len()).sum();
        let result = self.compute(model, &tickets, &mut parts, interrupt);
        if result.is_ok() {
            self.learn_rate(tokens, start.elapsed().as_secs_f64());
        }
        for part in &mut parts {
            if part.complete()
                && let Err(error) = sample(model, part)
            {
                part.fail(error);
            }
            let (prefill, timings) = (part.prefill, &mut part.request.timings);
            let seconds = start.elapsed().as_secs_f64();
            *(if prefill { &mut timings.prefill_seconds } else { &mut timings.decode_seconds }) += seconds;
            self.remember(model, part);
        }
        let ended = parts.iter().any(|part| part.request.finished());
        drop(parts);
        if ended {
            let mut queue = self.queue();
            queue.tickets.retain(|ticket| !ticket.request().finished());
            queue.full = false;
        }
        result
    }

    /// The requests that somebody waits for.
    fn tickets(&self) -> Vec<Arc<Ticket>> {
        let queue = self.queue();
        queue.tickets.iter().filter(|ticket| !ticket.is_cancelled()).map(Arc::clone).collect()
    }

    /// Tokens of prompts in a step in which others wait for their next token.
    fn shared_chunk(&self, model: &Model) -> usize {
        let rate = self.queue().tokens_per_second;
        ((rate * SHARED_SECONDS) as usize).clamp(SHARED_TOKENS.min(model.chunk()), model.chunk())
    }

    /// Notes how quick a step with a part of a prompt was.
    fn learn_rate(&self, tokens: usize, seconds: f64) {
        if tokens >= SHARED_TOKENS && seconds > 0.0 {
            self.queue().tokens_per_second = tokens as f64 / seconds;
        }
    }

    /// Chooses what is computed: a token of each request whose prompt is computed, then prompts in the order in which they came.
    fn choose<'a>(
        &self,
        model: &Model,
        tickets: &'a [Arc<Ticket>],
        interrupt: &dyn Interrupt,
    ) -> Result<Vec<Part<'a>>> {
        let (mut parts, mut waiting) = (Vec::new(), Vec::new());
        for ticket in tickets {
            let request = ticket.request();
            match request.state {
                State::Finished(_) => {}
                State::Running if ticket.is_ahead() || parts.len() == MAX_BATCH => {}
                State::Running => {
                    let end = request.tokens.len();
                    parts.push(Part { ticket, request, end, draft: Vec::new(), prefill: false });
                }
                State::Waiting => waiting.push((ticket, request)),
            }
        }
        let goes_back = model.spec().state_len == 0;
        if parts.len() <= MAX_SPECULATING {
            for part in &mut parts {
                let request = &mut *part.request;
                let (position, room) = (request.position(), request.room().saturating_sub(1));
                if let Some(drafter) = &mut request.drafter {
                    part.draft = drafter.propose(&request.tokens, position, room, interrupt)?;
                }
                // What a grammar leaves no choice about is a guess that comes true.
                if let Some(matcher) = request.matcher.as_mut().filter(|_| part.draft.is_empty() && goes_back) {
                    part.draft = matcher.forced();
                    part.draft.truncate(room.min(MAX_DRAFT));
                }
            }
        }
        let mut room = if parts.is_empty() { model.chunk() } else { self.shared_chunk(model) };
        let full = self.queue().full;
        for (ticket, mut request) in waiting {
            let begun = request.sequence.as_ref().is_some_and(|sequence| !sequence.is_empty());
            if room == 0 || parts.len() == MAX_BATCH || (full && !begun && !parts.is_empty()) {
                continue;
            }
            if !begun && request.reuse {
                let found = self.prefixes().find(&request.tokens);
                let known = found.as_ref().map_or(0, Sequence::len);
                // Another prompt that begins alike is being computed: what they share is computed once.
                let shares = |part: &Part<'_>| {
                    let other = &part.request;
                    part.prefill && other.reuse && common(&other.tokens, &request.tokens) >= known + SHORTEST
                };
                if parts.iter().any(shares) {
                    continue;
                }
                if let Some(sequence) = found {
                    request.begin(sequence);
                }
            }
            request.sequence.get_or_insert_with(|| model.new_sequence());
            let missing = request.missing_until(request.tokens.len());
            // Logits of a whole prompt are scored a few rows at a time.
            let rows = if request.scores_prompt() { (SCORED_VALUES / model.vocabulary()).max(1) } else { usize::MAX };
            let mut end = missing.end.min(missing.start + room.min(rows));
            // Layers that forget get a stop at the end of the last message: what follows it, the beginning of the answer, is
            // what templates write otherwise the next time.
            if !model.remembers() {
                let stops = [request.history, if model.prompt_cache().is_some() { request.head } else { 0 }];
                let inside = stops.into_iter().filter(|stop| (missing.start + 1..end).contains(stop));
                end = inside.min().unwrap_or(end);
            }
            room -= end - missing.start;
            parts.push(Part { ticket, request, end, draft: Vec::new(), prefill: true });
        }
        Ok(parts)
    }

    /// Computes the parts. Those that have no room, were cancelled or are damaged leave the list; after an error it holds those that were computed.
    fn compute<'a>(
        &self,
        model: &Model,
        tickets: &'a [Arc<Ticket>],
        parts: &mut Vec<Part<'a>>,
        interrupt: &dyn Interrupt,
    ) -> Result<()> {
        loop {
            parts.retain(|part| !part.ticket.is_cancelled());
            if parts.is_empty() {
                return Ok(());
            }
            // A prompt whose caller has left may take long; a token does not.
            let prompts: Vec<&Arc<Ticket>> = parts.iter().filter(|part| part.prefill).map(|part| part.ticket).collect();
            let stopped = Cell::new(false);
            let stop = || {
                stopped.set(stopped.get() || interrupt.stop());
                stopped.get() || prompts.iter().any(|ticket| ticket.is_cancelled())
            };
            let Err(error) = forward(model, parts, &stop) else { return Ok(()) };
            match error {
                Error::Cancelled if stopped.get() => {
                    parts.clear();
                    return Err(Error::Cancelled);
                }
                Error::Cancelled => {}
                Error::Memory(_) if self.prefixes().give_way() || self.free_idle(tickets, parts) => {}
                // The request that came last gives its pages to the others and is computed again later.
                Error::Memory(_) if parts.len() > 1 => {
                    self.queue().full = true;
                    if let Some(mut part) = parts.pop() {
                        part.request.release();
                    }
                }
                error => {
                    let mut single = parts.drain(..);
                    match (single.next(), single.len()) {
                        (Some(mut part), 0) => part.fail(error),
                        (first, _) => {
                            // One of them is to blame: each alone, so that the others go on.
                            let (all, mut computed) = (first.into_iter().chain(single).collect::<Vec<_>>(), Vec::new());
                            let mut result = Ok(());
                            for part in all {
                                let mut alone = vec![part];
                                if result.is_ok() {
                                    result = self.compute(model, tickets, &mut alone, interrupt);
                                    computed.append(&mut alone);
                                }
                            }
                            *parts = computed;
                            return result;
                        }
                    }
                }
            }
        }
    }

    /// Takes the pages of a request that does not take part: its caller is slow, or its prompt has to wait. Whether there was one.
    fn free_idle(&self, tickets: &[Arc<Ticket>], parts: &[Part<'_>]) -> bool {
        let idle = tickets.iter().rev().filter(|ticket| !parts.iter().any(|part| Arc::ptr_eq(part.ticket, ticket)));
        let mut found = false;
        for ticket in idle {
            let mut request = ticket.request();
            if !found && !request.finished() && request.sequence.as_ref().is_some_and(|sequence| !sequence.is_empty()) {
                request.release();
                self.queue().full = true;
                found = true;
            }
        }
        found
    }

    /// Keeps the beginnings that other prompts may share.
    fn remember(&self, model: &Model, part: &mut Part<'_>) {
        let (end, prefill) = (part.end, part.prefill);
        let request = &mut *part.request;
        let finished = request.finished();
        let Some(sequence) = &mut request.sequence else { return };
        if prefill && !model.remembers() && end == request.history {
            sequence.snapshot();
        }
        if prefill && request.reuse && model.prompt_cache().is_some() {
            // The first message is what prompts of other conversations begin with; of a plain text, all of it.
            let worth = if request.head > 1 { request.head } else { request.history };
            let known = if model.remembers() { request.state != State::Waiting || finished } else { end == worth };
            if known && worth >= SHORTEST {
                let mut fork = sequence.fork();
                if fork.truncate(worth).is_ok_and(|len| len == worth) {
                    part.ticket.store(Kept::from_parts(fork, request.tokens[..worth].to_vec()));
                }
            }
        }
        if request.kept || !request.reuse {
            if finished && !request.kept {
                request.sequence = None;
            }
            return;
        }
        let worth = prefill && (end == request.tokens.len() || !model.remembers() && end == request.history);
        if finished {
            if let Some(sequence) = request.sequence.take() {
                self.prefixes().store(model, &request.tokens, sequence);
            }
        } else if worth || (prefill && request.state == State::Running) {
            let fork = sequence.fork();
            self.prefixes().store(model, &request.tokens, fork);
        }
    }
}

/// Computes what is missing of every part, and the logits after it.
fn forward(model: &Model, parts: &mut [Part<'_>], interrupt: &dyn Interrupt) -> Result<()> {
    let mut inputs = Vec::with_capacity(parts.len());
    for part in parts.iter() {
        let request = &part.request;
        let mut tokens = request.tokens[request.missing_until(part.end)].to_vec();
        tokens.extend_from_slice(&part.draft);
        inputs.push(tokens);
    }
    let (mut batch, mut matchers) = (Vec::with_capacity(parts.len()), Vec::new());
    for (part, tokens) in parts.iter_mut().zip(&inputs) {
        let logits = match (part.complete(), part.draft.is_empty()) {
            _ if part.request.scores_prompt() => Logits::All,
            (false, _) => Logits::None,
            (true, true) => Logits::Last,
            (true, false) => Logits::All,
        };
        let Request { sequence, logits: out, matcher, .. } = &mut *part.request;
        matchers.extend(matcher.as_mut().filter(|_| logits != Logits::None));
        let sequence = sequence.get_or_insert_with(|| model.new_sequence());
        batch.push(BatchItem { sequence, tokens, logits, out });
    }
    if matchers.is_empty() {
        model.forward(&mut batch, interrupt)?;
    } else {
        // Which tokens may come next is found while the model computes. What goes wrong here goes wrong again where the mask is used.
        std::thread::scope(|scope| {
            let masks = std::thread::Builder::new().name("fastq-masks".into());
            let spawned =
                masks.spawn_scoped(scope, || matchers.into_iter().for_each(|matcher| drop(matcher.prepare())));
            // Without a thread, masks are computed afterwards.
            drop(spawned);
            model.forward(&mut batch, interrupt)
        })?;
    }
    for (part, tokens) in parts.iter_mut().zip(&inputs) {
        if part.prefill {
            part.request.timings.prefill_tokens += tokens.len();
        }
        if part.request.scores_prompt() {
            let (end, vocabulary) = (part.end, model.vocabulary());
            let mut logits = std::mem::take(&mut part.request.logits);
            part.request.score_prompt(end - tokens.len(), &logits, vocabulary);
            // What the first token of the answer is chosen by.
            logits.drain(..logits.len() - vocabulary);
            part.request.logits = logits;
        }
    }
    Ok(())
}

/// Chooses the next token of a part, and as many more as were guessed right.
fn sample(model: &Model, part: &mut Part<'_>) -> Result<()> {
    let vocabulary = model.vocabulary();
    let request = &mut *part.request;
    if let Some(piece) = request.finish_at_once(part.ticket.index) {
        part.ticket.give(piece);
        return Ok(());
    }
    let mut logits = std::mem::take(&mut request.logits);
    let (mut accepted, mut chosen) = (0, 0);
    for row in logits.chunks_exact_mut(vocabulary) {
        let choice = request.choose(row)?;
        let token = choice.0;
        chosen += 1;
        let piece = request.advance(model, part.ticket.index, choice)?;
        part.ticket.give(piece);
        if request.state != State::Running || part.draft.get(accepted) != Some(&token) {
            break;
        }
        accepted += 1;
    }
    if !request.finished() {
        request.logits = logits;
    }
    if !part.prefill {
        request.timings.decode_tokens += chosen;
    }
    request.drafted += part.draft.len();
    request.accepted += accepted;
    if let Some(drafter) = &mut request.drafter {
        drafter.learn(part.draft.len(), accepted);
    }
    // A request that dropped its oldest tokens has cut its sequence itself.
    if request.state != State::Waiting {
        request.cut(part.end + accepted);
    }
    Ok(())
}
