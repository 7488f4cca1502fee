use fastq_kernels::affine::*;

const SIGNED: Grid = Grid { bits: 8, signed: true, symmetric: false, half_scales: false };

fn one(values: &[f32], grid: Grid) -> (f32, i16, Vec<i16>) {
    let (mut scale, mut zero, mut out) = ([0.0], [0], vec![0; values.len()]);
    affine(values, values.len(), grid, &mut scale, &mut zero, &mut out).expect("finite weights");
    let integers = out.iter().map(|byte| if grid.signed { i16::from(*byte as i8) } else { i16::from(*byte) });
    (scale[0], zero[0], integers.collect())
}

#[test]
fn the_known_example() {
    let (scale, zero, q) = one(&[-24.43, -17.4, 1.2345, 12.654], SIGNED);
    assert_eq!((format!("{:.4}", 1.0 / scale), zero, q), ("6.8763".into(), 40, vec![-128, -80, 48, 127]));
}

#[test]
fn every_grid_holds_its_ends_and_zero() {
    for bits in 2..=8 {
        for (signed, symmetric, half_scales) in
            [(true, true, false), (true, false, true), (false, true, true), (false, false, false)]
        {
            let grid = Grid { bits, signed, symmetric, half_scales };
            let values = [-3.0, 0.0, 0.1, 2.0, 3.0];
            let (scale, zero, q) = one(&values, grid);
            for (value, q) in values.iter().zip(&q) {
                let decoded = scale * f32::from(q - zero);
                assert!((value - decoded).abs() <= scale * 0.51 + 1e-6, "{grid:?}: {value} became {decoded}");
            }
            assert_eq!(q[1], zero, "{grid:?}");
        }
    }
}

#[test]
fn edges() {
    assert_eq!(one(&[0.0; 4], SIGNED), (1.0, -128, vec![-128; 4]));
    let (_, zero, q) = one(&[4.0, 10.0], SIGNED);
    assert_eq!((zero, q), (-128, vec![-26, 127]));
    let half = Grid { half_scales: true, symmetric: true, ..SIGNED };
    assert_eq!(one(&[1e-12, -1e-12], half).2, [0, 0]);
    let mut rest = ([0.0], [0], [0u8; 2]);
    let mut run = |values: &[f32], grid| affine(values, 2, grid, &mut rest.0, &mut rest.1, &mut rest.2);
    assert_eq!(run(&[1.0, f32::INFINITY], SIGNED), Err(AffineError::NotFinite(1, f32::INFINITY)));
    assert_eq!(run(&[1.0, 2.0], Grid { bits: 9, ..SIGNED }), Err(AffineError::Bits(9)));
    assert!(matches!(run(&[1.0, 1e8], half), Err(AffineError::ScaleRange(0, _))));
    assert!(run(&[f32::MAX, f32::MIN], SIGNED).is_ok());
    assert!(run(&[f32::from_bits(1), 0.0], SIGNED).is_ok());
}
