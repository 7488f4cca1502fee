//! Norms, gates, rope, softmax and conversions of single rows.

use crate::Cpu;

/// How rope pairs the values of a head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RopeStyle {
    /// `(x[2i], x[2i+1])`, as in Llama files.
    Pairs,
    /// `(x[i], x[i + n/2])`, as in NeoX, Qwen and Gemma.
    Halves,
}

/// `out = x / sqrt(mean(x²) + eps) * weight`.
pub fn rms_norm(cpu: Cpu, x: &[f32], weight: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    let _ = (cpu, x, weight, eps, out);
}

/// `out = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias`.
pub fn layer_norm(cpu: Cpu, x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    let _ = (cpu, x, weight, bias, eps, out);
}

/// `x += y`.
pub fn add(cpu: Cpu, x: &mut [f32], y: &[f32]) {
    let _ = (cpu, x, y);
}

/// `x *= factor`.
pub fn scale(cpu: Cpu, x: &mut [f32], factor: f32) {
    let _ = (cpu, x, factor);
}

/// `gate = silu(gate) * up`, with `silu(x) = x / (1 + exp(-x))`.
pub fn silu_mul(cpu: Cpu, gate: &mut [f32], up: &[f32]) {
    let _ = (cpu, gate, up);
}

/// `gate = gelu(gate) * up`, with the tanh form of GELU.
pub fn gelu_mul(cpu: Cpu, gate: &mut [f32], up: &[f32]) {
    let _ = (cpu, gate, up);
}

/// `x = cap * tanh(x / cap)`.
pub fn softcap(cpu: Cpu, x: &mut [f32], cap: f32) {
    let _ = (cpu, x, cap);
}

/// Turns logits into probabilities in place: `exp(x - max) / sum`.
pub fn softmax(cpu: Cpu, x: &mut [f32]) {
    let _ = (cpu, x);
}

/// Rotates the first `2 * cos.len()` values of every head of `x` `(heads, head_dim)`.
pub fn rope(cpu: Cpu, x: &mut [f32], head_dim: usize, style: RopeStyle, cos: &[f32], sin: &[f32]) {
    let _ = (cpu, x, head_dim, style, cos, sin);
}

/// f32 to f16 bits, round to nearest even.
pub fn to_f16(cpu: Cpu, x: &[f32], out: &mut [u16]) {
    let _ = (cpu, x, out);
}

/// f16 bits to f32, exact.
pub fn from_f16(cpu: Cpu, x: &[u16], out: &mut [f32]) {
    let _ = (cpu, x, out);
}

/// The largest value and its first index; `None` for an empty row or one that holds a NaN.
pub fn argmax(cpu: Cpu, x: &[f32]) -> Option<(usize, f32)> {
    let _ = (cpu, x);
    None
}
