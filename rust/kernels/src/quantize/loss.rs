//! What an encoding costs at the outputs of a layer.

use super::lanes::{LANES, Lanes, all};
use crate::Cpu;
use crate::isa::{Isa, Kernel, dispatch_floats};

/// Adds up `(w - q) G (w - q)^T` over rows `(n, k)`: the squared error of the outputs over the inputs whose Gram matrix `(k, k)` is `gram`,
/// of which the lower triangle is read. `buffer` is memory to be used again.
///
/// # Panics
/// When a length does not fit.
pub fn loss(cpu: Cpu, gram: &[f32], k: usize, w: &[f32], q: &[f32], buffer: &mut Vec<f32>) -> f64 {
    assert!(gram.len() == k * k && w.len() == q.len() && w.len().is_multiple_of(k), "rows of k columns");
    buffer.clear();
    buffer.resize(k * LANES, 0.0);
    let mut sum = 0.0;
    for (w, q) in w.chunks(LANES * k).zip(q.chunks(LANES * k)) {
        buffer.fill(0.0);
        let errors = buffer.as_chunks_mut::<LANES>().0;
        for (l, (w, q)) in w.chunks_exact(k).zip(q.chunks_exact(k)).enumerate() {
            for (error, (w, q)) in errors.iter_mut().zip(w.iter().zip(q)) {
                error[l] = w - q;
            }
        }
        sum += dispatch_floats(cpu, Loss { gram, k, errors });
    }
    sum
}

/// Up to sixteen rows.
struct Loss<'a> {
    gram: &'a [f32],
    k: usize,
    errors: &'a [Lanes],
}

impl Kernel for Loss<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<I: Isa>(self, _isa: I) -> f64 {
        let Loss { gram, k, errors } = self;
        let mut total = [0.0f64; LANES];
        // Four columns at once: as many independent chains.
        const COLUMNS: usize = 4;
        for first in (0..k).step_by(COLUMNS) {
            let columns: [usize; COLUMNS] = core::array::from_fn(|c| (first + c).min(k - 1));
            let rows = columns.map(|column| &gram[column * k..column * k + first]);
            let mut sums = [all(0.0); COLUMNS];
            for (i, error) in errors[..first].iter().enumerate() {
                for c in 0..COLUMNS {
                    let g = rows[c][i];
                    for l in 0..LANES {
                        sums[c][l] += error[l] * g;
                    }
                }
            }
            for (j, mut sum) in (first..k).zip(sums) {
                for (i, error) in errors.iter().enumerate().take(j).skip(first) {
                    let g = gram[j * k + i];
                    for l in 0..LANES {
                        sum[l] += error[l] * g;
                    }
                }
                let g = gram[j * k + j];
                for l in 0..LANES {
                    let error = errors[j][l];
                    total[l] += f64::from(error * (2.0 * sum[l] + g * error));
                }
            }
        }
        total.iter().sum()
    }
}
