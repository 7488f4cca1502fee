//! Gram matrices of inputs.

use core::ops::Range;

use super::lanes::{LANES, Lanes, all};
use crate::Cpu;
use crate::isa::{Isa, Kernel, dispatch_floats};

/// Adds `x^T x` of rows `x` `(n, k)` to `out`, which holds the rows `rows` of the Gram matrix `(k, k)`; entries up to the diagonal are right,
/// of those behind it up to fifteen hold something else. Sums run over the rows of `x` in order.
///
/// # Panics
/// When a length does not fit.
pub fn accumulate(cpu: Cpu, x: &[f32], k: usize, rows: Range<usize>, out: &mut [f32]) {
    assert!(x.len().is_multiple_of(k) && rows.end <= k && out.len() == rows.len() * k, "rows of k columns");
    dispatch_floats(cpu, Accumulate { x, k, rows, out });
}

struct Accumulate<'a> {
    x: &'a [f32],
    k: usize,
    rows: Range<usize>,
    out: &'a mut [f32],
}

impl Kernel for Accumulate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _isa: I) {
        const ROWS: usize = 4;
        let Accumulate { x, k, rows, out } = self;
        for first in rows.clone().step_by(ROWS) {
            let count = ROWS.min(rows.end - first);
            let columns: [usize; ROWS] = core::array::from_fn(|r| first + r.min(count - 1));
            let last = first + count;
            for start in (0..last).step_by(LANES) {
                let width = LANES.min(k - start);
                let mut sums = [all(0.0); ROWS];
                for x in x.chunks_exact(k) {
                    let mut lanes: Lanes = all(0.0);
                    if width == LANES {
                        lanes = x[start..start + LANES].try_into().expect("sixteen");
                    } else {
                        lanes[..width].copy_from_slice(&x[start..]);
                    }
                    for r in 0..ROWS {
                        let factor = x[columns[r]];
                        for l in 0..LANES {
                            sums[r][l] += factor * lanes[l];
                        }
                    }
                }
                for r in 0..count {
                    let row = &mut out[(first - rows.start + r) * k + start..][..width];
                    row.iter_mut().zip(&sums[r]).for_each(|(out, sum)| *out += sum);
                }
            }
        }
    }
}
