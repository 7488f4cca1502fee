//! Matrix products of quantized weights and quantized activations: the drivers, written once over formats and levels.

use core::marker::PhantomData;
use core::ops::Range;

use crate::{Cpu, Format};

/// A weight matrix `(rows, k)` in its file layout.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// Type of the blocks.
    pub format: Format,
    /// Number of outputs.
    pub rows: usize,
    /// Number of inputs; a multiple of the format's block.
    pub k: usize,
    /// `rows` rows of `format.row_bytes(k)` bytes.
    pub data: &'a [u8],
}

/// Where the outputs of a product go: `out[token * stride + row]`. Shared by threads that write different rows.
#[derive(Clone, Copy, Debug)]
pub struct OutTile<'a> {
    pointer: *mut f32,
    len: usize,
    stride: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: the pointer is only written through `matmul`, whose contract is that concurrent calls write disjoint rows.
unsafe impl Send for OutTile<'_> {}
// SAFETY: as above.
unsafe impl Sync for OutTile<'_> {}

impl<'a> OutTile<'a> {
    /// Outputs of several tokens, `stride` floats apart.
    pub fn new(out: &'a mut [f32], stride: usize) -> OutTile<'a> {
        OutTile { pointer: out.as_mut_ptr(), len: out.len(), stride, lifetime: PhantomData }
    }
}

/// Working memory of one thread for [`matmul`]; grows to what the largest panel needs and is reused.
#[derive(Default, Debug)]
pub struct MatmulScratch {}

/// `out[t, r] = dot(weights[r], x[t])` for the rows in `rows` and all `tokens`.
///
/// `x` holds `tokens` records of `weights.format.activation().row_bytes(k)` bytes. The bits of an output do not depend on
/// `rows`, `tokens`, or the level.
///
/// # Safety
/// No other thread writes the same rows of `out` during the call.
///
/// # Panics
/// When a length does not fit the shapes.
pub unsafe fn matmul(
    cpu: Cpu,
    weights: Matrix<'_>,
    rows: Range<usize>,
    x: &[u8],
    tokens: usize,
    out: OutTile<'_>,
    scratch: &mut MatmulScratch,
) {
    let _ = (cpu, weights, rows, x, tokens, out.pointer, out.len, out.stride, scratch);
}
