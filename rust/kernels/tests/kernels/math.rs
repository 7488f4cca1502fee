//! Accuracy against std, and the levels against the scalar one.
#![allow(clippy::print_stdout, reason = "the measured errors, for whoever asks with --nocapture")]

use crate::{bits, other_levels, scalar};
use fastq_kernels::Cpu;
use fastq_kernels::elementwise;
use fastq_kernels::math::*;
use fastq_kernels::testing::{Cases, Rng};

/// Uniform in 0..1 with 53 bits.
fn unit(rng: &mut Rng) -> f64 {
    (rng.bits() >> 11) as f64 / (1u64 << 53) as f64
}

/// Every `step`-th f32 by its bits, all signs, denormals, infinities and NaN among them.
fn sample(step: usize) -> impl Iterator<Item = Vec<f32>> {
    let mut next = 0u64;
    std::iter::from_fn(move || {
        let row: Vec<f32> = (0..1 << 16)
            .map_while(|_| {
                let bits = u32::try_from(next).ok()?;
                next += step as u64;
                Some(f32::from_bits(bits))
            })
            .collect();
        (!row.is_empty()).then_some(row)
    })
}

/// Distance of `got` from `want` in steps of an f32 at `want`.
fn ulps(got: f32, want: f64) -> f64 {
    if got.is_nan() || want.is_nan() {
        return if got.is_nan() && want.is_nan() { 0.0 } else { f64::INFINITY };
    }
    let rounded = want as f32;
    if got == rounded {
        return if rounded.is_infinite() { 0.0 } else { (f64::from(got) - want).abs() / step(rounded) };
    }
    (f64::from(got) - want).abs() / step(rounded)
}

fn step(x: f32) -> f64 {
    let x = x.abs().min(f32::MAX);
    let exponent = (x.to_bits() >> 23).max(1) as i32;
    2f64.powi(exponent - 127 - 23)
}

