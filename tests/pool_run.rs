//! The thread pool: every piece once, no piece waits for another, panics and cancellation leave it usable, forks rebuild it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fastq_core::pool::{Disjoint, Pool};
use fastq_core::{Error, Never};

fn each_piece_once(pool: &mut Pool, pieces: usize) {
    let counts: Vec<AtomicUsize> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
    let threads = pool.threads();
    pool.run(pieces, &Never, |piece, worker| {
        assert!(worker < threads);
        counts[piece].fetch_add(1, Ordering::Relaxed);
    })
    .expect("runs");
    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
}

#[test]
fn every_piece_runs_once() {
    for threads in [1, 2, 3, 7] {
        let mut pool = Pool::new(threads).expect("a pool");
        for round in 0..300 {
            each_piece_once(&mut pool, [0, 1, 2, 3, 16, 257][round % 6]);
            if round % 50 == 0 {
                // Long enough that the workers park.
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

/// Busy neighbours make workers sit out and come back; who takes part never changes what is computed.
#[test]
fn neighbours_lose_no_piece() {
    let stop = AtomicBool::new(false);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                // Also when the test has failed, so that the scope ends.
                while !stop.load(Ordering::Relaxed) && begin.elapsed() < Duration::from_secs(20) {
                    std::hint::spin_loop();
                }
            });
        }
        let mut pool = Pool::new(4).expect("a pool");
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(400) {
            each_piece_once(&mut pool, 40);
        }
        stop.store(true, Ordering::Relaxed);
        // Runs from another thread, whose clock is another one.
        std::thread::scope(|scope| scope.spawn(|| each_piece_once(&mut pool, 40)).join()).expect("runs elsewhere");
        each_piece_once(&mut pool, 40);
    });
}

#[test]
fn a_slow_piece_delays_only_itself() {
    let mut pool = Pool::new(3).expect("a pool");
    let done = AtomicUsize::new(0);
    let start = Instant::now();
    pool.run(64, &Never, |piece, _| {
        if piece == 0 {
            while done.load(Ordering::Acquire) < 63 && start.elapsed() < Duration::from_secs(20) {
                std::thread::yield_now();
            }
        }
        done.fetch_add(1, Ordering::Release);
    })
    .expect("runs");
    assert!(start.elapsed() < Duration::from_secs(20), "the others waited");
}

#[test]
fn a_worker_number_belongs_to_one_thread_at_a_time() {
    let mut pool = Pool::new(4).expect("a pool");
    let mut counts = vec![0usize; 4];
    let shared = Disjoint::new(&mut counts);
    pool.run(10_000, &Never, |_, worker| {
        // SAFETY: this is the claim under test; a violation loses counts.
        *unsafe { shared.item(worker) } += 1;
    })
    .expect("runs");
    assert_eq!(counts.iter().sum::<usize>(), 10_000);
}

#[test]
fn a_panic_becomes_an_error() {
    for threads in [1, 3] {
        let mut pool = Pool::new(threads).expect("a pool");
        for bad in [0, 5, 99] {
            let result = pool.run(100, &Never, |piece, _| assert!(piece != bad, "piece {bad} is bad"));
            let error = result.expect_err("the panic is reported").to_string();
            assert!(error.contains(&format!("piece {bad} is bad")), "{error}");
            each_piece_once(&mut pool, 50);
        }
    }
}

#[test]
fn cancelling_skips_the_rest() {
    for threads in [1, 2] {
        let mut pool = Pool::new(threads).expect("a pool");
        let stop = AtomicBool::new(false);
        let done = AtomicUsize::new(0);
        let start = Instant::now();
        let result = pool.run(100_000, &|| stop.load(Ordering::Relaxed), |_, _| {
            std::thread::sleep(Duration::from_millis(1));
            if done.fetch_add(1, Ordering::Relaxed) == 20 {
                stop.store(true, Ordering::Relaxed);
            }
        });
        assert!(matches!(result, Err(Error::Cancelled)));
        assert!(done.load(Ordering::Relaxed) < 10_000 && start.elapsed() < Duration::from_secs(10));
        each_piece_once(&mut pool, 50);
    }
}

#[test]
fn the_number_of_threads_is_checked() {
    for threads in [0, 1025] {
        assert!(matches!(Pool::new(threads), Err(Error::Argument(_))));
    }
}

#[cfg(unix)]
#[test]
fn a_forked_child_starts_its_own_workers() {
    let mut pool = Pool::new(3).expect("a pool");
    each_piece_once(&mut pool, 100);
    // SAFETY: the child only uses the pool and ends without returning.
    match unsafe { libc::fork() } {
        0 => {
            // Two pieces that wait for each other need two threads.
            let arrived = AtomicUsize::new(0);
            let start = Instant::now();
            let result = pool.run(2, &Never, |_, _| {
                arrived.fetch_add(1, Ordering::AcqRel);
                while arrived.load(Ordering::Acquire) < 2 && start.elapsed() < Duration::from_secs(20) {
                    std::thread::yield_now();
                }
            });
            let both = start.elapsed() < Duration::from_secs(20);
            // SAFETY: ends the child at once, without the handlers of the test harness.
            unsafe { libc::_exit(if result.is_ok() && both { 0 } else { 1 }) }
        }
        child => {
            assert!(child > 0, "fork");
            let mut status = 0;
            // SAFETY: waits for the child started above.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0, "the child failed");
            each_piece_once(&mut pool, 100);
        }
    }
}

/// The processors that the calling thread may use.
#[cfg(target_os = "linux")]
fn mask() -> BTreeSet<usize> {
    fastq_core::machine::Machine::this().processors().clone()
}

/// Workers keep to their processors, the caller is left alone, and what it may not use its workers do not use either.
#[cfg(target_os = "linux")]
#[test]
fn workers_stay_on_their_processors() {
    let before = mask();
    let last = *before.last().expect("a processor");
    let masks = |processors: BTreeSet<usize>| {
        let mut pool = Pool::new(3).expect("a pool").on(processors);
        let masks: [std::sync::Mutex<Option<BTreeSet<usize>>>; 3] = Default::default();
        // Until both workers have come.
        while masks.iter().any(|seen| seen.lock().expect("whole").is_none()) {
            pool.run(64, &Never, |_, worker| *masks[worker].lock().expect("whole") = Some(mask())).expect("runs");
        }
        masks.map(|mask| mask.into_inner().expect("whole").expect("seen"))
    };
    assert_eq!(masks([last].into()), [before.clone(), [last].into(), [last].into()]);
    assert_eq!(masks([last, 90_000].into()), [before.clone(), [last].into(), [last].into()]);
    assert_eq!(masks([90_000].into()), [before.clone(), before.clone(), before.clone()]);
    assert_eq!(masks(BTreeSet::new()), [before.clone(), before.clone(), before.clone()]);
    assert_eq!(mask(), before);
}
