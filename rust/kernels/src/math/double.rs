//! The f64 functions.

/// `1.5 * 2^52`: adding it rounds a value below 2^51 in magnitude to an integer, ties to even.
const ROUND: f64 = 6_755_399_441_055_744.0;

/// ln 2 in two parts: the upper has 32 bits, so that its product with an exponent is exact.
const LN2_HIGH: f64 = 0.693_147_180_369_123_8;
const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// `1/n!` for n = 2, 3, …
const INVERSE_FACTORIALS: [f64; 17] = {
    let mut table = [0.0; 17];
    let (mut i, mut factorial) = (0, 1.0);
    while i < table.len() {
        // Exact in f64 up to 18!.
        factorial *= (i + 2) as f64;
        table[i] = 1.0 / factorial;
        i += 1;
    }
    table
};

/// `1/n!`, n >= 2.
const fn inverse_factorial(n: usize) -> f64 {
    INVERSE_FACTORIALS[n - 2]
}

/// `2^n` for n in -1022..=1023.
fn power_of_two(n: i64) -> f64 {
    f64::from_bits(((n + 1023) as u64) << 52)
}

/// The sum and its rounding error.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    let t = s - a;
    (s, (a - (s - t)) + (b - t))
}

/// The product and its rounding error.
fn two_product(a: f64, b: f64) -> (f64, f64) {
    let p = a * b;
    (p, a.mul_add(b, -p))
}

/// `e^x` in f64, within 1 ulp; overflow gives infinity, underflow denormals and then zero, NaN stays NaN.
pub fn exp64(x: f64) -> f64 {
    exp_sum(x, 0.0)
}

/// `e^(x + low)` with `low` far below an ulp-sized part of `x`.
fn exp_sum(x: f64, low: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x > 710.0 {
        return f64::INFINITY;
    }
    if x < -746.0 {
        return 0.0;
    }
    // x = n ln 2 + r + tail, with |r| <= ln(2)/2 and what the rounding of r lost in `tail`.
    let n = (x * std::f64::consts::LOG2_E + ROUND) - ROUND;
    let (r, tail) = two_sum(x - n * LN2_HIGH, -n * LN2_LOW);
    let tail = tail + low;
    // Taylor: |r|^14 / 14! < 5e-18. e^(r + tail) = 1 + r + r² p + tail e^r.
    let mut p = inverse_factorial(13);
    for k in (2..13).rev() {
        p = p * r + inverse_factorial(k);
    }
    let curve = r * r * p;
    let e = 1.0 + (r + (curve + tail * (1.0 + (r + curve))));
    let n = n as i64;
    e * power_of_two(n >> 1) * power_of_two(n - (n >> 1))
}

/// `x = 2^k (1 + f)` for positive finite `x`, `1 + f` between about √½ and √2: `(k, f)`.
fn split(x: f64) -> (i64, f64) {
    let (x, offset) = if x < f64::MIN_POSITIVE { (x * power_of_two(54), -54) } else { (x, 0) };
    let bits = x.to_bits();
    let (exponent, mantissa) = ((bits >> 52) as i64 - 1023, bits & ((1 << 52) - 1));
    // √2 = 1.6a09e667f3bcd in hexadecimal
    let up = i64::from(mantissa > 0x6_a09e_667f_3bcd);
    let m = f64::from_bits(mantissa | ((1023 - up) as u64) << 52);
    (exponent + offset + up, m - 1.0)
}

/// `(2/3) z + (2/5) z² + …`, so that `ln((1 + s) / (1 - s)) = 2 s + s R(s²)`; |s| <= 0.1716.
fn ln_series(z: f64) -> f64 {
    let mut r = 0.0;
    for j in (1..=11).rev() {
        r = z * (r + 2.0 / f64::from(2 * j + 1));
    }
    r
}

