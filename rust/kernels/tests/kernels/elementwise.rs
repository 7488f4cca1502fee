//! Every function against f64 and the scalar level, with rests of every length, off alignment, between guard pages.

use crate::{bits, other_levels, scalar};
use fastq_kernels::elementwise::*;
use fastq_kernels::half::{f16_to_f32, f32_to_f16};
use fastq_kernels::testing::{Guarded, Rng, Side};
use fastq_kernels::{Cpu, LANES};

fn row(rng: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.bell()).collect()
}

/// Lengths around whole vectors, and the widths of models.
fn lengths() -> impl Iterator<Item = usize> {
    (0..=50).chain([64, 576, 577, 640, 1535, 2048])
}

type Reference = fn(&[f64], &[f64], &[f64]) -> Vec<f64>;

/// A function that changes `x` given two more rows of the same length, and its reference in f64.
struct Function {
    name: &'static str,
    run: fn(Cpu, &mut [f32], &[f32], &[f32]),
    reference: Reference,
}

fn map2(x: &[f64], y: &[f64], f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    x.iter().zip(y).map(|(&x, &y)| f(x, y)).collect()
}

fn sigmoid64(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn gelu64(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
}

fn norm64(x: &[f64], w: Option<&[f64]>) -> Vec<f64> {
    let factor = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + 1e-5).sqrt();
    x.iter().enumerate().map(|(i, x)| x * factor * w.map_or(1.0, |w| w[i])).collect()
}

fn layer64(x: &[f64], w: &[f64], b: Option<&[f64]>) -> Vec<f64> {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let centred: Vec<f64> = x.iter().map(|x| x - mean).collect();
    let scaled = norm64(&centred, Some(w));
    scaled.iter().enumerate().map(|(i, x)| x + b.map_or(0.0, |b| b[i])).collect()
}

fn softmax64(x: &[f64]) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = x.iter().map(|x| (x - max).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|e| e / sum).collect()
}

const FUNCTIONS: &[Function] = &[
    Function { name: "add", run: |cpu, x, y, _| add(cpu, x, y), reference: |x, y, _| map2(x, y, |x, y| x + y) },
    Function { name: "mul", run: |cpu, x, y, _| mul(cpu, x, y), reference: |x, y, _| map2(x, y, |x, y| x * y) },
    Function {
        name: "add_scaled",
        run: |cpu, x, y, _| add_scaled(cpu, x, y, 0.75),
        reference: |x, y, _| map2(x, y, |x, y| x + 0.75 * y),
    },
    Function { name: "scale", run: |cpu, x, _, _| scale(cpu, x, 1.5), reference: |x, _, _| map2(x, x, |x, _| 1.5 * x) },
    Function {
        name: "silu",
        run: |cpu, x, _, _| silu(cpu, x),
        reference: |x, _, _| map2(x, x, |x, _| x * sigmoid64(x)),
    },
    Function {
        name: "sigmoid",
        run: |cpu, x, _, _| sigmoid(cpu, x),
        reference: |x, _, _| map2(x, x, |x, _| sigmoid64(x)),
    },
    Function {
        name: "mul_sigmoid",
        run: |cpu, x, y, _| mul_sigmoid(cpu, x, y),
        reference: |x, y, _| map2(x, y, |x, y| x * sigmoid64(y)),
    },
    Function {
        name: "softplus",
        run: |cpu, x, _, _| softplus(cpu, x),
        reference: |x, _, _| map2(x, x, |x, _| x.exp().ln_1p()),
    },
    Function {
        name: "l2_norm_in_place",
        run: |cpu, x, _, _| l2_norm_in_place(cpu, x, 1e-5),
        reference: |x, _, _| {
            let factor = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() + 1e-5).sqrt();
            map2(x, x, |x, _| x * factor)
        },
    },
    Function {
        name: "silu_mul",
        run: |cpu, x, y, _| silu_mul(cpu, x, y),
        reference: |x, y, _| map2(x, y, |x, y| x * sigmoid64(x) * y),
    },
    Function { name: "gelu", run: |cpu, x, _, _| gelu(cpu, x), reference: |x, _, _| map2(x, x, |x, _| gelu64(x)) },
    Function {
        name: "gelu_mul",
        run: |cpu, x, y, _| gelu_mul(cpu, x, y),
        reference: |x, y, _| map2(x, y, |x, y| gelu64(x) * y),
    },
    Function {
        name: "clamped_swiglu",
        // Wide enough for the limits.
        run: |cpu, x, y, _| {
            let mut up = y.to_vec();
            scale(cpu, &mut up, 4.0);
            scale(cpu, x, 4.0);
            clamped_swiglu(cpu, x, &up);
        },
        reference: |x, y, _| {
            map2(x, y, |x, y| {
                let (gate, up) = ((4.0 * x).min(7.0), (4.0 * y).clamp(-7.0, 7.0));
                gate * sigmoid64(1.702 * gate) * (up + 1.0)
            })
        },
    },
    Function {
        name: "softcap",
        run: |cpu, x, _, _| softcap(cpu, x, 2.5),
        reference: |x, _, _| map2(x, x, |x, _| 2.5 * (x / 2.5).tanh()),
    },
    Function { name: "exp", run: |cpu, x, _, _| exp(cpu, x), reference: |x, _, _| map2(x, x, |x, _| x.exp()) },
    Function { name: "tanh", run: |cpu, x, _, _| tanh(cpu, x), reference: |x, _, _| map2(x, x, |x, _| x.tanh()) },
    Function { name: "softmax", run: |cpu, x, _, _| softmax(cpu, x), reference: |x, _, _| softmax64(x) },
    Function {
        name: "rms_norm_in_place",
        run: |cpu, x, w, _| rms_norm_in_place(cpu, x, Some(w), 1e-5),
        reference: |x, w, _| norm64(x, Some(w)),
    },
    Function {
        name: "rms_norm without weight",
        run: |cpu, x, _, _| {
            let from = x.to_vec();
            rms_norm(cpu, &from, None, 1e-5, x);
        },
        reference: |x, _, _| norm64(x, None),
    },
    Function {
        name: "add_rms_norm",
        run: |cpu, x, y, w| {
            let mut sum = x.to_vec();
            add_rms_norm(cpu, &mut sum, y, Some(w), 1e-5, x);
        },
        reference: |x, y, w| norm64(&map2(x, y, |x, y| x + y), Some(w)),
    },
    Function {
        name: "layer_norm",
        run: |cpu, x, w, b| {
            let from = x.to_vec();
            layer_norm(cpu, &from, w, Some(b), 1e-5, x);
        },
        reference: |x, w, b| layer64(x, w, Some(b)),
    },
    Function {
        name: "layer_norm without bias",
        run: |cpu, x, w, _| {
            let from = x.to_vec();
            layer_norm(cpu, &from, w, None, 1e-5, x);
        },
        reference: |x, w, _| layer64(x, w, None),
    },
];

