//! Activations: rows of f32 quantized to int8 for the integer dot products.
//!
//! One row is one byte record, so that a batch is `n` records behind each other and threads can fill disjoint
//! records. Records are a multiple of 64 bytes long:
//!
//! ```text
//! F32        | k f32 |
//! Block32    | k i8 | k/32 f32 scales   | k/16 i16 sums of 16 values          | padding |
//! Super256   | k i8 | k/256 f32 scales  | k/16 i16 sums of 16 values          | padding |
//! ```

use crate::Cpu;
use crate::isa::{SimdKernel, dispatch_simd, integers::Integers};

/// How a weight format wants its activations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Activation {
    /// Plain f32 (for F32, F16 and BF16 weights).
    F32,
    /// int8 in blocks of 32 with an f32 scale and the sums of its halves (for the 32-block formats).
    Block32,
    /// int8 in super-blocks of 256 with an f32 scale and 16 partial sums (for the K-quants).
    Super256,
}

impl Activation {
    /// Every kind.
    pub const ALL: &'static [Activation] = &[Activation::F32, Activation::Block32, Activation::Super256];

    /// Values that share a scale; 1 for [`Activation::F32`].
    pub const fn block(self) -> usize {
        match self {
            Activation::F32 => 1,
            Activation::Block32 => 32,
            Activation::Super256 => 256,
        }
    }

    /// Bytes of the record of one row of `k` values.
    ///
    /// # Panics
    /// When `k` is not a multiple of the block, or the size overflows.
    pub fn row_bytes(self, k: usize) -> usize {
        assert!(k.is_multiple_of(self.block()), "{k} activations are not whole blocks of {}", self.block());
        let bytes = match self {
            Activation::F32 => k.checked_mul(4),
            Activation::Block32 | Activation::Super256 => {
                k.checked_mul(2).map(|_| self.sums_at(k) + self.sums_bytes(k))
            }
        };
        bytes.and_then(|bytes| bytes.checked_next_multiple_of(64)).expect("the size of an activation record fits usize")
    }

    /// Offset of the scales in a record of `k` values.
    pub const fn scales_at(self, k: usize) -> usize {
        let _ = self;
        k
    }

    /// Offset of the sums in a record of `k` values.
    pub const fn sums_at(self, k: usize) -> usize {
        k + k / self.block() * 4
    }

    const fn sums_bytes(self, k: usize) -> usize {
        match self {
            Activation::F32 => 0,
            Activation::Block32 | Activation::Super256 => k / 16 * 2,
        }
    }
}

/// Quantizes the rows of `x` `(n, k)` into `out`, `n` records of [`Activation::row_bytes`].
///
/// Per block: `amax` is the largest magnitude, `d = amax / 127`, `q = round_ties_even(x * (127 / amax))`, within ±127. Where
/// `127 / amax` overflows (`amax` is zero or below 2⁻¹²¹) `q = 0`. A block that holds a NaN or an infinity gets `d = NaN`
/// and `q = 0`, so that the fault reaches the logits on every level alike.
///
/// # Panics
/// When a length does not fit `k`.
pub fn quantize_activations(cpu: Cpu, kind: Activation, x: &[f32], k: usize, out: &mut [u8]) {
    let record = kind.row_bytes(k);
    if k == 0 {
        assert!(x.is_empty() && out.is_empty(), "rows of no values");
        return;
    }
    assert!(x.len().is_multiple_of(k), "{} values are not whole rows of {k}", x.len());
    assert_eq!(out.len(), x.len() / k * record, "bytes for {} activation records", x.len() / k);
    for (x, out) in x.chunks_exact(k).zip(out.chunks_exact_mut(record)) {
        match kind {
            Activation::F32 => {
                for (out, x) in out.chunks_exact_mut(4).zip(x) {
                    out.copy_from_slice(&x.to_ne_bytes());
                }
                out[4 * k..].fill(0);
            }
            Activation::Block32 | Activation::Super256 => {
                let row = Row::split(kind, k, out);
                if let Err(row) = dispatch_simd(cpu, QuantizeRow { kind, x, row }) {
                    row.kernel_scalar();
                }
            }
        }
    }
}

