//! The scalar level: plain Rust, the oracle.
mod bytes;
mod floats;

use super::Isa;

/// The operations in plain Rust.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

impl Isa for Scalar {}
