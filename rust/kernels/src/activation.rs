//! Activations: rows of f32 quantized to int8 for the integer dot products.
//!
//! One row is one byte record, so that a batch is `n` records behind each other and threads can fill disjoint
//! records. Records are a multiple of 64 bytes long.

use crate::Cpu;

/// How a weight format wants its activations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Activation {
    /// Plain f32 (for F32, F16 and BF16 weights).
    F32,
    /// int8 in blocks of 32 with an f32 scale and the sum of the block (for the 32-block formats).
    Block32,
    /// int8 in super-blocks of 256 with an f32 scale and 16 partial sums (for the K-quants).
    Super256,
}

impl Activation {
    /// Every kind.
    pub const ALL: &'static [Activation] = &[Activation::F32, Activation::Block32, Activation::Super256];

    /// Bytes of the record of one row of `k` values.
    ///
    /// # Panics
    /// When `k` is not a multiple of the block.
    pub fn row_bytes(self, k: usize) -> usize {
        let _ = k;
        0
    }
}

/// Quantizes the rows of `x` `(n, k)` into `out`, `n` records of [`Activation::row_bytes`].
///
/// Per block: `amax` is the largest magnitude, `d = amax / 127`, `q = round_ties_even(x * (127 / amax))`. A block that holds
/// a NaN or an infinity gets `d = NaN` and `q = 0`, so that the fault reaches the logits on every level alike.
pub fn quantize_activations(cpu: Cpu, kind: Activation, x: &[f32], k: usize, out: &mut [u8]) {
    let _ = (cpu, kind, x, k, out);
}
