//! Forked copies of a process have none of its threads.

use std::sync::atomic::{AtomicU32, Ordering};

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
