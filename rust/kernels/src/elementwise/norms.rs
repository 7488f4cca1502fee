//! RMS norm and layer norm.

use crate::isa::floats::Floats;
use crate::isa::{Isa, Kernel, dispatch_floats};
use crate::{Cpu, LANES};

/// `Σ (x - shift)²`.
#[inline(always)]
fn sum_of_squares<I: Floats>(isa: I, x: &[f32], shift: f32) -> f32 {
    let shift = isa.splat(shift);
    let (vectors, rest) = x.as_chunks::<LANES>();
    let mut acc = isa.splat(0.0);
    for x in vectors {
        let d = isa.sub(isa.load(x), shift);
        acc = isa.fma(d, d, acc);
    }
    if !rest.is_empty() {
        let d = isa.sub(isa.load_first(rest, 0.0), shift);
        acc = isa.select_lanes(0, rest.len(), isa.fma(d, d, acc), acc);
    }
    isa.sum(acc)
}

/// `Σ x`.
#[inline(always)]
fn sum<I: Floats>(isa: I, x: &[f32]) -> f32 {
    let (vectors, rest) = x.as_chunks::<LANES>();
    let mut acc = isa.splat(0.0);
    for x in vectors {
        acc = isa.add(acc, isa.load(x));
    }
    if !rest.is_empty() {
        acc = isa.select_lanes(0, rest.len(), isa.add(acc, isa.load_first(rest, 0.0)), acc);
    }
    isa.sum(acc)
}

/// `x = x * factor * weight`.
#[inline(always)]
fn scale_by<I: Floats>(isa: I, x: &mut [f32], factor: f32, weight: Option<&[f32]>) {
    let factor = isa.splat(factor);
    let (vectors, rest) = x.as_chunks_mut::<LANES>();
    match weight {
        Some(weight) => {
            let (w_vectors, w_rest) = weight.as_chunks::<LANES>();
            for (x, w) in vectors.iter_mut().zip(w_vectors) {
                isa.store(isa.mul(isa.mul(isa.load(x), factor), isa.load(w)), x);
            }
            if !rest.is_empty() {
                let v = isa.mul(isa.mul(isa.load_first(rest, 0.0), factor), isa.load_first(w_rest, 0.0));
                isa.store_first(v, rest);
            }
        }
        None => {
            for x in vectors {
                isa.store(isa.mul(isa.load(x), factor), x);
            }
            if !rest.is_empty() {
                isa.store_first(isa.mul(isa.load_first(rest, 0.0), factor), rest);
            }
        }
    }
}

/// `1 / sqrt(squares / n + eps)`: scalar operations that IEEE defines exactly.
#[inline(always)]
fn inverse_root(squares: f32, n: usize, eps: f32) -> f32 {
    1.0 / (squares / n as f32 + eps).sqrt()
}

fn check_weight(n: usize, weight: Option<&[f32]>) {
    if let Some(weight) = weight {
        assert_eq!(n, weight.len(), "the weight must have the length of the row");
    }
}

/// `x = x / sqrt(Σ x² / count + eps) * weight`.
struct RmsNorm<'a> {
    x: &'a mut [f32],
    count: usize,
    weight: Option<&'a [f32]>,
    eps: f32,
}

impl Kernel for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let factor = inverse_root(sum_of_squares(isa, self.x, 0.0), self.count, self.eps);
        scale_by(isa, self.x, factor, self.weight);
    }
}

/// `out = x / sqrt(mean(x²) + eps) * weight`.
pub fn rms_norm(cpu: Cpu, x: &[f32], weight: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    out.copy_from_slice(x);
    rms_norm_in_place(cpu, out, weight, eps);
}

/// `x = x / sqrt(mean(x²) + eps) * weight`.
pub fn rms_norm_in_place(cpu: Cpu, x: &mut [f32], weight: Option<&[f32]>, eps: f32) {
    check_weight(x.len(), weight);
    let count = x.len();
    dispatch_floats(cpu, RmsNorm { x, count, weight, eps });
}

/// `x = x / sqrt(Σ x² + eps)`.
pub fn l2_norm_in_place(cpu: Cpu, x: &mut [f32], eps: f32) {
    dispatch_floats(cpu, RmsNorm { x, count: 1, weight: None, eps });
}

/// `x += y`, then `out = x / sqrt(mean(x²) + eps) * weight`: the bits of [`add`](super::add) and [`rms_norm`].
pub fn add_rms_norm(cpu: Cpu, x: &mut [f32], y: &[f32], weight: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    super::add(cpu, x, y);
    rms_norm(cpu, x, weight, eps, out);
}

struct LayerNorm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    eps: f32,
    out: &'a mut [f32],
}

impl Kernel for LayerNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let n = self.x.len();
        let mean = sum(isa, self.x) / n as f32;
        let factor = inverse_root(sum_of_squares(isa, self.x, mean), n, self.eps);
        let (mean, factor) = (isa.splat(mean), isa.splat(factor));
        for start in (0..n).step_by(LANES) {
            let lanes = start..n.min(start + LANES);
            let centred = isa.sub(isa.load_first(&self.x[lanes.clone()], 0.0), mean);
            let weight = isa.load_first(&self.weight[lanes.clone()], 0.0);
            let scaled = isa.mul(centred, factor);
            let v = match self.bias {
                Some(bias) => isa.fma(scaled, weight, isa.load_first(&bias[lanes.clone()], 0.0)),
                None => isa.mul(scaled, weight),
            };
            isa.store_first(v, &mut self.out[lanes]);
        }
    }
}

/// `out = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias`, the product with the weight and the sum as one `fma`.
pub fn layer_norm(cpu: Cpu, x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    check_weight(x.len(), Some(weight));
    check_weight(x.len(), bias);
    assert_eq!(x.len(), out.len(), "the output must have the length of the row");
    dispatch_floats(cpu, LayerNorm { x, weight, bias, eps, out });
}
