//! Functions of one value or of two values at the same place.

use crate::isa::floats::Floats;
use crate::isa::{Isa, Kernel, dispatch_floats};
use crate::{Cpu, LANES, math};

/// A function of the lanes of `x` and `y`.
trait Map: Copy {
    fn map<I: Floats>(self, isa: I, x: I::F, y: I::F) -> I::F;
}

/// `x = map(x, y)`; without `y`, zeros stand for it.
struct InPlace<'a, M> {
    x: &'a mut [f32],
    y: Option<&'a [f32]>,
    map: M,
}

impl<M: Map> Kernel for InPlace<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (vectors, rest) = self.x.as_chunks_mut::<LANES>();
        match self.y {
            Some(y) => {
                let (y_vectors, y_rest) = y.as_chunks::<LANES>();
                for (x, y) in vectors.iter_mut().zip(y_vectors) {
                    isa.store(self.map.map(isa, isa.load(x), isa.load(y)), x);
                }
                if !rest.is_empty() {
                    let v = self.map.map(isa, isa.load_first(rest, 0.0), isa.load_first(y_rest, 0.0));
                    isa.store_first(v, rest);
                }
            }
            None => {
                let zero = isa.splat(0.0);
                for x in vectors {
                    isa.store(self.map.map(isa, isa.load(x), zero), x);
                }
                if !rest.is_empty() {
                    isa.store_first(self.map.map(isa, isa.load_first(rest, 0.0), zero), rest);
                }
            }
        }
    }
}

fn in_place(cpu: Cpu, x: &mut [f32], y: Option<&[f32]>, map: impl Map) {
    if let Some(y) = y {
        assert_eq!(x.len(), y.len(), "both rows must have the same length");
    }
    dispatch_floats(cpu, InPlace { x, y, map });
}

/// Declares a function of this module and its [`Map`].
macro_rules! map {
    ($(#[$doc:meta])* $name:ident($($other:ident)?; $($parameter:ident)?), $type:ident,
     |$isa:ident, $x:ident, $y:ident $(, $factor:ident)?| $body:expr) => {
        #[derive(Clone, Copy)]
        struct $type { $($parameter: f32)? }

        impl Map for $type {
            #[inline(always)]
            fn map<I: Floats>(self, $isa: I, $x: I::F, $y: I::F) -> I::F {
                $(let $factor = $isa.splat(self.$factor);)?
                $body
            }
        }

        $(#[$doc])*
        pub fn $name(cpu: Cpu, x: &mut [f32] $(, $other: &[f32])? $(, $parameter: f32)?) {
            in_place(cpu, x, map!(@other $($other)?), $type { $($parameter)? });
        }
    };
    (@other) => { None };
    (@other $other:ident) => { Some($other) };
}

map!(
    /// `x += y`.
    add(y;), Add, |isa, x, y| isa.add(x, y)
);
map!(
    /// `x *= y`.
    mul(y;), Mul, |isa, x, y| isa.mul(x, y)
);
map!(
    /// `x = fma(y, factor, x)`.
    add_scaled(y; factor), AddScaled, |isa, x, y, factor| isa.fma(y, factor, x)
);
map!(
    /// `x *= factor`.
    scale(; factor), Scale, |isa, x, _y, factor| isa.mul(x, factor)
);
map!(
    /// `x = silu(x)`, with `silu(x) = x / (1 + exp(-x))`.
    silu(;), Silu, |isa, x, _y| math::silu(isa, x)
);
map!(
    /// `gate = silu(gate) * up`, with `silu(x) = x / (1 + exp(-x))`; `x` is the gate.
    silu_mul(up;), SiluMul, |isa, x, y| isa.mul(math::silu(isa, x), y)
);
map!(
    /// `x = sigmoid(x)`, with `sigmoid(x) = 1 / (1 + exp(-x))`.
    sigmoid(;), Sigmoid, |isa, x, _y| math::sigmoid(isa, x)
);
map!(
    /// `x *= sigmoid(gate)`.
    mul_sigmoid(gate;), MulSigmoid, |isa, x, y| isa.mul(x, math::sigmoid(isa, y))
);
map!(
    /// `x = ln(1 + e^x)`.
    softplus(;), Softplus, |isa, x, _y| math::softplus(isa, x)
);
map!(
    /// `x = gelu(x)`, with the tanh form of GELU.
    gelu(;), Gelu, |isa, x, _y| math::gelu(isa, x)
);
map!(
    /// `gate = gelu(gate) * up`, with the tanh form of GELU; `x` is the gate.
    gelu_mul(up;), GeluMul, |isa, x, y| isa.mul(math::gelu(isa, x), y)
);
map!(
    /// `gate = min(gate, 7) sigmoid(1.702 min(gate, 7)) (clamp(up, ±7) + 1)`, as gpt-oss has it; `x` is the gate.
    clamped_swiglu(up;), ClampedSwiglu, |isa, x, y| math::clamped_swiglu(isa, x, y)
);
map!(
    /// `x = cap * tanh(x / cap)`.
    softcap(; cap), Softcap, |isa, x, _y, cap| math::softcap(isa, x, cap)
);
map!(
    /// `x = e^x`.
    exp(;), Exp, |isa, x, _y| math::exp(isa, x)
);
map!(
    /// `x = tanh x`.
    tanh(;), Tanh, |isa, x, _y| math::tanh(isa, x)
);