type Function = (&'static str, fn(Cpu, &mut [f32]), fn(f64) -> f64, f64);

/// Name, function, reference, allowed ulps. SiLU and GELU lose the bits that their exponents lose: |x| below 90 · 2^-24
/// relative, plus a polynomial of x in GELU; what is left of them is denormal.
const FUNCTIONS: [Function; 6] = [
    ("exp", elementwise::exp, f64::exp, 1.0),
    ("tanh", elementwise::tanh, f64::tanh, 2.0),
    ("sigmoid", elementwise::sigmoid, |x| 1.0 / (1.0 + (-x).exp()), 3.0),
    ("softplus", elementwise::softplus, |x| x.max(0.0) + (-x.abs()).exp().ln_1p(), 3.0),
    ("silu", elementwise::silu, |x| x / (1.0 + (-x).exp()), 3.0),
    (
        "gelu",
        elementwise::gelu,
        |x| {
            let u = 0.044715f32 as f64 * x * x * x + x;
            x / (1.0 + (-1.5957691216057308 * u).exp())
        },
        f64::INFINITY,
    ),
];

/// FASTQ_EXHAUSTIVE=1 tries all 2^32 values of every function.
fn step_of_sample() -> usize {
    if std::env::var_os("FASTQ_EXHAUSTIVE").is_some() { 1 } else { 1009 * Cases::new().share() }
}

#[test]
fn f32_functions_are_accurate() {
    for (name, function, reference, allowed) in FUNCTIONS {
        let (mut worst, mut at) = (0.0, 0.0);
        // The scalar level equals the others (next test), so the fastest may speak for it.
        let cpu = other_levels().pop().unwrap_or(scalar());
        for x in sample(step_of_sample()) {
            let mut y = x.clone();
            function(cpu, &mut y);
            for (&x, &y) in x.iter().zip(&y) {
                // e^-x overflows there while the true result is a denormal.
                if (name == "silu" && x.is_infinite())
                    || (matches!(name, "silu" | "sigmoid") && x < -88.0)
                    || name == "gelu"
                {
                    continue;
                }
                let error = ulps(y, reference(f64::from(x)));
                if error > worst {
                    (worst, at) = (error, x);
                }
            }
        }
        println!("{name}: {worst:.3} ulp at {at:e}");
        assert!(worst <= allowed, "{name} is {worst} ulp off at {at:e}");
    }
}

#[test]
fn gelu_is_accurate_relative_to_its_argument() {
    let mut worst = 0f64;
    for i in -60_000..60_000 {
        let x = i as f32 * 1e-3;
        let mut y = [x];
        elementwise::gelu(scalar(), &mut y);
        let want = (FUNCTIONS[5].2)(f64::from(x));
        // For x > -5 every digit counts; below, the exponent's rounding shows (1e-5 of a value below 1e-6).
        let scale = if x > -5.0 { want.abs() } else { want.abs().max(1e-7) };
        worst = worst.max((f64::from(y[0]) - want).abs() / scale.max(1e-30));
    }
    println!("gelu: relative {worst:e}");
    assert!(worst < 5e-6);
}

#[test]
fn f32_functions_are_equal_on_every_level() {
    for cpu in other_levels() {
        for (name, function, ..) in FUNCTIONS {
            for x in sample(step_of_sample() * 4 + 1) {
                let (mut want, mut got) = (x.clone(), x.clone());
                function(scalar(), &mut want);
                function(cpu, &mut got);
                if bits(&want) != bits(&got) {
                    let l = (0..x.len()).find(|&l| bits(&want[l..=l]) != bits(&got[l..=l])).unwrap();
                    panic!("{name}({:e}) on {}: {:e}, scalar {:e}", x[l], cpu.level().name(), got[l], want[l]);
                }
            }
        }
    }
}

#[test]
fn f32_functions_at_the_edges() {
    let one = |function: fn(Cpu, &mut [f32]), x: f32| {
        let mut y = [x];
        function(scalar(), &mut y);
        y[0]
    };
    assert_eq!(one(elementwise::exp, 0.0), 1.0);
    assert_eq!(one(elementwise::exp, f32::INFINITY), f32::INFINITY);
    assert_eq!(one(elementwise::exp, f32::NEG_INFINITY), 0.0);
    assert_eq!(one(elementwise::exp, -103.0), f32::from_bits(1));
    assert_eq!(one(elementwise::exp, -1e30), 0.0);
    assert!(one(elementwise::exp, f32::NAN).is_nan());
    assert_eq!(one(elementwise::tanh, f32::NEG_INFINITY), -1.0);
    assert_eq!(one(elementwise::tanh, -0.0).to_bits(), (-0.0f32).to_bits());
    assert_eq!(one(elementwise::tanh, 1e-40), 1e-40);
    assert_eq!(one(elementwise::gelu, f32::MAX), f32::MAX);
    assert_eq!(one(elementwise::gelu, f32::MIN), 0.0);
    assert_eq!(one(elementwise::silu, f32::MIN), 0.0);
    assert_eq!((one(elementwise::sigmoid, f32::MIN), one(elementwise::sigmoid, f32::MAX)), (0.0, 1.0));
    assert_eq!((one(elementwise::softplus, f32::MIN), one(elementwise::softplus, f32::MAX)), (0.0, f32::MAX));
    assert!(one(elementwise::softplus, f32::NAN).is_nan());
}

/// Distance in f64 steps, when the reference (std) is itself within half a step or so.
fn ulps64(got: f64, want: f64) -> f64 {
    if got == want || (got.is_nan() && want.is_nan()) {
        return 0.0;
    }
    let exponent = (want.abs().to_bits() >> 52).max(1) as i32;
    // 2^(exponent - 1023 - 52) may be a denormal: divide twice.
    let (a, b) = (2f64.powi((exponent - 1075) / 2), 2f64.powi(exponent - 1075 - (exponent - 1075) / 2));
    (got - want).abs() / a / b
}

#[test]
fn f64_functions_are_accurate() {
    let mut rng = Rng::new(1);
    let mut worst = [("exp64", 0f64, 0f64); 6];
    let mut note = |i: usize, name: &'static str, error: f64, x: f64| {
        if error.is_nan() || error > worst[i].1 {
            worst[i] = (name, error, x);
        }
    };
    for _ in 0..300_000 {
        let x = (unit(&mut rng) - 0.5) * 1480.0;
        note(0, "exp64", ulps64(exp64(x), x.exp()), x);
        let x = f64::from_bits(rng.bits() >> 1);
        note(1, "ln64", ulps64(ln64(x), x.ln()), x);
        let x = 1.0 + (unit(&mut rng) - 0.5) * 0.9;
        note(1, "ln64", ulps64(ln64(x), x.ln()), x);
        let x = (unit(&mut rng) - 0.5) * 2.0 * [1.0, 10.0, 1e5, SIN_COS_LIMIT][rng.bits() as usize % 4];
        let (sin, cos) = sin_cos64(x);
        note(2, "sin64", ulps64(sin, x.sin()), x);
        note(3, "cos64", ulps64(cos, x.cos()), x);
        // The frequencies of rope: base^(-2i/n).
        let (base, exponent) = (10f64.powf(1.0 + 7.0 * unit(&mut rng)), -unit(&mut rng));
        note(4, "pow64, rope", ulps64(pow64(base, exponent), base.powf(exponent)), base);
        let (base, exponent) = (unit(&mut rng) * 1e4, (unit(&mut rng) - 0.5) * 150.0);
        note(5, "pow64", ulps64(pow64(base, exponent), base.powf(exponent)), base);
    }
    for (name, error, x) in worst {
        println!("{name}: {error} ulp at {x:e}");
    }
    for ((name, error, x), allowed) in worst.into_iter().zip([1.0, 1.0, 1.0, 1.0, 2.0, 8.0]) {
        assert!(error <= allowed, "{name} is {error} ulp off at {x:e}");
    }
}