#[test]
fn close_to_f64() {
    let mut rng = Rng::new(1);
    let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
    for n in lengths().filter(|&n| n > 0) {
        let [x, y, z] = [(); 3].map(|()| row(&mut rng, n));
        for function in FUNCTIONS {
            let mut got = x.clone();
            (function.run)(scalar(), &mut got, &y, &z);
            for (got, want) in got.iter().zip((function.reference)(&wide(&x), &wide(&y), &wide(&z))) {
                // A difference of near values (layer norm of two) has the error of its terms.
                let error = (f64::from(*got) - want).abs() / want.abs().max(1.0);
                assert!(error < 2e-6, "{} of {n}: {got} for {want}", function.name);
            }
        }
    }
}

#[test]
fn every_level_has_the_bits_of_scalar() {
    let mut rng = Rng::new(2);
    for n in lengths() {
        // One value further, so that nothing is aligned.
        let [x, y, z] = [(); 3].map(|()| row(&mut rng, n + 1));
        for function in FUNCTIONS {
            let mut want = x.clone();
            (function.run)(scalar(), &mut want[1..], &y[1..], &z[1..]);
            for cpu in other_levels() {
                let mut got = x.clone();
                (function.run)(cpu, &mut got[1..], &y[1..], &z[1..]);
                assert_eq!(bits(&got), bits(&want), "{} of {n} on {}", function.name, cpu.level().name());
            }
        }
    }
}

#[test]
fn nothing_outside_the_rows_is_touched() {
    let mut rng = Rng::new(3);
    for n in lengths() {
        let [x, y, z] = [(); 3].map(|()| row(&mut rng, n));
        for side in Side::ALL {
            let [mut x, y, z] = [x.clone(), y.clone(), z.clone()].map(|row| Guarded::new(&row, side));
            let mut halves = Guarded::new(&vec![0u16; n], side);
            for cpu in [vec![scalar()], other_levels()].concat() {
                for function in FUNCTIONS {
                    (function.run)(cpu, &mut x, &y, &z);
                }
                to_f16(cpu, &y, &mut halves);
                from_f16(cpu, &halves, &mut x);
                argmax(cpu, &y);
                log_sum_exp(cpu, &y);
                for style in [RopeStyle::Pairs, RopeStyle::Halves] {
                    rope(cpu, &mut x, n.max(1), style, &y[..n / 2], &z[..n / 2]);
                }
            }
        }
    }
}

