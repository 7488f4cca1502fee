use fastq_kernels::testing::internals::nonlinear::*;

#[test]
fn the_nearest_level_is_nearest() {
    let distance = |x: f32, nibble: usize| (f64::from(x) - f64::from(LEVELS[nibble])).abs();
    for i in -1400..=1400 {
        for x in [i as f32 / 10.0, (i as f32 / 10.0).next_up(), (i as f32 / 2.0).next_down(), i as f32 / 2.0] {
            let found = usize::from(nearest_level(x));
            for other in 0..16 {
                let (here, there) = (distance(x, found), distance(x, other));
                assert!(here < there || here == there && found >= other, "{x}: {found}, not {other}");
            }
        }
    }
    assert_eq!((nearest_level(f32::NEG_INFINITY), nearest_level(f32::INFINITY)), (0, 15));
}
