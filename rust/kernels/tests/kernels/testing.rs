#[cfg(all(unix, target_pointer_width = "64"))]
mod guard;

use fastq_kernels::format::Scale;
use fastq_kernels::testing::*;
use fastq_kernels::{Format, Level};

/// Tests run on every level that is available, so this makes one that did not run a failure.
#[test]
#[allow(clippy::print_stdout, reason = "the log of CI names the levels")]
fn required_levels_are_available() {
    let available: Vec<_> = Level::available().into_iter().map(Level::name).collect();
    println!("levels tested: {}", available.join(","));
    let required = std::env::var("FASTQ_REQUIRE_LEVELS").unwrap_or_default();
    for name in required.split(',').filter(|name| !name.is_empty()) {
        assert!(available.contains(&name), "FASTQ_REQUIRE_LEVELS names {name}, available are {available:?}");
    }
}

#[test]
fn splitmix_and_fnv_are_the_published_functions() {
    // First outputs of the reference splitmix64.c for the seed 1234567.
    let mut rng = Rng::new(1_234_567);
    let expected: [u64; 3] = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
    assert_eq!(expected.map(|_| rng.bits()), expected);
    // Vectors of the FNV authors.
    assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
}

#[test]
fn bell_has_mean_zero_and_deviation_one() {
    let mut rng = Rng::new(3);
    let x: Vec<f64> = (0..100_000).map(|_| f64::from(rng.bell())).collect();
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let variance = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
}

#[test]
fn blocks_keep_to_their_bits() {
    let count = Cases::new().part_of(20_000, 4_000);
    for &format in Format::ALL {
        let info = format.info();
        for (bits, limit) in [(Bits::Sensible, 6.0), (Bits::Finite, f32::MAX)] {
            let data = blocks(&mut Rng::new(9), format, count, bits);
            let mut out = vec![0.0; count * info.block];
            format.dequantize(&data, &mut out);
            let largest = out.iter().fold(0.0f32, |top, x| if x.abs() <= top { top } else { x.abs() });
            assert!(largest <= limit && largest > 0.25, "{} {bits:?}: {largest}", info.name);
        }
        let data = blocks(&mut Rng::new(9), format, count, Bits::Any);
        let mut out = vec![0.0; count * info.block];
        format.dequantize(&data, &mut out);
        let always_finite = matches!(info.scales, [Scale::SmallFloat(_), ..]);
        assert_eq!(out.iter().all(|x| x.is_finite()), always_finite, "{}", info.name);
    }
}
