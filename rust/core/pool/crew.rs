//! The workers of a pool and how a run is handed to them.
//!
//! # Protocol
//!
//! *Claims.* `ticket` holds the number of pieces of the run that nobody has claimed yet, plus [`NONE`], and the number of the run above
//! it. A claim is one `fetch_sub(1)`, made only after a load has shown a piece: what it returns says whether there still was one. So
//! a thread that was asleep for any time between the load and the subtraction claims a piece of the run that is open by then, or
//! nothing; it can go below [`NONE`] by one per thread, never into the number of the run.
//!
//! *Publication.* The caller writes `job` and `left`, then stores `ticket` (release). A successful claim reads that store or a
//! subtraction after it (a release sequence), and acquires: it sees the job. `job` is read after successful claims only.
//!
//! *End.* `left` counts pieces that are not done. A thread subtracts what it claimed, once, after its last piece (release); the
//! caller waits for 0 (acquire), so all writes of the pieces are visible to it, and no thread reads `job` any more. As the
//! count of a run reaches 0 only when every claim of it was subtracted, no late subtraction can hit the `left` of a later run.
//!
//! *Sleep.* A sleeper announces itself and then looks again; who has something for it writes that and then looks for the
//! announcement. All four are sequentially consistent, so at least one of both sees the other (Dekker). The caller sleeps on a
//! condition variable, whose lock is taken before it is notified; a worker sleeps in [`std::thread::park`], where a token that
//! comes early is kept.

use std::cell::UnsafeCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::attendance::{Attendance, Typical, patience};
use super::clock::Clock;
use super::forks::forks;
use super::{own_share, panic_message};
use crate::machine::stay_on;
use crate::{Error, Interrupt, Result};

/// How long an idle thread spins before it parks.
const SPIN: Duration = Duration::from_micros(40);
/// The caller spins longer when pieces are longer, but not longer than this.
const LONGEST_SPIN: Duration = Duration::from_micros(200);
/// Looks at shared memory between two looks at the clock.
const LOOKS: usize = 16;

/// The low half of a ticket when no piece is left; more than there can be threads.
const NONE: u64 = 1 << 16;
/// Low half of a ticket.
const PIECES: u64 = (1 << 32) - 1;
/// The most pieces of a run.
pub(super) const MOST_PIECES: usize = 1 << 31;

/// Keeps what several threads write away from its neighbours' cache lines.
#[repr(align(128))]
#[derive(Debug)]
struct Line<T>(T);

/// One run, without its type.
#[derive(Clone, Copy)]
struct Job {
    call: unsafe fn(*const (), usize, usize),
    data: *const (),
    pieces: usize,
}

/// # Safety
/// `data` points to a live `F`.
unsafe fn call<F: Fn(usize, usize) + Sync>(data: *const (), piece: usize, worker: usize) {
    // SAFETY: the caller's promise.
    let work = unsafe { &*data.cast::<F>() };
    work(piece, worker);
}

/// What a worker is told; see [`Seat::duty`].
const PRESENT: u8 = 0;
const ABSENT: u8 = 1;
const END: u8 = 2;

/// What belongs to one worker.
#[derive(Debug)]
struct Seat {
    /// Written by the caller: whether to claim pieces, to sit out, or to end.
    duty: AtomicU8,
    /// The worker is in `park` or about to be.
    parked: AtomicBool,
    /// What the worker writes in every run and the caller hardly ever reads, on a line of its own.
    own: Line<Own>,
}

#[derive(Default, Debug)]
struct Own {
    /// The worker holds pieces.
    holds: AtomicBool,
    /// Nanoseconds that its pieces took.
    worked: AtomicU64,
}

struct Shared {
    /// See the protocol.
    ticket: Line<AtomicU64>,
    left: Line<AtomicUsize>,
    /// Written by the caller while nobody has a claim; read by those that have.
    job: UnsafeCell<Job>,
    panic: Mutex<Option<String>>,
    seats: Vec<Line<Seat>>,
    /// The caller is parked or about to park.
    caller_sleeps: AtomicBool,
    sleep: Mutex<()>,
    done: Condvar,
}

