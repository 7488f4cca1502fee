use crate::levels;
use fastq_kernels::distortion::*;

#[test]
fn figures_of_a_known_row() {
    for cpu in levels() {
        let mut weights = vec![1.0f32; 40];
        let mut decoded = weights.clone();
        decoded[3] = 1.5;
        decoded[37] = -1.0;
        let found = distortion(cpu, &weights, &decoded);
        assert_eq!(found, Distortion { power: 40.0, error: 4.25, worst: 2.0 });
        assert_eq!(found.relative(), 4.25 / 40.0);
        assert!((found.snr_db() - 9.737).abs() < 1e-3);
        assert_eq!(distortion(cpu, &weights, &weights).snr_db(), f64::INFINITY);
        decoded[20] = f32::INFINITY;
        assert!(!distortion(cpu, &weights, &decoded).error.is_finite());
        assert_eq!(first_not_finite(cpu, &weights), None);
        weights[39] = f32::NEG_INFINITY;
        weights[17] = f32::NAN;
        assert_eq!(first_not_finite(cpu, &weights), Some(17));
    }
}

#[test]
fn the_same_bits_on_every_level() {
    let weights: Vec<f32> = (0..1003).map(|i| ((i * 7919) % 1000) as f32 / 377.0 - 1.3).collect();
    let decoded: Vec<f32> = weights.iter().map(|w| (w * 8.0).round() / 8.0).collect();
    let found: Vec<_> = levels().into_iter().map(|cpu| distortion(cpu, &weights, &decoded)).collect();
    assert!(found.iter().all(|other| *other == found[0]), "{found:?}");
    let [a, b] = [0..500, 500..1003].map(|part| distortion(levels()[0], &weights[part.clone()], &decoded[part]));
    assert_eq!(a.and(b).worst, found[0].worst);
    assert!((a.and(b).error / found[0].error - 1.0).abs() < 1e-12);
}
