//! The thread pool: work is handed out in small pieces, so that a descheduled worker delays only its own piece.
//!
//! A run publishes a closure and a number of pieces; the calling thread and the workers draw piece numbers from one atomic
//! counter. A worker joins a run only while it is open, so the caller never waits for one that is still asleep. Between runs
//! workers spin for some tens of microseconds and then park. With one thread nothing is spawned or synchronised.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{Error, Interrupt, Result};

/// How often the interrupt is asked.
const POLL: Duration = Duration::from_millis(5);
/// How long an idle thread spins before it parks.
const SPIN: Duration = Duration::from_micros(40);
/// A spinning thread that sees the clock jump by this much was descheduled: the host is busier than it has processors.
const DESCHEDULED: Duration = Duration::from_micros(500);
/// For how many waits a thread that was descheduled parks at once.
const POLITE_WAITS: u32 = 64;

/// Persistent workers of one model. The calling thread is worker 0.
#[derive(Debug)]
pub struct Pool {
    threads: usize,
    crew: Option<Crew>,
    last_poll: Instant,
}

impl Pool {
    /// A pool of `threads` threads, the caller included; the others start with the first parallel run.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `threads` is 1 to 1024.
    pub fn new(threads: usize) -> Result<Pool> {
        if !(1..=1024).contains(&threads) {
            return Err(Error::Argument(format!("threads must be between 1 and 1024, found {threads}")));
        }
        Ok(Pool { threads, crew: None, last_poll: Instant::now() })
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
        if self.threads == 1 || pieces <= 1 {
            let last_poll = &mut self.last_poll;
            return own_share(|| {
                for piece in 0..pieces {
                    poll(last_poll, interrupt)?;
                    work(piece, 0);
                }
                Ok(())
            });
        }
        // After fork() the child has a copy of the pool but none of its threads.
        if self.crew.as_ref().is_none_or(|crew| crew.forks != forks()) {
            self.crew = None;
            self.crew = Some(Crew::start(self.threads)?);
        }
        let Some(crew) = &self.crew else { return Err(Error::Internal("the pool has no crew".into())) };
        let shared = &*crew.shared;
        let last_poll = &mut self.last_poll;
        shared.open(Job { call: call::<F>, data: (&raw const work).cast(), pieces });
        let own = own_share(|| {
            loop {
                poll(last_poll, interrupt)?;
                let piece = shared.next.0.fetch_add(1, Ordering::Relaxed);
                if piece >= pieces {
                    return Ok(());
                }
                work(piece, 0);
            }
        });
        if own.is_err() {
            shared.next.0.store(pieces, Ordering::Relaxed);
        }
        // `work` is borrowed by the workers until this returns.
        shared.close();
        let panic = lock(&shared.panic).take();
        match panic {
            Some(message) => Err(Error::Internal(message)),
            None => own,
        }
    }
}

fn poll(last: &mut Instant, interrupt: &dyn Interrupt) -> Result<()> {
    let now = Instant::now();
    if now.duration_since(*last) >= POLL {
        *last = now;
        if interrupt.stop() {
            return Err(Error::Cancelled);
        }
    }
    Ok(())
}

/// Runs the caller's part; a panic becomes an error.
fn own_share(work: impl FnOnce() -> Result<()>) -> Result<()> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Error::Internal(panic_message(&*panic))))
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a computation panicked: {}", text.unwrap_or("no message"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The data under the pool's locks is replaced whole, so a panic of another holder leaves nothing half-written.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a counter that several threads write away from its neighbours' cache line.
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

/// Number of workers inside the current run (low bits of the state).
const ACTIVE: u64 = 0xffff;
/// The run may be joined.
const OPEN: u64 = 1 << 16;
/// The workers end.
const SHUTDOWN: u64 = 1 << 17;
/// One run later.
const EPOCH: u64 = 1 << 32;

struct Shared {
    /// Epoch (high half), flags and the number of active workers. One word, so that joining is one compare-and-swap which
    /// proves that the run is still open.
    state: Line<AtomicU64>,
    /// The next piece.
    next: Line<AtomicUsize>,
    /// Written by the caller while the state is closed and no worker is active; read by workers that joined.
    job: UnsafeCell<Job>,
    panic: Mutex<Option<String>>,
    /// Workers that are parked or about to park.
    sleepers: AtomicUsize,
    /// The caller is parked or about to park.
    caller_sleeps: AtomicBool,
    sleep: Mutex<()>,
    wake: Condvar,
    done: Condvar,
}

