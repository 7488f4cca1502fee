//! Matrix products of quantized weights and quantized activations: the drivers, written once over formats and levels.
//!
//! With `x` the quantized activations of a token, `d_a` their scale and `d`, `m` those of the weights, an output is
//!
//! ```text
//! acc = 0
//! for each block in k order:
//!     acc = fma(f32(isum), d * d_a, acc)          isum = Σ (byte - OFFSET) * x       or  Σ_j scale[j] * Σ (byte - OFFSET) * x
//!     acc = fma(f32(msum), m * d_a, acc)          msum = Σ x                          or  Σ_j min[j] * Σ x,  m = -dmin
//! ```
//!
//! the second line only for formats with minima, the right column for super-blocks; `isum` and `msum` are exact i32, and
//! `f32()` rounds to nearest even. F32, F16 and BF16 weights multiply f32 activations in [`LANES`](crate::LANES) lanes,
//! `acc[l] = fma(w[16 i + l], x[16 i + l], acc[l])`, where a tail touches its lanes only, added up by the tree
//! `(l, l + 8)`, `(l, l + 4)`, `(l, l + 2)`, `(l, l + 1)`.

mod dense;
mod scalar;

use core::marker::PhantomData;
use core::ops::Range;

use crate::isa::{dispatch_floats, dispatch_simd};
use crate::unpack::{Blocks, Dense, SuperBlocks, Visitor, Weights};
use crate::{Cpu, Format, Level, gemm, gemv};

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

    /// The place of an output.
    ///
    /// # Safety
    /// `token` and `row` are inside the tile (`Job::check`). Writing needs that no other thread writes the row.
    #[inline(always)]
    pub(crate) unsafe fn at(self, token: usize, row: usize) -> *mut f32 {
        debug_assert!(token * self.stride + row < self.len, "an output inside the tile");
        // SAFETY: inside the slice the tile was made of, by the contract.
        unsafe { self.pointer.add(token * self.stride + row) }
    }
}

/// Working memory of one thread for [`matmul`]; grows to what the largest panel needs and is reused.
#[derive(Default, Debug)]
pub struct MatmulScratch {
    /// One accumulator per token (scalar level).
    sums: Vec<f32>,
    /// The unpacked rows (more than a few tokens).
    pub(crate) panel: Vec<Line>,
    /// The activations, or their scales, as products of matrices want them.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    pub(crate) columns: Vec<Line>,
}

/// A cache line, for the alignment of vectors.
#[derive(Clone, Copy, Default, Debug)]
#[repr(align(64))]
pub(crate) struct Line {
    _bytes: [[u8; 32]; 2],
}

/// The arguments of [`matmul`], checked.
#[derive(Clone)]
pub(crate) struct Job<'a> {
    pub(crate) weights: Matrix<'a>,
    pub(crate) row_bytes: usize,
    pub(crate) rows: Range<usize>,
    pub(crate) x: &'a [u8],
    pub(crate) record: usize,
    pub(crate) tokens: usize,
    pub(crate) out: OutTile<'a>,
}

impl<'a> Job<'a> {
    fn check(weights: Matrix<'a>, rows: Range<usize>, x: &'a [u8], tokens: usize, out: OutTile<'a>) -> Job<'a> {
        let Matrix { format, k, data, .. } = weights;
        let row_bytes = format.row_bytes(k).unwrap_or_else(|| panic!("rows of {k} {} weights", format.name()));
        assert_eq!(Some(data.len()), row_bytes.checked_mul(weights.rows), "bytes of {} rows of {k}", weights.rows);
        assert!(rows.start <= rows.end && rows.end <= weights.rows, "rows {rows:?} of {}", weights.rows);
        let record = format.activation().row_bytes(k);
        assert_eq!(Some(x.len()), record.checked_mul(tokens), "bytes of {tokens} activation records of {k}");
        if tokens > 0 && !rows.is_empty() {
            let last = (tokens - 1).checked_mul(out.stride).and_then(|at| at.checked_add(rows.end));
            assert!(last.is_some_and(|end| end <= out.len), "{} outputs do not hold rows {rows:?}", out.len);
            assert!(tokens == 1 || out.stride >= rows.end, "tokens {} apart overlap in rows {rows:?}", out.stride);
        }
        Job { weights, row_bytes, rows, x, record, tokens, out }
    }

    /// The bytes of a row of weights.
    pub(crate) fn row(&self, row: usize) -> &'a [u8] {
        &self.weights.data[row * self.row_bytes..][..self.row_bytes]
    }

    /// The record of a token.
    pub(crate) fn record(&self, token: usize) -> &'a [u8] {
        &self.x[token * self.record..][..self.record]
    }
}

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
    let job = Job::check(weights, rows, x, tokens, out);
    if job.rows.is_empty() || tokens == 0 {
        return;
    }
    weights.format.accept(Product { cpu, job, scratch });
}

/// Chooses the driver.
struct Product<'a, 's> {
    cpu: Cpu,
    job: Job<'a>,
    scratch: &'s mut MatmulScratch,
}

impl Product<'_, '_> {
    /// Whether the vectors of the level have more lanes than the matrix has rows; such tiny products are left to the scalar
    /// code, as those of the scalar level are.
    fn is_scalar(&self) -> bool {
        self.cpu.level() == Level::Scalar || self.job.weights.rows < gemm::lanes(self.cpu)
    }

    fn scalar<F: Weights>(self) {
        F::accept(scalar::Product { job: self.job, sums: &mut self.scratch.sums });
    }
}

impl Visitor for Product<'_, '_> {
    type Output = ();

    fn blocks<F: Blocks>(self) {
        const { assert!(F::BLOCK.is_multiple_of(32) && F::OFFSET >= 0 && F::OFFSET < 1 << 15) };
        const { assert!(!F::SPLIT || !F::MINIMUM && F::PEAK <= 32, "what the panels have room and tiles for") };
        if self.is_scalar() {
            self.scalar::<F>();
        } else if self.job.tokens <= gemv::most_tokens(gemm::lanes(self.cpu)) {
            let _ = dispatch_simd(self.cpu, gemv::BlocksGemv::<F>(self.job, PhantomData));
        } else {
            gemm::blocks::<F>(self.cpu, &self.job, self.scratch);
        }
    }

    fn super_blocks<F: SuperBlocks>(self) {
        if self.is_scalar() {
            self.scalar::<F>();
        } else if self.job.tokens <= gemv::most_tokens(gemm::lanes(self.cpu)) {
            let _ = dispatch_simd(self.cpu, gemv::SuperBlocksGemv::<F>(self.job, PhantomData));
        } else {
            gemm::super_blocks::<F>(self.cpu, &self.job, self.scratch);
        }
    }

    fn dense<F: Dense>(self) {
        if self.cpu.level() == Level::Scalar {
            self.scalar::<F>();
        } else {
            dispatch_floats(self.cpu, dense::DenseProduct::<F>(self.job, PhantomData));
        }
    }
}