#[test]
fn sin_cos_next_to_multiples_of_half_pi() {
    for n in [1i64, 2, 3, 7, 1000, 1_000_003, 85_445_659] {
        let x = n as f64 * std::f64::consts::FRAC_PI_2;
        let (sin, cos) = sin_cos64(x);
        assert!(ulps64(sin, x.sin()) <= 1.0, "sin {x}: {sin:e} {:e}", x.sin());
        assert!(ulps64(cos, x.cos()) <= 1.0, "cos {x}: {cos:e} {:e}", x.cos());
    }
}

#[test]
fn f64_functions_at_the_edges() {
    assert_eq!((exp64(0.0), exp64(f64::INFINITY), exp64(f64::NEG_INFINITY)), (1.0, f64::INFINITY, 0.0));
    assert_eq!((exp64(709.9), exp64(-745.0), exp64(-800.0)), (f64::INFINITY, f64::from_bits(1), 0.0));
    assert!(exp64(f64::NAN).is_nan() && ln64(f64::NAN).is_nan() && ln64(-1.0).is_nan());
    assert_eq!((ln64(0.0), ln64(-0.0), ln64(1.0)), (f64::NEG_INFINITY, f64::NEG_INFINITY, 0.0));
    assert_eq!((ln64(f64::INFINITY), ln64(f64::from_bits(1))), (f64::INFINITY, f64::from_bits(1).ln()));
    assert_eq!((pow64(7.0, 0.0), pow64(10_000.0, 1.0), pow64(2.0, -3.0)), (1.0, 10_000.0, 0.125));
    assert_eq!((pow64(1e300, 2.0), pow64(1e300, -2.0), pow64(1e300, 1e300)), (f64::INFINITY, 0.0, f64::INFINITY));
    assert!(pow64(-1.0, 2.0).is_nan() && pow64(0.0, 1.0).is_nan() && pow64(f64::INFINITY, 1.0).is_nan());
    assert_eq!(sin_cos64(0.0), (0.0, 1.0));
    assert!(sin_cos64(SIN_COS_LIMIT).0.is_finite());
    assert!(sin_cos64(1.5e8).0.is_nan() && sin_cos64(f64::INFINITY).1.is_nan() && sin_cos64(f64::NAN).0.is_nan());
}
