//! The thread pool: work is handed out in small pieces, so that a descheduled worker delays only its own piece.
//!
//! A run publishes a closure and a number of pieces; the calling thread and the workers draw pieces from one atomic counter. The
//! caller never waits for a worker that is still asleep, only for pieces that were begun; a worker that makes it wait for long
//! sits out for a while (`attendance.rs`). Between runs workers spin for some tens of microseconds and then park. With one
//! thread nothing is spawned or synchronised. How the threads talk to each other is written in `crew.rs`.

mod attendance;
mod clock;
mod crew;
mod disjoint;
mod forks;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{Error, Interrupt, Result};
use clock::Clock;
use crew::{Crew, MOST_PIECES};

pub use disjoint::Disjoint;
pub(crate) use forks::forks;

/// The most threads of a pool, the caller included.
const MAX_THREADS: usize = 1024;

/// Checks a number of threads before anything is sized by it.
///
/// # Errors
/// [`Error::Argument`] unless it is 1 to 1024.
pub fn check_threads(threads: usize) -> Result<()> {
    if (1..=MAX_THREADS).contains(&threads) {
        return Ok(());
    }
    Err(Error::Argument(format!("threads must be between 1 and {MAX_THREADS}, found {threads}")))
}

/// Persistent workers of one model. The calling thread is worker 0.
#[derive(Debug)]
pub struct Pool {
    threads: usize,
    /// Where the workers run; anywhere when it is empty.
    processors: BTreeSet<usize>,
    crew: Option<Crew>,
    clock: Clock,
}

impl Pool {
    /// A pool of `threads` threads, the caller included; the others start with the first parallel run.
    ///
    /// # Errors
    /// As [`check_threads`].
    pub fn new(threads: usize) -> Result<Pool> {
        check_threads(threads)?;
        Ok(Pool { threads, processors: BTreeSet::new(), crew: None, clock: Clock::new() })
    }

    /// Restricts the workers to `processors`, as far as they may use them: an affinity that is given is never widened. The calling
    /// thread belongs to somebody else and stays where it is; a system with slow and fast cores moves it to a fast one when it
    /// is busy. Where there are no affinities, nothing happens.
    #[must_use]
    pub fn on(mut self, processors: BTreeSet<usize>) -> Pool {
        self.processors = processors;
        self
    }

    /// Number of threads, the caller included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `work(piece, worker)` once for every piece in `0..pieces`, in any order and on any thread; `worker` is below
    /// [`Pool::threads`] and belongs to one thread at a time. Returns when all pieces are done.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when `interrupt` said stop (asked every 5 ms on the calling thread; the remaining pieces are
    /// skipped), [`Error::Internal`] when a piece panicked, [`Error::Memory`] when a worker cannot be started. The pool
    /// stays usable after each of them.
    pub fn run<F>(&mut self, pieces: usize, interrupt: &dyn Interrupt, work: F) -> Result<()>
    where
        F: Fn(usize, usize) + Sync,
    {
        self.clock.start();
        let mut alone = false;
        if self.threads > 1 && (2..MOST_PIECES).contains(&pieces) {
            // After fork() the child has a copy of the pool but none of its threads.
            if self.crew.as_ref().is_none_or(Crew::is_copy) {
                self.crew = None;
                self.crew = Some(Crew::start(self.threads, &self.processors)?);
            }
            if let Some(crew) = &mut self.crew {
                if crew.attended(&mut self.clock) {
                    return crew.run(pieces, &mut self.clock, interrupt, &work);
                }
                alone = true;
            }
        }
        let clock = &mut self.clock;
        let result = own_share(|| {
            for piece in 0..pieces {
                clock.tick(interrupt)?;
                work(piece, 0);
            }
            Ok(())
        });
        if let (true, Some(crew)) = (alone, &mut self.crew) {
            crew.alone(clock);
        }
        result
    }
}

/// Runs the caller's part; a panic becomes an error.
fn own_share(work: impl FnOnce() -> Result<()>) -> Result<()> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Error::Internal(panic_message(&*panic))))
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a computation panicked: {}", text.unwrap_or("no message"))
}