/// The sum of squares by the contract of the crate, for the norm of ones and its like.
#[test]
fn sums_are_sixteen_lanes_and_a_tree() {
    let mut rng = Rng::new(4);
    for n in lengths().filter(|&n| n > 0) {
        let x = row(&mut rng, n);
        let mut lanes = [0f32; LANES];
        for (i, x) in x.iter().enumerate() {
            lanes[i % LANES] = x.mul_add(*x, lanes[i % LANES]);
        }
        for half in [8, 4, 2, 1] {
            for l in 0..half {
                lanes[l] += lanes[l + half];
            }
        }
        let factor = 1.0 / (lanes[0] / n as f32 + 1e-6).sqrt();
        let want: Vec<f32> = x.iter().map(|x| x * factor).collect();
        let mut got = vec![0.0; n];
        rms_norm(scalar(), &x, None, 1e-6, &mut got);
        assert_eq!(bits(&got), bits(&want), "{n}");
    }
}

#[test]
fn the_fused_norm_is_add_and_norm() {
    let mut rng = Rng::new(5);
    for n in lengths() {
        let [x, y, w] = [(); 3].map(|()| row(&mut rng, n));
        let (mut sum, mut want) = (x.clone(), vec![0.0; n]);
        add(scalar(), &mut sum, &y);
        rms_norm(scalar(), &sum, Some(&w), 1e-5, &mut want);
        let (mut fused, mut got) = (x, vec![0.0; n]);
        add_rms_norm(scalar(), &mut fused, &y, Some(&w), 1e-5, &mut got);
        assert_eq!((bits(&fused), bits(&got)), (bits(&sum), bits(&want)));
    }
}