/// Natural logarithm in f64, within 1 ulp. Zero gives -∞, a negative number NaN.
pub fn ln64(x: f64) -> f64 {
    if x.is_nan() || x < 0.0 {
        return f64::NAN;
    }
    if x == 0.0 {
        return f64::NEG_INFINITY;
    }
    if x == f64::INFINITY {
        return x;
    }
    let (high, low) = ln_sum(x);
    high + low
}

/// The logarithm of a positive finite number as the sum of two, with about 59 bits.
fn ln_sum(x: f64) -> (f64, f64) {
    let (k, f) = split(x);
    let k = k as f64;
    // ln(1 + f) = 2s + s R(s²) with s = f / (2 + f) as a sum of two.
    let (d, d_low) = two_sum(2.0, f);
    let s = f / d;
    let s_low = ((-s).mul_add(d, f) - s * d_low) / d;
    let (a, a_low) = two_sum(k * LN2_HIGH, 2.0 * s);
    let (b, b_low) = two_product(k, LN2_LOW);
    let (sum, sum_low) = two_sum(a, b);
    // s R is the largest of the small parts; its own rounding is 2^-7 of an ulp of 2s or less.
    let (sum, last) = two_sum(sum, s * ln_series(s * s));
    two_sum(sum, last + (sum_low + a_low + b_low + 2.0 * s_low))
}

/// `base^exponent` for a positive finite base, within a few ulp; NaN for every other base.
pub fn pow64(base: f64, exponent: f64) -> f64 {
    if !(base > 0.0 && base < f64::INFINITY) || exponent.is_nan() {
        return f64::NAN;
    }
    let (high, low) = ln_sum(base);
    let (y, y_low) = two_product(exponent, high);
    if !y.is_finite() {
        return exp64(y);
    }
    exp_sum(y, y_low + exponent * low)
}

/// Largest magnitude that [`sin_cos64`] takes: 2^27.
pub const SIN_COS_LIMIT: f64 = 134_217_728.0;

/// Sine and cosine of `x` radians in f64, `|x| <= 2^27`; a pair of NaN outside (infinities and NaN included).
///
/// The absolute error is below 2^-53, the relative one within 1 ulp except within 2^-45 of a multiple of π/2, where it
/// grows.
pub fn sin_cos64(x: f64) -> (f64, f64) {
    // π/2 in parts of 26 bits (the last has 53): a product with n < 2^27 is exact.
    const PARTS: [f64; 4] =
        [1.570_796_310_901_641_8, 1.589_325_471_229_585_7e-8, 6.123_233_932_053_594e-17, 6.368_317_163_510_95e-25];
    if x.is_nan() || x.abs() > SIN_COS_LIMIT {
        return (f64::NAN, f64::NAN);
    }
    // x = n π/2 + r + low
    let n = (x * std::f64::consts::FRAC_2_PI + ROUND) - ROUND;
    // Exact: both are multiples of the smaller of their units, and the difference is small.
    let r = x - n * PARTS[0];
    let (r, e1) = two_sum(r, -n * PARTS[1]);
    let (r, e2) = two_sum(r, -n * PARTS[2]);
    let (r, low) = two_sum(r, e1 + (e2 - n * PARTS[3]));

    // Taylor: sin r = r + r³ S(r²), cos r = 1 - r²/2 + r⁴ C(r²); |r| <= π/4, the first term left out is below 1e-18.
    let z = r * r;
    let (mut s, mut c) = (0.0, 0.0);
    for k in [17, 13, 9, 5] {
        s = (s * z + inverse_factorial(k)) * z - inverse_factorial(k - 2);
        c = (c * z - inverse_factorial(k + 1)) * z + inverse_factorial(k - 1);
    }
    let sin = r + (r * z * s + low * (1.0 - 0.5 * z));
    // 1 - z/2 rounds; what it loses is added back.
    let half = 0.5 * z;
    let w = 1.0 - half;
    let cos = w + (((1.0 - w) - half) + (z * z * c - r * low));
    match n as i64 & 3 {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}