// SAFETY: `job` is only accessed as the protocol says; the closure it points to is `Sync` and outlives the run.
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing in it belongs to one thread.
unsafe impl Send for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("seats", &self.seats).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The data under these locks is replaced whole, so a panic of another holder leaves nothing half-written.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Publishes a run.
    fn open(&self, job: Job) {
        // SAFETY: the run before has ended, so nobody has a claim, and nobody gets one before the store below.
        unsafe { *self.job.get() = job };
        self.left.0.store(job.pieces, Ordering::Relaxed);
        // The caller alone writes the upper half.
        let run = (self.ticket.0.load(Ordering::Relaxed) | PIECES).wrapping_add(1);
        self.ticket.0.store(run | (NONE + job.pieces as u64), Ordering::SeqCst);
    }

    /// Claims a piece: how many were unclaimed, itself included.
    fn claim(&self) -> Option<usize> {
        if self.ticket.0.load(Ordering::Relaxed) & PIECES <= NONE {
            return None;
        }
        let unclaimed = (self.ticket.0.fetch_sub(1, Ordering::AcqRel) & PIECES).checked_sub(NONE)?;
        (unclaimed > 0).then_some(unclaimed as usize)
    }

    /// Claims all pieces that are left: how many.
    fn claim_rest(&self) -> usize {
        let mut ticket = self.ticket.0.load(Ordering::Relaxed);
        while ticket & PIECES > NONE {
            let none = ticket & !PIECES | NONE;
            match self.ticket.0.compare_exchange_weak(ticket, none, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return (ticket & PIECES) as usize - NONE as usize,
                Err(now) => ticket = now,
            }
        }
        0
    }

    /// Reports `claimed` pieces as done or skipped.
    fn report(&self, claimed: usize) {
        if claimed > 0
            && self.left.0.fetch_sub(claimed, Ordering::SeqCst) == claimed
            && self.caller_sleeps.load(Ordering::SeqCst)
        {
            drop(lock(&self.sleep));
            self.done.notify_one();
        }
    }

    /// Waits until all pieces are done: how long. Calls `late` once, when that takes longer than `patience`.
    fn wait(&self, spin: Duration, patience: Duration, late: impl FnOnce()) -> Duration {
        if self.all_done() {
            return Duration::ZERO;
        }
        let start = Instant::now();
        let mut late = Some(late);
        loop {
            for _ in 0..LOOKS {
                if self.all_done() {
                    return start.elapsed();
                }
                std::hint::spin_loop();
            }
            if start.elapsed() > spin {
                break;
            }
        }
        let mut guard = lock(&self.sleep);
        self.caller_sleeps.store(true, Ordering::SeqCst);
        while self.left.0.load(Ordering::SeqCst) != 0 {
            let rest = patience.saturating_sub(start.elapsed());
            // Asked with a limit until then, and without one after it.
            let limit = if rest.is_zero() { Duration::from_secs(3600) } else { rest };
            guard = self.done.wait_timeout(guard, limit).unwrap_or_else(PoisonError::into_inner).0;
            if start.elapsed() >= patience
                && let Some(late) = late.take()
            {
                late();
            }
        }
        self.caller_sleeps.store(false, Ordering::SeqCst);
        start.elapsed()
    }

    fn all_done(&self) -> bool {
        self.left.0.load(Ordering::Acquire) == 0
    }

    /// Whether a worker has something to do or to end.
    fn wanted(&self, seat: &Seat, order: Ordering) -> bool {
        match seat.duty.load(order) {
            PRESENT => self.ticket.0.load(order) & PIECES > NONE,
            ABSENT => false,
            _ => true,
        }
    }

    /// Waits until there is something to do; false at the end of the pool.
    fn attend(&self, seat: &Seat, spin: Duration) -> bool {
        let start = Instant::now();
        'spinning: while seat.duty.load(Ordering::Relaxed) == PRESENT {
            for _ in 0..LOOKS {
                if self.wanted(seat, Ordering::Relaxed) {
                    break 'spinning;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() > spin {
                break;
            }
        }
        while !self.wanted(seat, Ordering::Relaxed) {
            seat.parked.store(true, Ordering::SeqCst);
            if !self.wanted(seat, Ordering::SeqCst) {
                std::thread::park();
            }
            seat.parked.store(false, Ordering::Relaxed);
        }
        seat.duty.load(Ordering::Relaxed) != END
    }

    /// The life of a worker, which has number `worker`.
    fn work(&self, worker: usize, spin: Duration) {
        let seat = &self.seats[worker - 1].0;
        let mut typical = Typical::default();
        while self.attend(seat, spin) {
            let mut claimed = 0;
            let mut worked = Duration::ZERO;
            let result = catch_unwind(AssertUnwindSafe(|| {
                let mut before = None;
                loop {
                    let now = Instant::now();
                    worked += before.map_or(Duration::ZERO, |before| typical.credit(now - before));
                    let Some(unclaimed) = self.claim() else { return };
                    if claimed == 0 {
                        seat.own.0.holds.store(true, Ordering::Relaxed);
                    }
                    before = Some(now);
                    claimed += 1;
                    // SAFETY: this thread has a claim, so the job was published before and stays until it is reported.
                    let job = unsafe { *self.job.get() };
                    // SAFETY: `run` keeps the closure alive until every claim is reported.
                    unsafe { (job.call)(job.data, job.pieces - unclaimed, worker) };
                }
            }));
            if let Err(panic) = result {
                claimed += self.claim_rest();
                *lock(&self.panic) = Some(panic_message(&*panic));
            }
            if claimed > 0 {
                // Nobody else writes it.
                let total = seat.own.0.worked.load(Ordering::Relaxed) + worked.as_nanos() as u64;
                seat.own.0.worked.store(total, Ordering::Relaxed);
                seat.own.0.holds.store(false, Ordering::Relaxed);
                self.report(claimed);
            }
        }
    }
}

