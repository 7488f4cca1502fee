//! Concurrent callers of a model take turns; one that waits can be interrupted.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::pool::forks;
use crate::{Error, Interrupt, Result};

/// How often a waiting caller asks its interrupt.
const POLL: Duration = Duration::from_millis(5);

/// Whose turn it is: nobody's, or that of a thread of the process with this fork count.
#[derive(Default, Debug)]
pub(super) struct Turns {
    holder: Mutex<Option<u32>>,
    free: Condvar,
}

/// A turn; ends when dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    fn lock(&self) -> MutexGuard<'_, Option<u32>> {
        // The value is replaced whole.
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn.
    pub(super) fn take(&self, interrupt: &dyn Interrupt) -> Result<Turn<'_>> {
        let mut holder = self.lock();
        loop {
            match *holder {
                None => {
                    *holder = Some(forks());
                    return Ok(Turn(self));
                }
                // The thread that computes did not come along into this child, so its turn never ends.
                Some(process) if process != forks() => {
                    return Err(Error::Internal(
                        "the process was forked while another thread used the model; load the model again in the child"
                            .into(),
                    ));
                }
                Some(_) => {
                    holder = self.free.wait_timeout(holder, POLL).unwrap_or_else(PoisonError::into_inner).0;
                    if interrupt.stop() {
                        return Err(Error::Cancelled);
                    }
                }
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
        self.0.free.notify_one();
    }
}
