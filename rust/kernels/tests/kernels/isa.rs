//! The fused multiply-add of every level against that of the standard library, where rounding twice goes wrong and everywhere else.

use crate::{bits, other_levels};
use fastq_kernels::LANES;
use fastq_kernels::isa::*;
use fastq_kernels::testing::Rng;
use fastq_kernels::testing::internals::fma_rows;

/// `out[i] = a[i] * b[i] + c[i]` in vectors of sixteen.
struct Lanes<'a>(&'a [[f32; 3]], &'a mut [f32]);

impl Kernel for Lanes<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for (cases, out) in self.0.chunks(LANES).zip(self.1.chunks_mut(LANES)) {
            let mut lanes = [[0.0; LANES]; 3];
            for (l, case) in cases.iter().enumerate() {
                for (lanes, x) in lanes.iter_mut().zip(case) {
                    lanes[l] = *x;
                }
            }
            let [a, b, c] = &lanes;
            isa.store_first(isa.fma(isa.load(a), isa.load(b), isa.load(c)), out);
        }
    }
}

/// Compares every level with the standard library; how many of the sums two roundings get wrong.
fn check(cases: &[[f32; 3]]) -> usize {
    let want: Vec<f32> = cases.iter().map(|&[a, b, c]| a.mul_add(b, c)).collect();
    let want_bits = bits(&want);
    for cpu in other_levels() {
        for rows in [false, true] {
            let mut got = vec![0.0; cases.len()];
            if rows {
                assert!(fma_rows(cpu, cases, &mut got), "a level with vectors");
            } else {
                dispatch(cpu, Lanes(cases, &mut got));
            }
            for ((&[a, b, c], got), want) in cases.iter().zip(bits(&got)).zip(&want_bits) {
                let bits = [a, b, c].map(f32::to_bits);
                let level = cpu.level().name();
                assert_eq!(got, *want, "{a:e} * {b:e} + {c:e} ({bits:08x?}) on {level}, rows: {rows}");
            }
        }
    }
    let twice: Vec<f32> = cases.iter().map(|&[a, b, c]| (f64::from(a) * f64::from(b) + f64::from(c)) as f32).collect();
    bits(&twice).iter().zip(&want_bits).filter(|(twice, want)| twice != want).count()
}

/// A power of two, or the nearest f32 to it.
fn power(n: i32) -> f32 {
    2f64.powi(n) as f32
}

/// Both orders of the factors and all signs.
fn push(cases: &mut Vec<[f32; 3]>, a: f32, b: f32, c: f32) {
    for signs in 0..8 {
        let sign = |bit: i32, x: f32| if signs >> bit & 1 == 0 { x } else { -x };
        cases.extend([[sign(0, a), sign(1, b), sign(2, c)], [sign(1, b), sign(0, a), sign(2, c)]]);
    }
}

#[test]
fn special_values_of_every_kind() {
    let values = [
        0.0,
        f32::from_bits(1),
        f32::from_bits(2),
        f32::from_bits(3),
        f32::from_bits(0x007f_ffff),
        f32::MIN_POSITIVE,
        f32::MIN_POSITIVE.next_up(),
        1e-30,
        power(-75),
        0.5,
        1.0f32.next_down(),
        1.0,
        1.0f32.next_up(),
        3.0,
        16_777_215.0,
        power(24),
        power(64),
        power(64).next_down(),
        power(103),
        power(104),
        power(127),
        f32::MAX.next_down(),
        f32::MAX,
        f32::INFINITY,
        f32::NAN,
    ];
    let mut cases = Vec::new();
    for a in values {
        for b in values {
            for c in values {
                push(&mut cases, a, b, c);
            }
        }
    }
    assert!(check(&cases) > 0);
}

/// A product that is the midpoint of two neighbours, and next to nothing added.
#[test]
fn products_at_midpoints() {
    let mut rng = Rng::new(21);
    let mut cases = Vec::new();
    for _ in 0..20_000 {
        // Odd factors of 25 bits together make an odd product of 25.
        let bits = 1 + rng.below(23) as u32;
        let odd = |rng: &mut Rng, bits: u32| (1 << (bits - 1) | rng.below(1 << (bits - 1)) as u32 | 1) as f32;
        let (a, b) = (odd(&mut rng, bits + 1), odd(&mut rng, 25 - bits));
        let (up, down) = (rng.below(100) as i32 - 40, rng.below(100) as i32 - 40);
        for far in [-20, -28, -29, -30, -31, -60, -149] {
            push(&mut cases, a * power(up), b * power(down), power((up + down + far).max(-149)));
        }
    }
    let wrong = check(&cases);
    assert!(wrong > cases.len() / 20, "{wrong} of {} need the second way", cases.len());
}