/// The threads of a pool, and who of them takes part.
#[derive(Debug)]
pub(super) struct Crew {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
    attendance: Attendance,
    /// What was seen last of the time that each worker worked.
    seen: Vec<u64>,
    forks: u32,
}

impl Crew {
    /// Starts `threads - 1` workers, on `processors` unless there are none.
    pub(super) fn start(threads: usize, processors: &BTreeSet<usize>) -> Result<Crew> {
        /// The closure of no run.
        unsafe fn nothing(_: *const (), _: usize, _: usize) {}
        let seat =
            |_| Line(Seat { duty: AtomicU8::new(PRESENT), parked: AtomicBool::new(false), own: Line(Own::default()) });
        let shared = Arc::new(Shared {
            ticket: Line(AtomicU64::new(NONE)),
            left: Line(AtomicUsize::new(0)),
            job: UnsafeCell::new(Job { call: nothing, data: std::ptr::null(), pieces: 0 }),
            panic: Mutex::new(None),
            seats: (1..threads).map(seat).collect(),
            caller_sleeps: AtomicBool::new(false),
            sleep: Mutex::new(()),
            done: Condvar::new(),
        });
        // More threads than processors: a spinning thread would hold the processor that another one needs.
        let crowded = std::thread::available_parallelism().is_ok_and(|cpus| threads > cpus.get());
        let spin = if crowded { SPIN / 8 } else { SPIN };
        let attendance = Attendance::new(threads - 1);
        let (handles, seen) = (Vec::with_capacity(threads - 1), vec![0; threads - 1]);
        let mut crew = Crew { shared, handles, attendance, seen, forks: forks() };
        for worker in 1..threads {
            let (shared, processors) = (Arc::clone(&crew.shared), processors.clone());
            let work = move || {
                stay_on(&processors);
                shared.work(worker, spin);
            };
            let handle = std::thread::Builder::new().name(format!("fastq-{worker}")).spawn(work).map_err(|e| {
                Error::Memory(format!("cannot start thread {worker} of {threads}: {e}; use fewer threads"))
            })?;
            crew.handles.push(handle);
        }
        Ok(crew)
    }

