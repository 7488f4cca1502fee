//! How a caller stops a long computation.

/// Asked between small pieces of work (at least every 100 ms) on the thread that called the engine.
pub trait Interrupt {
    /// Whether to stop; the engine then returns [`Error::Cancelled`](crate::Error::Cancelled) and stays usable. Called often:
    /// implementations that are not cheap limit their own rate.
    fn stop(&self) -> bool;
}

/// Never stops.
#[derive(Clone, Copy, Default, Debug)]
pub struct Never;

impl Interrupt for Never {
    fn stop(&self) -> bool {
        false
    }
}

impl<F: Fn() -> bool> Interrupt for F {
    fn stop(&self) -> bool {
        self()
    }
}
