//! Norms, gates, rope, softmax and conversions of single rows.
//!
//! Sums keep sixteen lanes: lane `l` takes the values `16 i + l` in order, a shorter rest touches only its own lanes, and
//! the lanes join by the tree `(l, l + 8)`, `(l, l + 4)`, `(l, l + 2)`, `(l, l + 1)`.
//!
//! Every function panics when the lengths of its slices do not fit together.

mod convert;
mod maps;
mod norms;
mod probabilities;
mod rope;

pub use convert::{from_f16, to_f16};
pub use maps::{
    add, add_scaled, clamped_swiglu, exp, gelu, gelu_mul, mul, mul_sigmoid, scale, sigmoid, silu, silu_mul, softcap,
    softplus, tanh,
};
pub use norms::{add_rms_norm, l2_norm_in_place, layer_norm, rms_norm, rms_norm_in_place};
pub use probabilities::{argmax, divergence, log_sum_exp, softmax};
pub use rope::{RopeStyle, rope};
