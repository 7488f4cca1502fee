//! The time on the calling thread: when to ask the interrupt, how long pieces take, and how long the thread was descheduled.

use std::thread::ThreadId;
use std::time::{Duration, Instant};

use crate::{Error, Interrupt, Result};

/// How often the interrupt is asked.
const POLL: Duration = Duration::from_millis(5);
/// Length of a period after which gains and losses are compared.
const PERIOD: Duration = Duration::from_millis(4);
/// A pause between two runs from which on the thread may have slept of its own will; nothing is said about such a period.
const PAUSE: Duration = Duration::from_millis(1);

/// When a period began.
#[derive(Clone, Copy, Debug)]
struct Period {
    begin: Instant,
    /// On the thread's own clock, which stands still while it is descheduled; `None` where there is none.
    own: Option<Duration>,
    thread: ThreadId,
}

/// Read once per piece.
#[derive(Debug)]
pub(super) struct Clock {
    /// The last reading.
    pub(super) last: Instant,
    /// The longest piece of the run.
    pub(super) longest: Duration,
    polled: Instant,
    period: Option<Period>,
    /// Time of the period during which the thread slept because it had to wait.
    slept: Duration,
}

impl Clock {
    pub(super) fn new() -> Clock {
        let now = Instant::now();
        let zero = Duration::ZERO;
        Clock { last: now, longest: zero, polled: now, period: None, slept: zero }
    }

    /// A run begins.
    pub(super) fn start(&mut self) {
        let now = Instant::now();
        if now.saturating_duration_since(self.last) > PAUSE {
            self.period = None;
        }
        (self.last, self.longest) = (now, Duration::ZERO);
    }

    /// A piece begins. Asks the interrupt when it is time.
    pub(super) fn tick(&mut self, interrupt: &dyn Interrupt) -> Result<()> {
        let now = Instant::now();
        self.longest = self.longest.max(now.saturating_duration_since(self.last));
        self.last = now;
        if now.saturating_duration_since(self.polled) >= POLL {
            self.polled = now;
            if interrupt.stop() {
                return Err(Error::Cancelled);
            }
        }
        Ok(())
    }

    /// The thread slept for `time`, waiting for others.
    pub(super) fn parked(&mut self, time: Duration) {
        self.slept += time;
        self.last += time;
    }

    /// At the end of a run: when a period is over, or ends `now`, how long it was, and how long the thread was descheduled
    /// in it.
    pub(super) fn period(&mut self, now: bool) -> Option<(Duration, Duration)> {
        let Some(Period { begin, own, thread }) = self.period else {
            self.next_period();
            return None;
        };
        if !now && self.last.saturating_duration_since(begin) < PERIOD {
            return None;
        }
        let slept = self.slept;
        self.next_period();
        // Calls may come from one thread after the other.
        let Period { begin: end, own: own_end, .. } = self.period.filter(|next| next.thread == thread)?;
        let wall = end.saturating_duration_since(begin);
        let (Some(own), Some(own_end)) = (own, own_end) else { return Some((wall, Duration::ZERO)) };
        Some((wall, wall.saturating_sub(own_end.saturating_sub(own)).saturating_sub(slept)))
    }

    /// Begins a period with the next run: another number of threads takes part.
    pub(super) fn restart(&mut self) {
        self.period = None;
    }

    fn next_period(&mut self) {
        self.period = Some(Period { begin: Instant::now(), own: thread_time(), thread: std::thread::current().id() });
        self.slept = Duration::ZERO;
    }
}

/// Processor time of the calling thread.
#[cfg(unix)]
fn thread_time() -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec that lives through the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } != 0;
    if failed { None } else { Some(Duration::new(time.tv_sec as u64, time.tv_nsec as u32)) }
}

/// Not asked for here: only waiting counts.
#[cfg(not(unix))]
fn thread_time() -> Option<Duration> {
    None
}
