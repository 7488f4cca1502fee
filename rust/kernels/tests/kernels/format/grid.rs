use fastq_kernels::testing::fnv1a;
use fastq_kernels::testing::internals::grid::*;

/// The hash of the magnitudes in a grid, as the bytes of i8.
fn hash<const N: usize, const WIDTH: usize>(grid: &Grid<N, WIDTH>, value: impl Fn(u8) -> i8) -> u64 {
    let bytes: Vec<u8> = (0..N).flat_map(|i| grid.entry(i, 0)).map(|byte| value(byte) as u8).collect();
    fnv1a(&bytes)
}

/// Against FNV-1a of `gguf.quants.X.grid.astype(int8)` of the `gguf` package 0.19.0.
#[test]
fn grids_are_those_of_gguf() {
    let above = |offset: i32| move |byte: u8| (i32::from(byte) - offset) as i8;
    assert_eq!(hash(&IQ2_XXS, above(OFFSET)), 0xbb4e_e025_b5ac_6e8e);
    assert_eq!(hash(&IQ2_XS, above(OFFSET)), 0xc9b1_ee61_e799_09bd);
    assert_eq!(hash(&IQ2_S, above(OFFSET)), 0x123e_dd38_a3b6_2b90);
    assert_eq!(hash(&IQ3_XXS, above(OFFSET)), 0xdfa5_dc83_d6a1_55d5);
    assert_eq!(hash(&IQ3_S, above(SMALL_OFFSET)), 0xfa37_020c_25b4_4829);
    assert_eq!(hash(&IQ1, |byte| above(SMALL_OFFSET + 1)(byte) / 8), 0x6703_ed86_3501_ae2e);
}

#[test]
fn bytes_are_below_the_peaks_and_signs_turn_them_about_the_offset() {
    fn check<const N: usize, const WIDTH: usize>(grid: &Grid<N, WIDTH>, offset: i32, peak: u32) {
        let top = (0..N).flat_map(|i| [grid.entry(i, 0), grid.entry(i, 0xff)]).flatten().max();
        assert_eq!(top.map(u32::from), Some(peak));
        for i in 0..N {
            for (plus, minus) in grid.entry(i, 0).into_iter().zip(grid.entry(i, 0xff)) {
                assert!(plus > minus && (WIDTH == 8 && N == 2048 || i32::from(plus) + i32::from(minus) == 2 * offset));
            }
        }
    }
    check(&IQ2_XXS, OFFSET, IQ2_PEAK);
    check(&IQ2_XS, OFFSET, IQ2_PEAK);
    check(&IQ2_S, OFFSET, IQ2_PEAK);
    check(&IQ3_XXS, OFFSET, IQ3_XXS_PEAK);
    check(&IQ3_S, SMALL_OFFSET, IQ3_S_PEAK);
    check(&IQ1, SMALL_OFFSET, IQ1_PEAK);
}

#[test]
fn signs_have_even_parity() {
    for i in 0..128u32 {
        let signs = SIGNS.of(i << 14 | 0x3fff, 2);
        assert_eq!((u32::from(signs) & 127, signs.count_ones() % 2), (i, 0));
    }
}
