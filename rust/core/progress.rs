//! How a caller watches a long computation.

/// Told about the progress of long work (calibration, quantization, evaluation, conversion) on the thread that called the engine.
pub trait Progress {
    /// `done` of `total` units of `stage` are finished. Stages are short phrases in lower case ("reading", "layer 3 of 30"); units are the
    /// stage's own, so a reader shows a share. Called often: what shows it limits its own rate.
    fn report(&self, stage: &str, done: u64, total: u64);
}

/// Watches nothing.
#[derive(Clone, Copy, Default, Debug)]
pub struct Silent;

impl Progress for Silent {
    fn report(&self, _stage: &str, _done: u64, _total: u64) {}
}

impl<F: Fn(&str, u64, u64)> Progress for F {
    fn report(&self, stage: &str, done: u64, total: u64) {
        self(stage, done, total);
    }
}
