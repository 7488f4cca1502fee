//! Both steps against plain loops over the formulas, on all levels and between guard pages.

use crate::{bits, levels, scalar};
use fastq_kernels::recurrent::*;
use fastq_kernels::testing::{Guarded, Rng, Side};
use fastq_kernels::{Cpu, LANES};

fn row(rng: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.bell()).collect()
}

/// Index of a value in blocks of lanes with `rows` rows each.
fn at(row: usize, channel: usize, rows: usize) -> usize {
    (channel / LANES * rows + row) * LANES + channel % LANES
}

#[test]
fn a_convolution_is_a_chain_over_the_taps() {
    let mut rng = Rng::new(1);
    for channels in (1..40).chain([64, 96, 130]) {
        for taps in [1, 2, 3, 4, 7] {
            let filters = row(&mut rng, channels * taps);
            let text: Vec<Vec<f32>> = (0..9).map(|_| row(&mut rng, channels)).collect();
            let want: Vec<Vec<f32>> = (0..text.len())
                .map(|token| {
                    let chain = |channel: usize| {
                        (0..taps).fold(0.0, |sum: f32, tap| {
                            let input = (token + tap + 1).checked_sub(taps).map_or(0.0, |t| text[t][channel]);
                            filters[channel * taps + tap].mul_add(input, sum)
                        })
                    };
                    (0..channels).map(chain).collect()
                })
                .collect();
            let arranged = arrange_taps(&filters, taps);
            for (cpu, side) in levels().into_iter().zip(Side::ALL.into_iter().cycle()) {
                let arranged = Guarded::new(&arranged, side);
                let mut state = Guarded::new(&vec![0.0; convolution_state_len(channels, taps)], side);
                for (x, want) in text.iter().zip(&want) {
                    let mut x = Guarded::new(x, side);
                    convolve(cpu, &arranged, &mut state, &mut x);
                    assert_eq!(bits(&x), bits(want), "{channels} channels, {taps} taps, {}", cpu.level().name());
                }
            }
        }
    }
}

/// The formulas of the module for one token; the state is `(keys, values)`.
fn plain(step: DeltaStep<'_>, state: &mut [f32]) -> Vec<f32> {
    let values = step.value.len();
    (0..values)
        .map(|j| {
            let keys = 0..step.key.len();
            let read = keys.clone().fold(0.0, |r: f32, i| step.key[i].mul_add(step.decay * state[i * values + j], r));
            let error = (step.value[j] - read) * step.beta;
            keys.fold(0.0, |out: f32, i| {
                let cell = &mut state[i * values + j];
                *cell = step.key[i].mul_add(error, step.decay * *cell);
                step.query[i].mul_add(*cell, out)
            })
        })
        .collect()
}

#[test]
fn the_delta_rule_is_its_formula() {
    let mut rng = Rng::new(2);
    for keys in [1, 2, 16, 33, 128] {
        for values in (1..20).chain([32, 48, 64, 80, 100, 128]) {
            let mut states: Vec<_> = levels()
                .into_iter()
                .zip(Side::ALL.into_iter().cycle())
                .map(|(cpu, side)| (cpu, side, Guarded::new(&vec![0.0; delta_state_len(keys, values)], side)))
                .collect();
            let mut state = vec![0.0; keys * values];
            for _ in 0..5 {
                let [key, query] = [(); 2].map(|()| row(&mut rng, keys));
                let value = row(&mut rng, values);
                let step = DeltaStep { key: &key, query: &query, value: &value, decay: rng.unit(), beta: rng.unit() };
                let want = plain(step, &mut state);
                for (cpu, side, found) in &mut states {
                    let mut out = Guarded::new(&vec![0.0; values], *side);
                    let value = Guarded::new(&value, *side);
                    delta_rule(*cpu, DeltaStep { value: &value, ..step }, found, &mut out);
                    assert_eq!(bits(&out), bits(&want), "{keys} keys, {values} values, {}", cpu.level().name());
                    for (index, want) in state.iter().enumerate() {
                        assert_eq!(found[at(index / values, index % values, keys)].to_bits(), want.to_bits());
                    }
                }
            }
        }
    }
}

/// Threads take parts of the channels and of the values.
#[test]
fn parts_have_the_bits_of_the_whole() {
    let mut rng = Rng::new(3);
    let (keys, values, taps) = (24, 100, 4);
    let [key, query] = [(); 2].map(|()| row(&mut rng, keys));
    let value = row(&mut rng, values);
    let step = DeltaStep { key: &key, query: &query, value: &value, decay: 0.9, beta: 0.5 };
    let state = row(&mut rng, delta_state_len(keys, values));
    let filters = arrange_taps(&row(&mut rng, values * taps), taps);
    let inputs = row(&mut rng, convolution_state_len(values, taps));
    for cpu in levels() {
        let (mut whole, mut want) = (state.clone(), vec![0.0; values]);
        delta_rule(cpu, step, &mut whole, &mut want);
        let (mut filtered, mut moved) = (value.clone(), inputs.clone());
        convolve(cpu, &filters, &mut moved, &mut filtered);
        for part in [0..16, 16..64, 64..100usize] {
            let lanes = part.start..part.end.next_multiple_of(LANES);
            let (mut own, mut out) = (state[lanes.start * keys..lanes.end * keys].to_vec(), vec![0.0; part.len()]);
            delta_rule(cpu, DeltaStep { value: &value[part.clone()], ..step }, &mut own, &mut out);
            assert_eq!(bits(&out), bits(&want[part.clone()]));
            let (mut x, mut own) = (value[part.clone()].to_vec(), inputs[lanes.start * 3..lanes.end * 3].to_vec());
            convolve(cpu, &filters[lanes.start * taps..lanes.end * taps], &mut own, &mut x);
            assert_eq!((bits(&x), bits(&own)), (bits(&filtered[part]), bits(&moved[lanes.start * 3..lanes.end * 3])));
        }
    }
}

#[test]
fn lengths_that_do_not_fit_panic() {
    let fails = |f: fn(Cpu)| std::panic::catch_unwind(|| f(scalar())).is_err();
    assert!(fails(|cpu| convolve(cpu, &[0.0; 48], &mut [0.0; 16], &mut [0.0; 16])));
    assert!(fails(|cpu| convolve(cpu, &[0.0; 47], &mut [0.0; 31], &mut [0.0; 16])));
    assert!(fails(|_| drop(arrange_taps(&[0.0; 7], 2))));
    const STEP: DeltaStep<'_> =
        DeltaStep { key: &[0.0; 2], query: &[0.0; 2], value: &[0.0; 16], decay: 1.0, beta: 1.0 };
    assert!(fails(|cpu| delta_rule(cpu, STEP, &mut [0.0; 31], &mut [0.0; 16])));
    assert!(fails(|cpu| delta_rule(cpu, STEP, &mut [0.0; 32], &mut [0.0; 15])));
    assert!(fails(|cpu| delta_rule(cpu, DeltaStep { query: &[0.0; 3], ..STEP }, &mut [0.0; 32], &mut [0.0; 16])));
}
