//! Many callers, one model: continuous batching.
//!
//! Requests of all callers stand in one queue. There is no thread that serves them: of the callers that wait for text, one leads. It computes a
//! step (one token for all requests whose prompt is computed, and a chunk of the prompts that are not), hands every request what came of it,
//! and gives the lead away when it has something for itself. So a single caller computes on its own thread as if there were no scheduler, and where nobody waits,
//! nothing is computed.
//!
//! What others do is not visible in an answer: logits do not depend on the batch, and a draw depends on (seed, position) only (DESIGN, "The numeric contract").

mod prefix;
mod step;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::generate::{Kept, Piece, Request};
use crate::pool::forks;
use crate::{Error, Interrupt, Model, Result};
use prefix::Prefixes;

/// How often a caller that waits asks its interrupt.
const POLL: Duration = Duration::from_millis(10);

/// Pieces that are computed ahead of a caller who does not take them: enough that callers who are slow for a moment stay in the batch.
const AHEAD: usize = 32;

/// A request that its caller and the scheduler share.
pub(crate) struct Ticket {
    /// Which prompt of its generation it is.
    pub(crate) index: usize,
    /// Locked by the leader for a step.
    request: Mutex<Request>,
    outbox: Mutex<Outbox>,
    cancelled: AtomicBool,
}

/// What a caller has not taken yet.
#[derive(Default)]
struct Outbox {
    pieces: VecDeque<Piece>,
    error: Option<Error>,
    /// Beginnings of the prompt that are worth a file.
    stored: Vec<Kept>,
}

impl Ticket {
    pub(crate) fn new(index: usize, request: Request) -> Arc<Ticket> {
        Arc::new(Ticket {
            index,
            request: Mutex::new(request),
            outbox: Mutex::default(),
            cancelled: AtomicBool::new(false),
        })
    }

    /// The request; while a step computes it, this waits for its end.
    pub(crate) fn request(&self) -> MutexGuard<'_, Request> {
        // A leader that panicked left whole values behind: a sequence is rolled back or committed.
        self.request.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has come since the last time.
    ///
    /// # Errors
    /// What ended the request.
    pub(crate) fn take(&self) -> Result<VecDeque<Piece>> {
        let mut outbox = self.outbox();
        match outbox.error.take() {
            Some(error) if outbox.pieces.is_empty() => Err(error),
            error => {
                outbox.error = error;
                Ok(std::mem::take(&mut outbox.pieces))
            }
        }
    }

    /// Puts a piece where its caller takes it.
    pub(crate) fn give(&self, piece: Piece) {
        self.outbox().pieces.push_back(piece);
    }

    /// Beginnings of the prompt for the prompt cache.
    pub(crate) fn take_stored(&self) -> Vec<Kept> {
        std::mem::take(&mut self.outbox().stored)
    }

    fn store(&self, kept: Kept) {
        self.outbox().stored.push(kept);
    }

    fn fail(&self, error: Error) {
        self.outbox().error = Some(error);
    }

    fn has_news(&self) -> bool {
        let outbox = self.outbox();
        !outbox.pieces.is_empty() || outbox.error.is_some()
    }

    /// Whether its caller has so much to take that it need not be computed now.
    fn is_ahead(&self) -> bool {
        self.outbox().pieces.len() >= AHEAD
    }

    /// Nobody wants the answer any more. Does not wait: a step that computes its prompt ends early.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// The queue of a model.
pub(crate) struct Scheduler {
    queue: Mutex<Queue>,
    /// A step is over.
    changed: Condvar,
    prefixes: Mutex<Prefixes>,
}

#[derive(Default)]
struct Queue {
    /// In the order in which they came.
    tickets: Vec<Arc<Ticket>>,
    /// The process in which a thread leads, by its number of forks.
    leader: Option<u32>,
    /// How quick the last step with a part of a prompt was.
    tokens_per_second: f64,
    /// Set when the KV cache had no room for another prompt, until a request ends.
    full: bool,
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").finish_non_exhaustive()
    }
}

/// The right to compute a step; ends when dropped.
struct Lead<'a>(&'a Scheduler);

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.0.queue().leader = None;
        self.0.changed.notify_all();
    }
}

impl Scheduler {
    pub(crate) fn new() -> Scheduler {
        Scheduler { queue: Mutex::default(), changed: Condvar::new(), prefixes: Mutex::default() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Every change of it is a single assignment or a whole operation on the list.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn prefixes(&self) -> MutexGuard<'_, Prefixes> {
        self.prefixes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes requests in.
    pub(crate) fn submit(&self, tickets: impl IntoIterator<Item = Arc<Ticket>>) {
        self.queue().tickets.extend(tickets);
    }

    /// Forgets requests whose caller has left.
    pub(crate) fn leave(&self, tickets: &[Arc<Ticket>]) {
        tickets.iter().for_each(|ticket| ticket.cancel());
        let mut queue = self.queue();
        let before = queue.tickets.len();
        queue.tickets.retain(|ticket| !tickets.iter().any(|own| Arc::ptr_eq(own, ticket)));
        queue.full &= queue.tickets.len() == before;
    }

    /// Number of requests that are computed or wait.
    pub(crate) fn len(&self) -> usize {
        self.queue().tickets.len()
    }

    /// How much of the beginning of a prompt is in memory.
    pub(crate) fn known(&self, tokens: &[u32]) -> usize {
        self.prefixes().find(tokens).map_or(0, |sequence| sequence.len())
    }

    /// Waits until one of `own` has something to take, and computes if nobody else does.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when `interrupt` stops it: the requests stay as they are. [`Error::Internal`] in a process that was forked from one in which
    /// another thread was computing.
    pub(crate) fn wait(&self, model: &Model, own: &[Arc<Ticket>], interrupt: &dyn Interrupt) -> Result<()> {
        loop {
            // Without the lock: an interrupt may wait for a lock of its own, whose holder wants this one.
            if interrupt.stop() {
                return Err(Error::Cancelled);
            }
            let mut queue = self.queue();
            if own.iter().any(|ticket| ticket.has_news()) {
                return Ok(());
            }
            match queue.leader {
                Some(process) if process != forks() => {
                    return Err(Error::Internal(
                        "the process was forked while another thread used the model; load the model again in the child"
                            .into(),
                    ));
                }
                Some(_) => {
                    let waited = self.changed.wait_timeout(queue, POLL);
                    drop(waited.unwrap_or_else(PoisonError::into_inner));
                }
                None => {
                    queue.leader = Some(forks());
                    drop(queue);
                    let _lead = Lead(self);
                    self.step(model, interrupt)?;
                }
            }
        }
    }
}