#[test]
fn rope_rotates_the_pairs_of_its_style() {
    let mut rng = Rng::new(6);
    for head_dim in (1..=40).chain([64, 80, 128, 256]) {
        for rotated in [0, head_dim / 4, head_dim / 3, head_dim / 2] {
            for heads in [0, 1, 3, 9] {
                let x = row(&mut rng, heads * head_dim);
                let angles = row(&mut rng, rotated);
                let cos: Vec<f32> = angles.iter().map(|a| a.cos()).collect();
                let sin: Vec<f32> = angles.iter().map(|a| a.sin()).collect();
                for style in [RopeStyle::Pairs, RopeStyle::Halves] {
                    let mut want = x.clone();
                    for head in want.chunks_exact_mut(head_dim) {
                        for i in 0..rotated {
                            let (a, b) = match style {
                                RopeStyle::Pairs => (2 * i, 2 * i + 1),
                                RopeStyle::Halves => (i, i + rotated),
                            };
                            let (x, y) = (head[a], head[b]);
                            head[a] = x.mul_add(cos[i], -(y * sin[i]));
                            head[b] = y.mul_add(cos[i], x * sin[i]);
                        }
                    }
                    for cpu in [vec![scalar()], other_levels()].concat() {
                        let mut got = x.clone();
                        rope(cpu, &mut got, head_dim, style, &cos, &sin);
                        let level = cpu.level().name();
                        assert_eq!(bits(&got), bits(&want), "{style:?} {heads}x{head_dim}, {rotated} pairs, {level}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_half_is_converted_as_half_rs_does() {
    let halves: Vec<u16> = (0..=u16::MAX).collect();
    for cpu in [vec![scalar()], other_levels()].concat() {
        for rest in 0..=17 {
            // To the bit, NaN included.
            let halves = &halves[rest..];
            let mut got = vec![0.0; halves.len()];
            from_f16(cpu, halves, &mut got);
            for (&half, got) in halves.iter().zip(&got) {
                assert_eq!(got.to_bits(), f16_to_f32(half).to_bits(), "{half:#06x} on {}", cpu.level().name());
            }
        }
    }
}

#[test]
fn f32_is_rounded_to_f16_as_half_rs_does() {
    let mut rng = Rng::new(8);
    // Any bits at all, and the middles between neighbours with what is next to them.
    let mut x: Vec<f32> = (0..200_000).map(|_| f32::from_bits(rng.bits() as u32)).collect();
    for half in 0..0x7c00u16 {
        let middle = (f16_to_f32(half) + f16_to_f32(half + 1).min(65536.0)) / 2.0;
        x.extend([middle, middle.next_up(), middle.next_down(), -middle, f16_to_f32(half)]);
    }
    x.extend([f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0xffbf_ffff), f32::INFINITY, -0.0, 1e-45]);
    for cpu in [vec![scalar()], other_levels()].concat() {
        let mut got = vec![0; x.len()];
        to_f16(cpu, &x, &mut got);
        for (&x, &got) in x.iter().zip(&got) {
            assert_eq!(got, f32_to_f16(x), "{:#010x} on {}", x.to_bits(), cpu.level().name());
        }
    }
}

#[test]
fn argmax_is_the_first_of_the_largest() {
    let mut rng = Rng::new(9);
    for cpu in [vec![scalar()], other_levels()].concat() {
        for n in lengths() {
            // Few different values, so that the largest is there several times, as zeros of both signs too.
            let mut x: Vec<f32> = (0..n).map(|_| [-1.0, -0.0, 0.0, f32::NEG_INFINITY][rng.below(4)]).collect();
            for largest in [0.0, 7.0, f32::INFINITY] {
                let want = x.iter().enumerate().fold(None, |best: Option<(usize, f32)>, (i, &x)| match best {
                    Some((_, most)) if x <= most => best,
                    _ => Some((i, x)),
                });
                let got = argmax(cpu, &x);
                assert_eq!(got.map(|(i, x)| (i, x.to_bits())), want.map(|(i, x)| (i, x.to_bits())), "{x:?}");
                if n > 0 {
                    x[rng.below(n)] = largest;
                    x[rng.below(n)] = largest;
                }
            }
            if n > 0 {
                x[rng.below(n)] = f32::NAN;
                assert_eq!(argmax(cpu, &x), None, "{x:?}");
            }
        }
        assert_eq!(argmax(cpu, &[f32::NEG_INFINITY; 20]), Some((0, f32::NEG_INFINITY)));
    }
}

#[test]
fn log_sum_exp_is_close_to_f64_and_equal_on_every_level() {
    let mut rng = Rng::new(10);
    for n in lengths() {
        let x: Vec<f32> = row(&mut rng, n).iter().map(|x| 10.0 * x).collect();
        let want = x.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
        let got = log_sum_exp(scalar(), &x);
        assert!(got == want || (got - want).abs() < 1e-6, "{n}: {got} for {want}");
        for cpu in other_levels() {
            assert_eq!(log_sum_exp(cpu, &x).to_bits(), got.to_bits());
        }
    }
}

#[test]
fn divergence_is_close_to_f64_and_equal_on_every_level() {
    let mut rng = Rng::new(11);
    for n in lengths().filter(|&n| n > 0).chain([5000]) {
        let p: Vec<f32> = row(&mut rng, n).iter().map(|x| 5.0 * x).collect();
        for noise in [0.0, 0.01, 1.0] {
            let q: Vec<f32> = p.iter().zip(row(&mut rng, n)).map(|(p, e)| p + noise * e).collect();
            let sum = |x: &[f32]| x.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
            let (p_sum, q_sum) = (sum(&p), sum(&q));
            let terms = p.iter().zip(&q).map(|(&p, &q)| {
                let (p, q) = (f64::from(p) - p_sum, f64::from(q) - q_sum);
                p.exp() * (p - q)
            });
            let want: f64 = terms.sum();
            let got = divergence(scalar(), &p, &q);
            assert!((got - want).abs() < 1e-6 + 1e-4 * want * f64::from(noise), "{n}, {noise}: {got} for {want}");
            for cpu in other_levels() {
                assert_eq!(divergence(cpu, &p, &q).to_bits(), got.to_bits());
            }
        }
    }
}

#[test]
fn what_is_not_a_number_shows() {
    for cpu in [vec![scalar()], other_levels()].concat() {
        for bad in [f32::NAN, f32::INFINITY] {
            for at in 0..20 {
                let mut x = vec![1.0; 20];
                x[at] = bad;
                assert!(log_sum_exp(cpu, &x).is_nan());
                softmax(cpu, &mut x);
                assert!(x.iter().all(|x| x.is_nan()));
            }
        }
        // Forbidden tokens have the probability zero.
        let mut x = [0.0, f32::NEG_INFINITY, 0.0];
        softmax(cpu, &mut x);
        assert_eq!(x, [0.5, 0.0, 0.5]);
    }
}

#[test]
fn lengths_that_do_not_fit_panic() {
    let fails = |f: fn(Cpu)| std::panic::catch_unwind(|| f(scalar())).is_err();
    assert!(fails(|cpu| add(cpu, &mut [0.0; 3], &[0.0; 4])));
    assert!(fails(|cpu| rms_norm_in_place(cpu, &mut [0.0; 3], Some(&[0.0; 2]), 1e-5)));
    assert!(fails(|cpu| layer_norm(cpu, &[0.0; 3], &[0.0; 3], None, 1e-5, &mut [0.0; 2])));
    assert!(fails(|cpu| to_f16(cpu, &[0.0; 3], &mut [0; 2])));
    assert!(fails(|cpu| from_f16(cpu, &[0; 3], &mut [0.0; 2])));
    assert!(fails(|cpu| rope(cpu, &mut [0.0; 6], 4, RopeStyle::Pairs, &[0.0; 2], &[0.0; 2])));
    assert!(fails(|cpu| rope(cpu, &mut [0.0; 8], 4, RopeStyle::Halves, &[0.0; 3], &[0.0; 3])));
    assert!(fails(|cpu| rope(cpu, &mut [0.0; 8], 4, RopeStyle::Halves, &[0.0; 2], &[0.0; 1])));
}