// SAFETY: `job` is only accessed as its comment says; the closure it points to is `Sync` and outlives the run.
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing in it belongs to one thread.
unsafe impl Send for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("state", &self.state.0).finish_non_exhaustive()
    }
}

impl Shared {
    fn open(&self, job: Job) {
        // SAFETY: the previous run is closed and has no active worker, and none can join before the store below.
        unsafe { *self.job.get() = job };
        self.next.0.store(0, Ordering::Relaxed);
        let epoch = self.state.0.load(Ordering::Relaxed) & !(EPOCH - 1);
        self.state.0.store(epoch.wrapping_add(EPOCH) | OPEN, Ordering::SeqCst);
        // Either this load sees the sleeper, or the sleeper's check of the state (after it counted itself) sees the run.
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(lock(&self.sleep));
            if job.pieces == 2 { self.wake.notify_one() } else { self.wake.notify_all() }
        }
    }

    /// Ends the run: nobody joins any more, and those inside finish their piece.
    fn close(&self) {
        let mut state = self.state.0.fetch_and(!OPEN, Ordering::SeqCst);
        let start = Instant::now();
        while state & ACTIVE != 0 {
            if start.elapsed() > SPIN {
                let mut guard = lock(&self.sleep);
                self.caller_sleeps.store(true, Ordering::SeqCst);
                while self.state.0.load(Ordering::SeqCst) & ACTIVE != 0 {
                    guard = self.done.wait(guard).unwrap_or_else(PoisonError::into_inner);
                }
                self.caller_sleeps.store(false, Ordering::SeqCst);
                return;
            }
            std::hint::spin_loop();
            state = self.state.0.load(Ordering::Acquire);
        }
    }

    /// Waits for a run other than `seen` and joins it; `None` at the end of the pool.
    fn join(&self, seen: u64, polite: &mut u32, spin: Duration) -> Option<u64> {
        let mut spinning = (*polite == 0).then(Instant::now);
        *polite = polite.saturating_sub(1);
        let mut last = spinning;
        loop {
            let state = self.state.0.load(Ordering::Acquire);
            if state & SHUTDOWN != 0 {
                return None;
            }
            if state & OPEN != 0 && state & !(EPOCH - 1) != seen {
                if self.state.0.compare_exchange(state, state + 1, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                    return Some(state & !(EPOCH - 1));
                }
                continue;
            }
            if let (Some(start), Some(before)) = (spinning, last) {
                for _ in 0..16 {
                    std::hint::spin_loop();
                }
                let now = Instant::now();
                if now - before > DESCHEDULED {
                    *polite = POLITE_WAITS;
                }
                last = Some(now);
                if now - start > spin {
                    spinning = None;
                }
                continue;
            }
            let mut guard = lock(&self.sleep);
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            loop {
                let state = self.state.0.load(Ordering::SeqCst);
                if state & SHUTDOWN != 0 || (state & OPEN != 0 && state & !(EPOCH - 1) != seen) {
                    break;
                }
                guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
            self.sleepers.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn leave(&self) {
        let before = self.state.0.fetch_sub(1, Ordering::SeqCst);
        if before & ACTIVE == 1 && before & OPEN == 0 && self.caller_sleeps.load(Ordering::SeqCst) {
            drop(lock(&self.sleep));
            self.done.notify_one();
        }
    }

    fn work(&self, worker: usize, spin: Duration) {
        let (mut seen, mut polite) = (0, 0);
        while let Some(epoch) = self.join(seen, &mut polite, spin) {
            seen = epoch;
            // SAFETY: this thread joined an open run, so the job was published before and stays until it leaves.
            let job = unsafe { *self.job.get() };
            let result = catch_unwind(AssertUnwindSafe(|| {
                loop {
                    let piece = self.next.0.fetch_add(1, Ordering::Relaxed);
                    if piece >= job.pieces {
                        break;
                    }
                    // SAFETY: `run` keeps the closure alive until every worker that joined has left.
                    unsafe { (job.call)(job.data, piece, worker) };
                }
            }));
            if let Err(panic) = result {
                self.next.0.store(job.pieces, Ordering::Relaxed);
                *lock(&self.panic) = Some(panic_message(&*panic));
            }
            self.leave();
        }
    }
}

/// The threads of a pool.
#[derive(Debug)]
struct Crew {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
    forks: u32,
}

impl Crew {
    fn start(threads: usize) -> Result<Crew> {
        /// The closure of no run.
        unsafe fn nothing(_: *const (), _: usize, _: usize) {}
        let shared = Arc::new(Shared {
            state: Line(AtomicU64::new(0)),
            next: Line(AtomicUsize::new(0)),
            job: UnsafeCell::new(Job { call: nothing, data: std::ptr::null(), pieces: 0 }),
            panic: Mutex::new(None),
            sleepers: AtomicUsize::new(0),
            caller_sleeps: AtomicBool::new(false),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            done: Condvar::new(),
        });
        // More threads than processors: a spinning thread would hold the processor that another one needs.
        let crowded = std::thread::available_parallelism().is_ok_and(|cpus| threads > cpus.get());
        let spin = if crowded { SPIN / 8 } else { SPIN };
        let mut crew = Crew { shared, handles: Vec::with_capacity(threads - 1), forks: forks() };
        for worker in 1..threads {
            let shared = Arc::clone(&crew.shared);
            let handle = std::thread::Builder::new()
                .name(format!("fastq-{worker}"))
                .spawn(move || shared.work(worker, spin))
                .map_err(|e| {
                    Error::Memory(format!("cannot start thread {worker} of {threads}: {e}; use fewer threads"))
                })?;
            crew.handles.push(handle);
        }
        Ok(crew)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        let handles = std::mem::take(&mut self.handles);
        if self.forks != forks() {
            // The threads live in the parent only, and the locks may have been copied while held: touch neither.
            std::mem::forget(handles);
            std::mem::forget(Arc::clone(&self.shared));
            return;
        }
        self.shared.state.0.fetch_or(SHUTDOWN, Ordering::SeqCst);
        drop(lock(&self.shared.sleep));
        self.shared.wake.notify_all();
        for handle in handles {
            // A worker catches every panic, so there is no result to lose.
            drop(handle.join());
        }
    }
}

/// How often this process is a forked copy: changes in a child, whose other threads do not exist.
#[cfg(unix)]
pub(crate) fn forks() -> u32 {
    static FORKS: AtomicU32 = AtomicU32::new(0);
    static REGISTER: std::sync::Once = std::sync::Once::new();
    extern "C" fn child() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    REGISTER.call_once(|| {
        // SAFETY: the handler only adds to an atomic, which is safe in a forked child.
        unsafe { libc::pthread_atfork(None, None, Some(child)) };
    });
    FORKS.load(Ordering::Relaxed)
}

/// There is no fork here.
#[cfg(not(unix))]
pub(crate) fn forks() -> u32 {
    static FORKS: AtomicU32 = AtomicU32::new(0);
    FORKS.load(Ordering::Relaxed)
}

/// A slice that several workers write, each its own parts.
#[derive(Clone, Copy, Debug)]
pub struct Disjoint<'a, T> {
    pointer: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: access goes through `slice`, whose callers promise that no two live borrows overlap; a `T` may then be used from
// another thread because it is `Send`.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    /// Lends `slice` to the workers of a run.
    pub fn new(slice: &'a mut [T]) -> Disjoint<'a, T> {
        Disjoint { pointer: slice.as_mut_ptr(), len: slice.len(), lifetime: PhantomData }
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// While the result lives, no other borrow from this value, on any thread, overlaps `range`.
    ///
    /// # Panics
    /// When the range is outside the slice.
    #[allow(
        clippy::mut_from_ref,
        reason = "that several parts are borrowed at once is the purpose; the contract keeps them apart"
    )]
    pub unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {} elements", self.len);
        // SAFETY: inside the slice by the check, unaliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(range.start), range.end - range.start) }
    }

    /// One element.
    ///
    /// # Safety
    /// As for [`Disjoint::slice`].
    ///
    /// # Panics
    /// When the index is outside the slice.
    #[allow(clippy::mut_from_ref, reason = "as for `slice`")]
    pub unsafe fn item(&self, index: usize) -> &mut T {
        assert!(index < self.len, "{index} of {} elements", self.len);
        // SAFETY: inside the slice by the check, unaliased by the caller's promise.
        unsafe { &mut *self.pointer.add(index) }
    }
}
