use fastq_kernels::testing::internals::round::*;

#[test]
fn nearest_rounds_ties_to_even() {
    for (x, expected) in [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (-2.5, -2), (2.4999998, 2), (-7.9, -8)] {
        assert_eq!(nearest(x), expected, "{x}");
    }
    for i in -4_194_303..=4_194_303 {
        assert_eq!(nearest(i as f32), i);
    }
}

#[test]
fn truncate_goes_towards_zero_and_marks_what_does_not_fit() {
    for (x, expected) in
        [(8.99, 8), (-8.99, -8), (0.0, 0), (-2_147_483_648.0, i32::MIN), (2_147_483_520.0, 2_147_483_520)]
    {
        assert_eq!(truncate(x), expected, "{x}");
    }
    for x in [2_147_483_648.0, -2_147_483_904.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
        assert_eq!(truncate(x), i32::MIN, "{x}");
    }
}
