//! Softmax and what else looks at a whole row of logits.

use crate::isa::floats::Floats;
use crate::isa::{Isa, Kernel, dispatch_floats};
use crate::{Cpu, LANES, math};

/// The largest value, and whether any is NaN; -∞ for an empty row.
#[inline(always)]
fn largest<I: Floats>(isa: I, x: &[f32]) -> (f32, bool) {
    let (vectors, rest) = x.as_chunks::<LANES>();
    let mut largest = isa.splat(f32::NEG_INFINITY);
    let mut nan = 0;
    for x in vectors {
        let x = isa.load(x);
        largest = isa.max(largest, x);
        nan |= isa.is_nan(x);
    }
    let x = isa.load_first(rest, f32::NEG_INFINITY);
    largest = isa.max(largest, x);
    nan |= isa.is_nan(x);
    (isa.largest(largest), nan != 0)
}

/// The largest value and the sum of `e^(x - max)`; NaN when a value is.
struct SumExp<'a> {
    x: &'a [f32],
}

impl Kernel for SumExp<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> (f32, f32) {
        let (max, nan) = largest(isa, self.x);
        if nan {
            return (f32::NAN, f32::NAN);
        }
        let shift = isa.splat(max);
        let (vectors, rest) = self.x.as_chunks::<LANES>();
        let mut acc = isa.splat(0.0);
        for x in vectors {
            acc = isa.add(acc, math::exp(isa, isa.sub(isa.load(x), shift)));
        }
        if !rest.is_empty() {
            let e = math::exp(isa, isa.sub(isa.load_first(rest, max), shift));
            acc = isa.select_lanes(0, rest.len(), isa.add(acc, e), acc);
        }
        (max, isa.sum(acc))
    }
}

struct Softmax<'a> {
    x: &'a mut [f32],
}

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (max, _) = largest(isa, self.x);
        let shift = isa.splat(max);
        let (vectors, rest) = self.x.as_chunks_mut::<LANES>();
        let mut acc = isa.splat(0.0);
        for x in vectors.iter_mut() {
            let e = math::exp(isa, isa.sub(isa.load(x), shift));
            isa.store(e, x);
            acc = isa.add(acc, e);
        }
        if !rest.is_empty() {
            let e = math::exp(isa, isa.sub(isa.load_first(rest, max), shift));
            isa.store_first(e, rest);
            acc = isa.select_lanes(0, rest.len(), isa.add(acc, e), acc);
        }
        let sum = isa.splat(isa.sum(acc));
        for x in vectors {
            isa.store(isa.div(isa.load(x), sum), x);
        }
        if !rest.is_empty() {
            isa.store_first(isa.div(isa.load_first(rest, 0.0), sum), rest);
        }
    }
}

/// Turns logits into probabilities in place: `exp(x - max) / sum`. All NaN when a value is NaN or the largest is infinite.
pub fn softmax(cpu: Cpu, x: &mut [f32]) {
    dispatch_floats(cpu, Softmax { x });
}

/// `ln Σ e^x`: the log-probability of value `i` is `x[i] - log_sum_exp`. NaN when a value is NaN or the largest is infinite.
pub fn log_sum_exp(cpu: Cpu, x: &[f32]) -> f64 {
    let (max, sum) = dispatch_floats(cpu, SumExp { x });
    f64::from(max) + math::ln64(f64::from(sum))
}

/// Vectors whose terms are added up as f32 before they go into the f64 sum.
const TERMS: usize = 64;

struct Divergence<'a> {
    p: &'a [f32],
    q: &'a [f32],
    /// `log_sum_exp` of `p`.
    p_sum: f32,
    /// What `log_sum_exp` of `p` is above that of `q`.
    shift: f32,
}

impl Kernel for Divergence<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f64 {
        let (p_sum, shift) = (isa.splat(self.p_sum), isa.splat(self.shift));
        let mut total = 0.0f64;
        for (p, q) in self.p.chunks(TERMS * LANES).zip(self.q.chunks(TERMS * LANES)) {
            let mut acc = isa.splat(0.0);
            for (p, q) in p.chunks(LANES).zip(q.chunks(LANES)) {
                let (x, y) = (isa.load_first(p, 0.0), isa.load_first(q, 0.0));
                let term = isa.sub(isa.sub(x, y), shift);
                let sum = isa.fma(math::exp(isa, isa.sub(x, p_sum)), term, acc);
                acc = isa.select_lanes(0, p.len(), sum, acc);
            }
            total += f64::from(isa.sum(acc));
        }
        total
    }
}

/// The Kullback-Leibler divergence `Σ p (ln p - ln q)` in nats between the distributions that two rows of logits stand for. The sum has
/// f32 terms, of which each 1024 are added up in lanes, and these sums in f64. NaN when a value is, or the largest is infinite.
pub fn divergence(cpu: Cpu, p: &[f32], q: &[f32]) -> f64 {
    assert_eq!(p.len(), q.len(), "both rows must have the same length");
    let (p_sum, q_sum) = (log_sum_exp(cpu, p), log_sum_exp(cpu, q));
    dispatch_floats(cpu, Divergence { p, q, p_sum: p_sum as f32, shift: (p_sum - q_sum) as f32 })
}

struct Argmax<'a> {
    x: &'a [f32],
}

impl Kernel for Argmax<'_> {
    type Output = Option<(usize, f32)>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Self::Output {
        let (max, nan) = largest(isa, self.x);
        if nan {
            return None;
        }
        let wanted = isa.splat(max);
        let (vectors, rest) = self.x.as_chunks::<LANES>();
        for (i, x) in vectors.iter().enumerate() {
            let found = isa.equal(isa.load(x), wanted);
            if found != 0 {
                let index = i * LANES + found.trailing_zeros() as usize;
                return Some((index, self.x[index]));
            }
        }
        let start = self.x.len() - rest.len();
        rest.iter().position(|&x| x == max).map(|l| (start + l, rest[l]))
    }
}

/// The largest value and its first index; `None` for an empty row or one that holds a NaN.
pub fn argmax(cpu: Cpu, x: &[f32]) -> Option<(usize, f32)> {
    dispatch_floats(cpu, Argmax { x })
}
