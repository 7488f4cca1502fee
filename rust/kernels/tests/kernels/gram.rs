use fastq_kernels::gram::*;
use fastq_kernels::testing::Rng;
use fastq_kernels::{Cpu, Level};

/// Chains in plain code.
fn expected(x: &[f32], k: usize) -> Vec<f32> {
    let mut out = vec![0.0f32; k * k];
    for row in x.chunks_exact(k) {
        for i in 0..k {
            for j in 0..k {
                out[i * k + j] = row[i].mul_add(row[j], out[i * k + j]);
            }
        }
    }
    out
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn every_level_and_split_has_the_bits_of_the_chain() {
    let mut rng = Rng::new(1);
    for (n, k) in [(1, 1), (3, 7), (70, 16), (65, 33), (130, 100), (64, 160)] {
        let x: Vec<f32> = (0..n * k).map(|_| rng.bell()).collect();
        let expected = bits(&expected(&x, k));
        for level in Level::available() {
            let cpu = Cpu::new(level).expect("available");
            for (step, part) in [(k, n), (5, n), (24, 9)] {
                let mut out = vec![0.0; k * k];
                for x in x.chunks(part * k) {
                    for (index, out) in out.chunks_mut(step * k).enumerate() {
                        gram(cpu, x, k, index * step..k.min((index + 1) * step), out);
                    }
                }
                mirror(&mut out, k);
                assert!(bits(&out) == expected, "{n} rows of {k} on {}, {step} at once", level.name());
            }
            let mut sums = vec![0.0; k];
            x.chunks(3 * k).for_each(|x| add_squares(cpu, x, &mut sums));
            let diagonal: Vec<u32> = (0..k).map(|i| expected[i * k + i]).collect();
            assert!(bits(&sums) == diagonal, "squares of {n} rows of {k} on {}", level.name());
        }
    }
}

#[test]
fn a_fault_stays_where_it_belongs() {
    let (n, k) = (3, 20);
    let mut x = vec![1.0; n * k];
    x[k + 4] = f32::NAN;
    for level in Level::available() {
        let mut out = vec![0.0; k * k];
        gram(Cpu::new(level).expect("available"), &x, k, 0..k, &mut out);
        mirror(&mut out, k);
        for (index, value) in out.iter().enumerate() {
            assert_eq!(value.is_nan(), index / k == 4 || index % k == 4, "{index} on {}", level.name());
        }
    }
}
