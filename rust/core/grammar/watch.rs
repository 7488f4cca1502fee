//! Ends work on masks that takes too long.
//!
//! Fuel bounds most of what llguidance does, but not the length of text that a grammar forces, which it computes to the end. One
//! thread looks a few times a second at what is under way, as long as something is.

use std::sync::{Condvar, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use llguidance::CancellationHandle;

/// How often the thread looks.
const LOOK: Duration = Duration::from_millis(200);

/// What is under way: when it must end, by a number.
static UNDER_WAY: Mutex<Vec<(u64, Instant, CancellationHandle)>> = Mutex::new(Vec::new());
static MORE: Condvar = Condvar::new();
static THREAD: Once = Once::new();

/// Something under way; dropped when it ended.
pub(super) struct Watched(u64);

/// Cancels `handle` after `most`, unless the result is dropped before.
pub(super) fn watch(handle: &CancellationHandle, most: Duration) -> Watched {
    // Without the thread nothing is cancelled, which fuel must bound then.
    THREAD.call_once(|| drop(std::thread::Builder::new().name("fastq-watch".into()).spawn(run)));
    let mut under_way = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    let number = under_way.last().map_or(0, |(number, ..)| number + 1);
    under_way.push((number, Instant::now() + most, handle.clone()));
    if under_way.len() == 1 {
        MORE.notify_one();
    }
    Watched(number)
}

impl Drop for Watched {
    fn drop(&mut self) {
        UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner).retain(|(number, ..)| *number != self.0);
    }
}

fn run() {
    let mut under_way = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if under_way.is_empty() {
            under_way = MORE.wait(under_way).unwrap_or_else(PoisonError::into_inner);
        }
        drop(under_way);
        std::thread::sleep(LOOK);
        under_way = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        under_way.iter().filter(|(_, end, _)| *end < now).for_each(|(.., handle)| handle.cancel());
    }
}
