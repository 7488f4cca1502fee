//! Ctrl-C: stops what is being computed; pressed again, or while nothing is, ends the program.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use fastq_core::Interrupt;

use crate::terminal;

static STOP: AtomicBool = AtomicBool::new(false);
static COMPUTING: AtomicBool = AtomicBool::new(false);

/// Catches SIGINT from now on. Without a handler Ctrl-C ends the program, which is no worse, so a failure is only told.
pub(crate) fn install() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let handler = || {
            if !COMPUTING.load(Ordering::SeqCst) || STOP.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
        };
        if let Err(error) = ctrlc::set_handler(handler) {
            terminal::note(&format!("warning: cannot catch Ctrl-C: {error}"));
        }
    });
}

/// While this lives, Ctrl-C makes [`stop`](Interrupt::stop) true instead of ending the program.
pub(crate) struct Computing(());

impl Computing {
    /// Begins a computation; an earlier Ctrl-C is forgotten.
    pub(crate) fn begin() -> Computing {
        STOP.store(false, Ordering::SeqCst);
        COMPUTING.store(true, Ordering::SeqCst);
        Computing(())
    }
}

impl Interrupt for Computing {
    fn stop(&self) -> bool {
        STOP.load(Ordering::Relaxed)
    }
}

impl Drop for Computing {
    fn drop(&mut self) {
        COMPUTING.store(false, Ordering::SeqCst);
    }
}