/// A sum that is a midpoint but for the last bits of the product.
#[test]
fn sums_near_midpoints() {
    let mut rng = Rng::new(22);
    let mut cases = Vec::new();
    for _ in 0..50_000 {
        let c = f32::from_bits(rng.bits() as u32 & 0x7fff_ffff);
        if !(power(-90)..power(120)).contains(&c) {
            continue;
        }
        let half = (f64::from(c.next_up()) - f64::from(c)) / 2.0;
        // A product of about half a step: (1 + i eps) (1 - i eps), and what is around it.
        let i = 1 + rng.below(1 << 12) as u32;
        let near = f32::from_bits(1f32.to_bits() + i);
        for other in [1.0, 2.0 - near, 1.0 / near, near] {
            let (root, other) = (half.sqrt().log2().floor() as i32, f64::from(other));
            let b = (half / 2f64.powi(root) * other) as f32;
            for b in [b, b.next_up(), b.next_down()] {
                push(&mut cases, near * power(root), b, c);
            }
        }
        let exponent = half.log2() as i32;
        // Exactly half a step, and half a step with the least and the greatest that can be told from it.
        push(&mut cases, power(exponent / 2), power(exponent - exponent / 2), c);
        let (up, down) = (1f32.next_up(), 2.0 - 1f32.next_up());
        push(&mut cases, up * power(exponent / 2), down * power(exponent - exponent / 2), c);
    }
    let wrong = check(&cases);
    assert!(wrong > 1000, "{wrong} of {} need the second way", cases.len());
}

#[test]
fn sums_among_the_subnormal_numbers() {
    let mut rng = Rng::new(23);
    let mut cases = Vec::new();
    for _ in 0..50_000 {
        let c = f32::from_bits((rng.bits() as u32 & 0x01ff_ffff) >> rng.below(25));
        for exponent in [-149, -150, -151, -152, -160, -180, -200, -230] {
            // About an odd number of half steps, the last of which may be small.
            let b = (rng.below(1 << 24) as u32 | 1 << 23) as f32 * power(-23);
            let a = if rng.below(2) == 0 { 1.0 } else { (rng.below(1 << 24) as u32 | 1) as f32 * power(-24) };
            let (half, rest) = (exponent / 2, exponent - exponent / 2);
            push(&mut cases, a * power(half), b * power(rest), c);
            push(&mut cases, power(half), power(rest), c);
            push(&mut cases, power(half), power(rest).next_down(), c);
            push(&mut cases, power(half).next_down(), power(rest).next_up(), c);
        }
        // Half a step but for (i eps)², less than the last bit of an f64 of larger sums.
        let i = 1 + rng.below(8) as u32;
        let (up, scale) = (f32::from_bits(1f32.to_bits() + i), rng.below(50) as i32 - 100);
        push(&mut cases, up * power(scale), (2.0 - up) * power(-150 - scale), c);
    }
    let wrong = check(&cases);
    assert!(wrong > 1000, "{wrong} of {} need the second way", cases.len());
}

#[test]
fn sums_near_the_end_of_the_numbers() {
    let mut rng = Rng::new(24);
    let mut cases = Vec::new();
    for _ in 0..20_000 {
        let c = f32::from_bits(f32::MAX.to_bits() - rng.below(3) as u32);
        let up = rng.below(100) as i32;
        for exponent in [105, 104, 103, 102, 60] {
            let (a, b) = (power(up), power(exponent - up));
            let a = f32::from_bits(a.to_bits() - 2 + rng.below(5) as u32);
            let b = f32::from_bits(b.to_bits() - 2 + rng.below(5) as u32);
            push(&mut cases, a, b, c);
        }
    }
    assert!(check(&cases) > 100);
}

/// Millions of sums with any bits, with exponents that meet, and with few bits, of which many are midpoints.
#[test]
fn random_numbers() {
    let mut rng = Rng::new(25);
    let mut wrong = 0;
    for round in 0..60 {
        let cases: Vec<[f32; 3]> = (0..1 << 16)
            .map(|_| match round % 3 {
                0 => [0; 3].map(|_| f32::from_bits(rng.bits() as u32)),
                1 => {
                    let mut near = |exponent: u32, range: usize| {
                        let exponent = exponent + rng.below(range) as u32;
                        f32::from_bits(rng.bits() as u32 & 0x807f_ffff | exponent << 23)
                    };
                    [near(100, 40), near(100, 40), near(60, 160)]
                }
                _ => {
                    let mut few = |exponent: u32, range: usize| {
                        let exponent = exponent + rng.below(range) as u32;
                        let fraction = (rng.bits() as u32 & 0x007f_ffff) & (u32::MAX << (11 + rng.below(12)));
                        f32::from_bits((rng.bits() as u32 & 0x8000_0000) | exponent << 23 | fraction)
                    };
                    [few(90, 30), few(90, 30), few(30, 120)]
                }
            })
            .collect();
        wrong += check(&cases);
    }
    assert!(wrong > 0);
}