    /// Whether this is a copy in a forked child, which has none of the threads.
    pub(super) fn is_copy(&self) -> bool {
        self.forks != forks()
    }

    /// Lets those come back whose term is over; whether anybody takes part beside the caller.
    pub(super) fn attended(&mut self, clock: &mut Clock) -> bool {
        let seats = &self.shared.seats;
        let now = clock.last;
        self.attendance.come_back(now, |worker| {
            seats[worker].0.duty.store(PRESENT, Ordering::SeqCst);
            clock.restart();
        });
        self.attendance.present() > 0
    }

    /// After a run in which nobody took part beside the caller.
    pub(super) fn alone(&mut self, clock: &mut Clock) {
        if let Some((wall, lost)) = clock.period(false) {
            self.attendance.alone(wall, lost);
        }
    }

    /// As [`Pool::run`](super::Pool::run), with 2 to [`MOST_PIECES`] pieces.
    pub(super) fn run<F>(&mut self, pieces: usize, clock: &mut Clock, interrupt: &dyn Interrupt, work: &F) -> Result<()>
    where
        F: Fn(usize, usize) + Sync,
    {
        let Crew { shared, handles, attendance, seen, .. } = self;
        shared.open(Job { call: call::<F>, data: (&raw const *work).cast(), pieces });
        let mut useful = pieces - 1;
        for (seat, handle) in shared.seats.iter().zip(handles.iter()) {
            if useful == 0 {
                break;
            }
            if seat.0.duty.load(Ordering::Relaxed) == PRESENT {
                useful -= 1;
                // Written after the ticket, read before it: see the protocol. The swap wakes a sleeper once only.
                if seat.0.parked.load(Ordering::SeqCst) && seat.0.parked.swap(false, Ordering::SeqCst) {
                    handle.thread().unpark();
                }
            }
        }
        let mut claimed = 0;
        let own = own_share(|| {
            loop {
                clock.tick(interrupt)?;
                let Some(unclaimed) = shared.claim() else { return Ok(()) };
                claimed += 1;
                work(pieces - unclaimed, 0);
            }
        });
        if own.is_err() {
            claimed += shared.claim_rest();
        }
        shared.left.0.fetch_sub(claimed, Ordering::Release);
        // `work` is borrowed by the workers until this returns.
        let patience = patience(clock.longest);
        let mut held = None;
        let waited = shared.wait((2 * clock.longest).clamp(SPIN, LONGEST_SPIN), patience, || {
            held = shared.seats.iter().position(|seat| seat.0.own.0.holds.load(Ordering::Relaxed));
        });
        // When nobody holds a piece any more, it may be the caller that was descheduled; that is counted below.
        if let Some(worker) = held {
            attendance.cost(worker, waited);
            clock.parked(waited);
        }
        if let Some((wall, lost)) = clock.period(waited >= patience) {
            for (worker, (seat, seen)) in shared.seats.iter().zip(seen.iter_mut()).enumerate() {
                let worked = seat.0.own.0.worked.load(Ordering::Relaxed);
                attendance.brought(worker, Duration::from_nanos(worked - std::mem::replace(seen, worked)));
            }
            attendance.descheduled(wall, lost);
            let seats = &shared.seats;
            attendance.judge(clock.last, |worker| seats[worker].0.duty.store(ABSENT, Ordering::SeqCst));
        }
        let panic = lock(&shared.panic).take();
        match panic {
            Some(message) => Err(Error::Internal(message)),
            None => own,
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        let handles = std::mem::take(&mut self.handles);
        if self.is_copy() {
            // The threads live in the parent only, and the locks may have been copied while held: touch neither.
            std::mem::forget(handles);
            std::mem::forget(Arc::clone(&self.shared));
            return;
        }
        for (seat, handle) in self.shared.seats.iter().zip(&handles) {
            seat.0.duty.store(END, Ordering::SeqCst);
            handle.thread().unpark();
        }
        for handle in handles {
            // A worker catches every panic, so there is no result to lose.
            drop(handle.join());
        }
    }
}