/// The parts of a record to fill.
struct Row<'a> {
    q: &'a mut [u8],
    scales: &'a mut [u8],
    sums: &'a mut [u8],
}

impl<'a> Row<'a> {
    fn split(kind: Activation, k: usize, record: &'a mut [u8]) -> Row<'a> {
        let (q, rest) = record.split_at_mut(k);
        let (scales, rest) = rest.split_at_mut(kind.sums_at(k) - k);
        let (sums, padding) = rest.split_at_mut(kind.sums_bytes(k));
        padding.fill(0);
        Row { q, scales, sums }
    }
}

/// Writes the sums of the halves of 32 values, at most 16 * 127 in magnitude.
#[inline(always)]
fn write_sums(low: i32, high: i32, out: &mut [u8]) {
    out[..2].copy_from_slice(&(low as i16).to_ne_bytes());
    out[2..].copy_from_slice(&(high as i16).to_ne_bytes());
}

/// The scale and its inverse (0 where there is none) of a block whose largest magnitude has the bits `amax`.
#[inline(always)]
fn scale_of(amax: u32) -> (f32, f32) {
    if amax >= f32::INFINITY.to_bits() {
        return (f32::NAN, 0.0);
    }
    let amax = f32::from_bits(amax);
    let inverse = 127.0 / amax;
    (amax / 127.0, if inverse.is_finite() { inverse } else { 0.0 })
}

/// Quantizes one row.
struct QuantizeRow<'a> {
    kind: Activation,
    x: &'a [f32],
    row: Row<'a>,
}

impl QuantizeRow<'_> {
    /// Without SIMD: the oracle.
    fn kernel_scalar(self) {
        let block = self.kind.block();
        for (b, x) in self.x.chunks_exact(block).enumerate() {
            let amax = x.iter().fold(0, |amax, x| amax.max(x.abs().to_bits()));
            let (d, inverse) = scale_of(amax);
            self.row.scales[4 * b..][..4].copy_from_slice(&d.to_ne_bytes());
            let q = &mut self.row.q[block * b..][..block];
            for (q, x) in q.iter_mut().zip(x) {
                *q = if inverse == 0.0 { 0 } else { (x * inverse).round_ties_even() as i8 as u8 };
            }
            for i in block / 32 * b..block / 32 * (b + 1) {
                let sum = |at: usize| self.row.q[at..][..16].iter().map(|&q| i32::from(q as i8)).sum();
                let (low, high) = (sum(32 * i), sum(32 * i + 16));
                write_sums(low, high, &mut self.row.sums[4 * i..][..4]);
            }
        }
    }
}

impl SimdKernel for QuantizeRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Integers>(self, isa: I) {
        let block = self.kind.block();
        for (b, x) in self.x.chunks_exact(block).enumerate() {
            let (x, _) = x.as_chunks::<16>();
            let (d, inverse) = scale_of(isa.largest_magnitude(x));
            self.row.scales[4 * b..][..4].copy_from_slice(&d.to_ne_bytes());
            let (q, _) = self.row.q[block * b..][..block].as_chunks_mut::<16>();
            for (i, (x, q)) in x.as_chunks::<2>().0.iter().zip(q.as_chunks_mut::<2>().0).enumerate() {
                let (low, high) = if inverse == 0.0 {
                    *q = [[0; 16]; 2];
                    (0, 0)
                } else {
                    (isa.quantize(&x[0], inverse, &mut q[0]), isa.quantize(&x[1], inverse, &mut q[1]))
                };
                write_sums(low, high, &mut self.row.sums[4 * (block / 32 * b + i)..][..4]);
            }
        }
    }
}
