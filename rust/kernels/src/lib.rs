//! Arithmetic of a quantized transformer: block formats, matrix products, attention, norms.
//!
//! # The numeric contract
//!
//! Every function gives the same bits on every [`Level`], however its caller splits the work:
//!
//! * Activations are quantized per row to int8 with an f32 scale per block of 32 or 256, round to nearest even
//!   ([`activation`]).
//! * An output of a linear layer is one f32 chain over the blocks of its row in k order,
//!   `acc = fma(f32(isum), d_w * d_a, acc)` with an exact i32 `isum`; formats with a minimum add a second
//!   `fma(f32(msum), m_w * d_a, acc)` per block, and those with a scale for 16 weights (NVFP4) have a link for each half of
//!   32 ([`mod@matmul`]). Tiles widen over rows and tokens, never along k.
//! * f32/f16/bf16 dot products and norm sums use [`LANES`] virtual lanes and one fixed reduction tree
//!   ([`elementwise`]).
//! * Attention walks the keys in tiles of [`attention::TILE`] in key order; a score is one fma chain over the head
//!   dimension, a value one fma chain over the keys ([`attention`]).
//! * Layers with a state compute one token after the other; a convolution is one fma chain over its taps, what the delta rule reads
//!   one over the keys ([`recurrent`]).
//! * Sums over rows, of squares and of the products of two values, are one fma chain in the order of the rows ([`gram`]).
//! * Weights are encoded to the same bytes, which are ggml's ([`format`](mod@format)).
//! * `exp`, `tanh`, `sin`, `cos` are polynomials of our own ([`math`]); no libm.
//!
//! The scalar level is plain code and the oracle; the other levels are compared with it without tolerance.
#![cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    allow(dead_code, reason = "what only the levels with vectors use")
)]

pub mod activation;
pub mod affine;
mod ahead;
pub mod attention;
pub mod checkpoint;
pub mod distortion;
pub mod elementwise;
pub mod format;
mod gemm;
mod gemv;
pub mod gram;
pub mod half;
pub mod isa;
pub mod level;
pub mod math;
pub mod matmul;
pub mod quantize;
pub mod recurrent;
pub mod testing;
mod unpack;

pub use activation::Activation;
pub use distortion::{Distortion, distortion, first_not_finite};
pub use format::{Format, FormatInfo};
pub use level::{Cpu, Level, LevelError};
pub use matmul::{Matrix, OutTile, matmul};

/// Number of virtual f32 lanes of every reduction, on every level.
pub const LANES: usize = 16;
